"""k-means clusters of latents, each stood for by a real particle."""

from dataclasses import dataclass

import numpy as np

from cryorecon.analysis.latent import check_latents, drawn, fit_pca, nearest_particles, nearest_points
from cryorecon.errors import InputError

SAMPLE = 200_000  # centres are fitted to at most so many particles; all particles are assigned


@dataclass(frozen=True)
class Clusters:
    """labels: ``(N,)`` int32, cluster of each particle. centres: ``(k, d)``. nearest: ``(k,)``, the real particle
    nearest to each centre: a map decoded there is one that the data holds. Clusters are numbered along the first
    principal component."""

    labels: np.ndarray
    centres: np.ndarray
    nearest: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Particles of each cluster, ``(k,)``."""
        return np.bincount(self.labels, minlength=len(self.centres))


def kmeans(z: np.ndarray, k: int, seed: int = 0) -> Clusters:
    """``k`` clusters of latents ``(N, d)`` (fewer where there are fewer particles), the same for the same seed.

    Raises
    ------
    InputError: ``k`` below 1, or latents that are not finite.
    """
    if k < 1:
        raise InputError(f"k-means: expected at least 1 cluster, found {k}")
    check_latents(z)
    from sklearn.cluster import KMeans

    sample = z[drawn(len(z), SAMPLE, seed)]
    sample = np.unique(sample, axis=0) if len(sample) <= k else sample
    k = min(k, len(sample))
    fitted = KMeans(k, n_init=3, random_state=seed).fit(sample.astype(np.float64))
    centres = fitted.cluster_centers_
    centres = centres[np.argsort(fit_pca(z).project(centres)[:, 0], kind="stable")]
    return Clusters(nearest_points(z, centres), centres, nearest_particles(z, centres))

