r"""Critics of images: a number for each, higher where it takes them for real.

Both are plain functions of the pixels, so that the gradient penalty, which is of one image each, means what it says: nothing
is normalised over a batch.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryorecon.errors import InputError
from cryorecon.geometry.rings import Rings, around

SLOPE = 0.1
SMALLEST = 8  # px


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

    Where views are uniform, turning an image in its plane makes another as likely, and so does mirroring it: the view from
    behind is the mirror image. The best critic is blind to both. This one is, by its making, and learns one template where a
    critic of pixels needs one for each angle, and twice. At a signal-to-noise ratio of 0.1 no small filter sees anything; a
    template that covers the particle sums up all of its signal.

    .. math::
        h_j(\varphi) = \sum_r \sum_{\varphi'} w_j(r, \varphi') y(r, \varphi + \varphi'), \qquad
        D(y) = \langle a, \mathrm{mean}_\varphi\, g(h(\varphi)) \rangle,

    y on rings (:class:`~cryorecon.geometry.rings.Rings`), the sums over angles by Fourier series, the mean over the image and
    its mirror image too, g one layer on the templates' responses.

    box: side D. width: K; there are 4 K templates and 2 K units on them.
    """

    def __init__(self, box: int, width: int = 16):
        super().__init__()
        if box < SMALLEST:
            raise InputError(f"critic: expected images of at least {SMALLEST} px for 'polar', found {box}; give --critic conv")
        self.rings = Rings(box)
        self.templates = Templates(self.rings, 4 * width)
        self.mixed, self.score = nn.Linear(4 * width, 2 * width), nn.Linear(2 * width, 1)
        for part in (self.mixed, self.score):
            nn.init.kaiming_normal_(part.weight, a=SLOPE)
            part.bias.data.zero_()
        self.score.weight.data *= math.sqrt(self.rings.angles)  # of what a mean over turns takes away

    def forward(self, images: Tensor) -> Tensor:
        """``(B,)`` for images ``(B, D, D)``."""
        orders = self.rings(images)
        responses = F.leaky_relu(self.templates(torch.cat([orders, orders.conj()], -1)), SLOPE)
        units = F.leaky_relu(self.mixed.weight @ responses + self.mixed.bias[:, None], SLOPE)
        return self.score(units.mean(0).T)[:, 0].unflatten(0, (2, -1)).mean(0)


class Templates(nn.Module):
    """Responses of ``n`` templates at every turn. weight: ``(n, M, R, 2)``, Fourier coefficients over the angle, of order M,
    real and imaginary part; bias: ``(n,)``."""

    def __init__(self, rings: Rings, n: int):
        super().__init__()
        self.angles = rings.angles
        size = (n, rings.angles // 2 + 1, rings.rings, 2)
        self.weight = nn.Parameter(torch.randn(size) * math.sqrt(2 / (1 + SLOPE**2) / rings.rings))
        self.bias = nn.Parameter(torch.zeros(n))

    def forward(self, orders: Tensor) -> Tensor:
        """``(angles, n, B)`` of images' series ``(M, R, B)``."""
        return around(torch.view_as_complex(self.weight).transpose(0, 1) @ orders, self.angles) + self.bias[:, None]


CRITICS = {"conv": ConvCritic, "polar": PolarCritic}


def with_spectral_norms(critic: nn.Module) -> nn.Module:
    """The critic with every layer's weight divided by its largest singular value (Miyato et al. 2018), in place.

    Templates count as one matrix, of a row each, whose norm is never less than that of any angular order's.
    """
    for part in list(critic.modules()):
        if isinstance(part, nn.Conv2d | nn.Linear | Templates):
            nn.utils.parametrizations.spectral_norm(part)
    return critic
