"""A run from its configuration to its last checkpoint."""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import cryorecon
from cryorecon import ranks
from cryorecon.data.cryodrgn_files import write_poses
from cryorecon.data.loader import Loader
from cryorecon.data.mrc import write_volume
from cryorecon.data.poses import Poses
from cryorecon.data.source import FileSource
from cryorecon.data.stack import ParticleStack
from cryorecon.data.star_write import write_star
from cryorecon.data.tilt_pair import poses_of_images
from cryorecon.errors import InputError, Stopped
from cryorecon.geometry.grid import Grid
from cryorecon.inference.conformation.encoder import Encoder
from cryorecon.inference.conformation.posterior import Posterior
from cryorecon.inference.conformation.table import Table
from cryorecon.inference.pose.given import Given
from cryorecon.inference.pose.refine import Refine
from cryorecon.inference.pose.table import PoseTable
from cryorecon.model import Model
from cryorecon.objectives.cores import one_core_a_task
from cryorecon.objectives.likelihood import Likelihood, PointSampler
from cryorecon.training import build, closed_form, provenance
from cryorecon.training.ab_initio import find_poses, schedule_for
from cryorecon.training.adversarial import train_adversarial
from cryorecon.training.amortise import fit_encoder
from cryorecon.training.checkpoint_file import fill
from cryorecon.training.config import RunConfig
from cryorecon.training.fit import Record, anneal, fit, stream
from cryorecon.training.inferred import latent_posteriors, latents, remember
from cryorecon.training.partial_pass import kept, taken_up
from cryorecon.training.run_directory import RunDirectory
from cryorecon.volumes.base import Volume
from cryorecon.volumes.fourier_mlp import FourierMLP
from cryorecon.volumes.symmetry import symmetrise
from cryorecon.volumes.voxel_grid import VoxelGrid


@dataclass
class State:
    """A run in memory: model, loader, shape (what ``assemble`` needs, and ``found``: whether poses were), noise
    ``(n_shells,)``, scale ``(N,)``, epoch."""

    model: Model
    loader: Loader
    shape: dict[str, Any]
    noise: Tensor
    scale: Tensor
    epoch: int = 0


def train(config: RunConfig, directory: RunDirectory, resume: bool = False,
          report: closed_form.Report = lambda stage, values: None, stack: ParticleStack | None = None) -> Iterator[Record]:
    """Run all stages into ``directory``; yields the network's progress, saves after every ``checkpoint`` passes.

    ``report(stage, values)`` hears of the stages before the network. With ``resume`` the last checkpoint is where it
    goes on; without one the stages begin anew. ``stack``: particles in memory instead of the configuration's files.
    """
    if config.objective == "adversarial":
        yield from train_adversarial(config, directory, resume, report, stack)
        return
    problem = build.open_data(config, stack)
    stack = problem.stack
    report("particles", {"images": len(stack), "particles": stack.n_particles, "box": stack.box, "apix": stack.apix,
                         "given_poses": 0 if build.searches_poses(config, stack) else len(stack)})
    provenance.record(directory, config, stack, resume)
    saved = directory.load_last() if resume else None
    if saved is not None:
        state = restore(config, problem, saved)
        directory.drop_after(state.epoch)
        if config.epochs > state.epoch:
            settle(config, state)
    else:
        with one_core_a_task(problem.grid):
            problem = with_found_poses(config, problem, directory, report)
            state = begin(config, problem, directory, report)
        settle(config, state)
        save(config, directory, state, {})
    ranks.agree(state.model)
    optimisers = build.optimisers(state.model, config.lr)
    if saved is not None and saved["optimisers"]:
        for optimiser, values in zip(optimisers["model"], saved["optimisers"], strict=True):
            fill(optimiser, values, "optimiser")
    limit = config.limit or problem.grid.box / 2
    spent = directory.last_logged("cpu_seconds") if resume else 0.0
    clock = time.process_time() - (spent if saved is None else saved.get("cpu_seconds", spent))
    generator = torch.Generator()
    objective = Likelihood(PointSampler(problem.grid, limit, config.points), generator, "expected", config.kl_weight)
    epochs = range(state.epoch + 1, config.epochs + 1) if optimisers["model"] else range(0)
    if saved is not None and saved.get("unsaved"):  # it was told to stop while it wrote this checkpoint
        save(config, directory, state, optimisers)
    for epoch in epochs:
        generator.manual_seed(config.seed * 1_000_003 + epoch)
        cool(optimisers, config, epoch)
        record = taken_up(saved, epoch, generator)
        try:
            passed = fit(state.model, objective, state.loader, optimisers, range(epoch, epoch + 1), config.batch,
                         config.seed, problem.device, record)
            for record in passed:
                yield record
            state.epoch = epoch
            directory.log({"epoch": epoch, **record.means(), "cpu_seconds": time.process_time() - clock})
            if epoch % config.checkpoint == 0 or epoch == config.epochs:
                save(config, directory, state, optimisers)
        except Stopped:
            so_far = contents(state, optimisers) | {"cpu_seconds": time.process_time() - clock}
            directory.save_pass(epoch, so_far | kept(record, generator))
            raise
    finish(config, directory, state)


def settle(config: RunConfig, state: State) -> None:
    """Let a posterior that can't change any more answer from memory."""
    conformation = state.model.conformation
    if config.pose != "refine" and isinstance(conformation, Posterior):
        remember(state.model, conformation, state.loader)


def cool(optimisers: dict[str, list[torch.optim.Optimizer]], config: RunConfig, epoch: int) -> None:
    """The step size of a pass: constant for the plain road, falling to a tenth along a cosine for the low-rank road."""
    if config.road == "plain" or config.epochs < 2:
        return
    anneal(optimisers["model"], (epoch - 1) / (config.epochs - 1))


def with_found_poses(config: RunConfig, problem: build.Problem, directory: RunDirectory,
                     report: closed_form.Report) -> build.Problem:
    """The problem with poses: the files', or those found from the images, which are written out."""
    if not build.searches_poses(config, problem.stack):
        return problem
    table = find_poses(config, problem, directory, report)
    poses = of_images(table, problem.stack)
    write_found(directory, 0, problem.stack, poses)
    return replace(problem, stack=problem.stack.with_poses(poses), found=table)


def of_images(table: PoseTable, stack: ParticleStack) -> Poses:
    """Poses of all images of a stack."""
    rotation, shift = table.poses()
    return poses_of_images(Poses(rotation.cpu(), shift.cpu()), stack)


def image_poses(state: State) -> Poses:
    """Poses of all images of a run, given, found or refined."""
    pose, stack = state.model.pose, state.loader.stack
    if isinstance(pose, PoseTable):
        return of_images(pose, stack)
    if not isinstance(pose, Given | Refine):
        raise TypeError(f"expected poses of images, found {type(pose).__name__}")
    rotation, shift = pose.poses()
    return Poses(rotation.cpu(), shift.cpu())


@dataclass(frozen=True)
class FirstMap:
    """loader: whitened by noise ``(n_shells,)``, contrast ``scale (N,)`` set. pose: its treatment. found: the
    consensus."""

    loader: Loader
    noise: Tensor
    scale: Tensor
    pose: nn.Module
    found: closed_form.Consensus


def first_map(config: RunConfig, problem: build.Problem, report: closed_form.Report) -> FirstMap:
    """Noise, consensus, the images' contrast against it, and the consensus again with that."""
    grid, half = problem.grid, problem.half
    pose = build.pose_inference(config, problem)
    noise = build.first_noise(problem, config)
    loader = problem.loader(noise, config.window)
    report("noise", {"sigma": float(noise.mean()) ** 0.5})
    found = closed_form.consensus(loader, grid, pose, half, problem.mask, config.symmetry, config.limit)
    scale = closed_form.image_scales(loader, found.model)
    if bool((scale != 1).any()):
        loader.set_scale(scale)
        found = closed_form.consensus(loader, grid, pose, half, problem.mask, config.symmetry, config.limit)
    report("consensus", {"resolution_A": grid.box * grid.apix / found.resolved, "contrast_spread": float(scale.std())})
    if ranks.leads() and (skewness := closed_form.contrast(found.halves, problem.mask)) < closed_form.DARK:
        warnings.warn(f"the map is darker than what surrounds it (skewness {skewness:.2f} in both half maps): expected white "
                      "protein; are the images' contrast and --uninvert-data right?", stacklevel=2)
    return FirstMap(loader, noise, scale, pose, found)


def begin(config: RunConfig, problem: build.Problem, directory: RunDirectory, report: closed_form.Report) -> State:
    """Noise, consensus, contrast, low-rank conformations, and a model that starts from them."""
    grid = problem.grid
    first = first_map(config, problem, report)
    loader, found = first.loader, first.found
    write_maps(directory, found, grid)
    shape: dict[str, Any] = {"base_limit": 0.0, "atoms": 0, "found": problem.found is not None}
    low: closed_form.LowRank | None = None
    if config.road == "lowrank" and config.zdim:
        plan = schedule_for(config, problem.stack, problem.device).plan if config.searches else None
        low = closed_form.low_rank(loader, problem.half, problem.mask, found, config.zdim, config.atoms, config.seed, report,
                                   plan)
        if problem.found is not None and first.pose is problem.found:  # polished with the conformations
            write_found(directory, 0, problem.stack, of_images(problem.found, problem.stack))
            found = closed_form.consensus(loader, grid, first.pose, problem.half, problem.mask, config.symmetry, config.limit)
            write_maps(directory, found, grid)
        shape |= {"base_limit": low.volume.lattice.limit, "atoms": 0 if low.prior is None else len(low.prior.atoms)}
    elif config.road == "lowrank":
        shape["base_limit"] = found.volume.lattice.limit
    stream(config.seed, 0)
    model = build.assemble(config, grid, first.pose, problem.stack, shape)
    state = State(model, loader, shape, first.noise, first.scale)
    _start_volume(config, model, found, low)
    _start_conformation(config, problem, state, low)
    return state


def write_maps(directory: RunDirectory, found: closed_form.Consensus, grid: Grid) -> None:
    """The consensus and its unfiltered half maps."""
    maps = (found.density, *found.halves)
    for name, density in zip(("consensus", "half_map_a", "half_map_b"), maps, strict=True):
        directory.write(f"{name}.mrc", partial(write_volume, array=density.cpu().numpy(), apix=grid.apix))


def _start_volume(config: RunConfig, model: Model, found: closed_form.Consensus, low: closed_form.LowRank | None) -> None:
    """The network's amplitude by shell, and the linear volume that it stands on."""
    volume = model.volume
    spectrum = found.volume.shell_amplitude(model.grid.n_shells)
    base: Volume | None = volume
    if isinstance(volume, FourierMLP):
        flat = spectrum.square().mean().sqrt().expand_as(spectrum)
        volume.amplitude.copy_(spectrum if config.road == "lowrank" else flat)
        base = volume.base
    if isinstance(base, VoxelGrid):
        base.set_values((found.volume if low is None else low.volume).values.detach())


def _start_conformation(config: RunConfig, problem: build.Problem, state: State, low: closed_form.LowRank | None) -> None:
    """Latents from the low-rank posterior."""
    conformation = state.model.conformation
    if low is None:
        return
    teacher = Posterior(low.volume, problem.grid, low.volume.lattice.limit, low.prior, low.variance)
    if isinstance(conformation, Posterior):
        conformation.load_state_dict(teacher.state_dict())
        return
    taught = Model(problem.grid, low.volume, state.model.pose, teacher)
    if isinstance(conformation, Table):
        with torch.no_grad():
            conformation.z.weight.copy_(torch.from_numpy(latents(taught, state.loader)))
    elif isinstance(conformation, Encoder):
        fit_encoder(conformation, taught, state.loader, config.batch, config.seed)


def save(config: RunConfig, directory: RunDirectory, state: State, optimisers: dict) -> None:
    """A checkpoint, and the latents where there are any."""
    # before its first pass an encoder holds the closed-form posterior that it was taught
    weight = config.kl_weight if state.epoch else 1.0
    found = latent_posteriors(state.model, state.loader, weight) if config.zdim else None
    z, likelihood = (None, None) if found is None else (found.mean.numpy(), found.packed())
    directory.save(state.epoch, contents(state, optimisers), z, likelihood)


def contents(state: State, optimisers: dict) -> dict[str, Any]:
    """What a checkpoint holds."""
    return {
        "version": cryorecon.__version__, "epoch": state.epoch, "model": state.model.state_dict(), "shape": state.shape,
        "noise": state.noise, "scale": state.scale, "half": state.loader.stack.half,
        "box": state.model.grid.box, "apix": state.model.grid.apix,
        "optimisers": [optimiser.state_dict() for optimiser in optimisers.get("model", [])],
    }


def restore(config: RunConfig, problem: build.Problem, saved: dict[str, Any]) -> State:
    """A run in memory as it was when it saved this checkpoint. Raises :class:`InputError` for a game, which infers nothing."""
    if config.objective == "adversarial":
        raise InputError("expected a run that knows its images' poses, found one of train_gan, which draws them; compare its "
                         "map by eval_fsc --align")
    if saved["box"] != problem.grid.box or len(saved["scale"]) != len(problem.stack):
        raise InputError(f"expected the images of this run ({len(saved['scale'])} of {saved['box']} px), found "
                         f"{len(problem.stack)} of {problem.grid.box} px; were the files changed?")
    loader = problem.loader(saved["noise"], config.window)
    loader.set_scale(saved["scale"])
    stack = problem.stack
    if build.searches_poses(config, stack):  # those that were found are in the checkpoint
        table = PoseTable.unknown(stack.n_particles, stack.tilt, problem.device)
        problem = replace(problem, stack=stack.with_poses(of_images(table, stack)), found=table)
    pose = build.pose_inference(config, problem)
    model = build.assemble(config, problem.grid, pose, stack, saved["shape"])
    fill(model, saved["model"], "model")
    return State(model, loader, saved["shape"], saved["noise"], saved["scale"], saved["epoch"])


def finish(config: RunConfig, directory: RunDirectory, state: State) -> None:
    """The map of a homogeneous run; refined poses."""
    if config.zdim == 0:
        state.model.eval()
        with torch.no_grad():
            density = state.model.volume.density(torch.zeros(1, 0, device=state.model.grid.device))[0]
        density = symmetrise(density, config.symmetry)  # the network itself knows no symmetry
        directory.write(f"reconstruct.{state.epoch}.mrc",
                        partial(write_volume, array=density.cpu().numpy(), apix=state.model.grid.apix))
    if isinstance(state.model.pose, Refine):
        write_found(directory, state.epoch, state.loader.stack, image_poses(state))


def write_found(directory: RunDirectory, epoch: int, stack: ParticleStack, poses: Poses) -> None:
    """Poses of all images, for RELION and cryoSPARC (star) and for cryoDRGN (pickle)."""
    if isinstance(stack.source, FileSource):  # images in memory have no names for a star's rows
        directory.write(f"poses.{epoch}.star", partial(write_star, stack=stack.with_poses(poses)))
    directory.write(f"poses.{epoch}.pkl", partial(write_poses, poses=poses, box=stack.box, apix=stack.apix))
