"""What a star or cs file says about its images, in one form for both."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.poses import ROWS, Poses
from cryorecon.data.source import FileSource
from cryorecon.data.star_text import numbers_of
from cryorecon.errors import InputError
from cryorecon.imaging.ctf import Optics

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Metadata:
    """Metadata of N images; a field is None where the file doesn't have it.

    path: the file. stacks: names of image stacks as written. file_index, frame: ``(N,)``, which of them, which section
    (from 0). apix: ``(N,)`` Å/px. box: pixels. optics: CTF. rotation: ``(N, 3, 3)``, the image's whole rotation. shift:
    ``(N, 2)`` in Å, or in pixels of ``apix`` where ``shift_in_pixels``. half: ``(N,)`` in {1, 2}. particle: ``(N,)``
    ids. tilt: ``(N, 3, 3)``. row_is_particle: a row of the file is a particle with all its tilts, not an image.
    premultiplied: the images have been multiplied by their CTF. white: the file says that protein is white and no
    factor is due (our own mark). lacking: CTF columns that a file with defocus lacks. micrograph: ``(N,)`` names.
    files: further files that were read.
    """

    path: Path
    stacks: list[str]
    file_index: np.ndarray
    frame: np.ndarray
    apix: np.ndarray | None = None
    box: int | None = None
    optics: Optics | None = None
    rotation: Tensor | None = None
    shift: Tensor | None = None
    shift_in_pixels: bool = False
    half: np.ndarray | None = None
    particle: np.ndarray | None = None
    tilt: Tensor | None = None
    row_is_particle: bool = False
    premultiplied: bool = False
    white: bool = False
    lacking: tuple[str, ...] = ()
    micrograph: np.ndarray | None = None
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def n_rows(self) -> int:
        """Rows of the file: images, or particles where each row is a tilt series."""
        return len(np.unique(self.particle)) if self.row_is_particle and self.particle is not None else len(self)

    def images_of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Positions of the images of these rows, in their order."""
        if not self.row_is_particle or self.particle is None:
            return rows
        start = np.searchsorted(self.particle, rows)
        stop = np.searchsorted(self.particle, rows, side="right")
        return np.concatenate([np.arange(a, b) for a, b in zip(start, stop, strict=True)])

    def select(self, images: np.ndarray) -> "Metadata":
        """Metadata of these images alone, in this order; stacks that none of them is in are dropped."""
        used, file_index = np.unique(self.file_index[images], return_inverse=True)
        where = torch.from_numpy(images)
        return replace(
            self, stacks=[self.stacks[i] for i in used] if self.stacks else [], file_index=file_index.astype(np.int32),
            frame=self.frame[images], apix=None if self.apix is None else self.apix[images],
            optics=None if self.optics is None else self.optics[where],
            rotation=None if self.rotation is None else self.rotation[where],
            shift=None if self.shift is None else self.shift[where],
            half=None if self.half is None else self.half[images],
            particle=None if self.particle is None else self.particle[images],
            tilt=None if self.tilt is None else self.tilt[where],
            micrograph=None if self.micrograph is None else self.micrograph[images],
        )

    def poses(self, apix: float | Tensor) -> Poses | None:
        """Checked poses, shifts in pixels turned into Å by ``apix``, one for all or ``(N,)``; None where the file has no
        rotations."""
        if self.rotation is None or self.shift is None:
            return None
        factor = torch.as_tensor(apix, dtype=torch.float64).reshape(-1, 1) if self.shift_in_pixels else 1.0
        return Poses.checked(self.rotation, self.shift * factor, str(self.path))

    def repeats(self) -> str | None:
        """Images that more than one row names, in a line; None where each is named once."""
        if not self.stacks:
            return None
        stack = np.unique(self.stacks, return_inverse=True)[1][self.file_index]
        order = np.lexsort((self.frame, stack))  # stable: of copies the first row stays first
        again = order[1:][(np.diff(stack[order]) == 0) & (np.diff(self.frame[order]) == 0)]
        if len(again) == 0:
            return None
        return (f"{self.path}: expected each image once, found {len(again):,} of {len(self):,} rows that name one again, the "
                f"first row {again.min() + 1}: such an image counts twice, and copies in both half sets make resolutions too "
                "good; leave them out (filter --ind), unless they are there on purpose, for symmetry say")

    def open(self, datadir: str | Path | None = None) -> FileSource:
        """The images. Raises :class:`InputError` as :meth:`FileSource.open` does."""
        if not self.stacks:
            raise InputError(f"{self.path}: expected a column that names the images, found none; give the stack itself")
        return FileSource.open(resolve(self.stacks, self.path.parent, datadir), self.file_index, self.frame)


def resolve(names: list[str], folder: Path, datadir: str | Path | None) -> list[Path]:
    """Where stacks lie: in ``datadir`` (under the whole name or its last part) where given; else as named, beside the
    list, or above it (RELION names paths from the project's folder). What finds the first stack is tried first for all.
    """

    def candidates(name: str) -> list[Path]:
        if datadir is not None:
            return [Path(datadir) / name, Path(datadir) / Path(name).name]
        above = [parent / name for parent in folder.absolute().parents][:4]
        return [folder / name, Path(name), *above, folder / Path(name).name]

    if not names:
        return []
    rule = next((i for i, path in enumerate(candidates(names[0])) if path.is_file()), 0)
    places = [candidates(name)[rule] for name in names]
    return [place if place.is_file() else next((other for other in candidates(name) if other.is_file()), place)
            for name, place in zip(names, places, strict=True)]


def image_names(column: "pd.Series", path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Split ``000001@stack.mrcs`` (counted from 1) or ``stack.mrcs`` into stacks, ``file_index`` and ``frame`` (from
    0).

    Raises :class:`InputError` where a number is none.
    """
    import pandas as pd

    known: dict[str, int] = {}
    file_index, frame = np.empty(len(column), np.int32), np.empty(len(column), np.int64)
    for start in range(0, len(column), ROWS):  # words take ten times the room of the numbers that they become
        rows = slice(start, min(start + ROWS, len(column)))
        parts = column.iloc[rows].astype("str").str.partition("@")
        numbered = parts[1] == "@"
        number = numbers_of(parts[0].where(numbered, "1"))
        bad = np.flatnonzero(~((number >= 1) & (number < 1 << 53)))
        if len(bad):
            row = start + int(bad[0])
            raise InputError(f"{path}: expected image names such as 000001@stack.mrcs, found {column.iloc[row]!r} in row "
                             f"{row + 1}")
        codes, names = pd.factorize(parts[2].where(numbered, parts[0]))
        file_index[rows] = np.array([known.setdefault(str(name), len(known)) for name in names], np.int32)[codes]
        frame[rows] = number.astype(np.int64) - 1
    return list(known), file_index, frame
