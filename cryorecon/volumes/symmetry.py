"""Symmetry of maps in real space."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cryorecon.geometry.fourier import resample
from cryorecon.geometry.rotations import symmetry_group
from cryorecon.metrics.alignment import Alignment, apply

NUMERICAL = 1e-6


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


def mean_over_group(maps: Tensor, group: Tensor) -> Tensor:
    """Mean of maps ``(n, D, D, D)`` over the rotations ``(g, 3, 3)`` of :func:`symmetry_group`: :func:`symmetrise` for
    training, on the maps' device and differentiable.

    Turns about z are turns of the planes of z. Those of C2 and C4 lay voxels on voxels, which is exact and leaves no value
    below the least that was there; for others planes are read by bilinear interpolation at half the voxel size. What turns out
    of the box is lost.
    """
    turns = group[group[:, 2, 2] > 0, :2, :2]
    on_voxels = bool((turns.abs() - turns.abs().round()).abs().max() < NUMERICAL)
    box, fine = maps.shape[-1], maps.shape[-1] * (1 if on_voxels else 2)
    planes, middle, fine_middle = resample(maps, fine, 2).flatten(0, 1)[None], (box - 1) / 2, (fine - 1) / 2
    total = maps
    for turn in turns[1:]:  # place in the fine plane: fine / box R (x - box // 2) + fine // 2, both scaled to [-1, 1]
        aside = fine / box * (middle - box // 2) * turn.sum(1) + fine // 2 - fine_middle
        affine = torch.cat([fine / box * middle * turn, aside[:, None]], 1) / fine_middle
        places = F.affine_grid(affine[None].to(maps), [1, 1, box, box], align_corners=True)
        total = total + F.grid_sample(planes, places, align_corners=True)[0].unflatten(0, maps.shape[:2])
    total = total / len(turns)
    if len(turns) == len(group):
        return total
    turned = total.flip(1, 2)  # half a turn about x; the origin stays at D // 2
    return (total + (turned if box % 2 else turned.roll((1, 1), (1, 2)))) / 2
