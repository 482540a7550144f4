"""Two processes on one run beside one: the loss curve, the map, and how much sooner it is done.

One thread a process, equal batches of the whole. **vae**: the network's loss after every pass, known poses, z in
closed form; the map is the consensus. **search**: poses from nothing, then the map of a network, laid on
the true one. *area*: under the FSC with the truth (middle state), of at most 0.5. *curve*: largest relative difference
of the loss.

    python benchmarks/team.py --work scratch/team -o benchmarks/results/team.json
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import common
from common import OURS, Table, fail, measure, write_results

HEAD = ("run", "images", "px", "batch", "processes", "wall, s", "CPU, s", "times as fast", "loss", "curve", "area")
TEAM = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "cryorecon"]
RUNS = {"vae": ["train_vae", "--zdim", "2", "-n", "2"], "search": ["train_nn", "-n", "1", "--restarts", "2"]}


def simulated(args: argparse.Namespace) -> Path:
    """The images, made once."""
    out = args.work / "data"
    if not (out / "truth.npz").is_file():
        shutil.rmtree(out, ignore_errors=True)
        made = measure([*OURS, "simulate", "--motion", "hinge", "-n", str(args.n), "-D", str(args.box), "--apix", "4", "--snr",
                        "0.1", "--max-shift", "1", "-o", str(out), "--device", "cpu"], args.work / "simulate.log")
        if made.exit_code:
            fail(f"simulate ended with {made.exit_code}; see {args.work / 'simulate.log'}")
    return out


def area(args: argparse.Namespace, run: Path, searched: bool) -> float:
    """Area under the FSC of the run's map with that of the middle state."""
    found = run / ("reconstruct.1.mrc" if searched else "consensus.mrc")
    out = run / "fsc"
    command = [*OURS, "eval_fsc", str(found), str(args.work / "data" / "maps" / "state_10.mrc"), "-o", str(out)]
    if measure([*command, *(["--align"] if searched else [])], run / "fsc.log").exit_code:
        fail(f"eval_fsc failed; see {run / 'fsc.log'}")
    return float(json.loads((out / "fsc.json").read_text())["auc"]["rounded"])


def score(args: argparse.Namespace, name: str) -> list[Table]:
    """One and two processes."""
    data = simulated(args)
    given = [str(data / "particles.mrcs"), "--ctf", str(data / "ctf.pkl"), "-b", str(args.batch), "--device", "cpu"]
    if name == "vae":
        given += ["--poses", str(data / "poses.pkl")]
    rows: list[Table] = []
    for processes, program in ((1, OURS), (2, TEAM)):
        run = args.work / f"{name}-{processes}"
        shutil.rmtree(run, ignore_errors=True)
        command, *options = RUNS[name]
        done = measure([*program, command, *given, *options, "-o", str(run)], args.work / f"{name}-{processes}.log")
        if done.exit_code:
            fail(f"{command} ended with {done.exit_code}; see {args.work / f'{name}-{processes}.log'}")
        curve = [json.loads(line)["energy"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows.append({"run": name, "images": args.n, "box": args.box, "batch": args.batch, "processes": processes,
                     "curve": curve, "area": area(args, run, name == "search"), **done.table()})
        write_results(args.work / f"{name}.json", {"rows": rows})
    return rows


def tables(results: Table) -> str:
    """The results in Markdown."""
    lines = []
    for alone, both in zip(results["rows"][::2], results["rows"][1::2], strict=True):
        apart = max(abs(b / a - 1) for a, b in zip(alone["curve"], both["curve"], strict=True))
        for row in (alone, both):
            faster = alone["wall_seconds"] / row["wall_seconds"]
            lines.append([row["run"], row["images"], row["box"], row["batch"], row["processes"], row["wall_seconds"],
                          row["cpu_seconds"], faster, f"{row['curve'][-1]:.6f}", "" if row is alone else f"{apart:.1e}",
                          row["area"]])
    return common.markdown(lines, HEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", choices=tuple(RUNS), nargs="+", default=list(RUNS))
    parser.add_argument("-n", type=int, default=4000, metavar="N", help="images (default: 4000)")
    parser.add_argument("--box", type=int, default=64, metavar="PX", help="(default: 64)")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images of a step, of all processes (default: 64)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where runs are kept")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/team.json)")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    results: Table = {"benchmark": "team", "code": common.code_version(), "written": common.now(), "arguments": sys.argv[1:],
                      "machine": common.machine(1), "rows": []}
    for name in args.runs:
        results["rows"] += score(args, name)
        write_results(args.out or args.work / "team.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
