"""A path through real particles, from anchor to anchor along near neighbours or where particles are densest.

By length it is the shortest way over the graph of nearest neighbours, as cryoDRGN's. By density it is the path of least
integral of 1/density, RECOVAR's criterion: it stays where particles lie, even where that is a detour. Writes the path's
latents, which eval_vol --zfile reads, and its particles; with a run and --vol, its maps and a ChimeraX script too.

    cryorecon graph_traversal out --anchors 12 340 --by density --vol out/path
"""

import argparse
from pathlib import Path

from cryorecon.cli.traversal import add_anchors, add_latents


def add_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cryorecon graph_traversal``."""
    add_latents(parser)
    add_anchors(parser)
    group = parser.add_argument_group("path")
    group.add_argument("--by", choices=("length", "density"), default="length",
                       help="what of the path is least, its length or the integral of 1/density (default: length)")
    group.add_argument("-n", type=int, metavar="N",
                       help="points of the path, evenly by length (default: by density 10; by length every particle on the "
                       "way)")
    group.add_argument("--max-neighbors", type=int, default=10, metavar="N",
                       help="neighbours that a particle is joined to (default: 10)")
    group.add_argument("--avg-neighbors", type=float, default=5, metavar="X",
                       help="by length: then cut the longest joins until so many a particle are left; 0: cut none (default: 5)")
    group.add_argument("--log-density", type=Path, metavar="NPY",
                       help="by density: ln of the density at each particle (default: by the distance of its 20th neighbour)")
    group.add_argument("--subsample", type=int, default=100_000, metavar="N",
                       help="particles in the graph at most, drawn at random, anchors among them (default: 100000)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of that draw (default: 0)")


def main(args: argparse.Namespace) -> None:
    """Run ``cryorecon graph_traversal``.

    Raises
    ------
    InputError: latents, anchors or densities that are wrong, or anchors that nothing joins.
    """
    from cryorecon.analysis.paths import density_path, even_points, graph_path
    from cryorecon.cli.traversal import read_anchors, read_latents, write_path
    from cryorecon.data.arrays import read_numbers
    from cryorecon.errors import InputError

    if args.log_density is not None and args.by == "length":
        raise InputError("--log-density: expected --by density with it, found --by length")
    if args.subsample < 2:
        raise InputError(f"--subsample: expected at least 2 particles, found {args.subsample}")
    latents, anchors = read_latents(args), read_anchors(args)
    draw = (args.max_neighbors, args.subsample, args.seed)
    index = None
    if args.by == "length":
        index = graph_path(latents.z, anchors, draw[0], args.avg_neighbors or None, *draw[1:])
        path = latents.z[index]
        if args.n is not None:
            path, index = even_points(path, args.n), None
    else:
        density = None if args.log_density is None else read_numbers(args.log_density, "log densities")
        path = density_path(latents.z, anchors, density, 10 if args.n is None else args.n, *draw)
    write_path(args, latents, path, args.outtxt, args.outind, args.vol, index)
