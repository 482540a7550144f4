"""No conformation: one structure."""

from collections.abc import Callable

from torch import nn

from cryorecon.data.loader import Batch
from cryorecon.inference.hypotheses import Hypotheses


class Fixed(nn.Module):
    """Leaves the hypotheses as they are (d = 0)."""

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """The hypotheses, unchanged."""
        return hypotheses
