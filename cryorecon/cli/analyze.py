"""Analyse a run: clusters, states, free energies and paths, what vouches for them, and a report to look at.

Reads RUN/z.N.npy and the weights of the same epoch and writes RUN/analyze.N: maps at the k-means clusters of the latents
(each at the real particle nearest to its centre), at the states of a Gaussian mixture, along the principal components and along
paths through the latents; occupancies and free energies with errors; half maps of every cluster's own particles; whether z
follows what it should not; pictures, summary.json and a page, report.html, that shows all of it: points to click and to
lasso, maps that turn.

A run of train_gan infers nothing of any particle; of such a run this writes the maps along alpha (or the one map), how alike
they are and what shares of alpha that makes, with pictures and a page.

    cryorecon analyze out 25 --ksample 12
    cryorecon analyze out --anchors 17 431 --skip-half-maps
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cryorecon.cli import texts

if TYPE_CHECKING:
    import numpy as np

    from cryorecon.analysis.explore import Findings
    from cryorecon.analysis.vouch import Vouched
    from cryorecon.data.stack import ParticleStack
    from cryorecon.training.trained import Trained

FEWEST = 10  # particles that are analysed


def add_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cryorecon analyze``."""
    parser.add_argument("run", type=Path, help=texts.RUN)
    parser.add_argument("epoch", type=int, nargs="?", help=texts.CHECKPOINT)
    parser.add_argument("-o", "--outdir", type=Path, metavar="DIR", help="where to write (default: RUN/analyze.EPOCH)")
    parser.add_argument("--ksample", type=int, default=20, metavar="K", help="number of k-means clusters (default: 20)")
    parser.add_argument("--states", type=int, default=10, metavar="K",
                        help="most states of the Gaussian mixture, of which the smallest BIC chooses (default: 10)")
    parser.add_argument("--pc", type=int, default=2, metavar="N",
                        help="number of principal components to walk along (default: 2)")
    parser.add_argument("--anchors", type=int, nargs="+", metavar="N",
                        help="particles, from 0, that the paths lead through (default: two at the far ends of z)")
    parser.add_argument("--ind", metavar="FILE",
                        help="look at these particles alone: positions in the file that the run was given, "
                        "from 0, as select writes them (.pkl, .npy, .txt); numbers in what is written count these")
    parser.add_argument("--datadir", metavar="DIR", help=texts.DATADIR_NOW)
    parser.add_argument("--Apix", "--apix", type=float, metavar="Å", help="pixel size of the maps (default: the run's)")
    parser.add_argument("--skip-vol", action="store_true", help="decode no maps")
    parser.add_argument("--skip-half-maps", action="store_true", help="don't backproject the clusters' particles")
    parser.add_argument("--umap", action="store_true", help="embed by UMAP too (extra: pip install 'cryorecon[umap]')")
    parser.add_argument("--device", default="auto", metavar="NAME", help=texts.DEVICE)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=texts.SEED)


def main(args: argparse.Namespace) -> None:
    """Run ``cryorecon analyze``."""
    import shlex
    import sys

    import numpy as np
    import torch

    from cryorecon import __version__
    from cryorecon.analysis.selection import claim
    from cryorecon.cli.analyze_generated import analyze_generated
    from cryorecon.data.files import below
    from cryorecon.errors import InputError
    from cryorecon.training.trained import load_run

    if args.Apix is not None and args.Apix <= 0:
        raise InputError(f"--Apix: expected a pixel size above 0 Å, found {args.Apix}")
    model = load_run(args.run, args.epoch, args.device)
    epoch, apix = model.epoch, float(model.apix if args.Apix is None else args.Apix)
    folder = args.outdir if args.outdir is not None else below(args.run, f"analyze.{epoch}")
    made = {"command": shlex.join(["cryorecon", *sys.argv[1:]]), "run": str(args.run.resolve()), "epoch": str(epoch),
            "pixel size": f"{apix:g} Å", "cryorecon": __version__, "torch": torch.__version__, "numpy": np.__version__}
    if model.config.objective == "adversarial":
        parser = argparse.ArgumentParser()
        add_args(parser)
        analyze_generated(args, model, folder, apix, made, parser.get_default)
        return
    rows = _rows(args, model)
    with claim(folder, None if args.ind is None else rows):
        _analyze(args, model, folder, apix, rows, made)


def _analyze(args: argparse.Namespace, model: "Trained", folder: Path, apix: float, rows: "np.ndarray",
             made: dict[str, str]) -> None:
    """Look at the particles of some ``rows`` of z, and write all; ``made``: what the page says of how."""
    import shlex
    import sys

    from cryorecon import __version__
    from cryorecon.analysis.distribution import distribution
    from cryorecon.analysis.explore import embed_umap, explore, write_summary
    from cryorecon.analysis.history import read_history
    from cryorecon.analysis.trajectories import write_series
    from cryorecon.analysis.walks import walks
    from cryorecon.report import evidence_sections as evidence
    from cryorecon.report.analysis_page import make_explorer, write_analysis
    from cryorecon.training.run_directory import digest

    epoch = model.epoch
    z, likelihood = model.z[rows], model.directory.likelihood(epoch)
    decode = None if args.skip_vol else lambda point: model.density(point[None])[0]

    found = explore(z, folder, decode, apix, args.ksample, args.pc, seed=args.seed)
    print("states, densities and ways", file=sys.stderr)
    states = distribution(z, None if likelihood is None else likelihood[rows], found.pca, folder, args.states, args.seed)
    ways = walks(z, states, found.pca, folder, decode, apix, args.anchors, seed=args.seed)
    of_states = [] if decode is None else write_series(folder / states.name, decode, z[states.nearest], apix, "maps of states")
    found.files.update(states.files | {f"{way.name}/": f"latents and maps along the {way.title}" for way in ways})
    _chimerax(found, [(of_states, False), *((way.maps, True) for way in ways)])

    print("what the particles say", file=sys.stderr)
    clusterings = {found.clusters_name: (found.clusters.labels, found.cluster_maps), states.name: (states.labels, of_states)}
    vouched, stack = _evidence(args, model, found, rows, {} if args.skip_half_maps else clusterings)
    sections = [evidence.in_short(states, found.pca.explained, ways, vouched, apix, args.states),
                evidence.distribution_section(states, found.pca, ways, folder),
                *([] if vouched is None else evidence.vouched_sections(vouched, apix, folder))]
    embedded = embed_umap(z, folder, args.seed) if args.umap else None
    facts = {"particles": f"{len(rows):,} of the run's {len(model.z):,}; numbers of particles count these, from 0", **made,
             "seed": str(args.seed)}
    elsewhere = [] if args.outdir is None else ["--analysis", str(args.outdir)]
    select = ["cryorecon", "select", str(args.run), str(epoch), *elsewhere, "--lasso", "selection.json", "-o", "chosen"]
    series = [*evidence.walk_series(ways), *([evidence.states_series(states, z, of_states)] if of_states else [])]
    page = write_analysis(found, read_history(args.run / "metrics.jsonl"), apix, f"{args.run.resolve().name}, epoch {epoch}",
                          facts, make_explorer(found, z, shlex.join(select), embedded, stack, series),
                          sections)
    write_summary(found, {"run": str(args.run), "epoch": epoch, "apix": apix, "version": __version__,
                          "latents": digest(model.z), "clusters_in": found.clusters_name, "states_in": states.name,
                          "states": len(states.mixture), "occupancies": states.occupancy.round(5).tolist(),
                          "occupancy_errors": states.error.round(5).tolist()})
    shares = ", ".join(f"{100 * share:.1f} %" for share in found.pca.explained[:3])
    print(f"{len(z):,} particles, zdim {z.shape[1]}; variance along the principal components: {shares}")
    pairs = zip(states.occupancy, states.error, strict=True)
    print("states: " + ", ".join(f"{100 * share:.1f} ± {100 * error:.1f} %" for share, error in pairs))
    print(f"maps, arrays and pictures: {folder}\npage: {page}")


def _rows(args: argparse.Namespace, model: "Trained") -> "np.ndarray":
    """Which particles are looked at; :class:`InputError` where there are no latents, too few, or some that are not finite."""
    import numpy as np

    from cryorecon.analysis.latent import check_latents
    from cryorecon.analysis.selection import rows_of
    from cryorecon.data.cryodrgn_files import read_indices
    from cryorecon.errors import InputError

    if model.z.shape[1] == 0:
        raise InputError(f"{args.run}: expected a run with latents, found one structure; eval_vol writes its map")
    rows = np.arange(len(model.z))
    if args.ind is not None:
        held = rows if model.config.ind is None else read_indices(model.config.ind)
        rows = rows_of(read_indices(args.ind), held, args.ind)
    if len(rows) < FEWEST:
        raise InputError(f"expected at least {FEWEST} particles to analyse, found {len(rows)}")
    check_latents(model.z[rows], f"{args.run}/z.{model.epoch}.npy")
    return rows


def _chimerax(found: "Findings", more: "list[tuple[list[Path], bool]]") -> None:
    """A script beside every series of maps; with each of ``more``, whether it is a path."""
    from cryorecon.report.chimerax import write_series_script

    for maps, path in [(found.cluster_maps, False), *((one, True) for one in found.path_maps), *more]:
        if maps:
            write_series_script(maps[0].parent, maps, morph=path)
            found.files["*/chimerax.cxc"] = "opens that folder's maps in ChimeraX, at one level, as a slider or a morph"


def _evidence(args: argparse.Namespace, model: "Trained", found: "Findings", rows: "np.ndarray",
              clusterings: "dict[str, tuple[np.ndarray, list[Path]]]") -> "tuple[Vouched | None, ParticleStack | None]":
    """What the particles say, and the particles; nothing, with a warning, where their files are gone."""
    import sys
    import warnings

    from cryorecon.analysis.vouch import vouch
    from cryorecon.errors import InputError
    from cryorecon.training.evaluate import reopened

    try:
        problem, state = reopened(model.directory, model.epoch, args.device, datadir=args.datadir)
    except InputError as error:
        warnings.warn(f"no half maps, leakage and particle images: {error}", stacklevel=2)
        return None, None
    vouched = vouch(problem, state, found.coordinates, clusterings, found.folder, args.seed, rows)
    found.files.update(vouched.files)
    for line in vouched.leakage.warnings():
        print(f"cryorecon: warning: {line}", file=sys.stderr)
    return vouched, problem.stack.of_particles(rows)
