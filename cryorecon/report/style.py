"""One look for every figure: quiet axes, colours that print and that the colour-blind can tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from cryorecon.data.files import atomic_path

INK, GREY, PALE = "#1c2430", "#6b7684", "#e6e9ee"
LINES = ("#1f6fb4", "#d1622b", "#2a9d73", "#8a5cb8", "#c2a01e", "#5b6b7d")

STYLE: Any = {
    "font.family": "sans-serif", "font.size": 9.0, "axes.titlesize": 10.0, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 9.0, "axes.labelcolor": INK, "axes.edgecolor": GREY,
    "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.titlepad": 8.0,
    "text.color": INK, "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0, "ytick.labelsize": 8.0, "legend.frameon": False, "legend.fontsize": 8.0,
    "axes.grid": True, "grid.color": PALE, "grid.linewidth": 0.7, "axes.axisbelow": True, "lines.linewidth": 1.6,
    "figure.facecolor": "white", "axes.facecolor": "white", "axes.prop_cycle": cycler(color=LINES),
}  # fmt: skip

DENSITY = LinearSegmentedColormap.from_list(
    "density", ["#eaf1f7", "#a9cbe4", "#5a9fd0", "#2a6fae", "#1b4480", "#151f4a"])
ALONG = LinearSegmentedColormap.from_list(
    "along", ["#2c4a8f", "#2f86b5", "#3bb3a0", "#9cc95a", "#eebf46", "#e57c3b", "#b8343f"])


def colours(n: int, colormap: Colormap = ALONG) -> list[tuple[float, float, float]]:
    """``n`` RGB colours evenly along a colormap; one is its start."""
    return [tuple(colormap(position)[:3]) for position in np.linspace(0, 1, max(n, 2))[:n]]


def pale(shade: tuple[float, float, float]) -> tuple[float, float, float]:
    """A third of the way to white: the shading of a surface needs room both ways."""
    r, g, b = (0.7 * channel + 0.3 for channel in shade)
    return r, g, b


@contextmanager
def style() -> Iterator[None]:
    """Context manager or decorator within which figures are made in this look."""
    with mpl.rc_context(STYLE):
        yield


def figure(width: float, height: float) -> Figure:
    """An empty figure, inches; no pyplot, so nothing is global and nothing leaks."""
    return Figure(figsize=(width, height), layout="constrained")


def save(drawn: Figure, path: Path, dpi: int = 180) -> Path:
    """Write a figure as PNG under a temporary name, then rename it; returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        drawn.savefig(temporary, dpi=dpi, format="png", bbox_inches="tight", pad_inches=0.08)
    return path
