"""Windows of empty ice in micrographs, as CryoGAN picks them: those whose blurred picture varies least.

Micrographs are read one at a time. Windows stay away from every particle of the star, and from each other while there is
room.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cryorecon.data import star_columns as cols
from cryorecon.data.load import read_metadata
from cryorecon.data.metadata import resolve
from cryorecon.data.mrc import read_density
from cryorecon.data.pixel_size import APIX_TOLERANCE
from cryorecon.data.quality import chunk_size
from cryorecon.data.source import FileSource
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError
from cryorecon.geometry.fourier import resample

BLUR = 20.0  # px of the micrograph: what is finer is noise, what is coarser are particles, dirt and carbon
STEPS = 8  # places tried along a window's side
DEAD = 0.1  # of the median variance of a step's pixels: below is no ice, but a frame or what was painted over
GAPS = (1.0, 0.5, 0.25)  # window sides between neighbours, smaller where there is no more room
COMPARED, COMPARED_BOX = 32, 32  # particles that say a micrograph's contrast; px that they are compared at
ALIKE = 0.2  # least correlation between a particle's image and its place in the micrograph


@dataclass(frozen=True)
class Picks:
    """Where in the micrographs a star's particles are: each row's micrograph ``(N,)`` and place ``(N, 2)`` (x, y) in its
    pixels, the micrographs' Å/px (None: not said), and the rows' raw images."""

    path: Path
    micrograph: np.ndarray
    place: np.ndarray
    apix: float | None
    source: FileSource


def read_picks(path: str | Path, datadir: str | Path | None = None) -> Picks:
    """Of a star file. Raises :class:`InputError` for other files and without rlnMicrographName, rlnCoordinateX, Y."""
    meta = read_metadata(path, datadir=datadir)
    if ".star" not in meta.path.suffixes[-2:]:
        raise InputError(f"{path}: expected a star that says where in the micrographs particles are, found "
                         f"{meta.path.suffix}; give one, or --background corners")
    frame = cols.particle_frame(cols.read_blocks(meta.path), meta.path)
    names = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")
    cols.require_columns(frame, names, meta.path)
    place = np.stack([cols.numbers(frame, name, meta.path) for name in names[1:]], 1)
    sizes = [cols.numbers(frame, name, meta.path) for name in ("rlnMicrographOriginalPixelSize", "rlnMicrographPixelSize")
             if name in frame]
    return Picks(meta.path, frame[names[0]].astype(str).to_numpy(), place, float(sizes[0][0]) if sizes else None,
                 meta.open(datadir))


def locate(picks: Picks, folder: str | Path) -> dict[str, Path]:
    """Each micrograph's file in ``folder``, under its whole name or the last part. Raises :class:`InputError` where one is
    absent."""
    names = [str(name) for name in np.unique(picks.micrograph)]
    found = dict(zip(names, resolve(names, picks.path.parent, folder), strict=True))
    absent = [path for path in found.values() if not path.is_file()]
    if absent:
        raise InputError(f"{absent[0]}: expected a micrograph, found no such file ({len(absent)} of {len(found)} are absent); "
                         "give their folder to --background")
    return found


def micrograph_patches(stack: ParticleStack, picks: Picks, files: dict[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """The micrograph's name and windows ``(m, S, S)`` of it, at most as many as the stack has particles of it, in the
    particles' extent and contrast.

    The contrast is told by the particles' own images: that of the micrograph at their places, or its negative. Raises
    :class:`InputError` for micrographs that are not theirs, see :func:`read_micrograph`.
    """
    if stack.micrograph is None:
        raise InputError(f"{picks.path}: expected particles of named micrographs, found a tilt series; leave --background out")
    for name in np.unique(stack.micrograph):
        picture, apix = read_micrograph(files[name])
        if apix and picks.apix and abs(apix / picks.apix - 1) > APIX_TOLERANCE:
            raise InputError(f"{files[name]}: expected a micrograph of {picks.apix:g} Å/px as in the star, found {apix:g}")
        side = window_side(stack, picks.apix or apix or stack.apix, files[name])
        here = np.flatnonzero(picks.micrograph == name)
        starts = np.floor(picks.place[here]).astype(int)[:, ::-1] - side // 2
        sign = stack.sign * _contrast(picture, starts, side, picks.source.select(here), files[name])
        wanted = int((stack.micrograph == name).sum()) if sign else 0
        found = empty_windows(picture, starts, side, wanted)
        for i in range(0, len(found), chunk_size(side)):
            yield str(name), sign * cut(picture, found[i : i + chunk_size(side)], side)


def read_micrograph(path: Path) -> tuple[np.ndarray, float]:
    """A micrograph ``(height, width)`` float32 and its Å/px (0: the file doesn't say). Raises :class:`InputError` for a movie
    and for NaN or constant values."""
    array, apix = read_density(path)
    if len(array) != 1:
        raise InputError(f"{path}: expected a micrograph, found {len(array)} frames or slices; give the aligned sums")
    low, high = array.min(), array.max()
    if not np.isfinite(low + high) or low == high:
        raise InputError(f"{path}: expected a micrograph, found {'constant' if low == high else 'NaN or infinite'} values; "
                         "leave its particles out by --ind, or correct it")
    return array[0], 0.0 if abs(apix - 1) < 1e-6 else apix  # programs that don't know write 1


def window_side(stack: ParticleStack, apix: float, path: Path) -> int:
    """Pixels of a micrograph of ``apix`` Å that a particle's box is wide. Raises :class:`InputError` where it is no whole
    number of them."""
    exact = stack.box * stack.apix / apix
    if abs(exact / round(exact) - 1) > APIX_TOLERANCE or round(exact) < stack.box:
        raise InputError(f"{path}: expected the images' {stack.box} px of {stack.apix:g} Å to be cut from it, found "
                         f"{apix:g} Å/px, which makes {exact:.5g} px; is rlnMicrographOriginalPixelSize right?")
    return round(exact)


def empty_windows(picture: np.ndarray, particles: np.ndarray, side: int, n: int) -> np.ndarray:
    """Where at most n windows of ``side`` px begin, ``(m, 2)`` (y, x): of least variance after a blur, wholly inside, and
    outside the circles inscribed in the particles' boxes, which begin at ``(p, 2)`` (y, x)."""
    step = max(1, side // STEPS)
    across = side // step
    varies = _variance(_windows(_moments(gaussian_filter(picture, BLUR), step), across).mean((3, 4)))
    bare = _variance(_moments(picture, step))
    dullest = _windows(bare, across).min((2, 3))
    start = step * np.stack(np.meshgrid(*map(np.arange, varies.shape), indexing="ij"), -1).reshape(-1, 2)
    free = (dullest > DEAD * np.median(bare)).ravel() & (start + side <= picture.shape).all(1)
    for begin in particles:
        beside = np.maximum(np.abs(start - begin) - side / 2, 0)  # from the circle's centre to the window
        free &= np.hypot(*beside.T) >= side / 2
    order, chosen = varies.ravel(), np.zeros((0, 2), int)
    for gap in GAPS:
        apart = free.copy()
        for taken in chosen:
            apart &= _beyond(start, taken, gap * side)
        while len(chosen) < n and apart.any():
            best = start[np.where(apart, order, np.inf).argmin()]
            chosen = np.concatenate([chosen, best[None]])
            apart &= _beyond(start, best, gap * side)
    return chosen


def cut(picture: np.ndarray, starts: np.ndarray, side: int) -> Tensor:
    """Windows ``(m, side, side)`` that begin at ``(m, 2)`` (y, x)."""
    out = np.empty((len(starts), side, side), np.float32)
    for window, (y, x) in zip(out, starts, strict=True):
        window[:] = picture[y : y + side, x : x + side]
    return torch.from_numpy(out)


def _beyond(starts: np.ndarray, other: np.ndarray, gap: float) -> np.ndarray:
    return np.abs(starts - other).max(1) >= gap


def _moments(picture: np.ndarray, step: int) -> np.ndarray:
    """Mean and mean square ``(2, height // step, width // step)`` of blocks of ``step`` px."""
    height, width = (length // step for length in picture.shape)
    blocks = (picture - picture.mean())[: height * step, : width * step].reshape(height, step, width, step)
    return np.stack([power.mean((1, 3), dtype=np.float64) for power in (blocks, np.square(blocks))])


def _windows(blocks: np.ndarray, across: int) -> np.ndarray:
    """Squares of so many blocks, ``(..., height, width, across, across)``."""
    return sliding_window_view(blocks, (across, across), axis=(-2, -1))


def _variance(moments: np.ndarray) -> np.ndarray:
    return moments[1] - moments[0] ** 2


def _contrast(picture: np.ndarray, starts: np.ndarray, side: int, source: FileSource, path: Path) -> int:
    """The factor that makes the micrograph of the contrast of ``source``, the raw images of its particles, which begin at
    ``(p, 2)``; 0 where none of them lies wholly inside. Raises :class:`InputError` where they are not of this micrograph."""
    centre = starts + side // 2
    if (centre < 0).any() or (centre >= picture.shape).any():
        height, width = picture.shape
        wrong = centre[((centre < 0) | (centre >= picture.shape)).any(1)][0]
        raise InputError(f"{path}: expected a micrograph that holds its particles, found {width} x {height} px and one at "
                         f"x {wrong[1]}, y {wrong[0]}; is it another version of it, or binned?")
    inside = np.flatnonzero((starts >= 0).all(1) & (starts + side <= picture.shape).all(1))[:COMPARED]
    if not len(inside):
        return 0
    box = min(COMPARED_BOX, source.box // 2 * 2)
    pair = [resample(images, box, 2).flatten(1) for images in
            (cut(picture, starts[inside], side), torch.from_numpy(source.read(inside)))]
    a, b = (images - images.mean(1, keepdim=True) for images in pair)
    alike = float(torch.nn.functional.cosine_similarity(a, b).mean())
    if abs(alike) < ALIKE:
        raise InputError(f"{path}: expected a micrograph that its particles were cut from, found images that are not like "
                         f"their places in it (correlation {alike:.2f}); are rlnCoordinateX and Y of this micrograph?")
    return 1 if alike > 0 else -1
