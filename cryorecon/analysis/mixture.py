r"""A Gaussian mixture of conformations, each particle seen through its own noise (extreme deconvolution).

Bovy, Hogg & Roweis (2011), Ann. Appl. Stat. 5, 1657, in information form: under component ``j`` a particle's posterior is a
Gaussian (:func:`cryorecon.analysis.observed.seen_through`), and weights, means and covariances are the averages of those. The
weights are occupancies with the noise taken out. How many components there are is told by Schwarz's criterion (1978),
``BIC = -2 log L + p log n`` with ``p = K (1 + d + d (d + 1) / 2) - 1``: the smallest wins.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cryorecon.analysis.latent import drawn
from cryorecon.analysis.observed import Observed, seen_through
from cryorecon.errors import InputError

SAMPLE = 10_000  # particles on which the number of components is settled
FITTED = 40_000  # particles to which the mixture is fitted; all are assigned
CHUNK = 65_536
PATIENCE = 2  # more components that must not help before the search for their number ends
RIDGE = 1e-3  # of the whole variance, added to each covariance: none collapses onto a particle


@dataclass(frozen=True)
class Mixture:
    """weight ``(K,)``, mean ``(K, d)``, covariance ``(K, d, d)``, float64; components by falling weight. bic ``(M,)``: of 1 to
    M components, empty where the number was given."""

    weight: Tensor
    mean: Tensor
    covariance: Tensor
    bic: np.ndarray

    def __len__(self) -> int:
        return len(self.weight)

    def evidence(self, found: Observed) -> Tensor:
        """``log p(images | component)`` of every particle, ``(n, K)`` in nats up to each particle's constant."""
        parts = [found.at(slice(start, start + CHUNK)) for start in range(0, len(found), CHUNK)]
        return torch.cat([torch.stack([seen_through(part, *one)[0] for one in zip(self.mean, self.covariance, strict=True)], 1)
                          for part in parts])

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Log of the mixture's density at ``points (m, d)``, ``(m,)``."""
        factor = torch.linalg.cholesky(self.covariance)
        off = torch.from_numpy(points).double() - self.mean[:, None]
        off = torch.linalg.solve_triangular(factor, off.transpose(1, 2), upper=False)
        constant = self.weight.log() - factor.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = constant - 0.5 * points.shape[1] * math.log(2 * math.pi)
        return torch.logsumexp(constant[:, None] - 0.5 * off.square().sum(1), 0).numpy()

    def responsibilities(self, found: Observed) -> Tensor:
        """Posterior weight of each component for every particle, ``(n, K)``."""
        return torch.softmax(self.evidence(found) + self.weight.log(), 1)


def choose_mixture(found: Observed, coordinates: np.ndarray, most: int = 10, seed: int = 0) -> Mixture:
    """The mixture with the number of components, up to ``most``, that has the smallest BIC.

    ``coordinates (n, d)``: where k-means starts it. The number is settled on 10,000 particles drawn at random, the mixture
    then fitted to 40,000. Raises :class:`InputError` for ``most`` below 1.
    """
    if most < 1:
        raise InputError(f"mixture: expected at least 1 state, found {most}")
    few = drawn(len(found), SAMPLE, seed)
    sample, seen = found.at(few), coordinates[few]
    n, d = seen.shape
    best, bic = 1, []
    for k in tqdm(range(1, min(most, len(np.unique(seen, axis=0))) + 1), desc="states", disable=None, leave=False):
        _, likelihood = fit_mixture(sample, start(seen, k, seed))
        bic.append(-2 * likelihood + (k * (1 + d + d * (d + 1) // 2) - 1) * np.log(n))
        best = int(np.argmin(bic)) + 1
        if k - best >= PATIENCE:
            break
    many = drawn(len(found), FITTED, seed)
    mixture, _ = fit_mixture(found.at(many), start(coordinates[many], best, seed))
    order = torch.argsort(mixture.weight, descending=True)
    return Mixture(mixture.weight[order], mixture.mean[order], mixture.covariance[order], np.array(bic))


def start(coordinates: np.ndarray, k: int, seed: int) -> Mixture:
    """Components at the k-means clusters of ``coordinates (n, d)``."""
    from sklearn.cluster import KMeans

    labels = KMeans(k, n_init=3, random_state=seed).fit_predict(coordinates.astype(np.float64))
    groups = [coordinates[labels == j].astype(np.float64) for j in range(k)]
    ridge = RIDGE * np.diag(coordinates.var(0) + 1e-12)
    covariance = [np.cov(group.T, bias=True).reshape(ridge.shape) + 10 * ridge for group in groups]
    weight = np.array([len(group) for group in groups]) / len(coordinates)
    return Mixture(torch.from_numpy(weight), torch.from_numpy(np.stack([group.mean(0) for group in groups])),
                   torch.from_numpy(np.stack(covariance)), np.empty(0))


def fit_mixture(found: Observed, mixture: Mixture, iterations: int = 100, tolerance: float = 3e-5) -> tuple[Mixture, float]:
    """Expectation-maximisation from ``mixture`` until the mean log likelihood gains less than ``tolerance`` a particle; the
    mixture and the log likelihood in nats (of the last but one step), up to a constant of the data."""
    whole = torch.einsum("k,kij->ij", mixture.weight, mixture.covariance) + torch.cov(mixture.mean.T, correction=0).reshape(
        mixture.covariance.shape[1:])
    ridge = RIDGE * torch.diag(whole.diagonal())
    before = -np.inf
    for _ in range(iterations):
        seen = [seen_through(found, *one) for one in zip(mixture.mean, mixture.covariance, strict=True)]
        score = torch.stack([evidence for evidence, _, _ in seen], 1) + mixture.weight.log()
        evidence = torch.logsumexp(score, 1)
        share = torch.exp(score - evidence[:, None])
        total = share.sum(0).clamp(min=1e-9)
        means, covariances = [], []
        for j, (_, middle, spread) in enumerate(seen):
            mean = share[:, j] @ middle / total[j]
            off = middle - mean
            scatter = (off * share[:, j, None]).T @ off + torch.einsum("n,nij->ij", share[:, j], spread)
            means.append(mean)
            covariances.append(scatter / total[j] + ridge)
        mixture = Mixture(total / total.sum(), torch.stack(means), torch.stack(covariances), mixture.bic)
        likelihood = float(evidence.sum())
        if likelihood - before < tolerance * len(found):
            break
        before = likelihood
    return mixture, likelihood


def occupancies(evidence: Tensor, weight: Tensor, halves: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Share of each component ``(K,)`` and its standard error.

    ``evidence (n, K)``: of :meth:`Mixture.evidence`; ``weight (K,)`` to begin from. The error is the root mean square by which
    the shares in random half sets differ from those of all: half a sample drawn without replacement scatters about the whole
    as the whole does about the truth (McCarthy 1969).
    """
    likelihood = torch.exp(evidence - evidence.amax(1, keepdim=True))
    whole = shares(likelihood, weight)
    generator = torch.Generator().manual_seed(seed)
    off = [shares(likelihood[torch.randperm(len(likelihood), generator=generator)[: len(likelihood) // 2]], weight) - whole
           for _ in range(halves)]
    return whole.numpy(), torch.stack(off).square().mean(0).sqrt().numpy()


def shares(likelihood: Tensor, weight: Tensor, iterations: int = 200) -> Tensor:
    """Weights ``(K,)`` that maximise ``sum log(likelihood (n, K) . weight)``, from ``weight``."""
    for _ in range(iterations):
        new = weight * (likelihood / (likelihood @ weight)[:, None].clamp(min=1e-300)).mean(0)
        settled = float((new - weight).abs().max()) < 1e-6
        weight = new
        if settled:
            break
    return weight / weight.sum()
