"""Which particles: by cluster, by ranges along axes, by a lasso, by how badly they fit. All say ``(N,)`` of booleans."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from cryorecon.data.files import require_file
from cryorecon.errors import InputError


def by_cluster(labels: np.ndarray, wanted: list[int]) -> np.ndarray:
    """Particles of the ``wanted`` clusters; labels ``(N,)`` from 0.

    Raises
    ------
    InputError: a cluster that isn't there.
    """
    missing = sorted(set(wanted) - set(labels.tolist()))
    if missing:
        raise InputError(f"--cluster: expected clusters from 0 to {int(labels.max())}, found {', '.join(map(str, missing))}")
    return np.isin(labels, wanted)


def by_range(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Particles whose value of ``(N,)`` lies in ``[low, high]``."""
    return (values >= low) & (values <= high)


def by_percentile(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Particles between two percentiles of ``values (N,)``."""
    return by_range(values, *np.percentile(values, [low, high]))


def by_lasso(x: np.ndarray, y: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Particles ``(x, y)``, each ``(N,)``, inside a closed ``polygon (M, 2)``: a ray from them crosses its sides an odd number
    of times."""
    inside = np.zeros(len(x), bool)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if y1 == y2:
            continue
        crosses = (y1 > y) != (y2 > y)
        inside ^= crosses & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return inside


def read_lasso(path: str | Path) -> tuple[str, str, np.ndarray]:
    """Names of the axes and polygon ``(M, 2)`` of ``{"x": "pc1", "y": "pc2", "polygon": [[x, y], ...]}``.

    Raises
    ------
    InputError: no such file, or another content.
    """
    path = require_file(path, "a lasso (.json)")
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
        polygon = np.asarray(held["polygon"], np.float64)
        x, y = held["x"], held["y"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path}: expected {{"x": "pc1", "y": "pc2", "polygon": [[x, y], ...]}}, found something else '
                         f"({error})") from None
    if polygon.ndim != 2 or polygon.shape[1:] != (2,) or len(polygon) < 3 or not np.isfinite(polygon).all():
        raise InputError(f"{path}: expected a polygon of three points (x, y) or more, found an array {polygon.shape}")
    return str(x), str(y), polygon


def axis(name: str, z: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Values ``(N,)`` along ``pc1``, ``pc2``, ... (of ``coordinates (N, d)``) or ``z1``, ``z2``, ... (of ``z (N, d)``).

    Raises
    ------
    InputError: no such axis.
    """
    kind, number = name.lower().rstrip("0123456789"), name[len(name.rstrip("0123456789")):]
    held = {"pc": coordinates, "z": z}.get(kind)
    if held is None or not number or not 1 <= int(number) <= held.shape[1]:
        raise InputError(f"axis: expected pc1 to pc{z.shape[1]} or z1 to z{z.shape[1]}, found {name!r}")
    return held[:, int(number) - 1]
