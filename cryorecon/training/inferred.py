"""Every image of a stack once, with what a model infers about it; and what is made of that."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cryorecon import ranks
from cryorecon.data.loader import Batch, Loader
from cryorecon.data.parts import Room
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.conformation.posterior import Known, Posterior
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.model import Model
from cryorecon.training.stopping import check

POINTS = 1 << 20  # Fourier points held at once


def inferred(model: Model, loader: Loader, points: int = POINTS) -> Iterator[tuple[Batch, Hypotheses]]:
    """Batches of about ``points`` Fourier points on the model's device, in the order of particle ids, and their hypotheses:
    what is inferred for good, not a draw of training; no gradient flows. Of several processes each gets its share."""
    model.eval()
    room = Room()
    for raw in loader.epoch(loader.particles_for(max(1, points // model.grid.n))):
        check()
        yield from room.parts(raw, loader.n_particles, partial(_infer, model))


def _infer(model: Model, raw: Batch) -> tuple[Batch, Hypotheses]:
    batch = raw.to(model.grid.device)
    with torch.no_grad():
        return batch, model.infer(batch)


@dataclass(frozen=True)
class Latents:
    """z of n particles, in the order of particle ids, and what their images alone say of it.

    mean: ``(n, d)``. precision ``(n, d, d)``, pull ``(n, d)``: ``log p(images | z) = pull . z - z . precision z / 2`` up to a
    constant, whatever the prior; no rows where the conformation tells no uncertainty.
    """

    mean: Tensor
    precision: Tensor
    pull: Tensor

    def packed(self) -> np.ndarray | None:
        """``(n, d + d (d + 1) / 2)`` float32: pull and the upper triangle of the precision, row by row; None without them."""
        if not len(self.precision):
            return None
        row, column = torch.triu_indices(*self.precision.shape[1:])
        return torch.cat([self.pull, self.precision[:, row, column]], 1).numpy()


def remember(model: Model, posterior: Posterior, loader: Loader) -> None:
    """Infer every image once: under fixed poses and a fixed linear volume the posterior never changes."""
    posterior.remember(survey(model, posterior, loader))


def survey(model: Model, posterior: Posterior, loader: Loader) -> Known:
    """What ``posterior`` finds for all images at the model's poses."""
    n, particles, d, device = len(loader.stack), loader.n_particles, posterior.volume.z_dim, model.grid.device
    z, kl = torch.zeros(n, d, device=device), torch.zeros(n, device=device)
    gram, vector = torch.zeros(particles, d, d, device=device), torch.zeros(particles, d, device=device)
    images, particles_seen = [], []
    for batch, posed in inferred(Model(model.grid, model.volume, model.pose, Fixed()), loader):
        with torch.no_grad():
            moments = posterior.particle_moments(posed, batch)
            told = posterior.told(posed, moments)
        row = loader.places(batch).to(device)
        z[batch.image], kl[batch.image] = told.z[:, 0], told.kl[:, 0]
        gram[row], vector[row] = moments[0], moments[1]
        images.append(batch.image)
        particles_seen.append(row)
    ranks.share_rows(torch.cat(images), z, kl)
    ranks.share_rows(torch.cat(particles_seen), gram, vector)
    return Known(z, kl, gram, vector)


def latents(model: Model, loader: Loader) -> np.ndarray:
    """z of every particle, ``(particles, d)``, in the order of particle ids; no image is read where it is remembered."""
    return latent_posteriors(model, loader).mean.numpy()


def latent_posteriors(model: Model, loader: Loader, kl_weight: float = 1.0) -> Latents:
    r"""z of every particle with its uncertainty.

    A closed-form posterior has it exactly. An encoder's Gaussian ``N(m, S)``, trained with weight ``w`` on the divergence,
    stands for ``p(images | z)^{1/w} N(z; 0, 1)``: precision ``w (S^{-1} - 1)``, pull ``w S^{-1} m``. A table has none.
    """
    conformation = model.conformation
    if isinstance(conformation, Posterior):
        known = conformation.known or survey(model, conformation, loader)
        _, row = torch.unique(loader.stack.particle, return_inverse=True)
        mean = torch.zeros(loader.n_particles, known.z.shape[1])
        mean[row] = known.z.cpu()  # a particle's images all have its z
        return Latents(mean, 2 * known.gram.cpu(), 2 * known.vector.cpu())
    n, d = loader.n_particles, model.volume.z_dim
    mean, whole, told = torch.zeros(n, d), torch.zeros(n, d, d), True
    seen: list[Tensor] = []
    for batch, found in inferred(model, loader):
        starts, row = batch.particle_starts(), loader.places(batch)
        mean[row] = (found.log_weight.exp()[..., None] * found.z).sum(1)[starts].cpu()
        if found.z_cov is None:
            told = False
        else:
            whole[row] = torch.linalg.inv(found.z_cov[starts, 0]).cpu()
        seen.append(row)
    ranks.share_rows(torch.cat(seen), mean, whole)
    if not told:
        return Latents(mean, torch.zeros(0, d, d), torch.zeros(0, d))
    return Latents(mean, kl_weight * (whole - torch.eye(d)), kl_weight * (whole @ mean[..., None])[..., 0])
