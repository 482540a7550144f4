r"""Poses from nothing: branch and bound over SO(3) x R^2 (Zhong et al. 2020, section 3.2 and algorithm 1).

A batch meets the base grid of rotations and shifts at a low frequency in one matrix product. The best nodes are divided
(eight rotations, four shifts each) and judged in a growing band. The lowest energies, or all whose lower bound does not
exceed the full energy of the best one, go on to the next level. In the end the best ``keep`` hypotheses are returned
with their posterior weights among each other.

The lower bound of a pose's energy over the frequencies up to ``kmax`` is its energy up to ``L``, plus the least that the
frequencies from ``L`` to ``kmax`` can add: ``rigorous``: ``-sum |y_1|^2 / p``, a perfect fit; ``probabilistic``: ``-P - 4
sqrt(P)`` with the slices' largest power ``P = sum p |s|^2`` there (what the true pose would gain, 2.8 standard deviations
``sqrt(2 P)`` beyond its mean). Neither bounds what lies between the nodes of the grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from cryorecon.data.loader import Batch
from cryorecon.data.parts import Room
from cryorecon.errors import InputError
from cryorecon.geometry import so3_grid
from cryorecon.geometry.grid import Grid, Selection
from cryorecon.geometry.shift_grid import shift_children, shift_grid
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.energies import own_energies, shared_energies
from cryorecon.inference.pose.table import PoseTable

BOUNDS = ("none", "rigorous", "probabilistic")
TINY = 1e-30  # where the CTF vanishes no pose differs from another


class Sliced(Protocol):
    """What is searched in: any volume, or a raster of it."""

    z_dim: int

    def slices(self, rotation: Tensor, z: Tensor, selection: Selection) -> Tensor:
        """Central slices ``(B, K, P)``."""


@dataclass(frozen=True)
class Plan:
    """How a search goes.

    extent: largest shift along x and y in Å. level: of the base grid. shifts: of it, per side. subdivisions: of rotations
    and shifts. kmin, kmax: band in Fourier pixels at the base and at the end. survivors: most nodes that go on from a
    level. keep: hypotheses returned. bound: see above. temperature: of the posterior weights. local: around known
    poses only. memory: bytes of energies
    held at once.
    """

    extent: float
    level: int = 2
    shifts: int = 7
    subdivisions: int = 3
    kmin: float = 12.0
    kmax: float = 16.0
    survivors: int = 8
    keep: int = 1
    bound: str = "none"
    temperature: float = 1.0
    local: bool = False
    memory: int = 1 << 28

    def __post_init__(self) -> None:
        if self.bound not in BOUNDS:
            raise InputError(f"bound: expected one of {', '.join(BOUNDS)}, found {self.bound!r}")

    def limit(self, number: int) -> float:
        """Band after ``number`` subdivisions."""
        return self.kmin + (self.kmax - self.kmin) * number / max(self.subdivisions, 1)


@dataclass(frozen=True)
class Nodes:
    """K nodes of each of n particles. node: ``(n, K)`` of the rotation grid. shift: ``(n, K, 2)`` in Å. energy: ``(n, K)``,
    infinite where fewer than K are left."""

    node: Tensor
    shift: Tensor
    energy: Tensor

    def best(self, keep: int) -> "Nodes":
        """The ``keep`` lowest energies, ascending."""
        energy, place = self.energy.topk(min(keep, self.energy.shape[1]), 1, largest=False)
        shift = self.shift.gather(1, place[..., None].expand(-1, -1, 2))
        return Nodes(self.node.gather(1, place), shift, energy)

    def joined(self, other: "Nodes") -> "Nodes":
        """Both one's and another's nodes."""
        pairs = ((self.node, other.node), (self.shift, other.shift), (self.energy, other.energy))
        return Nodes(*(torch.cat(pair, 1) for pair in pairs))

    def left(self) -> float:
        """How many there are."""
        return float((~self.energy.isinf()).sum())

    def without(self, pruned: Tensor) -> "Nodes":
        """The same with infinite energy where ``pruned (n, K)``; the first (best) always stays."""
        pruned = pruned & (torch.arange(pruned.shape[1], device=pruned.device) > 0)
        return replace(self, energy=self.energy.masked_fill(pruned, float("inf")))


class Search(nn.Module):
    """Search of every particle's pose, over all of SO(3) x R^2 or (``plan.local``) around the pose that the table holds.

    table: where what is found is kept. survivors: mean number of nodes that went on from each level, since the last
    :meth:`look_at`.
    """

    volume: Sliced

    def __init__(self, grid: Grid, table: PoseTable, plan: Plan):
        super().__init__()
        self.grid, self.table, self.plan, self.room = grid, table, plan, Room()

    def look_at(self, volume: Sliced, plan: Plan | None = None, z: Tensor | None = None) -> None:
        """Search in this volume from now on; ``z (n, d)``: conformations of the particles where the volume has any. The base
        grid is judged at the mean, z = 0, the nodes below it at each particle's own z."""
        object.__setattr__(self, "volume", volume)  # not registered: not this module's to save
        self.plan, self.z = plan or self.plan, z
        self._base: dict[tuple[float, ...], Tensor] = {}
        self._counts = torch.zeros(self.plan.subdivisions + 1)
        self._seen = 0

    @property
    def survivors(self) -> list[float]:
        """Mean number of nodes that went on from each level."""
        return (self._counts / max(self._seen, 1)).tolist()

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable | None = None) -> Hypotheses:
        """The ``keep`` best poses of every image, weights normalised among them."""
        with torch.no_grad():
            parts = list(self.room.parts(batch, self._particles_at_once(batch), self._search))
        rotation, shift, weight = (torch.cat(each) for each in zip(*parts, strict=True))
        return replace(hypotheses, rotation=rotation, shift=shift, log_weight=weight)

    def _particles_at_once(self, batch: Batch) -> int:
        """As many as keep slices of their own nodes within the memory."""
        images = len(batch) / max(1, len(torch.unique(batch.particle)))
        each = 3 * 64 * self.plan.survivors * self.grid.n_points(self.plan.kmax) * (1 + self.volume.z_dim)
        return max(1, int(self.plan.memory / (each * images)))

    def _search(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        particles, owner = torch.unique(batch.particle, return_inverse=True)
        base = self._around if self.plan.local else self._on_base_grid
        nodes = self._pruned(base(particles, batch, owner), 0, batch, owner)
        counts = [nodes.left()]
        for number in range(1, self.plan.subdivisions + 1):
            nodes = self._pruned(self._subdivided(nodes, number, batch, owner), number, batch, owner)
            counts.append(nodes.left())
        self._counts += torch.tensor(counts)
        self._seen += len(particles)
        nodes = nodes.best(self.plan.keep)
        rotation = so3_grid.rotations(self.plan.level + self.plan.subdivisions, nodes.node)
        self.table.store(particles, rotation[:, 0], nodes.shift[:, 0], torch.logsumexp(-nodes.energy, 1))
        weight = torch.log_softmax(-nodes.energy / self.plan.temperature, 1)
        return self.table.of_images(rotation[owner], batch), nodes.shift[owner], weight[owner]

    def _around(self, particles: Tensor, batch: Batch, owner: Tensor) -> Nodes:
        """The best nodes next to the poses in the table: 27 rotations of the base grid, shifts within ``extent``."""
        plan = self.plan
        known = so3_grid.nearest(plan.level, self.table.rotation[particles])
        node = so3_grid.neighbours(plan.level, known)
        shift = self.table.shift[particles][:, None] + shift_grid(plan.extent, plan.shifts, self.grid.device)
        rotation = so3_grid.rotations(plan.level, node)
        energy = self.energies(rotation[:, None], shift[:, None], batch, owner, plan.kmin)[:, 0]  # (n, T, 27)
        n, t, m = energy.shape
        return Nodes(node[:, None].expand(n, t, m).flatten(1), shift[:, :, None].expand(n, t, m, 2).flatten(1, 2),
                     energy.flatten(1)).best(plan.survivors)

    def _on_base_grid(self, particles: Tensor, batch: Batch, owner: Tensor) -> Nodes:
        """The best nodes of the whole base grid, in parts of it that fit the memory."""
        n = len(particles)
        plan, band = self.plan, self.grid.band(self.plan.kmin)
        near = batch.select(band)
        shifts = shift_grid(plan.extent, plan.shifts, self.grid.device)
        ramps = self.grid.phase_ramp(shifts, band)
        size = so3_grid.size(plan.level)
        step = max(1, min(size, plan.memory // (8 * len(shifts) * n)))
        best = Nodes(owner.new_zeros(n, 0), shifts.new_zeros(n, 0, 2), shifts.new_zeros(n, 0))
        for start in range(0, size, step):
            part = slice(start, min(start + step, size))
            energy = shifts.new_zeros(n, len(shifts) * (part.stop - start))
            for tilt, rows in self.table.by_tilt(batch):
                slices = self._base_slices(tilt, band)[part]
                energy.index_add_(0, owner[rows],
                                  shared_energies(slices, near.data[rows], near.power[rows], ramps).flatten(1))
            lowest, place = energy.topk(min(plan.survivors, energy.shape[1]), 1, largest=False)
            width = part.stop - start
            best = best.joined(Nodes(start + place % width, shifts[place // width], lowest)).best(plan.survivors)
        return best

    def _base_slices(self, tilt: Tensor, band: slice) -> Tensor:
        """Slices ``(M, P)`` of the base grid at one tilt, kept while the volume stays."""
        key = tuple(tilt.flatten().tolist())
        if key not in self._base:
            self._base[key] = self._mean_slices(tilt, self.plan.level, band)
        return self._base[key]

    def _mean_slices(self, tilt: Tensor, level: int, band: slice) -> Tensor:
        """Slices ``(M, P)`` of the mean conformation at all rotations of a level."""
        rotation = tilt @ so3_grid.rotations(level).to(self.grid.device)
        z = torch.zeros(1, 1, self.volume.z_dim, device=self.grid.device).expand(1, len(rotation), -1)
        return self.volume.slices(rotation[None], z, band)[0]

    def _subdivided(self, nodes: Nodes, number: int, batch: Batch, owner: Tensor) -> Nodes:
        """The best of eight rotations and four shifts within each node, in the next band."""
        plan, level = self.plan, self.plan.level + number
        step = 2 * plan.extent / plan.shifts / 2 ** (number - 1)
        node = so3_grid.children(level - 1, nodes.node)
        shift = shift_children(nodes.shift, step)
        energy = self.energies(so3_grid.rotations(level, node), shift, batch, owner, plan.limit(number))
        energy = energy.masked_fill(nodes.energy.isinf()[:, :, None, None], float("inf"))
        shape = energy.shape  # (n, K, 4, 8)
        grown = Nodes(node[:, :, None].expand(shape).flatten(1), shift[:, :, :, None].expand(*shape, 2).flatten(1, 3),
                      energy.flatten(1))
        return grown.best(max(plan.survivors, plan.keep))

    def energies(self, rotation: Tensor, shift: Tensor, batch: Batch, owner: Tensor, limit: float) -> Tensor:
        """Energies ``(n, K, T, C)`` of particles' own rotations ``(n, K, C, 3, 3)`` and shifts ``(n, K, T, 2)``."""
        band = self.grid.band(limit)
        near = batch.select(band)
        posed = self.table.of_images(rotation[owner].flatten(1, 2), batch)
        z = posed.new_zeros(len(owner), self.volume.z_dim) if self.z is None else self.z[batch.particle]
        slices = self.volume.slices(posed, z[:, None].expand(-1, posed.shape[1], -1), band).unflatten(1, rotation.shape[1:3])
        found = own_energies(slices, near.data, near.power, self.grid.phase_ramp(shift[owner], band))
        return found.new_zeros(len(rotation), *found.shape[1:]).index_add_(0, owner, found)

    def _pruned(self, nodes: Nodes, number: int, batch: Batch, owner: Tensor) -> Nodes:
        """Nodes whose lower bound exceeds the full energy of the best one are dropped."""
        plan = self.plan
        beyond = slice(self.grid.n_points(plan.limit(number)), self.grid.n_points(plan.kmax))
        if plan.bound != "none" and beyond.start < beyond.stop:  # else all is known, and the best are kept by number
            rotation = so3_grid.rotations(plan.level + number, nodes.node[:, :1, None])
            upper = self.energies(rotation, nodes.shift[:, :1, None], batch, owner, plan.kmax)[:, 0, 0]
            lower = nodes.energy + self.least_beyond(beyond, batch, owner, len(upper))[:, None]
            nodes = nodes.without(lower > upper)
        return nodes

    def least_beyond(self, beyond: slice, batch: Batch, owner: Tensor, n: int) -> Tensor:
        """What the points ``beyond`` a band can add to a particle's energy at the least, ``(n,)``: by the plan's bound."""
        far = batch.select(beyond)
        least = far.power.new_zeros(n)
        if self.plan.bound == "rigorous":
            perfect = far.data.abs().square() / far.power.clamp(min=TINY)
            return least.index_add_(0, owner, -perfect.sum(1))
        for tilt, rows in self.table.by_tilt(batch):
            slices = self._mean_slices(tilt, 0, beyond)
            largest = (far.power[rows] @ slices.abs().square().T).amax(1)
            least.index_add_(0, owner[rows], -largest - 4 * largest.sqrt())
        return least
