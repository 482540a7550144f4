r"""One map of all particles: a closed-form consensus and a network that stands on it.

Writes reconstruct.N.mrc (by the network, symmetrised where --symmetry says so), the consensus map with its unfiltered
half maps, weights.N.pt, metrics.jsonl and run.log. Without poses, these are found first (poses.0.star, poses.0.pkl).
Ctrl-C is safe: the same command with --resume goes on. With --halves two runs on halves of the particles that never meet
(half_1, half_2) and the gold standard of their maps.

    cryorecon train_nn particles.star -n 5 --symmetry D2 -o out
    cryorecon eval_fsc out/half_map_a.mrc out/half_map_b.mrc

On two GPUs, or in two processes of a machine without:

    torchrun --standalone --nproc_per_node=2 -m cryorecon \
        train_nn particles.star -o out2
"""

import argparse

from cryorecon.cli import options


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train_nn``."""
    options.add_data(parser)
    options.add_volume(parser)
    options.add_training(parser)
    options.add_search(parser)
    options.add_symmetry(options.add_maps(parser))


def main(args: argparse.Namespace) -> None:
    """Train.

    Raises
    ------
    InputError: bad input. KeyboardInterrupt: with a message that says how to continue.
    """
    from cryorecon.cli.halves import train_halves
    from cryorecon.cli.session import run

    preset = {"zdim": 0, "conformation": "fixed"}
    if args.halves:
        train_halves(args, "train_nn", preset)
        return
    directory = run(args, "train_nn", preset)
    epoch, out = directory.epochs()[-1], directory.path
    print(f"map      {out / f'reconstruct.{epoch}.mrc'}\nweights  {out / f'weights.{epoch}.pt'}")
    print(f"others   {out / 'consensus.mrc'}, half_map_a.mrc, half_map_b.mrc")
