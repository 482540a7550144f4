"""An encoder taught by a closed-form posterior: seconds of supervised steps instead of epochs of a network's."""

import torch
from torch import Tensor, nn

from cryorecon import ranks
from cryorecon.data.loader import Loader
from cryorecon.inference.conformation.encoder import Encoder
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.model import Model
from cryorecon.training.fit import stream
from cryorecon.training.inferred import inferred


def fit_encoder(encoder: Encoder, taught: Model, loader: Loader, batch_particles: int, seed: int, passes: int = 10,
                lr: float = 1e-3) -> None:
    """Maximise the expected log density of the teacher's posterior under the encoder's.

    ``taught``: a model whose conformation gives ``z`` and ``z_cov``; it is asked once for every image. Then ``passes`` over
    the data with Adam.
    """
    device = taught.grid.device
    mean, variance = _targets(taught, loader)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=lr)
    for number in range(passes):
        generator = stream(seed, -100 - number)
        for raw in loader.epoch(max(batch_particles, 64), generator):
            batch = raw.to(device)
            posed = taught.pose(Hypotheses.empty(len(batch), device), batch, taught.energy)
            guess, log_variance, owner, _ = encoder.posterior(posed, batch)
            miss = (guess[owner] - mean[batch.image]).square() + variance[batch.image]
            loss = (miss / log_variance[owner].exp() + log_variance[owner]).mean()
            optimiser.zero_grad()
            loss.backward()
            ranks.mean_gradients(list(encoder.parameters()), len(batch))
            nn.utils.clip_grad_norm_(encoder.parameters(), 10.0)
            optimiser.step()


def _targets(taught: Model, loader: Loader) -> tuple[Tensor, Tensor]:
    """Posterior mean and variance of z for every image, ``(N, d)`` each."""
    device, n = taught.grid.device, len(loader.stack)
    mean = variance = torch.zeros(0)
    seen = []
    for batch, found in inferred(taught, loader):
        seen.append(batch.image)
        if found.z_cov is None:
            raise TypeError(f"expected a teacher with a covariance, found {type(taught.conformation).__name__}")
        if not len(mean):
            mean, variance = torch.zeros(n, found.z.shape[-1], device=device), torch.ones(n, found.z.shape[-1], device=device)
        mean[batch.image] = found.z[:, 0]
        variance[batch.image] = found.z_cov[:, 0].diagonal(dim1=1, dim2=2).clamp(min=1e-3)
    ranks.share_rows(torch.cat(seen), mean, variance)
    return mean, variance
