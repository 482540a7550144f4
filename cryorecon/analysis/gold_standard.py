"""The gold standard of two runs on halves of the data that never met: FSCs of their maps, corrected for the mask.

Compared are the maps that the runs give, and beside them the plain backprojections of each half's images, which neither a
network nor a filter has touched. Where poses were searched the halves have frames and hands of their own: the second is laid on
the first, one rotation, shift and hand for all its maps.

Of runs with conformations the landscapes are compared by :mod:`cryorecon.analysis.halves`, and maps of corresponding states are
matched by its plan: the states are particles of the first run along its main motion, and each one's partner is the particle of
the second run whose map the optimal matching of all drawn maps gave it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryorecon.analysis import halves
from cryorecon.data.arrays import write_csv
from cryorecon.data.files import atomic_path
from cryorecon.data.mrc import read_volume, write_volume
from cryorecon.errors import InputError
from cryorecon.geometry.fourier import resample
from cryorecon.imaging.masks import from_map
from cryorecon.metrics.alignment import Alignment, align, apply
from cryorecon.metrics.solvent import SolventFSC, solvent_fsc
from cryorecon.training.trained import Trained

MAPS = 50  # in a draw of a landscape
BOX = 48  # px, of the maps by which landscapes are compared
STATES = 5  # whose maps are compared at full size
THRESHOLDS = (0.143, 0.5)
AUTOMATIC = "automatic, of both halves' backprojections"


@dataclass(frozen=True)
class GoldStandard:
    """pairs: name -> the curves of two maps: ``map`` or ``state 1`` ..., and ``backprojection``. mask ``(D, D, D)`` and its
    name. alignment: of the second half on the first, None where poses were given. landscapes: of runs with conformations."""

    pairs: dict[str, SolventFSC]
    mask: Tensor
    mask_name: str
    apix: float
    alignment: Alignment | None = None
    landscapes: halves.HalvesAgreement | None = None

    def lines(self) -> list[str]:
        """What was found, a line for each pair of maps."""
        said = []
        for name, pair in self.pairs.items():
            found = pair.resolutions(self.apix)
            told = ", ".join(f"{kind} {each.bound}{each.angstrom:.2f} Å" for kind, each in found.items())
            said.append(f"gold standard of the {name}, FSC {THRESHOLDS[0]:g}: {told}")
        return said


def gold_standard(a: Trained, b: Trained, seed: int = 0) -> GoldStandard:
    """Compare two runs, on the mask that they were given or one made of both backprojections.

    Raises
    ------
    InputError: runs of other boxes or of other numbers of latents, or whose consensus maps are gone.
    """
    if a.grid.box != b.grid.box or a.config.zdim != b.config.zdim:
        raise InputError(f"expected two runs alike, found {a.grid.box} px with zdim {a.config.zdim} and {b.grid.box} px with "
                         f"zdim {b.config.zdim}")
    found = align(_read(b, "consensus"), _read(a, "consensus"), a.apix) if a.searched or b.searched else None

    def laid(density: Tensor) -> Tensor:
        return density if found is None else apply(found, density, b.apix)

    first, second = _backprojection(a), laid(_backprojection(b))
    if a.config.mask is not None:
        mask, name = a.mask(a.config.mask), a.config.mask
    else:
        mask, name = from_map((first + second) / 2, a.apix), AUTOMATIC
    landscapes = None
    if a.config.zdim == 0:
        nothing = torch.zeros(1, 0)
        maps = {"map": (a.density(nothing)[0], laid(b.density(nothing)[0]))}
    else:
        landscapes, rows = _matched(a, b, found, mask, seed)
        maps = {f"state {number}": (a.density(a.z[[i]])[0], laid(b.density(b.z[[j]])[0]))
                for number, (i, j) in enumerate(rows, 1)}
    maps["backprojection"] = first, second
    pairs = {what: solvent_fsc(one, other, mask, name, seed) for what, (one, other) in maps.items()}
    return GoldStandard(pairs, mask, name, a.apix, found, landscapes)


def _read(run: Trained, name: str) -> Tensor:
    return torch.from_numpy(read_volume(run.directory.path / f"{name}.mrc")[0])


def _backprojection(run: Trained) -> Tensor:
    """All images of a run, unfiltered and without a mask: the mean of its own half maps."""
    return (_read(run, "half_map_a") + _read(run, "half_map_b")) / 2


def _matched(a: Trained, b: Trained, found: Alignment | None, mask: Tensor,
             seed: int) -> tuple[halves.HalvesAgreement, list[tuple[int, int]]]:
    """The two landscapes compared, and particles of either run that stand for the same states along A's main motion."""
    k, box = min(MAPS, len(a.z) // 2, len(b.z) // 2), min(BOX, a.grid.box)
    apix = a.apix * a.grid.box / box
    seeds = seed, seed + 1
    first, second = (halves.draw(run.z, run.density, k, box, each) for run, each in zip((a, b), seeds, strict=True))
    if found is not None:
        second = halves.moved(second, found, apix)
    agreement = halves.compare_landscapes(first, second, resample(mask, box, 3).clamp(0, 1), apix)
    rows_a, rows_b = (halves.drawn_particles(run.z, k, each)[0] for run, each in zip((a, b), seeds, strict=True))
    states = np.unique(np.linspace(0, k - 1, STATES).round().astype(int))  # draws are in the order of the main motion
    return agreement, [(int(rows_a[state]), int(rows_b[agreement.partner[0, state]])) for state in states]


def write(folder: Path, found: GoldStandard, facts: Mapping[str, Any]) -> None:
    """Write ``fsc.csv``, ``gold_standard.json`` (``facts`` first) and ``mask.mrc``; of landscapes ``halves.json`` too."""
    rows = ((name, i, each.corrected.frequency[i].item(), found.apix / each.corrected.frequency[i].item() if i else "",
             *(curve.value[i].item() for curve in each.curves().values()))
            for name, each in found.pairs.items() for i in range(len(each.corrected.value)))
    write_csv(folder / "fsc.csv", ("map", "shell", "frequency_per_px", "resolution_angstrom", "corrected", "masked", "unmasked",
                                   "phases_randomised"), rows)
    write_volume(folder / "mask.mrc", found.mask.numpy(), found.apix)
    report: dict[str, Any] = {**facts, "mask": found.mask_name, "apix": found.apix, "maps": {
        name: {"phases_randomised_from_shell": each.first,
               "resolution": {f"{level:g}": {kind: asdict(one) for kind, one in each.resolutions(found.apix, level).items()}
                              for level in THRESHOLDS}}
        for name, each in found.pairs.items()}}
    if found.alignment is not None:
        report["alignment"] = {"rotation": found.alignment.rotation.tolist(), "hand": found.alignment.hand,
                               "shift_angstrom": found.alignment.shift.tolist(), "correlation": found.alignment.correlation}
    with atomic_path(folder / "gold_standard.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    if found.landscapes is not None:
        halves.write(folder, found.landscapes, None, dict(facts))
