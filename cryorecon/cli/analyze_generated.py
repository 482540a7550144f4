"""``analyze`` of a run of train_gan, which infers nothing of any particle: what its generator makes is looked at."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cryorecon.errors import InputError

if TYPE_CHECKING:
    from cryorecon.training.trained import Trained

OF_PARTICLES = ("ksample", "states", "pc", "anchors", "datadir", "skip_half_maps", "umap", "seed")


def analyze_generated(args: argparse.Namespace, run: "Trained", folder: Path, apix: float, facts: dict[str, str],
                      default: Callable[[str], object]) -> None:
    """As ``args`` of :mod:`cryorecon.cli.analyze` say. facts: how this was made; default: of an option.

    Raises
    ------
    InputError: ``--ind``: there are no particles to choose.
    """
    import warnings

    from cryorecon.analysis.selection import claim

    if args.ind is not None:
        raise InputError(f"--ind: expected a run that knows its particles' conformations, found one of train_gan ({args.run}); "
                         "leave it out")
    idle = [f"--{name.replace('_', '-')}" for name in OF_PARTICLES if getattr(args, name) != default(name)]
    if idle:
        named = idle[0] if len(idle) == 1 else f"each of {', '.join(idle)}"
        warnings.warn(f"{named} changes nothing in this analysis: a run of train_gan infers nothing of any particle; leave it "
                      "out", stacklevel=2)
    with claim(folder):
        _analyze(args, run, folder, apix, facts)


def _analyze(args: argparse.Namespace, run: "Trained", folder: Path, apix: float, facts: dict[str, str]) -> None:
    import warnings

    from cryorecon import __version__
    from cryorecon.analysis.generated import explore_generated, write_generated_summary
    from cryorecon.analysis.history import read_history
    from cryorecon.metrics.occupancy import PARTS
    from cryorecon.report.chimerax import write_series_script
    from cryorecon.report.generated_page import write_generated

    found = explore_generated(run, folder, apix, not args.skip_vol)
    if found.map_files:
        write_series_script(folder, found.map_files, morph=len(found.map_files) > 1)
        found.files["chimerax.cxc"] = "opens the maps in ChimeraX, at one level; several as a morph"
    history = read_history(run.directory.path / "metrics.jsonl")
    page = write_generated(found, history, f"{args.run.resolve().name}, epoch {run.epoch}", facts)
    write_generated_summary(found, {"run": str(args.run), "epoch": run.epoch, "apix": apix, "version": __version__})
    for rule, one in found.occupancy.items():
        errors = [None] * len(PARTS) if one.error is None else one.error
        print(f"by the {'paper' if rule == 'paper' else 'relative'} rule: " + ", ".join(
            f"{part} {100 * share:.1f}{'' if error is None else f' ± {100 * error:.1f}'} %"
            for part, share, error in zip(PARTS, one.share, errors, strict=True)))
    if found.alike:
        warnings.warn("all maps along alpha are alike: no conformations found", stacklevel=2)
    print(f"maps, arrays and pictures: {folder}\npage: {page}")
