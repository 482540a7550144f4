"""Small problems that every part must cope with."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from cryorecon.data.loader import Loader
from cryorecon.data.poses import Poses
from cryorecon.data.stack import ParticleStack
from cryorecon.geometry import rotations
from cryorecon.geometry.fourier import centred_ifft
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.ctf import Optics, ctf
from cryorecon.imaging.masks import radius_map, soft_sphere
from cryorecon.training import ab_initio
from cryorecon.volumes.symmetry import symmetrise
from cryorecon.volumes.voxel_grid import VoxelGrid


def _smooth_maps(box: int, n: int, seed: int = 0, sharpness: float = 0.25) -> torch.Tensor:
    """``(n, D, D, D)``: random densities, band-limited and inside a soft ball of 0.3 box radius."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, box, box, box, generator=generator)
    envelope = torch.exp(-0.5 * (radius_map(box, 3) / (sharpness * box)) ** 2)
    spectrum = torch.fft.fftshift(torch.fft.fftn(noise, dim=(1, 2, 3)), dim=(1, 2, 3)) * envelope
    return centred_ifft(spectrum, 3).real * soft_sphere(box, 0.25 * box, 0.1 * box)


@dataclass
class Problem:
    """Images ``(N, D, D)`` of linear motion ``maps[0] + z maps[1]`` at planted poses, with noise of a known power."""

    grid: Grid
    maps: torch.Tensor
    z: torch.Tensor
    stack: ParticleStack
    noise: torch.Tensor
    clean: torch.Tensor

    def loader(self, **options) -> Loader:
        """Batches of it, not windowed: what was planted is what is seen."""
        return Loader(self.stack, self.grid, self.noise, windowed=False, **options)


def _planted(n: int, box: int = 16, sigma: float = 0.0, motion: float = 0.0, seed: int = 0, group: str = "C1") -> Problem:
    """Images with CTF, shifts and white noise of standard deviation ``sigma`` of the signal's, 4 Å/px."""
    apix = 4.0
    generator = torch.Generator().manual_seed(seed)
    grid = Grid(box, apix)
    maps = _smooth_maps(box, 2, seed)
    maps[0] = symmetrise(maps[0], group)
    maps[1] *= motion * maps[0].norm() / maps[1].norm()
    z = torch.rand(n, 1, generator=generator) * 2 * 3**0.5 - 3**0.5
    rotation = rotations.random(n, generator)
    shift = (torch.rand(n, 2, generator=generator) - 0.5) * 2 * apix
    rows = torch.tensor([[8000.0, 7800.0, 0.3, 300.0, 2.7, 0.1, 0.0, 0.0, 1.0]]).repeat(n, 1)
    rows[:, :2] += 8000 * torch.rand(n, 1, generator=generator)
    optics = Optics(rows)
    family = VoxelGrid.from_density(maps, grid)
    with torch.no_grad():
        clean = family.slices(rotation[:, None], z[:, None], slice(None))[:, 0]
    spectra = clean * ctf(optics, grid.frequency) * grid.phase_ramp(-shift)
    images = grid.images(spectra)
    scale = float(images.std())
    images = images + sigma * scale * torch.randn(images.shape, generator=generator)
    stack = ParticleStack.from_images(images.numpy().astype(np.float32), apix, optics, Poses(rotation, shift))
    noise = torch.full((grid.n_shells,), max(sigma * scale, 0.05 * scale) ** 2)
    return Problem(grid, maps, z, stack, noise, clean)


@pytest.fixture(scope="session")
def small() -> Problem:
    """Twelve noisy images of 16 px."""
    return _planted(12, sigma=0.5, motion=0.3)


@pytest.fixture(scope="session")
def smooth_maps():
    """Calls :func:`_smooth_maps`."""
    return _smooth_maps


@pytest.fixture(scope="session")
def planted():
    """Calls :func:`_planted`."""
    return _planted


@pytest.fixture
def stopped_after_a_pass(monkeypatch):
    """Runs a search of poses that is interrupted when its first pass is over."""
    def run(search):
        passes, one = [], ab_initio.next_stage

        def interrupted(*args):
            if passes:
                raise KeyboardInterrupt
            passes.append(args)
            return one(*args)

        with monkeypatch.context() as patch:
            patch.setattr(ab_initio, "next_stage", interrupted)
            with pytest.raises(KeyboardInterrupt):
                search()

    return run
