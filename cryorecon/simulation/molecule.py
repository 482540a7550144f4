"""Molecules as atoms in conformations: from coordinate files or built in."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.arrays import read_npz
from cryorecon.data.files import is_gzip, require_file, unpack
from cryorecon.errors import InputError


@dataclass(frozen=True)
class Molecule:
    """Atoms in S conformations.

    coordinates: ``(S, A, 3)`` in Å, ``(x, y, z)``. element: ``(A,)`` int64, index into ``elements``.
    elements: names. coordinate: ``(S, q)``, where each state lies along its motions (the truth that z should find).
    occupancy: ``(S, A)``, each atom's weight: 0 where a state lacks it.
    """

    coordinates: Tensor
    element: Tensor
    elements: tuple[str, ...]
    coordinate: Tensor
    occupancy: Tensor
    usual_b_factor: ClassVar[float] = 20.0  # Å^2

    @property
    def n_states(self) -> int:
        """Number of conformations ``S``."""
        return len(self.coordinates)

    def centred(self) -> "Molecule":
        """The same with the mean of all atoms of all states at the origin."""
        centre = (self.coordinates * self.occupancy[..., None]).sum((0, 1)) / self.occupancy.sum()
        return replace(self, coordinates=self.coordinates - centre)

    def radius(self) -> float:
        """Largest distance of an atom from the origin, in Å."""
        return float((self.coordinates.norm(dim=-1) * (self.occupancy > 0)).max())


def of_elements(coordinates: Tensor, names: list[str], coordinate: Tensor | None = None,
                occupancy: Tensor | None = None) -> Molecule:
    """A molecule from ``(S, A, 3)`` coordinates and one element name per atom.

    Where not given, states lie on a line from 0 to 1 and have all atoms.
    """
    elements = tuple(sorted(set(names)))
    index = torch.tensor([elements.index(name) for name in names])
    if coordinate is None:
        n = len(coordinates)
        coordinate = torch.linspace(0, 1, n)[:, None] if n > 1 else torch.zeros(1, 1)
    if occupancy is None:
        occupancy = torch.ones(coordinates.shape[:2])
    return Molecule(coordinates.float(), index, elements, coordinate.float(), occupancy.float())


def load(path: str | Path) -> Molecule:
    """Atoms of a PDB or mmCIF file (gzip too; each model is a state), or of an ``.npz`` of states.

    The ``.npz`` holds ``xyz (S, A, 3)`` times ``scale`` in Å with ``atom (A,)`` PDB atom names, or ``ca (S, A, 3)``
    times ``scale``, C-alpha atoms only; ``state (S, q)`` may say where states lie along their motions. Hydrogens and
    waters are left out, and of alternative places the first is taken.

    Raises
    ------
    InputError: the file is absent, no model, or holds no atoms or models of unlike atoms.
    """
    path = require_file(path, "an atomic model (.pdb, .cif, .npz)")
    if path.suffix == ".npz":
        return _load_npz(path)
    import gemmi

    raw, kind = unpack(path) if is_gzip(path) else path.read_bytes(), gemmi.CoorFormat
    endings = {".pdb": kind.Pdb, ".ent": kind.Pdb, ".cif": kind.Mmcif, ".mmcif": kind.Mmcif}
    form = endings.get(Path(path.name.removesuffix(".gz")).suffix, kind.Detect)
    try:
        structure = gemmi.read_structure_string(raw, format=form)
    except (ValueError, RuntimeError, OSError, LookupError) as error:
        raise InputError(f"{path}: expected an atomic model (.pdb, .cif), found another file ({error})") from error
    structure.remove_waters()
    structure.remove_hydrogens()
    models = [[(atom.element.name, atom.pos.tolist()) for chain in model for residue in chain for atom in residue
               if atom.altloc in ("\0", "A")] for model in structure]
    if not models or not models[0] or any([n for n, _ in m] != [n for n, _ in models[0]] for m in models):
        counts = ", ".join(str(len(model)) for model in models) or "no model"
        raise InputError(f"{path}: expected models of the same atoms, found {counts} atoms; give one model")
    coordinates = torch.tensor([[position for _, position in model] for model in models])
    if not bool(coordinates.isfinite().all()):
        raise InputError(f"{path}: expected finite coordinates, found others; correct or remove these atoms")
    return of_elements(coordinates, [name for name, _ in models[0]]).centred()


def _load_npz(path: Path) -> Molecule:
    arrays = read_npz(path, "arrays xyz and atom, or ca")
    kind = next((name for name in ("xyz", "ca") if name in arrays), None)
    if kind is None or (kind == "xyz" and "atom" not in arrays):
        raise InputError(f"{path}: expected arrays xyz and atom, or ca, found {sorted(arrays)}; see docs/formats")
    numbers = [arrays[name] for name in (kind, "scale", "state") if name in arrays]
    if any(array.dtype.kind not in "fiu" or not np.isfinite(array).all() for array in numbers):
        raise InputError(f"{path}: expected finite numbers in {kind}, scale and state, found others; see docs/formats")
    scale = np.asarray(arrays.get("scale", 1.0))
    if scale.size != 1 or ("state" in arrays and len(arrays["state"].reshape(-1)) % max(1, len(arrays[kind]))):
        raise InputError(f"{path}: expected one scale and a row of state for each of {len(arrays[kind])} states, found others")
    scaled = arrays[kind] * float(scale.item())
    names = [str(atom).lstrip("0123456789")[:1] for atom in arrays["atom"].reshape(-1)] if kind == "xyz" else None
    if scaled.ndim != 3 or scaled.shape[2] != 3 or not scaled.size or (names is not None and len(names) != scaled.shape[1]):
        raise InputError(f"{path}: expected {kind} (states, atoms, 3) and as many atom names, found {scaled.shape}")
    truth = None
    if "state" in arrays:
        state = arrays["state"].astype(np.float32).reshape(len(scaled), -1)
        truth = torch.from_numpy((state - state.min(0)) / np.maximum(np.ptp(state, 0), 1e-6))
    return of_elements(torch.from_numpy(scaled), names or ["C"] * scaled.shape[1], truth).centred()
