"""Conformations drawn from their prior: nothing is inferred."""

import math
from collections.abc import Callable

import torch
from torch import nn

from cryorecon.data.loader import Batch
from cryorecon.inference.hypotheses import Hypotheses


class Prior(nn.Module):
    """One random z a particle, uniform on ``[0, 1]^d``: Multi-CryoGAN's alpha.

    z_dim: d. shared: particles of a batch that have one z in common, where each z costs the volume a map.
    """

    def __init__(self, z_dim: int, shared: int = 1):
        super().__init__()
        self.z_dim, self.shared = z_dim, shared

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """A draw for each of the batch's particles; their divergence from the prior is zero."""
        values, owner = torch.unique(batch.particle, return_inverse=True)
        drawn = torch.rand(math.ceil(len(values) / self.shared), 1, self.z_dim).to(batch.data.device)
        z = drawn[owner // self.shared]
        return hypotheses.with_z(z, torch.zeros_like(z[..., 0]))
