"""Poses known from elsewhere."""

from collections.abc import Callable

from torch import Tensor, nn

from cryorecon.data.loader import Batch
from cryorecon.inference.hypotheses import Hypotheses


class Given(nn.Module):
    """One hypothesis an image: rotation ``(N, 3, 3)`` and shift ``(N, 2)`` in Å of the whole stack, by image id."""

    rotation: Tensor
    shift: Tensor

    def __init__(self, rotation: Tensor, shift: Tensor):
        super().__init__()
        self.register_buffer("rotation", rotation)
        self.register_buffer("shift", shift)

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """The batch's poses."""
        return hypotheses.with_pose(self.rotation[batch.image], self.shift[batch.image])

    def poses(self) -> tuple[Tensor, Tensor]:
        """All poses: rotation ``(N, 3, 3)``, shift ``(N, 2)`` in Å."""
        return self.rotation, self.shift
