"""A run against the truth of a simulation: one map for each true conformation, and where z puts it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from cryorecon.analysis.latent import fit_pca, nearest_particles
from cryorecon.errors import InputError
from cryorecon.metrics.fsc import FSCCurve, auc, cryobench_curve, difference_map_correlation

Decode = Callable[[np.ndarray], Tensor]  # z (n, d) -> maps (n, D, D, D)


@dataclass(frozen=True)
class StateMaps:
    """Of S conformations that have particles.

    state: ``(S,)`` their numbers. count: ``(S,)`` particles. particle: ``(S,)``, the one whose z stands for the state.
    maps, truths: ``(S, D, D, D)``, the run's map at that z and the true one.
    """

    state: np.ndarray
    count: np.ndarray
    particle: np.ndarray
    maps: Tensor
    truths: Tensor


@dataclass(frozen=True)
class StateScores:
    """Of S conformations that have particles.

    state: ``(S,)`` their numbers. count: ``(S,)`` particles. particle: ``(S,)``, the one whose z stands for the state.
    auc: ``(S,)``, CryoBench's area under the FSC. curves: that FSC, S of them. spearman: ``(q, d)``, |rho| of each true
    coordinate with each principal component of z. difference: mean correlation of the states' difference maps; NaN for one
    state.
    """

    state: np.ndarray
    count: np.ndarray
    particle: np.ndarray
    auc: np.ndarray
    curves: list[FSCCurve]
    spearman: np.ndarray
    difference: float


def representatives(z: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each state ``(S,)`` its number, its particles' count, and the particle nearest to their mean latent.

    z ``(N, d)``, state ``(N,)``. Nothing is fitted to maps: the truth only says which particles are of one kind.
    """
    found, count, mean = state_means(z, state)
    return found, count, nearest_particles(z, mean)


def state_means(z: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each state ``(S,)`` its number, its particles' count, and their mean latent ``(S, d)``."""
    found, owner, count = np.unique(state, return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    members = np.split(order, np.cumsum(count)[:-1])
    mean = np.stack([z[rows].mean(0, dtype=np.float64) for rows in members])
    return found, count, mean


def state_maps(z: np.ndarray, state: np.ndarray, decode: Decode, truth: Callable[[int], Tensor]) -> StateMaps:
    """The map of each state of latents ``z (N, d)`` and its true map; state ``(N,)``, truth: number -> ``(D, D, D)``."""
    found, count, particle = representatives(z, state)
    progress = tqdm(particle, desc="states", unit="map", disable=None, leave=False)
    maps = torch.cat([decode(z[[index]]) for index in progress])
    return StateMaps(found, count, particle, maps, torch.stack([truth(int(number)) for number in found]))


def score_states(z: np.ndarray, state: np.ndarray, coordinate: np.ndarray, held: StateMaps,
                 mask: Tensor | None = None) -> StateScores:
    """Scores of latents ``z (N, d)`` and of the maps of their states.

    state: ``(N,)`` of each particle. coordinate: ``(S, q)``, where each state lies along its motions. mask: ``(D, D, D)``,
    multiplies maps and truths.
    """
    curves = [cryobench_curve(a, b, mask) for a, b in zip(held.maps, held.truths, strict=True)]
    difference = difference_map_correlation(held.maps, held.truths, mask) if len(held.state) > 1 else float("nan")
    return StateScores(held.state, held.count, held.particle, np.array([auc(curve) for curve in curves]), curves,
                       rank_correlations(z, coordinate[state]), difference)


def rank_correlations(z: np.ndarray, coordinate: np.ndarray) -> np.ndarray:
    """|Spearman's rho| ``(q, d)`` of each of the particles' true coordinates ``(N, q)`` with each principal component of
    ``z (N, d)``; NaN where either is constant."""
    components = fit_pca(z).project(z)
    moving = np.ptp(coordinate, axis=0) > 0
    rho = np.full((coordinate.shape[1], z.shape[1]), np.nan)
    for i in np.flatnonzero(moving):
        for j in np.flatnonzero(np.ptp(components, axis=0) > 0):
            rho[i, j] = abs(spearmanr(coordinate[:, i], components[:, j]).statistic)
    return rho


def check_truth(z: np.ndarray, state: np.ndarray, coordinate: np.ndarray) -> None:
    """Raise InputError unless each particle of ``z (N, d)`` has a ``state (N,)``, and each state a ``coordinate (S, q)``."""
    if len(z) != len(state):
        raise InputError(f"expected the true states of the run's {len(z)} particles, found {len(state)}; the truth belongs to "
                         "other particles")
    if int(state.max()) >= len(coordinate):
        raise InputError(f"expected a coordinate of each state up to {int(state.max())}, found {len(coordinate)}")
