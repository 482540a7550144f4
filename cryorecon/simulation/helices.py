"""Protein-like atoms: globular domains packed with alpha helices, so that maps show rods from about 10 Å on."""

import math

import torch
from torch import Tensor

Vector = tuple[float, float, float]

RISE, TWIST, SPACING = 1.5, math.radians(100), 9.5  # Å and radians a residue; Å between helix axes
# a residue in its helix: element, radius (Å), angle (degrees) and height (Å) from its C-alpha; round ideal values
BACKBONE = (("N", 1.55, -28.0, -0.9), ("C", 2.29, 0.0, 0.0), ("C", 1.66, 26.0, 1.1), ("O", 1.98, 22.0, 2.3),
            ("C", 3.30, -19.0, -0.3))
SIDE_CHAIN = ("C", "C")  # further atoms, placed at random beyond the backbone


def domain(centre: Vector, radii: Vector, bundles: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
    """An ellipsoid of helix bundles: atoms ``(A, 3)`` in Å and their elements.

    The ellipsoid is cut among ``bundles`` random seeds, and each cell packed with parallel helices in a direction of
    its own. The packing is about a protein's (7 atoms per 117 Å^3 of a rod).
    """
    size = torch.tensor(radii)
    seeds = torch.randn(bundles, 3, generator=generator)
    seeds = seeds / seeds.norm(dim=1, keepdim=True) * size * 0.55
    residues = []
    for number, seed in enumerate(seeds):
        frame = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
        axis, turn = _rods(2 * float(size.max()), generator)
        axis = axis @ frame.T + seed
        distance = torch.cdist(axis, seeds)
        own = distance[:, number].clone()
        distance[:, number] = torch.inf
        # helices of two cells must not run into each other, and side chains stay inside
        keep = (own + 2 < distance.amin(1)) & ((axis / (size - 2)).norm(dim=1) < 1)
        residues.append(_residues(axis[keep], turn[keep], frame, generator))
    position = torch.cat(residues) + torch.tensor(centre)
    return position.flatten(0, 1), [*(name for name, *_ in BACKBONE), *SIDE_CHAIN] * len(position)


def _rods(reach: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Parallel helices along z within ``reach`` Å: residues' points on the axis ``(R, 3)`` and turns ``(R,)``."""
    count = math.ceil(reach / SPACING)
    row, column = (x.flatten() for x in torch.meshgrid(*[torch.arange(-count, count + 1)] * 2, indexing="ij"))
    place = torch.stack([row + 0.5 * (column % 2), column * math.sqrt(0.75)], 1) * SPACING
    place = place + 0.7 * torch.randn(place.shape, generator=generator)
    number = torch.arange(-int(reach / RISE), int(reach / RISE) + 1)
    random = torch.rand(3, len(place), 1, generator=generator)
    period = 16 + 12 * random[0]  # residues from one gap between helices to the next
    helix = (number + 40 * random[1]) % period < period - 3
    turn = TWIST * number + 2 * math.pi * random[2]
    height = (RISE * number).expand(len(place), -1)[..., None]
    return torch.cat([place[:, None].expand(-1, len(number), -1), height], -1)[helix], turn[helix]


def _residues(axis: Tensor, turn: Tensor, frame: Tensor, generator: torch.Generator) -> Tensor:
    """Atoms ``(R, 7, 3)`` about axis points ``(R, 3)`` of helices along the frame's third column."""
    radius, angle, height = torch.tensor([numbers for _, *numbers in BACKBONE]).T
    n, side = len(axis), len(SIDE_CHAIN)
    random = torch.rand(n, side, 3, generator=generator)
    radius = torch.cat([radius.expand(n, -1), 3.6 + 2.2 * random[..., 0]], 1)
    angle = torch.cat([torch.deg2rad(angle).expand(n, -1), 0.8 * (random[..., 1] - 0.5)], 1) + turn[:, None]
    height = torch.cat([height.expand(n, -1), 3 * (random[..., 2] - 0.5)], 1)
    return axis[:, None] + torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1) @ frame.T
