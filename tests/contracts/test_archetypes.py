"""Maps along alpha as mixtures of archetypes: one map until they are let go, positive always, and images of what is mixed."""

import pytest
import torch

from cryorecon.geometry import rotations
from cryorecon.geometry.grid import Grid
from cryorecon.volumes.archetypes import Archetypes
from cryorecon.volumes.real_space import DensityGrid

GRID = Grid(16, 3.0)


@pytest.fixture
def mixed(smooth_maps):
    """Four archetypes that differ."""
    volume = Archetypes(GRID, n=4)
    volume.voxels.data.copy_(smooth_maps(16, 4).clamp(min=0))
    return volume


def test_weights_are_positive_and_add_up_to_one_and_follow_alpha(mixed):
    weights = mixed.weights(torch.linspace(0, 1, 30)[:, None])
    assert float(weights.detach().min()) >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(30))
    assert weights.argmax(1).tolist() == sorted(weights.argmax(1).tolist())  # a row of neighbours
    assert set(weights.argmax(1).tolist()) == {0, 1, 2, 3}


def test_shares_of_alpha_are_those_of_the_walk(mixed):
    """A quarter of alpha at the first, a step, the rest at the last: two states of unequal occupancy."""
    with torch.no_grad():
        mixed.logits.fill_(-30.0)
        mixed.logits[0], mixed.logits[-1] = 0.0, torch.tensor(3.0).log()
        weights = mixed.weights(torch.tensor([[0.0], [0.24], [0.26], [1.0]]))
        first, last = torch.eye(4)[0], torch.eye(4)[3]
        torch.testing.assert_close(weights, torch.stack([first, first, last, last]), atol=1e-4, rtol=0)
        mixed.logits[1::2] = 30.0  # all ways, no stay: linear between archetypes
        weights = mixed.weights(torch.tensor([[1 / 6], [1 / 3], [0.5]]))
        torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5, 0, 0], [0, 1.0, 0, 0], [0, 0.5, 0.5, 0]]),
                                   atol=1e-5, rtol=0)


def test_while_tied_a_step_leaves_one_map_the_mean(mixed):
    mean = mixed.voxels.detach().mean(0)
    mixed.constrain()
    torch.testing.assert_close(mixed.voxels.detach(), mean.expand(4, -1, -1, -1))
    z = torch.tensor([[0.0], [0.4], [1.0]])
    torch.testing.assert_close(mixed.density(z), mean.expand(3, -1, -1, -1))


def test_let_go_they_part_by_the_seed_and_once(mixed):
    mixed.constrain()
    other = Archetypes(GRID, n=4)
    other.load_state_dict(mixed.state_dict())
    for volume, seed in ((mixed, 1), (other, 2)):
        volume.release(torch.Generator().manual_seed(seed))
    assert not torch.allclose(mixed.voxels, other.voxels)
    before = mixed.voxels.detach().clone()
    assert float((before[0] - before[3]).norm() / before[0].norm()) > 0.1
    assert float(before.min()) >= 0
    mixed.release(torch.Generator().manual_seed(3))
    mixed.constrain()
    assert not bool(mixed.tied)
    assert float((mixed.voxels.detach() - before).norm() / before.norm()) < 1e-3  # neither again, nor tied again


def test_a_pull_brings_neighbours_nearer_and_keeps_what_is_linear_along_alpha(mixed, smooth_maps):
    mixed.tied.fill_(False)
    before = mixed.voxels.detach().clone()
    mixed.pull = 0.5
    mixed.constrain()
    after = mixed.voxels.detach()
    same = lambda maps: maps / maps.sum()  # noqa: E731
    torch.testing.assert_close(same(after[1]), same((before[1] + (before[0] + before[2]) / 2) / 2))
    torch.testing.assert_close(same(after[3]), same((before[3] + before[2]) / 2))
    first, last = same(smooth_maps(16, 2).clamp(min=0)[0]), same(smooth_maps(16, 2).clamp(min=0)[1])
    ramp = torch.lerp(first, last, torch.linspace(0, 1, 4)[:, None, None, None])
    mixed.voxels.data.copy_(ramp)
    mixed.constrain()
    torch.testing.assert_close(mixed.voxels.detach()[1:3], ramp[1:3])


def test_of_degree_one_they_lie_on_a_line_evenly_apart(mixed):
    """The line nearest to them; what is on it stays."""
    mixed.tied.fill_(False)
    mixed.degree = 1
    before = mixed.voxels.detach() + 1  # far from zero, so that nothing is cut
    before = before / before.sum((1, 2, 3), keepdim=True) * 4096
    mixed.voxels.data.copy_(before)
    mixed.constrain()
    after = mixed.voxels.detach()
    torch.testing.assert_close(after[1] - after[0], after[3] - after[2], atol=1e-4, rtol=1e-4)
    place = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])
    slope = (place[:, None, None, None] * before).sum(0) / place.square().sum()
    torch.testing.assert_close((after[3] - after[0]) / 2, slope, atol=1e-4, rtol=1e-3)
    mixed.constrain()
    torch.testing.assert_close(mixed.voxels.detach(), after, atol=1e-4, rtol=1e-4)


def test_of_degree_two_they_lie_on_a_parabola(mixed):
    """The nearest one; what is on it stays, and the pull does nothing."""
    mixed.tied.fill_(False)
    mixed.degree, mixed.pull = 2, 0.5
    before = mixed.voxels.detach() + 1
    before = before / before.sum((1, 2, 3), keepdim=True) * 4096
    mixed.voxels.data.copy_(before)
    mixed.constrain()
    after = mixed.voxels.detach().flatten(1)
    torch.testing.assert_close(after[3] - 3 * after[2] + 3 * after[1] - after[0], torch.zeros(4096), atol=1e-4, rtol=0)
    cubic = torch.tensor([-1.0, 3.0, -3.0, 1.0]) / 20**0.5  # what no parabola holds
    lost = before.flatten(1) - after
    torch.testing.assert_close(lost, cubic[:, None] * (cubic @ before.flatten(1)), atol=1e-4, rtol=1e-3)
    mixed.constrain()
    torch.testing.assert_close(mixed.voxels.detach().flatten(1), after, atol=1e-4, rtol=1e-4)


def test_all_have_the_same_mass_within_the_mask(mixed):
    mixed.tied.fill_(False)
    mixed.mask[:, :, :4] = 0
    mean = float((mixed.voxels.detach() * mixed.mask).sum() / 4) * float(mixed.scale.detach())
    mixed.constrain()
    torch.testing.assert_close(mixed.maps().detach().sum((1, 2, 3)), torch.full((4,), mean))


def test_one_archetype_is_one_map(smooth_maps):
    volume = Archetypes(GRID, n=1)
    volume.voxels.data.copy_(smooth_maps(16, 1).clamp(min=0))
    before = volume.voxels.detach().clone()
    volume.release(torch.Generator().manual_seed(0))
    torch.testing.assert_close(volume.voxels.detach(), before)


def test_images_are_those_of_the_mixed_map(mixed):
    """A slice of a mixture, from mixed slices, is that of the mixed map."""
    z = torch.tensor([0.1, 0.5, 0.95])[:, None, None]
    turns = rotations.random(3, torch.Generator().manual_seed(0))[:, None]
    with torch.no_grad():
        found = mixed.slices(turns, z, slice(None))
        for i in range(3):
            one = DensityGrid(GRID)
            one.voxels.copy_(mixed.density(z[i])[0])
            expected = one.slices(turns[i : i + 1], torch.zeros(1, 1, 0), slice(None))
            torch.testing.assert_close(found[i : i + 1], expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_no_voxel_below_zero(mixed):
    mixed.tied.fill_(False)
    mixed.voxels.data.sub_(0.1 * mixed.voxels.data.max())
    assert float(mixed.voxels.detach().min()) < 0
    mixed.constrain()
    assert float(mixed.voxels.detach().min()) == 0
