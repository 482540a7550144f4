"""A run's maps against the true conformations of a simulation.

The mean latent of each true state's particles, the particle nearest to it, and the run's map at that particle's z: for
each, CryoBench's area under the FSC with the true map (shells [i-1, i), no mask unless given). Further the correlation
of difference maps (state minus the mean of states), which only what moves decides, and Spearman's rank correlation of
the principal components of z with the true coordinate. Nothing is fitted to the truth. The truth is what
`cryorecon simulate` writes: truth.npz with state and coordinate, and maps/state_00.mrc ... beside it.

    cryorecon eval_states out --truth hinge/truth.npz
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor

    from cryorecon.analysis.states import StateScores
    from cryorecon.training.trained import Trained


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``eval_states``."""
    parser.add_argument("run", type=Path, help="output folder of a training run")
    parser.add_argument("--truth", type=Path, required=True, metavar="NPZ", help="state (N,) and coordinate (S, q)")
    parser.add_argument("-o", "--outdir", type=Path, metavar="DIR", help="for states.json (default: RUN/states.EPOCH)")
    parser.add_argument("--epoch", type=int, metavar="N", help="which checkpoint (default: the last)")
    parser.add_argument("--mask", type=Path, metavar="MRC", help="multiplies all maps; on the run's box (default: none)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="where to compute (default: auto)")


def main(args: argparse.Namespace) -> None:
    """Compare, print and write.

    Raises
    ------
    InputError: no such run, epoch or truth; a truth of other particles; maps that are absent.
    """
    import torch

    from cryorecon.analysis.states import score_states
    from cryorecon.data.mrc import read_volume
    from cryorecon.errors import InputError
    from cryorecon.training.trained import load_run

    run = load_run(args.run, args.epoch, args.device)
    if run.config.zdim == 0:
        raise InputError(f"{args.run}: expected a run of train_vae, found one of train_nn, which has no conformations")
    state, coordinate = _truth(args.truth, run)
    mask = None
    if args.mask is not None:
        mask = torch.from_numpy(read_volume(args.mask)[0])
        if mask.shape[-1] != run.grid.box:
            raise InputError(f"{args.mask}: expected a mask of {run.grid.box}^3, the run's box, found "
                             f"{mask.shape[-1]}^3")
    scores = score_states(run.z, state, coordinate, run.density, _true_maps(args.truth.parent, run), mask)
    _print(scores, str(args.mask or "none"))
    path = (args.run / f"states.{run.epoch}" if args.outdir is None else args.outdir) / "states.json"
    _write(path, scores, {"run": str(args.run), "epoch": run.epoch, "truth": str(args.truth),
                          "mask": str(args.mask) if args.mask else None, "box": run.grid.box, "apix": run.apix})
    print(f"wrote {path}")


def _truth(path: Path, run: "Trained") -> "tuple[np.ndarray, np.ndarray]":
    """State ``(N,)`` of the run's particles and coordinate ``(S, q)``; the run's --ind is applied."""
    from cryorecon.data.cryodrgn_files import read_indices
    from cryorecon.errors import InputError
    from cryorecon.simulation.archive import read_npz

    held = read_npz(path, "the truth of a simulation")
    absent = {"state", "coordinate"} - set(held)
    if absent:
        raise InputError(f"{path}: expected state and coordinate, found no {' and no '.join(sorted(absent))}")
    state = held["state"]
    if run.config.ind is not None and len(state) != len(run.z):
        state = state[read_indices(run.config.ind, len(state))]
    return state, held["coordinate"].reshape(len(held["coordinate"]), -1)


def _true_maps(folder: Path, run: "Trained") -> "Callable[[int], Tensor]":
    """Number of a state -> its true map on the run's grid."""
    import torch

    from cryorecon.data.mrc import read_volume
    from cryorecon.metrics.resample import resample

    def read(number: int) -> torch.Tensor:
        density, apix = read_volume(folder / "maps" / f"state_{number:02d}.mrc")
        return resample(torch.from_numpy(density), apix or run.apix, run.grid.box, run.apix)

    return read


def _print(scores: "StateScores", mask: str) -> None:
    print(f"mask: {mask}\n{'state':>5} {'particles':>10} {'FSC-AUC':>8}")
    for number, count, area in zip(scores.state, scores.count, scores.auc, strict=True):
        print(f"{number:>5} {count:>10,} {area:>8.4f}")
    print(f"mean area under the FSC (CryoBench): {scores.auc.mean():.4f} (standard deviation {scores.auc.std():.4f})")
    print(f"difference maps, mean correlation: {scores.difference:.4f}")
    for i, row in enumerate(scores.spearman):
        best = ", ".join(f"PC{j + 1} {rho:.4f}" for j, rho in enumerate(row[:3]))
        print(f"|Spearman| of coordinate {i + 1} with: {best}")


def _write(path: Path, scores: "StateScores", facts: dict[str, object]) -> None:
    import json
    import math

    from cryorecon.data.files import atomic_path

    def plain(value: float) -> float | None:
        return None if math.isnan(value) else round(float(value), 6)

    report = {
        **facts,
        "states": scores.state.tolist(), "particles": scores.count.tolist(), "representatives": scores.particle.tolist(),
        "auc": [plain(area) for area in scores.auc], "auc_mean": plain(scores.auc.mean()),
        "difference_correlation": plain(scores.difference),
        "spearman": [[plain(rho) for rho in row] for row in scores.spearman], "spearman_pc1": plain(scores.spearman[0, 0]),
    }  # fmt: skip
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
