"""Principal components, clusters, trajectories and pictures of a run

Reads RUN/z.N.npy and the weights of the same epoch and writes RUN/analyze.N: maps at the k-means clusters of the
latents (each at the real particle nearest to its centre) and along the principal components, pictures, summary.json and
a page, report.html, that shows all of it: points to click and to lasso, maps that turn.

Example: cryorecon analyze out 25 --ksample 12
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryorecon.data.stack import ParticleStack
    from cryorecon.training.trained import Trained


def add_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cryorecon analyze``."""
    parser.add_argument("run", type=Path, help="output folder of a training run")
    parser.add_argument("epoch", type=int, nargs="?", help="epoch (default: the last one saved)")
    parser.add_argument("-o", "--outdir", type=Path, help="where to write (default: RUN/analyze.EPOCH)")
    parser.add_argument("--ksample", type=int, default=20, metavar="K", help="number of clusters (default: 20)")
    parser.add_argument("--pc", type=int, default=2, metavar="N", help="principal components to walk (default: 2)")
    parser.add_argument("--Apix", "--apix", type=float, metavar="Å", help="pixel size of the maps (default: the run's)")
    parser.add_argument("--skip-vol", action="store_true", help="no maps: latents and pictures only")
    parser.add_argument("--umap", action="store_true", help="embed by UMAP too (extra: pip install 'cryorecon[umap]')")
    parser.add_argument("--device", default="auto", help="where maps are decoded (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="of the clusters' start (default: 0)")


def main(args: argparse.Namespace) -> None:
    """Run ``cryorecon analyze``."""
    import shlex
    import sys

    import numpy as np
    import torch

    from cryorecon import __version__
    from cryorecon.analysis.explore import embed_umap, explore, write_summary
    from cryorecon.analysis.history import read_history
    from cryorecon.analysis.latent import check_latents
    from cryorecon.errors import InputError
    from cryorecon.report.analysis_page import make_explorer, write_analysis
    from cryorecon.training.trained import load_run

    if args.Apix is not None and args.Apix <= 0:
        raise InputError(f"--Apix: expected a pixel size above 0 Å, found {args.Apix}")
    model = load_run(args.run, args.epoch, args.device)
    z, epoch = model.z, model.epoch
    if z.shape[1] == 0:
        raise InputError(f"{args.run}: expected a run with latents, found one structure; eval_vol writes its map")
    check_latents(z, f"{args.run}/z.{epoch}.npy")
    apix = float(model.apix if args.Apix is None else args.Apix)

    def decode(point: np.ndarray) -> torch.Tensor:
        return model.density(point[None])[0]

    folder = args.outdir if args.outdir is not None else args.run / f"analyze.{epoch}"
    found = explore(z, folder, None if args.skip_vol else decode, apix, args.ksample, args.pc, seed=args.seed)
    embedded = embed_umap(z, folder, args.seed) if args.umap else None
    facts = {"command": shlex.join(["cryorecon", *sys.argv[1:]]), "run": str(args.run.resolve()), "epoch": str(epoch),
             "pixel size": f"{apix:g} Å", "seed": str(args.seed), "cryorecon": __version__,
             "torch": torch.__version__, "numpy": np.__version__}
    select = shlex.join(["cryorecon", "select", str(args.run), str(epoch), "--lasso", "selection.json", "-o", "chosen"])
    explorer = make_explorer(found, z, select, embedded, _particles(model))
    page = write_analysis(found, read_history(args.run / "metrics.jsonl"), apix, f"{args.run.resolve().name}, epoch {epoch}",
                          facts, explorer)
    write_summary(found, {"run": str(args.run), "epoch": epoch, "apix": apix, "version": __version__})
    shares = ", ".join(f"{100 * share:.1f} %" for share in found.pca.explained[:3])
    print(f"{len(z):,} particles, zdim {z.shape[1]}; variance along the principal components: {shares}")
    print(f"maps, arrays and pictures: {folder}\npage: {page}")


def _particles(model: "Trained") -> "ParticleStack | None":
    """The run's particles, for pictures of some; None, with a warning, where their files are gone."""
    import warnings

    from cryorecon.errors import InputError
    from cryorecon.training.build import load_stack

    try:
        stack = load_stack(model.config)
    except InputError as error:
        warnings.warn(f"the report shows no particle images: {error}", stacklevel=2)
        return None
    return stack if stack.n_particles == len(model.z) else None
