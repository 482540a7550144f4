"""Figures of a generator's conformations: how alike its maps are, what moves along alpha, how the game went."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from cryorecon.metrics.occupancy import PARTS, TRANSITION, halfway
from cryorecon.report.style import DENSITY, GREY, INK, LINES, PALE, figure, style
from cryorecon.report.surface import projected

VIEWS = 11  # maps whose projections are shown, at most
GAME = {"distance": "critic's distance", "critic_slope": "its slope (1 is sound)", "noise": "noise (1: as measured)",
        "contrast": "log p, real less simulated",
        "generator_gradient": "generator's gradient"}  # name in metrics.jsonl -> title
SHADES = (LINES[0], PALE, LINES[1])  # of first, transition, second


@style()
def fsccc(alpha: np.ndarray, areas: np.ndarray, parts: np.ndarray | None) -> Figure:
    """FSCCC ``(n, n)`` as a heat map, and its first and last row with what ``parts (n,)`` they make of each map."""
    drawn = figure(8.8, 3.9)
    left, right = drawn.subplots(1, 2, width_ratios=(1, 1.15))
    half = (alpha[1] - alpha[0]) / 2
    ends = (alpha[0] - half, alpha[-1] + half)
    low = min(float(areas.min()), 0.98)  # maps that are all alike should look alike
    picture = left.imshow(areas, cmap=DENSITY, vmin=low, vmax=1, extent=(*ends, *ends[::-1]), interpolation="nearest")
    left.set(xlabel="α", ylabel="α", title="Every map with every other")
    left.grid(visible=False)
    bar = drawn.colorbar(picture, ax=left, shrink=0.8, aspect=26, pad=0.02)
    bar.set_label("area under the FSC, 1 is the same map", fontsize=8)
    bar.outline.set_visible(False)
    for row, name, shade in ((areas[0], "with α = 0", LINES[0]), (areas[-1], "with α = 1", LINES[1])):
        right.plot(alpha, row, "-o", markersize=3, color=shade, label=name)
    right.set(xlabel="α", xlim=ends, title="Each map with the two ends", ylabel="area under the FSC")
    if parts is not None:
        bottom, top = right.get_ylim()
        right.set_ylim(bottom, top + 0.06 * (top - bottom))  # room for the parts' names
        _strip(right, alpha, parts, half)
        right.axhline(halfway(areas), color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), label="halfway between the ends")
    drawn.legend(loc="outside lower right", ncols=3)
    return drawn


def _strip(axes: Axes, alpha: np.ndarray, parts: np.ndarray, half: float) -> None:
    """The part of each map as the ground behind it."""
    for one, part in zip(alpha, parts, strict=True):
        axes.axvspan(one - half, one + half, color=SHADES[part], alpha=0.9 if part == TRANSITION else 0.16, lw=0, zorder=0)
    for i, name in enumerate(PARTS):
        where = alpha[parts == i]
        if len(where) and (len(where) > 2 or i != TRANSITION):
            axes.annotate(name, (float(where.mean()), 1.0), xycoords=("data", "axes fraction"), xytext=(0, -3),
                          textcoords="offset points", ha="center", va="top", fontsize=7.5, color=INK)


@style()
def along_alpha(alpha: np.ndarray, maps: Tensor, view: np.ndarray) -> Figure:
    """Projections of maps ``(n, D, D, D)`` along one ``view (3, 3)``, without CTF and noise, and how they differ from their
    mean."""
    chosen = np.unique(np.linspace(0, len(alpha) - 1, min(VIEWS, len(alpha))).round().astype(int))
    images = torch.stack([projected(maps[i], view) for i in chosen]).numpy()
    change = images - images.mean(0)
    most = max(float(np.abs(change).max()), 1e-3 * float(np.abs(images).max()), 1e-12)
    drawn = figure(0.98 * len(chosen) + 0.8, 2.35)
    panels = drawn.subplots(2, len(chosen), squeeze=False)
    for column, i in enumerate(chosen):
        panels[0, column].imshow(images[column], cmap="gray", vmin=float(images.min()), vmax=float(images.max()))
        panels[1, column].imshow(change[column], cmap="RdBu_r", vmin=-most, vmax=most)
        panels[0, column].set_title(f"α = {alpha[i]:g}", fontsize=8, weight="normal", loc="center", pad=3)
    for row, name in enumerate(("projection", "less the mean")):
        panels[row, 0].set_ylabel(name, fontsize=8, color=INK)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return drawn


@style()
def game(history: Mapping[str, np.ndarray]) -> Figure:
    """The critic's distance and slope, the noise and the generator's gradient by epoch ``(E,)``."""
    shown = [name for name in GAME if name in history]
    drawn = figure(max(2.7 * len(shown), 3.4), 2.6)
    if not shown:
        drawn.text(0.5, 0.5, "no training curves: metrics.jsonl is absent or empty", ha="center", color=GREY)
        return drawn
    grows = _still_growing(history)
    for i, name in enumerate(shown):
        axes = drawn.add_subplot(1, len(shown), i + 1)
        values = history[name]
        axes.plot(history["epoch"], values, "-o" if len(values) <= 40 else "-", markersize=3, color=LINES[i])
        if name in ("critic_slope", "noise"):
            axes.axhline(1, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        if grows is not None:
            axes.axvspan(history["epoch"][0] - 0.5, grows, color=PALE, alpha=0.6, linewidth=0, zorder=0)
        axes.set(xlabel="epoch", xlim=(history["epoch"][0] - 0.5, history["epoch"][-1] + 0.5))
        axes.set_title(GAME[name], fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.ticklabel_format(axis="y", useOffset=False)
    return drawn


def _still_growing(history: Mapping[str, np.ndarray]) -> float | None:
    """Up to where the critic's band still grew, between two epochs; None where it never did."""
    band = history.get("band", np.zeros(0))
    growing = np.flatnonzero(band < band.max()) if len(band) else band
    return float(history["epoch"][growing[-1]]) + 0.5 if len(growing) else None
