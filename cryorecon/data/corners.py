r"""Patches of ice from particles' own corners, where the micrographs are not at hand.

Squares from the four corners of a micrograph's particle images, outside the particle's circle, are laid over a box in
overlapping windows. With windows ``w_i`` and squares ``n_i`` a patch is

.. math:: n = \sum_i w_i n_i \Big/ \sqrt{\textstyle\sum_i w_i^2},

which has the squares' variance everywhere, for they are independent. Its covariance at a distance is theirs, times how much a
window overlaps itself at that distance: what is finer than a square stays, what is coarser is lost.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import fold

from cryorecon.data.quality import chunk_size
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError
from cryorecon.imaging.masks import radius_map

LEAST = 4  # px, side of a square
POOL = 1000  # images of a micrograph whose corners are taken


def corner_side(box: int, radius: float) -> int:
    """Even side in pixels of the largest square in a box's corner beyond ``radius`` (fraction of ``D/2``)."""
    return int(box / 2 * (1 - radius / math.sqrt(2))) // 2 * 2


def corner_patches(stack: ParticleStack, radius: float, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The micrograph's name and patches ``(n, D, D)`` of it, as many as it has particles; some at a time.

    Without names all images count as of one micrograph, named "". Raises :class:`InputError` for CTF-premultiplied images,
    whose noise is another, and for corners of fewer than 4 px.
    """
    side = corner_side(stack.box, radius)
    if side < LEAST:
        raise InputError(f"--radius: expected corners of at least {LEAST} px beside the particle, found {side} px at {radius} "
                         f"of half the box's {stack.box} px; give a smaller --radius, or micrographs to --background")
    if stack.premultiplied:
        raise InputError("--background corners: expected images as they were taken, found CTF-premultiplied ones, whose noise "
                         "is premultiplied too; give the micrographs' folder")
    generator = torch.Generator().manual_seed(seed)
    of_image = np.full(len(stack), "") if stack.micrograph is None else stack.micrograph
    for name in np.unique(of_image):
        rows = np.flatnonzero(of_image == name)
        chosen = rows[torch.randperm(len(rows), generator=generator)[:POOL].sort().values.numpy()]
        squares = torch.cat([_corners(stack.images(part), side, radius)
                             for part in np.split(chosen, range(chunk_size(stack.box), len(chosen), chunk_size(stack.box)))])
        step = max(1, chunk_size(stack.box) // 8)  # of what is laid out at once, eight times a patch
        for start in range(0, len(rows), step):
            yield str(name), quilt(squares, min(step, len(rows) - start), stack.box, generator)


def _corners(images: Tensor, side: int, radius: float) -> Tensor:
    """The four corners ``(4 n, side, side)`` of images ``(n, D, D)``, less each image's mean outside ``radius``."""
    outside = radius_map(images.shape[-1], 2) > radius * images.shape[-1] / 2
    images = images - images[:, outside].mean(1)[:, None, None]
    rows = torch.cat([images[:, :side], images[:, -side:]])
    return torch.cat([rows[..., :side], rows[..., -side:]])


def quilt(squares: Tensor, n: int, box: int, generator: torch.Generator | None = None) -> Tensor:
    """Patches ``(n, box, box)`` of squares ``(m, a, a)``, ``a`` even, drawn with replacement, flipped and transposed at
    random; windows are half sines, half a square apart, whose squares add up to 1. Where they begin is random."""
    side, hop = squares.shape[-1], squares.shape[-1] // 2
    across = -(-box // hop) + 2
    count = n * across**2
    drawn = squares[torch.randint(len(squares), (count,), generator=generator)]
    for dims in ((1,), (2,)):
        drawn = torch.where(_coin(count, generator), drawn.flip(dims), drawn)
    drawn = torch.where(_coin(count, generator), drawn.mT, drawn)
    half_sine = torch.sin(torch.pi * (torch.arange(side) + 0.5) / side)
    drawn = drawn * (half_sine[:, None] * half_sine)
    whole = (across + 1) * hop
    laid = fold(drawn.reshape(n, across**2, side**2).mT, (whole, whole), side, stride=hop)[:, 0]
    start = hop + torch.randint(hop, (n, 2), generator=generator)  # before hop, fewer windows overlap
    return torch.stack([image[y : y + box, x : x + box] for image, (y, x) in zip(laid, start.tolist(), strict=True)])


def _coin(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, 1, 1, generator=generator) < 0.5
