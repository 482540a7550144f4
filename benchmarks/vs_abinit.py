"""Poses from nothing, cryorecon and cryoDRGN (`abinit_homo_old`, `abinit`) on the same images, machine and day.

search: CPU time and error of one image's full search in a known map, at cryodrgn's default settings, and the rates of ours;
search_cost.py says what is measured and how.

rates: these rates alone, at the same settings; cryodrgn isn't needed.

run: whole runs on 1,000 images of 32 px, SNR 0.4: that of 64 px and SNR 0.1, binned by two. cryodrgn's settings are reduced
ones (its default search takes hours here); each of its runs may take --limit-seconds on the clock and is then ended, and every
checkpoint until there counts. Errors are medians after the best frame, of either hand, is taken out.

Whatever is finished stays in --work and is not repeated; --rehearse tries it all in a few minutes on next to nothing.

    python benchmarks/vs_abinit.py --work scratch/vs_abinit --peer ENVIRONMENT -o results.json
"""

import argparse
import datetime as dt
import sys
from pathlib import Path
from typing import Any

import common
from common import OURS, Table, write_results
from search_cost import DEFAULTS, PEER, Bench, Sizes, peer_poses, rates, search_part, told
from vs_cryodrgn import shortened

PARTS = ("search", "run", "rates")
PEERS = ("abinit_homo_old", "abinit")
TIMED_OUT = 124  # exit code of `timeout`

REDUCED = "--dim 128 --l-start 8 --l-end 14 --niter 3 --nkeptposes 4 --t-extent 4 --t-ngrid 5 --no-amp"
FULL = Sizes(64, 4.06, 5, 300, 4, 100, 32, 1000, 0.4, f"{REDUCED} --pe-dim 16 --ps-freq 3 -n 20",
             f"{REDUCED} --pe-dim 32 -n 30 --checkpoint 1 --num-workers 0 --no-analysis")
TINY = Sizes(32, 8.12, 2, 20, 1, 2, 32, 200, 1.0, f"{REDUCED} --pe-dim 16 --pretrain 200 --ps-freq 2 -n 3 --niter 1",
             f"{REDUCED} --pe-dim 32 -n 4 --checkpoint 1 --num-workers 0 --no-analysis --n-imgs-pretrain 200 --niter 1")


def run_part(bench: Bench, seeds: list[int], peers: list[str]) -> list[Table]:
    """Whole runs of ours and of the peer's programs, scored at their checkpoints."""
    sizes, rows = bench.sizes, []
    for seed in seeds:
        apix = sizes.apix * sizes.box / sizes.run_box
        data = bench.simulate("run", sizes.run_box, apix, 2, sizes.run_images, sizes.run_snr, seed)
        words = [str(data / "particles.mrcs"), "--ctf", str(data / "ctf.pkl"), "--seed", str(seed)]
        ours = bench.done(data / "train_nn", [*OURS, "train_nn", *words, "-n", "0", "-o"],
                          f"cryorecon {common.code_version()}")
        rows.append({"row": "train_nn", "seed": seed, **scored(data, ours, None)})
        own, known = rows[-1], {"abinit_homo_old": sizes.homo, "abinit": f"--zdim 0 {sizes.newer}"}
        for program, settings in ((peer, known[peer]) for peer in peers):
            command = [str(bench.binaries / "cryodrgn"), program, *words, *settings.split(), "-o"]
            cost = bench.done(data / program, ["timeout", f"{bench.limit:g}", *command], PEER, (0, TIMED_OUT))
            row = {"row": program, "seed": seed, **scored(data, cost, program)}
            rows.append(row | compared(row, own))
    return rows


def scored(data: Path, cost: Table, program: str | None) -> Table:
    """Cost of a run and errors of its poses, of each checkpoint where there are more.

    The processor time of a checkpoint is its file's share of the clock. cryodrgn's shifts are fractions of the box and a
    pixel more, in `abinit` pixels.
    """
    from ab_initio import Problem

    from cryorecon.data.cryodrgn_files import read_poses
    from cryorecon.metrics.pose_error import pose_error

    problem = Problem(data)
    true, grid, curve = problem.stack.poses, problem.grid, []
    scale = grid.apix * (grid.box + 1 if program == "abinit_homo_old" else 1)
    for number, path in checkpoints(data / (program or "train_nn"), program):
        held = read_poses(path, grid.box, grid.apix) if program is None else None
        rotation, shift = (held.rotation, held.shift) if held is not None else peer_poses(path, scale)
        error = pose_error(rotation, true.rotation, shift, true.shift)
        done = 1.0 if program is None else (path.stat().st_mtime - began(cost)) / cost["wall_seconds"]
        curve.append({"epoch": number, "cpu_seconds": cost["cpu_seconds"] * min(done, 1.0), **told(error, grid.apix)})
    best = min(curve, key=lambda point: point["angle"], default=None)
    return {**cost, "timed_out": cost["exit_code"] == TIMED_OUT, "last": curve[-1] if curve else None, "best": best,
            "curve": curve}


def began(cost: Table) -> float:
    """When a measured process was started, in seconds since 1970."""
    return dt.datetime.fromisoformat(cost["started"]).timestamp()


def checkpoints(folder: Path, program: str | None) -> list[tuple[int, Path]]:
    """Files of poses by epoch; ours has one."""
    if program is None:
        return [(0, folder / "poses.0.pkl")]
    numbered = ((path.name.split(".")[1], path) for path in folder.glob("pose.*.pkl"))
    return sorted((int(number), path) for number, path in numbered if number.isdigit())


def compared(peer: Table, ours: Table) -> Table:
    """A peer's run beside ours: its CPU seconds to our median rotation error, None where it never gets there; these, or else
    all that it spent (a lower bound), over ours."""
    wanted = ours["last"]["angle"]
    as_good = next((point["cpu_seconds"] for point in peer["curve"] if point["angle"] <= wanted), None)
    spent = peer["cpu_seconds"] if as_good is None else as_good
    return {"cpu_seconds_to_our_error": as_good, "times_our_cpu": spent / ours["cpu_seconds"]}


SEARCH_HEAD = ("search", "SNR", "images", "last step, degrees", "rotation, degrees", "on cryodrgn's images", "shift, px",
               "within 10°", "CPU-ms an image", "once for a map, CPU-s", "times less CPU")
RATE_HEAD = ("device", "level", "slices/s", "energies/s", "ms an image", "GFLOP/s", "matrix GFLOP/s", "%")
RUN_HEAD = ("run", "seed", "epochs", "ended", "rotation, degrees", "shift, px", "within 10°", "its best, degrees", "CPU-s",
            "CPU-s to its best", "CPU-s to our error", "times our CPU", "peak memory, GB")


def tables(results: Table) -> str:
    """The parts that were measured, in Markdown."""
    made = []
    if "search" in results:
        rows = [[row["row"], row["snr"], row["images"], row["step_degrees"], row["angle"],
                 row.get("on_the_peers_images", {}).get("angle"), row["shift_px"], row["within_10"],
                 1000 * row["cpu_seconds_an_image"], row["fixed_cpu_seconds"], row.get("times_less_cpu")]
                for row in results["search"]["rows"]]
        made += ["**search**", common.markdown(rows, SEARCH_HEAD), rate_table(results["search"]["rates"])]
    if "rates" in results:
        made += ["**rates**", rate_table(results["rates"])]
    if "run" in results:
        made += ["**run**", common.markdown([run_line(row) for row in results["run"]], RUN_HEAD)]
        commands = {row["row"]: f"- {row['row']} ({row['code']}): `{row['command']}`" for row in results["run"]}
        made.append("\n".join(commands.values()))
    return "\n\n".join(made)


def rate_table(rows: list[Table]) -> str:
    """Rates of a search in Markdown."""
    keys = ("device", "level", "slices_per_second", "energies_per_second", "ms_an_image", "gflops", "matmul_gflops",
            "percent_of_matmul")
    return common.markdown([[row[key] for key in keys] for row in rows], RATE_HEAD)


def run_line(row: Table) -> list[Any]:
    """A run's cells."""
    last, best = row["last"] or {}, row["best"] or {}
    return [row["row"], row["seed"], last.get("epoch"), "by the limit" if row["timed_out"] else "itself", last.get("angle"),
            last.get("shift_px"), last.get("within_10"), best.get("angle"), row["cpu_seconds"], best.get("cpu_seconds"),
            row.get("cpu_seconds_to_our_error"), row.get("times_our_cpu"), row["peak_rss_bytes"] / 1e9]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=["search", "run"],
                        help="(default: search run)")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 10.0], metavar="R",
                        help="of the search part (default: 0.1 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="of the run part (default: 0)")
    parser.add_argument("--peers", choices=PEERS, nargs="+", default=list(PEERS), help="programs of the run part")
    parser.add_argument("--limit-seconds", type=float, default=3600, metavar="S",
                        help="on the clock, for each of cryodrgn's runs (default: 3600)")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, to try the script itself")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every process (default: 1)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where everything is kept")
    parser.add_argument("--shared", type=Path, default=common.SHARED, metavar="DIR", help="the shared data")
    parser.add_argument("--peer", metavar="PATH", help="an environment with the peer (default: made in --work)")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/vs_abinit.json)")
    return parser


def main() -> None:
    args = arguments().parse_args()
    work_folder = args.work.absolute()
    with common.locked(work_folder):
        alone = args.parts == ["rates"]
        binaries = work_folder if alone else common.peer_environment(work_folder, args.peer)
        bench = Bench(work_folder, args.shared, binaries, args.threads, args.limit_seconds, TINY if args.rehearse else FULL)
        results: Table = {"benchmark": "vs_abinit", "code": common.code_version(), "written": common.now(),
                          "arguments": shortened(sys.argv[1:]), "limit_seconds": args.limit_seconds,
                          "machine": common.machine(args.threads)}
        if "search" in args.parts:
            results["search"] = search_part(bench, args.snr)
            write_results(args.out or work_folder / "vs_abinit.json", results)
        if "run" in args.parts:
            results["run"] = run_part(bench, args.seeds, args.peers)
            write_results(args.out or work_folder / "vs_abinit.json", results)
        if "rates" in args.parts:
            sizes = bench.sizes
            folder = bench.simulate("search", sizes.box, sizes.apix, sizes.shift, sizes.images, args.snr[0], 0)
            results["rates"] = rates(bench, folder, DEFAULTS)
            write_results(args.out or work_folder / "vs_abinit.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
