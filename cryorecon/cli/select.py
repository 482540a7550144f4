"""Choose particles of a run by what it found of them, and write the list for the next program.

Writes OUT.pkl, the particles' positions in the file that the run was given (cryoDRGN's --ind, ours too), and OUT.star or
OUT.cs, that file's rows as they are, where it is one. Of several criteria all must hold.

    cryorecon select out --cluster 3,5 -o closed
    cryorecon select out --z-range pc1=-1:0.5 --loss-percentile 0:95 -o good
    cryorecon train_vae particles.star --ind good.pkl --zdim 8 -o again
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cryorecon.cli import texts

if TYPE_CHECKING:
    import numpy as np

    from cryorecon.training.trained import Trained


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``select``."""
    parser.add_argument("run", type=Path, help=texts.RUN)
    parser.add_argument("epoch", type=int, nargs="?", help=texts.CHECKPOINT)
    parser.add_argument("-o", "--out", required=True, metavar="OUT", help="the outputs' name without its ending")
    group = parser.add_argument_group("criteria")
    group.add_argument("--cluster", type=_numbers, metavar="N,N,...", help="clusters of analyze, from 1 as its report counts")
    group.add_argument("--state", type=_numbers, metavar="N,N,...", help="states of analyze's Gaussian mixture, likewise")
    group.add_argument("--analysis", type=Path, metavar="DIR",
                       help="folder that analyze wrote: its clusters, and of an analysis of some particles (--ind) these alone "
                       "(default: RUN/analyze.EPOCH)")
    group.add_argument("--z-range", type=_range, action="append", default=[], metavar="AXIS=LOW:HIGH",
                       help="range along an axis, pc1 (principal component) or z1 say; either end may be left out; may be "
                       "repeated")
    group.add_argument("--lasso", metavar="JSON", help="selection.json of the report: "
                       'an outline, {"x": "pc1", "y": "pc2", "polygon": [[x, y], ...]}, or {"particles": [...]}')
    group.add_argument("--loss-percentile", type=_percentiles, metavar="LOW:HIGH",
                       help="percentiles, 0 to 100, of how badly images fit their prediction: 0:90 leaves out the worst tenth")
    group.add_argument("--invert", action="store_true", help="all other particles instead")
    parser.add_argument("--device", default="auto", metavar="NAME",
                        help="of --loss-percentile: where to compute: auto, cpu, cuda, cuda:1 (default: auto)")
    parser.add_argument("--datadir", metavar="DIR", help="of --loss-percentile: where the image stacks lie now (default: as "
                        "in training)")


def main(args: argparse.Namespace) -> None:
    """Write the selection.

    Raises
    ------
    InputError: no criterion, none that holds for any particle, a run or analysis that is not there, output over the input.
    """
    import numpy as np

    from cryorecon.analysis.selection import analysed, require_own
    from cryorecon.data.convert import filter_rows
    from cryorecon.data.cryodrgn_files import read_indices
    from cryorecon.data.files import refuse_input
    from cryorecon.data.safe_pickle import dump_pickles
    from cryorecon.errors import InputError
    from cryorecon.training.trained import load_run

    if all(one in (None, []) for one in (args.cluster, args.state, args.z_range, args.lasso, args.loss_percentile)):
        raise InputError("expected a criterion, found none; give --cluster, --state, --z-range, --lasso or --loss-percentile")
    run = load_run(args.run, args.epoch, "cpu")
    if run.z.shape[1] == 0:
        raise InputError(f"{args.run}: expected a run with latents, found one structure")
    folder = args.analysis or args.run / f"analyze.{run.epoch}"
    require_own(folder, run.z)
    among = analysed(folder, len(run.z))
    chosen = np.logical_and.reduce(_masks(args, run, folder, among))
    rows = among[~chosen if args.invert else chosen]
    if not len(rows):
        raise InputError(f"{args.run}: expected particles that meet the criteria, found none of {len(among):,}")
    positions = rows if run.config.ind is None else read_indices(run.config.ind)[rows]
    given = Path(run.config.particles)
    table = next((ending for ending in (".star", ".cs") if given.name.removesuffix(".gz").endswith(ending)), None)
    outputs = [Path(f"{args.out}.pkl"), *([Path(f"{args.out}{table}")] if table else [])]
    for out in outputs:
        refuse_input(out, (given, run.config.ind, run.config.poses, run.config.ctf))
    if table:
        filter_rows(given, positions, outputs[1])
    dump_pickles(outputs[0], positions)
    print(f"{len(rows):,} of {len(run.z):,} particles: {', '.join(map(str, outputs))}")


def _masks(args: argparse.Namespace, run: "Trained", folder: Path, among: "np.ndarray") -> "list[np.ndarray]":
    """Which of the particles ``among`` those of the run meet each criterion, booleans."""
    import numpy as np

    from cryorecon.analysis import selection
    from cryorecon.analysis.latent import fit_pca
    from cryorecon.training.evaluate import image_fits

    z = run.z[among]
    coordinates = fit_pca(z).project(z)
    masks = []
    for option, kind, wanted in (("--cluster", "clusters_in", args.cluster), ("--state", "states_in", args.state)):
        if wanted is not None:
            masks.append(selection.by_cluster(selection.labels_of(folder, kind, len(z)), wanted, option))
    for name, low, high in args.z_range:
        masks.append(selection.by_range(selection.axis(name, z, coordinates), low, high))
    if args.lasso is not None:
        masks.append(selection.by_selection_file(args.lasso, z, coordinates))
    if args.loss_percentile is not None:
        fits = image_fits(run.directory, run.epoch, args.device, datadir=args.datadir)
        count = np.bincount(fits.particle)
        loss = (np.bincount(fits.particle, fits.energy) / count)[among]
        masks.append(selection.by_percentile(loss, *args.loss_percentile))
    return masks


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, found {text!r}") from None


def _range(text: str) -> tuple[str, float, float]:
    name, equals, ends = text.partition("=")
    low, colon, high = ends.partition(":")
    try:
        if not (name and equals and colon):
            raise ValueError
        return name, float(low or "-inf"), float(high or "inf")
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected AXIS=LOW:HIGH, pc1=-1:0.5 say, found {text!r}") from None


def _percentiles(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
        if not 0 <= low < high <= 100:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected two percentiles from 0 to 100, 0:90 say, found {text!r}") from None
    return low, high
