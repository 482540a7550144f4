"""Paths through latents: straight, from neighbour to neighbour, and where particles are densest. Arrays only."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from cryorecon.analysis.latent import check_latents, drawn, fit_pca
from cryorecon.errors import InputError

SUBSAMPLE = 100_000  # particles that a neighbour graph holds at most; anchors are always among them
FLOOR = 1e-6  # densities below this share of the highest count as this share
FINE = 10  # points for each one asked for, on which a path is smoothed

LogDensity = np.ndarray | Callable[[np.ndarray], np.ndarray] | None


def even_points(line: np.ndarray, n: int) -> np.ndarray:
    """``(n, d)`` points evenly by length along the polyline ``(m, d)``, its ends among them.

    Raises
    ------
    InputError: ``n`` below 2.
    """
    if n < 2:
        raise InputError(f"path: expected at least 2 points, found {n}")
    line = np.asarray(line, np.float64)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    stops = np.linspace(0, along[-1], n)
    return np.stack([np.interp(stops, along, column) for column in line.T], 1)


def direct_path(anchors: np.ndarray, n: int) -> np.ndarray:
    """``(n, d)`` points evenly by length along the straight segments through ``anchors (a, d)``.

    Of the anchors only the first and the last are sure to be among the points.

    Raises
    ------
    InputError: fewer than 2 anchors or points.
    """
    if np.ndim(anchors) != 2 or len(anchors) < 2:
        raise InputError(f"path: expected at least 2 anchors (a, d), found an array {np.shape(anchors)}")
    return even_points(anchors, n)


def check_anchors(anchors: Sequence[int], n: int) -> np.ndarray:
    """``anchors`` as an array ``(a,)``; :class:`InputError` unless they are 2 or more of ``n`` particles."""
    found = np.asarray(anchors, np.int64)
    if found.ndim != 1 or len(found) < 2:
        raise InputError(f"anchors: expected at least 2 particles, found {found.size}")
    if found.min() < 0 or found.max() >= n:
        wrong = found[(found < 0) | (found >= n)]
        raise InputError(f"anchors: expected particles from 0 to {n - 1}, found {', '.join(map(str, wrong))}")
    return found


def path_ends(z: np.ndarray, subsample: int = 20_000, seed: int = 0) -> tuple[int, int]:
    """Two particles at the ends of the longest way through ``z (N, d)`` by near neighbours.

    From the particle nearest to the mean to one far off, from that to one far off: the ends of whatever is long. ``Far off``
    is the 99th percentile of the lengths of the ways, outliers left aside. Where a tenth of the particles can't be reached, the
    1st and 99th percentile along the first principal component.
    """
    chosen, start = _sample(z, nearest_pair(z), subsample, seed)
    graph = _neighbours(z[chosen], 10)
    end = int(start[0])
    ends = []
    for _ in range(3):
        length = dijkstra(graph, directed=False, indices=end)
        reached = np.flatnonzero(np.isfinite(length))
        if len(reached) < 0.9 * len(chosen):
            order = np.argsort(fit_pca(z[chosen]).project(z[chosen])[:, 0])
            low, high = (int(chosen[order[int(share * (len(order) - 1))]]) for share in (0.01, 0.99))
            return low, high
        end = int(reached[np.argsort(length[reached])[int(0.99 * (len(reached) - 1))]])
        ends.append(int(chosen[end]))
    return ends[1], ends[2]


def nearest_pair(z: np.ndarray) -> list[int]:
    """The particle nearest to the mean, and another: anchors where none are known."""
    check_latents(z)
    first = int(np.square(np.asarray(z, np.float64) - z.mean(0, dtype=np.float64)).sum(1).argmin())
    return [first, (first + 1) % len(z)]


def graph_path(z: np.ndarray, anchors: Sequence[int], max_neighbours: int = 10, avg_neighbours: float | None = 5,
               subsample: int = SUBSAMPLE, seed: int = 0) -> np.ndarray:
    """Particles ``(m,)`` along the shortest way from anchor to anchor, each step to a near neighbour.

    z: ``(N, d)``. anchors: particles, from 0. Each particle is joined to its ``max_neighbours`` nearest; of all edges the
    longest are cut so that ``avg_neighbours`` a particle are left (None: none is cut), as cryoDRGN's graph_traversal does.
    Two differences: a particle is not its own neighbour, and an edge may be walked both ways. Of more than ``subsample``
    particles so many are drawn at random (``seed``), the anchors with them. Where the cut parts the anchors, the average is
    doubled until they are joined.

    Raises
    ------
    InputError: no such particle, fewer than 2 anchors, no neighbours, or anchors that no chain of edges joins, uncut.
    """
    if avg_neighbours is not None and avg_neighbours <= 0:
        raise InputError(f"neighbours: expected an average above 0, found {avg_neighbours}")
    chosen, start = _sample(z, anchors, subsample, seed)
    whole = _neighbours(z[chosen], max_neighbours)
    count = whole.nnz if avg_neighbours is None else avg_neighbours * len(chosen)
    graph = _cut(whole, count)
    while not _joined(graph, start) and graph.nnz < whole.nnz:
        count *= 2
        graph = _cut(whole, count)
    legs = _shortest(graph, start, chosen)
    return chosen[np.concatenate([legs[0][:1], *(leg[1:] for leg in legs)])]


def density_path(z: np.ndarray, anchors: Sequence[int], log_density: LogDensity = None, n: int = 10,
                 max_neighbours: int = 10, subsample: int = SUBSAMPLE, seed: int = 0) -> np.ndarray:
    """``(n, d)`` points evenly by length along the path from anchor to anchor that stays where particles are dense.

    The path minimises ``J = integral of ds / p(z(s))``, the travel time at a speed equal to the density: RECOVAR's
    criterion (Gilles and Singer, PNAS 2025, doi 10.1073/pnas.2419140122), there on a grid, here on the graph of neighbours
    of ``z (N, d)``: an edge costs its length times the mean of 1/p at its ends, and Dijkstra's algorithm finds the least sum.
    Densities below a millionth of the highest count as that. The chain is then smoothed by a Gaussian of half the points'
    spacing, the anchors fixed.

    log_density: ln p up to a constant, at the particles ``(N,)`` or as a function of points ``(k, d)``; None:
    :func:`knn_log_density`. Subsample, seed and anchors are those of :func:`graph_path`.

    Raises
    ------
    InputError: as :func:`graph_path`; densities of another number or not finite.
    """
    chosen, start = _sample(z, anchors, subsample, seed)
    points = np.asarray(z[chosen], np.float64)
    values = _values(log_density, points, chosen, len(z))
    slowness = np.exp(-np.maximum(values - values.max(), math.log(FLOOR)))
    graph = _neighbours(points, max_neighbours).tocoo()
    row, column = graph.coords
    cost = csr_array((graph.data * 0.5 * (slowness[row] + slowness[column]), graph.coords), graph.shape)
    legs = [_smooth(points[leg], n) for leg in _shortest(cost, start, chosen)]
    return even_points(np.concatenate(legs), n)


def knn_log_density(z: np.ndarray, points: np.ndarray | None = None, k: int = 20) -> np.ndarray:
    """ln of the density of ``z (N, d)`` at ``points (m, d)``, or at the particles themselves (each left out of its own).

    ``p = k / (N V_d r_k^d)``: r_k the distance of the k-th nearest particle, V_d the volume of the unit ball (Loftsgaarden
    and Quesenberry 1965), d the number of directions in which z varies. Its noise is about ``1/sqrt(k)`` in ln p. Embedding
    errors are not deconvolved.

    Raises
    ------
    InputError: fewer than 2 particles, or latents that are not finite.
    """
    check_latents(z)
    if len(z) < 2:
        raise InputError(f"density: expected at least 2 particles, found {len(z)}")
    place = fit_pca(z).varying
    z, points = place(z), None if points is None else place(points)
    others = len(z) - (points is None)
    k = min(k, others)
    rank = k + (points is None)
    radius = cKDTree(z).query(z if points is None else points, [rank])[0][:, 0]
    d = z.shape[1]
    ball = 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1)
    tiny = 1e-9 * max(float(z.std(0).max()), 1e-30)  # particles that coincide
    return math.log(k) - math.log(others) - ball - d * np.log(np.maximum(radius, tiny))


def _values(log_density: LogDensity, points: np.ndarray, chosen: np.ndarray, n: int) -> np.ndarray:
    """ln p at the chosen particles."""
    if log_density is None:
        return knn_log_density(points)
    values = np.asarray(log_density(points) if callable(log_density) else log_density, np.float64)
    wanted = len(points) if callable(log_density) else n
    if values.shape != (wanted,):
        raise InputError(f"density: expected one value for each of {wanted} particles, found an array {values.shape}")
    values = values if callable(log_density) else values[chosen]
    values = np.where(np.isneginf(values), np.finfo(np.float64).min, values)  # no density at all: the floor
    if not np.isfinite(values).all():
        raise InputError(f"density: expected finite logarithms, found {int((~np.isfinite(values)).sum())} that are not")
    return values


def _sample(z: np.ndarray, anchors: Sequence[int], subsample: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Particles for the graph, ascending, and the places of the anchors among them."""
    check_latents(z)
    start = check_anchors(anchors, len(z))
    chosen = np.union1d(drawn(len(z), subsample, seed), start)
    return chosen, np.searchsorted(chosen, start)


def _neighbours(z: np.ndarray, k: int) -> csr_array:
    """Lengths of the edges from each of ``z (N, d)`` to its ``k`` nearest others."""
    if k < 1:
        raise InputError(f"neighbours: expected at least 1, found {k}")
    z = np.asarray(z, np.float64)
    k = min(k, len(z) - 1)
    length, other = cKDTree(z).query(z, k + 1)
    itself = other == np.arange(len(z))[:, None]
    itself[~itself.any(1), -1] = True  # among coincident particles it may be missing: the farthest gives way
    length = np.maximum(length[~itself], np.finfo(np.float32).tiny)  # a stored zero would be no edge
    return csr_array((length, (np.repeat(np.arange(len(z)), k), other[~itself])), (len(z), len(z)))


def _cut(graph: csr_array, count: float) -> csr_array:
    """The ``count`` shortest edges of a graph, and those as long as the longest of them."""
    if count >= graph.nnz:
        return graph
    place = max(int(count), 1) - 1
    edges = graph.tocoo()
    kept = edges.data <= np.partition(edges.data, place)[place]
    return csr_array((edges.data[kept], tuple(axis[kept] for axis in edges.coords)), graph.shape)


def _joined(graph: csr_array, start: np.ndarray) -> bool:
    """Whether all anchors lie in one part of the graph."""
    return len(set(connected_components(graph, directed=False)[1][start])) == 1


def _shortest(graph: csr_array, start: np.ndarray, names: np.ndarray) -> list[np.ndarray]:
    """Nodes of the cheapest way between each anchor of ``start`` and the next, ends included."""
    legs = []
    for first, last in pairwise(start):
        cost, before = dijkstra(graph, directed=False, indices=first, return_predecessors=True)
        if not np.isfinite(cost[last]):
            raise InputError(f"path: expected particles {names[first]} and {names[last]} to be joined by near neighbours, "
                             f"found no chain ({int(np.isfinite(cost).sum())} particles are within reach of the first): "
                             "hardly any lie between; take other anchors, or more neighbours (--max-neighbors)")
        leg = [int(last)]
        while leg[-1] != first:
            leg.append(int(before[leg[-1]]))
        legs.append(np.array(leg[::-1]))
    return legs


def _smooth(line: np.ndarray, n: int) -> np.ndarray:
    """The polyline ``(m, d)`` on a fine even grid, smoothed by half the spacing of ``n`` points; its ends stay."""
    fine = even_points(line, FINE * n)
    pad = len(fine) - 1
    before, after = 2 * fine[0] - fine[pad:0:-1], 2 * fine[-1] - fine[-2 : -pad - 2 : -1]  # odd about the ends: they stay
    return gaussian_filter1d(np.concatenate([before, fine, after]), 0.5 * FINE, axis=0)[pad : pad + len(fine)]
