"""What a run makes of a simulation's conformations, judged by images, neighbours, distributions and occupancies.

Nothing is fitted to the truth. What each figure is and where it comes from: docs/methods/eval_conformation.md.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cryorecon.analysis.clusters import kmeans
from cryorecon.analysis.latent import nearest_points
from cryorecon.analysis.states import Decode, StateMaps, state_means
from cryorecon.geometry.fourier import resample
from cryorecon.metrics.challenge import DistributionDistance, MapDistance, distribution_distance, map_distances
from cryorecon.metrics.fsc import FSCCurve, auc, cross_conformation, cryobench_curve
from cryorecon.metrics.neighbours import information_imbalance, neighbourhood_similarity, similarity_by_chance

OFFSETS = 5  # strided subsets of the particles whose neighbours are compared, as CryoBench takes them
NEIGHBOURS = 2000  # particles in a subset at most
RADII = np.arange(1, 21) / 100  # k as shares of a subset: CryoBench's 200 to 4,000 of 20,000
IMBALANCE_K = (1, 3)
FSCCC_STATES = 21  # Multi-CryoGAN's m = 0 ... 20
SMALL_BOX = 64  # of the maps whose distances are taken among all pairs
POOL, POOL_FROM = 5, 50  # neighbouring states that the challenge pools, where there are so many states at least


@dataclass(frozen=True)
class ImageScores:
    """particle: ``(n,)``. auc: ``(n,)``, areas under ``curves``, |FSC| of each one's map with its own state's."""

    particle: np.ndarray
    auc: np.ndarray
    curves: list[FSCCurve]


def score_images(z: np.ndarray, state: np.ndarray, decode: Decode, truth: Callable[[int], Tensor],
                 mask: Tensor | None = None, n: int = 100) -> ImageScores:
    """CryoBench's per-image FSC: the map at the z of each of about ``n`` particles against the map of its true state.

    The particles are every ``N // n``-th from the first on, as there. z ``(N, d)``, state ``(N,)``.
    """
    chosen = np.arange(0, len(z), max(1, len(z) // n))
    curves = []
    for index in tqdm(chosen, desc="images", unit="map", disable=None, leave=False):
        curve = cryobench_curve(decode(z[[index]])[0], truth(int(state[index])), mask)
        curves.append(FSCCurve(curve.frequency, curve.value.abs(), curve.convention, curve.mask))
    return ImageScores(chosen, np.array([auc(curve) for curve in curves]), curves)


@dataclass(frozen=True)
class NeighbourScores:
    """particles: in each of :data:`OFFSETS` subsets. k: ``(R,)``. similarity, deviation: ``(R,)`` per cent, mean and standard
    deviation over subsets; chance: what knows nothing has. imbalance: k -> (z to truth, truth to z, truth to truth)."""

    particles: int
    k: np.ndarray
    similarity: np.ndarray
    deviation: np.ndarray
    chance: np.ndarray
    imbalance: dict[int, tuple[float, float, float]]


def compare_neighbours(z: np.ndarray, truth: np.ndarray) -> NeighbourScores | None:
    """Neighbourhood similarity and information imbalance of latents ``(N, d)`` and true places ``(N, q)``.

    Every stride-th particle from each of five offsets on; the stride is CryoBench's 5, or more, so that a subset has 2,000
    particles at most. Imbalances are of the first subset. None where a subset would have fewer than 10 particles.
    """
    stride = max(OFFSETS, -(-len(z) // NEIGHBOURS))
    subsets = [np.arange(start, len(z), stride) for start in np.linspace(0, stride, OFFSETS, endpoint=False).astype(int)]
    size = min(map(len, subsets))
    if size < 10:
        return None
    subsets = [subset[:size] for subset in subsets]
    ks = np.unique(np.maximum(1, np.round(RADII * size).astype(int))).tolist()
    progress = tqdm(subsets, desc="neighbours", unit="subset", disable=None, leave=False)
    similarity = np.stack([neighbourhood_similarity(truth[subset], z[subset], ks) for subset in progress])
    first, true = z[subsets[0]], truth[subsets[0]]
    imbalance = {k: (information_imbalance(first, true, k), information_imbalance(true, first, k),
                     information_imbalance(true, true, k)) for k in IMBALANCE_K}
    return NeighbourScores(size, np.array(ks), similarity.mean(0), similarity.std(0), similarity_by_chance(true, ks), imbalance)


def places_of_maps(maps: Tensor) -> np.ndarray:
    """Points ``(S, S)`` whose distances are those of maps ``(S, D, D, D)``: where there are no coordinates to trust."""
    voxels = maps.reshape(len(maps), -1).double()
    voxels = voxels - voxels.mean(0)
    variance, vectors = torch.linalg.eigh(voxels @ voxels.T)
    return (vectors * variance.clamp(min=0).sqrt()).numpy()


@dataclass(frozen=True)
class CrossConformation:
    """Areas under the FSC of all pairs among at most 21 states ``state (L,)``, each ``(L, L)``: of the run's maps, of the
    true ones, and of the run's (rows) with the true ones."""

    state: np.ndarray
    run: np.ndarray
    truth: np.ndarray
    both: np.ndarray


def cross_conformations(held: StateMaps, mask: Tensor | None = None) -> CrossConformation:
    """FSCCC (Multi-CryoGAN, equation 7) of states spread evenly over all that have maps."""
    chosen = np.unique(np.linspace(0, len(held.state) - 1, min(FSCCC_STATES, len(held.state))).round().astype(int))
    maps, truths = held.maps[chosen], held.truths[chosen]
    return CrossConformation(held.state[chosen], cross_conformation(maps, mask=mask).numpy(),
                             cross_conformation(truths, mask=mask).numpy(), cross_conformation(maps, truths, mask).numpy())


@dataclass(frozen=True)
class Submission:
    """A run as the challenge sees it: maps ``(K, d, d, d)`` with populations ``(K,)`` that sum to 1."""

    maps: Tensor
    population: np.ndarray


def submit(z: np.ndarray, decode: Decode, k: int, box: int, seed: int = 0) -> Submission:
    """``k`` maps at the particles nearest to the centres of k-means, with the clusters' shares as populations."""
    clusters = kmeans(z, k, seed)
    progress = tqdm(clusters.nearest, desc="clusters", unit="map", disable=None, leave=False)
    maps = torch.stack([resample(decode(z[[index]])[0], box, 3) for index in progress])
    return Submission(maps, clusters.counts / len(z))


@dataclass(frozen=True)
class DistributionScores:
    """box: of the maps compared, px. pool: states pooled. truth: ``(S,)``, true populations in the order of the motion,
    ``state (S,)``. distances: ``(S, K)`` for each of the challenge's; result: of each."""

    box: int
    pool: int
    state: np.ndarray
    truth: np.ndarray
    distances: dict[MapDistance, np.ndarray]
    result: dict[MapDistance, DistributionDistance]


def compare_distributions(truths: Tensor, state: np.ndarray, count: np.ndarray, coordinate: np.ndarray, submitted: Submission,
                          mask: Tensor | None = None) -> DistributionScores:
    """The challenge's distances between the true distribution and a submission.

    truths ``(S, d, d, d)`` of the states ``state (S,)`` with ``count (S,)`` particles; coordinate ``(all states, q)`` gives
    the order along which neighbours are pooled. mask ``(d, d, d)``.
    """
    order = np.lexsort(coordinate[state].T[::-1])
    population = count[order] / count.sum()
    pool = POOL if len(order) >= POOL_FROM else 1
    distances = map_distances(truths[order], submitted.maps, mask)
    result = {name: distribution_distance(each, population, submitted.population, pool) for name, each in distances.items()}
    return DistributionScores(truths.shape[-1], pool, state[order], population, distances, result)


@dataclass(frozen=True)
class Occupancies:
    """Shares ``(S,)`` of states ``state (S,)``: the true ones, those of particles by the nearest mean latent, and those of
    clusters by the nearest true map."""

    state: np.ndarray
    truth: np.ndarray
    by_latent: np.ndarray
    by_map: np.ndarray

    @staticmethod
    def error(found: np.ndarray, truth: np.ndarray) -> float:
        """Total variation distance: the share of particles that is in the wrong place, 0 to 1."""
        return float(0.5 * np.abs(found - truth).sum())


def occupancies(z: np.ndarray, state: np.ndarray, scores: DistributionScores, submitted: Submission) -> Occupancies:
    """Shares of states by latents ``z (N, d)`` and by the submitted maps, beside those of ``state (N,)``.

    The nearest map is the one of highest mean FSC.
    """
    found, count, mean = state_means(z, state)
    nearest = np.bincount(nearest_points(z, mean), minlength=len(found))
    by_map = dict.fromkeys(found.tolist(), 0.0)
    for row, share in zip(scores.distances["fsc"].argmin(0), submitted.population, strict=True):
        by_map[int(scores.state[row])] += float(share)
    return Occupancies(found, count / len(z), nearest / len(z), np.array([by_map[int(number)] for number in found]))
