"""An encoder taught by a closed-form posterior: seconds of supervised steps instead of epochs of a network's."""

import torch
from torch import nn

from cryorecon.data.loader import Loader
from cryorecon.inference.conformation.encoder import Encoder
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.model import Model
from cryorecon.training.fit import stream


def fit_encoder(encoder: Encoder, taught: Model, loader: Loader, batch_particles: int, seed: int, passes: int = 10,
                lr: float = 1e-3) -> None:
    """Minimise the divergence from the teacher's Gaussian moments, averaged over axes.

    ``taught``: a model whose conformation gives ``z`` and ``z_cov``. Runs ``passes`` over the data with Adam.
    """
    device = taught.grid.device
    optimiser = torch.optim.Adam(encoder.parameters(), lr=lr)
    for number in range(passes):
        generator = stream(seed, -100 - number)
        for raw in loader.epoch(max(batch_particles, 64), generator):
            batch = raw.to(device)
            with torch.no_grad():
                target = taught.infer(batch)
            posed = taught.pose(Hypotheses.empty(len(batch), device), batch, taught.energy)
            mean, log_variance, owner, _ = encoder.posterior(posed, batch)
            if target.z_cov is None:
                raise TypeError("the teacher gives no covariance")
            wanted, variance = target.z[:, 0], target.z_cov[:, 0].diagonal(dim1=1, dim2=2).clamp(min=1e-4)
            spread = log_variance[owner].exp()
            loss = (((mean[owner] - wanted).square() + variance) / spread + log_variance[owner]).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(encoder.parameters(), 10.0)
            optimiser.step()
