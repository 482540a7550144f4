"""RELION's star files, versions 1.3 to 5, read into :class:`Metadata`.

Tilt series with a row for each particle (RELION 5, WarpTools) are read by :mod:`cryorecon.data.tilt_star`; those with a
row for each tilt image (M, tomoDRGN) here. :mod:`cryorecon.data.star_write` writes.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryorecon.data import star_columns as cols
from cryorecon.data.metadata import Metadata, image_names
from cryorecon.data.tilt_star import read_tilt_series

if TYPE_CHECKING:
    import pandas as pd

_M_PARTICLE = re.compile(r"\d{3}_\d{6}")  # M and tomoDRGN name a particle's tilts by one rlnGroupName of this form


def read_star(path: str | Path, tomograms: str | Path | None = None, datadir: str | Path | None = None,
              overrides: dict[str, float] | None = None) -> Metadata:
    """Metadata of a star file's images.

    ``tomograms``: the tilt series' star, where the file is of RELION 5 or WarpTools and it can't be found beside it.
    ``datadir``: where stacks lie (only tilt series look). ``overrides``: columns that get one value for all rows,
    present or not. An optimisation set's star may be given instead of the particles'.

    Raises :class:`InputError` for what can't be read or understood.
    """
    path = Path(path)
    blocks = cols.read_blocks(path)
    listed = next(iter(blocks.values()))
    if isinstance(listed, dict) and "rlnTomoParticlesFile" in listed:
        if tomograms is None and "rlnTomoTomogramsFile" in listed:
            tomograms = path.parent / Path(listed["rlnTomoTomogramsFile"]).name
        path = path.parent / Path(listed["rlnTomoParticlesFile"]).name
        blocks = cols.read_blocks(path)
    frame = cols.particle_frame(blocks, path).assign(**(overrides or {}))
    cols.require_flat_images(frame, path)
    if "rlnTomoVisibleFrames" in frame:
        return read_tilt_series(frame, path, tomograms, datadir)
    stacks, file_index, number = _images(frame, path)
    rotation = _rotation(frame, path)
    particle, tilt = _tilts(frame, rotation, path)
    micrograph = cols.micrographs(frame)
    frame = frame.drop(columns=["rlnImageName", "rlnMicrographName"], errors="ignore")  # words take half of all room
    del blocks
    optics, lacking = cols.optics_of(frame, path)
    shift, in_pixels = _shift(frame, path)
    return Metadata(
        path, stacks, file_index, number, apix=cols.pixel_size(frame, path), box=cols.box_of(frame, path),
        optics=optics, rotation=rotation, shift=None if rotation is None else shift, shift_in_pixels=in_pixels,
        half=cols.half_sets(frame), particle=particle, tilt=tilt, premultiplied=cols.premultiplied(frame, path),
        white=cols.is_white(frame), lacking=lacking, micrograph=micrograph,
    )


def _images(frame: "pd.DataFrame", path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    if "rlnImageName" not in frame:
        return [], np.zeros(len(frame), np.int32), np.arange(len(frame))
    return image_names(frame["rlnImageName"], path)


def _rotation(frame: "pd.DataFrame", path: Path) -> Tensor | None:
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    return cols.euler_rotations(frame, path, names).float() if all(name in frame for name in names) else None


def _shift(frame: "pd.DataFrame", path: Path) -> tuple[Tensor, bool]:
    """Shifts ``(N, 2)`` and whether they are in pixels; zero where absent."""
    for names, pixels in ((("rlnOriginXAngst", "rlnOriginYAngst"), False), (("rlnOriginX", "rlnOriginY"), True)):
        if all(name in frame for name in names):
            return torch.from_numpy(np.stack([cols.numbers(frame, name, path) for name in names], 1)).float(), pixels
    return torch.zeros(len(frame), 2), False


def _tilts(frame: "pd.DataFrame", rotation: Tensor | None, path: Path) -> tuple[np.ndarray | None, Tensor | None]:
    """Particle ids and tilts of a star with a row for each tilt image (M, tomoDRGN, ours); (None, None) else.

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
    if all(name in frame for name in cols.TILT_COLUMNS):
        return ids, cols.euler_rotations(frame, path, cols.TILT_COLUMNS).float()
    if rotation is None:
        return ids, None
    _, first = np.unique(ids, return_index=True)
    exact = rotation.double()
    return ids, (exact @ exact[first[ids]].transpose(-1, -2)).float()
