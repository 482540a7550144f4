"""Poses refined by gradient from given ones."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cryorecon.data.loader import Batch
from cryorecon.geometry.rotations import from_rotation_vector
from cryorecon.inference.hypotheses import Hypotheses


class Refine(nn.Module):
    """``R = exp(w) R_0``, ``t = t_0 + u`` with a rotation vector ``w`` (radians) and shift ``u`` (Å) of each image
    learned.

    ``w`` is stored in units of a pixel's arc at the particle's rim, ``u`` in pixels, so that one step size suits both.
    """

    rotation: Tensor
    shift: Tensor

    def __init__(self, rotation: Tensor, shift: Tensor, apix: float, box: int):
        super().__init__()
        self.register_buffer("rotation", rotation)
        self.register_buffer("shift", shift)
        self.apix, self.arc = apix, 2.0 / box
        self.turn = nn.Embedding.from_pretrained(torch.zeros(len(rotation), 3), freeze=False, sparse=True)
        self.move = nn.Embedding.from_pretrained(torch.zeros(len(rotation), 2), freeze=False, sparse=True)

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """The batch's poses, differentiable in the corrections."""
        turn = from_rotation_vector(self.turn(batch.image) * self.arc)
        shift = self.shift[batch.image] + self.move(batch.image) * self.apix
        return hypotheses.with_pose(turn @ self.rotation[batch.image], shift)

    def poses(self) -> tuple[Tensor, Tensor]:
        """All refined poses: rotation ``(N, 3, 3)``, shift ``(N, 2)`` in Å."""
        with torch.no_grad():
            rotation = from_rotation_vector(self.turn.weight * self.arc) @ self.rotation
            return rotation, self.shift + self.move.weight * self.apix
