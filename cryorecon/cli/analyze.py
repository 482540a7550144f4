"""What a run found, what vouches for it, and a report to look at it

Reads RUN/z.N.npy and the weights of the same epoch and writes RUN/analyze.N: maps at the k-means clusters of the latents
(each at the real particle nearest to its centre), at the states of a Gaussian mixture, along the principal components and along
ways through the latents; occupancies and free energies with errors; half maps of every cluster's own particles; whether z
follows what it should not; pictures, summary.json and a page, report.html, that shows all of it: points to click and to
lasso, maps that turn.

Examples:
    cryorecon analyze out 25 --ksample 12
    cryorecon analyze out --anchors 17 4031 --skip-half-maps
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryorecon.training.build import Problem
    from cryorecon.training.train import State
    from cryorecon.training.trained import Trained


def add_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cryorecon analyze``."""
    parser.add_argument("run", type=Path, help="output folder of a training run")
    parser.add_argument("epoch", type=int, nargs="?", help="epoch (default: the last one saved)")
    parser.add_argument("-o", "--outdir", type=Path, help="where to write (default: RUN/analyze.EPOCH)")
    parser.add_argument("--ksample", type=int, default=20, metavar="K", help="number of k-means clusters (default: 20)")
    parser.add_argument("--states", type=int, default=10, metavar="K",
                        help="most states of the Gaussian mixture, of which the smallest BIC chooses (default: 10)")
    parser.add_argument("--pc", type=int, default=2, metavar="N", help="principal components to walk (default: 2)")
    parser.add_argument("--anchors", type=int, nargs="+", metavar="N",
                        help="particles, from 0, that ways lead through (default: two at the far ends of z)")
    parser.add_argument("--Apix", "--apix", type=float, metavar="Å", help="pixel size of the maps (default: the run's)")
    parser.add_argument("--skip-vol", action="store_true", help="no maps: latents and pictures only")
    parser.add_argument("--skip-half-maps", action="store_true", help="don't backproject the clusters' particles")
    parser.add_argument("--umap", action="store_true", help="embed by UMAP too (extra: pip install 'cryorecon[umap]')")
    parser.add_argument("--device", default="auto", help="where maps are made (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")


def main(args: argparse.Namespace) -> None:
    """Run ``cryorecon analyze``."""
    import shlex
    import sys

    import numpy as np
    import torch

    from cryorecon import __version__
    from cryorecon.analysis.distribution import distribution
    from cryorecon.analysis.explore import embed_umap, explore, write_summary
    from cryorecon.analysis.history import read_history
    from cryorecon.analysis.latent import check_latents
    from cryorecon.analysis.trajectories import write_series
    from cryorecon.analysis.vouch import vouch
    from cryorecon.analysis.walks import walks
    from cryorecon.errors import InputError
    from cryorecon.report import evidence_sections as evidence
    from cryorecon.report.analysis_page import make_explorer, write_analysis
    from cryorecon.report.chimerax import write_series_script
    from cryorecon.training.trained import load_run

    if args.Apix is not None and args.Apix <= 0:
        raise InputError(f"--Apix: expected a pixel size above 0 Å, found {args.Apix}")
    model = load_run(args.run, args.epoch, args.device)
    z, epoch = model.z, model.epoch
    if z.shape[1] == 0:
        raise InputError(f"{args.run}: expected a run with latents, found one structure; eval_vol writes its map")
    check_latents(z, f"{args.run}/z.{epoch}.npy")
    apix = float(model.apix if args.Apix is None else args.Apix)
    decode = None if args.skip_vol else lambda point: model.density(point[None])[0]

    folder = args.outdir if args.outdir is not None else args.run / f"analyze.{epoch}"
    found = explore(z, folder, decode, apix, args.ksample, args.pc, seed=args.seed)
    states = distribution(z, model.directory.likelihood(epoch), found.pca, folder, args.states, args.seed)
    ways = walks(z, states, found.pca, folder, decode, apix, args.anchors, seed=args.seed)
    of_states = [] if decode is None else write_series(folder / states.name, decode, z[states.nearest], apix, "maps of states")
    found.files.update(states.files)
    series = [*evidence.walk_series(ways), *([evidence.states_series(states, z, of_states)] if of_states else [])]
    sections = [evidence.distribution_section(states, found.pca, ways, folder)]
    opened = _particles(model, args.device)
    if opened is not None:
        asked = {found.clusters_name: (found.clusters.labels, found.cluster_maps), states.name: (states.labels, of_states)}
        vouched = vouch(*opened, found.coordinates, {} if args.skip_half_maps else asked, folder, args.seed)
        found.files.update(vouched.files)
        sections += evidence.vouched_sections(vouched, apix, folder)
        for line in vouched.leakage.warnings():
            print(f"cryorecon: warning: {line}", file=sys.stderr)
    for maps, path in [(found.cluster_maps, False), *((one, True) for one in found.path_maps), (of_states, False),
                       *((way.maps, True) for way in ways)]:
        if maps:
            write_series_script(maps[0].parent, maps, morph=path)
    found.files["*/chimerax.cxc"] = "opens that folder's maps in ChimeraX, at one level, as a slider or a morph"

    embedded = embed_umap(z, folder, args.seed) if args.umap else None
    facts = {"command": shlex.join(["cryorecon", *sys.argv[1:]]), "run": str(args.run.resolve()), "epoch": str(epoch),
             "pixel size": f"{apix:g} Å", "seed": str(args.seed), "cryorecon": __version__,
             "torch": torch.__version__, "numpy": np.__version__}
    select = shlex.join(["cryorecon", "select", str(args.run), str(epoch), "--lasso", "selection.json", "-o", "chosen"])
    explorer = make_explorer(found, z, select, embedded, None if opened is None else opened[0].stack, series)
    page = write_analysis(found, read_history(args.run / "metrics.jsonl"), apix, f"{args.run.resolve().name}, epoch {epoch}",
                          facts, explorer, sections)
    write_summary(found, {"run": str(args.run), "epoch": epoch, "apix": apix, "version": __version__,
                          "states": len(states.mixture), "occupancies": states.occupancy.round(5).tolist(),
                          "occupancy_errors": states.error.round(5).tolist()})
    shares = ", ".join(f"{100 * share:.1f} %" for share in found.pca.explained[:3])
    print(f"{len(z):,} particles, zdim {z.shape[1]}; variance along the principal components: {shares}")
    pairs = zip(states.occupancy, states.error, strict=True)
    print("states: " + ", ".join(f"{100 * share:.1f} ± {100 * error:.1f} %" for share, error in pairs))
    print(f"maps, arrays and pictures: {folder}\npage: {page}")


def _particles(model: "Trained", device: str) -> "tuple[Problem, State] | None":
    """The run with its particles; None, with a warning, where their files are gone."""
    import warnings

    from cryorecon.errors import InputError
    from cryorecon.training.evaluate import reopened

    try:
        return reopened(model.directory, model.epoch, device)
    except InputError as error:
        warnings.warn(f"no half maps, leakage and particle images: {error}", stacklevel=2)
        return None
