"""Conformations drawn from their prior: nothing is inferred."""

from collections.abc import Callable

import torch
from torch import nn

from cryorecon.data.loader import Batch
from cryorecon.inference.hypotheses import Hypotheses


class Prior(nn.Module):
    """One random z a particle, uniform on ``[0, 1]^d``: Multi-CryoGAN's alpha. z_dim: d."""

    def __init__(self, z_dim: int):
        super().__init__()
        self.z_dim = z_dim

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """A draw for each of the batch's particles; their divergence from the prior is zero."""
        values, owner = torch.unique(batch.particle, return_inverse=True)
        z = torch.rand(len(values), 1, self.z_dim).to(batch.data.device)[owner]
        return hypotheses.with_z(z, torch.zeros_like(z[..., 0]))
