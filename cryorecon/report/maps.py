"""Figures of maps and images: slices, projections, shaded surfaces, data beside prediction. Each returns a figure."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cryorecon.data.mrc import read_volume
from cryorecon.geometry.fourier import resample
from cryorecon.report.style import GREY, INK, colours, figure, pale, style
from cryorecon.report.surface import Colour, default_level, fitting_zoom, principal_view, render, turned

AXIS_NAMES = ("z", "y", "x")
PICTURE_BOX = 128  # map files are drawn at no more than this


def read_maps(paths: Sequence[Path]) -> list[Tensor]:
    """Map files, resampled to at most 128 px for drawing."""
    out = []
    for path in paths:
        density = torch.from_numpy(read_volume(path)[0])
        out.append(resample(density, min(density.shape[-1], PICTURE_BOX), 3))
    return out


def _picture(axes: Axes, image: np.ndarray, limits: tuple[float, float], title: str = "") -> None:
    axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower", interpolation="bicubic")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8, weight="normal", color=INK, pad=3, loc="center")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _scale_bar(axes: Axes, box: int, apix: float) -> None:
    """A white bar of a round length in Å at the lower left of a picture ``box`` px wide."""
    if apix <= 0:
        return
    length = next(size for size in (500, 200, 100, 50, 20, 10, 5, 2, 1, 0.1) if size <= 0.42 * box * apix)
    axes.plot([0.06 * box, 0.06 * box + length / apix], [0.07 * box] * 2, color="white", linewidth=2,
              solid_capstyle="butt")
    axes.text(0.06 * box, 0.1 * box, f"{length:g} Å", color="white", fontsize=7, va="bottom")


@style()
def slices(density: Tensor, apix: float, title: str = "") -> Figure:
    """Central slices of a map ``(D, D, D)`` (above) and its projections, the sums along each axis (below)."""
    volume = density.numpy()
    box = len(volume)
    drawn = figure(6.6, 4.6)
    low, high = np.percentile(volume, [0.5, 99.9])
    for i, name in enumerate(AXIS_NAMES):
        cut = drawn.add_subplot(2, 3, i + 1)
        _picture(cut, volume.take(box // 2, i), (float(low), float(high)), f"slice {name} = 0")
        _scale_bar(cut, box, apix)
        image = volume.sum(i)
        under = drawn.add_subplot(2, 3, i + 4)
        _picture(under, image, (float(np.percentile(image, 0.5)), float(image.max())), f"projection along {name}")
    drawn.suptitle(title, x=0.02, ha="left", fontsize=10, weight="bold")
    return drawn


@style()
def surface(density: Tensor, title: str = "", level: float | None = None) -> Figure:
    """A map's shaded surface from the front, the side and above."""
    level = default_level(density) if level is None else level
    front, zoom = principal_view(density, level), fitting_zoom(density, level)
    drawn = figure(7.2, 2.7)
    views = (("front", front), ("side, turned 90°", turned(front, "y", 90)), ("above", turned(front, "x", 90)))
    for i, (name, view) in enumerate(views):
        axes = drawn.add_subplot(1, 3, i + 1)
        axes.imshow(render(density, level, view, size=420, zoom=zoom), interpolation="antialiased")
        axes.axis("off")
        axes.set_title(name, fontsize=8, weight="normal", color=GREY, loc="center", y=-0.06)
    drawn.suptitle(f"{title}  level {level:.3g}".strip(), x=0.02, ha="left", fontsize=10, weight="bold")
    return drawn


@style()
def surfaces(maps: Sequence[Tensor], labels: Sequence[str], title: str = "", columns: int = 5,
             size: int = 230) -> Figure:
    """Shaded surfaces of several maps ``(D, D, D)``, all at one level and from one side, coloured in their order.

    ``maps`` is read one at a time (a lazy sequence may read files). The view and the level are those of the mean map.
    """
    mean = sum((maps[i] for i in range(1, len(maps))), maps[0].clone()) / len(maps)
    level = default_level(mean)
    view, zoom = principal_view(mean, level), fitting_zoom(mean, level)
    rows = -(-len(maps) // columns)
    columns = -(-len(maps) // rows)
    drawn = figure(1.55 * columns, 1.68 * rows + 0.3)
    shades: list[Colour] = [pale(shade) for shade in colours(len(maps))]
    for i, label in enumerate(labels):
        axes = drawn.add_subplot(rows, columns, i + 1)
        axes.imshow(render(maps[i], level, view, shades[i], size, zoom), interpolation="antialiased")
        axes.axis("off")
        axes.set_title(label, fontsize=8, weight="normal", loc="center", y=-0.06, color=INK)
    drawn.suptitle(title, x=0.02, ha="left", fontsize=10, weight="bold")
    return drawn


@style()
def data_and_prediction(images: np.ndarray, predicted: np.ndarray, labels: Sequence[str] = ()) -> Figure:
    """Images ``(n, D, D)``, the same low-passed, their predictions and what remains, one particle a column."""
    from scipy.ndimage import gaussian_filter

    rows = {"image": images, "smoothed": gaussian_filter(images, (0, *[images.shape[-1] / 32] * 2)),
            "prediction": predicted, "difference": images - predicted}
    n = len(images)
    drawn = figure(1.2 * n + 0.5, 1.2 * len(rows) + 0.2)
    for r, (name, pictures) in enumerate(rows.items()):
        for i in range(n):
            axes = drawn.add_subplot(len(rows), n, r * n + i + 1)
            low, high = np.percentile(pictures[i], [0.5, 99.5])
            _picture(axes, pictures[i], (float(low), float(high)), labels[i] if r == 0 and labels else "")
            if i == 0:
                axes.set_ylabel(name, fontsize=8, color=INK)
    return drawn
