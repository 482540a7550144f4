r"""Stochastic expectation-maximisation of one map with unknown poses, annealed: finds the basin.

Each step infers soft poses of a small batch on a shared grid under the present map, adds the slices with their weights
to decaying sums (forgetting older, worse poses: Cappe & Moulines 2009) and solves for the map in closed form, filtered
by each shell's signal-to-noise ratio. Along the way the band grows, the posterior cools to its own temperature and the
grid becomes finer. One full-grid search of a few thousand images in all replaces an epoch of gradient steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cryorecon import ranks
from cryorecon.data.loader import Batch
from cryorecon.geometry.grid import Grid
from cryorecon.geometry.rotations import random
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.search import Plan, Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.model import Model
from cryorecon.objectives.em import coarsen, insert
from cryorecon.objectives.steps import ClosedForm
from cryorecon.volumes.backprojection import Accumulator
from cryorecon.volumes.lattice import Lattice
from cryorecon.volumes.raster import Raster

FORGET = 0.85
FLOOR = 0.02  # least share of a shell's power that counts as signal
TINY = 1e-30  # where no slice came; nothing in the images' units


@dataclass(frozen=True)
class Annealing:
    """steps in all. first, last: band in Fourier pixels. cold: inverse temperature of the first step (the last: 1).
    coarse: fraction of the steps on the base grid of 30 degrees, the rest on the next. batch: images of a step. start:
    images at random poses that make the first map. keep: hypotheses of an image. shifts: of the grid, per side. extent:
    largest shift in Å. memory: of :class:`Plan`."""

    extent: float
    steps: int = 90
    first: float = 5.0
    last: float = 11.0
    cold: float = 0.05
    coarse: float = 0.7
    batch: int = 150
    start: int = 300
    keep: int = 40
    shifts: int = 7
    memory: int = 1 << 28

    def plan(self, step: int) -> Plan:
        """The search of a step."""
        done = step / self.steps
        limit = self.first + (self.last - self.first) * done
        temperature = self.cold ** -(1 - done)
        level = 1 if done < self.coarse else 2
        return Plan(self.extent, level, self.shifts, 0, limit, limit, self.keep, self.keep, temperature=temperature,
                    memory=self.memory)


class StochasticEM:
    """One step a batch. density: the present map, sampled coarsely.

    mask: ``(D, D, D)``. symmetry: point group. generator: of the random first poses. The model's pose inference must be a
    :class:`Search`.
    """

    def __init__(self, grid: Grid, annealing: Annealing, mask: Tensor, generator: torch.Generator, symmetry: str = "C1"):
        self.grid, self.annealing, self.generator, self.symmetry = grid, annealing, generator, symmetry
        self.lattice = Lattice(grid.box, annealing.last, 2, grid.device)
        self.mask = coarsen(mask, self.lattice.coarse_box())
        self.numerator = torch.zeros(self.lattice.n, 2, device=grid.device)
        self.weight = torch.zeros(self.lattice.n, device=grid.device)
        self.density = torch.zeros_like(self.mask)
        self.step = -1

    def phases(self, model: Model, batch: Batch) -> Iterator[ClosedForm]:
        """The batch's one step."""
        if not isinstance(model.pose, Search):
            raise TypeError(f"stochastic EM needs a Search for poses, found {type(model.pose).__name__}")
        search = model.pose
        yield ClosedForm(lambda: self._advance(search, batch))

    def finish_pass(self, model: Model) -> dict[str, float]:
        """Nothing waits for the end of a pass."""
        return {}

    def _advance(self, search: Search, batch: Batch) -> dict[str, float]:
        with torch.no_grad():
            plan = self.annealing.plan(max(self.step, 0))
            if self.step < 0:
                found = random_poses(batch, search.table, self.generator)
            else:
                self.show(search, plan)
                found = search(Hypotheses.empty(len(batch), batch.data.device), batch)
            numerator, weight = self._insert(found, batch, plan.kmax)
            ranks.add_up(numerator, weight)
            self.numerator = FORGET * self.numerator + numerator
            self.weight = FORGET * self.weight + weight
            self.density = self._solve(plan.kmax)
            self.step += 1
        return {"weight": float(len(batch)), "certainty": float(found.log_weight[:, 0].exp().sum())}

    def show(self, search: Search, plan: Plan) -> None:
        """Let a search look at the present map."""
        search.look_at(Raster(self.density[None], self.grid, plan.kmax), plan)

    def _insert(self, found: Hypotheses, batch: Batch, limit: float) -> tuple[Tensor, Tensor]:
        band = self.grid.band(limit)
        sums = Accumulator(self.lattice, self.grid.points[band], symmetry=self.symmetry)
        insert(sums, self.grid, found, batch.select(band))
        sums.finish()
        return sums.numerator, sums.weight

    def _solve(self, limit: float) -> Tensor:
        """The map whose shells are filtered by their ratio of signal to noise."""
        lattice = self.lattice
        mean = lattice.shell_mean(self.weight)
        raw = self.numerator / (self.weight + 1e-2 * mean[lattice.shell]).clamp(min=TINY)[:, None]
        power = lattice.shell_mean(raw.square().sum(1))
        signal = torch.maximum(power - 1 / mean.clamp(min=TINY), FLOOR * power).clamp(min=TINY)
        values = self.numerator / (self.weight + 1 / signal[lattice.shell])[:, None]
        values = values * (lattice.radius <= limit + 0.5)[:, None]
        return lattice.to_density(torch.view_as_complex(values)[None], lattice.coarse_box())[0] * self.mask


def random_poses(batch: Batch, table: PoseTable, generator: torch.Generator) -> Hypotheses:
    """One random rotation a particle, no shift."""
    _, owner = torch.unique(batch.particle, return_inverse=True)
    rotation = random(int(owner.max()) + 1, generator).to(batch.data.device)[owner]
    empty = Hypotheses.empty(len(batch), batch.data.device)
    return empty.with_pose(table.of_images(rotation, batch), rotation.new_zeros(len(batch), 2))
