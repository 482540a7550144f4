r"""Likelihood by gradient: the energy reduced over hypotheses, plus the divergence of what was inferred.

.. math:: \frac{1}{BP} \sum_n \Big( \operatorname{reduce}_k E_{nk} + w\, \mathrm{KL}_n \Big)

CryoDRGN's eq. 9 with ``w = beta / 2`` (see ``docs/conventions.md``).
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from cryorecon.data.loader import Batch
from cryorecon.data.parts import halved
from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.model import Model, per_particle
from cryorecon.objectives.steps import Gradient

REDUCTIONS = ("expected", "marginal", "best")
CHUNK_POINTS = {"cpu": 2048, "cuda": 1 << 21}  # activations of a chunk stay in a core's cache


def reduce(energy: Tensor, log_weight: Tensor, how: str) -> Tensor:
    """Energy ``(B, K)`` and normalised ``log_weight (B, K)`` to ``(B,)``: expected, marginal (-log sum exp) or best."""
    if how == "expected":
        return (log_weight.exp() * energy).sum(1)
    if how == "marginal":
        return -torch.logsumexp(log_weight - energy, 1)
    return energy.amin(1)


class PointSampler:
    """Chooses the grid points that one gradient step looks at, and the factors that keep the energy unbiased.

    Points within ``core`` (a fraction of the kept ones) are always taken; of the rest each is taken with one
    probability. Neighbouring Fourier points of a particle smaller than its box say nearly the same, so a step on
    half of them costs half and moves almost as well. ``fraction`` 1 takes all.
    """

    def __init__(self, grid: Grid, limit: float, fraction: float = 1.0, core: float = 0.5):
        self.band = grid.band(limit)
        self.n = grid.n_points(limit)
        self.fixed = self.n if fraction >= 1 else int(core * fraction * self.n)
        self.drawn = 0 if fraction >= 1 else max(1, int(fraction * self.n) - self.fixed)
        self.taken = self.fixed + self.drawn

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch at this step's points."""
        if not self.drawn:
            return batch.select(self.band)
        rest = self.n - self.fixed
        drawn = self.fixed + torch.randperm(rest, generator=generator)[: self.drawn].sort().values
        index = torch.cat([torch.arange(self.fixed), drawn])
        weight = torch.ones(len(index))
        weight[self.fixed :] = rest / self.drawn
        return batch.select(index.to(batch.data.device), weight.to(batch.data.device))


class Likelihood:
    """One gradient step a batch.

    Parameters
    ----------
    reduction: over hypotheses, one of ``expected``, ``marginal``, ``best``. kl_weight: ``w`` above.
    sampler: which points a step sees. generator: of the sampler's draws.
    """

    def __init__(self, sampler: PointSampler, generator: torch.Generator, reduction: str = "expected",
                 kl_weight: float = 1.0):
        if reduction not in REDUCTIONS:
            raise InputError(f"reduction: expected one of {', '.join(REDUCTIONS)}, found {reduction!r}")
        self.sampler, self.generator, self.reduction = sampler, generator, reduction
        self.kl_weight = kl_weight
        self.points = dict(CHUNK_POINTS)

    def phases(self, model: Model, batch: Batch) -> Iterator[Gradient]:
        """The batch's one step."""
        yield Gradient("model", lambda: self._backward(model, batch))

    def finish_pass(self, model: Model) -> dict[str, float]:
        """Nothing is left over at the end of a pass."""
        return {}

    def loss(self, model: Model, hypotheses: Hypotheses, batch: Batch) -> Tensor:
        """Sum over particles of the reduced energy, in nats."""
        energy = per_particle(model.energy(hypotheses, batch), batch)
        weight = hypotheses.log_weight[batch.particle_starts()]
        return reduce(energy, weight, self.reduction).sum()

    def _backward(self, model: Model, batch: Batch) -> dict[str, float]:
        """The whole step again in smaller chunks, and all that follow, where a GPU's memory does not hold it."""
        while True:
            state, drawn = torch.get_rng_state(), self.generator.get_state()
            try:
                return self._attempt(model, batch)
            except torch.cuda.OutOfMemoryError:
                pass  # what it holds goes only when this is over
            model.zero_grad(set_to_none=True)
            torch.set_rng_state(state)
            self.generator.set_state(drawn)
            device = batch.data.device.type
            images = min(len(batch), self.points[device] // self.sampler.taken)
            self.points[device] = halved(images, "image") * self.sampler.taken

    def _attempt(self, model: Model, batch: Batch) -> dict[str, float]:
        inferred = model.infer(batch)
        # leaves: the volume is differentiated in chunks, then what it says of the hypotheses flows on to the inferences
        names = [n for n in ("rotation", "shift", "z") if getattr(inferred, n).requires_grad]
        leaves = {n: getattr(inferred, n).detach().requires_grad_() for n in names}
        hypotheses = replace(inferred, **leaves)
        seen = self.sampler(batch, self.generator)
        scale = 1 / (len(batch) * self.sampler.n)
        total = 0.0
        device = batch.data.device.type
        for index in _chunks(batch, max(1, self.points[device] // self.sampler.taken)):
            loss = self.loss(model, hypotheses.at(index), seen.at(index))
            (loss * scale).backward()
            total += float(loss.detach())
        kl = inferred.kl.sum()
        tensors = [getattr(inferred, n) for n in names]
        gradients: list[Tensor | None] = [leaves[n].grad for n in names]
        if kl.requires_grad:
            tensors.append(kl * (self.kl_weight * scale))
            gradients.append(None)
        if tensors:
            torch.autograd.backward(tensors, gradients)
        return {"energy": total / self.sampler.n, "kl": float(kl.detach()), "weight": float(len(batch))}


def _chunks(batch: Batch, size: int) -> Iterator[slice]:
    """Slices of about ``size`` images that never part a particle."""
    ends = [*batch.particle_starts()[1:].tolist(), len(batch)]
    begin = 0
    for end in ends:
        if end - begin >= size or end == len(batch):
            yield slice(begin, end)
            begin = end
