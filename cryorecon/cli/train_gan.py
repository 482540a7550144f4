"""A map without poses: simulated images of it become such that a critic can't tell them from the real ones (CryoGAN).

No pose of any image is kept: poses, shifts and noise are drawn at random, CTFs from the images' own, and the map learns from
what the critic says. With --volume archetypes, a map for each number in [0, 1] (Multi-CryoGAN): first of coarse images, about
8 Å/px (preprocess -D). There the critic of the later epochs compares each image with all views; with --contrast also where
there is one map, which becomes finer by it.
Writes reconstruct.N.mrc (of one map), weights.N.pt, samples.N.png (real images beside simulated ones), metrics.jsonl and
run.log. The hand of the map is not determined. Ctrl-C is safe: the same command with --resume goes on.

    cryorecon train_gan particles.mrcs --ctf ctf.pkl -o out
    cryorecon eval_fsc out/reconstruct.10.mrc reference.mrc --align
    cryorecon train_gan particles.mrcs --ctf ctf.pkl --contrast 0.4 -o finer
    cryorecon preprocess particles.star -D 48 -o coarse
    cryorecon train_gan coarse --volume archetypes -o several
    cryorecon analyze several
"""

import argparse

from cryorecon.cli import options


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train_gan``."""
    options.add_data(parser, "changes nothing here: poses are drawn at random (see --pose-prior)")
    options.add_game(parser)
    options.add_symmetry(options.add_maps(parser))


def main(args: argparse.Namespace) -> None:
    """Train.

    Raises
    ------
    InputError: bad input, or a game that diverged. KeyboardInterrupt: with a message that says how to continue.
    """
    import shlex

    from cryorecon.cli.session import run
    from cryorecon.training.config import GAMES

    directory = run(args, "train_gan", GAMES[getattr(args, "volume", "density")])
    epoch, out = directory.epochs()[-1], directory.path
    if directory.config().zdim == 0:
        print(f"map      {out / f'reconstruct.{epoch}.mrc'}")
    else:
        print(f"next     cryorecon analyze {shlex.quote(args.outdir)}")
    print(f"weights  {out / f'weights.{epoch}.pt'}\npictures {out / f'samples.{epoch}.png'}")
