"""Noise from real patches: it is what a loader makes of them, of the right micrograph, turned, and of the right power."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryorecon.data.loader import Batch, Loader
from cryorecon.data.source import ArraySource
from cryorecon.data.stack import ParticleStack
from cryorecon.geometry.grid import Grid
from cryorecon.imaging import noise as noises
from cryorecon.objectives.noise_source import Patches
from cryorecon.objectives.simulator import Simulator

NAMES = np.array(["a"] * 5 + ["b"] * 4 + ["nowhere"] * 3, dtype=object)


def patches_of(problem, n=6, micrograph=None, seed=0):
    """``n`` patches of coloured noise for a problem's images, and their loader."""
    grid = problem.grid
    power = torch.linspace(3, 0.5, grid.n_shells)
    images = noises.draw(power, grid, n, torch.Generator().manual_seed(seed))
    stack = replace(ParticleStack.from_images(images.numpy(), grid.apix), micrograph=micrograph)
    return Loader(stack, grid, problem.noise, windowed=False), power


def test_an_unturned_patch_is_an_image_that_shows_it(small, monkeypatch):
    """A particle image that holds the patch and nothing else comes through the loader as the simulator makes it of an empty
    box."""
    loader, _ = patches_of(small, 12)
    images = replace(small.stack, source=ArraySource(loader.stack.images().numpy()))
    real = Loader(images, small.grid, small.noise, windowed=False).read(torch.arange(12))
    assert bool((small.stack.transfer(torch.arange(12), small.grid.frequency) < 0).any())  # the CTF's sign matters
    made = Patches(small.stack, loader)
    monkeypatch.setattr(made, "draw", lambda image: image)
    monkeypatch.setattr(torch, "randint", lambda high, size: torch.zeros(size, dtype=torch.int64))
    empty = replace(real, data=torch.zeros_like(real.data))
    simulator = Simulator(small.grid, noise=made)
    with torch.no_grad():
        torch.testing.assert_close(simulator.noisy(empty).data, real.data)
        band = small.grid.band(4)
        torch.testing.assert_close(simulator.noisy(empty.select(band)).data, real.data[:, band])
        simulator.log_noise.fill_(np.log(2))
        torch.testing.assert_close(simulator.noisy(empty).data, 2 * real.data)


@pytest.mark.parametrize("box", [16, 15])
def test_the_symmetries_are_the_square_s(box):
    grid = Grid(box, 2.0)
    index, mirrored = grid.symmetries()
    image = grid.images(grid.spectra(torch.randn(box, box, generator=torch.Generator().manual_seed(0))))

    def about_origin(picture, axis):
        return picture.flip(axis).roll(1 - box % 2, axis)

    expected = [way for one in (image, about_origin(image, 0)) for two in (one, about_origin(one, 1)) for way in (two, two.mT)]
    spectrum = grid.spectra(image)
    found = [grid.images(torch.where(m, spectrum[i].conj(), spectrum[i])) for i, m in zip(index, mirrored, strict=True)]
    assert torch.allclose(found[0], image, atol=1e-5)
    for picture in expected:
        assert sum(torch.allclose(picture, other, atol=1e-4) for other in found) == 1
    limit = grid.n_points(4)
    assert torch.equal(index[:, :limit].sort(1).values, torch.arange(limit).expand(8, -1))


def test_generated_noise_has_the_patches_spectrum(small):
    """Through the CTF and scaled: ``(c / sigma^2)^2`` times the patches' power, by shell."""
    loader, _ = patches_of(small, 40)
    grid, n = small.grid, 4000
    index = torch.zeros(n, dtype=torch.int64)
    batch = small.loader().read(index)
    torch.manual_seed(0)
    made = Patches(small.stack, loader, scale=1.5)(batch)
    assert made.shape == batch.data.shape
    power = grid.spectra(loader.stack.images()).abs().square().mean(0)
    whitened = small.stack.transfer(index[:1], grid.frequency)[0].square() / small.noise[grid.shell] ** 2
    expected = grid.shell_mean(1.5**2 * whitened * grid.shell_mean(power)[grid.shell])
    ratio = grid.shell_mean(made.abs().square().mean(0))[1:] / expected[1:]
    assert float((ratio - 1).abs().max()) < 0.15  # 40 patches' own scatter within a shell is in it


def test_a_patch_is_of_its_images_micrograph_where_both_say(small):
    loader, _ = patches_of(small, 6, np.array(["b", "a", "c", "b", "a", "b"], dtype=object))
    particles = replace(small.stack, micrograph=NAMES)
    made = Patches(particles, loader)
    torch.manual_seed(0)
    drawn = torch.stack([made.draw(torch.arange(12)) for _ in range(300)])
    for image, expected in ((0, [1, 4]), (4, [1, 4]), (5, [0, 3, 5]), (8, [0, 3, 5]), (9, range(6)), (11, range(6))):
        patch, count = np.unique(drawn[:, image], return_counts=True)
        assert patch.tolist() == list(expected)
        assert count.min() > 0.6 * count.mean()  # each as likely as the others
    assert made.strangers == 3
    for unnamed in (Patches(small.stack, loader), Patches(particles, patches_of(small)[0])):
        assert len(np.unique(torch.stack([unnamed.draw(torch.arange(12)) for _ in range(50)])[:, 0])) == 6
        assert unnamed.strangers == 0


def test_all_draws_are_from_torch_s_own_generator(small):
    made = Patches(small.stack, patches_of(small)[0])
    batch = small.loader().read(torch.arange(12))

    def drawn(seed) -> Batch:
        torch.manual_seed(seed)
        return made(batch)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
