r"""Poses and a map from images alone: stochastic EM finds the basin, then passes over all images sharpen it.

Every pass infers the poses of each fold of the images under the map of all other folds (cross-fitting: no image meets its
own noise) and reconstructs them anew. Two folds make a half set. Searches look at frequencies up to a band only; what the
half maps share beyond it, they have not been aligned on. That decides how far the next pass may look, and whether there is
a structure at all: images of pure noise agree within the band that they were aligned on, and not beyond (the
Einstein-from-noise guard).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from cryorecon import ranks
from cryorecon.data.loader import Loader
from cryorecon.data.stack import ParticleStack
from cryorecon.data.tilt_pair import poses_of_particles
from cryorecon.errors import InputError
from cryorecon.geometry.fourier import resample
from cryorecon.geometry.grid import Grid
from cryorecon.geometry.rotations import angle_between
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.polish import Polish
from cryorecon.inference.pose.search import Plan, Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.model import Model
from cryorecon.objectives.cores import side_by_side
from cryorecon.objectives.em import LinearEM
from cryorecon.objectives.stochastic_em import Annealing, StochasticEM
from cryorecon.training.build import Problem, first_noise
from cryorecon.training.checkpoint_file import fill
from cryorecon.training.closed_form import SEARCHED, Report, images_at_once, resolved_shell
from cryorecon.training.config import RunConfig
from cryorecon.training.first_guess import first_guess, fitted_factor
from cryorecon.training.fit import fit
from cryorecon.training.memory import search_room
from cryorecon.training.network_search import march_for, search_by_network
from cryorecon.training.run_directory import RunDirectory
from cryorecon.volumes.raster import Raster
from cryorecon.volumes.symmetry import symmetrise
from cryorecon.volumes.voxel_grid import VoxelGrid

JUDGED = 300  # particles by whose likelihood starts are compared
JUDGED_BAND = 9.0
IMAGES = 200  # in a batch of a pass
EMERGED = 2  # shells beyond the first pass's band that half maps must share
LATER = 4  # the same after it: noise that aligns on its own map settles there, and its mask leaks a shell or two
SHIFTS_PER_BOX = 40  # cells of the base grid of shifts along a box
LOCAL_LEVEL = 3  # base grid of a search around given poses: 27 rotations 7.5 degrees apart
SAVED = "poses"  # the stage's file in a run directory
SEARCH_BAND = 0.65  # of the half box: to which searched poses are polished
FOLDS = 4  # a fold meets the map of three quarters of the images; more folds, more memory
ELSEWHERE = 10.0  # degrees: who moved as far between two passes has changed its basin
ASTRAY = 0.5  # share of particles in other basins than before, from which on half maps that agree prove nothing
SETTLED = 0.02  # share of particles that still do so when searching ends
STILL = 0.1  # Fourier pixels at the band's edge by which the median pose still turns when polishing ends
PASS_STREAM = 100_000  # random streams of the passes are their own


@dataclass(frozen=True)
class Schedule:
    """plan: of the searches. restarts: random starts, of which the likeliest goes on. searches: most passes of search;
    polishes: most passes that only polish after them. symmetry: point group."""

    plan: Plan
    restarts: int = 3
    searches: int = 8
    polishes: int = 8
    symmetry: str = "C1"


@dataclass(frozen=True)
class Stage:
    """Where a reconstruction stands: all that the next pass needs, and what is told of the last.

    number: passes done. maps ``(F, D, D, D)``: for each fold that of all others, filtered. looked: band in Fourier pixels on
    which images were aligned. resolved: Fourier pixels up to which the half maps agree. emerged: in this pass or an earlier one
    they agreed beyond the band on which images were aligned. moved: median angle in degrees between the poses of this pass and
    of the one before. elsewhere: share of the particles that moved to another basin. polished: passes done that only polished.
    survivors: mean number of nodes that went on from each level of the search.
    """

    number: int
    maps: Tensor
    looked: float
    resolved: float
    emerged: bool = False
    moved: float = float("nan")
    elsewhere: float = 1.0
    polished: int = 0
    survivors: tuple[float, ...] = ()

    def emerges(self, resolved: float, elsewhere: float) -> bool:
        """Whether the pass after this one, aligned on the same band, shows a structure: half maps agree to ``resolved`` Fourier
        pixels, a share ``elsewhere`` of the particles moved to another basin."""
        if self.number == 0:
            return resolved > self.looked + EMERGED
        return resolved > self.looked + LATER and elsewhere < ASTRAY

    def searches(self, schedule: Schedule) -> bool:
        """Whether the next pass searches: images of a map that was wrong in places must meet the better one, until they
        stay where they are."""
        return self.polished == 0 and self.number < schedule.searches and self.elsewhere > SETTLED

    def polishes(self, schedule: Schedule) -> bool:
        """Whether a pass that only polishes follows the searches: until the poses stand still."""
        still = self.polished > 0 and self.moved < math.degrees(STILL / self.looked)
        return self.polished < schedule.polishes and not still


def best_start(loader: Loader, grid: Grid, mask: Tensor, schedule: Schedule, tilt: Tensor | None, seed: int,
               report: Report) -> Tensor:
    """The map ``(D, D, D)`` of the likeliest of several random starts, coarse (Annealing's last band). tilt: as of
    :class:`PoseTable`."""
    plan = schedule.plan
    annealing = fitting(Annealing(plan.extent, shifts=plan.shifts, memory=plan.memory), grid, loader.n_particles)

    def start(number: int) -> tuple[float, StochasticEM, PoseTable]:
        generator = torch.Generator().manual_seed(ranks.own(seed * 1000 + number))
        em = StochasticEM(grid, annealing, mask, generator, schedule.symmetry)
        table = PoseTable.unknown(loader.n_particles, tilt, grid.device)
        advance(em, loader, table, int(annealing.coarse * annealing.steps), seed * 1000 + number)
        return judged(em, loader, table), em, table

    tasks = [partial(start, number) for number in range(schedule.restarts)]
    starts = side_by_side(tasks) if ranks.count() == 1 else [task() for task in tasks]  # processes meet on one thread
    for number, (evidence, _, _) in enumerate(starts, 1):
        report(f"start {number}/{schedule.restarts}", {"log_likelihood": evidence})
    best = max(range(len(starts)), key=lambda number: starts[number][0])
    _, em, table = starts[best]
    advance(em, loader, table, annealing.steps, seed * 1000 + best)
    return resample(em.density, grid.box, 3)


def fitting(annealing: Annealing, grid: Grid, particles: int) -> Annealing:
    """The same within what a small box or a small set bears."""
    last = first_band(grid)
    return replace(annealing, first=min(annealing.first, last / 2), last=last, batch=min(annealing.batch, particles),
                   start=min(annealing.start, particles))


def first_band(grid: Grid) -> float:
    """Fourier pixels on which starts and the first pass align; a small box keeps the shells beyond that judge them."""
    return min(Annealing.last, grid.box / 2 - 2 - EMERGED)


def advance(em: StochasticEM, loader: Loader, table: PoseTable, steps: int, seed: int) -> None:
    """Go on until so many steps are done, over the data in random order as often as needed."""
    grid = em.grid
    model = Model(grid, VoxelGrid(grid, 0, 2.0), Search(grid, table, em.annealing.plan(0)), Fixed())
    while em.step < steps:
        size = em.annealing.start if em.step < 0 else em.annealing.batch
        for _ in fit(model, em, loader, {}, range(em.step + 1, em.step + 2), size, seed, grid.device):
            if em.step in (0, steps):
                break


def judged(em: StochasticEM, loader: Loader, table: PoseTable) -> float:
    """Mean log-likelihood of some particles under the present map, poses searched for: nats a particle."""
    band = min(JUDGED_BAND, em.annealing.last)
    plan = replace(em.annealing.plan(em.annealing.steps), kmin=band, kmax=band)
    search = Search(em.grid, table, plan)
    em.show(search, plan)
    table.meet()  # of the steps so far, in which one particle may have been several processes'
    particles = torch.arange(min(JUDGED, loader.n_particles))
    for part in particles.split(IMAGES):
        batch = loader.of(ranks.mine(part)).to(em.grid.device)
        search(Hypotheses.empty(len(batch), em.grid.device), batch)
    table.meet()
    return float(table.evidence[particles].mean())


def given_start(config: RunConfig, problem: Problem, loader: Loader, noise: Tensor, schedule: Schedule,
                report: Report) -> Tensor:
    """The map ``(D, D, D)`` that ``init`` names, in the images' units and the first pass's band, masked and symmetric."""
    grid, band = problem.grid, first_band(problem.grid)
    density = symmetrise(first_guess(str(config.init), grid, band), schedule.symmetry) * problem.mask
    plan = replace(schedule.plan, kmin=min(schedule.plan.kmin, band), kmax=band)
    with torch.no_grad():
        factor = fitted_factor(density, problem.loader(noise, False), loader, plan, problem.stack.tilt, config.seed)
    report("start from a map", {"band_A": extent_of(grid) / band, "factor": factor})
    return factor * density


def first_stage(density: Tensor, grid: Grid) -> Stage:
    """All folds begin with the start's one map; its band is the first pass's."""
    band = first_band(grid)
    return Stage(0, torch.stack([density] * FOLDS), band, band)


def folds(half: Tensor, particle: Tensor, seed: int) -> Tensor:
    """Fold of each image ``(N,)``: even in half set 1, odd in half set 2 (``half (N,)``), by ``particle (N,)`` at random."""
    drawn = torch.randperm(int(particle.max()) + 1, generator=torch.Generator().manual_seed(seed)) // 2 % (FOLDS // 2)
    return half - 1 + 2 * drawn[particle].to(half.device)


def next_stage(loader: Loader, grid: Grid, fold: Tensor, mask: Tensor, table: PoseTable, schedule: Schedule, stage: Stage,
               seed: int) -> Stage:
    """One more pass over all images; the table holds its poses afterwards."""
    searching = stage.searches(schedule)
    band = min(stage.resolved, SEARCH_BAND * grid.box / 2) if searching else stage.resolved
    if not stage.emerged:  # what lies beyond must tell whether there is a structure
        band = stage.looked
    poses = [pose_inference(grid, table, density, band, schedule, searching) for density in stage.maps]
    before = table.rotation.clone()
    maps, resolved = cross_maps(loader, grid, fold, mask, poses, schedule.symmetry, stage.number, seed)
    moved = torch.rad2deg(angle_between(before, table.rotation))
    searches = [pose.base for pose in poses if isinstance(pose.base, Search)]
    survivors = tuple(sum(column) / len(column) for column in zip(*(each.survivors for each in searches), strict=True))
    elsewhere = float((moved > ELSEWHERE).float().mean()) if stage.number else 1.0
    emerged = stage.emerged or stage.emerges(resolved, elsewhere)
    return Stage(stage.number + 1, maps, band, resolved, emerged, float(moved.median()), elsewhere,
                 stage.polished + (not searching), survivors)


def cross_maps(loader: Loader, grid: Grid, fold: Tensor, mask: Tensor, poses: Sequence[nn.Module], symmetry: str,
               number: int, seed: int) -> tuple[Tensor, float]:
    """For each fold the filtered map of all others ``(F, D, D, D)``, their poses inferred by ``poses``, and Fourier pixels up
    to which the half maps agree."""
    volumes = [VoxelGrid(grid) for _ in poses]
    em = LinearEM(grid, fold, grid.box / 2, mask, volumes, [Fixed() for _ in poses], symmetry, poses)
    model = Model(grid, VoxelGrid(grid), Fixed(), Fixed())
    stream = PASS_STREAM + number
    size = loader.particles_for(images_at_once(grid, IMAGES))
    for _ in fit(model, em, loader, {}, range(stream, stream + 1), size, seed, grid.device):
        pass
    with torch.no_grad():
        maps = torch.cat([volume.density(torch.zeros(1, 0, device=grid.device)) for volume in volumes])
    return maps, resolved_shell(em.fsc[0], grid)


def find_poses(config: RunConfig, problem: Problem, directory: RunDirectory, report: Report) -> PoseTable:
    """Poses of the particles from nothing, from the map ``init`` or near ``pose_init``; every pass is saved, and a run that was
    stopped goes on after the last.

    Raises
    ------
    InputError: no structure emerged: half maps agree no further than the images were aligned.
    """
    grid, stack = problem.grid, problem.stack
    schedule = schedule_for(config, stack, problem.device)
    noise = first_noise(problem, config)
    loader = problem.loader(noise, config.window)
    fold = folds(problem.half, stack.particle, config.seed)
    saved = directory.load_stage(SAVED)
    if config.pose_init is None or stack.poses is None:
        table = PoseTable.unknown(loader.n_particles, stack.tilt, grid.device)
    else:
        known = poses_of_particles(stack.poses, stack)
        table = PoseTable(known.rotation.to(grid.device), known.shift.to(grid.device), stack.tilt)
    if saved is not None:
        fill(table, saved.pop("table", None), "table of poses")
        stage = Stage(**saved | {"maps": saved["maps"].to(grid.device)})
        report("poses", {"passes_done": stage.number})
    elif schedule.plan.local or config.schedule == "network":
        if not schedule.plan.local:
            march = march_for(config, schedule.plan, grid.box / 2)
            search_by_network(config, problem, loader, table, march, directory, report)
        at_hand = Polish(grid, table, VoxelGrid(grid, 0, 2.0), 2.0, 0)
        maps, resolved = cross_maps(loader, grid, fold, problem.mask, [at_hand] * FOLDS, schedule.symmetry, 0, config.seed)
        stage = Stage(0, maps, min(resolved, schedule.plan.kmin, first_band(grid)), resolved)
        if not schedule.plan.local:  # the network's searches are done, and reached too far to tell structure from noise
            stage = replace(stage, number=1, elsewhere=0.0, emerged=True)
    elif config.init is not None:
        stage = first_stage(given_start(config, problem, loader, noise, schedule, report), grid)
    else:
        stage = first_stage(best_start(loader, grid, problem.mask, schedule, stack.tilt, config.seed, report), grid)
    while stage.searches(schedule) or stage.polishes(schedule):
        began = time.monotonic()
        stage = next_stage(loader, grid, fold, problem.mask, table, schedule, stage, config.seed)
        if not stage.emerged and not stage.searches(schedule):
            directory.drop_stage(SAVED)
            raise InputError(f"{config.particles}: no structure emerged: half maps agree to "
                             f"{extent_of(grid) / stage.resolved:.3g} Å, hardly beyond the "
                             f"{extent_of(grid) / stage.looked:.3g} Å to which the images were aligned, as those of pure "
                             "noise do; check contrast, CTF and mask, or give --poses or --pose-init")
        speed = {"images_per_second": len(stack) / (time.monotonic() - began)}
        directory.save_stage(SAVED, vars(stage) | {"table": table.state_dict()})
        report(f"poses, pass {stage.number} ({'polish' if stage.polished else 'search'})", told(stage, schedule, grid) | speed)
    return table


def extent_of(grid: Grid) -> float:
    """Side of the box in Å: Å per Fourier pixel."""
    return grid.box * grid.apix


def told(stage: Stage, schedule: Schedule, grid: Grid) -> dict[str, float]:
    """What is reported of a pass."""
    out = {"aligned_to_A": extent_of(grid) / stage.looked, "resolution_A": extent_of(grid) / stage.resolved}
    if stage.number > 1:
        out |= {"moved (median degrees)": stage.moved, "elsewhere (share)": stage.elsewhere}
    return out | {f"nodes kept at level {schedule.plan.level + i}": count for i, count in enumerate(stage.survivors)}


def schedule_for(config: RunConfig, stack: ParticleStack, device: torch.device) -> Schedule:
    """The schedule that a configuration asks for."""
    extent = config.t_extent if config.t_extent is not None else 0.08 * stack.box
    shifts = config.t_ngrid or max(3, math.ceil(2 * extent * SHIFTS_PER_BOX / stack.box))
    local = config.pose_init is not None
    memory = search_room(config.search_memory, device)
    plan = Plan(extent * stack.apix, LOCAL_LEVEL if local else config.base_healpy, shifts, config.niter, config.l_start,
                config.l_start, config.nkeptposes, bound=config.bound, local=local, memory=memory)
    return Schedule(plan, config.restarts, config.searches, config.polishes, config.symmetry)


def pose_inference(grid: Grid, table: PoseTable, density: Tensor, band: float, schedule: Schedule, searching: bool) -> Polish:
    """Poses under one map: searched for and polished, or polished alone."""
    base = None
    if searching:
        top = min(band, SEARCHED)
        plan = replace(schedule.plan, kmin=min(schedule.plan.kmin, top), kmax=top)
        base = Search(grid, table, plan)
        base.look_at(Raster(density[None], grid, top))
    volume = VoxelGrid(grid, 0, band)
    volume.set_values(volume.lattice.from_density(density[None]))
    return Polish(grid, table, volume.requires_grad_(False), band, 3 if searching else 2, base)
