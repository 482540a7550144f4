"""Maps at given latent coordinates of a run.

Writes vol_001.mrc ... with the run's pixel size and z_values.txt, one line a map. Coordinates come from a text file
with one map a line, from -z, or evenly along a line from --z-start to --z-end. A run of train_nn has one map and needs
none of these.

    cryorecon eval_vol out --zfile out/analyze.25/kmeans20/centers.txt -o maps
    cryorecon eval_vol out4 -z 0.5 0 0 0 -o one    # out4: a run of --zdim 4
    cryorecon eval_vol out4 --z-start -1 0 0 0 --z-end 1 0 0 0 -n 10 -o line
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cryorecon.cli import texts

if TYPE_CHECKING:
    import numpy as np


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``eval_vol``."""
    parser.add_argument("run", type=Path, help=texts.RUN)
    parser.add_argument("-o", "--outdir", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--epoch", type=int, metavar="N", help=texts.CHECKPOINT)
    where = parser.add_argument_group("where")
    where.add_argument("--zfile", type=Path, metavar="FILE",
                       help="text file of coordinates, zdim numbers a line, one map a line")
    where.add_argument("-z", type=float, nargs="+", metavar="Z", help="one coordinate, zdim numbers")
    where.add_argument("--z-start", type=float, nargs="+", metavar="Z", help="first coordinate of a line")
    where.add_argument("--z-end", type=float, nargs="+", metavar="Z", help="last coordinate of that line")
    where.add_argument("-n", type=int, default=10, metavar="N", help="maps on that line, both ends counted (default: 10)")
    maps = parser.add_argument_group("maps")
    maps.add_argument("--flip", action="store_true", help="the other hand: mirror in z")
    maps.add_argument("-d", "--downsample", type=int, metavar="PX",
                      help="Fourier-crop the maps to this box, even (default: the run's)")
    maps.add_argument("--apix", "--Apix", type=float, metavar="Å", help="pixel size of the run's box (default: the run's)")
    maps.add_argument("--device", default="auto", metavar="NAME", help=texts.DEVICE)


def main(args: argparse.Namespace) -> None:
    """Decode and write.

    Raises
    ------
    InputError: no such run or epoch; coordinates that are absent, more than one kind, or not the run's number.
    """
    import numpy as np
    import torch

    from cryorecon.analysis.trajectories import write_series
    from cryorecon.data.files import exclusive
    from cryorecon.errors import InputError
    from cryorecon.geometry.fourier import resample
    from cryorecon.training.trained import load_run

    run = load_run(args.run, args.epoch, args.device)
    z = coordinates(args, run.config.zdim)
    if (told := beyond(z, run.latents)) is not None:
        print(f"cryorecon: warning: {told}", file=sys.stderr)
    box = args.downsample or run.grid.box
    if args.downsample is not None and (box % 2 or not 4 <= box <= run.grid.box):
        raise InputError(f"--downsample: expected an even box of at most {run.grid.box} px, the run's, found {box}")
    apix = run.apix if args.apix is None else args.apix
    if apix <= 0:
        raise InputError(f"--apix: expected a pixel size above 0 Å, found {apix}")

    def decode(point: np.ndarray) -> torch.Tensor:
        density = run.density(point[None])[0]
        if not bool(density.isfinite().all()):
            raise InputError(f"expected coordinates that give a map, found {' '.join(f'{each:g}' for each in point)}, which "
                             "gives none of finite numbers; take some that particles have")
        if args.flip:
            density = torch.roll(density.flip(0), 1 - run.grid.box % 2, 0)  # the origin, at D // 2, stays
        return resample(density, box, 3)

    apix *= run.grid.box / box
    with exclusive(args.outdir):
        paths = write_series(args.outdir, decode, z, apix, "maps")
    print(f"{len(paths)} maps of {box} px, {apix:.4g} Å/px, epoch {run.epoch}: {args.outdir}")


def beyond(z: "np.ndarray", latents: "np.ndarray | None") -> str | None:
    """What to say of coordinates ``z (n, d)`` that lie farther outside the particles' range than it is wide; of a run that
    infers none, of alpha outside 0 to 1."""
    import numpy as np

    low, high = (np.zeros(1), np.ones(1)) if latents is None else (latents.min(0, initial=0), latents.max(0, initial=0))
    reach = 0 if latents is None else high - low
    out = np.argwhere((z < low - reach) | (z > high + reach))
    if not len(out):
        return None
    row, column = out[0]
    return (f"map {row + 1}: coordinate {column + 1} is {z[row, column]:g}, where this run's go from {low[column]:.3g} to "
            f"{high[column]:.3g}; no image has shown what is so far out")


def coordinates(args: argparse.Namespace, zdim: int) -> "np.ndarray":
    """``(n, zdim)`` float32 from the one kind of coordinates that was given."""
    import numpy as np

    from cryorecon.data.arrays import read_columns
    from cryorecon.errors import InputError

    kinds = [args.zfile is not None, args.z is not None, args.z_start is not None or args.z_end is not None]
    if zdim == 0:
        if any(kinds):
            raise InputError(f"{args.run}: expected no coordinates for a run of train_nn, which has one map; "
                             "leave them out")
        return np.zeros((1, 0), np.float32)
    if sum(kinds) != 1:
        raise InputError("expected coordinates by one of --zfile, -z, or --z-start with --z-end, found "
                         f"{'none' if not any(kinds) else 'several'}")
    if args.zfile is not None:
        z = read_columns(args.zfile, "latent coordinates, one map a line", 2)
    elif args.z is not None:
        z = np.array([args.z])
    else:
        ends = [args.z_start or [], args.z_end or []]
        if any(len(end) != zdim for end in ends) or args.n < 1:
            raise InputError(f"expected --z-start and --z-end of {zdim} numbers each and -n of at least 1, found "
                             f"{len(ends[0])}, {len(ends[1])} and {args.n}")
        z = np.linspace(np.array(ends[0]), np.array(ends[1]), args.n)
    if z.shape[1] != zdim or not len(z) or not np.isfinite(z).all():
        where = "" if args.zfile is None else f"{args.zfile}: "
        raise InputError(f"{where}expected coordinates of {zdim} finite numbers, the run's zdim, found an array of shape "
                         f"{z.shape}; one line a map")
    return z.astype(np.float32)
