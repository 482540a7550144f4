"""Energies of many poses at once, against the model's own energy of the same hypotheses."""

import pytest
import torch

from cryorecon.data.loader import Batch
from cryorecon.geometry import rotations, so3_grid
from cryorecon.geometry.shift_grid import shift_grid
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.energies import flat, own_energies, shared_energies
from cryorecon.inference.pose.given import Given
from cryorecon.inference.pose.search import Plan, Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.model import Model, per_particle
from cryorecon.volumes.voxel_grid import VoxelGrid

IMAGES = torch.tensor([5, 0, 11, 3])


@pytest.fixture
def model(small) -> Model:
    volume = VoxelGrid.from_density(small.maps, small.grid)
    return Model(small.grid, volume, Given(small.stack.poses.rotation, small.stack.poses.shift), Fixed())


@pytest.fixture
def batch(small) -> Batch:
    return small.loader().read(IMAGES).select(small.grid.band(6))


def by_the_model(model, batch, rotation, shift, z) -> torch.Tensor:
    """``(B, K)`` without each image's own constant: rotation ``(B, K, 3, 3)``, shift ``(B, K, 2)``, z ``(B, K, d)``."""
    weight = torch.zeros(z.shape[:2])
    with torch.no_grad():
        return model.energy(Hypotheses(rotation, shift, z, weight, weight), batch) - batch.norm[:, None]


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_product_of_flat_spectra_is_the_real_part():
    first, second = torch.view_as_complex(draws(3, 7, 2)), torch.view_as_complex(draws(3, 7, 2, seed=1))
    torch.testing.assert_close((flat(first) * flat(second)).sum(1), (first.conj() * second).real.sum(1))


def test_shared_energies_are_the_models(small, model, batch):
    grid, turned, shifts = small.grid, so3_grid.rotations(0)[::5], shift_grid(6.0, 3)
    none = torch.zeros(1, len(turned), 1)
    with torch.no_grad():
        slices = model.volume.slices(turned[None], none, batch.selection)[0]
    found = shared_energies(slices, batch.data, batch.power, grid.phase_ramp(shifts, batch.selection))
    b, t, m = len(batch), len(shifts), len(turned)
    assert found.shape == (b, t, m)
    every = (b, t, m)
    expected = by_the_model(model, batch, turned.expand(*every, 3, 3).flatten(1, 2),
                            shifts[None, :, None].expand(*every, 2).flatten(1, 2), torch.zeros(b, t * m, 1))
    same(found, expected.view(every))


def test_own_energies_are_the_models(small, model, batch):
    b, k, t, c = len(batch), 3, 4, 2
    turned = rotations.random(b * k * c, torch.Generator().manual_seed(0)).view(b, k, c, 3, 3)
    shift, z = 5 * draws(b, k, t, 2), draws(b, k, c, 1, seed=2)
    with torch.no_grad():
        slices = model.volume.slices(turned.flatten(1, 2), z.flatten(1, 2), batch.selection).view(b, k, c, -1)
    found = own_energies(slices, batch.data, batch.power, small.grid.phase_ramp(shift, batch.selection))
    assert found.shape == (b, k, t, c)
    every = (b, k, t, c)
    expected = by_the_model(model, batch, turned[:, :, None].expand(*every, 3, 3).flatten(1, 3),
                            shift[:, :, :, None].expand(*every, 2).flatten(1, 3), z[:, :, None].expand(*every, 1).flatten(1, 3))
    same(found, expected.view(every))


def test_a_searchs_energies_are_sums_over_a_particles_images(small, model):
    """Images at ``T R`` of particles 2 (images 5, 0) and 0 (images 11, 3): in the order of the particles' ids."""
    batch = small.loader().read(IMAGES)
    batch = Batch(batch.data, batch.power, batch.norm, batch.image, torch.tensor([2, 2, 0, 0]))
    owner = torch.tensor([1, 1, 0, 0])
    tilt = rotations.random(12, torch.Generator().manual_seed(3))
    tilt[[5, 11]] = torch.eye(3)
    search = Search(small.grid, PoseTable.unknown(3, tilt), Plan(4.0))
    z = draws(3, 1, seed=4)
    search.look_at(model.volume, z=z)
    n, k, t, c = 2, 2, 3, 2
    turned = rotations.random(n * k * c, torch.Generator().manual_seed(5)).view(n, k, c, 3, 3)
    shift = 4 * draws(n, k, t, 2)
    with torch.no_grad():
        found = search.energies(turned, shift, batch, owner, 5.0)
    every = (4, k, t, c)
    posed = tilt[IMAGES][:, None, None, None] @ turned[owner][:, :, None].expand(*every, 3, 3)
    expected = by_the_model(model, batch.select(small.grid.band(5.0)), posed.flatten(1, 3),
                            shift[owner][:, :, :, None].expand(*every, 2).flatten(1, 3),
                            z[batch.particle][:, None].expand(-1, k * t * c, -1))
    same(found, per_particle(expected, batch).flip(0).view(n, k, t, c))
