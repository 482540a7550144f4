"""Repeat a run and say whether it comes out the same.

Checks first that every file which the run read is as it was (a line says which is not), notes versions and threads that are
others, trains the same configuration into a new folder and compares the two last checkpoints: the same bits, or how far
apart. On a CPU the same data, versions and number of threads give the same bits; the run's number of threads is taken.
Interrupted, the same command goes on. Exit code 0: the same bits; 1: not.

    cryorecon rerun out
    cryorecon rerun out -o out_again
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorecon.cli import texts

if TYPE_CHECKING:
    from cryorecon.training.config import RunConfig
    from cryorecon.training.run_directory import RunDirectory


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``rerun``."""
    parser.add_argument("run", type=Path, help=texts.RUN)
    parser.add_argument("-o", "--outdir", type=Path, metavar="DIR", help="a new folder (default: RUN.again, beside it)")


def main(args: argparse.Namespace) -> int:
    """Check, train, compare.

    Raises
    ------
    InputError: no run, one that is not finished or whose particles were in memory; data that have changed; a folder that holds
    a run of another configuration.
    """
    import shlex

    import torch

    from cryorecon.analysis.repeat import compare
    from cryorecon.cli.session import carry_out, command_of
    from cryorecon.training.provenance import read
    from cryorecon.training.run_directory import RunDirectory

    run = RunDirectory(args.run)
    again = RunDirectory(args.outdir or args.run.with_name(f"{args.run.resolve().name}.again"))
    config, found = _repeatable(run), read(run)
    _check(run, found)
    begun = (again.path / "config.yaml").is_file() and again.config() == config
    before = torch.get_num_threads()
    if found is not None:
        torch.set_num_threads(found["sessions"][0]["threads"])
    try:
        commands = (["cryorecon", "rerun", str(args.run), "-o", str(again.path)],
                    f"cryorecon {command_of(config)} {shlex.quote(config.particles)} -o {shlex.quote(str(again.path))}")
        carry_out(config, again, commands, max(again.epochs(), default=0) if begun else None)
    finally:
        torch.set_num_threads(before)
    told = compare(run, again)
    print(f"{again.path}: {told}")
    return 0 if told.bits else 1


def _repeatable(run: "RunDirectory") -> "RunConfig":
    """The configuration of a run that can be repeated."""
    from cryorecon.errors import InputError

    config, done = run.config(), max(run.epochs(), default=-1)
    if not Path(config.particles).exists():
        raise InputError(f"{config.particles}: expected the particles of {run.path}, found none; runs on particles in memory "
                         "are repeated by the call that made them")
    if done != config.epochs:
        raise InputError(f"{run.path}: expected a finished run, found {max(done, 0)} of {config.epochs} epochs; finish it by "
                         "--resume first")
    run.load()  # whose settings are config.yaml's, or it raises
    return config


def _check(run: "RunDirectory", found: "dict[str, Any] | None") -> None:
    """Raise where the data have changed; note what else has."""
    from cryorecon.errors import InputError
    from cryorecon.training.provenance import changed, differences

    if found is None:
        print(f"cryorecon: warning: {run.path} says nothing of its data and versions (an older run): not compared",
              file=sys.stderr)
        return
    told = changed(found["inputs"])
    if told is not None:
        raise InputError(told)
    print(f"data: {len(found['inputs'])} files as they were", file=sys.stderr)
    for line in differences(found["sessions"]):
        print(f"cryorecon: warning: {line}", file=sys.stderr)
