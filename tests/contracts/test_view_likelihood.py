"""The likelihood of images under maps from all views: what it sums over, where its step leads, and where it stands still."""

import math
from dataclasses import replace

import pytest
import torch

from cryorecon.data.loader import Batch
from cryorecon.geometry import rotations, so3_grid
from cryorecon.geometry.grid import Grid
from cryorecon.objectives import view_likelihood
from cryorecon.objectives.view_likelihood import ViewLikelihood, _Scale, half_sphere
from cryorecon.volumes.real_space import DensityGrid

GRID = Grid(16, 4.0)
N = 24
ONE = torch.ones(())


@pytest.fixture
def volume(smooth_maps):
    """A map as bright as makes its images plain."""
    volume = DensityGrid(GRID)
    volume.voxels.data.copy_(3 * smooth_maps(16, 1)[0].clamp(min=0))
    return volume


def images(volume, turned, noise=0.0, shift=None):
    """A batch of the map's images, CTF 1: data and power of whitened images."""
    generator = torch.Generator().manual_seed(1)
    slices = volume.slices(turned[None], torch.zeros(1, len(turned), 0), slice(None))[0].detach()
    if shift is not None:
        slices = slices * GRID.phase_ramp(shift, slice(None))
    white = torch.view_as_complex(torch.randn(*slices.shape, 2, generator=generator)) / math.sqrt(2)
    data = slices + noise * white
    index = torch.arange(len(turned))
    return Batch(data=data, power=torch.ones_like(data.real), norm=data.abs().square().sum(1), image=index, particle=index,
                 selection=slice(0, GRID.n))


def by_hand(volume, batch, turned):
    """``log sum exp`` of minus the squared residuals over rotations."""
    slices = volume.slices(turned[None], torch.zeros(1, len(turned), 0), slice(None))[0].detach()
    cross = 2 * (batch.data @ slices.conj().T).real
    return (cross - slices.abs().square().sum(1)).logsumexp(1) - batch.norm


def test_half_a_sphere_holds_each_view_or_its_opposite():
    views = half_sphere(2)[:, 2]
    every = so3_grid.rotations(2, torch.arange(192) * so3_grid.n_angles(2))[:, 2]
    assert len(views) == 96
    nearest = (every @ views.T).abs().max(1)
    torch.testing.assert_close(nearest.values, torch.ones(192), atol=1e-5, rtol=0)
    assert nearest.indices.bincount().tolist() == [2] * 96


def test_it_is_the_sum_over_rotations(volume):
    """Beside the sum over 40,000 random rotations in Fourier space, up to a constant."""
    volume.voxels.data *= 0.4
    batch = images(volume, rotations.random(N, torch.Generator().manual_seed(2)), noise=1.0)
    likelihood = ViewLikelihood(GRID)
    turns = rotations.random(40_000, torch.Generator().manual_seed(7))
    expected = by_hand(volume, batch, turns) - math.log(len(turns))
    found = []
    for one in range(N):
        torch.manual_seed(3)
        parts = [replace(batch, data=batch.data[[i]], power=batch.power[:1], norm=batch.norm[:1],
                         image=batch.image[:1], particle=batch.particle[:1]) for i in (one, 0)]
        found.append(float(likelihood.difference(volume, *parts, ONE).detach()))
    found = torch.tensor(found)
    assert float(torch.corrcoef(torch.stack([found, expected]))[0, 1]) > 0.95
    assert float((found - expected).std()) < 0.3 * float(expected.std())


def test_turned_and_mirrored_images_are_as_likely(volume):
    turned = rotations.random(1, torch.Generator().manual_seed(4))
    quarter = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    behind = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    same = ViewLikelihood(GRID)
    for other in (quarter, behind):
        difference = float(same.difference(volume, images(volume, turned), images(volume, other @ turned), ONE).detach())
        energy = float(images(volume, turned).data.abs().square().sum())
        assert abs(difference) < 0.02 * energy


def test_shifted_images_are_found_where_shifts_are_summed_over(volume):
    turned = rotations.random(8, torch.Generator().manual_seed(5))
    still, moved = images(volume, turned), images(volume, turned, shift=torch.tensor([4.0, -4.0]))  # a pixel each
    likelihood = ViewLikelihood(GRID, 1.5)
    free = [float(likelihood.difference(volume, still, moved, ONE).detach()) for _ in range(20)]
    fixed = float(ViewLikelihood(GRID).difference(volume, still, moved, ONE).detach())
    assert fixed > 5
    assert abs(sum(free) / 20) < 0.3 * fixed  # by chance one or the other lies nearer to the grid, whose phase is random


@pytest.mark.parametrize("extent", [None, 1.5])
def test_a_few_images_at_a_time_are_as_all_at_once(volume, extent, monkeypatch):
    real, simulated = (images(volume, rotations.random(7, torch.Generator().manual_seed(seed)), noise=1.0) for seed in (8, 9))
    found = []
    for places in (view_likelihood.PLACES, 1 << 14):
        monkeypatch.setattr(view_likelihood, "PLACES", places)
        volume.voxels.grad = None
        torch.manual_seed(0)
        difference = ViewLikelihood(GRID, extent).difference(volume, real, simulated, ONE)
        difference.backward()
        found.append((difference.detach(), volume.voxels.grad.clone()))
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


def test_a_part_of_the_band_is_compared_on_fewer_pixels(volume):
    """As on all of them, with nothing beyond it."""
    batch, other = (images(volume, rotations.random(8, torch.Generator().manual_seed(seed)), noise=1.0).select(GRID.band(4))
                    for seed in (8, 9))
    likelihood = ViewLikelihood(GRID)
    torch.manual_seed(0)
    found = float(likelihood.difference(volume, batch, other, ONE).detach())
    assert [scale.grid.box for scale in likelihood.at.values()] == [12]
    likelihood.at = {12: _Scale(GRID, torch.zeros(1, 2), 0.0)}
    torch.manual_seed(0)
    assert found == pytest.approx(float(likelihood.difference(volume, batch, other, ONE).detach()), rel=0.1, abs=0.5)


def test_a_map_that_is_dim_is_made_brighter_and_a_right_one_is_left(volume, smooth_maps):
    """The derivative along the map: of the same distribution it is nothing beside that of images twice as bright."""
    likelihood, z = ViewLikelihood(GRID), torch.Generator().manual_seed(6)
    real, simulated = (images(volume, rotations.random(256, z), noise=1.0) for _ in range(2))
    bright = replace(real, data=2 * real.data)

    def along(batch):
        volume.voxels.grad = None
        likelihood.difference(volume, batch, simulated, ONE).backward()
        return float((volume.voxels.grad * volume.voxels.detach()).sum())

    assert along(bright) > 0
    assert abs(along(real)) < 0.2 * along(bright)


def test_what_leaked_into_zeros_of_the_ctf_is_no_noise(volume):
    """Images that came multiplied by their CTF and were cropped since are not zero there."""
    batch = images(volume, rotations.random(4, torch.Generator().manual_seed(8)), noise=1.0)
    power, dry = batch.power.clone(), batch.data.clone()
    power[:, -2:], dry[:, -2:] = torch.tensor([0.0, 1e-6]), 0.0  # where the map has next to no signal
    wet = dry.clone()
    wet[:, -2:] = 0.1
    noise = torch.ones((), requires_grad=True)
    torch.manual_seed(0)
    difference = ViewLikelihood(GRID).difference(volume, replace(batch, power=power, data=wet),
                                                 replace(batch, power=power, data=dry), noise)
    difference.backward()
    assert abs(float(difference.detach())) < 1
    assert abs(float(noise.grad)) < 2


def test_noise_that_is_too_weak_or_too_strong_is_set_right(volume):
    """The derivative along the noise's scale leads to that of the real images, and rests there."""
    likelihood, z = ViewLikelihood(GRID), torch.Generator().manual_seed(7)
    real = images(volume, rotations.random(256, z), noise=1.0)

    def along(scale):
        noise = torch.tensor(scale, requires_grad=True)
        likelihood.difference(volume, real, images(volume, rotations.random(256, z), noise=scale), noise).backward()
        return float(noise.grad)

    weak, right, strong = along(0.9), along(1.0), along(1.1)
    assert weak > 0 > strong
    assert abs(right) < 0.2 * min(weak, -strong)
