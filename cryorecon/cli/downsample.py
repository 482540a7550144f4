"""Fourier-crop a stack or a map to a smaller box.

Values stay (nothing is normalised or inverted) and the pixel size is written. `cryorecon preprocess` does more.

    cryorecon downsample particles.star -D 128 -o particles.128.mrcs
    cryorecon downsample map.mrc --is-vol -D 64 -o map.64.mrc
"""

import argparse

from cryorecon.cli import texts


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``downsample``."""
    parser.add_argument("input", help="images: .mrcs, .star, .cs or .txt (a list of stacks); with --is-vol a map, .mrc")
    parser.add_argument("-D", "--box", type=int, required=True, metavar="PX",
                        help="new box, even and no larger than the input's")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="output, .mrcs, or .mrc with --is-vol")
    parser.add_argument("--is-vol", action="store_true", help="the input is a map")
    parser.add_argument("--chunk", type=int, metavar="N",
                        help="write stacks of N images, OUT.0.mrcs and so on, and a list of them, OUT.txt")
    parser.add_argument("--datadir", metavar="DIR", help=texts.DATADIR)
    parser.add_argument("--Apix", "--apix", type=float, metavar="Å", dest="apix",
                        help="pixel size of the input stack (default: the file's)")


def main(args: argparse.Namespace) -> None:
    """Write the smaller images or map.

    Raises
    ------
    InputError: a box that isn't even or is larger than the input's; input that can't be read; output over the input.
    """
    from cryorecon.data.convert import downsample_stack, downsample_volume
    from cryorecon.errors import InputError

    if args.is_vol:
        for option in ("chunk", "datadir", "apix"):
            if getattr(args, option) is not None:
                raise InputError(f"--{option}: expected with a stack only, found it with --is-vol; drop one of the two")
        downsample_volume(args.input, args.out, args.box)
        print(f"{args.out}: a map of {args.box} px")
        return
    if args.chunk is not None and args.chunk < 1:
        raise InputError(f"--chunk: expected at least one image to a stack, found {args.chunk}")
    written = downsample_stack(args.input, args.out, args.box, chunk=args.chunk, datadir=args.datadir, apix=args.apix,
                               progress=True)
    print(f"{written[0]}: images of {args.box} px" + (f", in {len(written)} stacks" if len(written) > 1 else ""))
