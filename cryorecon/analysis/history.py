"""The learning curve of a run, from its ``metrics.jsonl``."""

from pathlib import Path

import numpy as np

from cryorecon.data.files import read_records

SKIPPED = {"epoch", "step", "n"}


def read_history(path: Path) -> dict[str, np.ndarray]:
    """Mean of every number for each epoch: ``{"epoch": (E,), "loss": (E,), ...}``; NaN where an epoch lacks it.

    A line cut short by a kill is passed over. No file, or nothing in it: ``{"epoch": empty}``.
    """
    values: dict[str, dict[float, list[float]]] = {}
    epochs: set[float] = set()
    for record in read_records(path):
        if not _is_number(record.get("epoch")):
            continue
        epochs.add(record["epoch"])
        for name, value in record.items():
            if name not in SKIPPED and _is_number(value):
                values.setdefault(name, {}).setdefault(record["epoch"], []).append(value)
    order = sorted(epochs)
    means = {name: np.array([np.mean(by.get(epoch, [np.nan])) for epoch in order]) for name, by in values.items()}
    return {"epoch": np.array(order), **means}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
