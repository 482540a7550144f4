"""Images read on rings about their origin, where a turn is a shift along the angle."""

import math
from typing import Any

import torch
from torch import Tensor, nn

EDGE = 0.87  # of half the box: where the last ring lies, within the soft window
OVERSAMPLED = 1.15  # angles of that ring beside its circumference at half of Nyquist


class Rings(nn.Module):
    """Fourier series of images along rings: a turn multiplies the order m by a phase, a mirror image's are the conjugates.

    Parameters as of :func:`polar_sampling`. rings, angles: R and A.
    """

    sampling: Tensor
    transposed: Tensor

    def __init__(self, box: int, edge: float = EDGE, oversampled: float = OVERSAMPLED):
        super().__init__()
        matrix, self.rings, self.angles = polar_sampling(box, edge, oversampled)
        self.register_buffer("sampling", matrix, persistent=False)
        self.register_buffer("transposed", matrix.T.coalesce(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """``(M, R, n)`` complex for images ``(n, D, D)``, orders 0 to A / 2; images stay last, so that no array is turned
        over."""
        polar = _Product.apply(images.flatten(1).T, self.sampling, self.transposed).unflatten(0, (self.rings, self.angles))
        return torch.fft.rfft(polar, dim=1, norm="ortho").transpose(0, 1)


def around(orders: Tensor, angles: int) -> Tensor:
    """Values ``(angles, ...)`` at every angle of real series ``(M, ...)``."""
    return torch.fft.irfft(orders, n=angles, dim=0, norm="ortho")


class _Product(torch.autograd.Function):
    """A sparse matrix times a dense one, its derivative the same with the matrix transposed: of any order, which a gradient
    penalty needs and torch's own lacks."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.matrices = transposed, matrix
        return torch.sparse.mm(matrix, dense)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(gradient, *ctx.matrices), None, None


def polar_sampling(box: int, edge: float = EDGE, oversampled: float = OVERSAMPLED) -> tuple[Tensor, int, int]:
    """What reads an image ``(D, D)`` on rings about its origin at ``D // 2``: a sparse matrix ``(R A, D^2)``, R rings a pixel
    apart, the last at the share ``edge`` of half the box, and A angles, ``oversampled`` times its circumference at half of
    Nyquist.

    Cubic convolution (Keys 1981), 16 pixels a place; a place weighs as the root of its area, so that white noise stays white
    but near the middle, where places are denser than pixels.
    """
    rings = int(edge * box / 2)
    angles = 4 * math.ceil(oversampled * math.pi * rings / 4)
    radius = torch.arange(rings) + 0.5
    angle = 2 * math.pi * torch.arange(angles) / angles
    places = torch.stack([radius[:, None] * angle.sin(), radius[:, None] * angle.cos()], -1).flatten(0, 1) + box // 2
    first = places.floor().long() - 1
    pixels = first[:, :, None] + torch.arange(4)  # (P, 2, 4), those around a place along y and x
    weights = _keys((places[:, :, None] - pixels).abs())
    area = (2 * math.pi * radius / angles).sqrt().repeat_interleave(angles)
    values = area[:, None, None] * weights[:, 0, :, None] * weights[:, 1, None, :]
    columns = pixels[:, 0, :, None].clamp(0, box - 1) * box + pixels[:, 1, None, :].clamp(0, box - 1)
    rows = torch.arange(len(places))[:, None, None].expand_as(columns)
    index = torch.stack([rows.flatten(), columns.flatten()])
    matrix = torch.sparse_coo_tensor(index, values.flatten(), (len(places), box * box), check_invariants=False)
    return matrix.coalesce(), rings, angles


def _keys(x: Tensor) -> Tensor:
    """The kernel of cubic convolution at distances ``x`` of at most 2 px."""
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, far)
