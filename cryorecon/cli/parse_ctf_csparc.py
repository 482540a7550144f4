"""Write the CTF of a cryoSPARC .cs file.

Writes cryoDRGN's nine columns [box, Å/px, defocus U and V in Å, angle in degrees, kV, Cs in mm, amplitude contrast,
phase shift in degrees], one row for each image, as .pkl or .npy.

    cryorecon parse_ctf_csparc particles.cs -o ctf.pkl
"""

import argparse


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``parse_ctf_csparc``."""
    parser.add_argument("cs", help="cryoSPARC .cs file")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="output, .pkl or .npy")
    parser.add_argument("-D", "--box", type=int, metavar="PX", help="box of the images (default: the file's)")
    parser.add_argument("--Apix", "--apix", type=float, metavar="Å", dest="apix", help="pixel size (default: the file's)")


def main(args: argparse.Namespace) -> None:
    """Write the CTF.

    Raises
    ------
    InputError: no .cs file, or no CTF in it.
    """
    from cryorecon.data.convert import convert_ctf
    from cryorecon.data.cs import read_cs

    optics = convert_ctf(read_cs(args.cs), args.out, args.box, args.apix)
    print(f"{args.out}: CTF of {len(optics)} images")
