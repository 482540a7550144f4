"""Tilt series of RELION 5 and WarpTools: a row for each particle, a stack of tilt images for each row.

The tomograms' star gives each tilt its projection matrix and CTF. RELION composes
``A = P_tilt A_subtomogram A_particle``, and a particle lies at its coordinate minus ``A_subtomogram`` times its 3-D
origin. The defocus of a tilt is used for all of its particles, wherever they lie along the beam.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryorecon.data import star_columns as cols
from cryorecon.data.metadata import Metadata, image_names, resolve
from cryorecon.data.mrc import read_header
from cryorecon.errors import InputError
from cryorecon.geometry import rotations

if TYPE_CHECKING:
    import pandas as pd

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_CTF_COLUMNS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfScalefactor", "rlnCtfBfactor")


@dataclass(frozen=True)
class _Series:
    """Tilts of one tomogram: the file that lists them, table of CTF columns and ``rotation (T, 3, 3)`` float64."""

    path: Path
    table: "pd.DataFrame"
    rotation: Tensor


def read_tilt_series(frame: "pd.DataFrame", path: Path, tomograms: str | Path | None,
                     datadir: str | Path | None) -> Metadata:
    """Metadata of the visible tilt images, particle by particle, tilts in the order of the tomograms' star.

    ``frame``: particles with their optics columns. ``tomograms``: the tomograms' star; by default the one beside
    ``path`` whose name ends in ``tomograms.star``. Raises :class:`InputError` where it is absent or doesn't fit.
    """
    import pandas as pd

    cols.require_columns(frame, ("rlnTomoName", "rlnImageName", *_ANGLES), path)
    tomograms = _tomograms_path(path, tomograms)
    blocks = cols.read_blocks(tomograms)
    series = {str(name): _series(str(name), blocks, tomograms) for name in frame["rlnTomoName"].unique()}
    visible = _visible(frame, path, series)
    row = np.repeat(np.arange(len(frame)), [int(v.sum()) for v in visible])
    of_row = [series[name] for name in frame["rlnTomoName"]]
    tilt = torch.cat([s.rotation[v] for s, v in zip(of_row, visible, strict=True)])
    columns = pd.concat([s.table[v] for s, v in zip(of_row, visible, strict=True)], ignore_index=True)
    images = frame.drop(columns=[name for name in columns if name in frame]).iloc[row].reset_index(drop=True)
    images = pd.concat([images, columns], axis=1)
    optics, lacking = cols.optics_of(images, path)
    particle = cols.euler_rotations(frame, path, _ANGLES)
    subtomogram = _subtomogram_rotation(frame, path)
    origin = (tilt @ (subtomogram @ _origin(frame, path).unsqueeze(-1))[row])[:, :2, 0]
    stacks, stack_of_row, _ = image_names(frame["rlnImageName"], path)
    section = _sections(resolve(stacks, path.parent, datadir), stack_of_row, visible)
    return Metadata(
        path, stacks, stack_of_row[row], section, apix=cols.pixel_size(images, path), box=cols.box_of(images, path),
        optics=optics, rotation=(tilt @ (subtomogram @ particle)[row]).float(), shift=origin.float(),
        half=cols.half_sets(images), particle=row, tilt=tilt.float(), row_is_particle=True,
        premultiplied=cols.premultiplied(images, path), white=cols.is_white(images), lacking=lacking,
        files=(tomograms, *{one.path for one in series.values()}),
    )


def _tomograms_path(path: Path, tomograms: str | Path | None) -> Path:
    if tomograms is not None:
        return Path(tomograms)
    beside = sorted(path.parent.glob("*tomograms.star"))
    own = [other for other in beside if other.name.startswith(path.stem)] or beside
    if len(own) != 1:
        raise InputError(f"{path}: expected one *tomograms.star beside this tilt series' star, found {len(own)}; name "
                         "it with --tomograms (it holds the tilts' CTFs and projections)")
    return own[0]


def _series(name: str, blocks: dict, path: Path) -> _Series:
    """One tomogram's tilts: its block, or the file that RELION 5's overview of tilt series names."""
    if name not in blocks:
        overview = next((block for block in blocks.values() if "rlnTomoTiltSeriesStarFile" in block), None)
        named = {} if overview is None else dict(zip(overview["rlnTomoName"], overview["rlnTomoTiltSeriesStarFile"],
                                                     strict=True))
        if name not in named:
            raise InputError(f"{path}: expected a block for tomogram {name}, found none; give the tomograms' star of "
                             "this project")
        beside = path.parent / Path(named[name]).name
        own = next((p for p in (path.parent / named[name], beside) if p.is_file()), Path(named[name]))
        path, blocks = own, cols.read_blocks(own)
        name = name if name in blocks else next(iter(blocks))
    table = blocks[name]
    names = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ")
    absent = [column for column in (*names, "rlnDefocusU") if column not in table]
    if absent:
        raise InputError(f"{path}: expected columns of projections and CTF for tomogram {name}, found "
                         f"{', '.join(absent)} missing")
    rows = [[_row(text, path) for text in table[column]] for column in names]
    matrix = torch.from_numpy(np.array(rows)).transpose(0, 1)[:, :, :3]
    if bool((rotations.defect(matrix) > 1e-3).any()):
        raise InputError(f"{path}: expected projection matrices that rotate, found others in tomogram {name}")
    return _Series(path, table[[column for column in _CTF_COLUMNS if column in table]], rotations.nearest(matrix))


def _row(text: str, path: Path) -> list[float]:
    """One row ``[a,b,c,d]`` of a projection matrix."""
    try:
        values = [float(value) for value in text.strip("[] ").split(",")]
    except ValueError:
        values = []
    if len(values) != 4:
        raise InputError(f"{path}: expected rows [a,b,c,d] in rlnTomoProjX, Y and Z, found {text!r}")
    return values


def _visible(frame: "pd.DataFrame", path: Path, series: dict[str, _Series]) -> list[np.ndarray]:
    """For each particle a mask over its tomogram's tilts."""
    masks = []
    for index, (text, name) in enumerate(zip(frame["rlnTomoVisibleFrames"], frame["rlnTomoName"], strict=True)):
        try:
            mask = np.array(json.loads(text)) > 0
        except ValueError:
            mask = np.zeros(0, bool)
        expected = len(series[name].table)
        if mask.shape != (expected,) or not mask.any():
            raise InputError(f"{path}: expected rlnTomoVisibleFrames of {expected} flags for the tilts of {name}, "
                             f"found {text!r} in row {index + 1}; the tomograms' star is of another project")
        masks.append(mask)
    return masks


def _sections(stacks: list[Path], stack_of_row: np.ndarray, visible: list[np.ndarray]) -> np.ndarray:
    """Where each visible tilt lies in its stack: stacks hold either all tilts or the visible ones alone."""
    held = [read_header(stack).shape[0] if stack.is_file() else 0 for stack in stacks]
    parts = []
    for index, mask in enumerate(visible):
        only_visible = held[stack_of_row[index]] == mask.sum() < len(mask)
        parts.append(np.arange(mask.sum()) if only_visible else np.flatnonzero(mask))
    return np.concatenate(parts)


def _subtomogram_rotation(frame: "pd.DataFrame", path: Path) -> Tensor:
    names = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
    if all(name in frame for name in names):
        return cols.euler_rotations(frame, path, names)
    return torch.eye(3, dtype=torch.float64).expand(len(frame), 3, 3)


def _origin(frame: "pd.DataFrame", path: Path) -> Tensor:
    """3-D origins ``(N, 3)`` in Å."""
    names = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
    columns = [cols.numbers(frame, name, path) if name in frame else np.zeros(len(frame)) for name in names]
    return torch.from_numpy(np.stack(columns, 1))
