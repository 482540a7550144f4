"""What every reader and writer needs of the file system: clear errors, atomic writes, room on the disk."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryorecon.errors import InputError


def require_file(path: str | Path, what: str) -> Path:
    """``path`` as a :class:`Path`; :class:`InputError` where no such file is there."""
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: expected {what}, found {found}; check the path")
    return path


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
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def free_space(path: str | Path, needed: int) -> None:
    """Raise :class:`InputError` unless the disk of ``path`` has ``needed`` bytes free."""
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"{path}: expected {needed / 1e9:.3f} GB of free disk space, found {free / 1e9:.3f} GB in "
                         f"{folder}; make room or write elsewhere")
