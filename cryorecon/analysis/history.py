"""The learning curve of a run, from its ``metrics.jsonl``."""

import json
from pathlib import Path

import numpy as np

SKIPPED = {"epoch", "step", "n"}


def read_history(path: Path) -> dict[str, np.ndarray]:
    """Mean of every number for each epoch: ``{"epoch": (E,), "loss": (E,), ...}``; NaN where an epoch lacks it.

    A line cut short by a kill is passed over. No file, or nothing in it: ``{"epoch": empty}``.
    """
    values: dict[str, dict[float, list[float]]] = {}
    epochs: set[float] = set()
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if not isinstance(record, dict) or not _is_number(record.get("epoch")):
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
