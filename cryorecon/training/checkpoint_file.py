"""The file of a checkpoint: plain tensors in tables and lists, as ``torch.save`` writes them; read without running code."""

import io
import pickle
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from cryorecon.data.files import require_file
from cryorecon.data.safe_pickle import scan
from cryorecon.errors import InputError

NOT_A_CHECKPOINT = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError,
                    AssertionError, OverflowError, zipfile.BadZipFile,
                    pickle.UnpicklingError)  # what torch.load raises for other files, cut ones and ones that hold code
NAMES = ("collections OrderedDict", "torch._utils _rebuild_tensor_v2")  # that a checkpoint asks for beside its storages
DEEPEST = 8  # levels of tables and lists in a checkpoint


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write nested tables of tensors, numbers and words. Raises what the disk raises, not torch's word for it."""
    failed: list[OSError] = []
    with path.open("wb") as file:
        def write(data: bytes) -> int:
            try:
                return file.write(data)
            except OSError as error:
                failed.append(error)
                raise

        try:
            torch.save(state, SimpleNamespace(write=write, flush=file.flush))
        except (RuntimeError, OSError):
            if failed:  # torch's own error does not say why
                raise failed[0] from None
            raise


def load_state(path: Path) -> dict[str, Any]:
    """A file of tensors in tables and lists, read where it lies (mapped), so that it takes no memory before it is used.

    Raises
    ------
    InputError: no such file, or anything in it that is not plain tensors, numbers and words: names that torch itself would
    look up (some call for any amount of memory), packed members, tensors of more numbers than are stored.
    """
    require_file(path, "a checkpoint")
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except NOT_A_CHECKPOINT as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]  # an EOFError says nothing
        raise InputError(f"{path}: expected a checkpoint of plain tensors, found {said}") from None
    if not isinstance(state, dict) or not _stored(state, 0):
        raise InputError(f"{path}: expected a checkpoint of plain tensors, found one that claims more numbers than it stores")
    return state


def _check_archive(path: Path) -> None:
    """Raise one of :data:`NOT_A_CHECKPOINT` unless this is an archive as torch.save makes it, of plain tensors' names alone."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size for member in members):
            raise ValueError("packed members, which torch.save does not write")
        table = next((member for member in members if member.filename.endswith("/data.pkl")), None)
        if table is None:
            raise ValueError("an archive without data.pkl")
        with archive.open(table) as file:
            names = scan(io.BytesIO(file.read()), table.file_size, frozenset(("BINPERSID",)))
    strange = sorted(name for name in set(names) if name not in NAMES and not re.fullmatch(r"torch \w+Storage", name))
    if strange:
        raise ValueError(f"{strange[0]}, which is no part of a tensor")


def _stored(value: Any, depth: int) -> bool:
    """Whether all tensors of nested tables and lists have as many numbers as lie in the file."""
    if isinstance(value, torch.Tensor):
        return value.layout == torch.strided and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return depth < DEEPEST and all(_stored(part, depth + 1) for part in parts)


def fill(part: torch.nn.Module | torch.optim.Optimizer, values: Any, what: str, where: str = "") -> None:
    """Give ``part`` the values of a checkpoint. Raises :class:`InputError`, which ``where`` begins, for those of another
    ``what``."""
    try:
        part.load_state_dict(values)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{where}expected a checkpoint with the {what} that this run's configuration has, found another "
                         f"({said}); go on with the version that made it, or begin anew in another folder") from None
