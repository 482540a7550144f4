"""Say what a file is and what looks wrong with it.

Particles (.star, .cs, .mrcs, .txt, or a folder that preprocess made), a map (.mrc, .map, .gz) or cryoDRGN's pickles
(poses, CTF, indices). Images up to 1 GB are all read, of larger sets a sample.

    cryorecon inspect particles.star --datadir /data/extracted
"""

import argparse


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``inspect``."""
    parser.add_argument("file", help="the file to look at")
    parser.add_argument("--datadir", metavar="DIR", help="folder of the image stacks that a star, cs or txt file names")
    parser.add_argument("--tomograms", metavar="STAR", help="the tomograms' star of a tilt series")
    parser.add_argument("--all", action="store_true", help="read every image, however many")


def main(args: argparse.Namespace) -> None:
    """Print the report.

    Raises
    ------
    InputError: no such file, or of no known kind.
    """
    from cryorecon.data.inspect import inspect

    print(inspect(args.file, datadir=args.datadir, tomograms=args.tomograms, everything=args.all))
