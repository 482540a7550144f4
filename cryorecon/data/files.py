"""What every reader and writer needs of the file system: clear errors, bounded reading, atomic writes, room on the disk."""

import errno
import gzip
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryorecon.errors import InputError

UNPACKED, RATIO = 1 << 26, 16  # a packed file may unpack to so many bytes, or to so many times its own size
JSON_BYTES = 1 << 21  # of a table of words and numbers; what needs more is no such table
_LINE_BYTES = 1 << 20


def require_file(path: str | Path, what: str) -> Path:
    """``path`` as a :class:`Path`; :class:`InputError` where no such file is there: nothing else is opened, for a pipe could
    wait and a device could flow for ever."""
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "a pipe or a device" if path.exists() else "no such file"
        raise InputError(f"{path}: expected {what}, found {found}; check the path")
    return path


def read_text(path: str | Path, what: str, most: int | None = None) -> str:
    """The text of a file. Raises :class:`InputError`: no such file, bytes that are no UTF-8, more than ``most`` bytes."""
    path = require_file(path, what)
    size = path.stat().st_size
    if most is not None and size > most:
        raise InputError(f"{path}: expected {what} of at most {most:,} bytes, found {size:,}; is it the right file?")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected {what}, found no text (byte {error.start + 1}: {error.reason})") from None


def read_json(path: str | Path, what: str) -> Any:
    """What a JSON file says. Raises :class:`InputError`: no such file, more than 2 MiB, no JSON."""
    text = read_text(path, what, JSON_BYTES)
    try:
        return _parsed(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected {what} as JSON, found something else ({error})") from None


def read_records(path: Path) -> list[dict[str, Any]]:
    """Tables of a file with one JSON table a line, as logs have them; none where there is no file.

    A line that is none, cut short by a kill say, is passed over, and so is one of more than 1 MiB.
    """
    found: list[dict[str, Any]] = []
    if not path.is_file():
        return found
    with path.open("rb") as file:
        while line := file.readline(_LINE_BYTES):
            try:
                record = _parsed(line.decode())
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                found.append(record)
    return found


def _parsed(text: str) -> Any:
    """JSON whose whole numbers of more digits than any count has are floats: they would be no index, and break sums."""
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 19 else float(digits))


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip's do."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def unpack(path: Path) -> bytes:
    """What a gzipped file holds. Raises :class:`InputError`: damaged, or more than 64 MiB and than 16 times its size."""
    most = max(UNPACKED, RATIO * path.stat().st_size)
    out = bytearray()
    try:
        with gzip.open(path, "rb") as file:
            while part := file.read(1 << 20):
                out += part
                if len(out) > most + (1 << 20):
                    raise InputError(f"{path}: expected a gzipped file of at most {most:,} bytes, found more in it; if you "
                                     "trust it, gunzip it and give the file")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected a gzip file, found a damaged one ({error}); copy it again") from error
    return bytes(out)


def refuse_input(out: str | Path, inputs: Iterable[str | Path | None]) -> None:
    """Raise :class:`InputError` where ``out`` is one of ``inputs``, under this name, another or a link; None is skipped.

    Whoever writes files made from files asks this before the first byte: what is read must survive.
    """
    out = Path(out)
    if not out.exists():
        return
    for path in inputs:
        if path is not None and Path(path).exists() and out.samefile(path):
            raise InputError(f"{out}: expected an output that isn't the input, found the same file as {path}; choose "
                             "another -o")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends well and is removed when not."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{path}: expected a folder {path.parent}, found a file of that name") from error
    temporary = path.with_name(f".{path.name}.tmp")
    if temporary.is_symlink():  # in a stranger's folder it may lead anywhere
        temporary.unlink()
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def append_text(path: Path, text: str) -> None:
    """Add ``text`` to a file's end, of this very file: a link in a stranger's folder may lead anywhere.

    Raises :class:`InputError` for a link.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(f"{path}: expected a file to add to, found a link; remove it") from None
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.write(text)


def free_space(path: str | Path, needed: int) -> None:
    """Raise :class:`InputError` unless the disk of ``path`` has ``needed`` bytes free."""
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"{path}: expected {needed / 1e9:.3f} GB of free disk space, found {free / 1e9:.3f} GB in "
                         f"{folder}; make room or write elsewhere")
