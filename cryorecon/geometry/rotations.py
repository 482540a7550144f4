r"""Rotations of SO(3) as ``(..., 3, 3)`` matrices acting on column vectors ``(x, y, z)``.

A particle's rotation ``R`` turns the molecule, ``x' = R x``; the projection runs along z, so a slice samples the
volume's transform at ``k3 = R^T (kx, ky, 0)``. ``R`` equals RELION's ``A(rot, tilt, psi)`` and cryoDRGN's ``rots``.
"""

import math
import re

import roma
import torch
from torch import Tensor


def from_euler(angles: Tensor) -> Tensor:
    r"""RELION's ``A`` from ``(..., 3)`` Euler angles ``(rot, tilt, psi)`` in radians, ZYZ: ``A = Rz(psi) Ry(tilt)
    Rz(rot)`` with RELION's (passive) sign; see ``docs/conventions.md``."""
    ca, cb, cg = angles.cos().unbind(-1)
    sa, sb, sg = angles.sin().unbind(-1)
    rows = (
        (cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb),
        (-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb),
        (sb * ca, sb * sa, cb),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def to_euler(rotation: Tensor) -> Tensor:
    """Inverse of :func:`from_euler`: ``(..., 3)`` radians, tilt in ``[0, pi]``; at tilt 0 or pi, rot is 0."""
    tilt = torch.atan2(torch.hypot(rotation[..., 2, 0], rotation[..., 2, 1]), rotation[..., 2, 2])
    degenerate = torch.hypot(rotation[..., 2, 0], rotation[..., 2, 1]) < 1e-6
    rot = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 0])
    psi = torch.atan2(rotation[..., 1, 2], -rotation[..., 0, 2])
    psi = torch.where(degenerate, torch.atan2(rotation[..., 0, 1], rotation[..., 1, 1]), psi)
    return torch.stack([rot.masked_fill(degenerate, 0.0), tilt, psi], -1)


def from_rotation_vector(vector: Tensor) -> Tensor:
    """Rotation by ``|v|`` radians about ``v``, ``(..., 3)``; smooth at zero."""
    return roma.rotvec_to_rotmat(vector)


def random(n: int, generator: torch.Generator | None = None) -> Tensor:
    """``n`` rotations uniform on SO(3), ``(n, 3, 3)``, on the CPU (unit quaternions of normal deviates)."""
    quaternion = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return roma.unitquat_to_rotmat(quaternion / quaternion.norm(dim=-1, keepdim=True)).float()


def nearest(matrix: Tensor) -> Tensor:
    """The rotation nearest to each ``(..., 3, 3)`` matrix (Frobenius norm)."""
    return roma.special_procrustes(matrix)


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """Geodesic distance in radians between ``(..., 3, 3)`` rotations."""
    return roma.rotmat_geodesic_distance(first, second)


def defect(matrix: Tensor) -> Tensor:
    """Largest entry of ``|R R^T - 1|`` with 2 added where ``det R < 0``, ``(...)``: 0 for a rotation."""
    gram = matrix @ matrix.transpose(-1, -2) - torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    return gram.abs().amax((-1, -2)) + 2.0 * (torch.linalg.det(matrix) < 0)


def about_x(angle: float) -> Tensor:
    """Rotation by ``angle`` radians about x, ``(3, 3)``: the stage tilt."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def symmetry_group(name: str) -> Tensor:
    """Rotations of point group ``C<n>`` or ``D<n>``, ``(order, 3, 3)``: n-fold axis z, two-fold axis x (RELION)."""
    from cryorecon.errors import InputError

    kind, digits = name[:1].upper(), name[1:]
    if not re.fullmatch("[CD][1-9][0-9]{0,2}", name.upper()):
        raise InputError(f"symmetry: expected C<n> or D<n> such as C1, C4 or D2, found {name!r}; give one of these")
    fold = int(digits)
    angle = 2 * math.pi * torch.arange(fold, dtype=torch.float64) / fold
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    group = torch.stack(
        [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero, zero, zero, one], -1
    ).view(fold, 3, 3)
    if kind == "D":
        flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
        group = torch.cat([group, group @ flip])
    return group.float()
