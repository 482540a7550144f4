r"""Multi-CryoGAN's generator of conformations: a convolutional network from a mixture of two fixed random cubes to a map."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.volumes.real_space import RealSpace

SLOPE = 0.1
BRIGHTEST = 0.025  # the cubes' entries are uniform on (0, BRIGHTEST), as in the paper


class ConvGenerator(RealSpace):
    r"""``x = softplus(G((1 - alpha) z_0 + alpha z_1))`` with z = alpha in [0, 1] and ``z_0``, ``z_1`` fixed cubes of the box.

    The paper names no architecture; this is a U-Net of two halvings (3 x 3 x 3 convolutions, leaky ReLU), its input scaled to
    variance 1.

    Parameters
    ----------
    grid: the images' grid, its box a multiple of 4. mask: ``(D, D, D)``. width: channels at full size; 2 and 4 times as many
    below. pad: oversampling of the lattice. The cubes and the weights are drawn from torch's own generator.

    Raises
    ------
    InputError: a box that can't be halved twice.
    """

    cubes: Tensor

    def __init__(self, grid: Grid, mask: Tensor | None = None, width: int = 16, pad: int = 2):
        super().__init__(grid, 1, mask, pad)
        if grid.box % 4:
            raise InputError(f"volume 'conv': expected a box that is a multiple of 4 px, found {grid.box}; downsample the "
                             "images to one")
        self.register_buffer("cubes", BRIGHTEST * torch.rand(2, grid.box, grid.box, grid.box))
        wide = (width, 2 * width, 4 * width)
        self.down = nn.ModuleList(_Block(into, out) for into, out in pairwise((1, *wide)))
        self.up = nn.ModuleList((_Block(wide[2] + wide[1], wide[1]), _Block(wide[1] + wide[0], wide[0])))
        self.head = nn.Conv3d(width, 1, 3, padding=1)
        self.head.get_parameter("bias").data.fill_(-3.0)  # softplus(-3) = .05: begins near an empty box
        self.to(grid.device)

    def density(self, z: Tensor) -> Tensor:
        """Maps ``(n, D, D, D)`` at ``z (n, 1)``."""
        alpha = z[:, :, None, None]
        mixed = (1 - alpha) * self.cubes[0] + alpha * self.cubes[1]
        x = ((mixed - BRIGHTEST / 2) * (12**0.5 / BRIGHTEST))[:, None]
        kept = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.avg_pool3d(x, 2))
            kept.append(x)
        for block, skipped in zip(self.up, (kept[1], kept[0]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skipped], 1))
        return F.softplus(self.head(x))[:, 0] * self.mask * self.scale


class _Block(nn.Module):
    """A 3 x 3 x 3 convolution and a leaky ReLU."""

    def __init__(self, into: int, out: int):
        super().__init__()
        self.convolution = nn.Conv3d(into, out, 3, padding=1)
        nn.init.kaiming_normal_(self.convolution.weight, a=SLOPE)
        self.convolution.get_parameter("bias").data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """``(n, out, D, D, D)`` of ``(n, into, D, D, D)``."""
        return F.leaky_relu(self.convolution(x), SLOPE)
