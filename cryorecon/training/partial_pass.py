"""A pass over the data that was stopped between two batches: what is kept of it, and how it goes on, bit for bit on the CPU."""

from typing import Any

import torch

from cryorecon import ranks
from cryorecon.training.fit import Record
from cryorecon.training.stopping import random_state, set_random_state


def kept(record: Record, *generators: torch.Generator) -> dict[str, Any]:
    """What goes beside a checkpoint's contents: ``within``, how far the pass is and where its random numbers stand (every
    process's own); nothing where it is at its beginning; ``unsaved`` at its end, where its checkpoint was being written.
    generators: those that draw in the pass, beside torch's own, for all processes alike."""
    if record.done:
        return {"unsaved": True}
    if not record.particles:
        return {}
    record.meet()
    return {"within": {"record": vars(record), "random": random_state(*generators)}}


def taken_up(saved: dict[str, Any] | None, epoch: int, *generators: torch.Generator) -> Record:
    """How far pass ``epoch`` is by what was ``saved``, the random numbers set as they stood then; else at its beginning."""
    within = None if saved is None else saved.get("within")
    if within is None or within["record"]["epoch"] != epoch:
        return Record(epoch)
    set_random_state(within["random"], *generators)
    record = Record(**within["record"])
    record.sums = {key: value / ranks.count() for key, value in record.sums.items()}  # they are added up when the pass ends
    return record
