"""Exact images and volumes of atoms: against sums written out plainly, and against each other."""

import math

import pytest
import torch

from cryorecon.geometry import rotations
from cryorecon.geometry.grid import Grid
from cryorecon.simulation.molecule import of_elements
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.render import ImageRenderer, scattering_factors, volume
from cryorecon.volumes.voxel_grid import VoxelGrid

B_FACTOR = 20.0


def small_molecule():
    generator = torch.Generator().manual_seed(1)
    atoms = 12 * torch.randn(2, 60, 3, generator=generator)
    return of_elements(atoms, ["C", "N", "O"] * 20, occupancy=torch.rand(2, 60, generator=generator))


def plain_spectrum(molecule, state, rotation, grid):
    """The definition: f_e(k) sum_j exp(-2 pi i k.r_j) in double precision."""
    frequency = grid.frequency.double()
    turned = molecule.coordinates[state].double() @ rotation.double().T
    factors = scattering_factors(molecule, frequency.square().sum(-1), B_FACTOR)[molecule.element]
    phase = -2 * math.pi * turned[:, :2] @ frequency.T
    amplitude = factors * molecule.occupancy[state, :, None] / (grid.box * grid.apix**3)
    return (amplitude * torch.polar(torch.ones_like(phase), phase)).sum(0)


@pytest.mark.parametrize(("box", "apix"), [(32, 3.0), (33, 2.5)])
def test_images_are_the_sum_over_atoms(box, apix):
    molecule, grid = small_molecule(), Grid(box, apix)
    rotation = rotations.random(4, torch.Generator().manual_seed(2))
    state = torch.tensor([0, 1, 1, 0])
    spectra = ImageRenderer(molecule, grid, B_FACTOR)(state, rotation)
    for i in range(4):
        exact = plain_spectrum(molecule, int(state[i]), rotation[i], grid)
        assert (spectra[i] - exact).norm() < 1e-5 * exact.norm()
        edge = grid.radius > 0.4 * box  # where the kernel's transform is smallest
        assert (spectra[i] - exact)[edge].norm() < 3e-5 * exact[edge].norm()


def test_projection_of_the_volume_is_the_image():
    molecule, grid = small_molecule(), Grid(32, 3.0)
    image = ImageRenderer(molecule, grid, B_FACTOR)(torch.tensor([1]), torch.eye(3)[None])[0]
    projection = grid.spectra(volume(molecule, 1, 32, 3.0, B_FACTOR).sum(0))
    assert (image - projection).norm() < 1e-5 * projection.norm()


def test_an_atom_lies_where_its_coordinates_say():
    position = torch.tensor([9.0, -6.0, 12.0])  # x, y, z in Å
    molecule = of_elements(position.expand(1, 1, 3), ["C"])
    density = volume(molecule, 0, 32, 3.0, 60.0)
    assert [int(i) for i in torch.unravel_index(density.argmax(), density.shape)] == [16 + 4, 16 - 2, 16 + 3]


def test_slices_of_the_volume_agree_with_projected_atoms():
    """Trilinear slices of the density on the grid against exact projections, at random orientations."""
    molecule, grid = flexible("rigid"), Grid(48, 4.0)
    density = volume(molecule, 0, 48, 4.0, 100.0)
    rotation = rotations.random(6, torch.Generator().manual_seed(3))
    exact = ImageRenderer(molecule, grid, 100.0)(torch.zeros(6, dtype=torch.long), rotation)
    lattice = VoxelGrid.from_density(density[None], grid)
    with torch.no_grad():
        found = lattice.slices(rotation[:, None], torch.zeros(6, 1, 0), slice(0, grid.n))[:, 0]
    inner = grid.n_points(0.8 * 24)  # at the edge of the sphere the density is cut off
    error = (found - exact)[:, :inner].norm() / exact[:, :inner].norm()
    assert error < 0.03


def test_a_rotation_turns_the_molecule():
    molecule, grid = small_molecule(), Grid(32, 3.0)
    rotation = rotations.random(1, torch.Generator().manual_seed(4))
    turned = of_elements(molecule.coordinates @ rotation[0].T, ["C", "N", "O"] * 20, occupancy=molecule.occupancy)
    first = ImageRenderer(molecule, grid, B_FACTOR)(torch.tensor([0]), rotation)
    second = ImageRenderer(turned, grid, B_FACTOR)(torch.tensor([0]), torch.eye(3)[None])
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5 * float(first.abs().max()))
