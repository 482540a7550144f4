"""cryoDRGN's files: poses, CTF tables, index lists and latents, read and written.

poses.pkl: ``(rotation (N, 3, 3), shift (N, 2))``, shifts in fractions of the box. ctf.pkl: ``(N, 9)``
``[D, Å/px, dfU Å, dfV Å, angle°, kV, Cs mm, w, phase°]``. z.pkl: two pickles, mean and log variance, ``(N, d)`` each.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.arrays import read_array, read_columns, write_array
from cryorecon.data.files import atomic_path
from cryorecon.data.poses import Poses
from cryorecon.data.safe_pickle import dump_pickles, load_pickles
from cryorecon.errors import InputError
from cryorecon.imaging.ctf import Optics

CTF_COLUMNS = ("box", "apix", "defocus_u", "defocus_v", "angle", "kV", "Cs", "amplitude contrast", "phase")


@dataclass(frozen=True)
class CtfTable:
    """CTF of N images with the box ``(N,)`` and pixel size ``(N,)`` in Å that they were written for."""

    optics: Optics
    box: Tensor
    apix: Tensor

    def __len__(self) -> int:
        return len(self.optics)

    def apix_at(self, box: int) -> Tensor:
        """Pixel sizes ``(N,)`` after Fourier cropping each image to ``box``: the extent stays."""
        return self.apix * self.box / box


def read_poses(path: str | Path, box: int, apix: float) -> Poses:
    """Poses of ``.pkl`` (cryoDRGN; a tuple, or rotations alone with zero shifts) or ``.npy`` (:func:`write_poses`).

    ``box`` and ``apix`` of the images turn fractions of the box into Å.
    Raises :class:`InputError` for other contents, shifts in pixels (cryoDRGN's oldest format) and non-rotations.
    """
    path = Path(path)
    if path.suffix == ".npy":
        rows = _numbers(read_array(path, "poses (N, 11)"), path, "poses (N, 11)")
        if rows.ndim != 2 or rows.shape[1] != 11:
            raise InputError(f"{path}: expected poses (N, 11), nine of the rotation and the shift in Å, found "
                             f"{rows.shape}")
        return Poses.checked(torch.from_numpy(rows[:, :9]).reshape(-1, 3, 3), torch.from_numpy(rows[:, 9:]), str(path))
    held = load_pickles(path)[0]
    parts = held if isinstance(held, tuple | list) else (held,)
    if not 1 <= len(parts) <= 2:
        raise InputError(f"{path}: expected rotations, or rotations and shifts, found {len(parts)} arrays")
    rotation = torch.from_numpy(_numbers(parts[0], path, "rotations (N, 3, 3)"))
    if len(parts) == 1:
        return Poses.checked(rotation, torch.zeros(len(rotation), 2), str(path))
    shift = torch.from_numpy(_numbers(parts[1], path, "shifts (N, 2)"))
    if bool((shift.abs() > 1).any()):
        raise InputError(f"{path}: expected shifts in fractions of the box (at most 1), found "
                         f"{float(shift.abs().max()):g}; this is the old format in pixels: divide the shifts by the "
                         "box, or parse the star or cs file again")
    return Poses.checked(rotation, shift * (box * apix), str(path))


def write_poses(path: str | Path, poses: Poses, box: int, apix: float | Tensor) -> None:
    """Write ``.pkl`` (cryoDRGN) or ``.npy``: ``(N, 11)``, the rotation's nine entries by rows and the shift in Å.

    ``apix``: of the Å that the shifts are in, one for all or ``(N,)``.
    """
    path = Path(path)
    if path.suffix == ".npy":
        write_array(path, torch.cat([poses.rotation.flatten(1), poses.shift], 1).numpy())
    else:
        _require_pkl(path)
        extent = box * torch.as_tensor(apix, dtype=torch.float64).reshape(-1, 1)
        dump_pickles(path, (poses.rotation.numpy(), (poses.shift / extent).float().numpy()))


def read_ctf(path: str | Path) -> CtfTable:
    """A CTF table of ``.pkl`` or ``.npy``, ``(N, 9)`` (8 columns: phase 0). Raises :class:`InputError`."""
    path = Path(path)
    what = "a CTF table (N, 9)"
    rows = _numbers(read_array(path, what) if path.suffix == ".npy" else load_pickles(path)[0], path, what)
    if rows.ndim != 2 or rows.shape[1] not in (8, 9):
        raise InputError(f"{path}: expected a CTF table (N, 9) [{', '.join(CTF_COLUMNS)}], found shape {rows.shape}")
    if not np.isfinite(rows).all() or (rows[:, :2] <= 0).any() or (rows[:, 5] <= 0).any():
        raise InputError(f"{path}: expected finite CTF values with positive box, pixel size and voltage, found others "
                         f"in row "
                         f"{int(np.flatnonzero(~(np.isfinite(rows).all(1) & (rows[:, [0, 1, 5]] > 0).all(1)))[0]) + 1}")
    columns = torch.from_numpy(rows if rows.shape[1] == 9 else np.pad(rows, ((0, 0), (0, 1)))).unbind(1)
    optics = Optics.from_columns(
        len(rows), defocus_u=columns[2], defocus_v=columns[3], astigmatism=torch.deg2rad(columns[4]),
        voltage=columns[5], cs=columns[6], amplitude_contrast=columns[7], phase_shift=torch.deg2rad(columns[8]),
    )
    return CtfTable(optics, columns[0], columns[1])


def write_ctf(path: str | Path, optics: Optics, box: int, apix: Tensor | float) -> None:
    """Write ``.pkl`` or ``.npy``; ``apix`` ``(N,)`` or one for all. B-factor and scale have no place in this format."""
    path = Path(path)
    column = {name: optics.column(name).double() for name in
              ("defocus_u", "defocus_v", "astigmatism", "voltage", "cs", "amplitude_contrast", "phase_shift")}
    n = len(optics)
    rows = torch.stack([
        torch.full((n,), float(box), dtype=torch.float64), torch.as_tensor(apix, dtype=torch.float64).expand(n),
        column["defocus_u"], column["defocus_v"], torch.rad2deg(column["astigmatism"]), column["voltage"], column["cs"],
        column["amplitude_contrast"], torch.rad2deg(column["phase_shift"]),
    ], 1).float().numpy()
    if path.suffix == ".npy":
        write_array(path, rows)
    else:
        _require_pkl(path)
        dump_pickles(path, rows)


def read_indices(path: str | Path, n: int | None = None) -> np.ndarray:
    """Positions ``(M,)`` int64 of ``.pkl``/``.ind`` (cryoDRGN), ``.npy`` or ``.txt``, as :func:`checked_indices`. Raises
    :class:`InputError`."""
    path = Path(path)
    if path.suffix == ".npy":
        held = read_array(path, "an array of numbers")
    elif path.suffix == ".txt":
        held = read_columns(path, "a list of whole numbers")
    else:
        held = as_array(load_pickles(path)[0], path)
    return checked_indices(held, n, f"{path}: ")


def checked_indices(values: np.ndarray, n: int | None = None, where: str = "") -> np.ndarray:
    """Positions ``(M,)`` int64 of a list of whole numbers, or of a mask of ``n`` booleans; ``where`` begins errors.

    Raises :class:`InputError` for anything but different whole numbers in ``[0, n)``: an image that is taken twice would
    stand in both half-sets.
    """
    if values.dtype == bool and values.ndim == 1 and (n is None or len(values) == n):
        return np.flatnonzero(values)
    if values.ndim != 1 or values.dtype.kind not in "iuf" or (values.dtype.kind == "f" and (values != np.floor(values)).any()):
        raise InputError(f"{where}expected a list of whole numbers, found {values.dtype} of shape {values.shape}")
    indices = values.astype(np.int64, copy=False)
    if len(indices) == 0:
        raise InputError(f"{where}expected at least one index, found none")
    if n is not None and (indices.min() < 0 or indices.max() >= n):
        raise InputError(f"{where}expected indices from 0 to {n - 1}, found {int(indices.min())} to "
                         f"{int(indices.max())}; the list belongs to another data set")
    order = np.sort(indices)
    again = order[1:][order[1:] == order[:-1]]
    if len(again):
        raise InputError(f"{where}expected each index once, found {len(again)} of {len(indices)} repeated, the first "
                         f"{int(again[0])}; remove them")
    return indices


def write_indices(path: str | Path, indices: np.ndarray) -> None:
    """Write positions as ``.npy``, ``.txt`` or a pickle (``.pkl``, ``.ind``)."""
    path = Path(path)
    if path.suffix == ".npy":
        write_array(path, np.asarray(indices, np.int64))
    elif path.suffix == ".txt":
        with atomic_path(path) as temporary:
            np.savetxt(temporary, indices, fmt="%d")
    else:
        dump_pickles(path, np.asarray(indices, np.int64))


def read_latents(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean ``(N, d)`` and log variance (None where absent) of a ``z.N.pkl``, ``.npy`` or ``.txt``."""
    path = Path(path)
    if path.suffix == ".npy":
        return _numbers(read_array(path, "latents (N, d)"), path, "latents (N, d)"), None
    if path.suffix == ".txt":
        return read_columns(path, "latents, a row for each particle", 2), None
    parts = [_numbers(part, path, "latents (N, d)") for part in load_pickles(path)]
    return parts[0], parts[1] if len(parts) > 1 else None


def write_latents(path: str | Path, mean: np.ndarray, log_variance: np.ndarray | None = None) -> None:
    """Write cryoDRGN's ``z.N.pkl``: the mean's pickle, then that of the log variance."""
    values = (mean,) if log_variance is None else (mean, log_variance)
    dump_pickles(path, *(np.asarray(value, np.float32) for value in values))


def _numbers(value: Any, path: Path, what: str) -> np.ndarray:
    """``value`` as float64 in this machine's byte order."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected {what}, found {type(value).__name__}")
    return value.astype(np.float64)


def as_array(value: Any, path: Path) -> np.ndarray:
    """A list of a pickle as an array; :class:`InputError` where its parts are no numbers or of unlike lengths."""
    try:
        return np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: expected an array, found {type(value).__name__} ({error})") from None


def _require_pkl(path: Path) -> None:
    if path.suffix not in (".pkl", ".pickle"):
        raise InputError(f"{path}: expected a name that ends in .pkl, .npy or .star, found {path.suffix or 'none'}")
