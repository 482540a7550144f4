"""Pictures and page of what ``analyze_landscape`` found."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from cryorecon.analysis.landscape import Landscape
from cryorecon.analysis.volume_space import FreeEnergy, free_energy
from cryorecon.report import maps, plots
from cryorecon.report.page import Picture, Section, Table, ending, write_page
from cryorecon.report.style import DENSITY, LINES, colours, figure, save, style

DEEPEST = 6.0  # kT that the colours span at most


@style()
def energy_figure(energy: FreeEnergy, names: Sequence[str], marks: np.ndarray) -> Figure:
    """Free energy over one or two components, with numbered ``marks (m, 1 or 2)``."""
    drawn = figure(5.8, 4.9 if len(energy.edges) > 1 else 3.2)
    axes = drawn.add_subplot()
    middle = [(edge[1:] + edge[:-1]) / 2 for edge in energy.edges]
    top = float(np.clip(np.ceil(np.nanmax(energy.energy)), 1, DEEPEST))
    if len(middle) == 1:
        axes.plot(middle[0], energy.energy, color=LINES[0])
        height = np.interp(marks[:, 0], middle[0], np.nan_to_num(energy.energy, nan=top))
        plots.numbered(axes, np.c_[marks[:, 0], height], colours(len(marks)))
        axes.set_ylabel("free energy (kT)")
    else:
        levels = np.linspace(0, top, 4 * int(top) + 1)
        shown = np.ma.masked_invalid(np.minimum(energy.energy.T, top))
        filled = axes.contourf(*middle, shown, levels, cmap=DENSITY.reversed())
        axes.contour(*middle, shown, np.arange(1, top), colors="white", linewidths=0.7, alpha=0.8)
        plots.numbered(axes, marks, colours(len(marks)))
        bar = drawn.colorbar(filled, ax=axes, shrink=0.8, aspect=26, pad=0.02, ticks=np.arange(0, top + 1))
        bar.set_label("free energy (kT), white lines 1 kT apart", fontsize=8)
        bar.outline.set_visible(False)
        axes.set_ylabel(names[1])
        axes.set_ylim(*_span(energy, 1))
    axes.set_xlabel(names[0])
    axes.set_xlim(*_span(energy, 0))
    axes.set_title("Free energy: -ln of the particles' density")
    return drawn


def _span(energy: FreeEnergy, axis: int) -> tuple[float, float]:
    """From the first to the last cell along an axis where particles were seen."""
    seen = np.flatnonzero(np.isfinite(energy.energy).any(tuple({*range(energy.energy.ndim)} - {axis})))
    edges = energy.edges[axis]
    return float(edges[max(seen[0] - 2, 0)]), float(edges[min(seen[-1] + 3, len(edges) - 1)])


@style()
def distance_figure(distances: np.ndarray, labels: np.ndarray) -> Figure:
    """Distances of maps ``(K, K)``, ordered by state ``labels (K,)``; each state is framed and numbered from 1."""
    order = np.argsort(labels, kind="stable")
    drawn = figure(4.9, 4.4)
    axes = drawn.add_subplot()
    picture = axes.imshow(distances[np.ix_(order, order)], cmap=DENSITY.reversed(), interpolation="nearest")
    ends = np.concatenate([[0], np.cumsum(np.bincount(labels))])
    shades = colours(len(ends) - 1)
    for start, end, shade in zip(ends[:-1], ends[1:], shades, strict=True):
        axes.add_patch(Rectangle((start - 0.5, start - 0.5), end - start, end - start, fill=False, edgecolor=shade,
                                 linewidth=1.5, path_effects=[withStroke(linewidth=3, foreground="white")]))
    wide = np.flatnonzero(np.diff(ends) >= 0.03 * ends[-1])  # the numbers of narrow ones would lie on one another
    axes.set_xticks((ends[wide] + ends[wide + 1] - 1) / 2, [str(i + 1) for i in wide])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set(xlabel="state", title=f"Distances of {len(labels)} maps, by state")
    bar = drawn.colorbar(picture, ax=axes, shrink=0.8, aspect=26, pad=0.02)
    bar.set_label("distance", fontsize=8)
    bar.outline.set_visible(False)
    return drawn


def _plane(coordinates: np.ndarray) -> np.ndarray:
    return np.asarray(coordinates, np.float64)[:, :2]


def draw_landscape(found: Landscape) -> list[Picture]:
    """``landscape.png``, ``states.png``, ``distances.png``, ``variance.png``."""
    names = [name.replace("PC", "volume PC") for name in plots.component_names(found.space.explained)]
    places, states = _plane(found.coordinates), found.states
    middle = np.stack([np.median(places[states == i], 0) if (states == i).any()
                       else _plane(found.space.coordinates)[found.state_of_map == i].mean(0)
                       for i in range(len(found.counts))])
    drawn = (
        (energy_figure(free_energy(places), names, middle), "landscape.png",
         "Free energy over the maps' first components; numbers are states. The width of the smoothing and the error of each "
         "particle's place fill barriers: they are at least as high as they look.", 530),
        (plots.latent_scatter(places, names, states, middle), "states.png",
         "Every particle there, coloured by its state.", 530),
        (distance_figure(found.space.distances, found.state_of_map), "distances.png",
         "How far the maps lie apart within the mask, by state; blocks that stand out are states, a gradient is a continuum.",
         500),
        (plots.variance(found.space.explained, "the maps"), "variance.png",
         "How much of the maps' variance each component holds.", 460),
    )
    return [Picture(save(picture, found.folder / name), caption, width) for picture, name, caption, width in drawn]


def draw_states(found: Landscape) -> list[Picture]:
    """``state_maps.png``: the states' mean maps."""
    labels = [f"{i + 1}  ({count:,})" for i, count in enumerate(found.counts)]
    means = maps.surfaces(maps.read_maps(found.state_maps), labels, f"Mean maps of {len(labels)} states (particles)")
    return [Picture(save(means, found.folder / "state_maps.png"),
                    "Mean map of each state, maps counted by their particles, all at one level.")]


def draw_walks(found: Landscape) -> list[Picture]:
    """``vol_pcs/pcN/volumes.png``."""
    pictures = []
    for i, paths in enumerate(found.walk_maps):
        title = f"Mean map plus volume component {i + 1}, 5th to 95th percentile"
        drawn = maps.surfaces(maps.read_maps(paths), [str(n + 1) for n in range(len(paths))], title)
        pictures.append(Picture(save(drawn, found.folder / "vol_pcs" / f"pc{i + 1}" / "volumes.png"),
                                f"Along component {i + 1}: a straight line between maps, which fades a large motion in and "
                                "out; graph_traversal walks through real ones."))
    return pictures


def write_landscape(found: Landscape, title: str, facts: Mapping[str, str]) -> Path:
    """Draw everything and write ``index.html``; returns its path. ``facts``: name -> words on how this was made."""
    counts = found.counts
    maps_of = np.bincount(found.state_of_map, minlength=len(counts))
    rows = [(str(i + 1), f"{count:,}", f"{100 * count / counts.sum():.1f} %", str(number))
            for i, (count, number) in enumerate(zip(counts, maps_of, strict=True))]
    sections = [
        Section("Landscape", f"{len(found.sketch)} maps of real particles, compared within a mask. Every particle's place "
                f"among them is found from its z by regression (R² {found.score:.3f} on maps left out).",
                draw_landscape(found)),
        Section("States", f"Clusters of the maps by agglomeration ({found.settings.linkage} linkage), numbered along the first "
                "component. They cut a continuum as readily as they part true states.", draw_states(found),
                [Table(("state", "particles", "share", "maps"), rows)]),
        Section("Components", "What differs most among the maps.", draw_walks(found)),
        *ending(found.folder, found.files, facts),
    ]
    subtitle = f"{len(found.nearest):,} particles, {len(found.sketch)} maps of {len(found.mask)} px"
    return write_page(found.folder / "index.html", title, subtitle, sections,
                      "Made by cryorecon analyze_landscape. This page needs no network.")
