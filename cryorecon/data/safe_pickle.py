"""Pickles that hold arrays and nothing else.

A pickle may name any function and have it called. Here no name is looked up: the few that numpy's arrays are made of
are played by stand-ins written below, which check every size they are given; any other name is refused.

Before that, :func:`scan` walks over the opcodes without obeying them: a pickle may also claim lengths, places in its memo and
containers in numbers that no file holds.
"""

import io
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np

from cryorecon.data.files import atomic_path, require_file
from cryorecon.errors import InputError

MAX_DEPTH = 4
MAX_ITEMS = 50_000_000
MAX_PICKLES = 16
MAX_AHEAD = 1 << 16  # places of the memo beyond those used so far: it is an array, and grows to whatever place is named

_DATA = frozenset((
    "PROTO", "FRAME", "STOP", "POP", "POP_MARK", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "READONLY_BUFFER",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "FLOAT", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE", "GET",
    "BINGET", "LONG_BINGET", "MEMOIZE", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE",
    "BUILD"))
_CONTAINERS = frozenset(("MARK", "EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2",
                         "TUPLE3"))
_PLACES = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))

_BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, ValueError, TypeError,
           OverflowError, MemoryError, RecursionError, struct.error)


class _Refused(pickle.UnpicklingError):
    """The file names something that is no part of an array."""


class _Name:
    """What a pickle gets when it names one of the allowed callables; it can be called and nothing else."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: object) -> NoReturn:
        raise _Refused("a state for a function")


class _Dtype:
    """A plain number type; its state may set the byte order alone."""

    def __init__(self, name: object, *_: object):
        if not isinstance(name, str) or not re.fullmatch("[biuf](1|2|4|8)", name):
            raise _Refused(f"dtype {name!r}")
        self.numpy = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        if any(part is not None for part in state[2:5]) or state[1] not in ("<", ">", "|", "="):
            raise _Refused("a structured dtype")
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """An array being built."""

    def __init__(self, *_: object):
        self.numpy = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        self.numpy = _view(raw, dtype, shape, "F" if fortran else "C")


def _view(raw: object, dtype: object, shape: tuple[int, ...], order: str) -> np.ndarray:
    """A copy of ``raw`` as an array, after its length has been checked."""
    if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise _Refused("an array of objects")
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise _Refused(f"shape {shape}")
    size = math.prod(shape) * dtype.numpy.itemsize
    if len(raw) != size:
        raise _Refused(f"{len(raw)} bytes for an array of {size}")
    flat = np.frombuffer(raw, dtype.numpy) if size else np.empty(0, dtype.numpy)
    return flat.reshape(shape, order="F" if order == "F" else "C").copy()


def _from_buffer(raw: object, dtype: object, shape: tuple[int, ...], order: str, axes: tuple[int, ...] | None = None,
                 ) -> _Array:
    array = _Array()
    array.numpy = _view(raw, dtype, shape, "C" if order == "K" else order)
    if axes is not None:
        array.numpy = array.numpy.transpose(axes)
    return array


def _scalar(dtype: object, raw: object) -> _Array:
    array = _Array()
    array.numpy = _view(raw, dtype, (), "C")
    return array


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"codec {encoding}")
    return text.encode("latin1")


def _ndarray(*_: object) -> NoReturn:
    raise _Refused("a call of ndarray")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _ndarray,  # named as an argument, never called
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
    ("builtins", "bytes"): lambda: b"",
    ("__builtin__", "bytes"): lambda: b"",
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Bounded:
    """The rest of a file for reading, where no more can be asked for than is there."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.readline, self.tell = file.readline, file.tell

    def read(self, n: int) -> bytes:
        left = self._size - self._file.tell()
        if n > left:
            raise EOFError(f"expected {n} bytes, found {left}")
        return self._file.read(n)


def scan(file: BinaryIO, size: int, more: frozenset[str] = frozenset()) -> list[str]:
    """Walk over the pickle that begins here, up to its end; returns the names that it asks for as ``module name`` (``?`` for
    one that is put together on the stack). ``size``: of the file. ``more``: opcodes beyond those of plain data.

    Raises
    ------
    pickle.UnpicklingError: opcodes that are not of data, a memo or containers beyond what the file could fill. ValueError,
    EOFError: no pickle, one that is cut short or claims more bytes than there are.
    """
    names: list[str] = []
    containers = places = 0
    for opcode, argument, _ in pickletools.genops(cast(BinaryIO, _Bounded(file, size))):
        number = argument if isinstance(argument, int) else 0
        if opcode.name in _CONTAINERS:
            containers += 1
        elif opcode.name in _PLACES:
            places += 1
        elif opcode.name not in _DATA and opcode.name not in more:
            raise _Refused(f"the opcode {opcode.name}")
        if containers > MAX_AHEAD + size // 16 or (opcode.name in _PLACES and number > places + MAX_AHEAD):
            raise _Refused("more places or containers than it has bytes for")
        if opcode.name == "FRAME" and number > size:
            raise EOFError(f"expected a frame of {number} bytes, found {size}")
        if opcode.name == "GLOBAL":
            names.append(str(argument))
        elif opcode.name == "STACK_GLOBAL":
            names.append("?")
    return names


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Name:
        call = _ALLOWED.get((module, name))
        if call is None:
            raise _Refused(f"{module}.{name}")
        return _Name(call)


def load_pickles(path: str | Path) -> list[Any]:
    """All consecutive pickles of a file: arrays, numbers and strings in tuples, lists and dictionaries.

    Raises :class:`InputError` where there is no file, it is no pickle, or it holds anything else; nothing that it names
    is looked up or called.
    """
    path = require_file(path, "a pickle of arrays")
    found: list[Any] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            while file.peek(1) and len(found) < MAX_PICKLES:
                start = file.tell()
                scan(file, size)
                file.seek(start)
                found.append(_plain(_ArrayUnpickler(file).load(), 0, [MAX_ITEMS]))
        except _Refused as error:
            raise InputError(f"{path}: expected a pickle of arrays, found {error}; such a file can run code and is not "
                             "read, write the arrays alone (or an .npy)") from error
        except _BROKEN as error:
            raise InputError(f"{path}: expected a pickle of arrays, found no readable one ({type(error).__name__}: "
                             f"{error}); copy or write it again") from error
    if not found:
        raise InputError(f"{path}: expected a pickle of arrays, found an empty file; copy or write it again")
    return found


def dump_pickles(path: str | Path, *values: Any) -> None:
    """Write values as consecutive pickles of protocol 4, to a temporary name first."""
    buffer = io.BytesIO()
    for value in values:
        pickle.dump(value, buffer, protocol=4)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _plain(value: Any, depth: int, budget: list[int]) -> Any:
    """``value`` with stand-ins replaced by arrays; refuses what isn't data, nests deeply or repeats itself
    endlessly."""
    budget[0] -= 1
    if depth > MAX_DEPTH or budget[0] < 0:
        raise _Refused("lists nested too deeply or too long")
    if isinstance(value, _Array):
        return value.numpy if value.numpy.ndim else value.numpy.item()
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, tuple | list):
        return type(value)(_plain(item, depth + 1, budget) for item in value)
    if isinstance(value, dict):
        return {_plain(k, depth + 1, budget): _plain(v, depth + 1, budget) for k, v in value.items()}
    raise _Refused(f"a {type(value).__name__}")
