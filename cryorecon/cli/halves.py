"""``--halves`` of train_nn and train_vae: two runs on halves of the particles that never meet, and their gold standard."""

import argparse
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from cryorecon import ranks
from cryorecon.cli.options import configuration, given, spelled
from cryorecon.errors import InputError


def train_halves(args: argparse.Namespace, name: str, preset: dict[str, Any]) -> None:
    """Train both halves as ``args`` say, afresh or from where they stopped, and compare them; arguments and errors as of
    :func:`cryorecon.cli.session.run`.

    Writes ``half_1``, ``half_2`` (runs), ``half_1.npy``, ``half_2.npy`` (their particles) and ``gold_standard``.
    """
    with ranks.joined():
        _train(args, name, preset)
        ranks.wait()
        if ranks.leads():
            _judge(Path(args.outdir))


def _train(args: argparse.Namespace, name: str, preset: dict[str, Any]) -> None:
    from cryorecon.cli.session import carry_out, command_of
    from cryorecon.training import halves
    from cryorecon.training.follower import run_directory

    out, table, resume = Path(args.outdir), given(args), args.resume or args.load is not None
    there = halves.begun(out) if resume else []
    if there:
        if command_of(there[0].config()) != name:
            raise InputError(f"{out}: expected halves of {name}, found some of {command_of(there[0].config())}; resume them "
                             "with that command")
        config = there[0].resumed({key: value for key, value in table.items() if key != "ind"}, spelled)
    else:
        config = configuration(preset | table)
    if not resume:
        halves.begin(config, out)
    ranks.wait()
    short = f"cryorecon {name} {shlex.quote(args.particles)} -o {shlex.quote(args.outdir)} --halves"
    try:
        for number in halves.HALVES:
            directory = run_directory(halves.half_folder(out, number))
            if ranks.leads():
                print(f"half {number}", file=sys.stderr)
            own = halves.half_config(config, out, number)
            done = max(directory.epochs(), default=0) if directory.path in [run.path for run in there] else None
            carry_out(own, directory, (["cryorecon", *sys.argv[1:]], short), done, table)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped in half {number}; continue with: {short} --resume") from None
    except InputError:
        if ranks.leads():
            halves.forget(out)
        raise


def _judge(out: Path) -> None:
    """Compare the halves, say and write what comes out."""
    from cryorecon.analysis.gold_standard import gold_standard, write
    from cryorecon.data.files import below
    from cryorecon.report import plots
    from cryorecon.report.conformation_plots import halves as landscapes
    from cryorecon.report.style import save
    from cryorecon.training.halves import HALVES, half_folder
    from cryorecon.training.trained import load_run

    a, b = (load_run(half_folder(out, number)) for number in HALVES)
    folder = below(out, "gold_standard")
    found = gold_standard(a, b, a.config.seed)
    write(folder, found, {"half_1": str(a.directory.path), "half_2": str(b.directory.path), "epochs": [a.epoch, b.epoch],
                          "seed": a.config.seed})
    if found.alignment is not None:
        hand = "mirrored" if found.alignment.hand < 0 else "same hand"
        print(f"half 2 laid on half 1: correlation {found.alignment.correlation:.3f}, {hand}")
    for name, pair in found.pairs.items():
        drawn = {kind: (curve.frequency.numpy(), curve.value.numpy()) for kind, curve in pair.curves().items()}
        crossing = pair.resolutions(found.apix)["corrected"]
        marked = [] if crossing.bound else [(crossing.threshold, crossing.frequency)]
        title = f"{name}, halves that never met; mask: {Path(found.mask_name).name.split(',')[0]}"
        save(plots.fsc(drawn, found.apix, marked, title), folder / f"fsc_{name.replace(' ', '_')}.png")
    if found.landscapes is not None:
        save(landscapes(found.landscapes), folder / "halves.png")
        ratio = found.landscapes.ratio
        print("landscapes: " + ("nothing moves, or more than can be told" if math.isnan(ratio) else
                                f"ratio {ratio:.3f} (0: as two draws of one run; 1: no better than no motion)"))
    print("\n".join(found.lines()))
    print(f"halves   {out / 'half_1'}, {out / 'half_2'}\ncurves   {folder}/gold_standard.json, fsc.csv, fsc_*.png, mask.mrc")
