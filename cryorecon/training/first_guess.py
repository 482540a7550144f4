r"""A map to search poses in first, instead of one from random starts: of a run or a file, brought to the images.

A file's map has units of its own. The factor to the images' is the likeliest one: first the root of the ratio of powers,
:math:`a^2 = \sum (|d|^2 - p) / \sum p^2 |s|^2` over images and random slices of the map, then a few rounds of
expectation-maximisation, :math:`a = \sum w\,\mathrm{Re}(\bar d s) / \sum w\,p |s|^2`, with the posterior weights w of poses
that are searched for under the map times the last factor.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.loader import Batch, Loader
from cryorecon.data.mrc import read_volume
from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.geometry.rotations import random
from cryorecon.imaging.masks import radius_map
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.search import Plan, Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.metrics.resample import resample
from cryorecon.model import Model
from cryorecon.objectives.filters import filter_by_shell
from cryorecon.training.trained import load_run
from cryorecon.volumes.raster import Raster
from cryorecon.volumes.voxel_grid import VoxelGrid

IMAGES = 300  # by which the factor is fitted
ROUNDS = 3  # of expectation-maximisation
FAINT = 0.01  # of the noise: images' power beyond it is taken to be at least so much
EXTENT = 2.0  # times: how far the sides of the map's and of the images' box may differ


def first_guess(path: str | Path, grid: Grid, band: float) -> Tensor:
    """The map ``(D, D, D)`` of a run or an MRC file on the images' grid, up to ``band`` Fourier pixels, in its own units.

    Of a run with latents it is the map in their middle: the median of each coordinate, or of numbers drawn from [0, 1] a half.

    Raises
    ------
    InputError: no run or map, a map of one value, or one whose box is of another size than the images'.
    """
    density, voxel = _of_run(path, grid.device) if Path(path).is_dir() else _of_file(path)
    box, extent = density.shape[-1], grid.box * grid.apix
    if voxel == 0 and box != grid.box:
        raise InputError(f"{path}: expected a voxel size in the header of a map of {box} px where images have {grid.box} px, "
                         "found none; write it there, or resample the map to the images' box")
    voxel = voxel or grid.apix
    if not 1 / EXTENT < box * voxel / extent < EXTENT:
        raise InputError(f"{path}: expected a map of about the images' box of {extent:.4g} Å ({grid.box} px of {grid.apix:.4g} "
                         f"Å), found {box * voxel:.4g} Å ({box} px of {voxel:.4g} Å); is the voxel size in its header right?")
    radius = radius_map(box, 3)
    rim = density[(radius > 0.42 * box) & (radius < 0.49 * box)].mean()  # solvent: masked, a level would be a ball
    density = resample(density - rim, voxel, grid.box, grid.apix)
    if not float(density.std()) > 1e-6 * float(density.abs().max()):
        raise InputError(f"{path}: expected a map with a structure in it, found one value throughout")
    passed = torch.arange(grid.n_shells) <= band
    return filter_by_shell(density[None], passed[None].float())[0].to(grid.device)


def _of_run(path: str | Path, device: torch.device) -> tuple[Tensor, float]:
    run = load_run(path, device=str(device))
    middle = np.full(run.config.zdim, 0.5) if run.latents is None else np.median(run.latents, 0)
    return run.density(middle[None])[0], run.apix


def _of_file(path: str | Path) -> tuple[Tensor, float]:
    values, voxel = read_volume(path)
    return torch.from_numpy(values), voxel


def fitted_factor(density: Tensor, images: Loader, loader: Loader, plan: Plan, tilt: Tensor | None, seed: int) -> float:
    """What a map ``(D, D, D)`` is to be multiplied by to be in the images' units.

    images: the data as they are; loader: perhaps windowed, as the search sees them. plan: of a search. tilt: as of
    :class:`PoseTable`.
    """
    grid, limit = loader.grid, plan.kmax
    particles = torch.arange(min(IMAGES, loader.n_particles))
    volume = VoxelGrid.from_density(density[None], grid).requires_grad_(False)
    factor = _by_power(volume, images.of(particles).to(grid.device).select(grid.band(limit)), seed)
    table = PoseTable.unknown(loader.n_particles, tilt, grid.device)
    search = Search(grid, table, replace(plan, keep=plan.survivors))
    model = Model(grid, volume, search, Fixed())
    for _ in range(ROUNDS):
        search.look_at(Raster(factor * density[None], grid, limit))
        cross, power = 0.0, 0.0
        for part in particles.split(100):
            seen = loader.of(part).to(grid.device)
            found = search(Hypotheses.empty(len(seen), grid.device), seen)
            seen = seen.select(grid.band(limit))
            slices, weight = model.predict(found, seen.selection), found.log_weight.exp()
            cross += float((weight * (seen.data.conj()[:, None] * slices).real.sum(2)).sum())
            power += float((weight * (seen.power[:, None] * slices.abs().square()).sum(2)).sum())
        if not cross > 0:
            break
        factor = cross / power
    return factor


def _by_power(volume: VoxelGrid, batch: Batch, seed: int) -> float:
    """The factor at which random slices of a volume have the power that images have beyond their noise."""
    rotation = random(len(batch), torch.Generator().manual_seed(seed)).to(batch.data.device)
    slices = volume.slices(rotation[:, None], rotation.new_zeros(len(batch), 1, 0), batch.selection)[:, 0]
    noise = float(batch.power.sum())
    excess = float(batch.data.abs().square().sum()) - noise
    return math.sqrt(max(excess, FAINT * noise) / float((batch.power * slices.abs()).square().sum()))
