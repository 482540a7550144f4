r"""The exact posterior of z under a linear volume (probabilistic PCA with known poses).

With the slices ``A_0`` of the mean and ``A`` of the components, ``G = Re(A^H p A)``, ``v = Re(A^H (d - p A_0))``
summed over a particle's images and ``z ~ N(0, 1)``: mean ``(G + 1/2)^{-1} v``, covariance ``(G + 1/2)^{-1} / 2``
(Tipping & Bishop 1999 in nats of a complex Gaussian; Penczek et al. 2011 and RECOVAR use it for cryo-EM).

Several poses of an image are weighed against each other with z integrated out: ``log p(y | pose) = log p(y | pose, z = 0) +
log E_prior exp(2 v.z - z.G z)``, the latter ``v.m - log(det(2 G + 1)) / 2`` under the Gaussian prior (``m`` the mean).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cryorecon.data.loader import Batch
from cryorecon.geometry.grid import Grid
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.volumes.voxel_grid import VoxelGrid


def gaussian_posterior(gram: Tensor, vector: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(n, d)``, covariance ``(n, d, d)`` and divergence ``(n,)`` in nats under ``z_c ~ N(0, variance_c)``."""
    cov = torch.linalg.inv(gram + 0.5 * torch.diag(1 / variance)) / 2
    mean = 2 * torch.einsum("bij,bj->bi", cov, vector)
    second = mean.square() + cov.diagonal(dim1=1, dim2=2)
    kl = 0.5 * ((second / variance - 1 + variance.log()).sum(1) - torch.logdet(cov))
    return mean, cov, kl


def gaussian_evidence(vector: Tensor, mean: Tensor, cov: Tensor, variance: Tensor) -> Tensor:
    """Log of the prior's mean of ``exp(2 v.z - z.G z)``, ``(n,)``; mean and cov: of :func:`gaussian_posterior`."""
    return (vector * mean).sum(1) + 0.5 * (torch.logdet(cov) - variance.log().sum())


class DiscretePrior(nn.Module):
    """A distribution of z on atoms: ``atoms (M, d)``, ``log_weight (M,)``; fitted by expectation-maximisation."""

    atoms: Tensor
    log_weight: Tensor

    def __init__(self, atoms: Tensor, log_weight: Tensor):
        super().__init__()
        self.register_buffer("atoms", atoms)
        self.register_buffer("log_weight", log_weight)

    @staticmethod
    def fit(gram: Tensor, vector: Tensor, n_atoms: int, iterations: int, generator: torch.Generator) -> "DiscretePrior":
        """Atoms and weights that maximise the likelihood of particles' moments ``G (n, d, d)``, ``v (n, d)``."""
        start, _, _ = gaussian_posterior(gram, vector, torch.ones(vector.shape[1], device=vector.device))
        chosen = torch.randperm(len(start), generator=generator)[:n_atoms].to(start.device)
        n_atoms = len(chosen)
        prior = DiscretePrior(start[chosen], start.new_full((n_atoms,), -math.log(n_atoms)))
        flat, d = gram.flatten(1), vector.shape[1]
        ridge = 0.5 * torch.eye(d, device=gram.device)
        for _ in range(iterations):
            responsibility = prior.responsibilities(gram, vector)[0]
            prior.log_weight = responsibility.mean(0).clamp(min=1e-9).log()
            matrix = (responsibility.T @ flat).view(n_atoms, d, d) + ridge
            prior.atoms = torch.linalg.solve(matrix, responsibility.T @ vector)
        return prior

    def responsibilities(self, gram: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior weights ``(n, M)`` of the atoms and log evidence ``(n,)``, up to each image's constant."""
        outer = (self.atoms[:, :, None] * self.atoms[:, None, :]).flatten(1)
        score = 2 * vector @ self.atoms.T - gram.flatten(1) @ outer.T + self.log_weight
        evidence = torch.logsumexp(score, 1)
        return torch.exp(score - evidence[:, None]), evidence

    def posterior(self, gram: Tensor, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean ``(n, d)``, covariance ``(n, d, d)`` and divergence from the prior ``(n,)`` in nats."""
        weight, _ = self.responsibilities(gram, vector)
        mean = weight @ self.atoms
        outer = (self.atoms[:, :, None] * self.atoms[:, None, :]).flatten(1)
        cov = (weight @ outer).view(len(mean), self.atoms.shape[1], -1) - mean[:, :, None] * mean[:, None, :]
        kl = (weight * (weight.clamp(min=1e-30).log() - self.log_weight)).sum(1)
        return mean, cov, kl


class Known(NamedTuple):
    """What was inferred of N images of n particles: z ``(N, d)``, kl ``(N,)``; gram ``(n, d, d)``, vector ``(n, d)`` of
    :meth:`Posterior.particle_moments`."""

    z: Tensor
    kl: Tensor
    gram: Tensor
    vector: Tensor


class Posterior(nn.Module):
    """Closed-form posterior of z given poses, under a standard normal prior or a learned discrete one.

    The discrete prior is a set of ``atoms (M, d)`` with weights: the nonparametric estimate of how conformations are
    distributed (Kiefer & Wolfowitz 1956). A one-dimensional motion bends through several components; under the Gaussian
    prior every image's noise pulls it off that curve, under the learned prior it stays on it.

    volume: the linear volume (shared, not owned: its parameters are the model's). variance: ``(d,)`` of the Gaussian
    prior (default: ones). limit: band in Fourier pixels within which
    images speak of z (default: all). chunk: images whose component slices are held at once.
    """

    volume: VoxelGrid
    variance: Tensor

    def __init__(self, volume: VoxelGrid, grid: Grid, limit: float | None = None, prior: DiscretePrior | None = None,
                 variance: Tensor | None = None, chunk: int = 64):
        super().__init__()
        object.__setattr__(self, "volume", volume)  # not registered: saved with the model's volume
        self.grid, self.limit, self.prior, self.chunk = grid, limit, prior, chunk
        self._known: Known | None = None
        self.register_buffer("variance", torch.ones(volume.z_dim, device=grid.device) if variance is None else variance)

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """Hypotheses with posterior mean, covariance and divergence from the prior; of several poses also their weights, z
        integrated out. No gradient flows."""
        if self._known is not None:
            z, kl = self._known.z, self._known.kl
            return hypotheses.with_z(z[batch.image][:, None], kl[batch.image][:, None])
        if hypotheses.log_weight.shape[1] > 1:
            return self._of_each_pose(hypotheses, batch)
        with torch.no_grad():
            return self.told(hypotheses, self.particle_moments(hypotheses, batch))

    def told(self, hypotheses: Hypotheses, moments: tuple[Tensor, Tensor, Tensor, Tensor]) -> Hypotheses:
        """Hypotheses with what ``moments`` (of :meth:`particle_moments`) say of z."""
        gram, vector, owner, counts = moments
        if self.prior is None:
            mean, cov, kl = gaussian_posterior(gram, vector, self.variance)
        else:
            mean, cov, kl = self.prior.posterior(gram, vector)
        mean, cov, kl = mean[owner], cov[owner], (kl / counts)[owner]
        return hypotheses.with_z(mean[:, None], kl[:, None], cov[:, None])

    def _of_each_pose(self, hypotheses: Hypotheses, batch: Batch) -> Hypotheses:
        """The same for each of K poses; ``log_weight`` becomes that of the poses among each other."""
        parts = []
        with torch.no_grad():
            for k in range(hypotheses.log_weight.shape[1]):
                one = hypotheses.only(k)
                moments = self.particle_moments(one, batch)
                parts.append((self.told(one, moments), self._evidence(one, batch, moments)))
        z, kl, cov = (torch.cat([getattr(told, name) for told, _ in parts], 1) for name in ("z", "kl", "z_cov"))
        weight = torch.log_softmax(torch.stack([evidence for _, evidence in parts], 1), 1)
        return replace(hypotheses, z=z, kl=kl, z_cov=cov, log_weight=weight)

    def _evidence(self, hypotheses: Hypotheses, batch: Batch, moments: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """``log p(images of the particle | pose)`` with z integrated out, ``(B,)`` in nats up to each particle's constant."""
        gram, vector, owner, _ = moments
        if self.prior is None:
            mean, cov, _ = gaussian_posterior(gram, vector, self.variance)
            found = gaussian_evidence(vector, mean, cov, self.variance)
        else:
            found = self.prior.responsibilities(gram, vector)[1]
        seen = batch if self.limit is None else batch.select(self.grid.band(self.limit))
        origin = vector.new_zeros(len(batch), 1, self.volume.z_dim)
        slices = self.volume.slices(hypotheses.rotation, origin, seen.selection)
        moved = slices[:, 0] * self.grid.phase_ramp(-hypotheses.shift[:, 0], seen.selection)
        energy = (seen.power * moved.abs().square() - 2 * (seen.data.conj() * moved).real).sum(1)
        return (found - found.new_zeros(len(found)).index_add_(0, owner, energy))[owner]

    def remember(self, known: Known) -> None:
        """Answer from now on with these means and divergences (and no covariance): right for as long as poses and the linear
        volume stay as they are."""
        self._known = known

    @property
    def known(self) -> Known | None:
        """What it was told to remember."""
        return self._known

    def particle_moments(self, hypotheses: Hypotheses, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``G (n, d, d)`` and ``v (n, d)`` of every particle, each image's row ``(B,)`` and images per particle
        ``(n,)``."""
        gram, vector = self.moments(hypotheses, batch)
        _, owner, counts = torch.unique(batch.particle, return_inverse=True, return_counts=True)
        summed = gram.new_zeros(len(counts), *gram.shape[1:]).index_add_(0, owner, gram)
        return summed, vector.new_zeros(len(counts), vector.shape[1]).index_add_(0, owner, vector), owner, counts

    def moments(self, hypotheses: Hypotheses, batch: Batch) -> tuple[Tensor, Tensor]:
        """``G (B, d, d)`` and ``v (B, d)`` of every image."""
        if self.limit is not None:
            batch = batch.select(self.grid.band(self.limit))
        grams, vectors = [], []
        start = 0
        for part in batch.split(self.chunk):
            index = slice(start, start + len(part))
            start += len(part)
            posed = hypotheses.at(index)
            ramp = self.grid.phase_ramp(posed.shift[:, 0], batch.selection)
            parts = self.volume.component_slices(posed.rotation[:, 0], batch.selection)
            power = part.power
            residual = part.data * ramp - power * parts[..., 0]
            components = torch.view_as_real(parts[..., 1:].transpose(1, 2).contiguous()).flatten(2)
            weighted = components * power.repeat_interleave(2, 1)[:, None]
            grams.append(components @ weighted.transpose(1, 2))
            vectors.append((components @ torch.view_as_real(residual).flatten(1)[..., None])[..., 0])
        return torch.cat(grams), torch.cat(vectors)
