r"""The distances of the Flatiron heterogeneity challenge: between maps, and between distributions of maps.

A submission is some maps with populations, and so is the truth. Source of the formulas: the challenge's code,
flatironinstitute/Cryo-EM-Heterogeneity-Challenge-1, revision 11a0eb1 (MIT). Its distances by Zernike3D, by
Procrustes-Wasserstein and by Gromov-Wasserstein, and the resolution at FSC 0.5, are not here.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from cryorecon.errors import InputError
from cryorecon.metrics.fsc import mean_fsc
from cryorecon.metrics.transport import transport_cost

MapDistance = Literal["l2", "corr", "bioem", "fsc"]
MAP_DISTANCES: tuple[MapDistance, ...] = get_args(MapDistance)
KL_ITERATIONS, KL_TOLERANCE = 100_000, 1e-4


def standardised(maps: Tensor, mask: Tensor | None = None) -> Tensor:
    """Voxels ``(S, M)`` float64 of maps ``(S, D, D, D)`` where the mask is not 0, less their median, over their standard
    deviation (of M - 1; the lower median of an even M)."""
    voxels = maps.reshape(len(maps), -1)
    if mask is not None:
        voxels = voxels[:, mask.reshape(-1) != 0]
    voxels = voxels.double()
    voxels = voxels - voxels.median(1, keepdim=True).values
    return voxels / voxels.std(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def map_distances(truths: Tensor, maps: Tensor, mask: Tensor | None = None) -> dict[MapDistance, np.ndarray]:
    r"""Matrices ``(S, K)`` float64 between true maps ``(S, D, D, D)`` and submitted ones ``(K, D, D, D)``, less is nearer.

    Of standardised maps a and b in the mask: ``l2`` :math:`\sum (a - b)^2`; ``corr`` :math:`-\sum ab` (the challenge keeps
    the sum itself, and ranks it as if more were farther); ``bioem`` minus the logarithm of BioEM's probability (Cossio and
    Hummer 2013, equation 10, in 3-D); ``fsc`` 1 - mean over shells of the FSC, outside the mask 0.

    Raises
    ------
    InputError: boxes differ, or a mask of fewer than three voxels.
    """
    if truths.shape[1:] != maps.shape[1:] or (mask is not None and mask.shape != maps.shape[1:]):
        raise InputError(f"map distances: expected maps and mask of one box, found {tuple(truths.shape[1:])}, "
                         f"{tuple(maps.shape[1:])}" + ("" if mask is None else f" and {tuple(mask.shape)}"))
    a, b = standardised(truths, mask), standardised(maps, mask)
    if a.shape[1] < 3:
        raise InputError(f"map distances: expected a mask of three voxels or more, found {a.shape[1]}")
    product = a @ b.T
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * product
    return {"l2": squares.clamp(min=0).numpy(), "corr": -product.numpy(), "bioem": _bioem(a, b, product).numpy(),
            "fsc": 1 - mean_fsc(_cubes(a, truths, mask), _cubes(b, maps, mask)).numpy()}


def _cubes(voxels: Tensor, maps: Tensor, mask: Tensor | None) -> Tensor:
    """Standardised voxels back on the grid of the maps."""
    if mask is None:
        return voxels.reshape(maps.shape)
    out = voxels.new_zeros(len(maps), maps[0].numel())
    out[:, mask.reshape(-1) != 0] = voxels
    return out.reshape(maps.shape)


def _bioem(a: Tensor, b: Tensor, product: Tensor) -> Tensor:
    """Minus the logarithm of BioEM's probability of each b given each a, offset and scale integrated out.

    The first term, half of pi, is the challenge's (the paper has its logarithm): a constant.
    """
    n = a.shape[1]
    o, c = a.sum(1)[:, None], b.sum(1)[None]
    oo, cc = (a**2).sum(1)[:, None], (b**2).sum(1)[None]
    joint = n * (cc * oo - product**2) + 2 * o * product * c - cc * o**2 - oo * c**2
    own = (n - 2) * (n * cc - c**2)
    tiny = torch.finfo(torch.float64).tiny
    probability = (0.5 * math.pi + math.log(2 * math.pi * math.e) * (1 - n / 2)
                   + joint.clamp(min=tiny).log() * (1.5 - n / 2) + own.clamp(min=tiny).log() * (n / 2 - 2))
    return -probability


@dataclass(frozen=True)
class DistributionDistance:
    """Over replicates ``(R,)``: emd and kl (truth to submission) and kl_back of the submitted populations, and the least
    that any populations of these maps could have. windows: true microstates after pooling."""

    emd: np.ndarray
    emd_best: np.ndarray
    kl: np.ndarray
    kl_best: np.ndarray
    kl_back: np.ndarray
    kl_back_best: np.ndarray
    windows: int


def distribution_distance(distance: np.ndarray, truth: np.ndarray, submitted: np.ndarray, pool: int = 5,
                          replicates: int = 30, fraction: float = 0.9) -> DistributionDistance:
    r"""Distance of a submission's distribution to the true one, by the challenge's rules.

    distance ``(S, K)``: true states in the order of their motion, and submitted maps; less is nearer. truth ``(S,)``,
    submitted ``(K,)``: populations. A replicate takes ``fraction`` of the true states (drawn by numpy's old generator with
    the replicate's number as seed), replaces each state's distances by their ranks among the submitted maps (1 nearest), and
    pools ``pool`` neighbouring states by sums. EMD: optimal transport of populations with that as cost; the least over
    all submitted populations sends each window to its nearest map. KL: each window belongs to its nearest map; a map's
    population is spread evenly over its windows (over all, where it has none); the least is found by expectation
    maximisation.

    Raises
    ------
    InputError: shapes that do not fit, populations that do not sum to 1, or more pooled than there are states.
    """
    n_states = len(truth)
    used = int(fraction * n_states)
    if distance.shape != (n_states, len(submitted)) or not abs(submitted.sum() - 1) < 1e-5:
        raise InputError(f"distributions: expected distances ({n_states}, {len(submitted)}) and populations that sum to 1, "
                         f"found {distance.shape} and {submitted.sum():g}")
    windows = used // pool
    if windows < 1:
        raise InputError(f"distributions: expected at most {used} states pooled ({fraction:g} of {n_states}), found {pool}")
    rows = []
    for replicate in range(replicates):
        chosen = np.sort(np.random.RandomState(replicate).choice(np.arange(n_states), used, replace=False))
        parts = np.array_split(np.arange(used), windows)
        ranks = rankdata(distance[chosen], axis=1)
        cost = np.stack([ranks[part].sum(0) for part in parts])
        weight = truth[chosen] / truth[chosen].sum()
        weight = np.array([weight[part].sum() for part in parts])
        spread = _spread(cost)
        kl, kl_back = _divergences(weight, spread @ submitted)
        best, best_back = _divergences(weight, spread @ _likeliest(spread, weight))
        rows.append((transport_cost(cost, weight, submitted), weight @ cost.min(1), kl, best, kl_back, best_back))
    emd, emd_best, kl, kl_best, kl_back, kl_back_best = np.array(rows).T
    return DistributionDistance(emd, emd_best, kl, kl_best, kl_back, kl_back_best, windows)


def _spread(cost: np.ndarray) -> np.ndarray:
    """``(W, K)``, columns that sum to 1: over which windows each map's population is spread."""
    owner = np.zeros_like(cost)
    owner[np.arange(len(cost)), cost.argmin(1)] = 1
    count = owner.sum(0)
    return np.where(count > 0, owner / np.maximum(count, 1), 1 / len(cost))


def _likeliest(spread: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Populations ``(K,)`` of least KL from ``weight (W,)``, from equal ones by expectation maximisation."""
    q = np.full(spread.shape[1], 1 / spread.shape[1])
    for _ in range(KL_ITERATIONS):
        gradient = (weight / (spread @ q)) @ spread
        q = gradient * q
        if ((np.abs(gradient - 1) <= KL_TOLERANCE + 1e-5) | (np.abs(gradient) <= KL_TOLERANCE)).all():  # numpy.isclose's two
            break
    return q


def _divergences(p: np.ndarray, q: np.ndarray) -> tuple[float, float]:
    """Kullback-Leibler divergences of p from q and of q from p; infinite where one is 0 and the other not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = p * np.log(p / q), q * np.log(q / p)
    return float(np.where(p > 0, one, 0).sum()), float(np.where(q > 0, other, 0).sum())
