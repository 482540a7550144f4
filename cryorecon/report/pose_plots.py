"""Figures of poses: how far they are from the true ones, and the directions that they look from."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cryorecon.report import plots
from cryorecon.report.style import DENSITY, INK, LINES, figure, save, style


def orientation_plot(rotation: torch.Tensor | np.ndarray, path: Path) -> Path:
    """Write the orientation distribution of rotations ``(N, 3, 3)`` as a picture: :func:`plots.orientations`."""
    return save(plots.orientations(torch.as_tensor(rotation).cpu().numpy()), path)


def _floor(values: np.ndarray) -> float:
    """Where a logarithmic axis of these values begins: four decades below the largest at most."""
    return max(float(values.min()), 1e-4 * float(values.max()), 1e-4)


def _histogram(axes: Axes, values: np.ndarray, limits: tuple[float, float], unit: str) -> None:
    """Particles by error on a logarithmic axis; what is smaller than its beginning stands in the first bin."""
    values = values.astype(np.float64)  # so that what is clipped stays within the edges
    edges = np.geomspace(*limits, int(np.clip(3 * len(values) ** (1 / 3), 12, 60))).tolist()
    axes.hist(np.clip(values, *limits), edges, color=LINES[0], alpha=0.85)
    middle = float(np.median(values))
    axes.axvline(np.clip(middle, *limits), color=INK, linewidth=1.2)
    axes.annotate(f"median {middle:.3g}{unit}", (np.clip(middle, *limits), 1), (4, -2), weight="bold", fontsize=8,
                  xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
                  path_effects=[withStroke(linewidth=2.5, foreground="white")])
    axes.set(xscale="log", xlim=limits, ylabel="images")
    axes.margins(y=0.16)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def _against_defocus(axes: Axes, defocus: np.ndarray, angle: np.ndarray) -> None:
    """Density of images over defocus and error, with the median error along the defocus."""
    microns = defocus / 1e4
    low = _floor(angle)
    shown = np.clip(angle, low, None)
    if np.ptp(microns) > 0:
        axes.hexbin(microns, shown, yscale="log", gridsize=int(np.clip(np.sqrt(len(angle)), 12, 40)), bins="log",
                    cmap=DENSITY, mincnt=1, linewidths=0.2)
        parts = np.array_split(np.argsort(microns), max(1, min(12, len(microns) // 25)))
        axes.plot([np.median(microns[part]) for part in parts], [np.median(shown[part]) for part in parts], "o-",
                  color=LINES[1], markersize=3.5, label="median")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    else:
        axes.plot(microns, shown, ".", color=LINES[0])
        axes.set_yscale("log")
    axes.set(xlabel="defocus (µm)", ylabel="rotation error (°)", title="Error against defocus")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


@style()
def pose_errors(angle: np.ndarray, truth: np.ndarray, estimated: np.ndarray, shift: np.ndarray | None = None,
                unit: str = "Å", defocus: np.ndarray | None = None) -> Figure:
    """Errors of poses above, the viewing directions of both sets below.

    angle: ``(N,)`` degrees. truth, estimated: rotations ``(N, 3, 3)`` in one frame. shift: ``(N,)`` in ``unit``.
    defocus: ``(N,)`` Å. What is None is left out.
    """
    panels = 1 + (shift is not None) + (defocus is not None)
    drawn = figure(max(3.2 * panels, 7.0), 5.4)
    above, below = drawn.subfigures(2, 1, height_ratios=(1.15, 1), squeeze=False)[:, 0]
    axes = iter(np.atleast_1d(above.subplots(1, panels)))
    first = next(axes)
    _histogram(first, angle, (min(_floor(angle), 1.0), 180.0), "°")
    first.set(xlabel="rotation error (°)", title="Rotation")
    first.set_title(f"{100 * np.mean(angle <= 10):.0f} % within 10°", loc="right", fontsize=8, weight="normal")
    if shift is not None:
        second, low = next(axes), _floor(shift)
        _histogram(second, shift, (low, max(1.2 * float(shift.max()), 100 * low)), f" {unit}")
        second.set(xlabel=f"shift error ({unit})", title="Shift")
    if defocus is not None:
        _against_defocus(next(axes), defocus, angle)
    meshes = []
    for i, (name, rotation) in enumerate((("true", truth), ("estimated", estimated)), 1):
        globe = below.add_subplot(1, 2, i, projection="mollweide")
        meshes.append(plots.sphere(below, globe, rotation))
        globe.set_title(f"Viewing directions, {name}")
    highest = max(mesh.get_clim()[1] or 0.0 for mesh in meshes)
    for mesh in meshes:  # one scale for both
        mesh.set_clim(0, highest)
    return drawn
