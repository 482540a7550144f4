"""The report's interactive part: particles as points, maps as surfaces that turn, images, lasso. explorer.js shows it.

Everything that it shows is put into the page; numbers as :mod:`cryorecon.report.packed` writes them, words as JSON.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryorecon.analysis.clusters import Clusters
from cryorecon.analysis.latent import PCA, drawn
from cryorecon.data.mrc import read_volume
from cryorecon.geometry.fourier import resample
from cryorecon.report.packed import pack, pack_density
from cryorecon.report.page import embedded
from cryorecon.report.style import colours, pale
from cryorecon.report.surface import default_level, fitting_zoom, ground_and_top, principal_view
from cryorecon.report.thumbnails import Thumbnails

SHOWN = 50_000  # points at most
BOX = 64  # px of a map at most
BUDGET = 9_000_000  # bytes of points and maps together: a page of about 12 MB with its libraries and pictures
BOXES = (64, 56, 48, 40, 32, 24)


@dataclass(frozen=True)
class Series:
    """Maps shown one after another.

    name: a short word, unique. title: shown. kind: ``clusters`` (map i is of cluster i), ``states`` (in no order) or ``path``
    (in order; plays as a movie). maps: mrc files. z: ``(n, d)`` where they were decoded. labels: ``n`` words. particles:
    ``(n,)``, the real particle that each stands at (``clusters``, ``states``) or is nearest to (``path``), or None. first: the
    number that the first map has on its button.
    """

    name: str
    title: str
    kind: str
    maps: Sequence[Path]
    z: np.ndarray
    labels: Sequence[str]
    particles: np.ndarray | None = None
    first: int = 1


@dataclass(frozen=True)
class Curves:
    """Lines in one plot, Fourier shell correlations say. lines: name -> (frequency in 1/Å ``(n,)``, values ``(n,)``)."""

    title: str
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Explorer:
    """What the interactive part shows.

    folder: the report's; maps below it are linked to. z: ``(N, d)`` latents; pca and clusters: of them. select: the command
    that reads a lasso. umap: indices ``(m,)`` and
    positions ``(m, 2)``, or None. columns: name -> ``(N,)``, what may colour points. thumbnails: images of some particles.
    """

    folder: Path
    z: np.ndarray
    pca: PCA
    clusters: Clusters
    series: Sequence[Series]
    select: str
    umap: tuple[np.ndarray, np.ndarray] | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    thumbnails: Thumbnails | None = None
    seed: int = 0


def asset(name: str) -> str:
    """Text of a file beside this module, ``vendor/...`` too."""
    return files("cryorecon.report").joinpath(name).read_text(encoding="utf-8")


def scripts(plots: bool = True) -> list[str]:
    """The scripts of a page that shows :func:`explorer_data` or :func:`curves_data`, in their order; without ``plots`` of one
    that shows :func:`series_data` alone."""
    names = ["surface.js", "plots.js", "axes.js", "images.js", "explorer.js"]
    return [asset(name) for name in (["vendor/plotly-gl2d.min.js"] if plots else []) + names]


def shown_particles(explorer: Explorer) -> np.ndarray:
    """The particles that are drawn, ``(n,)`` in rising order: all, or a random share; with UMAP, of those that it placed."""
    pool = np.arange(len(explorer.z)) if explorer.umap is None else np.asarray(explorer.umap[0])
    numbers = explorer.z.shape[1] + len(explorer.columns) + 3
    most = min(SHOWN, int(BUDGET / 3 / (4 * 4 / 3 * numbers)))
    return pool[drawn(len(pool), most, explorer.seed)]


def explorer_data(explorer: Explorer) -> dict[str, Any]:
    """What explorer.js is given, ready for JSON.

    Maps share one box within the budget; each series has one range of densities, one level (of its mean map) and the view of
    the first series' mean.
    """
    shown, clusters, pca = shown_particles(explorer), explorer.clusters, explorer.pca
    umap = None
    if explorer.umap is not None:
        umap = pack(explorer.umap[1][np.searchsorted(explorer.umap[0], shown)].astype(np.float32))
    series = pack_series(explorer.series, explorer.folder, BUDGET * 2 // 3)
    images = explorer.thumbnails
    return {
        "total": len(explorer.z), "shown": len(shown), "zdim": explorer.z.shape[1], "select": explorer.select,
        "index": pack(shown.astype(np.uint32)), "z": pack(explorer.z[shown].astype(np.float32)),
        "label": pack(clusters.labels[shown].astype(np.uint16)), "umap": umap,
        "pca": {"mean": pca.mean.tolist(), "components": pca.components.tolist(), "explained": pca.explained.tolist()},
        "columns": [{"name": name, "values": pack(np.asarray(values)[shown].astype(np.float32))}
                    for name, values in explorer.columns.items()],
        "clusters": {"counts": clusters.counts.tolist(), "colours": _shades(len(clusters.centres))},
        "series": series,
        "images": None if images is None else {
            "side": images.tiles.shape[-1], "particles": images.particles.tolist(),
            "labels": clusters.labels[images.particles].tolist(), "tiles": pack(images.tiles)},
    }


def series_data(series: Sequence[Series], folder: Path, zdim: int) -> dict[str, Any]:
    """What explorer.js is given of maps without particles: it then shows no points."""
    return {"total": 0, "shown": 0, "zdim": zdim, "select": "", "clusters": {"counts": [], "colours": []}, "images": None,
            "series": pack_series(series, folder, BUDGET)}


def curves_data(curves: Curves) -> dict[str, Any]:
    """What explorer.js is given of a plot of lines; numbers to six digits."""
    def numbers(values: np.ndarray) -> list[float | None]:
        return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]

    return {"lines": [{"name": name, "x": numbers(x), "y": numbers(y)} for name, (x, y) in curves.lines.items()]}


def curves_markup(curves: Curves) -> str:
    """A place for the plot and its data, for :class:`cryorecon.report.page.Section`."""
    return f'<h3>{escape(curves.title)}</h3><div class="curves"></div>' + embedded(curves_data(curves), "curves-data")


def _shades(n: int) -> list[list[float]]:
    return [[round(channel, 3) for channel in pale(shade)] for shade in colours(n)]


def _few(path: Path, box: int = BOX) -> Tensor:
    density = torch.from_numpy(read_volume(path)[0]).float()
    return resample(density, min(density.shape[-1], box), 3)


def pack_series(series: Sequence[Series], folder: Path, budget: int) -> list[dict[str, Any]]:
    """Each series for explorer.js; all at one box, the largest with which their text fits ``budget`` bytes."""
    shown = [one for one in series if one.maps]
    means, tops = [], []
    for one in shown:
        mean, top = _few(one.maps[0]), -math.inf
        for i, path in enumerate(one.maps):
            density = mean if i == 0 else _few(path)
            mean = mean + (density - mean) / (i + 1)
            top = max(top, float(density.max()))
        means.append(mean)
        tops.append(top)
    grounds = [ground_and_top(mean)[0] for mean in means]
    box = _box(shown, means, grounds, tops, budget)
    view = principal_view(means[0], default_level(means[0])).ravel().tolist() if means else []
    packed = []
    for one, mean, ground, top in zip(shown, means, grounds, tops, strict=True):
        level, side = default_level(mean), min(box, mean.shape[-1])
        shades, z = _shades(len(one.maps)), np.asarray(one.z, np.float64)
        volumes = [{"label": label, "z": z[i].tolist(), "colour": shades[i],
                    "particle": None if one.particles is None else int(one.particles[i]),
                    "file": path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None,
                    "data": pack_density(_few(path), side, ground, top)}
                   for i, (path, label) in enumerate(zip(one.maps, one.labels, strict=True))]
        packed.append({"name": one.name, "title": one.title, "kind": one.kind, "first": one.first, "box": side, "low": ground,
                       "high": top, "level": level, "range": [ground + 0.2 * (level - ground), ground + 0.9 * (top - ground)],
                       "view": view, "zoom": fitting_zoom(mean, level), "volumes": volumes})
    return packed


def _box(series: Sequence[Series], means: Sequence[Tensor], grounds: Sequence[float], tops: Sequence[float],
         budget: int) -> int:
    """The largest box at which all maps, taken to pack as their means do, fit."""
    for box in BOXES:
        size = sum(len(one.maps) * len(pack_density(mean, min(box, mean.shape[-1]), low, high))
                   for one, mean, low, high in zip(series, means, grounds, tops, strict=True))
        if size <= budget:
            return box
    return BOXES[-1]
