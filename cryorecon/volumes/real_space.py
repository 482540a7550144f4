"""Volumes whose parameters live in real space; their slices come from the map's transform."""

import torch
from torch import Tensor, nn

from cryorecon.geometry.grid import Grid, Selection
from cryorecon.geometry.rotations import symmetry_group
from cryorecon.imaging.masks import radius_map
from cryorecon.volumes.base import Volume
from cryorecon.volumes.lattice import Lattice
from cryorecon.volumes.symmetry import mean_over_group


class RealSpace(Volume):
    """What :meth:`density` makes, sliced on a Fourier lattice: one transform for each conformation that is asked for.

    grid: the images' grid. z_dim: numbers that describe a conformation. mask: ``(D, D, D)`` that multiplies every map
    (default: none). pad: oversampling of the lattice. ``unit``: the density of a voxel at 1, so that the parameters are of
    order 1 whatever the images' scale; ``log_signal``: logarithm of a learned factor on it, from 0.
    """

    unit: Tensor
    mask: Tensor

    def __init__(self, grid: Grid, z_dim: int, mask: Tensor | None = None, pad: int = 2):
        super().__init__()
        self.grid, self.z_dim = grid, z_dim
        self.lattice = Lattice(grid.box, grid.box / 2, pad, grid.device)
        self.register_buffer("unit", torch.ones((), device=grid.device))
        self.log_signal = nn.Parameter(torch.zeros((), device=grid.device))
        self.register_buffer("mask", torch.ones((grid.box,) * 3, device=grid.device) if mask is None else mask.clone())

    @property
    def scale(self) -> Tensor:
        """The density of a voxel at 1."""
        return self.unit * self.log_signal.exp()

    def slices(self, rotation: Tensor, z: Tensor, selection: Selection) -> Tensor:
        """Central slices ``(B, K, P)`` complex at rotation ``(B|1, K, 3, 3)`` and ``z (B, K, d)``."""
        points, owner = self.grid.points[selection], None
        if self.z_dim:
            rotation = rotation.expand(len(z), -1, -1, -1)
            if z.requires_grad:  # which unique has no derivative for
                several, owner = z.flatten(0, 1), torch.arange(z.shape[0] * z.shape[1], device=z.device)
            else:
                several, owner = torch.unique(z.flatten(0, 1), dim=0, return_inverse=True)
        maps = self.density(several if self.z_dim else z.new_zeros(1, 0))
        coefficients = torch.view_as_real(self.lattice.from_density(maps)).flatten(0, 1)
        found = self.lattice.slices(coefficients, rotation.flatten(0, 1), points, owner)
        return found[..., 0].unflatten(0, rotation.shape[:2])

    def constrain(self) -> None:
        """Bring the parameters back to where they may be, after a gradient step."""


class DensityGrid(RealSpace):
    """One map, its voxels free but for a constraint: CryoGAN's (Gupta et al. 2021), from zeros.

    symmetry: point group over which the masked voxels' mean is the map. constraint: a projection after each step.
    ``positive``: ``X <- max(X, 0)``; ``radial``: also ``X <- min(X, c M)``, ``c = 10 (1 - r / R)`` in [0, 1], which falls in
    the outer tenth of the mask's radius R, and M the largest voxel within (CryoGAN's "Positive-Radial", whose floor relaxes
    besides); ``none``. Raises :class:`InputError` for no such group.
    """

    def __init__(self, grid: Grid, mask: Tensor | None = None, pad: int = 2, symmetry: str = "C1",
                 constraint: str = "positive"):
        super().__init__(grid, 0, mask, pad)
        self.constraint = constraint
        self.group = symmetry_group(symmetry)
        self.voxels = nn.Parameter(torch.zeros((grid.box,) * 3, device=grid.device))

    def density(self, z: Tensor) -> Tensor:
        """The map ``(n, D, D, D)``, the same at every z ``(n, 0)``."""
        map_ = mean_over_group((self.voxels * self.mask)[None], self.group)
        if len(self.group) > 1 and self.constraint != "none":
            map_ = map_.clamp(min=0)  # turns that are read between voxels ring
        return (map_ * self.scale).expand(max(len(z), 1), -1, -1, -1)

    def constrain(self) -> None:
        """Voxels back to where they may be."""
        with torch.no_grad():
            if self.constraint != "none":
                self.voxels.clamp_(min=0)
            if self.constraint == "radial":
                radius = radius_map(self.grid.box, 3, self.voxels.device)
                cap = (10 * (1 - radius / radius[self.mask > 0].max())).clamp(0, 1)
                self.voxels.clamp_(max=cap * self.voxels[cap == 1].max())
