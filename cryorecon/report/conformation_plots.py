"""Figures of conformations against the true ones, and of two runs against each other."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryorecon.analysis.conformation import CrossConformation, ImageScores
from cryorecon.analysis.halves import HalvesAgreement
from cryorecon.analysis.states import StateScores
from cryorecon.metrics.fsc import FSCCurve
from cryorecon.report.style import DENSITY, GREY, INK, LINES, colours, figure, style


def _many_curves(axes: Axes, curves: Sequence[FSCCurve], shades: Sequence, apix: float, title: str) -> None:
    """Curves thin, their mean thick."""
    frequency = curves[0].frequency.numpy()
    values = np.stack([curve.value.numpy() for curve in curves])
    for value, shade in zip(values, shades, strict=True):
        axes.plot(frequency, value, color=shade, linewidth=0.8, alpha=float(np.clip(12 / len(values), 0.15, 0.9)))
    axes.plot(frequency, values.mean(0), color=INK, linewidth=2, label="mean")
    _resolution_axis(axes, apix)
    axes.set(ylim=(min(-0.05, max(-1.0, float(values.min()) - 0.02)), 1.04), title=title)
    axes.legend(loc="upper right")


def _resolution_axis(axes: Axes, apix: float) -> None:
    for threshold in (0.5, 0.143):
        axes.axhline(threshold, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    ticks = np.linspace(0, 0.5, 6)
    axes.set_xticks(ticks, ["∞", *(f"{apix / tick:.3g}" for tick in ticks[1:])])
    axes.set(xlim=(0, 0.5), xlabel="resolution (Å)", ylabel="Fourier shell correlation")


@style()
def state_curves(states: StateScores, images: ImageScores, apix: float) -> Figure:
    """FSC with the true map: of each state (coloured along their numbers), and of single images; the mean of each."""
    drawn = figure(8.6, 3.5)
    left, right = drawn.subplots(1, 2, sharey=True)
    _many_curves(left, states.curves, colours(len(states.curves)), apix,
                 f"{len(states.state)} states: area {states.auc.mean():.4f}")
    _many_curves(right, images.curves, [LINES[0]] * len(images.curves), apix,
                 f"{len(images.particle)} images: area {images.auc.mean():.4f}")
    right.set_ylabel("")
    return drawn


@style()
def cross_conformation(cross: CrossConformation) -> Figure:
    """FSCCC: areas under the FSC among the true maps, among the run's, and between the two, on one scale."""
    drawn = figure(8.8, 3.2)
    panels = drawn.subplots(1, 3)
    shown = {"true maps": cross.truth, "the run's maps": cross.run, "the run's (down) with true (across)": cross.both}
    low, high = min(each.min() for each in shown.values()), max(each.max() for each in shown.values())
    place = np.unique(np.linspace(0, len(cross.state) - 1, min(5, len(cross.state))).round().astype(int))
    for axes, (title, matrix) in zip(panels, shown.items(), strict=True):
        picture = axes.imshow(matrix, cmap=DENSITY, vmin=low, vmax=high)
        axes.set_title(title, fontsize=9)
        axes.set_xticks(place, [str(cross.state[i]) for i in place])
        axes.set_yticks(place, [str(cross.state[i]) for i in place])
        axes.grid(visible=False)
        axes.set_xlabel("state")
    bar = drawn.colorbar(picture, ax=list(panels), shrink=0.8, pad=0.02)
    bar.set_label("area under the FSC", fontsize=8)
    bar.outline.set_visible(False)
    return drawn


@style()
def halves(found: HalvesAgreement) -> Figure:
    """Distances between two landscapes, and the FSC of their mean maps and of what moves."""
    drawn = figure(8.6, 3.3)
    left, right = drawn.subplots(1, 2)
    bars = {"two draws of A": found.self_a, "two draws of B": found.self_b, "A and B": found.between,
            "A and no motion": found.spread_a, "B and no motion": found.spread_b}
    shades = [GREY, GREY, LINES[0], LINES[5], LINES[5]]
    left.barh(list(bars), list(bars.values()), color=shades, height=0.65)
    left.invert_yaxis()
    left.grid(axis="y", visible=False)
    left.set(xlabel="Wasserstein distance of maps", title=f"ratio {found.ratio:.2f} (0 agree, 1 no better than no motion)")
    for name, curve, shade in (("mean maps", found.mean_fsc, LINES[5]), ("what moves", found.motion_fsc, LINES[0])):
        right.plot(curve.frequency.numpy(), curve.value.numpy(), color=shade, label=name)
    _resolution_axis(right, found.apix)
    right.set(ylim=(-0.2, 1.04), title="Agreement by resolution")
    right.legend(loc="lower left")
    return drawn
