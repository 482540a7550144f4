"""What every volume does."""

from abc import abstractmethod

from torch import Tensor, nn

from cryorecon.geometry.grid import Grid, Selection


class Volume(nn.Module):
    """A density with conformations.

    Slices, not point queries: some volumes have cheaper ways than points. ``grid``: the images' grid. ``z_dim``:
    numbers that describe a conformation, 0 for one structure.
    """

    grid: Grid
    z_dim: int

    @abstractmethod
    def slices(self, rotation: Tensor, z: Tensor, selection: Selection) -> Tensor:
        """Central slices ``(B, K, P)`` complex at rotation ``(B|1, K, 3, 3)`` and ``z (B, K, d)``, at a selection of
        the grid's points."""

    @abstractmethod
    def density(self, z: Tensor) -> Tensor:
        """Maps ``(n, D, D, D)`` at ``z (n, d)``."""
