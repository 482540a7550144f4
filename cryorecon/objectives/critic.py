r"""Critics of images: a number for each, higher where it takes them for real.

Both are plain functions of the pixels, so that the gradient penalty, which is of one image each, means what it says: nothing
is normalised over a batch.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryorecon.errors import InputError

SLOPE = 0.1
SMALLEST = 8  # px
EDGE = 0.87  # of half the box: where the last ring lies, within the soft window
OVERSAMPLED = 1.15  # angles of that ring beside its circumference at half of Nyquist


class ConvCritic(nn.Module):
    """CryoGAN's: ``layers`` times 3 x 3 convolution, 2 x 2 maximum, leaky ReLU; then two linear layers (Gupta et al. 2021).

    Weights as He et al. 2015, biases zero.

    Parameters
    ----------
    box: side D of the images. width: K; the layers have 2 K, 4 K, ... channels. layers: m. hidden: of the linear layers.
    """

    def __init__(self, box: int, width: int = 16, layers: int = 3, hidden: int = 50):
        super().__init__()
        side = box >> layers
        if side < 1:
            raise InputError(f"critic_layers: expected at most {box.bit_length() - 1}, halvings of {box} px, found "
                             f"{layers}; give a smaller --critic-layers")
        channels = [1, *(width << (i + 1) for i in range(layers))]
        parts: list[nn.Module] = []
        for into, out in pairwise(channels):
            parts += [nn.Conv2d(into, out, 3, padding=1), nn.MaxPool2d(2), nn.LeakyReLU(SLOPE)]
        flat = channels[-1] * side * side
        self.network = nn.Sequential(*parts, nn.Flatten(), nn.Linear(flat, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, 1))
        for part in self.network:
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, a=SLOPE)
                part.get_parameter("bias").data.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """``(B,)`` for images ``(B, D, D)``."""
        return self.network(images[:, None])[:, 0]


class PolarCritic(nn.Module):
    r"""Templates as large as the image, compared with it at every turn in the plane; the score is a mean over turns.

    Where views are uniform, turning an image makes another as likely, and the best critic is blind to turns. This one is, by
    its making, and learns one template where a critic of pixels needs one for each angle. At a signal-to-noise ratio of 0.1 no
    small filter sees anything; a template that covers the particle sums up all of its signal.

    .. math::
        h_j(\varphi) = \sum_r \sum_{\varphi'} w_j(r, \varphi') y(r, \varphi + \varphi'), \qquad
        D(y) = \langle a, \mathrm{mean}_\varphi\, g(h(\varphi)) \rangle,

    y on rings (:func:`polar_sampling`), the sums over angles by Fourier series, g one layer on the templates' responses.

    box: side D. width: K; there are 4 K templates and 2 K units on them.
    """

    sampling: Tensor
    transposed: Tensor

    def __init__(self, box: int, width: int = 16):
        super().__init__()
        if box < SMALLEST:
            raise InputError(f"critic: expected images of at least {SMALLEST} px for 'polar', found {box}; give --critic conv")
        matrix, self.rings, self.angles = polar_sampling(box)
        self.register_buffer("sampling", matrix, persistent=False)
        self.register_buffer("transposed", matrix.T.coalesce(), persistent=False)
        self.templates = Templates(self.rings, self.angles, 4 * width)
        self.mixed, self.score = nn.Linear(4 * width, 2 * width), nn.Linear(2 * width, 1)
        for part in (self.mixed, self.score):
            nn.init.kaiming_normal_(part.weight, a=SLOPE)
            part.bias.data.zero_()
        self.score.weight.data *= math.sqrt(self.angles)  # of what a mean over turns takes away

    def forward(self, images: Tensor) -> Tensor:
        """``(B,)`` for images ``(B, D, D)``."""
        polar = _Product.apply(images.flatten(1).T, self.sampling, self.transposed).unflatten(0, (self.rings, self.angles))
        responses = F.leaky_relu(self.templates(polar), SLOPE)  # images stay last: no array is turned over
        units = F.leaky_relu(self.mixed.weight @ responses + self.mixed.bias[:, None], SLOPE)
        return self.score(units.mean(0).T)[:, 0]


class Templates(nn.Module):
    """Responses of ``n`` templates at every turn. weight: ``(n, M, R, 2)``, Fourier coefficients over the angle, of order M,
    real and imaginary part; bias: ``(n,)``."""

    def __init__(self, rings: int, angles: int, n: int):
        super().__init__()
        self.angles = angles
        self.weight = nn.Parameter(torch.randn(n, angles // 2 + 1, rings, 2) * math.sqrt(2 / (1 + SLOPE**2) / rings))
        self.bias = nn.Parameter(torch.zeros(n))

    def forward(self, polar: Tensor) -> Tensor:
        """``(angles, n, B)`` of images on rings ``(R, angles, B)``."""
        orders = torch.fft.rfft(polar, dim=1, norm="ortho").transpose(0, 1)
        product = torch.view_as_complex(self.weight).transpose(0, 1) @ orders
        return torch.fft.irfft(product, n=self.angles, dim=0, norm="ortho") + self.bias[:, None]


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


def polar_sampling(box: int) -> tuple[Tensor, int, int]:
    """What reads an image ``(D, D)`` on rings about its origin at ``D // 2``: a sparse matrix ``(R A, D^2)``, R rings a pixel
    apart and A angles.

    Cubic convolution (Keys 1981), 16 pixels a place; a place weighs as the root of its area, so that white noise stays white
    but near the middle, where places are denser than pixels.
    """
    rings = int(EDGE * box / 2)
    angles = 4 * math.ceil(OVERSAMPLED * math.pi * rings / 4)
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


CRITICS = {"conv": ConvCritic, "polar": PolarCritic}


def with_spectral_norms(critic: nn.Module) -> nn.Module:
    """The critic with every layer's weight divided by its largest singular value (Miyato et al. 2018), in place.

    Templates count as one matrix, of a row each, whose norm is never less than that of any angular order's.
    """
    for part in list(critic.modules()):
        if isinstance(part, nn.Conv2d | nn.Linear | Templates):
            nn.utils.parametrizations.spectral_norm(part)
    return critic
