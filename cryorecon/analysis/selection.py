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


def by_selection_file(path: str | Path, z: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Particles that a file of the report names: of latents ``z (N, d)`` and ``coordinates (N, d)`` those inside its lasso
    (:func:`read_lasso`), or those that it lists, ``{"particles": [0, 5, ...]}``, as it does of axes that only the report knows.

    Raises
    ------
    InputError: no such file, another content, or particles that are not among N.
    """
    held = _read_json(path)
    if not isinstance(held, dict) or "particles" not in held:
        across, up, polygon = read_lasso(path)
        return by_lasso(axis(across, z, coordinates), axis(up, z, coordinates), polygon)
    listed = held["particles"]
    if not isinstance(listed, list) or not all(type(one) is int and 0 <= one < len(z) for one in listed):
        raise InputError(f"{path}: expected particles as whole numbers from 0 to {len(z) - 1}, found something else; a "
                         "selection belongs to the run that it was made of")
    chosen = np.zeros(len(z), bool)
    chosen[listed] = True
    return chosen


def _read_json(path: str | Path) -> Any:
    path = require_file(path, "a selection (.json)")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: expected JSON, found something else ({error})") from None


def read_lasso(path: str | Path) -> tuple[str, str, np.ndarray]:
    """Names of the axes and polygon ``(M, 2)`` of ``{"x": "pc1", "y": "pc2", "polygon": [[x, y], ...]}``.

    Raises
    ------
    InputError: no such file, or another content.
    """
    held = _read_json(path)
    try:
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
