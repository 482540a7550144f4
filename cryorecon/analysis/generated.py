"""The standard look at a run of train_gan: its maps along alpha, how alike they are, whether they still change. Writes arrays
and maps.

Such a run infers nothing of any particle. Its conformations are a generator's maps x(alpha), alpha uniform on [0, 1], and what
is counted here are shares of alpha.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cryorecon.analysis.trajectories import write_series
from cryorecon.data.arrays import read_numbers, write_array, write_csv
from cryorecon.data.files import atomic_path, read_records
from cryorecon.metrics import occupancy
from cryorecon.metrics.fsc import FSCCurve, Resolution, auc, cross_conformation, pooled_curve, resolution
from cryorecon.training.trained import Trained, load_run

STEPS = 20  # L: maps at alpha = n / L, n = 0 .. L
LAST = 1 / 3  # of the epochs, whose checkpoints say how much occupancies scatter
MOST = 6  # earlier checkpoints that are decoded
ALIKE = 0.98  # area under the FSC of any two maps above which they show no conformations


@dataclass(frozen=True)
class Occupancy:
    """parts ``(n,)`` of the maps, shares ``(3,)`` (:data:`cryorecon.metrics.occupancy.PARTS`) of the checkpoint that is looked
    at; error ``(3,)``: standard deviation over ``checkpoints``, this one among them, None of one alone."""

    parts: np.ndarray
    share: np.ndarray
    error: np.ndarray | None
    checkpoints: list[int]


@dataclass(frozen=True)
class Generated:
    """What :func:`explore_generated` found and where it wrote it.

    alpha: ``(n,)``, one 0 for one structure. maps: ``(n, D, D, D)``, and their files, none where none were asked for. areas:
    ``(n, n)``, those under the FSC in units of a map's with itself. occupancy: rule -> what it says; empty where alpha is no
    single number. earlier: epoch -> FSC of that checkpoint's maps with these, pooled over alpha. images: ``(3, m, D, D)``,
    real, simulated and noise-free ones, or None. doubts: what the run itself warned of in this epoch. files: what was written
    -> what it is.
    """

    folder: Path
    epoch: int
    apix: float
    zdim: int
    alpha: np.ndarray
    maps: Tensor
    map_files: list[Path]
    areas: np.ndarray
    occupancy: dict[str, Occupancy]
    earlier: dict[int, FSCCurve]
    images: np.ndarray | None
    doubts: list[str]
    files: dict[str, str]

    @property
    def alike(self) -> bool:
        """Whether all maps along alpha are one."""
        return len(self.alpha) > 1 and float(self.areas.min()) > ALIKE

    def unchanged(self, epoch: int) -> Resolution:
        """The resolution to which the maps of an earlier ``epoch`` are these: where their FSC falls below 0.5."""
        return resolution(self.earlier[epoch], 0.5, self.apix)


def explore_generated(run: Trained, folder: Path, apix: float | None = None, write_maps: bool = True) -> Generated:
    """Look at an adversarial run; all is written below ``folder``.

    ``vol_000.mrc`` ... ``vol_020.mrc`` at alpha = n / 20 with ``z_values.txt``; ``fsccc.npy``, ``fsccc.csv``, ``alpha.csv`` and
    ``occupancies.csv``; ``settling.csv``. Of one structure ``vol_000.mrc`` and ``settling.csv``. apix: Å (default: the run's).
    Where alpha has several numbers, they go from 0 to 1 together, and no occupancies are told.
    """
    apix = run.apix if apix is None else apix
    zdim = run.config.zdim
    alpha = np.arange(STEPS + 1) / STEPS if zdim else np.zeros(1)
    z = np.repeat(alpha[:, None], zdim, 1).astype(np.float32)
    maps = _decode(run, z)
    held = iter(maps)
    paths = write_series(folder, lambda _: next(held), z, apix, "maps", first=0) if write_maps else []
    areas = occupancy.normalised(cross_conformation(maps).numpy()) if zdim else np.ones((1, 1))
    earlier, parts = {}, {run.epoch: _parts(areas, zdim)}
    for epoch in compared(run.directory.epochs(), run.epoch, LAST if zdim else 1):
        other = _decode(load_run(run.directory.path, epoch, str(run.grid.device)), z)
        earlier[epoch] = pooled_curve(other, maps)
        if zdim == 1:
            parts[epoch] = _parts(occupancy.normalised(cross_conformation(other).numpy()), zdim)
    found = Generated(folder, run.epoch, apix, zdim, alpha, maps, paths, areas, _occupancies(parts, run.epoch), earlier,
                      _images(run), read_doubts(run.directory.path / "metrics.jsonl", run.epoch), {})
    _write(found)
    return found


def _decode(run: Trained, z: np.ndarray) -> Tensor:
    """Maps ``(n, D, D, D)`` at ``z (n, d)``, one by one: a network's layers are many times a map."""
    return torch.cat([run.density(point[None]) for point in tqdm(z, desc=f"epoch {run.epoch}", unit="map", disable=None,
                                                                 leave=False)])


def compared(epochs: list[int], last: int, share: float) -> list[int]:
    """Checkpoints before ``last`` among ``epochs``, of the last ``share`` of its epochs and without the start: at most 6,
    evenly chosen, the earliest among them."""
    within = [epoch for epoch in epochs if max(0.0, last * (1 - share)) < epoch < last]
    return [within[i] for i in np.unique(np.linspace(0, len(within) - 1, min(MOST, len(within))).round().astype(int))]


def _parts(areas: np.ndarray, zdim: int) -> dict[str, np.ndarray]:
    """Rule -> part of each map."""
    return {name: rule(areas) for name, rule in occupancy.RULES.items()} if zdim == 1 else {}


def _occupancies(parts: Mapping[int, Mapping[str, np.ndarray]], epoch: int) -> dict[str, Occupancy]:
    """By rule, from epoch -> rule -> parts."""
    found = {}
    for rule, own in parts[epoch].items():
        shares = np.stack([occupancy.fractions(parts[one][rule]) for one in sorted(parts)])
        error = shares.std(0, ddof=1) if len(shares) > 1 else None
        found[rule] = Occupancy(own, occupancy.fractions(own), error, sorted(parts))
    return found


def _images(run: Trained) -> np.ndarray | None:
    path = run.directory.path / f"samples.{run.epoch}.npy"
    return read_numbers(path, "images of a run") if path.is_file() else None


def read_doubts(path: Path, epoch: int) -> list[str]:
    """What a run warned of in ``epoch``, from its ``metrics.jsonl``; a line cut short is passed over."""
    doubts: list[str] = []
    for record in read_records(path):
        if record.get("epoch") == epoch and isinstance(record.get("doubts"), list):
            doubts = [str(one) for one in record["doubts"]]
    return doubts


def _write(found: Generated) -> None:
    """Arrays and tables, and what they are into ``files``."""
    folder, files = found.folder, found.files
    if found.map_files:
        files.update({"vol_*.mrc": "maps at alpha = n / 20, n = 0 to 20"} if found.zdim else {"vol_000.mrc": "the map"})
        files["z_values.txt"] = "where they were decoded, in the form that eval_vol --zfile reads"
    if found.zdim:
        write_array(folder / "fsccc.npy", found.areas)
        names = [f"{alpha:g}" for alpha in found.alpha]
        write_csv(folder / "fsccc.csv", ["alpha", *names], ([name, *row] for name, row in zip(names, found.areas, strict=True)))
        files["fsccc.npy"] = files["fsccc.csv"] = "area under the FSC of every pair of maps; a map's with itself is 1"
    if found.occupancy:
        parts = [[occupancy.PARTS[i] for i in rule.parts] for rule in found.occupancy.values()]
        write_csv(folder / "alpha.csv", ["alpha", "with_first", "with_last", *(f"by_{name}" for name in found.occupancy)],
                  zip(found.alpha, found.areas[0], found.areas[-1], *parts, strict=True))
        rows = [(rule, part, one.share[i], "" if one.error is None else one.error[i], len(one.checkpoints))
                for rule, one in found.occupancy.items() for i, part in enumerate(occupancy.PARTS)]
        write_csv(folder / "occupancies.csv", ("rule", "part", "share", "error", "checkpoints"), rows)
        files["alpha.csv"] = "each map's area with the first and with the last, and the part that either rule puts it in"
        files["occupancies.csv"] = "shares of the two conformations and of the transition, by either rule"
    if found.earlier:
        write_csv(folder / "settling.csv", ("epoch", "A_at_fsc_0.5", "area"),
                  [(epoch, found.unchanged(epoch).angstrom, auc(curve) / 0.5) for epoch, curve in found.earlier.items()])
        files["settling.csv"] = "how far the maps of earlier checkpoints are these"


def write_generated_summary(found: Generated, facts: Mapping[str, object]) -> dict[str, object]:
    """Write ``summary.json``: ``facts`` (run, epoch, version ...) with what was found; returns it."""
    def said(one: Occupancy) -> dict[str, object]:
        return {"shares": one.share.round(5).tolist(), "errors": None if one.error is None else one.error.round(5).tolist(),
                "checkpoints": one.checkpoints}

    summary: dict[str, object] = {
        **facts, "zdim": found.zdim, "maps": len(found.alpha), "alike": found.alike,
        "occupancies": {rule: said(one) for rule, one in found.occupancy.items()}, "occupancies_of": list(occupancy.PARTS),
        "A_unchanged_since": {str(epoch): round(found.unchanged(epoch).angstrom, 4) for epoch in found.earlier},
        "empty": not bool(torch.any(found.maps > 0)), "doubts": found.doubts, "files": found.files,
    }
    with atomic_path(found.folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n")
    return summary
