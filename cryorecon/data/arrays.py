"""Arrays and tables as files: read without trust, written so that nothing half written is ever seen.

A reader takes no memory that a file merely claims: what its header says is held against the bytes that are there first.
"""

import csv
import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np

from cryorecon.data.files import RATIO, UNPACKED, atomic_path, require_file
from cryorecon.errors import InputError

_HEADER_BYTES = 1 << 16
_NO_HEADER = (ValueError, TypeError, EOFError, OverflowError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError,
              LookupError, AttributeError)  # numpy reads the header as a Python literal: these are what other texts raise


def read_array(path: str | Path, what: str) -> np.ndarray:
    """An ``.npy``, without objects. Raises :class:`InputError`: no such file, none of numpy's, or cut short; ``what`` says
    what was expected."""
    path = require_file(path, what)
    return _array(_bytes(path), f"{path}: expected {what} (.npy)")


def read_numbers(path: str | Path, what: str) -> np.ndarray:
    """:func:`read_array` of numbers; :class:`InputError` for anything else."""
    array = read_array(path, f"{what} as an array of numbers")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected {what} as an array of numbers (.npy), found an array of {array.dtype}")
    return array


def read_columns(path: str | Path, what: str, ndmin: Literal[1, 2] = 1, dtype: type = float) -> np.ndarray:
    """Numbers of a text file, ``ndmin`` axes at least. Raises :class:`InputError` for anything else."""
    path = require_file(path, what)
    try:
        with path.open(encoding="utf-8") as file:
            return np.loadtxt(file, np.dtype(dtype), ndmin=ndmin)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: expected numbers ({what}), found something else ({error})") from None


def read_npz(path: str | Path, what: str) -> dict[str, np.ndarray]:
    """Every array of an ``.npz``; objects are refused.

    Raises :class:`InputError`: no such file; not such an archive; one that unpacks to more than 64 MiB and than 16 times
    its size. ``what`` says what was expected.
    """
    path = require_file(path, what)
    most = max(UNPACKED, RATIO * path.stat().st_size)
    held: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > most:
                raise InputError(f"{path}: expected {what} of at most {most:,} bytes, found more in it; if you trust it, save "
                                 "it anew with numpy.savez")
            for member in members:
                name = member.filename.removesuffix(".npy")
                held[name] = _array(bytearray(archive.read(member)), f"{path}: expected {what}, {name} of it as numpy's array")
    except InputError:
        raise
    except (ValueError, OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: expected {what}, found another file ({error}); use numpy.savez") from error
    return held


def _bytes(path: Path) -> bytearray:
    raw = bytearray(path.stat().st_size)
    with path.open("rb") as file:
        del raw[file.readinto(raw):]
    return raw


def _array(raw: bytearray, expected: str) -> np.ndarray:
    """The array that the bytes of an ``.npy`` hold, in the same memory; ``expected`` begins errors."""
    if raw[:6] != b"\x93NUMPY":
        raise InputError(f"{expected}, found another kind of file; save it with numpy.save")
    head = io.BytesIO(raw[:_HEADER_BYTES])
    try:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(head)
        if version not in read:
            raise ValueError(f"version {version} of the format")
        shape, fortran, dtype = read[version](head)
        if dtype.hasobject:
            raise InputError(f"{expected}, found objects in it, which can run code; save the numbers alone")
        needed = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or len(raw) - head.tell() < needed or (not needed and max(shape, default=0) > len(raw)):
            raise InputError(f"{expected}, found {len(raw) - head.tell()} bytes for the {needed} that its header claims (shape "
                             f"{shape}, {dtype}); it was cut short, copy it again")
        return np.ndarray(shape, dtype, raw, head.tell(), order="F" if fortran else "C")
    except InputError:
        raise
    except _NO_HEADER as error:
        raise InputError(f"{expected}, found something else, or a damaged one ({error!s:.200}); copy it again") from None


def write_array(path: Path, array: np.ndarray) -> None:
    """Write ``.npy`` under a temporary name, then rename."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)  # to a file itself, numpy hides why it failed


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their header; numbers to six digits."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{cell:.6g}" if isinstance(cell, float | np.floating) else cell for cell in row] for row in rows)
