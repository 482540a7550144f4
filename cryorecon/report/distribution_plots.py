"""Figures of how conformations are distributed, and of what vouches for them. Each returns a figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cryorecon.analysis.density import Density
from cryorecon.analysis.distribution import Distribution
from cryorecon.analysis.half_maps import CROSSED, ClusterMap
from cryorecon.analysis.leakage import WARNED, Leakage
from cryorecon.report.style import DENSITY, GREY, INK, LINES, colours, figure, style

HIGHEST = 6.0  # kT: beyond it too few particles say anything


@style()
def states(found: Distribution) -> Figure:
    """Occupancies with their errors and free energies, and the criterion that settled their number."""
    k = len(found.mixture)
    drawn = figure(7.2, 2.9)
    bars, criterion = drawn.subplots(1, 2, width_ratios=(2, 1))
    place = np.arange(1, k + 1)
    bars.bar(place, 100 * found.occupancy, yerr=100 * found.error, color=colours(k), width=0.7, capsize=3,
             error_kw={"ecolor": INK, "elinewidth": 1})
    for x, share, error, energy in zip(place, found.occupancy, found.error, found.free_energy, strict=True):
        bars.annotate(f"{energy:.1f} kT", (x, 100 * (share + error)), (0, 3), textcoords="offset points", ha="center",
                      fontsize=7.5, color=INK)
    bars.set(title="Occupancies", xlabel="state (Gaussian mixture)", ylabel="% of particles", xlim=(0.4, k + 0.6))
    bars.margins(y=0.15)
    bars.xaxis.set_major_locator(MaxNLocator(integer=True))
    bars.grid(axis="x", visible=False)
    bic = found.mixture.bic
    criterion.plot(np.arange(1, len(bic) + 1), bic - bic.min(), "o-", color=LINES[0], markersize=4)
    criterion.plot([k], [0], "o", color=LINES[1], markersize=8)
    criterion.set(title="Number of states", xlabel="states", ylabel="BIC above the smallest")
    criterion.set_yscale("symlog", linthresh=10)
    criterion.xaxis.set_major_locator(MaxNLocator(integer=True))
    return drawn


@style()
def free_energies(lines: Sequence[Density], names: Sequence[str]) -> Figure:
    """Free energy along one coordinate each, with the errors' band."""
    drawn = figure(2.6 * len(lines) + 0.4, 2.7)
    for i, (density, name) in enumerate(zip(lines, names, strict=True)):
        axes = drawn.add_subplot(1, len(lines), i + 1)
        _profile(axes, density, LINES[i % len(LINES)])
        axes.set(xlabel=name, ylabel="free energy (kT)" if i == 0 else "")
    return drawn


def _profile(axes: Axes, density: Density, colour: str) -> None:
    at, energy = density.centres[0], np.where(density.free_energy <= HIGHEST, density.free_energy, np.nan)
    axes.plot(at, energy, color=colour)
    axes.fill_between(at, energy - density.error, energy + density.error, color=colour, alpha=0.22, linewidth=0)
    axes.set_ylim(-0.4, HIGHEST + 0.2)


@style()
def landscape(plane: Density, names: Sequence[str], points: np.ndarray, walk: np.ndarray | None = None) -> Figure:
    """Free energy over two coordinates, with numbered states ``(K, 2)`` and perhaps a path ``(g, 2)``."""
    x, y = plane.centres
    energy = np.where(plane.free_energy <= HIGHEST, plane.free_energy, np.nan)
    drawn = figure(5.6, 4.6)
    axes = drawn.add_subplot()
    mesh = axes.pcolormesh(x, y, energy.T, cmap=DENSITY.reversed(), shading="nearest", vmin=0, vmax=HIGHEST)
    axes.contour(x, y, energy.T, levels=np.arange(1, HIGHEST), colors="white", linewidths=0.6, alpha=0.7)
    if walk is not None:
        axes.plot(walk[:, 0], walk[:, 1], "-", color=INK, linewidth=1.6)
        axes.plot(walk[[0, -1], 0], walk[[0, -1], 1], "o", color=INK, markersize=4)
    for number, (shade, point) in enumerate(zip(colours(len(points)), points, strict=True), 1):
        axes.plot(*point, "o", color=shade, markeredgecolor="white", markersize=9, zorder=5)
        axes.annotate(str(number), point, ha="center", va="center", fontsize=7, color="white", weight="bold", zorder=6)
    axes.set(xlabel=names[0], ylabel=names[1], title="Free energy, noise of z taken out")
    axes.grid(visible=False)
    bar = drawn.colorbar(mesh, ax=axes, shrink=0.8, aspect=26, pad=0.02)
    bar.set_label("kT above the densest place")
    bar.outline.set_visible(False)
    return drawn


@style()
def leaks(found: Leakage) -> Figure:
    """Share of each principal component that each quantity explains."""
    values = 100 * found.explained
    drawn = figure(1.1 + 0.95 * values.shape[1], 1.2 + 0.32 * len(values))
    axes = drawn.add_subplot()
    axes.imshow(values, cmap="OrRd", vmin=0, vmax=max(20.0, float(np.nanmax(values, initial=0))), aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        loud = value > 100 * WARNED
        said = "–" if np.isnan(value) else f"{value:.1f} %"
        axes.annotate(said, (j, i), ha="center", va="center", fontsize=8, color=INK if value < 40 else "white",
                      weight="bold" if loud else "normal")
    axes.set_xticks(range(values.shape[1]), [name.replace(" ", "\n") for name in found.names])
    axes.set_yticks(range(len(values)), [f"PC {i + 1}" for i in range(len(values))])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_title("Variance of z that is told by …", loc="left")
    return drawn


@style()
def cluster_fsc(found: Mapping[int, ClusterMap], apix: float) -> Figure:
    """By cluster number: FSC of the half maps, of their differences from all particles, and the decoder's with those."""
    drawn = figure(8.4, 2.9)
    shades = colours(max(found, default=0) + 1)
    kinds = (("half maps", "fsc"), ("their differences from all", "difference"), ("the decoder's with those", "decoder"))
    for i, (title, name) in enumerate(kinds):
        axes = drawn.add_subplot(1, 3, i + 1)
        for number, one in found.items():
            axes.plot(one.frequency, getattr(one, name), color=shades[number], linewidth=1.2)
        axes.axhline(CROSSED, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        ticks = np.linspace(0, 0.5, 3)
        axes.set_xticks(ticks, ["∞", *(f"{apix / tick:.3g}" for tick in ticks[1:])])
        axes.set(title=title, xlabel="resolution (Å)", ylim=(-0.25, 1.04), xlim=(0, 0.5),
                 ylabel="Fourier shell correlation" if i == 0 else "")
    return drawn
