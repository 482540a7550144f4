"""Poses drawn from their prior: nothing is inferred."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cryorecon.data.loader import Batch
from cryorecon.data.poses import Poses
from cryorecon.geometry import rotations
from cryorecon.inference.hypotheses import Hypotheses


class Prior(nn.Module):
    """One random pose an image: rotation uniform on SO(3), shift uniform on ``+-extent`` Å in x and y.

    The images say nothing of these poses; a generator makes other images with them (Gupta et al. 2021, Algorithm 1).

    extent: None: shifts as ``poses`` has them, none without. poses: instead of all rotations those of these entries, each as
    likely, turned in the plane by a uniform angle; the shift is not turned with it. They are not part of a checkpoint.
    """

    extent: Tensor

    def __init__(self, extent: float | None = None, poses: Poses | None = None):
        super().__init__()
        self.register_buffer("extent", torch.tensor(extent or 0.0))
        self.poses, self.moved = poses, poses is not None and extent is None

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """As many draws as the batch has images; drawn on the CPU, so that devices agree."""
        n, device = len(batch), batch.data.device
        shift = (2 * torch.rand(n, 2) - 1).to(device) * self.extent
        if self.poses is None:
            return hypotheses.with_pose(rotations.random(n).to(device), shift)
        drawn = self.poses[torch.randint(len(self.poses), (n,))]
        turn = torch.nn.functional.pad(2 * math.pi * torch.rand(n, 1), (2, 0))  # about z
        rotation = rotations.from_rotation_vector(turn) @ drawn.rotation
        return hypotheses.with_pose(rotation.to(device), drawn.shift.to(device) if self.moved else shift)
