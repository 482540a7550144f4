"""An autodecoder: z of every particle is a free parameter."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cryorecon.data.loader import Batch
from cryorecon.inference.hypotheses import Hypotheses


class Table(nn.Module):
    """One z a particle, learned by gradient under a standard normal prior.

    Parameters
    ----------
    particles: number of particles. z_dim: size of z. start: ``(particles, z_dim)`` to begin from (default: small
    noise).
    """

    def __init__(self, particles: int, z_dim: int, start: Tensor | None = None):
        super().__init__()
        if start is None:
            start = 0.1 * torch.randn(particles, z_dim)
        self.z = nn.Embedding.from_pretrained(start.clone(), freeze=False, sparse=True)

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """Hypotheses with the table's z; ``kl`` is the prior's energy, shared out over a particle's images."""
        z = self.z(batch.particle)
        _, owner, counts = torch.unique(batch.particle, return_inverse=True, return_counts=True)
        kl = 0.5 * z.square().sum(-1) / counts[owner]
        return hypotheses.with_z(z[:, None], kl[:, None])
