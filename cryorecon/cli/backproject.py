"""One map and its half maps by weighted backprojection: closed form, no training.

Writes backproject.mrc (Wiener-filtered by the half maps' FSC and masked), half_map_a.mrc and half_map_b.mrc (neither
filtered nor masked), fsc.csv and fsc.png, and prints the resolution at FSC 0.143 and 0.5 between half sets that never
met. Noise is measured by shell, contrast by image; tilt series and CTF-premultiplied images are taken as they are.

    cryorecon backproject particles.star --symmetry D2 -o consensus
    cryorecon backproject particles.mrcs --poses poses.pkl --ctf ctf.pkl -o all
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cryorecon.cli import options

if TYPE_CHECKING:
    from cryorecon.metrics.fsc import FSCCurve

THRESHOLDS = (0.143, 0.5)


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``backproject``."""
    options.add_data(parser)
    options.add_symmetry(options.add_maps(parser))
    options.add_run(parser)


def main(args: argparse.Namespace) -> None:
    """Backproject.

    Raises
    ------
    InputError: bad input of any kind; nothing is written then.
    """
    import sys

    from cryorecon.cli.idle import idle
    from cryorecon.cli.session import described
    from cryorecon.data.files import exclusive, require_writable
    from cryorecon.data.mrc import write_volume
    from cryorecon.errors import InputError
    from cryorecon.metrics.fsc import fsc_curve, resolution
    from cryorecon.training import build
    from cryorecon.training.train import first_map

    table = options.given(args)
    config = options.configuration(table | {"zdim": 0, "conformation": "fixed"})
    folder = Path(args.outdir)
    if folder.is_file() or (folder / "config.yaml").exists():
        kind = "a file" if folder.is_file() else "a training run, whose half maps these would replace"
        raise InputError(f"{folder}: expected a folder for the maps, found {kind}; give another -o")
    require_writable(folder)
    for line in idle(config, table, searched=False):
        print(f"cryorecon: warning: {line}", file=sys.stderr)
    problem = build.open_data(config)
    apix = problem.grid.apix
    found = first_map(config, problem, lambda *stage: print(described(*stage), file=sys.stderr)).found
    halves, mask = found.halves.cpu(), problem.mask.cpu()
    named = config.mask or f"soft sphere (radius {config.mask_radius:g} of half the box)"
    curves = [fsc_curve(halves[0], halves[1], mask, named), fsc_curve(halves[0], halves[1])]
    with exclusive(folder, ["backproject.mrc"]):  # written last: where it is, all is
        write_volume(folder / "half_map_a.mrc", halves[0].numpy(), apix)
        write_volume(folder / "half_map_b.mrc", halves[1].numpy(), apix)
        _write_curves(folder, curves, apix)
        write_volume(folder / "backproject.mrc", found.density.cpu().numpy(), apix)
    for curve in curves:
        for threshold in THRESHOLDS:
            print(resolution(curve, threshold, apix))
    print(f"map: {folder / 'backproject.mrc'} (half maps and fsc.png beside it)")


def _write_curves(folder: Path, curves: "list[FSCCurve]", apix: float) -> None:
    from cryorecon.data.files import atomic_path
    from cryorecon.metrics.fsc import resolution
    from cryorecon.report import plots
    from cryorecon.report.style import save

    masked, bare = curves
    rows = zip(masked.frequency.tolist(), masked.value.tolist(), bare.value.tolist(), strict=True)
    lines = [f"{f:.6f},{f'{apix / f:.4f}' if f else ''},{inside:.6f},{whole:.6f}" for f, inside, whole in rows]
    with atomic_path(folder / "fsc.csv") as temporary:
        temporary.write_text("\n".join(["frequency_per_px,resolution_angstrom,fsc_masked,fsc_unmasked", *lines]) + "\n")
    found = [resolution(masked, threshold, apix) for threshold in THRESHOLDS]
    drawn = {name: (curve.frequency.numpy(), curve.value.numpy())
             for name, curve in (("masked", masked), ("unmasked", bare))}
    crossings = [(each.threshold, each.frequency) for each in found if not each.bound]
    save(plots.fsc(drawn, apix, crossings, "half maps"), folder / "fsc.png")
