"""RELION's star files, versions 1.3 to 5: read into :class:`Metadata` and written in the style of 3.1.

Angles are degrees in files. Old files keep everything in one block, shifts in pixels and the pixel size as detector
pixel over magnification; since 3.1 what images share lies in an optics block and shifts are in Å. Tilt series of RELION
5 and WarpTools are read by :mod:`cryorecon.data.tilt_star`.
"""

import gzip
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.files import require_file
from cryorecon.data.metadata import Metadata, image_names
from cryorecon.errors import InputError
from cryorecon.geometry import rotations
from cryorecon.imaging.ctf import Optics

if TYPE_CHECKING:
    import pandas as pd

WHITE_COLUMN = "cryoreconProteinIsWhite"  # our mark in the optics block of prepared images
TILT_COLUMNS = ("cryoreconTiltRot", "cryoreconTiltTilt", "cryoreconTiltPsi")  # Euler angles of T, as we write them
_TEXT_COLUMNS = ["rlnImageName", "rlnMicrographName", "rlnGroupName", "rlnOpticsGroupName", "rlnTomoName",
                 "rlnTomoParticleName", "rlnTomoVisibleFrames"]
_M_PARTICLE = re.compile(r"\d{3}_\d{6}")  # M and tomoDRGN name a particle's tilts by one rlnGroupName of this form


def read_blocks(path: str | Path) -> dict:
    """All blocks of a star file (``.gz`` too): a frame for each loop, a dictionary for each list of values.

    Raises :class:`InputError` where there is none or a row is broken.
    """
    import starfile

    path = require_file(path, "a star file")
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    try:
        if zipped:
            with tempfile.NamedTemporaryFile(suffix=".star") as plain, gzip.open(path, "rb") as packed:
                plain.write(packed.read())
                plain.flush()
                blocks = starfile.read(plain.name, always_dict=True, parse_as_string=_TEXT_COLUMNS)
        else:
            blocks = starfile.read(path, always_dict=True, parse_as_string=_TEXT_COLUMNS)
    except (ValueError, EOFError, OSError) as error:  # pandas' parser errors are ValueErrors
        text = str(error).strip().splitlines()[-1]
        raise InputError(f"{path}: expected a star file, found one that can't be read ({text}); check its "
                         "rows") from error
    if not blocks:
        raise InputError(f"{path}: expected a star file, found no data_ block in it; check that it is one")
    return blocks


def read_star(path: str | Path, tomograms: str | Path | None = None, datadir: str | Path | None = None,
              overrides: dict[str, float] | None = None) -> Metadata:
    """Metadata of a star file's images.

    ``tomograms``: the tilt series' star, where the file is of RELION 5 or WarpTools and it can't be found beside it.
    ``datadir``: where stacks lie (only tilt series look). An optimisation set's star may be given instead of the
    particles'.
    ``overrides``: columns that get one value for all rows, present or not.
    Raises :class:`InputError` for what can't be read or understood.
    """
    path = Path(path)
    blocks = read_blocks(path)
    listed = next(iter(blocks.values()))
    if isinstance(listed, dict) and "rlnTomoParticlesFile" in listed:
        tomograms = tomograms or path.parent / Path(listed["rlnTomoTomogramsFile"]).name
        path = path.parent / Path(listed["rlnTomoParticlesFile"]).name
        blocks = read_blocks(path)
    frame = particle_frame(blocks, path).assign(**(overrides or {}))
    if "rlnTomoVisibleFrames" in frame:
        from cryorecon.data.tilt_star import read_tilt_series

        return read_tilt_series(frame, path, tomograms, datadir)
    stacks, file_index, number = _images(frame, path)
    rotation = _rotation(frame, path)
    particle, tilt = _tilts(frame, rotation, path)
    optics, lacking = optics_of(frame, path)
    shift, in_pixels = _shift(frame, path)
    return Metadata(
        path, stacks, file_index, number, apix=pixel_size(frame, path), box=box_of(frame, path), optics=optics,
        rotation=rotation, shift=None if rotation is None else shift, shift_in_pixels=in_pixels, half=half_sets(frame),
        particle=particle, tilt=tilt, premultiplied=premultiplied(frame, path), white=is_white(frame), lacking=lacking,
    )


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


def numbers(frame: "pd.DataFrame", name: str, path: Path) -> np.ndarray:
    """A column as float64 ``(N,)``. Raises :class:`InputError` where a value isn't a finite number."""
    import pandas as pd

    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, copy=True)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InputError(f"{path}: expected numbers in {name}, found {frame[name].iloc[bad[0]]!r} in row {bad[0] + 1} "
                         f"({len(bad)} such rows); correct or remove them")
    return values


def optics_of(frame: "pd.DataFrame", path: Path) -> tuple[Optics | None, tuple[str, ...]]:
    """CTF of each row, and the columns that it lacks where defocus alone is given; (None, ()) without defocus."""
    if "rlnDefocusU" not in frame:
        return None, ()
    lacking = tuple(n for n in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast") if n not in frame)
    if lacking:
        return None, lacking

    def column(name: str, default: float = 0.0) -> np.ndarray:
        return numbers(frame, name, path) if name in frame else np.full(len(frame), default)

    defocus = column("rlnDefocusU")
    return Optics.from_columns(
        len(frame), defocus_u=defocus, defocus_v=column("rlnDefocusV") if "rlnDefocusV" in frame else defocus,
        astigmatism=np.deg2rad(column("rlnDefocusAngle")), voltage=column("rlnVoltage"),
        cs=column("rlnSphericalAberration"), amplitude_contrast=column("rlnAmplitudeContrast"),
        phase_shift=np.deg2rad(column("rlnPhaseShift")), b_factor=_decay(column("rlnCtfBfactor")),
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


def is_white(frame: "pd.DataFrame") -> bool:
    """Whether our own mark says that protein is white in these images."""
    return WHITE_COLUMN in frame and bool((frame[WHITE_COLUMN].to_numpy() == 1).all())


def euler_rotations(frame: "pd.DataFrame", path: Path, names: tuple[str, str, str]) -> Tensor:
    """Rotations ``(N, 3, 3)`` float64 of three columns of Euler angles in degrees."""
    angles = np.stack([numbers(frame, name, path) for name in names], 1)
    return rotations.from_euler(torch.from_numpy(np.deg2rad(angles)))


def _decay(b_factor: np.ndarray) -> np.ndarray:
    """B-factors whose envelope falls. M and Warp write minus 4 Å^2 for each e/Å^2: where all are negative the sign is
    turned."""
    return -b_factor if b_factor.min(initial=0) < 0 and b_factor.max() <= 0 else b_factor


def _images(frame: "pd.DataFrame", path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    if "rlnImageName" not in frame:
        return [], np.zeros(len(frame), np.int32), np.arange(len(frame))
    return image_names(frame["rlnImageName"].to_numpy(dtype=object), path)


def _rotation(frame: "pd.DataFrame", path: Path) -> Tensor | None:
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    return euler_rotations(frame, path, names).float() if all(name in frame for name in names) else None


def _shift(frame: "pd.DataFrame", path: Path) -> tuple[Tensor, bool]:
    """Shifts ``(N, 2)`` and whether they are in pixels; zero where absent."""
    for names, pixels in ((("rlnOriginXAngst", "rlnOriginYAngst"), False), (("rlnOriginX", "rlnOriginY"), True)):
        if all(name in frame for name in names):
            return torch.from_numpy(np.stack([numbers(frame, name, path) for name in names], 1)).float(), pixels
    return torch.zeros(len(frame), 2), False


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


def _tilts(frame: "pd.DataFrame", rotation: Tensor | None, path: Path) -> tuple[np.ndarray | None, Tensor | None]:
    """Particle ids and tilts of a star with a row for each tilt image, as M, tomoDRGN and we write it; (None, None)
    else.

    Where tilts aren't given, the particle's rotation is that of its first image, so that ``T = R_image R_first^T``.
    """
    import pandas as pd

    if "rlnTomoParticleName" in frame:
        key = frame["rlnTomoParticleName"]
    elif "rlnGroupName" in frame and all(map(_M_PARTICLE.fullmatch, pd.unique(frame["rlnGroupName"]).tolist())):
        stack = frame["rlnImageName"].str.partition("@")[2] if "rlnImageName" in frame else ""
        key = frame["rlnGroupName"] + "|" + stack
    else:
        return None, None
    ids, _ = pd.factorize(key)
    if len(np.unique(ids)) == len(ids):
        return None, None
    if all(name in frame for name in TILT_COLUMNS):
        return ids, euler_rotations(frame, path, TILT_COLUMNS).float()
    if rotation is None:
        return ids, None
    _, first = np.unique(ids, return_index=True)
    exact = rotation.double()
    return ids, (exact @ exact[first[ids]].transpose(-1, -2)).float()
