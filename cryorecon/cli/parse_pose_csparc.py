"""Write the poses of a cryoSPARC .cs file.

The output's ending decides: .pkl is cryoDRGN's file (rotations, shifts in fractions of the box); .npy holds eleven
columns, the rotation by rows and the shift in Å.

    cryorecon parse_pose_csparc particles.cs -D 180 -o poses.pkl
"""

import argparse


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``parse_pose_csparc``."""
    parser.add_argument("cs", help="cryoSPARC .cs file")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="output, .pkl or .npy")
    parser.add_argument("-D", "--box", type=int, metavar="PX",
                        help="box of the images that the poses were found for (default: the file's)")
    parser.add_argument("--Apix", "--apix", type=float, metavar="Å", dest="apix", help="pixel size where the file lacks it")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--abinit", action="store_true", help="the poses of class 0 of an ab-initio job")
    kind.add_argument("--hetrefine", action="store_true",
                      help="the poses of a heterogeneous refinement: where the file gives the shifts no pixel size of their "
                      "own, "
                           "they are doubled, as such jobs run at half the box")


def main(args: argparse.Namespace) -> None:
    """Write the poses.

    Raises
    ------
    InputError: no .cs file, or no poses in it.
    """
    from cryorecon.data.convert import convert_poses
    from cryorecon.data.cs import read_cs

    alignment = "alignments_class_0" if args.abinit else "alignments3D"
    meta = read_cs(args.cs, alignment, halved=args.hetrefine)
    poses = convert_poses(meta, args.out, args.box, args.apix)
    print(f"{args.out}: poses of {len(poses)} images")
