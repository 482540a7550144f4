r"""A finely oversampled transform, read at the nearest lattice point: the volume that a pose search looks at.

Four times finer than the images' Fourier pixels, the nearest point lies within 1/8 pixel, and reading it is one memory
access for a point where trilinear interpolation takes eight: over ten times faster on a processor. Any volume can be
rasterised, so that a search never evaluates a network.
"""

import math

import torch
from torch import Tensor

from cryorecon.geometry.fourier import centred_crop_or_pad, centred_fft
from cryorecon.geometry.grid import Grid, Selection

PAD = 4


class Raster:
    """A linear family ``V_0 + sum_c z_c V_c`` for reading only, up to ``limit`` Fourier pixels.

    density: maps ``(Q, D', D', D')`` that span the grid's box (``D'`` may be coarser than it).

    The centred index ``x + side y + side^2 z`` of ``-k`` is minus that of ``k``: the half with a positive index is
    kept, and the sign says when to conjugate.
    """

    def __init__(self, density: Tensor, grid: Grid, limit: float, pad: int = PAD):
        self.grid, self.limit, self.z_dim = grid, min(float(limit), grid.box / 2), len(density) - 1
        coarse = density.shape[-1]
        self.pad, middle = pad, pad * coarse // 2
        self.reach = min(math.ceil(self.limit * pad) + 1, middle - 1)
        self.side = 2 * self.reach + 1
        window = slice(middle - self.reach, middle + self.reach + 1)
        scale = (grid.box / coarse) ** 3 / grid.box
        rows = []
        for one in density:
            centred = centred_fft(centred_crop_or_pad(one, pad * coarse, 3), 3)[window, window, window]
            rows.append(centred.reshape(-1)[self.side**3 // 2 :] * scale)
        self.values = torch.stack(rows, 1)

    def component_slices(self, rotation: Tensor, selection: Selection) -> Tensor:
        """Slices of the mean and of every component, ``(N, P, Q)`` complex, at rotations ``(N, 3, 3)``."""
        points = (self.grid.points[selection] * self.pad) @ rotation[:, :2]
        x, y, z = points.round_().clamp_(-self.reach, self.reach).to(torch.int32).unbind(-1)
        index = x + self.side * (y + self.side * z)
        values = self.values[index.abs().long()]
        mirrored = (index < 0)[..., None]
        return torch.where(mirrored, values.conj(), values)

    def slices(self, rotation: Tensor, z: Tensor, selection: Selection) -> Tensor:
        """Central slices ``(B, K, P)`` complex at rotation ``(B, K, 3, 3)`` and ``z (B, K, d)``."""
        parts = self.component_slices(rotation.flatten(0, 1), selection).unflatten(0, rotation.shape[:2])
        if self.z_dim == 0:
            return parts[..., 0]
        return parts[..., 0] + (parts[..., 1:] @ z.to(parts.dtype)[..., None])[..., 0]
