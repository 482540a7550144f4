"""A run against the truth of a simulation: one map for each true conformation, and where z puts it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from cryorecon.analysis.latent import fit_pca, nearest_particles
from cryorecon.errors import InputError
from cryorecon.metrics.fsc import difference_map_correlation, per_conformation_auc

Decode = Callable[[np.ndarray], Tensor]  # z (n, d) -> maps (n, D, D, D)


@dataclass(frozen=True)
class StateScores:
    """Of S conformations that have particles.

    state: ``(S,)`` their numbers. count: ``(S,)`` particles. particle: ``(S,)``, the one whose z stands for the state.
    auc: ``(S,)``, CryoBench's area under the FSC. spearman: ``(q, d)``, |rho| of each true coordinate with each principal
    component of z. difference: mean correlation of the states' difference maps; NaN for one state.
    """

    state: np.ndarray
    count: np.ndarray
    particle: np.ndarray
    auc: np.ndarray
    spearman: np.ndarray
    difference: float


def representatives(z: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each state ``(S,)`` its number, its particles' count, and the particle nearest to their mean latent.

    z ``(N, d)``, state ``(N,)``. Nothing is fitted to maps: the truth only says which particles are of one kind.
    """
    found, owner, count = np.unique(state, return_inverse=True, return_counts=True)
    mean = np.stack([z[owner == i].mean(0, dtype=np.float64) for i in range(len(found))])
    return found, count, nearest_particles(z, mean)


def score_states(z: np.ndarray, state: np.ndarray, coordinate: np.ndarray, decode: Decode,
                 truth: Callable[[int], Tensor], mask: Tensor | None = None) -> StateScores:
    """Scores of latents ``z (N, d)`` and the maps that ``decode`` makes of them.

    state: ``(N,)`` of each particle. coordinate: ``(S, q)``, where each state lies along its motions. truth: number of a
    state -> its true map ``(D, D, D)``. mask: ``(D, D, D)``, multiplies both.

    Raises
    ------
    InputError: numbers of particles differ, or a state has no coordinate.
    """
    if len(z) != len(state):
        raise InputError(f"expected the true states of the run's {len(z)} particles, found {len(state)}; the truth belongs to "
                         "other particles")
    if int(state.max()) >= len(coordinate):
        raise InputError(f"expected a coordinate of each state up to {int(state.max())}, found {len(coordinate)}")
    found, count, particle = representatives(z, state)
    maps = torch.cat([decode(z[[index]]) for index in particle])
    truths = torch.stack([truth(int(number)) for number in found])
    components = fit_pca(z).project(z)
    moving = np.ptp(coordinate[state], axis=0) > 0
    rho = np.full((coordinate.shape[1], z.shape[1]), np.nan)
    for i in np.flatnonzero(moving):
        for j in np.flatnonzero(np.ptp(components, axis=0) > 0):
            rho[i, j] = abs(spearmanr(coordinate[state, i], components[:, j]).statistic)
    difference = difference_map_correlation(maps, truths, mask) if len(found) > 1 else float("nan")
    return StateScores(found, count, particle, per_conformation_auc(maps, truths, mask).numpy(), rho, difference)
