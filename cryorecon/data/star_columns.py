"""A star file's blocks and what its columns mean, in the package's units.

Angles are degrees in files. Old files (RELION 1.3 to 3.0) keep everything in one block, with the pixel size as detector
pixel over magnification; since 3.1 what images share lies in an optics block.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryorecon.data import star_text
from cryorecon.data.files import is_gzip, require_file, unpack
from cryorecon.data.poses import ROWS
from cryorecon.errors import InputError
from cryorecon.geometry import rotations
from cryorecon.imaging.ctf import Optics

if TYPE_CHECKING:
    import pandas as pd

WHITE_COLUMN = "cryoreconProteinIsWhite"  # our mark in the optics block of prepared images
TILT_COLUMNS = ("cryoreconTiltRot", "cryoreconTiltTilt", "cryoreconTiltPsi")  # Euler angles of T, as we write them
_TEXT_COLUMNS = ["rlnImageName", "rlnMicrographName", "rlnGroupName", "rlnOpticsGroupName", "rlnTomoName",
                 "rlnTomoParticleName", "rlnTomoVisibleFrames"]


def read_blocks(path: str | Path) -> dict:
    """All blocks of a star file (``.gz`` too): a frame for each loop, a dictionary for each list of values.

    Raises :class:`InputError` where there is none or a row is broken.
    """
    path = require_file(path, "a star file")
    raw = io.BytesIO(unpack(path)) if is_gzip(path) else path.open("rb")
    try:
        with io.TextIOWrapper(raw, encoding="utf-8-sig") as lines:
            blocks = star_text.parse(lines, _TEXT_COLUMNS)
    except (ValueError, OverflowError) as error:  # pandas' parser errors are ValueErrors
        text = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(f"{path}: expected a star file, found one that can't be read ({text}); check its "
                         "rows") from error
    if not blocks:
        raise InputError(f"{path}: expected a star file, found no data_ block in it; check that it is one")
    return blocks


def particle_block(blocks: dict, path: Path) -> str:
    """Name of the block that lists the particles. Raises :class:`InputError` where there is none."""
    import pandas as pd

    frames = {name: block for name, block in blocks.items() if isinstance(block, pd.DataFrame) and name != "optics"}
    known = [name for name in ("particles", "images", "") if name in frames]
    named = known or [name for name, block in frames.items() if "rlnImageName" in block or "rlnAngleRot" in block]
    if not named or not len(frames[named[0]]):
        raise InputError(f"{path}: expected a block of particles, found "
                         f"{', '.join(map(repr, [*blocks][:5])) or 'none'}; give the star that lists the particles")
    return named[0]


def particle_frame(blocks: dict, path: Path) -> "pd.DataFrame":
    """The particles' frame with the columns of their optics groups joined in (particles' own columns win)."""
    import pandas as pd

    frame = blocks[particle_block(blocks, path)]
    if "optics" not in blocks:
        return frame
    optics = blocks["optics"]
    optics = pd.DataFrame([optics]) if isinstance(optics, dict) else optics
    if "rlnOpticsGroup" not in optics or "rlnOpticsGroup" not in frame:
        raise InputError(f"{path}: expected a column rlnOpticsGroup in the optics and particle blocks, found it "
                         "missing")
    where = pd.Index(optics["rlnOpticsGroup"]).get_indexer(frame["rlnOpticsGroup"])
    if (where < 0).any():
        group = frame["rlnOpticsGroup"].iloc[int(np.flatnonzero(where < 0)[0])]
        raise InputError(f"{path}: expected every particle's optics group in the optics block, found group {group} "
                         "undefined")
    extra = {name: optics[name].to_numpy()[where] for name in optics.columns if name not in frame}
    return pd.concat([frame, pd.DataFrame(extra, index=frame.index)], axis=1)


def require_columns(frame: "pd.DataFrame", names: tuple[str, ...], path: Path) -> None:
    """Raise :class:`InputError` unless all these columns are there."""
    absent = [name for name in names if name not in frame]
    if absent:
        raise InputError(f"{path}: expected columns {', '.join(names)}, found {', '.join(absent)} missing; give the "
                         "whole star file")


def require_flat_images(frame: "pd.DataFrame", path: Path) -> None:
    """Raise :class:`InputError` for 3-D subtomograms."""
    if "rlnImageDimensionality" in frame and (numbers(frame, "rlnImageDimensionality", path) == 3).any():
        raise InputError(f"{path}: expected 2-D images, found 3-D subtomograms (rlnImageDimensionality 3); extract the "
                         "particles as 2-D stacks (RELION 5, WarpTools)")


def numbers(frame: "pd.DataFrame", name: str, path: Path) -> np.ndarray:
    """A column as float64 ``(N,)``. Raises :class:`InputError` where a value isn't a finite number."""
    values = star_text.numbers_of(frame[name])
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InputError(f"{path}: expected numbers in {name}, found {frame[name].iloc[bad[0]]!r:.60} in row {bad[0] + 1} "
                         f"({len(bad)} such rows); correct or remove them")
    return values


def optics_of(frame: "pd.DataFrame", path: Path) -> tuple[Optics | None, tuple[str, ...]]:
    """CTF of each row, and the columns that it lacks where defocus alone is given; (None, ()) without defocus."""
    if "rlnDefocusU" not in frame:
        return None, ()
    lacking = tuple(n for n in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast") if n not in frame)
    if lacking:
        return None, lacking

    def column(name: str, default: float = 0.0, made: Callable[[Tensor], Tensor] = lambda values: values) -> Tensor | float:
        """What is ``made`` of a column, of half the bytes at once: all nine are held together."""
        return made(torch.from_numpy(numbers(frame, name, path))).float() if name in frame else default

    defocus = column("rlnDefocusU")
    return Optics.from_columns(
        len(frame), defocus_u=defocus, defocus_v=column("rlnDefocusV") if "rlnDefocusV" in frame else defocus,
        astigmatism=column("rlnDefocusAngle", made=torch.deg2rad), voltage=column("rlnVoltage"),
        cs=column("rlnSphericalAberration"), amplitude_contrast=column("rlnAmplitudeContrast"),
        phase_shift=column("rlnPhaseShift", made=torch.deg2rad), b_factor=column("rlnCtfBfactor", made=_decay),
        scale=column("rlnCtfScalefactor", 1.0),
    ), ()


def half_sets(frame: "pd.DataFrame") -> np.ndarray | None:
    """``rlnRandomSubset`` as ``(N,)`` in {1, 2}; None where absent or something else."""
    if "rlnRandomSubset" not in frame:
        return None
    values = frame["rlnRandomSubset"].to_numpy()
    return values.astype(np.int64) if np.isin(values, (1, 2)).all() else None


def premultiplied(frame: "pd.DataFrame", path: Path) -> bool:
    """Whether the images are multiplied by their CTF; :class:`InputError` where only some are."""
    if "rlnCtfDataAreCtfPremultiplied" not in frame:
        return False
    values = numbers(frame, "rlnCtfDataAreCtfPremultiplied", path) > 0
    if values.any() != values.all():
        raise InputError(f"{path}: expected all images CTF-premultiplied or none, found {values.sum()} of "
                         f"{len(values)}; use one kind of optics group at a time")
    return bool(values.all())


def micrographs(frame: "pd.DataFrame") -> np.ndarray | None:
    """``rlnMicrographName`` as ``(N,)`` objects, one string for each micrograph; None where absent."""
    import pandas as pd

    if "rlnMicrographName" not in frame:
        return None
    codes, names = pd.factorize(frame["rlnMicrographName"].astype(str))
    return names.to_numpy(dtype=object)[codes]


def is_white(frame: "pd.DataFrame") -> bool:
    """Whether our own mark says that protein is white in these images."""
    return WHITE_COLUMN in frame and bool((frame[WHITE_COLUMN].to_numpy() == 1).all())


def euler_rotations(frame: "pd.DataFrame", path: Path, names: tuple[str, str, str]) -> Tensor:
    """Rotations ``(N, 3, 3)`` float64 of three columns of Euler angles in degrees."""
    angles = torch.from_numpy(np.deg2rad(np.stack([numbers(frame, name, path) for name in names], 1)))
    rotation = torch.empty(len(angles), 3, 3, dtype=torch.float64)
    for some, angle in zip(rotation.split(ROWS), angles.split(ROWS), strict=True):
        some.copy_(rotations.from_euler(angle))
    return rotation


def pixel_size(frame: "pd.DataFrame", path: Path) -> np.ndarray | None:
    """Å/px ``(N,)``: the optics group's, else detector pixel over magnification (10,000 where only the former is
    given)."""
    for name in ("rlnImagePixelSize", "rlnPixelSize"):
        if name in frame:
            return numbers(frame, name, path)
    if "rlnDetectorPixelSize" not in frame:
        return None
    magnification = numbers(frame, "rlnMagnification", path) if "rlnMagnification" in frame else 1e4
    return numbers(frame, "rlnDetectorPixelSize", path) * 1e4 / magnification


def box_of(frame: "pd.DataFrame", path: Path) -> int | None:
    """``rlnImageSize``; None where absent, :class:`InputError` where optics groups differ."""
    if "rlnImageSize" not in frame:
        return None
    sizes = np.unique(numbers(frame, "rlnImageSize", path))
    if len(sizes) > 1:
        raise InputError(f"{path}: expected one image size, found {', '.join(f'{s:g}' for s in sizes)} px in its "
                         "optics groups; bring them to one box first (relion_image_handler or cryorecon preprocess on "
                         "each group)")
    return int(sizes[0])


def _decay(b_factor: Tensor) -> Tensor:
    """B-factors whose envelope falls. M and Warp write minus 4 Å^2 for each e/Å^2: where all are negative the sign is
    turned."""
    return -b_factor if bool((b_factor < 0).any()) and bool((b_factor <= 0).all()) else b_factor
