"""Write a RELION 3.1 star from images, poses and CTF.

The star names the images and holds their poses, CTF and half-sets; the images stay as they are.

    cryorecon write_star stack.mrcs --poses poses.pkl --ctf ctf.pkl -o all.star
    cryorecon write_star all.star --ind chosen.pkl -o chosen.star
"""

import argparse

from cryorecon.cli import texts


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``write_star``."""
    parser.add_argument("particles", help="images: .mrcs, .txt (a list of stacks), .star or .cs")
    parser.add_argument("-o", "--out", required=True, metavar="STAR", help="output .star")
    parser.add_argument("--ctf", metavar="FILE", help=texts.CTF)
    parser.add_argument("--poses", metavar="FILE", help=texts.POSES)
    parser.add_argument("--ind", metavar="FILE", help="positions of the particles to keep, from 0 (.pkl, .npy, .txt)")
    parser.add_argument("--datadir", metavar="DIR", help=texts.DATADIR)
    parser.add_argument("--tomograms", metavar="STAR", help=texts.TOMOGRAMS)
    parser.add_argument("--Apix", "--apix", type=float, metavar="Å", dest="apix",
                        help="pixel size where no file has it")


def main(args: argparse.Namespace) -> None:
    """Write the star.

    Raises
    ------
    InputError: files that are absent or don't fit, see ``load_particles``; an output that is one of them or no .star.
    """
    from cryorecon.data.load import load_particles
    from cryorecon.data.star_write import write_star

    stack = load_particles(args.particles, poses=args.poses, ctf=args.ctf, ind=args.ind, datadir=args.datadir,
                           apix=args.apix, tomograms=args.tomograms)
    write_star(args.out, stack)
    print(f"{args.out}: {len(stack)} images")
