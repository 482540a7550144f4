"""The one place that sees every part: from a configuration to data, model and optimisers."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cryorecon import ranks
from cryorecon.data.background import load_background
from cryorecon.data.load import load_particles, read_pose_file
from cryorecon.data.loader import Loader, estimate_noise
from cryorecon.data.mrc import read_volume
from cryorecon.data.stack import ParticleStack
from cryorecon.data.tilt_pair import load_tilt_pair
from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.conformation import CONFORMATIONS
from cryorecon.inference.conformation.posterior import DiscretePrior
from cryorecon.inference.pose import POSES
from cryorecon.inference.pose.table import PoseTable
from cryorecon.launch import place
from cryorecon.model import Model
from cryorecon.objectives.noise_source import NoiseSource, Patches, gaussian
from cryorecon.training.config import RunConfig
from cryorecon.volumes import VOLUMES
from cryorecon.volumes.base import Volume
from cryorecon.volumes.fourier_mlp import FourierMLP
from cryorecon.volumes.voxel_grid import VoxelGrid

SOFT = 4.0  # px, the edge of a mask that is not given
SAME_POWER = 1.2  # of patches beside the particles' corners, at most


@dataclass
class Problem:
    """The data side of a run: stack, grid (on the device), half-set of each image ``(N,)``, mask ``(D, D, D)``, device.
    found: the particles' poses where they are not the files'."""

    stack: ParticleStack
    grid: Grid
    half: Tensor
    mask: Tensor
    device: torch.device
    found: PoseTable | None = None

    def loader(self, noise: Tensor, windowed: bool) -> Loader:
        """Batches whitened by ``noise`` per shell."""
        return Loader(self.stack, self.grid, noise, windowed)


def choose_device(name: str) -> torch.device:
    """``auto``: a GPU where there is one; of several processes on a machine each has its own.

    Raises
    ------
    InputError: no such device, or fewer GPUs than processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.count() > 1 and torch.cuda.is_available():
        number, gpus = place(), torch.cuda.device_count()
        if number >= gpus:
            raise InputError(f"device: expected a GPU for each process on a machine, found {gpus} GPUs and a process number "
                             f"{number + 1}; start fewer, or give --device cpu")
        name = f"cuda:{number}"
        torch.cuda.set_device(number)
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: expected a GPU for {name!r}, found none; use --device cpu")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise InputError(f"device: expected auto, cpu, cuda or cuda:N, found {name!r}")
    device = torch.device(name)
    torch.set_float32_matmul_precision("highest" if device.type == "cpu" else "high")
    return device


def half_sets(stack: ParticleStack, seed: int) -> Tensor:
    """The half sets of a stack's images, as :func:`settled_halves`."""
    return settled_halves(stack.half, stack.particle, seed)


def settled_halves(half: Tensor | None, particle: Tensor, seed: int) -> Tensor:
    """The half sets that are there, else (or where one of them is empty) drawn by ``particle (N,)``: ``(N,)`` of 1 and 2.

    Raises
    ------
    InputError: fewer than two particles.
    """
    if half is not None and bool((half == 1).any()) and bool((half == 2).any()):
        return half
    ids, owner = torch.unique(particle, return_inverse=True)
    n = len(ids)
    if n < 2:
        raise InputError(f"expected at least two particles, for two half sets, found {n}")
    return (torch.randperm(n, generator=torch.Generator().manual_seed(seed)) % 2 + 1)[owner]


def load_stack(config: RunConfig) -> ParticleStack:
    """The particles that a run names, as it reads them. Raises :class:`InputError` for files that can't be used."""
    stack = load_particles(config.particles, poses=config.pose_init or config.poses, ctf=config.ctf, ind=config.ind,
                           datadir=config.datadir, tomograms=config.tomograms, apix=config.apix)
    if config.tilt is not None:
        stack = load_tilt_pair(stack, config.tilt, math.radians(config.tilt_deg), ctf=config.ctf_tilt, ind=config.ind,
                               datadir=config.datadir, apix=config.apix)
    return stack.uninverted() if config.uninvert else stack


def open_data(config: RunConfig, stack: ParticleStack | None = None) -> Problem:
    """Load the particles, unless they are handed in as a ``stack``, and settle what the maps will be.

    Raises
    ------
    InputError: files that can't be used (see :mod:`cryorecon.data`), a mask of another box, fewer particles than zdim.
    """
    if stack is None:
        stack = load_stack(config)
    # rows of tables go by particle: a selection's ids are numbered anew, in their order
    stack = replace(stack, particle=torch.unique(stack.particle, return_inverse=True)[1])
    if config.zdim > stack.n_particles:
        raise InputError(f"zdim: expected at most one number for each of the {stack.n_particles} particles, found "
                         f"{config.zdim}; give a smaller --zdim")
    device = choose_device(config.device)
    grid = Grid(stack.box, stack.apix, device)
    given = config.mask is not None
    mask = (read_mask(str(config.mask), stack.box, stack.apix) if given else sphere(stack.box, config.mask_radius)).to(device)
    if not float(mask.max()) > 0:
        raise InputError(f"expected a mask that leaves something, found none of it above 0 (--mask {config.mask}, "
                         f"--mask-radius {config.mask_radius})")
    half = half_sets(stack, config.seed)
    return Problem(replace(stack, half=half), grid, half.to(device), mask, device)


def sphere(box: int, fraction: float) -> Tensor:
    """The mask ``(D, D, D)`` where none is given: 0 beyond ``fraction`` of half the box, an edge of four pixels within it;
    a sphere smaller than that is all edge."""
    radius = fraction * box / 2
    edge = min(SOFT, radius)
    return soft_sphere(box, radius - edge, edge)


def mask_values(path: str) -> tuple[Tensor, float]:
    """A mask ``(D, D, D)`` of a file and its voxel size in Å. Raises :class:`InputError` for values that are not between 0 and
    1, or nowhere near 1: what a map is multiplied by would fade it."""
    values, voxel = read_volume(path)
    if values.min() < -0.01 or values.max() > 1.01 or 0 < values.max() < 0.5:
        raise InputError(f"{path}: expected a mask between 0 and 1, found {values.min():.3g} to {values.max():.3g}; is it a "
                         "map?")
    return torch.from_numpy(values).clamp(0, 1), voxel


def read_mask(path: str, box: int, apix: float) -> Tensor:
    """A mask ``(D, D, D)`` of a file, between 0 and 1, on a grid of ``box`` pixels of ``apix`` Å. Raises :class:`InputError`
    for any other."""
    values, voxel = mask_values(path)
    if values.shape[-1] != box or (voxel > 0 and abs(voxel / apix - 1) > 0.01):
        raise InputError(f"{path}: expected a mask on the images' grid of {box} px of {apix:g} Å, found {values.shape[-1]} px "
                         f"of {voxel:g} Å")
    return values


def first_noise(problem: Problem, config: RunConfig) -> Tensor:
    """Noise power per shell from the images' corners."""
    return estimate_noise(problem.stack, problem.grid.to("cpu"), config.noise == "white", seed=config.seed)


def noise_source(config: RunConfig, problem: Problem, noise: Tensor) -> tuple[NoiseSource, dict[str, float]]:
    """What the simulator's noise is drawn from, and what there is to report: the number of patches, and the power in their
    corners over ``noise`` per shell, that in the images', which they are scaled to.

    Raises :class:`InputError` for patches that are not for these images; warns where their power is another, or where images
    have none of their own micrograph.
    """
    if config.background is None:
        return gaussian, {}
    stack = load_background(config.background, problem.stack)
    own = estimate_noise(stack, problem.grid.to("cpu"), config.noise == "white", seed=config.seed)
    level = float((own / noise.cpu())[problem.grid.shell.cpu()].mean())
    if not 1 / SAME_POWER < level < SAME_POWER:
        warnings.warn(f"{config.background}: expected patches of the power in the particles' corners, found {level:.2f} times "
                      "it; they are scaled to it, but are they of these micrographs, and prepared alike?", stacklevel=2)
    patches = Patches(problem.stack, Loader(stack, problem.grid, noise, windowed=False), level**-0.5)
    if patches.strangers:
        warnings.warn(f"{config.background}: {patches.strangers} of {len(problem.stack)} images are of micrographs without "
                      "patches and get those of any", stacklevel=2)
    return patches, {"patches": len(stack), "power": level}


def searches_poses(config: RunConfig, stack: ParticleStack) -> bool:
    """Whether poses are to be found: there are none, or those that there are shall not be taken as they stand."""
    return stack.poses is None or config.pose == "search" or config.pose_init is not None


def pose_inference(config: RunConfig, problem: Problem) -> nn.Module:
    """The treatment of poses. Raises :class:`InputError` where there are none."""
    stack, device = problem.stack, problem.device
    if problem.found is not None and config.pose != "refine":
        return problem.found
    if stack.poses is None:
        raise InputError(f"{config.particles}: expected poses, found none; give --poses (a star, cs or CryoDRGN pickle), "
                         "or let train_nn or train_vae find them")
    rotation, shift = stack.poses.rotation.to(device), stack.poses.shift.to(device)
    if config.pose == "refine" and stack.n_particles < len(stack):
        raise InputError("expected one image a particle for --refine-poses, found a tilt series; refine its poses where it "
                         "was made")
    if config.pose != "refine":
        return POSES["given"](rotation, shift)
    return POSES["refine"](rotation, shift, stack.apix, stack.box).to(device)


def pose_prior(config: RunConfig, stack: ParticleStack) -> nn.Module:
    """Poses that are drawn, of a game. Raises :class:`InputError` for a file that holds none."""
    extent = None if config.t_extent is None else config.t_extent * stack.apix
    if config.pose_prior is None:
        return POSES["prior"](extent)
    poses, _ = read_pose_file(config.pose_prior, stack.box, stack.apix)
    if not len(poses):
        raise InputError(f"{config.pose_prior}: expected poses to draw from, found none")
    return POSES["prior"](extent, poses)


def make_volume(config: RunConfig, grid: Grid, base_limit: float) -> Volume:
    """The volume; ``base_limit``: band in Fourier pixels of the linear volume that it is or stands on, 0: none."""
    if config.volume == "density":
        return VOLUMES["density"](grid, symmetry=config.symmetry, constraint=config.constraint)
    if config.volume == "archetypes":
        return VOLUMES["archetypes"](grid, n=config.archetypes)
    if config.volume == "conv":
        return VOLUMES["conv"](grid, width=config.width)
    linear = None
    if base_limit:
        linear = VoxelGrid(grid, config.zdim, base_limit)
        linear.requires_grad_(False)
    if config.volume == "mlp":
        return VOLUMES["mlp"](grid, config.zdim, config.width, config.layers, config.encoding, config.features,
                              config.feature_sigma, linear, config.amp)
    if linear is None:
        raise InputError("volume 'voxels': expected road 'lowrank', found 'plain'; leave --road out")
    return linear


def least_numbers(config: RunConfig, box: int, base_limit: float) -> int:
    """How many numbers the volume of :func:`make_volume` has at least: a checkpoint of fewer is of another configuration, and
    nothing need be made to find out."""
    own = {"mlp": config.layers * config.width**2, "voxels": 0, "density": box**3, "archetypes": config.archetypes * box**3,
           "conv": config.width**2}[config.volume]
    return own + 32 * (1 + config.zdim) * int(base_limit) ** 3


def assemble(config: RunConfig, grid: Grid, pose: nn.Module, stack: ParticleStack, shape: dict[str, Any]) -> Model:
    """A model of the right shapes, its values still to be set or loaded.

    ``shape``: ``base_limit`` (see :func:`make_volume`) and ``atoms`` (number, of the latent prior).
    """
    z_dim = config.zdim
    volume = make_volume(config, grid, shape["base_limit"])
    kind = CONFORMATIONS[config.conformation]
    if config.conformation == "fixed":
        conformation: nn.Module = kind()
    elif config.conformation == "encoder":
        tilt = stack.tilt if stack.n_particles < len(stack) else None
        conformation = kind(grid, z_dim, config.enc_width, config.enc_layers, tilt=tilt)
    elif config.conformation == "table":
        conformation = kind(stack.n_particles, z_dim)
    else:
        linear = volume.base if isinstance(volume, FourierMLP) else volume
        prior = DiscretePrior(torch.zeros(shape["atoms"], z_dim), torch.zeros(shape["atoms"])) if shape["atoms"] else None
        conformation = kind(linear, grid, shape["base_limit"], prior)
    return Model(grid, volume, pose, conformation).to(grid.device)


def optimisers(model: Model, lr: float) -> dict[str, list[torch.optim.Optimizer]]:
    """Adam for the networks, sparse Adam for tables of a row an image (a hundred times the step: one visit a pass)."""
    sparse = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse}
    dense = [p for p in model.parameters() if p.requires_grad and id(p) not in sparse]
    rows = [p for p in model.parameters() if p.requires_grad and id(p) in sparse]
    made: list[torch.optim.Optimizer] = []
    if dense:
        made.append(torch.optim.Adam(dense, lr=lr))
    if rows:
        made.append(torch.optim.SparseAdam(rows, lr=100 * lr))
    return {"model": made}
