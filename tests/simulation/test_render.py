"""What `laws/test_render.py` leaves open: how exact images are, atoms that are partly there, slices of the density."""

import math

import torch

from cryorecon.geometry import rotations
from cryorecon.geometry.grid import Grid
from cryorecon.simulation.molecule import of_elements
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.render import ImageRenderer, scattering_factors, volume
from cryorecon.volumes.voxel_grid import VoxelGrid

B_FACTOR = 20.0


def test_images_are_exact_to_the_edge_of_the_band_with_occupancies():
    generator = torch.Generator().manual_seed(1)
    atoms = 12 * torch.randn(2, 60, 3, generator=generator)
    molecule = of_elements(atoms, ["C", "N", "O"] * 20, occupancy=torch.rand(2, 60, generator=generator))
    grid, rotation = Grid(32, 3.0), rotations.random(40, generator)
    state = torch.arange(40) % 2
    spectra = ImageRenderer(molecule, grid, B_FACTOR)(state, rotation)
    frequency = grid.frequency.double()
    factors = scattering_factors(molecule, frequency.square().sum(-1), B_FACTOR)[molecule.element]
    turned = rotation.double() @ molecule.coordinates[state].double().transpose(1, 2)
    phase = -2 * math.pi * torch.einsum("bia,pi->bap", turned[:, :2], frequency)
    exact = torch.polar(molecule.occupancy[state, :, None] * factors, phase).sum(1) / (32 * 3.0**3)
    error = (spectra - exact).abs()
    assert error.norm() < 2e-6 * exact.norm()
    edge = grid.radius > 15
    assert error[:, edge].norm() < 1e-5 * exact[:, edge].norm()


def test_slices_of_the_density_agree_with_projected_atoms():
    """Trilinear slices of the map on the grid against exact projections, at random orientations."""
    molecule, grid = flexible("rigid"), Grid(48, 4.0)
    density = volume(molecule, 0, 48, 4.0, 100.0)
    rotation = rotations.random(6, torch.Generator().manual_seed(3))
    exact = ImageRenderer(molecule, grid, 100.0)(torch.zeros(6, dtype=torch.long), rotation)
    lattice = VoxelGrid.from_density(density[None], grid)
    with torch.no_grad():
        found = lattice.slices(rotation[:, None], torch.zeros(6, 1, 0), slice(0, grid.n))[:, 0]
    inner = grid.n_points(22)  # beyond, neighbours outside the band's sphere are missing
    assert (found - exact)[:, :inner].norm() < 0.02 * exact[:, :inner].norm()
