r"""Closed-form expectation-maximisation of a linear family ``V_0 + sum_c z_c V_c`` (probabilistic PCA; ``d = 0``:
weighted backprojection).

E-step: hypotheses with weights and, where z is inferred, its Gaussian posterior. M-step: one small linear system at
every lattice point (:mod:`cryorecon.volumes.backprojection`), solved for two half sets apart. Half-set FSCs of the
masked maps say how far each component reaches, and their local agreement how much of it to believe where
(:mod:`cryorecon.objectives.filters`), so that components that only fit noise die out. After every pass the latent space
is recentred, scaled to unit variance and turned to principal axes (parameter-expanded EM: Liu, Rubin & Wu 1998), which
makes a handful of passes enough.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from cryorecon import ranks
from cryorecon.data.loader import Batch
from cryorecon.geometry.grid import Grid
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.table import meet
from cryorecon.model import Model
from cryorecon.objectives.cores import side_by_side
from cryorecon.objectives.filters import half_set_fsc, local_wiener, resolved_part
from cryorecon.objectives.steps import ClosedForm
from cryorecon.volumes.backprojection import Accumulator
from cryorecon.volumes.lattice import Lattice
from cryorecon.volumes.voxel_grid import VoxelGrid

Inference = Callable[[Hypotheses, Batch, Callable], Hypotheses]
INSERTED = 128  # images inserted at once: bounds the memory of their corners
INSERTED_ON_GPU = 1 << 24  # points times columns of the Gram matrix there, some 100 bytes each
NEGLIGIBLE = 0.02  # weight of a hypothesis, as a share of its image's largest
RIDGE = 0.02  # of a shell's mean weight: only keeps points that no slice came near from exploding


class LinearEM:
    """One M-step a pass over the data, in F folds apart: even ones are half set 1, odd ones half set 2.

    Each fold has a volume of its own, made of all images but those of the fold; by it z and poses of the fold's images are
    to be inferred (cross-fitting): the values of the map that judges an image have not met its noise, and the latent spaces
    stay aligned. With two folds it is the other half set's volume; with more it holds more images, some of the fold's own half
    set.

    Parameters
    ----------
    grid: the images' grid. fold: ``(N,)`` of each image, 0 to F - 1. limit: band of this pass in Fourier pixels. mask:
    real-space mask ``(D, D, D)`` by which maps are multiplied. volumes: F linear volumes, updated when the pass ends.
    conformations: treatments of z for the images of each fold. symmetry: point group. poses: treatments of the pose,
    likewise (default: the model's for all).
    """

    def __init__(self, grid: Grid, fold: Tensor, limit: float, mask: Tensor, volumes: Sequence[VoxelGrid],
                 conformations: Sequence[Inference], symmetry: str = "C1", poses: Sequence[Inference] | None = None):
        self.grid, self.fold, self.limit, self.mask = grid, fold, limit, mask
        self.volumes, self.conformations, self.poses = volumes, conformations, poses
        self.q = 1 + volumes[0].z_dim
        self.lattice = Lattice(grid.box, limit, 2, grid.device)
        self.band = grid.band(limit)
        points = grid.points[self.band]
        self.sums = [Accumulator(self.lattice, points, self.q, symmetry) for _ in volumes]
        self.first = torch.zeros(self.q, device=grid.device)
        self.second = torch.zeros(self.q, self.q, device=grid.device)
        self.count = torch.zeros((), device=grid.device)
        self.fsc = torch.zeros(self.q, self.lattice.n_shells)
        self.half_maps = torch.zeros(0)  # (2, D', D', D'): unfiltered, unmasked means of the last solve
        self.turn = torch.eye(self.q, device=grid.device)

    def phases(self, model: Model, batch: Batch) -> Iterator[ClosedForm]:
        """The batch's one step."""
        yield ClosedForm(lambda: self._accumulate(model, batch))

    def _accumulate(self, model: Model, batch: Batch) -> dict[str, float]:
        numbers = [number for number in range(len(self.sums)) if bool((self.fold[batch.image] == number).any())]
        total = 0.0
        for kl, first, second in side_by_side([partial(self._fold, number, model, batch) for number in numbers]):
            total += kl
            self.first += first
            self.second += second
        self.count += len(batch)
        return {"kl": total, "weight": float(len(batch))}

    def _fold(self, number: int, model: Model, batch: Batch) -> tuple[float, Tensor, Tensor]:
        """Insert the batch's images of a fold; their divergence in nats and the sums of the moments of ``(1, z)``."""
        with torch.no_grad():
            seen = batch.at(torch.nonzero(self.fold[batch.image] == number)[:, 0])
            pose = model.pose if self.poses is None else self.poses[number]
            posed = pose(Hypotheses.empty(len(seen), batch.data.device), seen, model.energy)
            found = self.conformations[number](posed, seen, model.energy)
            first, second = torch.zeros_like(self.first), torch.zeros_like(self.second)
            points = self.grid.n_points(self.limit) * self.sums[number].gram.shape[1]
            step = INSERTED if self.grid.device.type == "cpu" else max(1, min(8 * INSERTED, INSERTED_ON_GPU // points))
            for start in range(0, len(seen), step):
                index = slice(start, start + step)
                share, mean, square = insert(self.sums[number], self.grid, found.at(index), seen.at(index).select(self.band))
                first += (share[:, None] * mean).sum(0)
                second += (share[:, None, None] * square).sum(0)
            return float((found.log_weight.exp() * found.kl).sum()), first, second

    def finish_pass(self, model: Model) -> dict[str, float]:
        """Solve for the maps, filter them, and hand them to the folds' volumes and to the model's."""
        folds = len(self.sums)
        meet(model, *(self.poses or ()))
        ranks.add_up(self.count, self.first, self.second, *(part for each in self.sums for part in (each.numerator, each.gram)))
        halves = torch.stack([self._solve(range(which, folds, 2)) for which in (0, 1)])
        self.turn = latent_frame(self.first / self.count, self.second / self.count, halves.mean(0))
        halves = self._turned(halves)
        others = halves.flip(0) if folds == 2 else torch.stack([
            self._turned(self._solve([other for other in range(folds) if other != fold])[None])[0] for fold in range(folds)])
        coarse = halves.shape[-1]
        mask = coarsen(self.mask, coarse)
        self.half_maps = halves[:, 0]
        masked = halves * mask
        self.fsc = half_set_fsc(masked, self.lattice.n_shells)
        self.fsc[:, int(self.limit) + 2 :] = 0  # beyond the band the mask's leakage agrees with itself
        self.fsc = resolved_part(self.fsc)
        shares = [2 * (folds - 1) / folds] * folds + [2.0]
        targets = torch.cat([others, halves.mean(0)[None]])
        filtered = [local_wiener(targets[:, q] * mask, masked[:, q], self.fsc[q] > 0, shares) for q in range(self.q)]
        *crossed, joint = (torch.stack(maps) * mask for maps in zip(*filtered, strict=True))
        for volume, own in zip(self.volumes, crossed, strict=True):
            _store(volume, own, self.limit)
        _store(model.volume, joint, self.limit)
        for solved in (*self.volumes, model.volume):
            ranks.agree(solved)
        return {}

    def _turned(self, maps: Tensor) -> Tensor:
        return torch.einsum("pq,hqzyx->hpzyx", self.turn, maps)

    def _solve(self, folds: Sequence[int]) -> Tensor:
        sums = Accumulator.joined([self.sums[fold] for fold in folds])
        sums.finish()
        weight = self.lattice.shell_mean(sums.weight)
        values = sums.solve((RIDGE * weight)[self.lattice.shell].expand(self.q, -1))
        return self.lattice.to_density(values, self.lattice.coarse_box())


def _store(volume: nn.Module, maps: Tensor, limit: float) -> None:
    if not isinstance(volume, VoxelGrid):
        raise TypeError(f"closed-form steps need a VoxelGrid volume, found {type(volume).__name__}")
    volume.restrict(limit)
    volume.set_values(volume.lattice.from_density(maps))


def insert(sums: Accumulator, grid: Grid, found: Hypotheses, seen: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Insert images at each of their hypotheses that matters, by its weight.

    Returns the M weights, which sum to one for each image, and the moments ``(M, Q)`` and ``(M, Q, Q)`` of ``(1, z)``.
    """
    weight = found.log_weight.exp()
    weight = torch.where(weight > NEGLIGIBLE * weight.amax(1, keepdim=True), weight, 0)
    image, which = torch.nonzero(weight, as_tuple=True)
    share = (weight / weight.sum(1, keepdim=True))[image, which]
    rotation, shift, z = (part.expand(len(seen), weight.shape[1], *part.shape[2:])[image, which]
                          for part in (found.rotation, found.shift, found.z))
    mean, second = moments(z, None if found.z_cov is None else found.z_cov[image, which])
    data = seen.data[image] * (grid.phase_ramp(shift, seen.selection) * share[:, None])
    sums.add(data, seen.power[image] * share[:, None], rotation, mean, second)
    return share, mean, second


def moments(z: Tensor, cov: Tensor | None) -> tuple[Tensor, Tensor]:
    """First and second moments of ``(1, z)``: ``(B, Q)``, ``(B, Q, Q)``."""
    mean = torch.cat([torch.ones(len(z), 1, device=z.device), z], 1)
    second = mean[:, :, None] * mean[:, None, :]
    if cov is not None:
        second[:, 1:, 1:] += cov
    return mean, second


def latent_frame(first: Tensor, second: Tensor, maps: Tensor) -> Tensor:
    """Matrix ``(Q, Q)`` that takes maps to those of a latent of zero mean and unit variance, components by falling
    power.

    first ``(Q,)``, second ``(Q, Q)``: moments of ``(1, z)``. maps ``(Q, ...)``.
    """
    q = len(first)
    turn = torch.eye(q, device=first.device)
    if q == 1:
        return turn
    mean, centred = first[1:], second[1:, 1:] - first[1:, None] * first[None, 1:]
    values, vectors = torch.linalg.eigh(centred)
    root = vectors * values.clamp(min=1e-6).sqrt() @ vectors.T
    flat = maps[1:].flatten(1)
    _, axes = torch.linalg.eigh(root @ (flat @ flat.T) @ root)
    turn[0, 1:] = mean
    turn[1:, 1:] = axes.flip(1).T @ root
    return turn


def coarsen(mask: Tensor, box: int) -> Tensor:
    """A mask ``(D, D, D)`` sampled with ``box`` voxels over the same extent, origin at ``box // 2``."""
    if mask.shape[-1] == box:
        return mask
    axis = ((torch.arange(box, device=mask.device) - box // 2) * (mask.shape[-1] / box) + mask.shape[-1] // 2)
    unit = 2 * axis / (mask.shape[-1] - 1) - 1
    where = torch.stack(torch.meshgrid(unit, unit, unit, indexing="ij")[::-1], -1)
    return torch.nn.functional.grid_sample(mask[None, None], where[None], align_corners=True)[0, 0]
