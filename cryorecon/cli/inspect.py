"""Say what a file is and what looks wrong with it.

Particles (.star, .cs, .mrcs, .txt, or a folder that preprocess made), a map (.mrc, .map, .gz) or cryoDRGN's pickles
(poses, CTF, indices). Images up to 1 GB are all read, of larger sets a sample.

    cryorecon inspect particles.star --datadir /data/extracted
"""

import argparse

from cryorecon.cli import texts


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``inspect``."""
    parser.add_argument("file", help="the file to look at")
    parser.add_argument("--datadir", metavar="DIR", help=texts.DATADIR)
    parser.add_argument("--tomograms", metavar="STAR", help=texts.TOMOGRAMS)
    parser.add_argument("--all", action="store_true",
                        help="read every image, however many, instead of a sample of sets above 1 GB")


def main(args: argparse.Namespace) -> None:
    """Print the report.

    Raises
    ------
    InputError: no such file, or of no known kind.
    """
    from cryorecon.data.inspect import inspect

    print(inspect(args.file, datadir=args.datadir, tomograms=args.tomograms, everything=args.all))
