"""The loop, in plain sight: for a batch, for each step of the objective, a gradient step or a closed-form one.

Each pass draws its random numbers from a stream of its own, made from the run's seed and the pass's number; a run
that is resumed at a pass's beginning therefore goes on bit for bit as if it had not stopped.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from cryorecon import ranks
from cryorecon.data.loader import Batch, Loader
from cryorecon.model import Model
from cryorecon.objectives.steps import ClosedForm, Gradient
from cryorecon.training.stopping import check


class Objective(Protocol):
    """What is optimised: steps for a batch, and what remains to do when a pass ends."""

    def phases(self, model: Model, batch: Batch) -> Iterator[Gradient | ClosedForm]:
        """The batch's steps."""

    def finish_pass(self, model: Model) -> dict[str, float]:
        """Called after the last batch of a pass; returns what to log."""


@dataclass
class Record:
    """Progress: the pass, particles seen in it, and sums over ``weight`` images of what is logged."""

    epoch: int
    particles: int = 0
    done: bool = False
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, log: dict[str, float]) -> None:
        """Add a step's sums."""
        for key, value in log.items():
            self.sums[key] = self.sums.get(key, 0.0) + value

    def meet(self) -> None:
        """Add up the sums of all processes."""
        sums = torch.tensor([self.sums[key] for key in sorted(self.sums)], dtype=torch.float64)
        ranks.add_up(sums)
        self.sums = dict(zip(sorted(self.sums), sums.tolist(), strict=True))

    def means(self) -> dict[str, float]:
        """Mean per image of what has been logged."""
        weight = max(self.sums.get("weight", 0.0), 1.0)
        return {key: value / weight for key, value in self.sums.items() if key != "weight"}


def stream(seed: int, epoch: int) -> torch.Generator:
    """The random stream of one pass; also seeds torch's own."""
    torch.manual_seed(stream_number(seed, epoch))
    return torch.Generator().manual_seed(stream_number(seed, epoch))


def stream_number(seed: int, epoch: int) -> int:
    """The seed of one pass's stream."""
    return (seed * 1_000_003 + epoch * 7919 + 1) % (1 << 62)


def anneal(optimisers: Iterable[torch.optim.Optimizer], fraction: float) -> None:
    """Set the step sizes at ``fraction`` of a run: from their first to a tenth of it along a cosine."""
    factor = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * fraction))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def fit(model: Model, objective: Objective, loader: Loader, optimisers: dict[str, list[torch.optim.Optimizer]],
        epochs: range, batch_particles: int, seed: int, device: torch.device, begun: Record | None = None) -> Iterator[Record]:
    """Run passes over the data; yields a record after each batch, and one with ``done`` after each pass. ``begun``: how far the
    first of them is; torch's random numbers then stand where they stood.

    Raises
    ------
    Stopped: between two batches, where the process was told to stop.
    """
    for epoch in epochs:
        record = Record(epoch) if begun is None or begun.epoch != epoch else begun
        generator = torch.Generator().manual_seed(stream_number(seed, epoch)) if record.particles else stream(seed, epoch)
        if ranks.count() > 1 and not record.particles:  # the order is everyone's, what is drawn for an image its process's
            torch.manual_seed(ranks.own(torch.initial_seed()))
        model.train()
        for raw in loader.epoch(batch_particles, generator, record.particles // batch_particles):
            check()
            batch = raw.to(device)
            for step in objective.phases(model, batch):
                if isinstance(step, ClosedForm):
                    record.add(step.accumulate())
                    continue
                groups = [group for optimiser in optimisers[step.group] for group in optimiser.param_groups]
                parameters = [p for group in groups for p in group["params"]]
                for optimiser in optimisers[step.group]:
                    optimiser.zero_grad(set_to_none=True)
                record.add(step.backward())
                ranks.mean_gradients(parameters, len(batch))
                if step.clip < math.inf:
                    norm = nn.utils.clip_grad_norm_(parameters, step.clip)
                    record.add({f"{step.group}_gradient": float(norm) * len(batch) * step.every})  # means are over images
                for optimiser in optimisers[step.group]:
                    optimiser.step()
                step.settle()
            record.particles += batch_particles
            yield record
        record.particles = loader.n_particles
        record.meet()
        record.add({key: value * record.sums.get("weight", 1.0) for key, value in objective.finish_pass(model).items()})
        record.done = True
        yield record
