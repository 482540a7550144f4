"""Reading ``.npz`` archives of plain arrays."""

import zipfile
from pathlib import Path

import numpy as np

from cryorecon.data.files import require_file
from cryorecon.errors import InputError


def read_npz(path: str | Path, what: str) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` archive by name; objects are refused.

    Raises :class:`InputError`: no such file; not such an archive. ``what`` says what was expected.
    """
    path = require_file(path, what)
    try:
        held = np.load(path, allow_pickle=False)
        if isinstance(held, np.ndarray):
            raise InputError(f"{path}: expected {what}, found a single array; save it with numpy.savez")
        with held:
            return {name: held[name] for name in held.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected {what}, found another file ({error}); use numpy.savez") from error
