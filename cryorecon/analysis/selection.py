"""Which particles: by cluster, by ranges along axes, by a lasso, by how badly they fit. All say ``(N,)`` of booleans."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cryorecon.data.arrays import read_numbers, write_array
from cryorecon.data.cryodrgn_files import read_indices
from cryorecon.data.files import exclusive, read_json, refuse_links
from cryorecon.errors import InputError
from cryorecon.training.run_directory import digest

IND = "ind.npy"  # in an analysis's folder: the rows of z that it is of
SUMMARY = "summary.json"  # the last file of an analysis: where it is, all is


@contextmanager
def claim(folder: Path, rows: np.ndarray | None = None) -> Iterator[None]:
    """Within, this is the one analysis in ``folder``, of some ``rows`` of z or of all. Until its last file is written nothing
    there is an analysis: what would vouch for an earlier one goes first.

    Raises
    ------
    InputError: the folder is a run of its own, a folder in it is a link, or another process writes there.
    """
    if (folder / "config.yaml").exists():
        raise InputError(f"{folder}: expected a folder for the analysis, found a run; give another -o")
    refuse_links(folder)
    with exclusive(folder, (SUMMARY, "report.html", IND)):
        if rows is not None:
            write_array(folder / IND, rows)
        yield


def rows_of(positions: np.ndarray, held: np.ndarray, where: str) -> np.ndarray:
    """Rows of z, ascending, of the particles at ``positions`` in the file of which a run ``held`` some, in the order of z.
    ``where`` begins errors.

    Raises
    ------
    InputError: a position that the run doesn't hold.
    """
    absent = np.setdiff1d(positions, held)
    if len(absent):
        raise InputError(f"{where}: expected positions in the file that the run was given, of its {len(held):,} particles, "
                         f"found {len(absent):,} that are none of them ({absent[0]}, say)")
    return np.flatnonzero(np.isin(held, positions))


def analysed(folder: Path, particles: int) -> np.ndarray:
    """Rows of the run's ``particles`` that an analysis is of, ``(m,)``: all, unless it was made with ``--ind``
    (and to its end).

    Raises
    ------
    InputError: a list that is not of this run.
    """
    path = folder / IND
    finished = path.is_file() and (folder / SUMMARY).is_file()
    return read_indices(path, particles) if finished else np.arange(particles)


def require_own(folder: Path, z: np.ndarray) -> None:
    """Raise :class:`InputError` for an analysis of another run's latents than ``z (N, d)``; one of an older version, or none,
    says nothing."""
    held = _table(folder / SUMMARY).get("latents") if (folder / SUMMARY).is_file() else None
    if isinstance(held, str) and held != digest(z):
        raise InputError(f"{folder}: expected an analysis of this run's latents, found one of others; run `cryorecon analyze` "
                         "anew, or name the run's own (--analysis)")


def labels_of(folder: Path, kind: str, particles: int) -> np.ndarray:
    """Labels ``(N,)`` of the clusters (``clusters_in``) or states (``states_in``) that the analysis in ``folder`` ended with.

    Raises
    ------
    InputError: no finished analysis, or one of other particles.
    """
    path = folder / SUMMARY
    if not path.is_file():
        raise InputError(f"{folder}: expected a finished analysis ({SUMMARY}), found none; run `cryorecon analyze` first")
    name = _table(path).get(kind)
    file = folder / Path(str(name)).name / "labels.npy"
    if name is None or not file.is_file():
        raise InputError(f"{file}: expected the labels that {path.name} names, found no file; analyze the run anew")
    labels = read_numbers(file, "labels of clusters or states")
    if labels.shape != (particles,) or labels.dtype.kind not in "iu":
        raise InputError(f"{file}: expected labels of {particles} particles, found an array {labels.shape} of {labels.dtype}; "
                         "analyze the run anew")
    return labels


def by_cluster(labels: np.ndarray, wanted: list[int], option: str = "--cluster") -> np.ndarray:
    """Particles of the ``wanted`` clusters, counted from 1 as report, pictures and names of maps count; labels ``(N,)`` from 0.
    ``option`` begins errors.

    Raises
    ------
    InputError: a cluster that isn't there.
    """
    missing = sorted(set(wanted) - set((labels + 1).tolist()))
    if missing:
        raise InputError(f"{option}: expected numbers from 1 to {int(labels.max()) + 1}, found {', '.join(map(str, missing))}")
    return np.isin(labels + 1, wanted)


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
    held = read_json(path, "a selection (.json)")
    if not isinstance(held, dict) or "particles" not in held:
        across, up, polygon = read_lasso(path)
        x, y = (axis(name, z, coordinates, f"{path}: axis") for name in (across, up))
        return by_lasso(x, y, polygon)
    listed = held["particles"]
    if not isinstance(listed, list) or not all(type(one) is int and 0 <= one < len(z) for one in listed):
        raise InputError(f"{path}: expected particles as whole numbers from 0 to {len(z) - 1}, found something else; a "
                         "selection belongs to the run that it was made of")
    chosen = np.zeros(len(z), bool)
    chosen[listed] = True
    return chosen


def _table(path: Path) -> dict[str, Any]:
    held = read_json(path, "the summary of an analysis")
    if not isinstance(held, dict):
        raise InputError(f"{path}: expected the summary of an analysis, found {type(held).__name__}; analyze the run anew")
    return held


def read_lasso(path: str | Path) -> tuple[str, str, np.ndarray]:
    """Names of the axes and polygon ``(M, 2)`` of ``{"x": "pc1", "y": "pc2", "polygon": [[x, y], ...]}``.

    Raises
    ------
    InputError: no such file, or another content.
    """
    held = read_json(path, "a selection (.json)")
    try:
        polygon = np.asarray(held["polygon"], np.float64)
        x, y = held["x"], held["y"]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f'{path}: expected {{"x": "pc1", "y": "pc2", "polygon": [[x, y], ...]}}, found something else '
                         f"({error})") from None
    if polygon.ndim != 2 or polygon.shape[1:] != (2,) or len(polygon) < 3 or not np.isfinite(polygon).all():
        raise InputError(f"{path}: expected a polygon of three points (x, y) or more, found an array {polygon.shape}")
    return str(x), str(y), polygon


def axis(name: str, z: np.ndarray, coordinates: np.ndarray, where: str = "axis") -> np.ndarray:
    """Values ``(N,)`` along ``pc1``, ``pc2``, ... (of ``coordinates (N, d)``) or ``z1``, ``z2``, ... (of ``z (N, d)``).
    ``where`` begins errors.

    Raises
    ------
    InputError: no such axis.
    """
    kind, number = name.lower().rstrip("0123456789"), name[len(name.rstrip("0123456789")):]
    held = {"pc": coordinates, "z": z}.get(kind)
    if held is None or not 0 < len(number) < 10 or not 1 <= int(number) <= held.shape[1]:
        raise InputError(f"{where}: expected pc1 to pc{z.shape[1]} or z1 to z{z.shape[1]}, found {name!r}")
    return held[:, int(number) - 1]
