"""Arrays and tables as files, written so that nothing half written is ever seen."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from cryorecon.data.files import atomic_path


def write_array(path: Path, array: np.ndarray) -> None:
    """Write ``.npy`` under a temporary name, then rename."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)  # to a file itself, numpy hides why it failed


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their header; numbers to six digits."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{cell:.6g}" if isinstance(cell, float | np.floating) else cell for cell in row] for row in rows)
