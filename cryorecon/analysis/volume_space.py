"""A space of maps: how far they lie apart, along what they differ, which are alike, and where particles lie in it. Arrays."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import squareform

from cryorecon.analysis.latent import chunks, fit_pca
from cryorecon.errors import InputError

LINKAGES = ("average", "ward", "complete", "single")
BLOCK = 65536  # voxels at a time that are held in double precision
FOLDS = 5
SEEN = 2.0  # particles under the kernel below which a free energy is left blank
WIDTHS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18)

Regression = Callable[[np.ndarray], np.ndarray]  # latents (n, d) -> coordinates (n, c) along the maps' components


@dataclass(frozen=True)
class VolumeSpace:
    """Of K maps of V voxels each.

    mean: ``(V,)``. components: ``(c, V)`` float32, orthonormal, by falling variance; the entry largest in size of each is
    positive. variance: ``(K,)`` along all components (maps count alike), the last 0. coordinates: ``(K, c)``. distances:
    ``(K, K)``, Euclidean.
    """

    mean: np.ndarray
    components: np.ndarray
    variance: np.ndarray
    coordinates: np.ndarray
    distances: np.ndarray

    @property
    def explained(self) -> np.ndarray:
        """Fraction of the maps' variance along each component kept, ``(c,)``."""
        return self.variance[: len(self.components)] / max(float(self.variance.sum()), 1e-300)


def compare(maps: np.ndarray, n_components: int = 20) -> VolumeSpace:
    """Distances and principal components of maps ``(K, V)`` float32, by way of their ``(K, K)`` inner products.

    Components of less than a millionth of the first one's variance are left out. Raises :class:`InputError` for fewer than 2
    maps, or maps all alike.
    """
    if maps.ndim != 2 or len(maps) < 2 or n_components < 1:
        raise InputError(f"landscape: expected at least 2 maps and 1 component, found {len(maps)} and {n_components}")
    mean = maps.mean(0, dtype=np.float64)
    inner = np.zeros((len(maps), len(maps)))
    for start in range(0, maps.shape[1], BLOCK):
        part = maps[:, start : start + BLOCK].astype(np.float64) - mean[start : start + BLOCK]
        inner += part @ part.T
    size = np.diag(inner)
    distances = np.sqrt(np.maximum(size[:, None] + size - 2 * inner, 0))
    np.fill_diagonal(distances, 0)
    value, vector = np.linalg.eigh(inner)
    value, vector = value[::-1].clip(min=0), vector[:, ::-1]
    kept = min(n_components, int((value > 1e-6 * value[0]).sum()))
    if value[0] <= 1e-12 * max(float(np.square(mean).sum()), 1e-300) * len(maps):
        raise InputError(f"landscape: expected maps that differ, found {len(maps)} alike; the run shows no motion")
    weights = (vector[:, :kept] / np.sqrt(value[:kept])).T
    components = np.empty((kept, maps.shape[1]), np.float32)
    for start in range(0, maps.shape[1], BLOCK):
        part = maps[:, start : start + BLOCK].astype(np.float64) - mean[start : start + BLOCK]
        components[:, start : start + BLOCK] = weights @ part
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)[:, 0]
    sign = np.where(largest < 0, -1.0, 1.0)
    components *= sign[:, None].astype(np.float32)
    return VolumeSpace(mean, components, value / len(maps), vector[:, :kept] * np.sqrt(value[:kept]) * sign, distances)


def agglomerate(space: VolumeSpace, n: int, method: str = "average") -> np.ndarray:
    """Cluster ``(K,)`` of each map, from 0 and at most ``n``, by agglomeration on the maps' distances.

    method: one of ``LINKAGES``. Clusters are numbered along the first component. Raises :class:`InputError` for another method
    or no cluster.
    """
    if method not in LINKAGES or n < 1:
        raise InputError(f"clusters: expected at least 1 by {', '.join(LINKAGES)}, found {n} by {method}")
    tree = linkage(squareform(space.distances, checks=False), method)
    raw = fcluster(tree, n, "maxclust")
    _, labels = np.unique(raw, return_inverse=True)
    middle = np.bincount(labels, space.coordinates[:, 0]) / np.bincount(labels)
    return np.argsort(np.argsort(middle, kind="stable"))[labels]


def regression(z: np.ndarray, coordinates: np.ndarray) -> Regression:
    """The function that takes latents to the maps' coordinates, from the ``K`` pairs ``(K, d)``, ``(K, c)``.

    A polyharmonic spline, sum of w_k |z - z_k| and a plane, through all pairs (scipy's RBFInterpolator): a linear decoder is
    met exactly, and it is linear far outside. Directions in which z does not vary are left out.
    """
    place = fit_pca(z).varying
    inside, first = np.unique(place(z), axis=0, return_index=True)
    if len(inside) < 2:
        raise InputError(f"landscape: expected maps at different latents, found {len(z)} at one")
    degree = 1 if len(inside) > 2 * (inside.shape[1] + 1) else 0
    spline = RBFInterpolator(inside, np.asarray(coordinates)[first], kernel="linear", degree=degree)
    return lambda points: spline(place(points))


def regression_score(z: np.ndarray, coordinates: np.ndarray, seed: int = 0) -> float:
    """R^2 of :func:`regression` on maps left out of it, a fifth at a time: 1 is perfect, 0 no better than the mean."""
    fold = np.random.default_rng(seed).permutation(len(z)) % FOLDS
    missed = 0.0
    for i in range(min(FOLDS, len(z))):
        predicted = regression(z[fold != i], coordinates[fold != i])(z[fold == i])
        missed += float(np.square(predicted - coordinates[fold == i]).sum())
    return 1 - missed / float(np.square(coordinates - coordinates.mean(0)).sum())


def project(z: np.ndarray, predict: Regression) -> np.ndarray:
    """Coordinates ``(N, c)`` float32 of all particles ``(N, d)``, in pieces."""
    return np.concatenate([predict(part).astype(np.float32) for part in chunks(z)])


@dataclass(frozen=True)
class FreeEnergy:
    """edges: of the cells along each axis, ``(b + 1,)``. energy: ``(b,)`` or ``(b, b)`` in kT above the lowest, by axis; NaN
    where hardly any particle was seen."""

    edges: list[np.ndarray]
    energy: np.ndarray


def free_energy(coordinates: np.ndarray, bins: int = 160) -> FreeEnergy:
    """``-ln(p / max p)`` over ``coordinates (N, 1)`` or ``(N, 2)``, p their density smoothed by a Gaussian.

    Its width is that of ``WIDTHS`` times Scott's (``N^(-1/(4 + axes))`` standard deviations of each axis, Scott 1992) which
    makes the particles likeliest when each is left out of its own density (Habbema, Hermans and van den Broek 1974). Two
    things fill barriers and flatten wells: this width, and the error of each particle's place, which is not deconvolved.
    Differences are too small rather than too large.
    """
    points = np.asarray(coordinates, np.float64)
    low, high = np.percentile(points, [0.2, 99.8], axis=0)
    scott = np.maximum(points.std(0), 1e-12) * len(points) ** (-1 / (4 + points.shape[1]))
    ends = [np.linspace(a - 3 * w, b + 3 * w, bins + 1) for a, b, w in zip(low, high, scott, strict=True)]
    count, edges = np.histogramdd(points, ends)
    cells = scott / np.array([axis[1] - axis[0] for axis in edges])
    tried = [_smoothed(count, np.maximum(width * cells, 1.0)) for width in WIDTHS]  # no narrower than a cell
    smooth, peak, _ = max(tried, key=lambda one: one[2])
    seen = smooth / peak  # particles under the kernel, each counted by its height
    shown = np.where(seen >= min(SEEN, float(seen.max())), smooth, np.nan)
    return FreeEnergy(list(edges), -np.log(shown / np.nanmax(shown)))


def _smoothed(count: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Counts smoothed by ``sigma`` cells, the height of one particle's kernel, and the log likelihood of all, each left out
    of its own density."""
    smooth = gaussian_filter(count, sigma, mode="constant")
    alone = np.zeros(count.shape)
    alone[tuple(side // 2 for side in count.shape)] = 1
    peak = float(gaussian_filter(alone, sigma, mode="constant").max())
    others = np.maximum(smooth - peak, 1e-3 * peak)[count > 0]  # a loner costs much, but not everything
    return smooth, peak, float((count[count > 0] * np.log(others)).sum())
