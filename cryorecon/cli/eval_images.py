"""How well each image fits the run's own prediction of it.

Writes one row an image: image, particle, energy (nats a Fourier point; where only noise is left .63, as much as the
window leaves of it, and 1 with --no-window), kl (nats) and z. Images far above the others are ice, carbon or
neighbours: `cryorecon select --loss-percentile` leaves them out.

    cryorecon eval_images out
    cryorecon eval_images out --epoch 10 -o fits.npz
"""

import argparse
from pathlib import Path

from cryorecon.cli import texts


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``eval_images``."""
    parser.add_argument("run", type=Path, help=texts.RUN)
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="output, .csv or .npz (default: RUN/images.EPOCH.csv)")
    parser.add_argument("--epoch", type=int, metavar="N", help=texts.CHECKPOINT)
    parser.add_argument("--datadir", metavar="DIR", help=texts.DATADIR_NOW)
    parser.add_argument("--device", metavar="NAME", help=texts.DEVICE_OF_RUN)


def main(args: argparse.Namespace) -> None:
    """Evaluate and write.

    Raises
    ------
    InputError: no such run or epoch, particles that are gone, another kind of file asked for.
    """
    import numpy as np

    from cryorecon.data.files import atomic_path
    from cryorecon.errors import InputError
    from cryorecon.training.evaluate import image_fits
    from cryorecon.training.run_directory import RunDirectory

    directory = RunDirectory(args.run)
    epoch = directory.epochs()[-1] if args.epoch is None and directory.epochs() else args.epoch
    out = args.run / f"images.{epoch}.csv" if args.out is None else args.out
    if out.suffix not in (".csv", ".npz"):
        raise InputError(f"{out}: expected a name that ends with .csv or .npz, found {out.suffix or 'no ending'}")
    fits = image_fits(directory, epoch, args.device, datadir=args.datadir)
    image = np.arange(len(fits.energy))
    with atomic_path(out) as temporary:
        if out.suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez(file, image=image, particle=fits.particle, energy=fits.energy, kl=fits.kl, z=fits.z)
        else:
            names = ",".join(["image", "particle", "energy", "kl", *(f"z{i}" for i in range(fits.z.shape[1]))])
            np.savetxt(temporary, np.c_[image, fits.particle, fits.energy, fits.kl, fits.z], delimiter=",", header=names,
                       comments="", fmt=["%d", "%d"] + ["%.6g"] * (2 + fits.z.shape[1]))
    low, middle, high = np.percentile(fits.energy, [5, 50, 95])
    print(f"{len(image):,} images, epoch {epoch}: energy a point {fits.energy.mean():.5f} on average, {middle:.5f} in the "
          f"middle, 5 % below {low:.5f}, 5 % above {high:.5f}; kl {fits.kl.mean():.4g}\n{out}")
