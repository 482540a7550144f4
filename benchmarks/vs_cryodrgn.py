"""cryorecon and cryoDRGN on the same simulated particles: accuracy, CPU time, memory, time to equal accuracy.

For every seed: simulate, train cryodrgn and ours (rows), score all by one function. Rows of ours: network (train_vae as
it comes), lowrank (its closed-form maps alone), plain (the network from scratch, as cryodrgn does it). Whatever is
finished stays in --work and is not repeated, so that the same command goes on after an interruption. A cryodrgn run that
was made elsewhere counts if it lies in WORK/seedN/peer with the output of `/usr/bin/time -v` in WORK/seedN/peer.time.

    python benchmarks/vs_cryodrgn.py --data hsp90 --seeds 0 1 2 --epochs 20 --work scratch/hsp90 -o results.json
"""

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import common
from common import OURS, Measured, Table, fail, measure, read_json, sha256, write_json, write_results

ROWS = ("peer", "network", "lowrank", "plain")
WIDTHS = ["--enc-layers", "3", "--enc-dim", "256", "--dec-layers", "3", "--dec-dim", "256"]
DATA_FILES = ("particles.mrcs", "poses.pkl", "ctf.pkl", "truth.npz")
GB = 1e9


@dataclass(frozen=True)
class Dataset:
    """Arguments of ``cryorecon simulate``, and files of the shared data among them, by option."""

    options: str
    shared: tuple[tuple[str, str], ...] = ()

    def command(self, seed: int, out: Path, shared: Path) -> list[str]:
        """The command that makes it."""
        files = [word for option, name in self.shared for word in (option, str(shared / name))]
        return [*OURS, "simulate", *files, *self.options.split(), "--seed", str(seed), "-o", str(out)]


DATASETS = {
    "hsp90": Dataset("-n 5000 -D 64 --apix 3 --snr 0.1 --max-shift 3 --b-factor 20",
                     (("--atoms", "atoms/hsp90_2cg9_1D_20states_allatom.npz"),
                      ("--ctf-table", "metadata/cryodrgn_ctf_empiar10028_10049.npz"))),
    "tiny": Dataset("--motion hinge --states 4 -n 200 -D 36 --apix 6 --snr 0.5"),  # a rehearsal of the script itself
}


@dataclass(frozen=True)
class Bench:
    """What the command line asks for; ``binaries``: the peer's."""

    work: Path
    dataset: Dataset
    shared: Path
    epochs: int
    plain_epochs: int
    zdim: int
    threads: int
    curve: tuple[int, ...]
    binaries: Path | None

    def command(self, row: str, seed: int, out: Path) -> list[str]:
        """The training command of a row."""
        data = self.work / f"seed{seed}"
        words = [str(data / "particles.mrcs"), "--poses", str(data / "poses.pkl"), "--ctf", str(data / "ctf.pkl"),
                 "--zdim", str(self.zdim), *WIDTHS, "--seed", str(seed), "-o", str(out)]
        if row == "peer" and self.binaries is not None:
            return [str(self.binaries / "cryodrgn"), "train_vae", *words, "-n", str(self.epochs), "--no-analysis"]
        extra = {"network": [], "lowrank": ["-n", "0"],
                 "plain": ["--road", "plain", "--conformation", "encoder", "-n", str(self.plain_epochs)]}[row]
        return [*OURS, "train_vae", *words, *extra]


def simulate(bench: Bench, seed: int) -> str:
    """Make the seed's particles unless they are there; their digest."""
    folder = bench.work / f"seed{seed}"
    files = [folder / name for name in DATA_FILES]
    if not all(file.is_file() for file in files):
        if folder.exists() and any(folder.iterdir()):
            fail(f"{folder}: expected {', '.join(DATA_FILES)} or nothing, found other files; remove them")
        part, log = bench.work / f"seed{seed}.part", bench.work / f"seed{seed}.log"
        shutil.rmtree(part, ignore_errors=True)
        say(f"seed {seed}: simulating")
        done = measure(bench.dataset.command(seed, part, bench.shared), log, bench.threads)
        check(done, log)
        write_json(part / "simulate.json", done.table())
        part.rename(folder)
    return sha256(files)


def train(bench: Bench, row: str, seed: int, digest: str) -> tuple[Path, Table]:
    """The row's run, trained now or before: its folder and what was measured."""
    data = bench.work / f"seed{seed}"
    folder = data / row
    finished = read_json(folder / "done.json")
    if finished is None and folder.exists():
        finished = imported(bench, folder, digest)
    if finished is None:
        part = data / f"{row}.part"
        shutil.rmtree(part, ignore_errors=True)
        say(f"seed {seed}: {row}")
        measured = measure(bench.command(row, seed, part), data / f"{row}.log", bench.threads)
        check(measured, data / f"{row}.log")
        code = f"cryodrgn {common.PEER_VERSION}" if row == "peer" else f"cryorecon {common.code_version()}"
        finished = measured.table() | {"data_sha256": digest, "code": code, "threads": bench.threads}
        write_json(part / "done.json", finished)
        part.rename(folder)
    if finished["data_sha256"] != digest:
        fail(f"{folder}: expected a run on the data in {data}, found one on others; remove it to repeat it")
    return folder, finished


def imported(bench: Bench, folder: Path, digest: str) -> Table:
    """A peer run made elsewhere, with its ``peer.time`` beside it, taken as it stands."""
    measured = common.read_gnu_time(folder.with_name("peer.time"))
    if folder.name != "peer" or measured is None or not (folder / f"weights.{bench.epochs}.pkl").is_file():
        fail(f"{folder}: expected a finished run, found one that is under way or was cut short; wait, or remove it")
    finished = measured.table() | {"data_sha256": digest, "code": f"cryodrgn {common.PEER_VERSION}",
                                   "threads": bench.threads, "imported": True}
    write_json(folder / "done.json", finished)
    return finished


def check(measured: Measured, log: Path) -> None:
    """End here if the process failed."""
    if measured.exit_code:
        tail = log.read_text(errors="replace").strip().splitlines()[-1:]
        fail(f"expected exit code 0, found {measured.exit_code} of {' '.join(measured.command[:4])} ...: "
             f"{' '.join(tail)} (all of it in {log})")


def checkpoints(row: str, folder: Path, measured: Table, wanted: tuple[int, ...]) -> dict[int, float]:
    """Checkpoints to score, the last among them, and the CPU seconds until each.

    cryodrgn's epochs cost the same: its share of the total. Ours writes the time of each pass of the network down.
    """
    total = measured["cpu_seconds"]
    if row == "peer":
        found = sorted(int(path.name.split(".")[1]) for path in folder.glob("weights.*.pkl") if path.name.count(".") == 2)
        seconds = {epoch: total * epoch / found[-1] for epoch in found}
    else:
        passes = network_seconds(folder)
        last = max(passes.values(), default=0.0)
        epochs = sorted(int(path.name.split(".")[1]) for path in folder.glob("weights.*.pt"))
        seconds = {epoch: total - last + passes.get(epoch, 0.0) for epoch in epochs}
    final = max(seconds)
    return {epoch: cost for epoch, cost in seconds.items() if epoch in wanted or epoch == final}


def network_seconds(folder: Path) -> dict[int, float]:
    """CPU seconds of our network's passes up to each epoch, from ``metrics.jsonl``."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {line["epoch"]: line["cpu_seconds"] for line in lines if "cpu_seconds" in line}


def scored(bench: Bench, row: str, seed: int, folder: Path, epoch: int) -> Table:
    """Scores of one checkpoint, computed now (in a process of its own) or before."""
    out = folder / f"score.{epoch}.json"
    if not out.is_file():
        say(f"seed {seed}: scoring {row}, epoch {epoch}")
        run = ["--run", str(folder)]
        if row == "peer" and bench.binaries is not None:
            run = ["--peer-run", str(folder), "--peer", str(bench.binaries.parent)]
        command = [sys.executable, str(common.HERE / "score.py"), str(bench.work / f"seed{seed}"), *run, "--epoch",
                   str(epoch), "-o", str(out)]
        subprocess.run(command, check=True, capture_output=True, env=common.environment(bench.threads))
    return read_json(out)


def one_row(bench: Bench, row: str, seed: int, digest: str) -> Table:
    """Everything about a row: measured, scores of the last checkpoint, and of the curve's."""
    folder, measured = train(bench, row, seed, digest)
    seconds = checkpoints(row, folder, measured, bench.curve)
    curve = [{"epoch": epoch, "cpu_seconds": cost} | scored(bench, row, seed, folder, epoch)
             for epoch, cost in seconds.items()]
    last = curve[-1]
    passes = network_seconds(folder)
    each = max(passes.values()) / max(passes) if passes else None
    if row == "peer":
        each = measured["cpu_seconds"] / last["epoch"]
    scores = {key: value for key, value in last.items() if key != "cpu_seconds"}
    return {"seed": seed, "row": row, **scores, **measured, "cpu_seconds_per_epoch": each, "curve": curve}


def earlier(path: Path | None, row: str, seed: int, digest: str) -> Table | None:
    """A row of earlier results; None where there is none or the particles were others."""
    wanted = {"row": row, "seed": seed, "data_sha256": digest}
    rows = read_json(path)["rows"] if path is not None else []
    return next((one for one in rows if wanted.items() <= one.items()), None)


def compare(rows: list[Table]) -> None:
    """Adds to our rows the ratios to the peer's row of the same seed, and the time to equal accuracy."""
    for peer in (row for row in rows if row["row"] == "peer"):
        for row in rows:
            if row["seed"] != peer["seed"] or row is peer:
                continue
            row["times_less_cpu"] = peer["cpu_seconds"] / row["cpu_seconds"]
            as_good = [point["cpu_seconds"] for point in row["curve"]
                       if all(point[name] >= peer[name] for name in ("spearman", "auc", "difference_maps"))]
            row["equal_accuracy_cpu_seconds"] = min(as_good, default=None)


HEAD = ("seed", "row", "epochs", "Spearman", "FSC-AUC", "difference maps", "CPU-s", "CPU-s an epoch", "times less CPU",
        "CPU-s to the peer's accuracy", "peak memory, GB", "measured")


def tables(results: Table) -> str:
    """The results in Markdown: a line for each seed and row, then the commands."""
    lines = [[row["seed"], row["row"], row["epoch"], row["spearman"], row["auc"], row["difference_maps"],
              row["cpu_seconds"], row["cpu_seconds_per_epoch"], row.get("times_less_cpu"),
              row.get("equal_accuracy_cpu_seconds"), row["peak_rss_bytes"] / GB, row["started"][:16]]
             for row in results["rows"]]
    commands = {row["row"]: f"- {row['row']} ({row['code']}): `{shortened(row['command'])}`" for row in results["rows"]}
    return "\n".join([common.markdown(lines, HEAD), "", *commands.values()])


def shortened(command: list[str]) -> str:
    """A command without the folders of its paths."""
    words = ["cryorecon"] + command[3:] if command[1:3] == ["-m", "cryorecon"] else command
    return " ".join(word.rpartition("/")[2].removesuffix(".part") for word in words)


def say(text: str) -> None:
    """One line of progress."""
    print(f"{common.now()}  {text}", file=sys.stderr, flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATASETS, default="hsp90", help="what is simulated (default: hsp90)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="(default: 0 1 2)")
    parser.add_argument("--rows", choices=ROWS, nargs="+", default=list(ROWS[:3]), help="(default: all but plain)")
    parser.add_argument("--epochs", type=int, default=20, metavar="N", help="of cryodrgn (default: 20)")
    parser.add_argument("--plain-epochs", type=int, metavar="N", help="of plain (default: as many)")
    parser.add_argument("--zdim", type=int, default=8, metavar="N", help="(default: 8)")
    parser.add_argument("--curve", type=int, nargs="+", default=[], metavar="N",
                        help="score these epochs too, of every row that has them")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every process (default: 1)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where everything is kept")
    parser.add_argument("--shared", type=Path, default=common.SHARED, metavar="DIR", help="the shared data")
    parser.add_argument("--known", type=Path, metavar="JSON",
                        help="take rows from these earlier results where they were measured on the same bytes")
    parser.add_argument("--peer", metavar="PATH", help="an environment with the peer (default: made in --work)")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/results.json)")
    return parser


def main() -> None:
    args = arguments().parse_args()
    work = args.work.absolute()
    with common.locked(work):
        binaries = common.peer_environment(work, args.peer) if "peer" in args.rows else None
        bench = Bench(work, DATASETS[args.data], args.shared, args.epochs, args.plain_epochs or args.epochs, args.zdim,
                      args.threads, tuple(args.curve), binaries)
        results: Table = {"benchmark": "vs_cryodrgn", "data": args.data, "written": common.now(),
                          "arguments": sys.argv[1:], "machine": common.machine(args.threads), "rows": []}
        for seed in args.seeds:
            digest = simulate(bench, seed)
            for row in args.rows:
                known = earlier(args.known, row, seed, digest)
                results["rows"].append(known or one_row(bench, row, seed, digest))
                compare(results["rows"])
                write_results(args.out or work / "results.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
