"""A volume on a Fourier lattice: one map, or a linear family ``V_0 + sum_c z_c V_c``."""

import torch
from torch import Tensor, nn

from cryorecon.geometry.grid import Grid, Selection
from cryorecon.volumes.base import Volume
from cryorecon.volumes.lattice import Lattice


class VoxelGrid(Volume):
    """``V(z) = V_0 + sum_c z_c V_c`` with coefficients on a half Fourier lattice; a class is a one-hot z.

    Parameters
    ----------
    grid: the images' grid.
    z_dim: number of components beside the mean.
    limit: band limit in Fourier pixels (default: the grid's edge). pad: oversampling of the lattice.
    """

    def __init__(self, grid: Grid, z_dim: int = 0, limit: float | None = None, pad: int = 2):
        super().__init__()
        self.grid, self.z_dim = grid, z_dim
        self.lattice = Lattice(grid.box, limit or grid.box / 2, pad, grid.device)
        self.coefficients = nn.Parameter(torch.zeros(self.lattice.n, 2 * (1 + z_dim), device=grid.device))

    def restrict(self, limit: float) -> None:
        """Change the lattice's reach to ``limit`` Fourier pixels; coefficients start at zero."""
        self.lattice = Lattice(self.grid.box, limit, self.lattice.pad, self.grid.device)
        self.coefficients = nn.Parameter(torch.zeros(self.lattice.n, 2 * (1 + self.z_dim), device=self.grid.device))

    @staticmethod
    def from_density(density: Tensor, grid: Grid, pad: int = 2) -> "VoxelGrid":
        """A volume of maps ``(Q, D, D, D)``: the mean, then the components."""
        volume = VoxelGrid(grid, len(density) - 1, pad=pad)
        volume.set_values(volume.lattice.from_density(density))
        return volume

    def set_values(self, values: Tensor) -> None:
        """Set the lattice values ``(Q, V)`` complex (as of :meth:`Lattice.from_density`)."""
        with torch.no_grad():
            self.coefficients.copy_(torch.view_as_real(values.T.contiguous()).flatten(1))

    @property
    def values(self) -> Tensor:
        """Lattice values ``(Q, V)`` complex."""
        return torch.view_as_complex(self.coefficients.view(self.lattice.n, -1, 2)).T

    def shell_amplitude(self, n_shells: int) -> Tensor:
        """Rms of the mean's lattice values by shell, ``(n_shells,)``; never below a thousandth of the largest."""
        power = self.lattice.shell_mean(self.values[0].detach().abs().square())[:n_shells]
        amplitude = torch.nn.functional.pad(power, (0, n_shells - len(power))).sqrt()
        return amplitude.clamp(min=1e-3 * float(amplitude.max()))

    def component_slices(self, rotation: Tensor, selection: Selection) -> Tensor:
        """Slices of the mean and of every component, ``(N, P, Q)`` complex, at rotations ``(N, 3, 3)``.

        Beyond the lattice's band limit they are zero.
        """
        points = self.grid.points[selection]
        values = self.lattice.slices(self.coefficients, rotation, points)
        if self.lattice.limit < self.grid.box / 2:
            values = values * (self.grid.radius[selection] <= self.lattice.limit)[:, None]
        return values

    def slices(self, rotation: Tensor, z: Tensor, selection: Selection) -> Tensor:
        """Central slices ``(B, K, P)`` complex at rotation ``(B|1, K, 3, 3)`` and ``z (B, K, d)``."""
        parts = self.component_slices(rotation.flatten(0, 1), selection).unflatten(0, rotation.shape[:2])
        if self.z_dim == 0:
            return parts[..., 0]
        return parts[..., 0] + torch.einsum("bkpd,bkd->bkp", parts[..., 1:], z.to(parts.dtype))

    def density(self, z: Tensor) -> Tensor:
        """Maps ``(n, D, D, D)`` at ``z (n, d)``."""
        values = self.values
        family = values[:1] + z.to(values.dtype) @ values[1:] if self.z_dim else values.expand(max(len(z), 1), -1)
        return self.lattice.to_density(family, corrected=False) * self.lattice.envelope(self.grid.box)
