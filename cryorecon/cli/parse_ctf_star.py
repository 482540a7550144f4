"""Write the CTF of a RELION star file (1.3 to 5, tilt series too).

Writes cryoDRGN's nine columns [box, Å/px, defocus U and V in Å, angle in degrees, kV, Cs in mm, amplitude contrast,
phase shift in degrees], one row for each image, as .pkl or .npy. Values given here hold for all images.

    cryorecon parse_ctf_star run_data.star -o ctf.pkl
    cryorecon parse_ctf_star old.star -D 256 --Apix 1.03 -w 0.1 -o ctf.pkl
"""

import argparse

from cryorecon.cli import texts


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``parse_ctf_star``."""
    parser.add_argument("star", help="RELION star file")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="output, .pkl or .npy")
    parser.add_argument("-D", "--box", type=int, metavar="PX", help="box of the images (default: the star's)")
    parser.add_argument("--Apix", "--apix", type=float, metavar="Å", dest="apix", help="pixel size (default: the star's)")
    parser.add_argument("--kv", type=float, metavar="kV", help="accelerating voltage (default: the star's)")
    parser.add_argument("--cs", type=float, metavar="mm", help="spherical aberration (default: the star's)")
    parser.add_argument("-w", type=float, metavar="FRACTION", help="amplitude contrast, 0 to 1 (default: the star's)")
    parser.add_argument("--ps", type=float, metavar="DEGREES", help="phase shift (default: the star's, or 0)")
    parser.add_argument("--tomograms", metavar="STAR", help=texts.TOMOGRAMS)


def main(args: argparse.Namespace) -> None:
    """Write the CTF.

    Raises
    ------
    InputError: no star, or a CTF that is not whole.
    """
    from cryorecon.data.convert import convert_ctf
    from cryorecon.data.files import refuse_input
    from cryorecon.data.star import read_star

    refuse_input(args.out, [args.star, args.tomograms])
    named = {"rlnVoltage": args.kv, "rlnSphericalAberration": args.cs, "rlnAmplitudeContrast": args.w,
             "rlnPhaseShift": args.ps}
    given = {name: value for name, value in named.items() if value is not None}
    meta = read_star(args.star, args.tomograms, overrides=given)
    optics = convert_ctf(meta, args.out, args.box, args.apix)
    print(f"{args.out}: CTF of {len(optics)} images")
