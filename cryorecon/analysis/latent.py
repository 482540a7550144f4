"""Principal components of latent coordinates, and the real particles nearest to given points."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cryorecon.errors import InputError

CHUNK = 65536  # particles at a time: a million latents need no more memory than they take themselves


@dataclass(frozen=True)
class PCA:
    """mean: ``(d,)``. components: ``(d, d)``, one a row, orthonormal, by falling variance; the largest entry of each is
    positive, so that signs repeat. variance: ``(d,)``."""

    mean: np.ndarray
    components: np.ndarray
    variance: np.ndarray

    @property
    def explained(self) -> np.ndarray:
        """Fraction of the variance along each component, ``(d,)``."""
        total = self.variance.sum()
        return self.variance / total if total > 0 else np.zeros_like(self.variance)

    def project(self, z: np.ndarray) -> np.ndarray:
        """Coordinates ``(N, d)`` along the components of latents ``(N, d)``."""
        return (np.asarray(z, np.float64) - self.mean) @ self.components.T

    def varying(self, z: np.ndarray) -> np.ndarray:
        """Coordinates ``(N, k)`` along those components alone, at least one, in which the latents vary: a run may leave some of
        its dimensions unused, and a density or a distance should not count them."""
        kept = max(1, int((self.variance > 1e-10 * self.variance[0]).sum()))
        return (np.asarray(z, np.float64) - self.mean) @ self.components[:kept].T

    def restore(self, coordinates: np.ndarray) -> np.ndarray:
        """Latents ``(N, d)`` of coordinates ``(N, c)`` along the first ``c`` components."""
        return self.mean + np.asarray(coordinates) @ self.components[: np.shape(coordinates)[1]]


def check_latents(z: np.ndarray, where: str = "latents") -> None:
    """Raise InputError unless ``z`` is ``(N, d)`` with particles and finite numbers."""
    if z.ndim != 2 or 0 in z.shape:
        raise InputError(f"{where}: expected an array (particles, zdim), found shape {z.shape}")
    bad = sum(int((~np.isfinite(part).all(1)).sum()) for part in chunks(z))
    if bad:
        raise InputError(f"{where}: expected finite latents, found {bad} of {len(z)} particles with NaN or infinity; "
                         "take an earlier epoch or train again with a smaller learning rate")


def chunks(z: np.ndarray) -> Iterator[np.ndarray]:
    """``z`` in pieces of at most ``CHUNK`` particles."""
    for start in range(0, len(z), CHUNK):
        yield z[start : start + CHUNK]


def drawn(n: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``n`` indices, ascending."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def fit_pca(z: np.ndarray) -> PCA:
    """Principal components of latents ``(N, d)``; one pass for the mean, one for the covariance, in float64."""
    check_latents(z)
    mean = sum((part.sum(0, dtype=np.float64) for part in chunks(z)), np.zeros(z.shape[1])) / len(z)
    covariance = np.zeros((z.shape[1], z.shape[1]))
    for part in chunks(z):
        centred = part.astype(np.float64) - mean
        covariance += centred.T @ centred
    variance, vectors = np.linalg.eigh(covariance / len(z))
    components = vectors.T[::-1]
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    return PCA(mean, components * np.where(largest < 0, -1, 1), variance[::-1].clip(min=0))


def nearest_particles(z: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Index ``(k,)`` of the particle of ``z (N, d)`` nearest to each of ``points (k, d)``."""
    best = np.full(len(points), np.inf)
    index = np.zeros(len(points), np.int64)
    rows = _rows(points)
    for start in range(0, len(z), rows):
        distance = squared_distances(z[start : start + rows], points)
        where = distance.argmin(0)
        least = distance[where, np.arange(len(points))]
        index = np.where(least < best, start + where, index)
        best = np.minimum(best, least)
    return index


def nearest_points(z: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Index ``(N,)`` int32 of the point of ``points (k, d)`` nearest to each of ``z (N, d)``."""
    rows = _rows(points)
    found = [squared_distances(z[start : start + rows], points).argmin(1) for start in range(0, len(z), rows)]
    return np.concatenate(found).astype(np.int32)


def _rows(points: np.ndarray) -> int:
    """Particles at a time whose distances to all ``points`` take no more than 64 MB."""
    return max(1, min(CHUNK, 2**23 // len(points)))


def squared_distances(z: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``(N, k)`` float64 between ``z (N, d)`` and ``points (k, d)``."""
    z, points = np.asarray(z, np.float64), np.asarray(points, np.float64)
    return np.square(z).sum(1)[:, None] - 2 * z @ points.T + np.square(points).sum(1)
