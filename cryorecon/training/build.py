"""The one place that sees every part: from a configuration to data, model and optimisers."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cryorecon.data.load import load_particles
from cryorecon.data.loader import Loader, estimate_noise
from cryorecon.data.mrc import read_volume
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.conformation import CONFORMATIONS
from cryorecon.inference.conformation.posterior import DiscretePrior
from cryorecon.inference.pose import POSES
from cryorecon.model import Model
from cryorecon.training.config import RunConfig
from cryorecon.volumes.base import Volume
from cryorecon.volumes.fourier_mlp import FourierMLP
from cryorecon.volumes.voxel_grid import VoxelGrid


@dataclass
class Problem:
    """The data side of a run: stack, grid (on the device), half-set of each image ``(N,)``, mask ``(D, D, D)``,
    device."""

    stack: ParticleStack
    grid: Grid
    half: Tensor
    mask: Tensor
    device: torch.device

    def loader(self, noise: Tensor, windowed: bool) -> Loader:
        """Batches whitened by ``noise`` per shell."""
        return Loader(self.stack, self.grid.to("cpu"), noise, windowed)


def choose_device(name: str) -> torch.device:
    """``auto``: a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: expected a GPU for {name!r}, found none; use --device cpu")
    device = torch.device(name)
    torch.set_float32_matmul_precision("highest" if device.type == "cpu" else "high")
    return device


def half_sets(stack: ParticleStack, seed: int) -> Tensor:
    """The stack's own half sets, else drawn by particle: ``(N,)`` of 1 and 2."""
    if stack.half is not None:
        return stack.half
    _, owner = torch.unique(stack.particle, return_inverse=True)
    n = int(owner.max()) + 1
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) % 2 + 1
    return drawn[owner]


def open_data(config: RunConfig, stack: ParticleStack | None = None) -> Problem:
    """Load the particles, unless they are handed in as a ``stack``, and settle what the maps will be.

    Raises
    ------
    InputError: files that can't be used (see :mod:`cryorecon.data`), no poses, or a mask of another box.
    """
    if stack is None:
        stack = load_particles(config.particles, poses=config.poses, ctf=config.ctf, ind=config.ind,
                               datadir=config.datadir, tomograms=config.tomograms, apix=config.apix)
        if config.uninvert:
            stack = stack.uninverted()
    # rows of tables go by particle: a selection's ids are numbered anew, in their order
    stack = replace(stack, particle=torch.unique(stack.particle, return_inverse=True)[1])
    if stack.poses is None:
        raise InputError(f"{config.particles}: expected poses, found none; give --poses (a star, cs or CryoDRGN "
                         "pickle)")
    device = choose_device(config.device)
    grid = Grid(stack.box, stack.apix, device)
    if config.mask is None:
        radius = config.mask_radius * stack.box / 2
        mask = soft_sphere(stack.box, radius - 4, 4, device=device)
    else:
        values, _ = read_volume(config.mask)
        if values.shape[-1] != stack.box:
            raise InputError(f"{config.mask}: expected a mask of {stack.box}^3, the images' box, found "
                             f"{values.shape[-1]}^3")
        mask = torch.from_numpy(values).to(device).clamp(0, 1)
    return Problem(stack, grid, half_sets(stack, config.seed).to(device), mask, device)


def first_noise(problem: Problem, config: RunConfig) -> Tensor:
    """Noise power per shell from the images' corners."""
    return estimate_noise(problem.stack, problem.grid.to("cpu"), config.noise == "white", seed=config.seed)


def pose_inference(config: RunConfig, stack: ParticleStack, device: torch.device) -> nn.Module:
    """The treatment of poses."""
    if stack.poses is None:
        raise InputError("expected poses, found none")
    rotation, shift = stack.poses.rotation.to(device), stack.poses.shift.to(device)
    if config.pose == "given":
        return POSES["given"](rotation, shift)
    return POSES["refine"](rotation, shift, stack.apix, stack.box).to(device)


def make_volume(config: RunConfig, grid: Grid, base_limit: float) -> Volume:
    """The volume; ``base_limit``: band in Fourier pixels of the linear volume that it is or stands on, 0: none."""
    linear = None
    if base_limit:
        linear = VoxelGrid(grid, config.zdim, base_limit)
        linear.requires_grad_(False)
    if config.volume == "mlp":
        return FourierMLP(grid, config.zdim, config.width, config.layers, config.encoding, config.features,
                          config.feature_sigma, base=linear)
    if linear is None:
        raise InputError("volume 'voxels': expected road 'lowrank', found 'plain'; leave --road out")
    return linear


def assemble(config: RunConfig, grid: Grid, pose: nn.Module, n_particles: int, shape: dict[str, Any]) -> Model:
    """A model of the right shapes, its values still to be set or loaded.

    ``shape``: ``base_limit`` (see :func:`make_volume`) and ``atoms`` (number, of the latent prior).
    """
    z_dim = config.zdim
    volume = make_volume(config, grid, shape["base_limit"])
    kind = CONFORMATIONS[config.conformation]
    if config.conformation == "fixed":
        conformation: nn.Module = kind()
    elif config.conformation == "encoder":
        conformation = kind(grid, z_dim, config.enc_width, config.enc_layers)
    elif config.conformation == "table":
        conformation = kind(n_particles, z_dim)
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
