"""Every image of a stack once, with what a model infers about it; and what is made of that."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.loader import Batch, Loader
from cryorecon.inference.conformation.posterior import Posterior
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.model import Model

POINTS = 1 << 20  # Fourier points held at once


def inferred(model: Model, loader: Loader, points: int = POINTS) -> Iterator[tuple[Batch, Hypotheses]]:
    """Batches of about ``points`` Fourier points on the model's device, in the order of particle ids, and their hypotheses:
    what is inferred for good, not a draw of training; no gradient flows."""
    model.eval()
    for raw in loader.epoch(loader.particles_for(max(1, points // model.grid.n))):
        batch = raw.to(model.grid.device)
        with torch.no_grad():  # not around the yield: it would hold for whoever consumes this
            found = model.infer(batch)
        yield batch, found


def remember(model: Model, posterior: Posterior, loader: Loader) -> None:
    """Infer every image once: under fixed poses and a fixed linear volume the posterior never changes."""
    n, device = len(loader.stack), model.grid.device
    z, kl = torch.zeros(n, posterior.volume.z_dim, device=device), torch.zeros(n, device=device)
    for batch, found in inferred(model, loader):
        z[batch.image], kl[batch.image] = found.z[:, 0], found.kl[:, 0]
    posterior.remember(z, kl)


def latents(model: Model, loader: Loader) -> np.ndarray:
    """z of every particle, ``(particles, d)``, in the order of particle ids; no image is read where it is remembered."""
    known = model.conformation.known if isinstance(model.conformation, Posterior) else None
    if known is not None:
        _, row = torch.unique(loader.stack.particle, return_inverse=True)
        z = torch.zeros(loader.n_particles, known[0].shape[1])
        z[row] = known[0].cpu()  # a particle's images all have its z
        return z.numpy()
    rows: list[Tensor] = []
    for batch, found in inferred(model, loader):
        mean = (found.log_weight.exp()[..., None] * found.z).sum(1)
        rows.append(mean[batch.particle_starts()].cpu())
    return torch.cat(rows).numpy()
