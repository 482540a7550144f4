"""Images that hold nothing, or nothing beyond a shell, and what a run's own steps make of them.

Phases made random from a shell on leave every image its own amplitudes: from shell 1 on, the image is noise of exactly the
spectrum that was measured in it; from a higher one, all that is finer is noise ("high-resolution noise substitution": Chen et
al., Ultramicroscopy 135, 24 (2013)). Each image's phases follow from the seed and its place in the stack.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from cryorecon.analysis.latent import drawn
from cryorecon.data.loader import Loader
from cryorecon.data.source import ArraySource, ImageSource
from cryorecon.data.stack import ParticleStack
from cryorecon.data.tilt_pair import owner, poses_of_particles
from cryorecon.geometry.fourier import randomise_phases
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.given import Given
from cryorecon.inference.pose.polish import Polish
from cryorecon.inference.pose.search import Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.model import Model
from cryorecon.objectives.cores import side_by_side
from cryorecon.objectives.filters import filter_by_shell
from cryorecon.training import ab_initio
from cryorecon.training.build import Problem, settled_halves
from cryorecon.training.closed_form import SEARCHED, Consensus, consensus
from cryorecon.training.config import RunConfig
from cryorecon.training.evaluate import POINTS
from cryorecon.training.inferred import inferred
from cryorecon.training.train import State, image_poses
from cryorecon.volumes.raster import Raster
from cryorecon.volumes.voxel_grid import VoxelGrid

AT_ONCE = 200  # particles of a search
PASSES = ab_initio.Schedule.searches, 2  # most passes of the search that a run's searched poses are tried by again


class RandomPhases:
    """Images of another source with random phases from shell ``first`` on, made as they are read.

    number: ``(N,)``, by which the phases of an image are drawn.
    """

    def __init__(self, source: ImageSource, first: int, seed: int, number: np.ndarray | None = None):
        self._source, self._first, self._seed = source, first, seed
        self._number = np.arange(len(source)) if number is None else number

    @property
    def box(self) -> int:
        """Side ``D`` in pixels."""
        return self._source.box

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images ``(n, D, D)`` float32 of these positions."""
        images = torch.from_numpy(self._source.read(indices))
        for image, number in zip(images, self._number[np.asarray(indices)], strict=True):
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + int(number))
            image.copy_(randomise_phases(image, self._first, 2, generator))
        return images.numpy()

    def select(self, indices: np.ndarray) -> "RandomPhases":
        """The source of these images alone; each keeps its phases."""
        return RandomPhases(self._source.select(indices), self._first, self._seed, self._number[indices])


@dataclass(frozen=True)
class Subject:
    """What controls are made of: some particles of a run, at its poses (``problem.stack.poses``).

    noise ``(n_shells,)``, scale ``(N,)``: as the run has them. moved: the run found or refined its poses.
    """

    config: RunConfig
    problem: Problem
    state: State
    scale: Tensor
    moved: bool

    @staticmethod
    def of(config: RunConfig, problem: Problem, state: State, most: int) -> "Subject":
        """At most ``most`` particles of a run, drawn by its seed."""
        whole = replace(problem, stack=problem.stack.with_poses(image_poses(state)), found=None)
        moved = isinstance(state.model.pose, PoseTable) or config.pose == "refine"
        return Subject(config, whole, state, state.scale, moved).part(most)

    def part(self, most: int) -> "Subject":
        """At most ``most`` of these particles, drawn by the run's seed."""
        return self._of(drawn(self.stack.n_particles, most, self.config.seed))

    def half_set(self, number: int) -> "Subject":
        """The particles of half set 1 or 2, themselves in two half sets."""
        part = self._of(np.unique(self.stack.particle[self.problem.half.cpu() == number].numpy()))
        half = settled_halves(None, part.stack.particle, self.config.seed).to(self.problem.half.device)
        return replace(part, problem=replace(part.problem, half=half))

    def showing(self, stack: ParticleStack) -> "Subject":
        """The same with other images in the place of the run's."""
        return replace(self, problem=replace(self.problem, stack=stack))

    def _of(self, rows: np.ndarray) -> "Subject":
        stack, half = self.stack, self.problem.half
        images = torch.from_numpy(np.isin(stack.particle.numpy(), rows))
        part = replace(self.problem, stack=stack.of_particles(rows), half=half[images.to(half.device)])
        return replace(self, problem=part, scale=self.scale[images])

    @property
    def stack(self) -> ParticleStack:
        """The run's own images."""
        return self.problem.stack

    def loader(self, stack: ParticleStack) -> Loader:
        """Batches of ``stack``, whose images stand for the run's, as the run has them."""
        loader = Loader(stack, self.problem.grid, self.state.noise, self.config.window)
        loader.set_scale(self.scale)
        return loader

    def given(self) -> Given:
        """The run's poses."""
        poses = self.stack.poses
        assert poses is not None  # of() sets them
        return Given(poses.rotation, poses.shift).to(self.problem.device)

    def table(self) -> PoseTable:
        """The run's poses, to be changed."""
        poses = self.stack.poses
        assert poses is not None  # of() sets them
        known = poses_of_particles(poses, self.stack)
        device = self.problem.device
        return PoseTable(known.rotation.to(device), known.shift.to(device), self.stack.tilt)

    def with_random_phases(self, first: int) -> ParticleStack:
        """The run's images with random phases from shell ``first`` on."""
        return replace(self.stack, source=RandomPhases(self.stack.source, first, self.config.seed + 1))


def reconstruct(subject: Subject, stack: ParticleStack, pose: nn.Module) -> Consensus:
    """Two half maps of ``stack`` by weighted backprojection, as every run begins."""
    problem, config = subject.problem, subject.config
    return consensus(subject.loader(stack), problem.grid, pose, problem.half, problem.mask, config.symmetry, config.limit)


def searched_again(subject: Subject, stack: ParticleStack, band: float) -> PoseTable:
    """Poses of ``stack`` by passes of the run's own search around its poses, aligned up to ``band`` Fourier pixels as its
    images were."""
    problem, grid = subject.problem, subject.problem.grid
    near = replace(subject.config, pose_init="(the run's)", searches=PASSES[0], polishes=PASSES[1])
    schedule = ab_initio.schedule_for(near, stack, problem.device)
    loader, table = subject.loader(stack), subject.table()
    fold = ab_initio.folds(problem.half, stack.particle, subject.config.seed)
    still = [Polish(grid, table, VoxelGrid(grid, 0, 2.0), 2.0, 0)] * ab_initio.FOLDS
    maps, _ = ab_initio.cross_maps(loader, grid, fold, problem.mask, still, schedule.symmetry, 0, subject.config.seed)
    stage = ab_initio.Stage(1, maps, band, band, emerged=True)
    while stage.searches(schedule) or stage.polishes(schedule):
        stage = ab_initio.next_stage(loader, grid, fold, problem.mask, table, schedule, replace(stage, resolved=band),
                                     subject.config.seed)
    return table


def fits(subject: Subject, stack: ParticleStack, found: Consensus) -> tuple[np.ndarray, PoseTable]:
    """How well the particles of ``stack`` fit the run's map when they may choose their poses freely: nats ``(n,)`` gained on an
    empty image, and the poses that they chose.

    Each meets the half map of the *other* half set of ``found``, filtered by shell and masked, in the band of a search: no
    image has met its own noise, so that images of noise, and images that were only ever aligned noise, gain alike.
    """
    problem, grid = subject.problem, subject.problem.grid
    maps = filter_by_shell(found.halves, found.fsc.to(found.halves)[None].expand(2, -1)) * problem.mask
    schedule = ab_initio.schedule_for(subject.config, stack, problem.device)
    table, loader = subject.table(), subject.loader(stack)
    top = max(3.0, min(SEARCHED, found.resolved))
    extent = max(schedule.plan.extent, 1.1 * float(table.shift.abs().max()))
    plan = replace(schedule.plan, kmin=min(schedule.plan.kmin, top), kmax=top, extent=extent, local=False, keep=1,
                   level=subject.config.base_healpy, shifts=math.ceil(schedule.plan.shifts * extent / schedule.plan.extent))
    half = torch.zeros(stack.n_particles, dtype=torch.int64)
    half[stack.particle] = problem.half.cpu()

    def search(number: int) -> None:
        judge = Search(grid, table, plan)
        judge.look_at(Raster(maps[2 - number][None], grid, top))
        for part in torch.nonzero(half == number)[:, 0].split(AT_ONCE):
            judge(Hypotheses.empty(len(part), grid.device), loader.of(part).to(grid.device))

    side_by_side([lambda: search(1), lambda: search(2)])
    return table.evidence.cpu().double().numpy(), table


def of_others(subject: Subject) -> tuple[Given, Given]:
    """The run's poses, but with the rotations of other particles, and but with their shifts; every particle's goes to one
    other."""
    poses, stack = subject.stack.poses, subject.stack
    assert poses is not None  # Subject.of sets them
    order = torch.randperm(stack.n_particles, generator=torch.Generator().manual_seed(subject.config.seed + 3))
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    known, theirs = poses_of_particles(poses, stack), other[owner(stack)]
    rotation, shift = known.rotation[theirs], known.shift[theirs]
    turned = rotation if stack.tilt is None else stack.tilt @ rotation
    device = subject.problem.device
    return Given(turned, poses.shift).to(device), Given(poses.rotation, shift).to(device)


def gained(subject: Subject, found: Consensus, pose: nn.Module) -> np.ndarray:
    """Nats ``(n,)`` that each particle gains on an empty image at ``pose``, by the half map of the other half set of ``found``,
    filtered by shell up to its resolution and masked: as in :func:`fits`, no image has met its own noise."""
    problem, grid = subject.problem, subject.problem.grid
    kept = found.fsc.clamp(min=0) * (torch.arange(len(found.fsc), device=found.fsc.device) < found.resolved)
    maps = filter_by_shell(found.halves, kept.to(found.halves)[None].expand(2, -1)) * problem.mask
    nats = torch.zeros(subject.stack.n_particles, dtype=torch.float64)
    for number in (1, 2):
        model = Model(grid, VoxelGrid.from_density(maps[2 - number][None], grid), pose, Fixed())
        for batch, posed in inferred(model, subject.loader(subject.stack), POINTS):
            with torch.no_grad():
                gain = (batch.norm - model.energy(posed, batch)[:, 0]) * (problem.half[batch.image] == number)
            nats.index_add_(0, batch.particle.cpu(), gain.double().cpu())
    return nats.numpy()


def still_images(subject: Subject, found: Consensus) -> ParticleStack:
    """Images of the run's mean map, which does not move, at its poses and CTF. Their noise is what of each of the run's images
    the map does not explain, motion and all, with its phases drawn anew: of that image's own spectrum and strength."""
    stack, grid = subject.stack, subject.problem.grid
    generator = torch.Generator().manual_seed(subject.config.seed + 2)
    images = torch.zeros(len(stack), stack.box, stack.box)
    for batch, posed in inferred(found.model, subject.loader(stack)):
        index = batch.image.cpu()
        with torch.no_grad():
            seen = found.model.predict(posed)[:, 0] * subject.scale[index, None].to(batch.data.device)
        transfer = stack.transfer(index, grid.frequency)
        mean = grid.images(seen * (transfer.square() if stack.premultiplied else transfer)).cpu()
        images[index] = mean + randomise_phases(stack.images(index) - mean, 1, 2, generator)
    return replace(stack, source=ArraySource(images.numpy()), sign=1)
