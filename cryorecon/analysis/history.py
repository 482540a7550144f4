"""The learning curve of a run, from its ``metrics.jsonl``."""

import json
from pathlib import Path

import numpy as np

SKIPPED = {"epoch", "step", "n"}


def read_history(path: Path) -> dict[str, np.ndarray]:
    """Mean of every number for each epoch: ``{"epoch": (E,), "loss": (E,), ...}``; NaN where an epoch lacks it.

    A last line cut short by a kill is passed over; of an epoch that a resumed run repeated, only the last stretch counts.
    No file, or nothing in it: ``{"epoch": empty}``.
    """
    records: list[dict[str, object]] = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("epoch"), int | float):
            while records and float(str(records[-1]["epoch"])) > record["epoch"]:
                records.pop()  # the run was resumed from an earlier epoch
            records.append(record)
    epochs = sorted({float(str(record["epoch"])) for record in records})
    names = sorted({name for record in records for name, value in record.items()
                    if name not in SKIPPED and isinstance(value, int | float) and not isinstance(value, bool)})
    out = {"epoch": np.array(epochs)}
    for name in names:
        values: dict[float, list[float]] = {epoch: [] for epoch in epochs}
        for record in records:
            value = record.get(name)
            if isinstance(value, int | float):
                values[float(str(record["epoch"]))].append(float(value))
        out[name] = np.array([np.mean(v) if v else np.nan for v in values.values()])
    return out
