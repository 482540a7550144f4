"""Maps and backprojections with a point group."""

import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.geometry.fourier import resample
from cryorecon.geometry.grid import Grid
from cryorecon.geometry.rotations import random, symmetry_group
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.pose.given import Given
from cryorecon.metrics.alignment import Alignment, apply
from cryorecon.metrics.fsc import fsc_curve
from cryorecon.training.closed_form import consensus
from cryorecon.volumes.real_space import DensityGrid
from cryorecon.volumes.symmetry import mean_over_group, symmetrise


@pytest.mark.parametrize("group", ["C2", "C3", "D2", "D3"])
def test_symmetrised_maps_stay_when_turned(group, smooth_maps):
    density = symmetrise(smooth_maps(20, 1, sharpness=0.12)[0], group)
    for rotation in symmetry_group(group):
        turned = apply(Alignment(rotation, torch.zeros(3), 1, 1.0), density, 1.0)
        assert float((turned - density).norm() / density.norm()) < 0.02


def test_a_symmetric_map_is_kept_and_c1_is_nothing(smooth_maps):
    density = smooth_maps(20, 1, sharpness=0.12)[0]
    assert symmetrise(density, "C1") is density
    once = symmetrise(density, "D2")
    torch.testing.assert_close(symmetrise(once, "D2"), once, atol=0.01 * float(once.abs().max()), rtol=0)


def test_unknown_group(smooth_maps):
    with pytest.raises(InputError, match="symmetry"):
        symmetrise(smooth_maps(20, 1)[0], "O")


def test_symmetry_stands_for_images_that_are_not_there(planted):
    """With D2 told, 60 noisy images of a D2 object are worth 240."""
    problem = planted(60, box=20, sigma=2.0, group="D2")
    half, mask = 1 + torch.arange(60) % 2, soft_sphere(20, 8, 1.5)
    pose = Given(problem.stack.poses.rotation, problem.stack.poses.shift)
    loader = problem.loader()
    curves = [fsc_curve(consensus(loader, problem.grid, pose, half, mask, group).halves.mean(0), problem.maps[0], mask).value
              for group in ("C1", "D2")]
    assert curves[1][1:7].mean() > curves[0][1:7].mean() + 0.05
    assert (curves[1][1:5] > 0.9).all()


@pytest.mark.parametrize("box", [20, 21])
@pytest.mark.parametrize("group", ["C2", "C3", "C4", "D2", "D3", "D4", "C7"])
def test_the_mean_that_trains_is_the_mean_that_is_written(group, box, smooth_maps):
    """Of several maps, as the splines' of each."""
    maps = resample(smooth_maps(16, 2, sharpness=0.12), box, 3)  # nothing at Nyquist, which splines leave out
    for found, density in zip(mean_over_group(maps, symmetry_group(group)), maps, strict=True):
        wanted = symmetrise(density, group)
        assert float((found - wanted).norm() / wanted.norm()) < 0.02


@pytest.mark.parametrize("box", [12, 13])
@pytest.mark.parametrize(("group", "half_turn"), [("C2", (1, 2)), ("C4", (1, 2)), ("D2", (0, 1)), ("D4", (0, 1))])
def test_turns_of_voxels_onto_voxels_are_exact_and_not_negative(group, half_turn, box):
    """Noise voxel by voxel, the same after half a turn about z (axes y, x) or about x (z, y)."""
    maps = torch.rand(1, box, box, box) * soft_sphere(box, 4, 1.0)
    mean = mean_over_group(maps, symmetry_group(group))
    turned = mean[0].flip(half_turn)
    torch.testing.assert_close(turned if box % 2 else turned.roll((1, 1), half_turn), mean[0], atol=1e-6, rtol=0)
    assert float(mean.min()) >= 0
    torch.testing.assert_close(mean.sum(), maps.sum())


@pytest.fixture(params=["C2", "C3", "C4", "D2"])
def symmetric(request, smooth_maps):
    """A group and a density volume of it, of an asymmetric map."""
    volume = DensityGrid(Grid(20, 4.0), soft_sphere(20, 7, 2.0), symmetry=request.param, constraint="none")
    with torch.no_grad():
        volume.voxels.copy_(resample(smooth_maps(16, 1, sharpness=0.12)[0], 20, 3))
    return symmetry_group(request.param), volume


def test_slices_of_equivalent_views_are_the_same(symmetric):
    """At R and R S for every S of the group."""
    group, volume = symmetric
    rotation = random(4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, *others = (volume.slices((rotation @ turn)[:, None], torch.zeros(4, 1, 0), slice(None)) for turn in group)
    for slices in others:
        assert float((slices - first).abs().square().sum() / first.abs().square().sum()) < 0.02**2


def test_what_a_voxel_learns_its_equivalents_learn(symmetric):
    """The gradient of the map at a point lies on voxels around all its equivalents alike."""
    group, volume = symmetric
    volume.density(torch.zeros(1, 0))[0, 10, 10, 14].backward()  # at (x, y, z) = (4, 0, 0)
    gradient = volume.voxels.grad
    axis = torch.arange(20.0) - 10
    place = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], -1)
    equivalents = torch.unique((group @ torch.tensor([4.0, 0, 0])).round(decimals=3), dim=0)
    shares = [float(gradient[(place - one).norm(dim=-1) < 2.5].sum()) for one in equivalents]
    assert shares == pytest.approx([1 / len(equivalents)] * len(equivalents), rel=0.1)
