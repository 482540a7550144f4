"""Figures of numbers: latents, learning curves, Fourier shell correlation, orientations. Each returns a figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from cryorecon.report.style import DENSITY, GREY, INK, LINES, PALE, colours, figure, style

MANY = 20_000  # points above which a scatter shows a random share of them


def component_label(i: int, explained: np.ndarray) -> str:
    """Axis label of principal component ``i`` (from 0) with its share of the variance."""
    return f"PC {i + 1}  ({100 * explained[i]:.1f} % of variance)"


def _marginals(drawn: Figure, x: np.ndarray, y: np.ndarray) -> Axes:
    """Main axes with histograms of x above and of y at the right; returns the main one."""
    grid = drawn.add_gridspec(2, 2, width_ratios=(6, 1), height_ratios=(1, 6), wspace=0.02, hspace=0.02)
    main = drawn.add_subplot(grid[1, 0])
    above = drawn.add_subplot(grid[0, 0], sharex=main)
    right = drawn.add_subplot(grid[1, 1], sharey=main)
    above.hist(x, 80, color=PALE, edgecolor=GREY, linewidth=0.4, histtype="stepfilled")
    right.hist(y, 80, color=PALE, edgecolor=GREY, linewidth=0.4, histtype="stepfilled", orientation="horizontal")
    for axes in (above, right):
        axes.axis("off")
    return main


def _limits(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Limits that leave a few outliers out of sight rather than shrink everyone else."""
    for values, put in ((x, axes.set_xlim), (y, axes.set_ylim)):
        low, high = np.percentile(values, [0.1, 99.9])
        margin = 0.06 * (high - low) or 1.0
        put(max(values.min(), low - 2 * margin) - margin, min(values.max(), high + 2 * margin) + margin)


def numbered(axes: Axes, points: np.ndarray, shades: Sequence[tuple[float, float, float]]) -> None:
    """Points with their numbers from 1, readable on any ground."""
    axes.scatter(points[:, 0], points[:, 1], c=list(shades), s=46, edgecolors="white", linewidths=1.2, zorder=5)
    for number, (x, y) in enumerate(points, 1):
        axes.annotate(str(number), (x, y), (4.5, 3.5), textcoords="offset points", fontsize=7.5, weight="bold",
                      color=INK, zorder=6, path_effects=[withStroke(linewidth=2.2, foreground="white")])


def _plane(coordinates: np.ndarray) -> np.ndarray:
    """The first two columns; a one-dimensional latent gets a flat second one."""
    return coordinates[:, :2] if coordinates.shape[1] > 1 else np.c_[coordinates, np.zeros(len(coordinates))]


def _label_axes(axes: Axes, names: Sequence[str]) -> None:
    """One name labels x alone, two x and y."""
    axes.set_xlabel(names[0])
    if len(names) > 1:
        axes.set_ylabel(names[1])
    else:
        axes.set_yticks([])


def component_names(explained: np.ndarray) -> list[str]:
    """Axis labels of the first two principal components with their share of the variance."""
    return [component_label(i, explained) for i in range(min(2, len(explained)))]


@style()
def latent_scatter(coordinates: np.ndarray, names: Sequence[str], labels: np.ndarray, centres: np.ndarray) -> Figure:
    """Latents ``(N, >=1)`` in the plane, coloured by cluster ``labels (N,)``, with numbered ``centres (k, >=1)``.

    ``names``: axis labels. Of more than 20,000 particles a random share is drawn, and the title says so.
    """
    points, marks, shades = _plane(coordinates), _plane(centres), colours(len(centres))
    order = np.random.default_rng(0).permutation(len(points))[:MANY]  # random, so that no cluster lies on top
    drawn = figure(5.6, 5.2)
    axes = _marginals(drawn, points[:, 0], points[:, 1])
    alpha = float(np.clip(900 / len(order), 0.18, 0.8))
    axes.scatter(points[order, 0], points[order, 1], c=np.array(shades)[labels[order]], s=5, alpha=alpha, linewidths=0)
    numbered(axes, marks, shades)
    _limits(axes, points[:, 0], points[:, 1])
    _label_axes(axes, names)
    share = f"{len(order):,} of " if len(order) < len(points) else ""
    drawn.suptitle(f"{share}{len(points):,} particles in {len(marks)} clusters", x=0.02, ha="left", fontsize=10,
                   weight="bold")
    return drawn


@style()
def latent_density(coordinates: np.ndarray, names: Sequence[str], path: np.ndarray, path_name: str) -> Figure:
    """Density of latents ``(N, >=1)`` on hexagons (logarithmic), with numbered points ``path (k, >=1)`` on it."""
    points, marks = _plane(coordinates), _plane(path)
    drawn = figure(5.6, 5.2)
    axes = _marginals(drawn, points[:, 0], points[:, 1])
    low, high = np.percentile(points, [0.1, 99.9], axis=0)
    seen = ((points >= low - 0.3 * (high - low)) & (points <= high + 0.3 * (high - low))).all(1)
    size = int(np.clip(np.sqrt(len(points)) / 1.6, 15, 60))
    hexes = axes.hexbin(points[seen, 0], points[seen, 1], gridsize=size, cmap=DENSITY, bins="log", mincnt=1,
                        linewidths=0.2)
    numbered(axes, marks, colours(len(marks)))
    _limits(axes, points[:, 0], points[:, 1])
    _label_axes(axes, names)
    bar = drawn.colorbar(hexes, ax=axes, location="bottom", shrink=0.5, aspect=30, pad=0.02)
    bar.set_label("particles per cell", fontsize=8)
    bar.outline.set_visible(False)
    drawn.suptitle(f"Density of {len(points):,} particles; {path_name}", x=0.02, ha="left", fontsize=10,
                   weight="bold")
    return drawn


@style()
def variance(explained: np.ndarray, of: str = "z") -> Figure:
    """Share of the variance ``of`` something for each principal component ``(d,)``, and its running sum."""
    drawn = figure(4.6, 2.9)
    axes = drawn.add_subplot()
    place = np.arange(1, len(explained) + 1)
    axes.bar(place, 100 * explained, color=LINES[0], width=0.7, label="each")
    axes.plot(place, 100 * np.cumsum(explained), "o-", color=LINES[1], markersize=3.5, label="sum")
    axes.set(xlabel=f"principal component of {of}", ylabel="% of variance", ylim=(0, 104), xlim=(0.3, len(place) + 0.7))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", visible=False)
    axes.legend(loc="center right")
    return drawn


@style()
def learning_curve(history: Mapping[str, np.ndarray]) -> Figure:
    """Loss by epoch, and beside it every other loss-like number that the run wrote (KL, reconstruction, held out).

    ``history`` holds ``epoch (E,)`` and series of the same length, NaN where absent.
    """
    words = ("loss", "kl", "reconstruction", "energy", "likelihood")
    shown = ["loss"] if "loss" in history else []
    shown += [name for name in history if name not in shown and any(word in name.lower() for word in words)]
    shown = shown[:4] or [name for name in history if name != "epoch"][:1]
    drawn = figure(max(3.4 * len(shown), 3.4), 2.9)
    if not shown:
        drawn.text(0.5, 0.5, "no learning curve: metrics.jsonl is absent or empty", ha="center", color=GREY)
        return drawn
    for i, name in enumerate(shown):
        axes = drawn.add_subplot(1, len(shown), i + 1)
        values = history[name]
        axes.plot(history["epoch"], values, "-o" if len(values) <= 60 else "-", markersize=3, color=LINES[i])
        axes.set(title=name.replace("_", " "), xlabel="epoch")
        if len(values) == 1:
            axes.set_xlim(history["epoch"][0] - 1, history["epoch"][0] + 1)
        if np.isfinite(values).any():
            last = values[np.isfinite(values)][-1]
            axes.set_title(f"{last:.4g}", loc="right", color=LINES[i])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.ticklabel_format(axis="y", useOffset=False)
        low, high = axes.get_ylim()
        if high - low < 2e-3 * abs(high + low):  # a flat line should look flat
            axes.set_ylim((low + high) / 2 - 2e-3 * abs(high + low), (low + high) / 2 + 2e-3 * abs(high + low))
    return drawn


@style()
def fsc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], apix: float,
        crossings: Sequence[tuple[float, float]] = (), title: str = "") -> Figure:
    """FSC curves: name -> (frequency in cycles per pixel, value), both ``(S,)``.

    ``apix`` in Å, or 0 where unknown: the axis then counts cycles per pixel. ``crossings``: (threshold, cycles per
    pixel) to mark with the resolution there.
    """
    drawn = figure(5.4, 3.5)
    axes = drawn.add_subplot()
    for i, (name, curve) in enumerate(curves.items()):
        axes.plot(*curve, label=name, color=LINES[i % len(LINES)], linewidth=1.8 if i == 0 else 1.2,
                  alpha=1 if i == 0 else 0.75)
    for threshold in (0.5, 0.143):
        axes.axhline(threshold, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(f"{threshold:g}", (1.0, threshold), xycoords=("axes fraction", "data"), xytext=(3, 0),
                      textcoords="offset points", va="center", fontsize=7.5, color=GREY, annotation_clip=False)
    for threshold, frequency in crossings:
        axes.plot([frequency], [threshold], "o", color=LINES[0], markeredgecolor="white", markersize=6.5, zorder=5)
        said = f"{apix / frequency:.2f} Å" if apix > 0 else f"{1 / frequency:.2f} px"
        late = frequency > 0.4
        axes.annotate(said, (frequency, threshold), (-7 if late else 7, 6), textcoords="offset points", color=INK,
                      weight="bold", ha="right" if late else "left",
                      path_effects=[withStroke(linewidth=2.5, foreground="white")])
    lowest = min(float(np.min(value)) for _, value in curves.values())
    axes.set(xlim=(0, 0.5), ylim=(min(-0.05, max(lowest - 0.05, -1.0)), 1.04), ylabel="Fourier shell correlation")
    ticks = np.linspace(0, 0.5, 6)
    if apix > 0:
        axes.set_xticks(ticks, ["∞", *(f"{apix / tick:.3g}" for tick in ticks[1:])])
        axes.set_xlabel("resolution (Å)")
    else:
        axes.set_xlabel("frequency (cycles per pixel; pixel size unknown)")
    axes.legend(loc="best")
    axes.set_title(title, fontsize=9)
    return drawn


def sphere(drawn: Figure, axes: Axes, rotation: np.ndarray) -> QuadMesh:
    """Density of the viewing directions of rotations ``(N, 3, 3)`` over Mollweide ``axes`` (equal-area), with its scale.

    A direction is ``R^T (0, 0, 1)``: rot is its longitude, tilt its angle from the z axis. Even coverage is 1
    everywhere.
    """
    direction = rotation[:, 2]
    longitude, height = np.arctan2(direction[:, 1], direction[:, 0]), np.clip(direction[:, 2], -1, 1)
    bins = int(np.clip(np.sqrt(len(rotation) / 50), 4, 36))  # 2 bins^2 cells of equal area, 25 images each if even
    share, _, _ = np.histogram2d(longitude, height, (2 * bins, bins), ((-np.pi, np.pi), (-1, 1)))
    share /= max(share.mean(), 1e-9)
    x, y = np.linspace(-np.pi, np.pi, 361), np.linspace(-np.pi / 2, np.pi / 2, 181)
    column = ((x[:-1] + x[1:]) / 2 + np.pi) / np.pi * bins
    row = (np.sin((y[:-1] + y[1:]) / 2) + 1) / 2 * bins
    mesh = axes.pcolormesh(x, y, share.T[np.ix_(row.astype(int), column.astype(int))], cmap=DENSITY, vmin=0)
    axes.set(xticklabels=[], yticklabels=[])
    axes.grid(color="white", alpha=0.35, linewidth=0.5)
    bar = drawn.colorbar(mesh, ax=axes, shrink=0.7, aspect=22, pad=0.02)
    bar.set_label("relative to even", fontsize=8)
    bar.outline.set_visible(False)
    return mesh


@style()
def orientations(rotation: np.ndarray) -> Figure:
    """Viewing directions of rotations ``(N, 3, 3)``: density over the sphere, and the in-plane angles."""
    drawn = figure(7.2, 3.1)
    axes = drawn.add_subplot(1, 3, (1, 2), projection="mollweide")
    sphere(drawn, axes, rotation)
    axes.set_title(f"Viewing directions of {len(rotation):,} images")
    # psi of RELION's ZYZ angles: A[0, 2] = -cos(psi) sin(tilt), A[1, 2] = sin(psi) sin(tilt)
    inplane = np.rad2deg(np.arctan2(rotation[:, 1, 2], -rotation[:, 0, 2]))
    flat = drawn.add_subplot(1, 3, 3)
    flat.hist(inplane, [*range(-180, 181, 10)], color=LINES[0], alpha=0.85)
    flat.set(title="In-plane angle", xlabel="psi (°)", yticks=[], xticks=(-180, 0, 180), xlim=(-180, 180))
    return drawn
