"""Poses of any file, side by side with others: what unit its shifts are in, and which images they are of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.arrays import read_npz
from cryorecon.data.cryodrgn_files import read_ctf, read_poses
from cryorecon.data.files import require_file
from cryorecon.data.load import PREPARED, read_metadata
from cryorecon.data.poses import Poses
from cryorecon.data.safe_pickle import load_pickles
from cryorecon.errors import InputError

UNITS = ("Å", "px", "box")  # of shifts, the best first; "box" is a fraction of the box, as cryoDRGN writes them
KINDS = "a run's folder, .star, .cs, .pkl, .npy or truth.npz"


@dataclass(frozen=True)
class ImageSize:
    """Box in px and pixel size in Å of images, None where unknown; ``path``: the file that says so."""

    path: Path
    box: int | None = None
    apix: float | None = None

    def factor(self, unit: str, target: str) -> float | None:
        """What shifts of ``unit`` are multiplied by to be of unit ``target``; None where that takes what is unknown."""
        pixels = {"px": 1.0, "box": self.box, "Å": None if self.apix is None else 1 / self.apix}
        a, b = pixels[unit], pixels[target]
        return 1.0 if unit == target else None if a is None or b is None else a / b


@dataclass(frozen=True)
class PoseTable:
    """Poses of N images as a file has them.

    rotation: ``(N, 3, 3)``. shift: ``(N, 2)`` in ``unit``, None where the file has rotations alone. row: ``(N,)``, the
    file's row of each image. defocus: ``(N,)`` Å, mean of U and V, None where unknown.
    """

    size: ImageSize
    rotation: Tensor
    shift: Tensor | None
    unit: str
    row: np.ndarray
    defocus: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rotation)

    @property
    def path(self) -> Path:
        """The file."""
        return self.size.path

    @property
    def n_rows(self) -> int:
        """Rows of the file: images, or particles where each row is a tilt series."""
        return int(self.row[-1]) + 1

    def shift_in(self, unit: str, size: ImageSize) -> Tensor | None:
        """The shifts ``(N, 2)`` in ``unit``; None where there are none, or ``size`` lacks what that takes."""
        factor = size.factor(self.unit, unit)
        return None if self.shift is None or factor is None else self.shift * factor

    def select(self, rows: np.ndarray) -> "PoseTable":
        """The images of these rows of the file, in their order."""
        order = np.argsort(self.row, kind="stable")
        start, stop = (np.searchsorted(self.row[order], rows, side) for side in ("left", "right"))
        images = order[np.concatenate([np.arange(a, b) for a, b in zip(start, stop, strict=True)])]
        where = torch.from_numpy(images)
        return replace(self, rotation=self.rotation[where], shift=None if self.shift is None else self.shift[where],
                       row=np.arange(len(images)), defocus=None if self.defocus is None else self.defocus[images])


def read_pose_table(path: str | Path) -> PoseTable:
    """Poses of a run's folder (its newest ``poses.N``), a folder that ``preprocess`` or ``simulate`` made, a star, a cs,
    a cryoDRGN pickle, an ``.npy`` of ours or a simulation's ``truth.npz``.

    Raises
    ------
    InputError: no such file, another kind, no rotations in it, matrices that are no rotations.
    """
    path = Path(path)
    if path.is_dir():
        path = _newest(path)
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    require_file(path, f"poses ({KINDS})")
    if kind in (".star", ".cs"):
        return _of_metadata(path)
    if kind == ".npz":
        return _of_truth(path)
    if kind == ".pkl":
        poses = read_poses(path, 1, 1.0)
        parts = load_pickles(path)[0]
        alone = not isinstance(parts, tuple | list) or len(parts) == 1  # read_poses makes zeros of absent shifts
        return _table(ImageSize(path), poses, None if alone else "box")
    if kind == ".npy":
        return _table(ImageSize(path), read_poses(path, 1, 1.0), "Å")
    raise InputError(f"{path}: expected poses ({KINDS}), found {kind or 'no ending'}")


def _newest(folder: Path) -> Path:
    """The poses of a run's last checkpoint that has any, or the star of prepared or simulated particles."""
    found = [(int(match[1]), path.suffix == ".star", path) for path in folder.iterdir()
             if (match := re.fullmatch(r"poses\.(\d+)\.(star|pkl)", path.name))]
    if found:
        return max(found)[2]
    if (folder / PREPARED).is_file():
        return folder / PREPARED
    raise InputError(f"{folder}: expected a run with poses.N.star, or a folder with {PREPARED}, found neither; a run writes "
                     "poses where it searches or refines them")


def _table(size: ImageSize, poses: Poses, unit: str | None, defocus: np.ndarray | None = None) -> PoseTable:
    return PoseTable(size, poses.rotation, None if unit is None else poses.shift, unit or UNITS[0], np.arange(len(poses)),
                     defocus)


def _of_metadata(path: Path) -> PoseTable:
    meta = read_metadata(path)
    apix = None if meta.apix is None else float(np.median(meta.apix))
    poses = meta.poses(apix or 1.0)
    if poses is None:
        raise InputError(f"{path}: expected poses, found no rotations in it (rlnAngleRot, Tilt, Psi or alignments3D/pose)")
    defocus = None
    if meta.optics is not None:
        defocus = (0.5 * (meta.optics.column("defocus_u") + meta.optics.column("defocus_v"))).numpy()
    found = _table(ImageSize(path, meta.box, apix), poses, "px" if meta.shift_in_pixels and apix is None else "Å", defocus)
    return replace(found, row=meta.particle) if meta.row_is_particle and meta.particle is not None else found


def _of_truth(path: Path) -> PoseTable:
    held = read_npz(path, "the truth of a simulation")
    if "rotation" not in held:
        raise InputError(f"{path}: expected rotation (N, 3, 3) and shift (N, 2), found {', '.join(held) or 'nothing'}")
    numbers = {name: array.astype(np.float64) for name, array in held.items() if array.dtype.kind in "iuf"}
    rotation = torch.from_numpy(numbers.get("rotation", np.zeros(0)))
    shift = torch.from_numpy(numbers["shift"]) if "shift" in numbers else torch.zeros(len(rotation), 2)
    poses = Poses.checked(rotation, shift, str(path))
    box, apix = (float(numbers[name]) if name in numbers and numbers[name].ndim == 0 else None for name in ("box", "apix"))
    return _table(ImageSize(path, None if box is None else int(box), apix), poses, "Å" if "shift" in numbers else None)


def read_defocus(path: str | Path) -> tuple[ImageSize, np.ndarray]:
    """Box and pixel size of a CTF file's images, and their mean defocus ``(N,)`` in Å.

    ``path``: ``.pkl`` or ``.npy`` (cryoDRGN), ``.star``, ``.cs``. Raises :class:`InputError`.
    """
    path = Path(path)
    if path.suffix in (".pkl", ".npy"):
        table = read_ctf(path)
        optics, size = table.optics, ImageSize(path, int(table.box.median()), float(table.apix.median()))
    else:
        meta = read_metadata(path)
        if meta.optics is None:
            raise InputError(f"{path}: expected a CTF, found {', '.join(meta.lacking) or 'rlnDefocusU'} missing")
        optics, size = meta.optics, ImageSize(path, meta.box, None if meta.apix is None else float(np.median(meta.apix)))
    return size, (0.5 * (optics.column("defocus_u") + optics.column("defocus_v"))).numpy()


def common_size(files: Sequence[ImageSize], box: int | None, apix: float | None) -> ImageSize:
    """The images' box and pixel size: the options' ``box`` and ``apix``, else of the first file that has both, else of
    any that has one.

    Raises
    ------
    InputError: options that are not positive, or whose images are of another extent than a file says.
    """
    for name, value in (("-D", box), ("--apix", apix)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name}: expected more than 0, and finite, found {value:g}")
    whole = [file for file in files if file.box and file.apix]
    said = replace(whole[0] if whole else files[0],
                   box=next((file.box for file in whole or files if file.box), None),
                   apix=next((file.apix for file in whole or files if file.apix), None))
    found = replace(said, box=box or said.box, apix=apix or said.apix)
    if said.box and said.apix and found.box and found.apix:
        expected, extent = said.box * said.apix, found.box * found.apix
        if abs(extent / expected - 1) > 0.01:
            raise InputError(f"-D and --apix: expected images of {expected:.4g} Å ({said.box} px of {said.apix:.4g} Å, "
                             f"{said.path}), found {found.box} px of {found.apix:.4g} Å; give both, or leave them out")
    return found
