"""Poses drawn from their prior: nothing is inferred."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cryorecon.data.loader import Batch
from cryorecon.geometry import rotations
from cryorecon.inference.hypotheses import Hypotheses


class Prior(nn.Module):
    """One random pose an image: rotation uniform on SO(3), shift uniform on ``+-extent`` Å in x and y.

    The images say nothing of these poses; a generator makes other images with them (Gupta et al. 2021, Algorithm 1).
    """

    extent: Tensor

    def __init__(self, extent: float = 0.0):
        super().__init__()
        self.register_buffer("extent", torch.tensor(float(extent)))

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """As many draws as the batch has images; drawn on the CPU, so that devices agree."""
        device = batch.data.device
        shift = (2 * torch.rand(len(batch), 2) - 1).to(device) * self.extent
        return hypotheses.with_pose(rotations.random(len(batch)).to(device), shift)
