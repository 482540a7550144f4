"""MRC files: volumes and image stacks of every real mode, in both byte orders.

Headers are read here; images are read by :mod:`cryorecon.data.source` at the offsets that a header gives. The format
is that of Cheng et al. (2015), MRC2014, with mode 12 = float16. A file without the ``MAP `` id, or with a broken
machine stamp, is read all the same if its numbers make sense in one byte order.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from cryorecon.data.files import atomic_path, free_space, is_gzip, require_file, unpack
from cryorecon.errors import InputError

HEADER_BYTES = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
COMPLEX_MODES = (3, 4)
_MAX_SIDE = 1 << 20
_WRITTEN_MODE = {"f4": 2, "f2": 12}


@dataclass(frozen=True)
class Header:
    """What matters of an MRC header.

    shape: ``(nz, ny, nx)``. mode: MRC's number of the data type. order: ``<`` or ``>``. apix: Å per pixel along x, 0
    where the file doesn't say. offset: bytes before the data. axes: which of x, y, z (1, 2, 3) the columns, rows and
    sections are. has_map_id: whether the file carries ``MAP ``. size: bytes on disk.
    """

    path: Path
    shape: tuple[int, int, int]
    mode: int
    order: str
    apix: float
    offset: int
    axes: tuple[int, int, int]
    has_map_id: bool
    size: int

    @property
    def dtype(self) -> np.dtype:
        """Type of a stored value, byte order included."""
        return np.dtype(self.order + MODES[self.mode])

    @property
    def data_bytes(self) -> int:
        """Bytes that the data take by the header's word."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: str | Path) -> Header:
    """The header of an ``.mrc``, ``.mrcs`` or ``.map`` file, or of a gzipped one.

    Raises :class:`InputError`: no such file; not MRC; complex or unknown mode; fewer bytes than the header claims.
    """
    path = require_file(path, "an MRC file")
    if is_gzip(path):
        return parse_header(path, unpack(path))
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    return parse_header(path, head, path.stat().st_size)


def parse_header(path: Path, data: bytes, size: int | None = None) -> Header:
    """:class:`Header` from a file's first bytes; ``size`` is the file's length where ``data`` is only its beginning."""
    size = len(data) if size is None else size
    if len(data) < HEADER_BYTES:
        raise InputError(f"{path}: expected an MRC header of {HEADER_BYTES} bytes, found {len(data)} bytes; copy it "
                         "again")
    order = _byte_order(data)
    if order is None:
        raise InputError(f"{path}: expected an MRC file, found a header that makes sense in neither byte order; "
                         "check that it is an .mrc, .mrcs or .map file")
    nx, ny, nz, mode = struct.unpack(order + "4i", data[:16])
    mx, my, _ = struct.unpack(order + "3i", data[28:40])
    width, height = struct.unpack(order + "2f", data[40:48])
    axes = struct.unpack(order + "3i", data[64:76])
    (extended,) = struct.unpack(order + "i", data[92:96])
    if mode in COMPLEX_MODES:
        raise InputError(f"{path}: expected real values, found complex ones (MRC mode {mode}); save it in real space")
    if mode not in MODES:
        raise InputError(f"{path}: expected MRC mode 0, 1, 2, 6 or 12, found mode {mode}; convert it to float32 (mode "
                         "2)")
    header = Header(
        path=path, shape=(nz, ny, nx), mode=mode, order=order, apix=_pixel_size(width, mx) or _pixel_size(height, my),
        offset=HEADER_BYTES + max(0, extended), axes=axes if sorted(axes) == [1, 2, 3] else (1, 2, 3),
        has_map_id=data[208:211] == b"MAP", size=size,
    )
    expected = header.offset + header.data_bytes
    if size < expected:
        held = max(0, size - header.offset) // max(1, header.data_bytes // max(1, nz))
        raise InputError(f"{path}: expected {expected} bytes for the {nz} sections of {ny} x {nx} that its header "
                         f"claims, found {size} bytes ({held} whole sections); the file is truncated, copy it again")
    return header


def read_density(path: str | Path) -> tuple[np.ndarray, float]:
    """Any 3-D density as ``(nz, ny, nx)`` float32 in the order (z, y, x), and Å/px (0 where the file doesn't say).

    ``.gz`` is unpacked. Raises :class:`InputError` as :func:`read_header` does.
    """
    path = require_file(path, "a map (.mrc)")
    raw = unpack(path) if is_gzip(path) else None
    header = read_header(path) if raw is None else parse_header(path, raw)
    # sections, rows, columns lie along axes[2], axes[1], axes[0]; we want z, y, x
    positions = [header.axes[::-1].index(axis) for axis in (3, 2, 1)]
    array = np.empty([header.shape[position] for position in positions], np.float32)
    as_stored = array.transpose(np.argsort(positions))
    section = math.prod(header.shape[1:])
    with path.open("rb") as file, np.errstate(over="ignore", invalid="ignore"):  # what isn't finite is for readers to refuse
        file.seek(header.offset)
        for i in range(header.shape[0]):  # one by one: of small types the whole is four times the file
            if raw is None:
                values = np.fromfile(file, header.dtype, section)
            else:
                values = np.frombuffer(raw, header.dtype, section, header.offset + i * section * header.dtype.itemsize)
            as_stored[i] = values.reshape(header.shape[1:])
    return array, header.apix


def read_volume(path: str | Path) -> tuple[np.ndarray, float]:
    """A cubic volume ``(D, D, D)`` float32 and Å/px (0 where the file doesn't say).

    Raises :class:`InputError` where it isn't cubic or not finite, and as :func:`read_header` does.
    """
    array, apix = read_density(path)
    if len(set(array.shape)) != 1:
        shape = " x ".join(str(n) for n in array.shape)
        raise InputError(f"{path}: expected a cubic volume, found {shape} (z, y, x); pad or crop it to a cube")
    if not np.isfinite(array).all():
        raise InputError(f"{path}: expected finite values, found {int((~np.isfinite(array)).sum())} NaN or infinite "
                         "voxels")
    return array, apix


def write_volume(path: str | Path, array: np.ndarray, apix: float) -> None:
    """Write ``(nz, ny, nx)`` as float32 with its pixel size, to a temporary name first.

    Raises :class:`InputError` where the disk lacks the space.
    """
    array = np.ascontiguousarray(array, "<f4")
    if array.ndim != 3:
        raise InputError(f"{path}: expected a 3-D array, found {array.ndim} axes")
    free_space(path, HEADER_BYTES + array.nbytes)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        stats = (float(array.min()), float(array.max()), float(array.mean(dtype=np.float64)), float(array.std()))
        file.write(_header_bytes(array.shape, 2, apix, stats, is_stack=False))
        file.write(array.data)


class StackWriter:
    """Writes an image stack piece by piece: ``with StackWriter(path, box, apix) as out: out.append(images)``.

    The file appears under its name, with a true header, only when the block ends without an exception; until then it is
    ``<name>.part`` beside it. With ``keep`` a part file that holds at least that many images is continued after them.

    Parameters
    ----------
    path: the ``.mrcs`` file. box: ``D``. apix: Å/px. half: store float16 (mode 12) instead of float32.
    keep: number of images of an earlier ``.part`` to keep.
    """

    def __init__(self, path: str | Path, box: int, apix: float, half: bool = False, keep: int = 0):
        self.path, self.box, self.apix = Path(path), box, apix
        self.part = part_name(self.path)
        self.dtype = np.dtype("<f2" if half else "<f4")
        self.count = 0
        self._sum = self._squares = 0.0
        self._low, self._high = np.inf, -np.inf
        self._image_bytes = box * box * self.dtype.itemsize
        if self.part.is_symlink():
            raise InputError(f"{self.part}: expected an unfinished stack or nothing, found a link; remove it")
        if keep:
            self._file = self.part.open("r+b")
            self._file.truncate(HEADER_BYTES + keep * self._image_bytes)
            self._take_up(keep)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.part.open("w+b")
            self._file.write(bytes(HEADER_BYTES))

    def _take_up(self, keep: int) -> None:
        """Read the kept images once, for the header's statistics."""
        self._file.seek(HEADER_BYTES)
        while self.count < keep:
            raw = self._file.read(min(keep - self.count, 1024) * self._image_bytes)
            if not raw:
                raise InputError(f"{self.part}: expected {keep} finished images, found {self.count}; delete it to "
                                 "start anew")
            self._count_in(np.frombuffer(raw, self.dtype).reshape(-1, self.box, self.box).astype("f4"))

    def _count_in(self, images: np.ndarray) -> None:
        self._low, self._high = min(self._low, float(images.min())), max(self._high, float(images.max()))
        with np.errstate(invalid="ignore"):  # what isn't finite is for the reader to refuse
            mean, variance, size = float(images.mean()), float(images.var()), images.size
        self._sum += mean * size
        self._squares += (variance + mean**2) * size
        self.count += len(images)

    def append(self, images: np.ndarray) -> None:
        """Add ``(n, D, D)`` images. Raises :class:`InputError` for another box or values that float16 can't hold."""
        images = np.asarray(images)
        if images.shape[1:] != (self.box, self.box):
            raise InputError(f"{self.path}: expected images of {self.box} x {self.box}, found shape {images.shape}")
        if not len(images):
            return
        if self.dtype.itemsize == 2 and not np.abs(images).max() <= np.finfo(np.float16).max:
            raise InputError(f"{self.path}: float16 holds values up to 65504, found larger ones; normalise or write "
                             "float32")
        self._file.write(np.ascontiguousarray(images, self.dtype).data)
        self._count_in(images)

    def flush(self) -> None:
        """Hand what was appended to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Write the header and give the file its name."""
        size = self.box * self.box * max(1, self.count)
        mean = self._sum / size
        low, high = (float(self.dtype.type(value)) for value in (self._low, self._high))  # as float16 has stored them
        stats = (low, high, mean, max(0.0, self._squares / size - mean**2) ** 0.5)
        self._file.seek(0)
        mode = _WRITTEN_MODE[self.dtype.str[1:]]
        self._file.write(_header_bytes((self.count, self.box, self.box), mode, self.apix, stats, is_stack=True))
        self._file.close()
        self.part.replace(self.path)

    def __enter__(self) -> "StackWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.suspend()
            self.part.unlink(missing_ok=True)

    def suspend(self) -> None:
        """Close the file and leave what is written as ``<name>.part``."""
        self._file.close()


def part_name(path: Path) -> Path:
    """Where a stack lies while it is written."""
    return path.with_name(path.name + ".part")


def write_stack(path: str | Path, images: np.ndarray, apix: float) -> None:
    """Write ``(N, D, D)`` images as float32."""
    with StackWriter(path, images.shape[-1], apix) as out:
        out.append(images)


def _byte_order(data: bytes) -> str | None:
    """The byte order in which the header makes sense, the machine stamp's first; None where in neither."""
    orders = "><" if data[212:213] == b"\x11" else "<>"
    for order in orders:
        *sides, mode = struct.unpack(order + "4i", data[:16])
        if all(0 < side < _MAX_SIDE for side in sides[:2]) and 0 < sides[2] < 1 << 30 and 0 <= mode <= 101:
            return order
    return None


def _pixel_size(length: float, samples: int) -> float:
    return float(np.float32(length) / samples) if samples > 0 and np.isfinite(length) and length > 0 else 0.0


def _header_bytes(shape: tuple[int, ...], mode: int, apix: float, stats: tuple[float, float, float, float], *,
                  is_stack: bool) -> bytes:
    """A little-endian MRC2014 header; a stack has space group 0 and one section to an interval."""
    nz, ny, nx = shape
    low, high, mean, rms = stats if nz else (0.0, -1.0, -2.0, -1.0)  # MRC2014's way to say "not known"
    head = bytearray(HEADER_BYTES)
    struct.pack_into("<4i", head, 0, nx, ny, nz, mode)
    struct.pack_into("<3i", head, 28, nx, ny, 1 if is_stack else nz)
    struct.pack_into("<6f", head, 40, nx * apix, ny * apix, apix if is_stack else nz * apix, 90, 90, 90)
    struct.pack_into("<3i3f", head, 64, 1, 2, 3, low, high, mean)
    struct.pack_into("<i", head, 88, 0 if is_stack else 1)
    struct.pack_into("<i", head, 108, 20140)  # version of the format
    head[208:216] = b"MAP \x44\x44\0\0"
    struct.pack_into("<fi", head, 216, rms, 1)
    head[224:304] = b"cryorecon".ljust(80)
    return bytes(head)
