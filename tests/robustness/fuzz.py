"""Fuzz every reader: python tests/robustness/fuzz.py [--reader NAME] [--case N] [--cases N] [--json FILE].

A case is a reader and a number: the number alone settles seed, mutation and every random draw, so that any failure is played
again by its name (``--reader mrc --case 1234``). Prints a table of cases by reader and kind of mutation, and fails unless every
one was read or refused in one line.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import guard
import mutate
import mutate_arrays  # noqa: F401  it enters its mutations
import mutate_objects  # noqa: F401
import mutate_text  # noqa: F401
import readers
from guard import Outcome
from readers import Reader, Seed

PLACES = {"not_a_file": mutate.not_a_file, "hostile_name": mutate.hostile_name}


@dataclass(frozen=True)
class Case:
    """What was tried, and what came of it."""

    reader: str
    number: int
    seed: str
    mutations: tuple[str, ...]
    outcome: Outcome

    @property
    def replay(self) -> str:
        """The command that plays the case again."""
        return f"python tests/robustness/fuzz.py --reader {self.reader!r} --case {self.number}"


def mutations_of(reader: Reader) -> list[str]:
    """Names of the mutations that a reader's files get."""
    return [*dict.fromkeys(name for family in reader.families for name in mutate.FAMILIES[family]), *PLACES]


def run_case(reader: Reader, number: int, seeds: Path, workspace: Path) -> Case:
    """Try one: copy a seed, mutate it, read it under watch."""
    rng = random.Random(f"{reader.name} {number}")
    names = mutations_of(reader)
    first = names[number % len(names)]
    seed = rng.choice(reader.found(seeds))
    folder = workspace / f"case-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = _planted(seed, seeds, folder)
    applied = [first]
    if first in PLACES:
        path = PLACES[first](rng, path)
    else:
        byte_wise = [name for name in names if name not in PLACES]
        applied += rng.choices(byte_wise, k=rng.choice((0, 0, 0, 1, 2)))
        raw = path.read_bytes()
        for name in applied:
            raw = _by_name(name)(rng, raw)
        path.write_bytes(raw)
    size = sum(one.stat().st_size for one in path.parent.rglob("*") if one.is_file() and not one.is_symlink())
    outcome = guard.watch(lambda: reader.read(path), folder, size)
    shutil.rmtree(folder, ignore_errors=True)
    return Case(reader.name, number, seed.name, tuple(applied), outcome)


def _by_name(name: str) -> mutate.Mutation:
    return next(family[name] for family in mutate.FAMILIES.values() if name in family)


def _planted(seed: Seed, seeds: Path, folder: Path) -> Path:
    """A copy of the seed's folder, of an analysis's parent too, and beside it what some readers read the file against."""
    whole = seed.folder.parent if seed.folder.name == "kmeans2" else seed.folder
    shutil.copytree(whole, folder / whole.name)
    beside = {"arrays": seeds / "sim", "sim": seeds / "run"}.get(whole.name)
    if beside is not None:
        (folder / "beside").symlink_to(beside)
    return folder / whole.name / seed.folder.relative_to(whole) / seed.name


def warm_up(chosen: Sequence[Reader], seeds: Path, workspace: Path) -> list[str]:
    """Read every seed as it is (imports happen here, not in a case); what could not be read."""
    wrong = []
    for reader in chosen:
        for seed in reader.found(seeds):
            folder = workspace / "warm"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            path = _planted(seed, seeds, folder)
            outcome = guard.watch(lambda: reader.read(path), folder, path.stat().st_size)  # noqa: B023 (called at once)
            if outcome.verdict not in guard.GOOD:
                wrong.append(f"{reader.name}: {seed.name}: {outcome.verdict}: {outcome.said}")
    return wrong


def table(cases: Sequence[Case]) -> str:
    """Cases by reader and verdict, then by mutation."""
    lines = [
        f"{'reader':<22}{'cases':>8}{'read':>8}{'refused':>9}"
        + "".join(f"{name:>11}" for name in guard.BAD)
        + f"{'peak MB':>9}"
    ]
    names = dict.fromkeys(case.reader for case in cases)
    lines += [_row(name, [case for case in cases if case.reader == name]) for name in names]
    lines += [
        _row("all", cases),
        "",
        "cases by mutation: "
        + ", ".join(
            f"{name} {count}" for name, count in sorted(Counter(name for case in cases for name in case.mutations).items())
        ),
    ]
    return "\n".join(lines)


def _row(name: str, cases: Sequence[Case]) -> str:
    counts = Counter(case.outcome.verdict for case in cases)
    peak = max((case.outcome.peak for case in cases), default=0)
    return (
        f"{name:<22}{len(cases):>8}{counts['read']:>8}{counts['refused']:>9}"
        + "".join(f"{counts[one]:>11}" for one in guard.BAD)
        + f"{peak / 1e6:>9.1f}"
    )


def summary(cases: Sequence[Case], seconds: float) -> dict:
    """The table as JSON takes it."""
    by_reader = {
        name: {"cases": 0, **dict.fromkeys((*guard.GOOD, *guard.BAD), 0), "mutations": Counter()}
        for name in dict.fromkeys(case.reader for case in cases)
    }
    for case in cases:
        row = by_reader[case.reader]
        row["cases"] += 1
        row[case.outcome.verdict] += 1
        row["mutations"].update(case.mutations)
    failures = [
        {
            "replay": case.replay,
            "seed": case.seed,
            "mutations": case.mutations,
            "verdict": case.outcome.verdict,
            "said": case.outcome.said,
        }
        for case in cases
        if case.outcome.verdict in guard.BAD
    ]
    return {
        "cases": len(cases),
        "seconds": round(seconds, 1),
        "allowance_bytes": guard.ALLOWANCE,
        "factor": guard.FACTOR,
        "time_limit_s": guard.SECONDS,
        "largest_peak_bytes": max(case.outcome.peak for case in cases),
        "verdicts": dict(Counter(case.outcome.verdict for case in cases)),
        "readers": by_reader,
        "failures": failures,
    }


def main() -> int:
    """0 where nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", help="only readers whose name begins so")
    parser.add_argument("--case", type=int, help="only this case")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: 0)")
    parser.add_argument("--cases", type=int, default=400, help="cases of each reader (default: 400)")
    parser.add_argument("--seeds", type=Path, help="folder of seeds to make or take up (default: a temporary one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table here too")
    args = parser.parse_args()
    chosen = [reader for reader in readers.READERS if args.reader is None or reader.name.startswith(args.reader)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cryorecon-fuzz-") as temporary:
        workspace = Path(temporary) / "work"
        workspace.mkdir()
        seeds = args.seeds or Path(temporary) / "seeds"
        if not (seeds / "sim").is_dir():
            readers.make_seeds(seeds)
        tempfile.tempdir = str(workspace)
        wrong = warm_up(chosen, seeds, workspace)
        cases = []
        for reader in chosen:
            numbers = range(args.first, args.first + args.cases) if args.case is None else [args.case]
            for number in numbers:
                case = run_case(reader, number, seeds, workspace)
                cases.append(case)
                if case.outcome.verdict in guard.BAD or args.case is not None:
                    print(f"{case.outcome.verdict}: {case.replay}")
                    print(f"    {case.seed}, {' + '.join(case.mutations)}: {case.outcome.said}", flush=True)
            print(f"{len(cases)} cases, {reader.name}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            if args.json is not None:  # after each reader: a run that is stopped has what it did
                args.json.write_text(json.dumps(summary(cases, time.monotonic() - began), indent=1) + "\n")
    print("\n".join(wrong))
    print(table(cases))
    return int(bool(wrong) or any(case.outcome.verdict in guard.BAD for case in cases))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
