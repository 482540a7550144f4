"""Laws of the half plane and of the centred transforms. Every test runs on odd and even boxes."""

import math

import numpy as np
import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.geometry.fourier import centred_crop_or_pad, centred_fft, centred_ifft, resample
from cryorecon.geometry.grid import Grid

BOXES = (63, 64, 65)


@pytest.fixture(params=BOXES)
def grid(request) -> Grid:
    return Grid(request.param, 1.7)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_spectra(grid: Grid, n: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.complex(noise(n, grid.n, seed=seed), noise(n, grid.n, seed=seed + 1))


def test_of_each_pair_of_opposite_points_exactly_one_is_kept(grid):
    half = grid.box / 2
    reach = range(-grid.box, grid.box + 1)
    inside = {(x, y) for x in reach for y in reach if 0 < math.hypot(x, y) < half}
    kept = [tuple(point) for point in grid.points.int().tolist()]
    mirrored = {(-x, -y) for x, y in kept}
    assert len(kept) == len(set(kept))
    assert set(kept).isdisjoint(mirrored)
    assert set(kept) | mirrored == inside
    assert all(x > 0 or (x == 0 and y > 0) for x, y in kept)


def test_a_band_limit_is_a_prefix(grid):
    torch.testing.assert_close(grid.radius, grid.points.norm(dim=1))
    assert (grid.radius.diff() >= 0).all()
    assert (grid.shell == grid.radius.round()).all()
    for limit in (1, 2.5, 7, 12.01, grid.box / 2):
        n = grid.n_points(limit)
        assert n == int((grid.points.double().norm(dim=1) <= limit).sum())
    assert grid.n_points(0.5) == 0
    assert grid.n_points(grid.box) == grid.n


def test_the_points_of_a_smaller_box_are_a_prefix_of_a_larger_ones(grid):
    larger = Grid(2 * grid.box, grid.apix / 2)
    assert torch.equal(larger.points[: grid.n], grid.points)
    torch.testing.assert_close(larger.frequency[: grid.n], grid.frequency)


def test_frequency_is_in_one_over_angstrom(grid):
    torch.testing.assert_close(grid.frequency, grid.points / (grid.box * grid.apix))
    assert grid.frequency.norm(dim=1).max() < 0.5 / grid.apix


def test_spectra_are_the_sum_in_the_definition(grid):
    image = noise(grid.box, grid.box).double().numpy()
    axis = np.arange(grid.box) - grid.box // 2
    for i in (0, 1, 5, grid.n // 2, grid.n - 1):
        kx, ky = grid.points[i].double().numpy()
        wave = np.exp(-2j * np.pi * (ky * axis[:, None] + kx * axis[None, :]) / grid.box)
        expected = (image * wave).sum() / grid.box
        found = grid.spectra(torch.from_numpy(image).float())[i].item()
        assert abs(found - expected) < 1e-4


def test_spectra_to_images_and_back(grid):
    spectra = random_spectra(grid)
    images = grid.images(spectra)
    assert images.shape == (3, grid.box, grid.box)
    assert not images.is_complex()
    torch.testing.assert_close(grid.spectra(images), spectra, atol=2e-5, rtol=0)


def test_images_is_the_projection_onto_the_band(grid):
    image = noise(2, grid.box, grid.box)
    once = grid.images(grid.spectra(image))
    torch.testing.assert_close(grid.images(grid.spectra(once)), once, atol=2e-5, rtol=0)
    rest = image - once
    torch.testing.assert_close((rest * once).sum((-2, -1)), torch.zeros(2), atol=5e-3, rtol=0)
    torch.testing.assert_close(once.mean((-2, -1)), torch.zeros(2), atol=1e-5, rtol=0)


def test_energy_of_a_band_limited_image_is_twice_the_half_planes(grid):
    spectra, others = random_spectra(grid), random_spectra(grid, seed=5)
    images, other_images = grid.images(spectra), grid.images(others)
    torch.testing.assert_close(images.square().sum((-2, -1)), 2 * spectra.abs().square().sum(-1), rtol=1e-4, atol=0)
    inner = 2 * (spectra * others.conj()).real.sum(-1)
    torch.testing.assert_close((images * other_images).sum((-2, -1)), inner, rtol=1e-4, atol=1e-2)


def test_sum_of_squares_over_the_full_plane_is_twice_the_half_planes(grid):
    """What cryoDRGN sums over its Hartley plane against what we sum: the 2 in the conversion of beta."""
    spectra = random_spectra(grid)
    full = centred_fft(grid.images(spectra), 2) / grid.box
    hartley = full.real - full.imag
    torch.testing.assert_close(hartley.square().sum((-2, -1)), 2 * spectra.abs().square().sum(-1), rtol=1e-4, atol=0)


def test_hartley_pair_is_root_two_times_a_rotation(grid):
    spectra = random_spectra(grid)
    pair = grid.hartley(spectra)
    torch.testing.assert_close(pair.square().sum(-1), 2 * spectra.abs().square())
    full = centred_fft(grid.images(spectra), 2) / grid.box
    hartley = full.real - full.imag
    x, y = (grid.points.long() + grid.box // 2).T
    torch.testing.assert_close(pair[..., 0], hartley[:, y, x], atol=5e-5, rtol=0)
    mx, my = (grid.box // 2 - grid.points.long()).T
    torch.testing.assert_close(pair[..., 1], hartley[:, my, mx], atol=5e-5, rtol=0)


def test_white_noise_has_its_variance_at_every_frequency(grid):
    """sigma^2 = E|n(k)|^2 is the variance of a pixel: the scale of the energy in nats."""
    power = grid.spectra(3.0 * noise(400, grid.box, grid.box)).abs().square().mean()
    assert abs(float(power) - 9.0) < 0.1


@pytest.mark.parametrize("pixels", [(3, 0), (0, -2), (5, 7), (-1, 4)])
def test_phase_ramp_moves_the_image_by_plus_t(grid, pixels):
    x, y = pixels
    images = grid.images(random_spectra(grid))
    ramp = grid.phase_ramp(torch.tensor([float(x), float(y)]) * grid.apix)
    moved = grid.images(grid.spectra(images) * ramp)
    torch.testing.assert_close(moved, images.roll((y, x), (-2, -1)), atol=5e-5, rtol=0)


def test_phase_ramp_of_fractions_adds_up_and_is_batched(grid):
    first, second = torch.tensor([[0.3, -1.1], [2.0, 0.7]]), torch.tensor([[4.0, 0.2], [-0.6, 1.3]])
    product = grid.phase_ramp(first) * grid.phase_ramp(second)
    torch.testing.assert_close(product, grid.phase_ramp(first + second), atol=2e-5, rtol=0)
    torch.testing.assert_close(grid.phase_ramp(first, grid.band(5)), grid.phase_ramp(first)[:, : grid.n_points(5)])


def test_central_slice_is_the_projections_transform(grid):
    volume = noise(grid.box, grid.box, grid.box)
    transform = centred_fft(volume, 3) / grid.box
    x, y = (grid.points.long() + grid.box // 2).T
    z = grid.box // 2
    torch.testing.assert_close(grid.spectra(volume.sum(0)), transform[z, y, x], atol=1e-3, rtol=1e-4)


def test_slices_along_the_other_axes_are_the_other_projections(grid):
    volume = noise(grid.box, grid.box, grid.box)
    transform = centred_fft(volume, 3) / grid.box
    first, second = (grid.points.long() + grid.box // 2).T
    middle = grid.box // 2
    torch.testing.assert_close(grid.spectra(volume.sum(1)), transform[second, middle, first], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(grid.spectra(volume.sum(2)), transform[second, first, middle], atol=1e-3, rtol=1e-4)


def test_shell_mean(grid):
    torch.testing.assert_close(grid.shell_mean(grid.shell.float()), torch.arange(grid.n_shells).float())
    part = grid.n_points(9)
    mean = grid.shell_mean(torch.ones(2, part))
    assert mean.shape == (2, grid.n_shells)
    assert (mean[:, 1:10] == 1).all()
    assert (mean[:, 10:] == 0).all()
    assert (mean[:, 0] == 0).all()


def test_to_the_same_device_is_the_same_grid(grid):
    assert grid.to("cpu") is grid


@pytest.mark.cuda
def test_spectra_on_a_gpu(grid):
    image = noise(2, grid.box, grid.box)
    there = grid.to("cuda").spectra(image.cuda()).cpu()
    torch.testing.assert_close(there, grid.spectra(image), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("box", "apix"), [(3, 1.0), (64, 0.0), (64, -1.0)])
def test_a_grid_without_a_size_is_refused(box, apix):
    with pytest.raises(InputError, match=f"found {box} px and {apix}"):
        Grid(box, apix)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_centred_transform_has_its_origin_at_half_the_box(box, dims):
    point = torch.zeros((box,) * dims)
    point[(box // 2,) * dims] = 1
    torch.testing.assert_close(centred_fft(point, dims), torch.ones((box,) * dims, dtype=torch.complex64))
    constant = centred_fft(torch.ones((box,) * dims), dims)
    assert constant.abs().argmax() == point.argmax()
    array = noise(2, *(box,) * dims)
    torch.testing.assert_close(centred_ifft(centred_fft(array, dims), dims).real, array, atol=1e-5, rtol=0)


@pytest.mark.parametrize("old", BOXES)
@pytest.mark.parametrize("new", [31, 32, 96, 97])
def test_resampling_keeps_values_and_the_origin(old, new):
    torch.testing.assert_close(resample(torch.full((old, old), 2.5), new, 2), torch.full((new, new), 2.5))
    spot = centred_ifft(torch.exp(-0.5 * (_radius(old) / 3) ** 2).to(torch.complex64), 2).real
    found = resample(spot[None], new, 2)[0]
    expected = centred_ifft(torch.exp(-0.5 * (_radius(new) / 3) ** 2).to(torch.complex64), 2).real * (new / old) ** 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("old", BOXES)
def test_resampling_up_and_down_again_changes_nothing_in_the_band(old):
    grid = Grid(old, 1.0)
    images = grid.images(random_spectra(grid))
    torch.testing.assert_close(resample(resample(images, 97, 2), old, 2), images, atol=1e-4, rtol=0)


def _radius(box: int) -> torch.Tensor:
    axis = (torch.arange(box) - box // 2).float()
    return torch.hypot(axis[:, None], axis[None, :])


@pytest.mark.parametrize(("old", "new"), [(8, 5), (8, 6), (7, 4), (5, 8), (4, 7), (6, 6)])
def test_crop_and_pad_keep_the_origin(old, new):
    array = torch.zeros(old, old)
    array[old // 2, old // 2] = 1
    out = centred_crop_or_pad(array, new, 2)
    assert out.shape == (new, new)
    assert out[new // 2, new // 2] == 1
    assert out.sum() == 1
