r"""How far the neighbours of particles in one space are their neighbours in another: no map, no fit, any coordinates.

Both compare latents with the truth as CryoBench (Jeon et al. 2024) does. Many particles of a simulation share one true
state, and so one place. CryoBench breaks such ties by the particles' order, or by noise; here they are taken as ties.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from cryorecon.errors import InputError

ROWS = 256  # particles whose distances to all are held at a time


def _distances(*spaces: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Distances ``(rows, N)`` in each space ``(N, d)``, some particles at a time; their own is infinite."""
    n = len(spaces[0])
    for start in range(0, n, ROWS):
        rows = np.arange(start, min(start + ROWS, n))
        parts = [cdist(space[rows], space) for space in spaces]
        for part in parts:
            part[np.arange(len(rows)), rows] = np.inf
        yield parts


def _pair(a: np.ndarray, b: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise InputError(f"neighbours: expected two arrays (N, d) of the same particles, found shapes {a.shape} and {b.shape}")
    if not 1 <= k < len(a):
        raise InputError(f"neighbours: expected k from 1 to {len(a) - 1}, one less than particles, found {k}")
    return a, b


def neighbourhood_similarity(truth: np.ndarray, estimate: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    r"""Per cent of a particle's ``k`` nearest that are among its ``k`` truly nearest, mean over particles, ``(len(ks),)``.

    :math:`p(k) = \frac{100}{N} \sum_i |N_k(i) \cap N_k^{true}(i)| / k`, truth ``(N, q)``, estimate ``(N, d)``. Whatever is no
    farther than the k-th truly nearest counts as truly near: ties in the truth do no harm. Without ties it is CryoBench's,
    whose script also counts the particle itself: its figure is ``p + 100 / k``. Equal places in the estimate go by order.

    Raises
    ------
    InputError: numbers of particles differ, or a ``k`` is not below them.
    """
    for k in ks:
        truth, estimate = _pair(truth, estimate, k)
    hits = np.zeros(len(ks))
    for true, found in _distances(truth, estimate):
        ordered = np.sort(true, axis=1)
        nearest = np.argsort(found, axis=1, kind="stable")
        at = np.take_along_axis(true, nearest, 1)  # true distances, from the nearest in the estimate on
        for i, k in enumerate(ks):
            hits[i] += (at[:, :k] <= ordered[:, [k - 1]]).sum() / k
    return 100 * hits / len(truth)


def similarity_by_chance(truth: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """What an estimate that knows nothing has of :func:`neighbourhood_similarity` in the mean, ``(len(ks),)`` per cent."""
    truth, _ = _pair(truth, truth, max(ks))
    allowed = np.zeros(len(ks))
    for (true,) in _distances(truth):
        ordered = np.sort(true, axis=1)
        for i, k in enumerate(ks):
            allowed[i] += (true <= ordered[:, [k - 1]]).sum()
    return 100 * allowed / len(truth) / (len(truth) - 1)


def information_imbalance(a: np.ndarray, b: np.ndarray, k: int = 1) -> float:
    r"""How badly places in ``a (N, d)`` foretell those in ``b (N, d')``: 0 fully, 1 not at all (Glielmo et al. 2022).

    :math:`\Delta(a \to b) = \frac{2}{N} \langle r_b(i, j) \rangle`, the mean over particles i and the k nearest j in a of
    the rank of j by distance from i in b. Ties have the mean of their ranks, and of several that are equally near in a all
    count alike: what noise that breaks ties gives in the mean. So ``information_imbalance(b, b)`` is what cannot be bettered.

    Raises
    ------
    InputError: numbers of particles differ, or ``k`` is not below them.
    """
    a, b = _pair(a, b, k)
    total = 0.0
    for near, far in _distances(a, b):
        rank = rankdata(far, axis=1)
        edge = np.partition(near, k - 1, axis=1)[:, [k - 1]]
        inside, tied = near < edge, near == edge
        share = (k - inside.sum(1)) / tied.sum(1)  # of the places left for each of those at the edge
        total += float((rank * inside).sum() + ((rank * tied).sum(1) * share).sum()) / k
    return 2 * total / len(a) ** 2
