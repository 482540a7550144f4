"""Prepare a data set once: from particles of any kind to one stack and one star.

Images are Fourier-cropped to -D, normalised, and their contrast is made that of white protein; poses, CTF, half-sets
and tilts go into the star, so that training from it needs nothing else. Memory is bounded. After a kill the same
command goes on where it was.

    cryorecon preprocess run_data.star --datadir project -D 128 -o prepared
    cryorecon preprocess run_data.star -D 128 -o ice --background MotionCorr
    cryorecon train_vae prepared --zdim 8 -o run
"""

import argparse
from typing import TYPE_CHECKING

from cryorecon.cli import texts

if TYPE_CHECKING:
    from pathlib import Path

    from cryorecon.data.preprocess import Preparation
    from cryorecon.data.stack import ParticleStack


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``preprocess``."""
    parser.add_argument("particles", help="images: .star, .cs, .mrcs or .txt (a list of stacks)")
    parser.add_argument("-o", "--out", required=True, metavar="DIR|STAR",
                        help="a folder for particles.star and particles.mrcs, or a .star whose stack lies beside it")
    parser.add_argument("-D", "--box", type=int, metavar="PX",
                        help="box to Fourier-crop to, even (default: the images')")
    source = parser.add_argument_group("input")
    source.add_argument("--poses", metavar="FILE", help=texts.POSES)
    source.add_argument("--ctf", metavar="FILE", help=texts.CTF)
    source.add_argument("--ind", metavar="FILE", help="positions of the particles to keep, from 0 (.pkl, .npy, .txt)")
    source.add_argument("--datadir", metavar="DIR", help=texts.DATADIR)
    source.add_argument("--tomograms", metavar="STAR", help=texts.TOMOGRAMS)
    source.add_argument("--apix", "--Apix", type=float, metavar="Å",
                        help="pixel size where neither CTF nor star has it")
    source.add_argument("--contrast", choices=("rule", "white", "dark", "guess"), default="rule",
                        help="protein in the input: white, dark, guess (from the images), or rule: as train_* takes "
                             "images, white with a CTF and dark without one (default: rule)")
    source.add_argument("--uninvert-data", action="store_true", help="turn the contrast of --contrast rule round")
    images = parser.add_argument_group("images")
    images.add_argument("--normalise", choices=("background", "whole", "none"), default="background",
                        help="bring to mean 0 and standard deviation 1 what lies outside --radius, the whole image, or "
                             "nothing (default: background)")
    images.add_argument("--radius", type=float, default=0.92, metavar="R",
                        help="where the background begins, as a fraction of half the box (default: 0.92)")
    images.add_argument("--window", action="store_true",
                        help="fade the corners out; training does so anyway, and measures the noise in them first")
    images.add_argument("--background", metavar="corners|DIR",
                        help="also write patches of empty ice, for train_gan --background: cut from the micrographs in a "
                             "folder, or laid together of the images' corners")
    images.add_argument("--float16", action="store_true", help="store half-precision images (MRC mode 12)")


def main(args: argparse.Namespace) -> None:
    """Prepare what ``args`` say.

    Raises
    ------
    InputError: files that are absent or unfit, see ``load_particles`` and ``prepare``.
    """
    from cryorecon.data.load import load_particles
    from cryorecon.data.preprocess import Preparation, prepare, warn_of_contrast, with_contrast

    stack = load_particles(args.particles, poses=args.poses, ctf=args.ctf, ind=args.ind, datadir=args.datadir,
                           apix=args.apix, tomograms=args.tomograms)
    stack = with_contrast(stack, args.contrast, uninvert=args.uninvert_data)
    warn_of_contrast(stack)
    how = Preparation(args.box, args.normalise, args.radius, args.window, args.float16)
    if args.background is not None:
        star, patches = _background(args, stack, how)  # first: what is wrong with micrographs shows before hours of images
        print(f"{star}: {patches} patches of empty ice")
    try:
        star = prepare(stack, args.out, how, progress=True)
    except KeyboardInterrupt as error:
        raise type(error)("the same command goes on where this one stopped") from error
    print(f"{star}: {len(stack)} images of {args.box or stack.box} px")


def _background(args: argparse.Namespace, stack: "ParticleStack", how: "Preparation") -> "tuple[Path, int]":
    """Write the patches; their star, and how many they are."""
    from cryorecon.data.background import background_name, write_background
    from cryorecon.data.corners import corner_patches
    from cryorecon.data.empty_ice import locate, micrograph_patches, read_picks

    star = background_name(args.out)
    if args.background == "corners":
        return star, write_background(stack, corner_patches(stack, how.radius), star, how)
    picks = read_picks(args.particles, args.datadir)
    files = locate(picks, args.background)
    return star, write_background(stack, micrograph_patches(stack, picks, files), star, how, list(files.values()))
