"""Does the latent coordinate find the true conformation? Nothing here is fitted to the truth."""

import numpy as np
from scipy.stats import spearmanr

from cryorecon.errors import InputError


def first_component(z: np.ndarray) -> np.ndarray:
    """Coordinates ``(N,)`` of latents ``(N, d)`` along their first principal component (sign arbitrary)."""
    centred = np.asarray(z, np.float64) - np.mean(z, 0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, -1]


def latent_agreement(z: np.ndarray, state: np.ndarray) -> float:
    """|Spearman's rho| between the first principal component of ``z (N, d)`` and the true ``state (N,)``.

    Raises
    ------
    InputError: numbers of particles differ.
    """
    z, state = _pair(z, state)
    return float(abs(spearmanr(first_component(z), state).statistic))


def two_means(z: np.ndarray, iterations: int = 100) -> np.ndarray:
    """Labels ``(N,)`` bool of 2-means, started from the sides of the first principal component (deterministic)."""
    z = np.asarray(z, np.float64)
    side = first_component(z) > 0
    for _ in range(iterations):
        if side.all() or not side.any():
            break
        centres = np.stack([z[~side].mean(0), z[side].mean(0)])
        # nearer to the second: |z - c1|^2 < |z - c0|^2
        new = z @ (centres[1] - centres[0]) > 0.5 * (centres[1] @ centres[1] - centres[0] @ centres[0])
        if (new == side).all():
            break
        side = new
    return side


def two_means_accuracy(z: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of particles on the right side of a 2-means split of ``z (N, d)``; ``labels (N,)`` of two values.

    Raises
    ------
    InputError: numbers of particles differ, or labels are not of two kinds.
    """
    z, labels = _pair(z, labels)
    kinds = np.unique(labels)
    if len(kinds) != 2:
        raise InputError(f"2-means accuracy: expected labels of two kinds, found {len(kinds)}")
    right = float(np.mean(two_means(z) == (labels == kinds[1])))
    return max(right, 1 - right)


def _pair(z: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z, truth = np.asarray(z), np.asarray(truth).reshape(-1)
    if z.ndim != 2 or len(z) != len(truth):
        raise InputError(f"latents and truth: expected (N, d) and (N,), found {z.shape} and {truth.shape}")
    return z, truth
