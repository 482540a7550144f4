"""Paths along the principal components of the latents, the other components at the mean.

Writes pcN.txt, latents that eval_vol --zfile reads, and pcN_ind.txt, the particle nearest to each point; with a run and
--vol, maps and a ChimeraX script in pcN of that folder too.

    cryorecon pc_traversal out --pc 1 2 -n 10 -o out/paths
"""

import argparse
from pathlib import Path

from cryorecon.cli.traversal import add_latents


def add_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cryorecon pc_traversal``."""
    add_latents(parser)
    parser.add_argument("--pc", type=int, nargs="+", metavar="N", help="components, from 1 (default: all)")
    parser.add_argument("-n", type=int, default=10, metavar="N", help="points along each (default: 10)")
    parser.add_argument("--lim", type=float, nargs=2, default=(5.0, 95.0), metavar="P",
                        help="percentiles of the particles where it starts and ends (default: 5 95)")
    parser.add_argument("--use-percentile-spacing", action="store_true",
                        help="as many particles from point to point, instead of equal steps")
    parser.add_argument("-o", "--outdir", type=Path, default=Path("zpaths"), metavar="DIR",
                        help="where to write (default: zpaths)")


def main(args: argparse.Namespace) -> None:
    """Run ``cryorecon pc_traversal``.

    Raises
    ------
    InputError: latents that are wrong, no such component, or percentiles out of order.
    """
    from cryorecon.analysis.latent import fit_pca
    from cryorecon.analysis.trajectories import component_path
    from cryorecon.cli.traversal import read_latents, write_path
    from cryorecon.errors import InputError

    if args.n < 2:
        raise InputError(f"-n: expected at least 2 points, found {args.n}")
    latents = read_latents(args)
    pca = fit_pca(latents.z)
    low, high = args.lim
    wanted = args.pc or range(1, latents.z.shape[1] + 1)
    paths = {number: component_path(pca, latents.z, number - 1, args.n, low, high, args.use_percentile_spacing)
             for number in wanted}
    for number, path in paths.items():
        print(f"PC {number}, {100 * pca.explained[number - 1]:.1f} % of the variance: ", end="")
        write_path(args, latents, path, args.outdir / f"pc{number}.txt", args.outdir / f"pc{number}_ind.txt",
                   args.vol and args.vol / f"pc{number}")
