"""Nested grids of shifts in the plane: cell-centred squares, each of four children."""

import torch
from torch import Tensor


def shift_grid(extent: float, n: int, device: torch.device | str = "cpu") -> Tensor:
    """Centres ``(n * n, 2)`` of ``n x n`` equal cells that fill ``[-extent, extent]`` squared; in units of ``extent``."""
    axis = (torch.arange(n, device=device) + 0.5) * (2 * extent / n) - extent
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def shift_children(shift: Tensor, step: float) -> Tensor:
    """Centres ``(..., 4, 2)`` of the four quarters of cells with side ``step`` around ``shift (..., 2)``."""
    return shift[..., None, :] + shift_grid(step / 2, 2, shift.device).to(shift)
