"""CryoGAN's run: no poses and no inference, from the first map of zeros to the last checkpoint."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import cryorecon
from cryorecon import ranks
from cryorecon.data.loader import Loader
from cryorecon.data.mrc import write_volume
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError, Stopped
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.conformation import CONFORMATIONS
from cryorecon.model import Model
from cryorecon.objectives.adversarial import Adversarial, Game
from cryorecon.objectives.critic import CRITICS, with_spectral_norms
from cryorecon.objectives.simulator import Simulator, natural_unit
from cryorecon.objectives.view_likelihood import ViewLikelihood
from cryorecon.training import build, provenance
from cryorecon.training.checkpoint_file import fill
from cryorecon.training.config import RunConfig
from cryorecon.training.fit import Record, fit, stream
from cryorecon.training.partial_pass import kept, taken_up
from cryorecon.training.run_directory import RunDirectory
from cryorecon.volumes.archetypes import Archetypes
from cryorecon.volumes.real_space import RealSpace

SAMPLES = 8  # pictures of real and of simulated images kept with a checkpoint
MEASURED = 1000  # images that say how bright the map is
SMALLEST = 4  # px of a side that the critic's last convolution leaves, unless told how many layers
SHAPE = {"base_limit": 0.0, "atoms": 0}  # a map of its own, no prior of atoms
SHARES = 0.3  # step of the shares of alpha beside that of the voxels
PULL = 0.1  # of archetypes to their neighbours, in units of their step; a likelihood needs none
CURVED = {0.25: 1, 0.6: 2}  # degree of the curve that archetypes lie on until these parts of the time that they are several
STATES = 6  # conformations that a likelihood sums over
EARLIEST = 0.2  # least part of a game before the critic is a likelihood: that finds the details of a map, not the map
SOUND = 2 / 3  # the same part of the time in which archetypes are one map
LATE = 0.7  # part of a game after which shares are learned: of maps that are all alike they would only walk at random
SHARED = 8  # images of a batch that show one conformation, where each costs a map
SETTLING = 0.25, 0.02  # first and last step beside --lr where the critic is a likelihood, whose slope doesn't vanish
MOMENTS = {False: (0.5, 0.9), True: (0.9, 0.99)}  # of Adam: CryoGAN's, and of a critic that holds still
FLAT, STEEP = 0.2, 5.0  # mean slope of a critic; the penalty holds a sound one near 1


@dataclass
class State:
    """A game in memory. noise: ``(n_shells,)``, of the images."""

    model: Model
    simulator: Simulator
    critic: nn.Module
    loader: Loader
    noise: Tensor
    epoch: int = 0

    def parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds."""
        return {"model": self.model, "simulator": self.simulator, "critic": self.critic}


def train_adversarial(config: RunConfig, directory: RunDirectory, resume: bool, report: Callable[[str, dict[str, float]], None],
                      stack: ParticleStack | None) -> Iterator[Record]:
    """Passes of the game between critic and generator; saves after every ``checkpoint`` of them. As
    :func:`cryorecon.training.train.train`."""
    problem = build.open_data(config, stack)
    stack = problem.stack
    if stack.n_particles < len(stack):
        raise InputError(f"expected one image a particle, found {len(stack)} of {stack.n_particles} particles; a critic sees "
                         "single images: take the untilted ones")
    report("particles", {"images": len(stack), "particles": stack.n_particles, "box": stack.box, "apix": stack.apix,
                         "given_poses": 0})
    provenance.record(directory, config, stack, resume)
    saved = directory.load_last() if resume else None
    state = begin(config, problem, saved, report)
    for part in state.parts().values():
        ranks.agree(part)
    made = optimisers(config, state)
    if saved is None:
        save(directory, state, made)
    else:
        directory.drop_after(state.epoch)
        for group, states in saved["optimisers"].items():
            for optimiser, values in zip(made[group], states, strict=True):
                fill(optimiser, values, "optimiser")
    volume = state.model.volume
    settle = volume.constrain if isinstance(volume, RealSpace) else lambda: None
    game = Game(config.critic_steps, config.penalty, config.critic_held)
    likelihood = ViewLikelihood(problem.grid, config.t_extent) if contrast(config) < 1 else None
    objective = Adversarial(state.simulator, state.critic, game, problem.grid.box / 2, settle, likelihood=likelihood)
    for epoch in range(state.epoch + 1, config.epochs + 1):
        objective.prepare = schedule(config, state, objective, made, epoch)
        began, record = time.monotonic(), taken_up(saved, epoch)
        objective.batches, ahead = record.particles // config.batch, len(stack) - record.particles
        try:
            passed = fit(state.model, objective, state.loader, made, range(epoch, epoch + 1), config.batch, config.seed,
                         problem.device, record)
            for record in passed:
                yield record
        except Stopped:
            directory.save_pass(epoch, contents(state, made) | kept(record))
            raise
        state.epoch = epoch
        log = {"epoch": epoch, **record.means(), "noise": float(state.simulator.log_noise.detach().exp()),
               "band": objective.limit, "images_per_s": ahead / (time.monotonic() - began)}
        doubts = examine(directory, state, record, config.critic_held)
        directory.log(log | ({"doubts": doubts} if doubts else {}))
        if epoch % config.checkpoint == 0 or epoch == config.epochs:
            save(directory, state, made)
    finish(config, directory, state)


def begin(config: RunConfig, problem: build.Problem, saved: dict[str, Any] | None,
          report: Callable[[str, dict[str, float]], None]) -> State:
    """The parts as a run begins with them or, of a checkpoint, as they were when it was saved."""
    grid = problem.grid
    noise = build.first_noise(problem, config) if saved is None else saved["noise"]
    if saved is not None and (saved["box"] != grid.box or len(saved["scale"]) != len(problem.stack)):
        raise InputError(f"expected the images of this run ({len(saved['scale'])} of {saved['box']} px), found "
                         f"{len(problem.stack)} of {grid.box} px; were the files changed?")
    loader = problem.loader(noise, False)  # the critic's view is windowed instead, real and simulated images alike
    stream(config.seed, 0)
    shared = 1 if config.volume == "archetypes" else SHARED
    conformation = CONFORMATIONS["prior"](config.zdim, shared) if config.zdim else CONFORMATIONS["fixed"]()
    pose = build.pose_prior(config, problem.stack)
    model = Model(grid, build.make_volume(config, grid, 0.0), pose, conformation).to(grid.device)
    source, told = build.noise_source(config, problem, noise)
    state = State(model, Simulator(grid, config.window, source), make_critic(config, grid.box).to(grid.device), loader, noise)
    if saved is not None:
        state.epoch = saved["epoch"]
        for name, part in state.parts().items():
            fill(part, saved.get(name), f"{name} (made by cryorecon {saved['version']})")
        return state
    sample = loader.read(torch.arange(min(MEASURED, len(problem.stack))))
    unit = natural_unit(model, sample, soft_sphere(grid.box, 0.25 * grid.box, 1.0, device=grid.device))
    state.simulator.look(sample)
    model.volume.get_buffer("mask").copy_(problem.mask)
    model.volume.get_buffer("unit").fill_(unit)
    report("noise", {"sigma": float(noise.mean()) ** 0.5, "density_unit": unit, **told})
    return state


def make_critic(config: RunConfig, box: int) -> nn.Module:
    """The critic of images of ``box`` px."""
    if config.critic == "conv":
        layers = config.critic_layers or max(1, int(math.log2(box / SMALLEST)))
        critic = CRITICS["conv"](box, config.critic_width, layers)
    else:
        critic = CRITICS["polar"](box, config.critic_width)
    return with_spectral_norms(critic) if config.critic_held == "spectral" else critic


def optimisers(config: RunConfig, state: State) -> dict[str, list[torch.optim.Optimizer]]:
    """Adam for either player (its moments as CryoGAN has them), and one of longer memory for the two scales."""
    scales = [state.model.volume.get_parameter("log_signal"), state.simulator.log_noise]
    shares = [p for name, p in state.model.volume.named_parameters() if name == "logits"]
    apart = {id(p) for p in (*scales, *shares)}
    groups: list[dict[str, Any]] = [{"params": [p for p in state.model.parameters() if id(p) not in apart]}]
    groups += [{"params": [p], "lr": SHARES * config.lr, "from": LATE} for p in shares]
    return {"critic": [torch.optim.Adam(state.critic.parameters(), config.critic_lr, (0.5, 0.9))],
            "generator": [torch.optim.Adam(groups, config.lr, (0.5, 0.9)),
                          torch.optim.Adam(scales, 1e-3, (0.5, 0.99))]}


def schedule(config: RunConfig, state: State, objective: Adversarial, optimisers: dict[str, list[torch.optim.Optimizer]],
             epoch: int) -> Callable[[int], None]:
    """What changes before each batch of a pass: the band, the step sizes, whether archetypes are one map, and whether the
    critic is the likelihood of the maps.

    Steps fall along a cosine to a tenth. Those of several maps fall further: to part, maps must be found more exactly than
    they differ.
    """
    later = contrast(config)
    objective.settling = (epoch - 1) / config.epochs > later - 1e-9
    volume, batches = state.model.volume, math.ceil(state.loader.n_particles / config.batch)
    (critic,), (maps, scales) = optimisers["critic"], optimisers["generator"]

    def prepare(batch: int) -> None:
        done = (epoch - 1 + batch / batches) / config.epochs
        since = (done - later) / (1 - later) if objective.settling else done
        objective.limit = band(config, state.loader.grid.box, since)
        of_critic, of_maps, apart = cosine(1, 0.1, done), cosine(1, 0.1, done), None
        if isinstance(volume, Archetypes):
            if done < config.tied:
                of_critic, of_maps = cosine(1, 0.7, done / config.tied), cosine(1, 0.3, done / config.tied)
            else:
                volume.release(torch.Generator().manual_seed(config.seed))
                apart = (done - config.tied) / (1 - config.tied)
                of_critic, of_maps = cosine(0.7, 0.2, apart), cosine(0.3, 0.03, apart)
        if objective.settling:
            of_maps = cosine(*SETTLING, since if apart is None else apart)
        if isinstance(volume, Archetypes):
            volume.pull = 0.0 if objective.settling else min(PULL * config.lr * of_maps, 0.5)
            volume.degree = curve(apart, len(volume.voxels) - 1) if objective.settling else len(volume.voxels) - 1
            objective.states = 1 if apart is None else STATES
        for group in maps.param_groups:
            group["betas"] = MOMENTS[objective.settling]
        for optimiser, factor in ((critic, of_critic), (maps, of_maps), (scales, of_maps)):
            for group in optimiser.param_groups:
                first = group.setdefault("initial_lr", group["lr"])
                group["lr"] = first * factor if done >= group.get("from", 0.0) else 0.0

    return prepare


def curve(apart: float | None, free: int) -> int:
    """Degree of the curve that archetypes lie on, where the critic is a likelihood, when the share ``apart`` of the time that
    they are several is over; ``free`` once they lie on none."""
    return min(free, next((degree for until, degree in CURVED.items() if (apart or 0.0) < until), free))


def contrast(config: RunConfig) -> float:
    """The part of a game after which the critic is the likelihood of the maps themselves, in whole passes."""
    if config.volume == "conv":  # whose maps cost too much for a sum over conformations
        return 1.0
    if config.contrast is not None:
        return config.contrast
    return max(EARLIEST, SOUND * config.tied) if config.volume == "archetypes" else 1.0


def cosine(first: float, last: float, done: float) -> float:
    """From ``first`` to ``last`` along half a period, at the share ``done`` of the way."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def band(config: RunConfig, box: int, done: float) -> float:
    """Fourier pixels that the critic sees when the share ``done`` of a game is over: from ``first_band`` of Nyquist to
    ``last_band``, evenly over the share ``growth``."""
    first = min(config.first_band, config.last_band)
    return box / 2 * (first + (config.last_band - first) * min(1.0, done / config.growth))


def examine(directory: RunDirectory, state: State, record: Record, held: str = "penalty") -> list[str]:
    """What looks wrong after a pass, each said once as a warning.

    Raises
    ------
    InputError: numbers are no longer finite; the last checkpoint still is.
    """
    means = record.means()
    finite = all(math.isfinite(value) for value in means.values())
    if not finite or not all(bool(p.isfinite().all()) for p in state.model.parameters()):
        kept = max(directory.epochs())
        raise InputError(f"expected a game that stays finite, found none in epoch {record.epoch}: it diverged; weights."
                         f"{kept}.pt is sound; begin again with a smaller --lr or --critic-lr")
    with torch.no_grad():
        brightest = float(state.model.volume.density(torch.zeros(1, state.model.volume.z_dim, device=state.loader.grid.device))
                          .max())
    doubts = []
    if brightest <= 0:
        doubts.append("the map is empty: the generator collapsed, or particles are darker than ice (try --uninvert-data)")
    slope = means.get("critic_slope", 1.0) if held == "penalty" else 1.0  # R1 and spectral norms hold it elsewhere
    if slope < FLAT:
        doubts.append(f"the critic is flat (slope {slope:.2g}, 1 is sound): it teaches nothing; give a larger "
                      "--critic-lr or --penalty")
    if slope > STEEP:
        doubts.append(f"the critic is steep (slope {slope:.2g}, 1 is sound): the game diverges; give a smaller "
                      "--critic-lr or a larger --penalty")
    for doubt in doubts:
        warnings.warn(f"epoch {record.epoch}: {doubt}", stacklevel=2)
    return doubts


def samples(state: State) -> np.ndarray:
    """``(3, n, D, D)``: real images, simulated ones of the same CTFs, and what these show without noise, as the critic sees
    them in its whole band."""
    batch = state.loader.read(torch.arange(min(SAMPLES, len(state.loader.stack)))).to(state.loader.grid.device)
    with torch.no_grad():
        clean = state.simulator.clean(state.model, state.model.infer(batch), batch)
        shown = [state.simulator.images(one) for one in (batch, state.simulator.noisy(clean), clean)]
    return torch.stack(shown).cpu().numpy()


def save(directory: RunDirectory, state: State, optimisers: dict[str, list[torch.optim.Optimizer]]) -> None:
    """A checkpoint with its pictures' images, ``samples.N.npy``."""
    if state.epoch:
        directory.save_samples(state.epoch, samples(state))
    directory.save(state.epoch, contents(state, optimisers), None)


def contents(state: State, optimisers: dict[str, list[torch.optim.Optimizer]]) -> dict[str, Any]:
    """What a checkpoint holds."""
    grid, stack = state.loader.grid, state.loader.stack
    held: dict[str, Any] = {
        "version": cryorecon.__version__, "epoch": state.epoch, "shape": SHAPE, "noise": state.noise,
        "scale": torch.ones(len(stack)), "half": stack.half, "box": grid.box, "apix": grid.apix,
        "optimisers": {group: [o.state_dict() for o in several] for group, several in optimisers.items()},
    }
    return held | {name: part.state_dict() for name, part in state.parts().items()}


def finish(config: RunConfig, directory: RunDirectory, state: State) -> None:
    """The map of a homogeneous run."""
    if config.zdim == 0:
        with torch.no_grad():
            density = state.model.volume.density(torch.zeros(1, 0, device=state.loader.grid.device))[0]
        directory.write(f"reconstruct.{state.epoch}.mrc",
                        partial(write_volume, array=density.cpu().numpy(), apix=state.loader.grid.apix))
