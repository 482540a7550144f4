"""Files made from files: poses and CTF out of star and cs, smaller boxes, chosen rows."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cryorecon.data import mrc, star_columns
from cryorecon.data.arrays import read_array, write_array
from cryorecon.data.cryodrgn_files import as_array, write_ctf, write_poses
from cryorecon.data.cs import read_table
from cryorecon.data.files import atomic_path, free_space, refuse_input
from cryorecon.data.load import read_metadata
from cryorecon.data.metadata import Metadata, resolve
from cryorecon.data.poses import Poses
from cryorecon.data.preprocess import fourier_crop
from cryorecon.data.quality import chunk_size
from cryorecon.data.safe_pickle import dump_pickles, load_pickles
from cryorecon.data.source import FileSource
from cryorecon.data.star_write import write_blocks
from cryorecon.errors import InputError
from cryorecon.geometry.fourier import resample
from cryorecon.imaging.ctf import Optics


def box_and_apix(meta: Metadata, box: int | None, apix: float | None) -> tuple[int, Tensor | None]:
    """Box and Å/px, ``(1,)`` or ``(N,)``, of a star or cs file's images, given ones first. Raises :class:`InputError` where
    no box is known."""
    box = box or meta.box
    if box is None:
        raise InputError(f"{meta.path}: expected the images' box in the file (rlnImageSize, blob/shape), found none; "
                         "give -D")
    if apix:
        return box, torch.tensor([apix], dtype=torch.float64)
    return box, None if meta.apix is None else torch.from_numpy(meta.apix)


def convert_poses(meta: Metadata, out: str | Path, box: int | None = None, apix: float | None = None) -> Poses:
    """Write the poses of a star or cs file as ``.pkl`` (cryoDRGN) or ``.npy`` and return them. Raises
    :class:`InputError`."""
    refuse_input(out, [meta.path, *meta.files])
    side, pixel = box_and_apix(meta, box, apix)
    if pixel is None:
        if not meta.shift_in_pixels and meta.shift is not None and bool((meta.shift != 0).any()):
            raise InputError(f"{meta.path}: expected a pixel size to turn shifts in Å into fractions of the box, found "
                             "none; give --Apix")
        pixel = torch.ones(1)  # shifts in pixels need none
    poses = meta.poses(pixel)
    if poses is None:
        raise InputError(f"{meta.path}: expected poses, found no rotations in it (rlnAngleRot, Tilt, Psi or "
                         "alignments3D/pose)")
    write_poses(out, poses, side, pixel)
    return poses


def convert_ctf(meta: Metadata, out: str | Path, box: int | None = None, apix: float | None = None) -> Optics:
    """Write the CTF of a star or cs file as ``.pkl`` (cryoDRGN) or ``.npy`` and return it.

    Raises :class:`InputError` where something is missing.
    """
    refuse_input(out, [meta.path, *meta.files])
    side, pixel = box_and_apix(meta, box, apix)
    if pixel is None:
        raise InputError(f"{meta.path}: expected a pixel size, found none; give --Apix")
    if meta.optics is None:
        advice = ("is it in the job's passthrough file?" if Path(meta.path).suffix == ".cs" else
                  "give what is one value for all by --kv, --cs, -w or --ps")
        raise InputError(f"{meta.path}: expected a whole CTF, found {', '.join(meta.lacking) or 'the defocus'} "
                         f"missing; {advice}")
    write_ctf(out, meta.optics, side, pixel)
    return meta.optics


def downsample_volume(path: str | Path, out: str | Path, box: int) -> None:
    """Fourier-crop a cubic map to ``box``; its pixel size grows accordingly. Raises :class:`InputError`."""
    array, apix = mrc.read_volume(path)
    _check_smaller(path, array.shape[0], box)
    refuse_input(out, [path])
    cropped = resample(torch.from_numpy(array), box, 3).numpy()
    mrc.write_volume(out, cropped, apix * array.shape[0] / box)


def downsample_stack(path: str | Path, out: str | Path, box: int, *, chunk: int | None = None,
                     datadir: str | Path | None = None, apix: float | None = None,
                     progress: bool = False) -> list[Path]:
    """Fourier-crop a stack's images to an even ``box`` as they are, and return the stacks written.

    ``chunk``: images to a stack; ``out.0.mrcs``, ``out.1.mrcs``, … and a list ``out.txt``. Raises :class:`InputError`.
    """
    meta = read_metadata(path, datadir=datadir)
    source = meta.open(datadir)
    _check_smaller(path, source.box, box)
    stated = source.headers[0].apix if meta.apix is None else float(np.median(meta.apix))
    pixel = (apix or stated) * source.box / box
    out = Path(out)
    pieces = [(out, range(len(source)))]
    if chunk is not None:
        starts = range(0, len(source), chunk)
        pieces = [(out.with_suffix(f".{i}.mrcs"), range(s, min(s + chunk, len(source)))) for i, s in enumerate(starts)]
    listed = [] if chunk is None else [out.with_suffix(".txt")]
    for name in [name for name, _ in pieces] + listed:
        refuse_input(name, [path, meta.path, *meta.files, *(header.path for header in source.headers)])
    free_space(out, len(source) * (box * box * 4) + mrc.HEADER_BYTES)
    for name in listed:
        name.unlink(missing_ok=True)  # written last: where it is, all its stacks are
    with tqdm(total=len(source), unit="img", disable=None if progress else True) as bar:
        for name, where in pieces:
            with mrc.StackWriter(name, box, pixel) as writer:
                for start in range(where.start, where.stop, chunk_size(source.box)):
                    part = np.arange(start, min(start + chunk_size(source.box), where.stop))
                    writer.append(fourier_crop(torch.from_numpy(source.read(part)), box).numpy())
                    bar.update(len(part))
    for name in listed:
        with atomic_path(name) as temporary:
            temporary.write_text("".join(f"{name.name}\n" for name, _ in pieces))
    return [name for name, _ in pieces]


def filter_rows(path: str | Path, rows: np.ndarray, out: str | Path) -> None:
    """Keep rows of a star, cs, pickle, npy or stack, in the order given, all else as it is; the ending says which.

    Raises :class:`InputError` where endings differ or a row is out of range.
    """
    path, out = Path(path), Path(out)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if out.suffix != f".{kind}":
        raise InputError(f"{out}: expected a name that ends in .{kind} like the input, found {out.suffix or 'none'}")
    refuse_input(out, [path])
    if kind == "star":
        _filter_star(path, rows, out)
    elif kind == "cs":
        table = read_table(path)
        _check_rows(path, rows, len(table))
        write_array(out, table[rows])
    elif kind in ("mrcs", "mrc"):
        _filter_stack(path, rows, out)
    elif kind == "npy":
        write_array(out, _rows_of(read_array(path, "an array with a row for each particle"), rows, path))
    elif kind in ("pkl", "ind"):
        dump_pickles(out, *(_rows_of(value, rows, path) for value in load_pickles(path)))
    else:
        raise InputError(f"{path}: expected a .star, .cs, .mrcs, .pkl or .npy file, found .{kind}")


def _filter_star(path: Path, rows: np.ndarray, out: Path) -> None:
    blocks = star_columns.read_blocks(path)
    name = star_columns.particle_block(blocks, path)
    _check_rows(path, rows, len(blocks[name]))
    kept = blocks[name].iloc[rows]
    if "rlnImageName" in kept:
        kept = kept.assign(rlnImageName=_found_from(kept["rlnImageName"].astype(str), path.parent, out.parent))
    write_blocks(out, {**blocks, name: kept})


def _found_from(names: pd.Series, before: Path, after: Path) -> pd.Series:
    """Names of images in a star that moves from one folder to another: as they are, but where a stack would not be found any
    more, its way from the new folder."""
    parts = names.str.rpartition("@")
    moved = {}
    for stack in parts[2].unique().tolist():
        old, new = resolve([stack], before, None)[0], resolve([stack], after, None)[0]
        lost = old.is_file() and not (new.is_file() and new.samefile(old))
        moved[stack] = os.path.relpath(old.absolute(), after.absolute()) if lost else stack
    return parts[0] + parts[1] + parts[2].map(moved)


def _filter_stack(path: Path, rows: np.ndarray, out: Path) -> None:
    source = FileSource.open([path])
    _check_rows(path, rows, len(source))
    header = source.headers[0]
    free_space(out, mrc.HEADER_BYTES + len(rows) * source.box**2 * 4)
    with mrc.StackWriter(out, source.box, header.apix, half=header.mode == 12) as writer:
        for part in np.split(rows, range(chunk_size(source.box), len(rows), chunk_size(source.box))):
            writer.append(source.read(part))


def _rows_of(value: Any, rows: np.ndarray, path: Path) -> Any:
    """Rows of an array, or of each array of a tuple."""
    if isinstance(value, tuple):
        return tuple(_rows_of(item, rows, path) for item in value)
    array = as_array(value, path)
    if array.ndim == 0:
        raise InputError(f"{path}: expected arrays with a row for each particle, found {type(value).__name__}")
    _check_rows(path, rows, len(array))
    return array[rows]


def _check_rows(path: Path, rows: np.ndarray, n: int) -> None:
    if not len(rows) or rows.min() < 0 or rows.max() >= n:
        found = f"{rows.min()} to {rows.max()}" if len(rows) else "none"
        raise InputError(f"{path}: expected indices from 0 to {n - 1}, found {found}; the list belongs to another data "
                         "set")


def _check_smaller(path: str | Path, old: int, box: int) -> None:
    if box % 2 or not 4 <= box <= old:
        raise InputError(f"{path}: expected an even box from 4 to {old} px, found -D {box}; give one of these")
