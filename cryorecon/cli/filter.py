"""Keep chosen rows of a star, cs, pickle, npy or stack; all else stays as it is.

Pickles may hold poses, CTF, latents or any arrays with a row for each particle. The output ends like the input.

    cryorecon filter particles.star --ind chosen.pkl -o chosen.star
    cryorecon filter poses.pkl --ind chosen.pkl -o chosen_poses.pkl
"""

import argparse


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``filter``."""
    parser.add_argument("input", help="what to choose from: .star, .cs, .mrcs, .pkl or .npy")
    parser.add_argument("--ind", required=True, metavar="FILE", help="positions of the rows to keep, from 0 (.pkl, .npy, .txt)")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="output, of the input's kind")


def main(args: argparse.Namespace) -> None:
    """Write the chosen rows.

    Raises
    ------
    InputError: an index out of range or repeated, a kind that can't be filtered, endings that differ, output over the input.
    """
    from cryorecon.data.convert import filter_rows
    from cryorecon.data.cryodrgn_files import read_indices
    from cryorecon.data.files import refuse_input

    refuse_input(args.out, [args.ind])
    rows = read_indices(args.ind)
    filter_rows(args.input, rows, args.out)
    print(f"{args.out}: {len(rows)} rows")
