"""Noise: the power that is drawn is the power that is measured, and a likelihood in nats is what it says."""

import math

import pytest
import torch

from cryorecon.geometry.grid import Grid
from cryorecon.imaging import noise
from cryorecon.imaging.masks import soft_sphere, window


@pytest.fixture(params=[47, 48])
def grid(request) -> Grid:
    return Grid(request.param, 2.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coloured(grid: Grid) -> torch.Tensor:
    """Falling from 8 to 1, as ice does."""
    return 1 + 7 * torch.exp(-torch.arange(grid.n_shells) / 6.0)


def test_drawn_noise_has_the_power_asked_for(grid):
    power = coloured(grid)
    found = grid.shell_mean(grid.spectra(noise.draw(power, grid, 600, generator())).abs().square().mean(0))
    few_points = torch.bincount(grid.shell, minlength=grid.n_shells)
    spread = 5 / (600 * few_points[1:]).sqrt()
    assert ((found[1:] / power[1:] - 1).abs() < spread).all()


def test_white_noise_is_white_in_every_pixel(grid):
    images = noise.draw(torch.full((grid.n_shells,), 4.0), grid, 300, generator())
    assert float(images.var()) == pytest.approx(4.0, rel=0.02)
    assert float(images[:, :4, :4].var()) == pytest.approx(4.0, rel=0.1)


def test_background_power_of_pure_noise_is_its_power(grid):
    power = coloured(grid)
    found = noise.background_power(noise.draw(power, grid, 800, generator()), grid)
    assert found.shape == (grid.n_shells,)
    torch.testing.assert_close(found[3:], power[3:], rtol=0.15, atol=0)


def test_background_power_does_not_see_the_particle(grid):
    images = noise.draw(torch.ones(grid.n_shells), grid, 400, generator())
    particle = 20 * soft_sphere(grid.box, 0.3 * grid.box, 4, dims=2)
    torch.testing.assert_close(noise.background_power(images + particle, grid), noise.background_power(images, grid),
                               rtol=1e-4, atol=0)


def test_inside_power_of_masked_noise_is_its_power(grid):
    power = coloured(grid)
    images = noise.draw(power, grid, 800, generator()) * window(grid.box)
    found = noise.inside_power(images, grid)
    torch.testing.assert_close(found[3:], power[3:], rtol=0.15, atol=0)


def test_background_power_scales_with_variance(grid):
    images = torch.randn(100, grid.box, grid.box, generator=generator())
    torch.testing.assert_close(noise.background_power(3 * images, grid), 9 * noise.background_power(images, grid))


def test_smoothing_keeps_a_constant_and_fills_empty_shells():
    torch.testing.assert_close(noise.smooth_shells(torch.full((9,), 2.0)), torch.full((9,), 2.0))
    filled = noise.smooth_shells(torch.tensor([4.0, 4.0, 0.0, 4.0]))
    assert (filled > 0).all()
    assert torch.isfinite(filled).all()
    assert (noise.smooth_shells(torch.zeros(4)) > 0).all()


def test_energy_is_minus_log_likelihood_in_nats(grid):
    """sum over the half plane of |n|^2 / sigma^2 is half the sum over pixels of n^2 / sigma^2 for noise in the band."""
    sigma = 1.7
    spectra = grid.spectra(sigma * torch.randn(5, grid.box, grid.box, generator=generator()))
    images = grid.images(spectra)
    energy = spectra.abs().square().sum(-1) / sigma**2
    torch.testing.assert_close(energy, images.square().sum((-2, -1)) / (2 * sigma**2), rtol=1e-4, atol=0)
    assert float(energy.mean()) == pytest.approx(grid.n, rel=4 / math.sqrt(5 * grid.n)), "one nat a point"
