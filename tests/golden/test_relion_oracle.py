"""RELION's own projector as the oracle: it pins rotation, shift, CTF sign and absolute scale.

``reference_slices`` emulates RELION (trilinear interpolation in the padded transform, ``|k| < N/2`` and no more,
density divided by the *radial* sinc^2): with that nothing but rounding is left. The package's VoxelGrid corrects for
its kernel along each axis instead, which is seen only on the point mass, 17 px from the centre.
"""

import math
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch

from cryorecon.data.mrc import read_volume
from cryorecon.data.source import FileSource
from cryorecon.geometry.fourier import centred_crop_or_pad, centred_fft, resample
from cryorecon.geometry.grid import Grid
from cryorecon.geometry.rotations import from_euler
from cryorecon.imaging.ctf import Optics, ctf
from cryorecon.volumes.voxel_grid import VoxelGrid

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


def columns(star: Path, *names: str) -> torch.Tensor:
    """Columns of the particle table, (N, n)."""
    block = gemmi.cif.read(str(star)).find_block("particles")
    return torch.tensor([[float(value) for value in block.find_loop(f"_{name}")] for name in names]).T


def oracle(shared_data: Path, name: str) -> tuple[torch.Tensor, torch.Tensor, Path]:
    """Images (N, D, D), rotations (N, 3, 3) and the star file of one of RELION's sets."""
    folder = shared_data / "sim_truth" / "relion_project_oracle"
    source = FileSource.open([folder / f"{name}.mrcs"])
    images = torch.from_numpy(source.read(np.arange(len(source))))
    star = folder / f"{name}.star"
    return images, from_euler(torch.deg2rad(columns(star, *ANGLES))), star


def ribosome(shared_data: Path) -> torch.Tensor:
    return torch.from_numpy(read_volume(shared_data / "maps" / "clean70SRibosome_vol_65p.mrc")[0])


def reference_slices(density: torch.Tensor, rotation: torch.Tensor, grid: Grid, pad: int) -> torch.Tensor:
    """RELION's slices (N, P) of a density (D, D, D), written out plainly."""
    box, side = grid.box, pad * grid.box
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt() / side
    padded = centred_crop_or_pad(density.double() / torch.sinc(radius) ** 2, side, 3)
    k = torch.arange(side, dtype=torch.float64) - side // 2
    inside = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2 < (side / 2) ** 2
    transform = centred_fft(padded, 3) * inside / box
    position = torch.einsum("nji,pj->npi", rotation[:, :2].double(), grid.points.double()) * pad
    cell = position.floor()
    fraction, cell = position - cell, cell.long() + side // 2
    out = torch.zeros(position.shape[:2], dtype=torch.complex128)
    for corner in torch.cartesian_prod(*[torch.arange(2)] * 3):
        weight = torch.where(corner.bool(), fraction, 1 - fraction).prod(-1)
        x, y, z = (cell + corner).clamp(0, side - 1).unbind(-1)
        out += weight * transform[z, y, x]
    return out.to(torch.complex64)


def package_slices(density: torch.Tensor, rotation: torch.Tensor, grid: Grid, pad: int) -> torch.Tensor:
    volume = VoxelGrid.from_density(density[None], grid, pad)
    with torch.no_grad():
        return volume.slices(rotation[:, None], torch.zeros(len(rotation), 1, 0), slice(0, grid.n))[:, 0]


def agreement(predicted: torch.Tensor, images: torch.Tensor) -> tuple[float, float]:
    """Smallest correlation over the images, and the factor by which the oracle is brighter."""
    first, second = (x.double() - x.double().mean((1, 2), keepdim=True) for x in (predicted, images))
    product = (first * second).sum((1, 2))
    lowest = float((product / (first.norm(dim=(1, 2)) * second.norm(dim=(1, 2)))).min())
    return lowest, float(product.sum() / first.square().sum())


@pytest.mark.parametrize("name", ["rln_proj_65", "rln_proj_65_centered"])
@pytest.mark.parametrize(
    ("slices", "correlation", "scale"), [(reference_slices, 0.9999, 0.001), (package_slices, 0.9999, 0.001)]
)
def test_ribosome_projections(shared_data, name, slices, correlation, scale):
    images, rotation, _ = oracle(shared_data, name)
    grid = Grid(65, 1.0)
    one_pixel = torch.ones(1, 2)  # RELION centres an odd box one pixel away
    spectra = slices(ribosome(shared_data), rotation, grid, 2) * grid.phase_ramp(one_pixel)
    found, factor = agreement(grid.images(spectra), images)
    assert found >= correlation
    assert factor == pytest.approx(1, abs=scale)


@pytest.mark.parametrize("slices", [reference_slices, package_slices])
def test_ribosome_projections_of_an_even_box(shared_data, slices):
    """The 64 px twin: its map was downsampled about the box's middle, half a pixel of the old box off index D // 2."""
    images, rotation, _ = oracle(shared_data, "rln_proj_64")
    grid = Grid(64, 1.0)
    middle = rotation[:, :2] @ torch.full((3,), -0.5 * 64 / 65)
    spectra = slices(resample(ribosome(shared_data), 64, 3), rotation, grid, 2) * grid.phase_ramp(middle)
    found, factor = agreement(grid.images(spectra), images)
    assert found >= 0.9999
    assert factor == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize(("name", "pad"), [("relion_proj_batch", 1), ("relion_proj_batch_pfac2", 2)])
@pytest.mark.parametrize(
    ("slices", "correlation", "scale"), [(reference_slices, 0.998, 0.001), (package_slices, 0.99, 0.01)]
)
def test_point_mass_with_shifts_and_ctf(shared_data, name, pad, slices, correlation, scale):
    images, rotation, star = oracle(shared_data, name)
    density, _ = read_volume(star.parent / "pointmass.mrc.gz")
    grid = Grid(64, 3.54)
    du, dv, angle, b_factor, factor = columns(
        star, "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnCtfBfactor", "rlnCtfScalefactor").T
    optics = Optics.from_columns(
        len(images), defocus_u=du, defocus_v=dv, astigmatism=torch.deg2rad(angle), voltage=200.0, cs=1.4,
        amplitude_contrast=0.1, b_factor=b_factor, scale=factor)
    shift = columns(star, "rlnOriginXAngst", "rlnOriginYAngst")
    spectra = slices(torch.from_numpy(density), rotation, grid, pad) * ctf(optics, grid.frequency)
    found, brightness = agreement(grid.images(spectra * grid.phase_ramp(-shift)), images)
    assert found >= correlation
    assert brightness == pytest.approx(1, abs=scale)
    wrong_way, _ = agreement(grid.images(spectra * grid.phase_ramp(shift)), images)
    assert math.fabs(wrong_way) < 0.3
