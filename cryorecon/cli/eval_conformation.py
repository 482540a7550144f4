"""A run's conformations against the true ones of a simulation.

Per state and per image CryoBench's area under the FSC; correlation of difference maps and Spearman's of z with the true
coordinates; neighbourhood similarity and information imbalance of z and truth; the Flatiron challenge's distances between
the true distribution and the run's cluster maps with their populations; occupancies; the cross-conformation FSC matrix
(FSCCC). Nothing is fitted to the truth, and no map is aligned: poses that the run found itself need eval_fsc --align first.
The truth is what `cryorecon simulate` writes: truth.npz with state and coordinate, and maps/state_00.mrc ... beside it.
Writes conformation.json, conformation.npz, fsc.png and fsccc.png.

    cryorecon eval_conformation out --truth hinge/truth.npz
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cryorecon.cli import texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryorecon.analysis.conformation import Submission
    from cryorecon.training.trained import Trained


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``eval_conformation``."""
    parser.add_argument("run", type=Path, help=texts.RUN)
    parser.add_argument("--truth", type=Path, required=True, metavar="NPZ",
                        help="truth.npz of simulate: state (N,) and coordinate (S, q)")
    parser.add_argument("--maps", type=Path, metavar="DIR",
                        help="folder of the true state_00.mrc ... (default: maps beside the truth)")
    parser.add_argument("-o", "--outdir", type=Path, metavar="DIR", help="where to write (default: RUN/conformation.EPOCH)")
    parser.add_argument("--epoch", type=int, metavar="N", help=texts.CHECKPOINT)
    parser.add_argument("--mask", type=Path, metavar="MRC",
                        help="soft mask that multiplies all maps, on the run's box (default: none)")
    parser.add_argument("-n", "--images", type=int, default=100, metavar="N",
                        help="number of images of the per-image FSC (default: 100)")
    parser.add_argument("-k", "--clusters", type=int, default=80, metavar="K", help="maps that stand for the run in the "
                        "challenge's distances and the occupancies (default: 80, the challenge's number)")
    parser.add_argument("--submitted", type=Path, nargs="+", metavar="MRC", help="judge these maps instead of cluster maps")
    parser.add_argument("--populations", type=Path, metavar="TXT",
                        help="populations of --submitted, one number a line (default: equal)")
    parser.add_argument("--by-maps", action="store_true", help="true neighbours are those of the true maps, not of the "
                        "coordinates: for states on a circle or of no order")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of k-means (default: 0)")
    parser.add_argument("--device", default="auto", metavar="NAME", help=texts.DEVICE)


def main(args: argparse.Namespace) -> None:
    """Compare, print and write.

    Raises
    ------
    InputError: no such run, epoch or truth; a truth of other particles; maps that are absent or of another box.
    """
    from cryorecon.analysis.conformation_scores import judge, summary, write
    from cryorecon.analysis.truth import read_truth
    from cryorecon.data.files import below
    from cryorecon.errors import InputError
    from cryorecon.report.conformation_plots import cross_conformation, state_curves
    from cryorecon.report.style import save
    from cryorecon.training.trained import load_run

    run = load_run(args.run, args.epoch, args.device)
    if run.config.zdim == 0:
        raise InputError(f"{args.run}: expected a run of train_vae, found one of a single map, which has no conformations")
    if args.images < 1:
        raise InputError(f"--images: expected at least 1, found {args.images}")
    truth = read_truth(args.truth, run, args.maps)
    mask = None if args.mask is None else run.mask(args.mask)
    scores = judge(run.z, truth, run.density, mask, args.images, args.clusters, args.seed, _submitted(args, run), args.by_maps)
    kept = int(truth.mapped.sum())
    print(f"mask: {args.mask or 'none'}")
    if kept < len(run.z):
        print(f"{kept:,} of {len(run.z):,} particles: the others' states have no map")
    print(summary(scores))
    folder = below(args.run, f"conformation.{run.epoch}") if args.outdir is None else args.outdir
    facts = {"run": str(args.run), "epoch": run.epoch, "truth": str(args.truth), "mask": str(args.mask) if args.mask else None,
             "box": run.grid.box, "apix": run.apix, "particles_used": kept, "seed": args.seed, "by_maps": args.by_maps,
             "submitted": None if args.submitted is None else [str(path) for path in args.submitted]}
    write(scores, folder, facts)
    save(state_curves(scores.states, scores.images, run.apix), folder / "fsc.png")
    save(cross_conformation(scores.cross), folder / "fsccc.png")
    print(f"wrote {folder}/conformation.json, conformation.npz, fsc.png, fsccc.png")


def _submitted(args: argparse.Namespace, run: "Trained") -> "Callable[[int], Submission] | None":
    """What --submitted names, read when the box is known."""
    from cryorecon.errors import InputError

    if args.submitted is None:
        if args.populations is not None:
            raise InputError("--populations: expected --submitted beside it, found none; the run's maps have their clusters'")
        return None

    def read(box: int) -> "Submission":
        import numpy as np
        import torch

        from cryorecon.analysis.conformation import Submission
        from cryorecon.data.arrays import read_columns
        from cryorecon.data.mrc import read_volume
        from cryorecon.metrics.resample import resample

        n = len(args.submitted)
        population = np.full(n, 1.0)
        if args.populations is not None:
            population = read_columns(args.populations, "populations")
        if population.shape != (n,) or not (population >= 0).all() or not population.sum() > 0:
            raise InputError(f"{args.populations}: expected {n} populations of at least 0, found shape {population.shape}")
        read = [read_volume(path) for path in args.submitted]
        maps = [resample(torch.from_numpy(array), apix or run.apix, box, run.apix * run.grid.box / box) for array, apix in read]
        return Submission(torch.stack(maps), population / population.sum())

    return read
