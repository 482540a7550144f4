"""What every reader and writer needs of the file system: clear errors, bounded reading, atomic and durable writes, locks, room
on the disk.

A file is written under a temporary name, forced to the disk, and renamed; then the folder is forced to the disk too. Whatever
stops us, a kill or a power cut, leaves the old file or the new one, whole. Locks are the kernel's (``flock``) on open files:
they go when their process does, however it ends.
"""

import errno
import fcntl
import gzip
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryorecon.errors import InputError

TEMPORARY = ".cryorecon-tmp"  # how names end that nobody but us may read, and that we may remove
LOCK = ".cryorecon-lock"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EBADF)  # a file system that knows none
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


def read_json(path: str | Path, what: str, most: int = JSON_BYTES) -> Any:
    """What a JSON file says. Raises :class:`InputError`: no such file, more than ``most`` bytes, no JSON."""
    text = read_text(path, what, most)
    try:
        return _parsed(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected {what} as JSON, found something else ({error}); is the file damaged?") from None


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
    """A temporary name beside ``path`` that takes its place, on the disk for good, when the block ends well and is removed when
    not. The file is there, empty and locked; it is to be opened and written, not replaced.

    Raises
    ------
    InputError: the folder's name is a file's; another process is writing this file. OSError: with ``path`` as its file.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{path}: expected a folder {path.parent}, found a file of that name") from error
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    with naming(path, temporary):
        descriptor = claimed(temporary, path)
        try:
            os.truncate(descriptor, 0)  # what a kill has left
            yield temporary
            settle(descriptor, temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)


@contextmanager
def naming(path: Path, *also: Path) -> Iterator[None]:
    """Gives an :class:`OSError` of the block that names no file, or one of ``also``, the name ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and error.filename not in map(str, also)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def settle(descriptor: int, temporary: Path, path: Path) -> None:
    """Force an open file to the disk, give it its name, and force that to the disk."""
    os.fsync(descriptor)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some file systems can't; they keep their folders otherwise
            os.fsync(folder)
    finally:
        os.close(folder)


def claimed(path: Path, what: Path) -> int:
    """Descriptor of ``path``, made where it is absent, read and write; locked until it is closed.

    Raises :class:`InputError`, which names ``what``, where another process has it.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            path.unlink()  # in a stranger's folder a link may lead anywhere
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(f"{what}: expected to be the only one who writes here, found another process at it; wait for its "
                             "end, or give another name") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)  # renamed or removed by its last owner between our two calls


@contextmanager
def exclusive(folder: str | Path, vouching: Iterable[str] = ()) -> Iterator[Path]:
    """Write into ``folder``, which is made, as the only one who does; what a killed process has left of temporary files there
    is removed. ``vouching``: files that are written last, by whose presence a reader knows that all is there; those of an
    earlier call go first. Folders that were made and hold nothing in the end go too.

    Raises
    ------
    InputError: another process writes into the folder, or the name is a file's.
    """
    folder = Path(folder)
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder}: expected a folder or a new name, found a file; give another name") from error
    lock = folder / LOCK
    try:
        descriptor = claimed(lock, folder)
        try:
            tidy(folder)
            for name in vouching:
                (folder / name).unlink(missing_ok=True)
            yield folder
        finally:
            lock.unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        for each in new:
            if not each.is_dir() or any(each.iterdir()):
                break
            each.rmdir()


def require_writable(folder: str | Path) -> None:
    """Ask before long work whether :func:`exclusive` will do for ``folder``; leaves all as it was. Raises what that raises."""
    with exclusive(folder):
        pass


def below(home: str | Path, name: str) -> Path:
    """``home / name``, where a command puts what it makes of the folder ``home``, which may be a stranger's.

    Raises
    ------
    InputError: it is a link, which may lead anywhere.
    """
    path = Path(home) / name
    if path.is_symlink():
        raise InputError(f"{path}: expected a folder of its own, found a link to {os.readlink(path)}; remove it, or name that "
                         "folder yourself (-o)")
    return path


def refuse_links(folder: Path) -> None:
    """Raise :class:`InputError` where a folder below ``folder`` is a link: what is written there would land elsewhere."""
    for path in folder.rglob("*"):
        if path.is_dir():
            below(path.parent, path.name)


def tidy(folder: Path) -> None:
    """Remove temporary files in and below ``folder`` that no living process writes."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    path.unlink()
            finally:
                os.close(descriptor)


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
    with os.fdopen(descriptor, "a", encoding="utf-8", errors="surrogateescape") as file:  # of names that are no text
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
