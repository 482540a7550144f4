r"""Nested grids on SO(3): HEALPix directions times in-plane angles, joined by the Hopf fibration.

Level ``r`` has ``12 * 4^r`` viewing directions (HEALPix, nested; Gorski et al. 2005) and ``6 * 2^r`` in-plane angles:
576 rotations 30 degrees apart at level 1, eight times as many at each level, .92 degrees apart at level 6 (Yershova et
al. 2010). A node is one integer, ``direction * (6 * 2^r) + angle``; children, parents and neighbours are computed from
it, so that no table grows with the level.

The rotation of direction ``(theta, phi)`` and angle ``psi`` is ``A(phi, theta, psi - phi)``. Near the lower pole the
fibre turns quickly with ``phi``; children are therefore matched to their parent by parallel transport: of each of the
four pixels within the parent's, the two angles nearest to the parent's own rotation. Every node has one parent.
"""

import math

import healpy
import numpy as np
import torch
from torch import Tensor

from cryorecon.geometry.rotations import from_euler

BASE_LEVEL = 1  # 576 rotations
TIE = 1e-6  # in-plane steps: where symmetry puts a node midway, rounding must not decide


def n_angles(level: int) -> int:
    """In-plane angles of a level."""
    return 6 << level


def size(level: int) -> int:
    """Number of rotations of a level."""
    return 12 * 4**level * n_angles(level)


def spacing(level: int) -> float:
    """Step between in-plane angles in radians; neighbouring directions lie about as far apart."""
    return 2 * math.pi / n_angles(level)


def rotations(level: int, nodes: Tensor | None = None) -> Tensor:
    """Rotations ``(..., 3, 3)`` float32 of nodes ``(...)`` int64; by default all of the level, ``(size, 3, 3)``."""
    nodes = torch.arange(size(level)) if nodes is None else nodes
    n = n_angles(level)
    theta, phi = _direction(level, nodes // n)
    psi = (nodes % n + 0.5) * spacing(level)
    return from_euler(torch.stack([phi, theta, psi - phi], -1)).float()


def nearest(level: int, rotation: Tensor) -> Tensor:
    """The node whose direction's pixel holds that of each rotation ``(..., 3, 3)``, at the nearest angle: ``(...)``."""
    x, y, z = (part.double().cpu().numpy() for part in rotation[..., 2, :].unbind(-1))
    pixel = torch.from_numpy(np.asarray(healpy.vec2pix(1 << level, x, y, z, nest=True))).to(rotation.device)
    return pixel * n_angles(level) + _angle_index(level, pixel, rotation, 1) % n_angles(level)


def children(level: int, nodes: Tensor) -> Tensor:
    """The eight nodes of level + 1 within each node: ``(..., 8)``."""
    fine, n = level + 1, n_angles(level)
    pixels = (nodes // n)[..., None] * 4 + torch.arange(4, device=nodes.device)
    first = 2 * (nodes % n)[..., None] + _carried(fine, pixels)
    angles = (first[..., None] + torch.arange(2, device=nodes.device)) % n_angles(fine)
    return (pixels[..., None] * n_angles(fine) + angles).flatten(-2)


def parents(level: int, nodes: Tensor) -> Tensor:
    """The node of level - 1 that has each node among its children: ``(...)``."""
    n = n_angles(level)
    pixel = nodes // n
    return pixel // 4 * (n // 2) + (nodes % n - _carried(level, pixel)) % n // 2


def neighbours(level: int, nodes: Tensor) -> Tensor:
    """Nodes next to each node, itself included: ``(..., 27)``: nine directions times three angles.

    Eight pixels of a sphere lack one neighbour; there the node itself stands in.
    """
    n = n_angles(level)
    pixel = nodes // n
    around = torch.from_numpy(healpy.get_all_neighbours(1 << level, pixel.cpu().numpy(), nest=True)).to(nodes.device)
    pixels = torch.cat([pixel[None], torch.where(around < 0, pixel, around)]).movedim(0, -1)
    first = _angle_index(level, pixels, rotations(level, nodes)[..., None, :, :], 3)
    angles = (first[..., None] + torch.arange(3, device=nodes.device)) % n
    return (pixels[..., None] * n + angles).flatten(-2)


def _direction(level: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Polar angle and azimuth of directions, float64."""
    theta, phi = healpy.pix2ang(1 << level, pixels.cpu().numpy(), nest=True)
    return torch.from_numpy(np.asarray(theta)).to(pixels.device), torch.from_numpy(np.asarray(phi)).to(pixels.device)


def _carried(level: int, pixels: Tensor) -> Tensor:
    """First of the two angles at ``pixels (...)`` that belong to angle 0 of their parent pixel: ``(...)``.

    A parent's other angles are carried along by as much. One integer for a pair of pixels, so that no rounding gives a
    node two parents.
    """
    theta, phi = _direction(level - 1, pixels // 4)
    psi = torch.full_like(phi, spacing(level))  # angle 0 of the level above
    return _angle_index(level, pixels, from_euler(torch.stack([phi, theta, psi - phi], -1)), 2)


def _angle_index(level: int, pixels: Tensor, rotation: Tensor, count: int) -> Tensor:
    """First index of the ``count`` consecutive in-plane angles at ``pixels (...)`` nearest to ``rotation
    (..., 3, 3)``.

    ``Rz(psi) B`` is nearest to ``R`` where ``trace(Rz(psi) B R^T)`` is largest: a cosine in ``psi``.
    """
    theta, phi = _direction(level, pixels)
    level_one = from_euler(torch.stack([phi, theta, -phi], -1))
    relative = level_one @ rotation.to(level_one).transpose(-1, -2)
    # A(., ., psi) = P(psi) A(., ., 0) with P the passive turn [[c, s], [-s, c]]
    psi = torch.atan2(relative[..., 1, 0] - relative[..., 0, 1], relative[..., 0, 0] + relative[..., 1, 1])
    place = psi / spacing(level) - 0.5 + TIE
    first = (place - (count - 1) / 2).round() if count % 2 else place.floor() - (count // 2 - 1)
    return first.long() % n_angles(level)
