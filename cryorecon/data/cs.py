"""cryoSPARC's ``.cs`` files: a numpy table of particles.

``alignments3D/pose`` is a rotation vector whose matrix is the transpose of ours; ``alignments3D/shift`` is in pixels of
``alignments3D/psize_A`` (of the blob where that is absent) and has our sign.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.arrays import read_array
from cryorecon.data.files import require_file
from cryorecon.data.metadata import Metadata
from cryorecon.errors import InputError
from cryorecon.geometry import rotations
from cryorecon.imaging.ctf import Optics

READ = ("path", "idx", "shape", "psize_A", "pose", "shift", "split", "class_posterior", "df1_A", "df2_A", "df_angle_rad",
        "accel_kv", "cs_mm", "amp_contrast", "phase_shift_rad", "bfactor")  # of the fields' names, after the stroke


def read_table(path: str | Path) -> np.ndarray:
    """The file's structured array. Raises :class:`InputError` where it is none (newer ``CSDAT`` files, ``.csg``
    groups)."""
    path = require_file(path, "a cryoSPARC .cs file")
    with path.open("rb") as file:
        magic = file.read(6)
    if magic != b"\x93NUMPY":
        raise InputError(f"{path}: expected a .cs file in numpy's format, found {magic!r} at its beginning; export the "
                         "particles from cryoSPARC (Export job) or save them with cryosparc-tools as numpy")
    table = read_array(path, "a cryoSPARC .cs file")
    if table.dtype.names is None or table.ndim != 1 or not len(table):
        raise InputError(f"{path}: expected a table of particles, found an array {table.shape} of {table.dtype}")
    return table


def _checked(table: np.ndarray, alignment: str, path: Path) -> np.ndarray:
    """``table``; :class:`InputError` where a field that is read is of another type or shape, or not finite."""
    fields = dict(table.dtype.fields or {})
    pose = fields.get(f"{alignment}/pose")
    classes = int(pose is not None and pose[0].ndim == 2)  # axes more where each class has a pose
    axes = {"blob/shape": 1, f"{alignment}/pose": 1 + classes, f"{alignment}/shift": 1 + classes,
            f"{alignment}/class_posterior": classes}
    for name, (kind, *_) in fields.items():
        group, _, last = name.partition("/")
        if last not in READ or (group not in ("blob", "ctf", alignment) and name != "alignments3D/split"):
            continue
        wide = {"pose": 3, "shift": 2}.get(last)
        typed = kind.base.kind in ("SU" if last == "path" else "fiub") and kind.itemsize > 0
        if not typed or kind.ndim != axes.get(name, 0) or (wide is not None and kind.shape[-1] != wide):
            raise InputError(f"{path}: expected a value for each particle in {name}, found {kind}; export the particles "
                             "from cryoSPARC again")
        if kind.base.kind == "f" and not np.isfinite(table[name]).all():
            row = int(np.flatnonzero(~np.isfinite(table[name]).reshape(len(table), -1).all(1))[0])
            raise InputError(f"{path}: expected finite numbers in {name}, found others in row {row + 1}; remove it")
    return table


def read_cs(path: str | Path, alignment: str = "alignments3D", *, halved: bool = False) -> Metadata:
    """Metadata of a ``.cs`` file's particles.

    ``alignment``: the field that holds the poses; ``alignments_class_<k>`` of an ab-initio or heterogeneous job's
    class, or ``alignments3D_multi``, where the most probable class is taken. ``halved``: shifts without a pixel size of
    their own are of images binned by two. Raises :class:`InputError`.
    """
    path = Path(path)
    table = _checked(read_table(path), alignment, path)
    fields = table.dtype.names or ()
    stacks, file_index, frame = _images(table)
    rotation, shift = _poses(table, alignment, path, 2.0 if halved else 1.0)
    split = f"{alignment}/split" if f"{alignment}/split" in fields else "alignments3D/split"
    half = table[split].astype(np.int64) + 1 if split in fields else None
    if half is not None and not np.isin(half, (1, 2)).all():
        half = None
    shape = np.unique(table["blob/shape"]) if "blob/shape" in fields else np.zeros(0)
    if len(shape) > 1:
        raise InputError(f"{path}: expected one box, found {', '.join(f'{s} px' for s in shape)} in blob/shape; use "
                         "one at a time")
    optics, lacking = _optics(table)
    pixel = table["blob/psize_A"].astype(np.float64) if "blob/psize_A" in fields else None
    return Metadata(
        path, stacks, file_index, frame, apix=pixel,
        box=int(shape[0]) if len(shape) else None, optics=optics, rotation=rotation, shift=shift,
        shift_in_pixels=_shift_pixel(table, alignment) is None, half=half, lacking=lacking,
    )


def _images(table: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    if not {"blob/path", "blob/idx"} <= set(table.dtype.names or ()):
        return [], np.zeros(len(table), np.int32), np.arange(len(table))
    names, file_index = np.unique(table["blob/path"], return_inverse=True)
    stacks = [os.fsdecode(name if isinstance(name, bytes) else str(name)).lstrip(">") for name in names]
    return stacks, file_index.reshape(-1).astype(np.int32), table["blob/idx"].astype(np.int64)


def _shift_pixel(table: np.ndarray, alignment: str, binning: float = 1.0) -> np.ndarray | None:
    """Å per pixel of the shifts ``(N,)``, ``binning`` times the blob's where they have none; None where neither has."""
    fields = table.dtype.names or ()
    if f"{alignment}/psize_A" in fields:
        return table[f"{alignment}/psize_A"].astype(np.float64)
    return table["blob/psize_A"].astype(np.float64) * binning if "blob/psize_A" in fields else None


def _poses(table: np.ndarray, alignment: str, path: Path, binning: float) -> tuple[Tensor | None, Tensor | None]:
    """Rotations ``(N, 3, 3)`` and shifts ``(N, 2)`` in Å (pixels where no pixel size is known)."""
    fields = table.dtype.names or ()
    if f"{alignment}/pose" not in fields:
        if alignment == "alignments3D":
            return None, None
        held = sorted({name.split("/")[0] for name in fields if name.endswith("/pose")})
        raise InputError(f"{path}: expected poses under {alignment}, found {', '.join(held) or 'none'}")
    needed = [f"{alignment}/shift"] + [f"{alignment}/class_posterior"] * (table[f"{alignment}/pose"].ndim == 3)
    absent = [name for name in needed if name not in fields]
    if absent:
        raise InputError(f"{path}: expected {' and '.join(needed)} beside the poses, found {absent[0]} missing; export "
                         "the particles with their alignments")
    pose, shift = table[f"{alignment}/pose"], table[f"{alignment}/shift"]
    if pose.ndim == 3:  # one pose for each class
        best = table[f"{alignment}/class_posterior"].argmax(1)
        pose, shift = pose[np.arange(len(table)), best], shift[np.arange(len(table)), best]
    rotation = rotations.from_rotation_vector(torch.from_numpy(pose.astype(np.float64))).transpose(-1, -2)
    moved = torch.from_numpy(shift.astype(np.float64))
    pixel = _shift_pixel(table, alignment, binning)
    return rotation.float(), (moved * binning if pixel is None else moved * torch.from_numpy(pixel)[:, None]).float()


def _optics(table: np.ndarray) -> tuple[Optics | None, tuple[str, ...]]:
    fields = table.dtype.names or ()
    if "ctf/df1_A" not in fields:
        return None, ()
    needed = ("ctf/df2_A", "ctf/df_angle_rad", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast")
    lacking = tuple(name for name in needed if name not in fields)
    if lacking:
        return None, lacking

    def column(name: str) -> Tensor:
        return torch.from_numpy(table[name].astype(np.float64) if name in fields else np.zeros(len(table)))

    return Optics.from_columns(
        len(table), defocus_u=column("ctf/df1_A"), defocus_v=column("ctf/df2_A"),
        astigmatism=column("ctf/df_angle_rad"), voltage=column("ctf/accel_kv"), cs=column("ctf/cs_mm"),
        amplitude_contrast=column("ctf/amp_contrast"), phase_shift=column("ctf/phase_shift_rad"),
        b_factor=column("ctf/bfactor"),
    ), ()
