r"""Conformations: a latent coordinate for each particle, and a map for each coordinate.

Without poses, these are found first (poses.0.star, poses.0.pkl). Then a consensus map and its principal motions in
closed form, then a network that stands on them (--road lowrank); or, as cryoDRGN does, an encoder and a network from
scratch (--road plain). Options that cryoDRGN has too mean the same.
The output folder holds z.N.npy, weights.N.pt, the consensus map with its half maps, metrics.jsonl and run.log. Ctrl-C
is safe: the same command with --resume goes on as if nothing had happened. With --halves two runs on halves of the particles
that never meet (half_1, half_2), their landscapes compared and the gold standard of their maps.

    cryorecon train_vae particles.mrcs --poses poses.pkl --ctf ctf.pkl \
        --zdim 8 -n 25 -o out
    cryorecon analyze out

On two GPUs, or in two processes of a machine without:

    torchrun --standalone --nproc_per_node=2 -m cryorecon \
        train_vae prepared --zdim 8 -o out2
"""

import argparse

from cryorecon.cli import options
from cryorecon.errors import InputError


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train_vae``."""
    options.add_data(parser)
    options.add_conformation(parser)
    options.add_volume(parser)
    options.add_training(parser)
    options.add_search(parser)
    options.add_maps(parser)


def main(args: argparse.Namespace) -> None:
    """Train.

    Raises
    ------
    InputError: bad input. KeyboardInterrupt: with a message that says how to continue.
    """
    import shlex

    from cryorecon.cli.halves import train_halves
    from cryorecon.cli.session import run

    resume = args.resume or args.load is not None
    if not hasattr(args, "zdim") and not resume:
        raise InputError("--zdim: expected how many numbers describe a particle, found nothing; give --zdim 8, say")
    if getattr(args, "zdim", 1) < 1:
        raise InputError(f"--zdim: expected at least 1, found {args.zdim}; for one map of all particles use "
                         "`cryorecon train_nn`")
    plain = getattr(args, "road", None) == "plain" and not resume
    preset = {"conformation": "encoder"} if plain else {}
    if args.halves:
        train_halves(args, "train_vae", preset)
        return
    directory = run(args, "train_vae", preset)
    epoch = directory.epochs()[-1]
    out = directory.path
    print(f"latents  {out / f'z.{epoch}.npy'}\nweights  {out / f'weights.{epoch}.pt'}")
    print(f"maps     {out / 'consensus.mrc'}, half_map_a.mrc, half_map_b.mrc")
    print(f"next     cryorecon analyze {shlex.quote(args.outdir)}")
