"""A path straight from anchor to anchor.

Writes its latents, which eval_vol --zfile reads, and the particle nearest to each point; with a run and --vol, its maps and
a ChimeraX script too. Where no particle lies near the line, a map on it is the decoder's guess: graph_traversal stays with
the particles.

    cryorecon direct_traversal out --anchors 12 340 -n 10 --vol out/line
"""

import argparse

from cryorecon.cli.traversal import add_anchors, add_latents


def add_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cryorecon direct_traversal``."""
    add_latents(parser)
    add_anchors(parser)
    parser.add_argument("-n", type=int, default=6, metavar="N",
                        help="points from an anchor to the next, both counted (default: 6)")


def main(args: argparse.Namespace) -> None:
    """Run ``cryorecon direct_traversal``.

    Raises
    ------
    InputError: latents or anchors that are wrong.
    """
    from itertools import pairwise

    import numpy as np

    from cryorecon.analysis.paths import check_anchors, direct_path
    from cryorecon.cli.traversal import read_anchors, read_latents, write_path

    latents = read_latents(args)
    anchors = latents.z[check_anchors(read_anchors(args), len(latents.z))]
    legs = [direct_path(np.stack(pair), args.n)[:-1] for pair in pairwise(anchors)]
    path = np.concatenate([*legs, anchors[-1:]])
    write_path(args, latents, path, args.outtxt, args.outind, args.vol)
