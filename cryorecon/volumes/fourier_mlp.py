r"""A coordinate network in Fourier space: ``V(k, z)`` as a residual MLP on positional encodings (CryoDRGN).

Hermitian by construction: points with ``kz > 0`` are evaluated at ``-k`` and conjugated (on the plane ``kz = 0`` itself,
which random views meet in a line, both points are evaluated and maps take their mean). The first layer is
split, ``W_k pe(k) + W_z z``, so that a conformation costs one small product an image instead of ``d`` more columns a
point. A residual layer ``relu(x + W x + b)`` is computed as ``relu((1 + W) x + b)``: the same function, one product,
no addition.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryorecon.errors import InputError
from cryorecon.geometry.fourier import centred_ifft
from cryorecon.geometry.grid import Grid, Selection
from cryorecon.volumes.base import Volume
from cryorecon.volumes.voxel_grid import VoxelGrid

ENCODINGS = ("gaussian", "geometric")
AT_ONCE = 1 << 17  # points whose activations are held where no gradient flows: some 3 KB each


class PositionalEncoding(nn.Module):
    """Sines and cosines of ``k`` at fixed frequencies, ``2 F`` features.

    ``geometric``: wavelengths from 1 to the box's Nyquist in a geometric series along each axis (CryoDRGN eq. 7-8),
    ``F = 3 n``. ``gaussian``: ``3 n`` random directions, ``b ~ N(0, sigma^2) n`` (Tancik et al. 2020, as in cryoDRGN).
    ``n`` is half the box unless given.
    """

    frequency: Tensor

    def __init__(self, kind: str, box: int, n: int | None = None, sigma: float = 0.5):
        super().__init__()
        if kind not in ENCODINGS:
            raise InputError(f"positional encoding: expected one of {', '.join(ENCODINGS)}, found {kind!r}")
        n = n or box // 2
        if kind == "geometric":
            scale = math.pi * box * (2 / box) ** (torch.arange(n) / max(n - 1, 1))
            frequency = torch.block_diag(*[scale[:, None]] * 3)
        else:
            frequency = torch.randn(3 * n, 3) * sigma * (box // 2)
        self.register_buffer("frequency", frequency)
        self.n_features = 2 * len(frequency)

    def forward(self, rotation: Tensor, fraction: Tensor) -> Tensor:
        """Features ``(N, P, 2 F)`` of slice points: rotation ``(N, 3, 3)``, fraction ``(P, 2)`` = k / D; with the sign
        that mirrors ``kz > 0`` already applied to the sines."""
        turned = torch.einsum("fi,nji->njf", self.frequency, rotation[:, :2])  # frequency . R^T k = (R frequency) . k
        phase = torch.matmul(fraction, turned)
        return torch.cat([phase.sin() * mirror_sign(rotation, fraction)[..., None], phase.cos()], -1)


def mirror_sign(rotation: Tensor, fraction: Tensor) -> Tensor:
    """-1 where a slice's point lies at ``kz > 0``, else 1: ``(N, P)``."""
    kz = torch.matmul(rotation[:, :2, 2], fraction.T)
    return 1.0 - 2.0 * (kz > 0).to(kz)


class FourierMLP(Volume):
    """Residual MLP volume with an optional explicit base.

    Parameters
    ----------
    grid: the images' grid. z_dim: size of the conformation. width, layers: of the residual MLP.
    encoding, features, feature_sigma: positional encoding (see :class:`PositionalEncoding`).
    base: a linear volume that the network stands on; its latent is the first coordinates of z.
    half_precision: matrix products in bfloat16 (coordinates, encodings and sums stay in single precision).

    Attributes
    ----------
    amplitude: ``(n_shells,)``, the factor on the network's output by shell: the volume's rms spectrum where it is known.
    """

    amplitude: Tensor
    identity: Tensor

    def __init__(self, grid: Grid, z_dim: int = 0, width: int = 1024, layers: int = 3, encoding: str = "gaussian",
                 features: int | None = None, feature_sigma: float = 0.5, base: VoxelGrid | None = None,
                 half_precision: bool = False):
        super().__init__()
        self.grid, self.z_dim, self.base, self.half_precision = grid, z_dim, base, half_precision
        self.encode = PositionalEncoding(encoding, grid.box, features, feature_sigma)
        self.first = nn.Linear(self.encode.n_features, width)
        self.first_z = nn.Linear(z_dim, width, bias=False) if z_dim else None
        self.hidden = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
        self.head = nn.Linear(width, 2)
        self.register_buffer("identity", torch.eye(width), persistent=False)
        self.register_buffer("amplitude", torch.ones(grid.n_shells))
        if base is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def network(self, features: Tensor, z: Tensor) -> Tensor:
        """Raw output ``(N, P, 2)`` of features ``(N, P, 2 F)`` and conformations ``(N, d)``."""
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.half_precision):
            return self._network(features, z).float()

    def _network(self, features: Tensor, z: Tensor) -> Tensor:
        x = F.linear(features, self.first.weight, self.first.bias)
        if self.first_z is not None:
            x = x + self.first_z(z)[:, None]
        x = F.relu(x).flatten(0, 1)
        for layer in self._layers():  # rectified in place: a product keeps no output (on matrices: views would be copied)
            x = F.linear(x, layer.weight + self.identity, layer.bias).relu_()
        return F.linear(x, self.head.weight, self.head.bias).unflatten(0, features.shape[:2])

    def _layers(self) -> list[nn.Linear]:
        return [layer for layer in self.hidden if isinstance(layer, nn.Linear)]

    def slices(self, rotation: Tensor, z: Tensor, selection: Selection) -> Tensor:
        """Central slices ``(B, K, P)`` complex at rotation ``(B|1, K, 3, 3)`` and ``z (B, K, d)``."""
        batch, k = (z if self.z_dim else rotation).shape[:2]
        rotation = rotation.expand(batch, k, 3, 3).flatten(0, 1)
        fraction = self.grid.points[selection] / self.grid.box
        rows = batch * k if torch.is_grad_enabled() else max(1, AT_ONCE // len(fraction))  # a search asks for many
        latent = z.flatten(0, 1) if self.z_dim else z.new_zeros(batch * k, 0)
        parts = zip(rotation.split(rows), latent.split(rows), strict=True)
        out = torch.cat([self.network(self.encode(turned, fraction), at) for turned, at in parts])
        out = out * self.amplitude[self.grid.shell[selection]][:, None]
        values = torch.complex(out[..., 0], out[..., 1] * mirror_sign(rotation, fraction)).view(batch, k, len(fraction))
        if self.base is not None:
            values = values + self.base.slices(rotation.view(batch, k, 3, 3), z[..., : self.base.z_dim], selection)
        return values

    def density(self, z: Tensor, chunk: int = 1 << 16) -> Tensor:
        """Maps ``(n, D, D, D)`` at ``z (n, d)``; each half volume is evaluated once, ``chunk`` points at a time."""
        half = half_volume_points(self.grid.box).to(self.grid.device)
        radius = half.norm(dim=1)
        scale = self.amplitude[radius.round().long().clamp(max=len(self.amplitude) - 1)]
        maps = []
        with torch.no_grad():
            for one in z.reshape(max(len(z), 1), -1) if self.z_dim else z.new_zeros(1, 0):
                values = torch.cat([self._at(part / self.grid.box, one) for part in half.split(chunk)]) * scale
                density = from_half_volume(values, half, self.grid.box)
                if self.base is not None:
                    density = density + self.base.density(one[None, : self.base.z_dim])[0]
                maps.append(density)
        return torch.stack(maps).expand(max(len(z), 1), -1, -1, -1)  # one structure is evaluated once

    def _at(self, fraction: Tensor, z: Tensor) -> Tensor:
        """Values ``(M,)`` complex at points ``(M, 3)`` with ``kz <= 0``, as fractions of the box."""
        phase = fraction @ self.encode.frequency.T
        out = self.network(torch.cat([phase.sin(), phase.cos()], -1)[None], z[None])[0]
        return torch.view_as_complex(out.contiguous())


def half_volume_points(box: int) -> Tensor:
    """Integer points ``(M, 3)`` with ``|k| < D/2``: ``kz < 0``, and all of the plane ``kz = 0`` but the origin."""
    half = (box - 1) // 2
    axis = torch.arange(-half, half + 1)
    kz, ky, kx = torch.meshgrid(axis[: half + 1], axis, axis, indexing="ij")
    points = torch.stack([kx, ky, kz], -1).reshape(-1, 3)
    squared = points.square().sum(1)
    return points[(4 * squared < box**2) & (squared > 0)].float()


def from_half_volume(values: Tensor, points: Tensor, box: int) -> Tensor:
    """Density ``(D, D, D)`` of values at :func:`half_volume_points`; the plane ``kz = 0`` is made Hermitian."""
    index = points.long() + box // 2
    spectrum = values.new_zeros(box, box, box)
    spectrum[index[:, 2], index[:, 1], index[:, 0]] = values
    mirror = 2 * (box // 2) - index
    inside = (mirror < box).all(1)
    plane = points[:, 2] == 0
    below = inside & ~plane
    spectrum[mirror[below, 2], mirror[below, 1], mirror[below, 0]] = values[below].conj()
    partner = spectrum[mirror[plane, 2], mirror[plane, 1], mirror[plane, 0]].conj()
    spectrum[index[plane, 2], index[plane, 1], index[plane, 0]] = 0.5 * (values[plane] + partner)
    return centred_ifft(spectrum, 3).real * box
