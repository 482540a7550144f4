"""Symmetry of maps in real space."""

import torch
from torch import Tensor

from cryorecon.geometry.rotations import symmetry_group
from cryorecon.metrics.alignment import Alignment, apply


def symmetrise(density: Tensor, symmetry: str) -> Tensor:
    """Mean of a map ``(D, D, D)`` over the rotations of point group ``C<n>`` or ``D<n>``; the map itself for ``C1``.

    Raises
    ------
    InputError: no such group.
    """
    group = symmetry_group(symmetry)
    if len(group) == 1:
        return density
    held = density.detach().cpu()
    turned = [apply(Alignment(rotation, torch.zeros(3), 1, 1.0), held, 1.0) for rotation in group[1:]]
    return torch.stack([held, *turned]).mean(0).to(density.device)
