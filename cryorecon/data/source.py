"""Where images come from: many MRC files read by position, or an array in memory."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cryorecon.data.files import naming
from cryorecon.data.mrc import Header, read_header
from cryorecon.errors import InputError

MAX_OPEN = 64


class ImageSource(Protocol):
    """N images of ``D x D``, read when asked for."""

    @property
    def box(self) -> int:
        """Side ``D`` in pixels."""

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images ``(n, D, D)`` float32 of these positions ``(n,)``, in this order."""

    def select(self, indices: np.ndarray) -> "ImageSource":
        """The source of these images alone, in this order."""


class ArraySource:
    """Images in memory, ``(N, D, D)``."""

    def __init__(self, images: np.ndarray):
        if images.ndim != 3 or images.shape[1] != images.shape[2]:
            raise InputError(f"expected images (N, D, D), found an array of shape {images.shape}")
        self._images = images

    @property
    def box(self) -> int:
        """Side ``D`` in pixels."""
        return int(self._images.shape[-1])

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images ``(n, D, D)`` float32 of these positions."""
        return np.asarray(self._images[indices], dtype=np.float32)

    def select(self, indices: np.ndarray) -> "ArraySource":
        """The source of these images alone."""
        return ArraySource(self._images[indices])


class _Handle:
    """A file open for reading until the last of its users lets go of it."""

    descriptor = -1

    def __init__(self, path: Path):
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _fill(view: memoryview, header: Header, file: _Handle, start: int) -> None:
    """Read the file's bytes from ``start`` on. Raises :class:`InputError` where it ends before, :class:`OSError` where the disk
    fails; a mapped file would end the process instead."""
    done = 0
    with naming(header.path):
        while done < len(view):
            step = os.preadv(file.descriptor, [view[done:]], start + done)
            if step == 0:
                raise InputError(f"{header.path}: expected {header.offset + header.data_bytes} bytes, found {start + done}; "
                                 "the file has shrunk since it was opened")
            done += step


class FileSource:
    """Images spread over MRC stacks, read by ``preadv`` at their offsets; at most :data:`MAX_OPEN` files are open.

    Nothing is mapped or kept: memory in use is that of the images asked for. Reading is safe from several threads.

    Parameters
    ----------
    headers: one for each file, all of one box. file_index: ``(N,)``, which file an image is in.
    frame: ``(N,)``, its section in that file, from 0.
    """

    def __init__(self, headers: Sequence[Header], file_index: np.ndarray, frame: np.ndarray):
        self.headers = list(headers)
        self.file_index = np.asarray(file_index, dtype=np.int32)
        self.frame = np.asarray(frame, dtype=np.int64)
        self._files: OrderedDict[int, _Handle] = OrderedDict()
        self._lock = threading.Lock()
        _check_boxes(self.headers)
        _check_frames(self.headers, self.file_index, self.frame)

    @staticmethod
    def open(paths: Sequence[Path], file_index: np.ndarray | None = None,
             frame: np.ndarray | None = None) -> "FileSource":
        """Open stacks by name; without indices all their images in order.

        Raises :class:`InputError` for absent, truncated, gzipped or non-square stacks, boxes that differ and frames
        that a stack doesn't have.
        """
        absent = [path for path in paths if not path.is_file()]
        if absent:
            raise InputError(f"{absent[0]}: expected an image stack, found no such file ({len(absent)} of {len(paths)} "
                             "stacks are absent); check the paths or give --datadir")
        headers = [read_header(path) for path in paths]
        zipped = [header.path for header in headers if header.path.suffix == ".gz"]
        if zipped:
            raise InputError(f"{zipped[0]}: expected an unpacked stack, found a gzipped one; gunzip it (only volumes "
                             "are read from .gz)")
        if file_index is None or frame is None:
            counts = [header.shape[0] for header in headers]
            file_index = np.repeat(np.arange(len(headers)), counts)
            frame = np.concatenate([np.arange(count) for count in counts])
        return FileSource(headers, file_index, frame)

    @property
    def box(self) -> int:
        """Side ``D`` in pixels."""
        return self.headers[0].shape[2]

    def __len__(self) -> int:
        return len(self.frame)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images ``(n, D, D)`` float32 of these positions, in this order; each file is read in ascending order."""
        indices = np.asarray(indices, dtype=np.int64).ravel()
        files, frames = self.file_index[indices], self.frame[indices]
        out = np.empty((len(indices), self.box, self.box), dtype=np.float32)
        order = np.lexsort((frames, files))
        for part in np.split(order, np.flatnonzero(np.diff(files[order])) + 1):
            if len(part):
                out[part] = self._read_file(int(files[part[0]]), frames[part])
        return out

    def select(self, indices: np.ndarray) -> "FileSource":
        """The source of these images alone, in this order."""
        return FileSource(self.headers, self.file_index[indices], self.frame[indices])

    def _read_file(self, index: int, frames: np.ndarray) -> np.ndarray:
        """Sections ``frames`` (ascending) of one file as stored; neighbours are read in one call."""
        header, file = self.headers[index], self._open(index)
        raw = np.empty((len(frames), self.box, self.box), dtype=header.dtype)
        image_bytes = raw[:1].nbytes
        for run in np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames) != 1) + 1):
            start = header.offset + int(frames[run[0]]) * image_bytes
            _fill(raw[run[0] : run[-1] + 1].reshape(-1).view(np.uint8).data, header, file, start)
        return raw

    def _open(self, index: int) -> _Handle:
        """The file, opened or from the cache; one that is dropped lives on while another thread still reads it."""
        with self._lock:
            file = self._files.pop(index, None)
            if file is None:
                file = _Handle(self.headers[index].path)
                if len(self._files) >= MAX_OPEN:
                    self._files.popitem(last=False)
            self._files[index] = file
            return file


class JoinedSource:
    """Images of several sources; ``part (N,)`` says which of them an image is in, ``position (N,)`` where in it.

    Raises :class:`InputError` where their boxes differ.
    """

    def __init__(self, sources: Sequence[ImageSource], part: np.ndarray, position: np.ndarray):
        boxes = [source.box for source in sources]
        if len(set(boxes)) != 1:
            raise InputError(f"expected images of one box, found {' and '.join(map(str, boxes))} px; bring them to one first")
        self._sources, self._part, self._position = list(sources), part, position

    @property
    def box(self) -> int:
        """Side ``D`` in pixels."""
        return self._sources[0].box

    def __len__(self) -> int:
        return len(self._part)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images ``(n, D, D)`` float32 of these positions, in this order."""
        part, position = self._part[indices], self._position[indices]
        out = np.empty((len(part), self.box, self.box), dtype=np.float32)
        for number in np.unique(part):
            here = part == number
            out[here] = self._sources[number].read(position[here])
        return out

    def select(self, indices: np.ndarray) -> "JoinedSource":
        """The source of these images alone, in this order."""
        return JoinedSource(self._sources, self._part[indices], self._position[indices])


def joined(first: ImageSource, second: ImageSource) -> ImageSource:
    """All images of the first source, then all of the second; files stay files, so that their images keep their names.

    Raises :class:`InputError` where their boxes differ.
    """
    if isinstance(first, FileSource) and isinstance(second, FileSource):
        return FileSource([*first.headers, *second.headers],
                          np.concatenate([first.file_index, second.file_index + len(first.headers)]),
                          np.concatenate([first.frame, second.frame]))
    counts = len(first), len(second)
    return JoinedSource([first, second], np.repeat([0, 1], counts), np.concatenate([np.arange(n) for n in counts]))


def _check_boxes(headers: Sequence[Header]) -> None:
    if not headers:
        raise InputError("expected at least one image stack, found none")
    box = headers[0].shape[2]
    for header in headers:
        ny, nx = header.shape[1:]
        if nx != ny:
            raise InputError(f"{header.path}: expected square images, found {ny} x {nx} pixels; crop or pad them")
        if nx != box:
            raise InputError(f"{header.path}: expected images of {box} px as in {headers[0].path}, found {nx} px; "
                             "bring the stacks to one box first")


def _check_frames(headers: Sequence[Header], file_index: np.ndarray, frame: np.ndarray) -> None:
    counts = np.array([header.shape[0] for header in headers])[file_index]
    bad = np.flatnonzero((frame < 0) | (frame >= counts))
    if len(bad):
        row = int(bad[0])
        raise InputError(f"{headers[file_index[row]].path}: expected image numbers 1 to {counts[row]}, found "
                         f"{frame[row] + 1} in row {row + 1} ({len(bad)} such rows); the list doesn't belong to this "
                         "stack")
