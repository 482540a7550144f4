"""Write the poses of a RELION star file (1.3 to 5, tilt series too).

The output's ending decides: .pkl is cryoDRGN's file (rotations, shifts in fractions of the box); .npy holds eleven
columns, the rotation by rows and the shift in Å.

    cryorecon parse_pose_star run_data.star -D 256 -o poses.pkl
"""

import argparse

from cryorecon.cli import texts


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``parse_pose_star``."""
    parser.add_argument("star", help="RELION star file")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="output, .pkl or .npy")
    parser.add_argument("-D", "--box", type=int, metavar="PX",
                        help="box of the images that the poses were found for (default: the star's)")
    parser.add_argument("--Apix", "--apix", type=float, metavar="Å", dest="apix",
                        help="pixel size where the star lacks it")
    parser.add_argument("--tomograms", metavar="STAR", help=texts.TOMOGRAMS)


def main(args: argparse.Namespace) -> None:
    """Write the poses.

    Raises
    ------
    InputError: no star, no poses in it, or a box that is not known.
    """
    from cryorecon.data.convert import convert_poses
    from cryorecon.data.files import refuse_input
    from cryorecon.data.star import read_star

    refuse_input(args.out, [args.star, args.tomograms])
    poses = convert_poses(read_star(args.star, args.tomograms), args.out, args.box, args.apix)
    print(f"{args.out}: poses of {len(poses)} images")
