r"""What images say of z, apart from any prior: the latent that is seen through noise.

Latents in a file are posterior means: noise has spread them and the prior has pulled them in, so that their histogram is not
the distribution of conformations. What is deconvolved instead is each particle's likelihood, a Gaussian in information form,
``log p(images | z) = pull . z - z . precision z / 2`` up to a constant, which also holds where a particle says nothing of some
directions of z (precision 0 there).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryorecon.analysis.latent import PCA
from cryorecon.errors import InputError

EXACT = 1e4  # precision, in units of a coordinate's variance, of latents that come without uncertainty


@dataclass(frozen=True)
class Observed:
    """precision ``(n, d, d)``, pull ``(n, d)`` of n particles, in float32; computed with in float64, some at a time.
    measured: False where latents came without uncertainty and are taken to be (nearly) exact."""

    precision: Tensor
    pull: Tensor
    measured: bool = True

    def __len__(self) -> int:
        return len(self.pull)

    def at(self, index: np.ndarray | slice) -> "Observed":
        """Some of the particles."""
        chosen = index if isinstance(index, slice) else torch.from_numpy(index)
        return Observed(self.precision[chosen], self.pull[chosen], self.measured)

    def leading(self, k: int) -> "Observed":
        """The first ``k`` coordinates where the others don't vary."""
        return Observed(self.precision[:, :k, :k], self.pull[:, :k], self.measured)

    def double(self) -> tuple[Tensor, Tensor]:
        """Precision and pull in float64."""
        return self.precision.double(), self.pull.double()


def observed(z: np.ndarray, likelihood: np.ndarray | None, pca: PCA) -> Observed:
    """What is known of latents ``z (n, d)``, in coordinates along the principal components.

    likelihood: ``(n, d + d (d + 1) / 2)`` of :meth:`cryorecon.training.run_directory.RunDirectory.likelihood`; None: z is
    exact.

    Raises
    ------
    InputError: a likelihood of another shape than z's.
    """
    n, d = z.shape
    if likelihood is None:
        coordinates = pca.project(z).astype(np.float32)
        scale = torch.from_numpy((EXACT / pca.variance.clip(min=1e-6 * max(pca.variance.max(), 1e-12))).astype(np.float32))
        return Observed(torch.diag(scale).expand(n, d, d), torch.from_numpy(coordinates) * scale, measured=False)
    if likelihood.shape != (n, d + d * (d + 1) // 2):
        raise InputError(f"z_likelihood: expected {d + d * (d + 1) // 2} numbers for each of {n:,} particles, found an array "
                         f"of {likelihood.shape}; were the run's files changed?")
    axes, mean = torch.from_numpy(pca.components.astype(np.float32)), torch.from_numpy(pca.mean.astype(np.float32))
    packed = torch.from_numpy(likelihood)
    row, column = torch.triu_indices(d, d)
    precision = torch.empty(n, d, d)
    precision[:, row, column] = precision[:, column, row] = packed[:, d:]
    pull = packed[:, :d] - precision @ mean
    return Observed(axes @ precision @ axes.T, pull @ axes.T)


def seen_through(found: Observed, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Under the prior ``N(mean (d,), covariance (d, d))``: log evidence ``(n,)``, posterior means ``(n, d)`` and covariances
    ``(n, d, d)``.

    .. math:: \log\int N(z; \mu, V)\, e^{\eta z - z\Lambda z/2} dz = \tfrac12\left(h^T C h - \mu^T V^{-1}\mu - \log|V| +
        \log|C|\right), \quad C = (V^{-1} + \Lambda)^{-1},\ h = V^{-1}\mu + \eta
    """
    precision, pull = found.double()
    inverse = torch.linalg.inv(covariance)
    factor = torch.linalg.cholesky(inverse + precision)
    spread = torch.cholesky_inverse(factor)
    towards = inverse @ mean + pull
    middle = (spread @ towards[..., None])[..., 0]
    evidence = 0.5 * ((towards * middle).sum(1) - mean @ inverse @ mean - torch.logdet(covariance))
    return evidence - factor.diagonal(dim1=1, dim2=2).log().sum(1), middle, spread
