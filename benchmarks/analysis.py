"""What `analyze` says of landscapes that were planted, and what a million latents cost it.

grid: Hsp90's 20 x 20 states of two motions, known poses: rank correlation of the two leading coordinates of z, after the linear
map that fits them best, with each true motion.
mixture: three of Hsp90's states, planted 60:30:10: occupancies of the states that analyze finds (their number is its own).
barrier: Hsp90's 20 states of one motion under a double well: heights over the two wells of the barrier between, and the
difference of the wells, read from path_density/free_energy.csv alone.
million: a run's folder whose latents and their likelihoods are replaced by a million of a bent, clustered distribution; its
images are gone, as on a laptop. Wall time and peak memory of one `cryorecon analyze`.

    python benchmarks/analysis.py --seeds 0 1 2 --work scratch/analysis -o results.json
"""

import argparse
import csv
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
from ab_initio import run
from common import OURS, Table, read_json, write_json, write_results
from scipy.signal import argrelmin
from scipy.stats import spearmanr

LINE, GRID = "atoms/hsp90_2cg9_1D_20states_allatom.npz", "atoms/hsp90_2cg9_2D_400states_CA.npz"
STATES = 20
SHARES = {0: 60.0, 9: 30.0, 19: 10.0}  # of which states
PARTS = ("grid", "mixture", "barrier", "million")
SIZE = ("-D", "64", "--apix", "3")


def planted_energy() -> np.ndarray:
    """Two wells of unlike depth and the barrier between, in kT, at each state ``(20,)``."""
    s = np.arange(STATES) / (STATES - 1)
    return 1 - np.cos(4 * np.pi * (s + 0.25)) + 0.5 * s


@dataclass(frozen=True)
class Bench:
    """Where everything is kept, the shared data, threads of each process."""

    work: Path
    shared: Path
    threads: int

    def analysed(self, name: str, words: list[str], zdim: int, seed: int) -> tuple[Path, Path, Table]:
        """Simulate, train with known poses, analyse without maps: data, the analysis and its cost."""
        data = self.work / f"{name}-seed{seed}"
        if not (data / "truth.npz").is_file():
            shutil.rmtree(data, ignore_errors=True)
            run([*OURS, "simulate", *words, "--snr", "0.1", "--seed", str(seed), "-o", str(data)], self.log(data), self.threads)
        out = data / "run"
        if not (out / "weights.0.pt").is_file():
            shutil.rmtree(out, ignore_errors=True)
            known = [str(data / "particles.mrcs"), "--poses", str(data / "poses.pkl"), "--ctf", str(data / "ctf.pkl")]
            run([*OURS, "train_vae", *known, "--zdim", str(zdim), "-n", "0", "--seed", str(seed), "-o", str(out)],
                self.log(data), self.threads)
        return data, out / "analyze.0", self.analyse(out, seed)

    def analyse(self, out: Path, seed: int, *more: str) -> Table:
        """One `analyze` of a run without maps, and what it cost."""
        done = read_json(out / "analyzed.json")
        if done is None:
            command = [*OURS, "analyze", str(out), "--skip-half-maps", "--seed", str(seed), *(more or ("--skip-vol",))]
            done = run(command, self.log(out), self.threads)
            write_json(out / "analyzed.json", done)
        return done

    def log(self, folder: Path) -> Path:
        """Beside the folder."""
        return folder.with_name(f"{folder.name}.log")


def truth(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """State ``(n,)`` of each image and its coordinates ``(n, q)``."""
    with np.load(data / "truth.npz", allow_pickle=False) as held:
        return held["state"], held["coordinate"][held["state"]]


def grid(bench: Bench, seed: int) -> Table:
    """Both motions of the grid."""
    words = ["--atoms", str(bench.shared / GRID), "-n", "10000", *SIZE]
    data, found, cost = bench.analysed("grid", words, 8, seed)
    _, true = truth(data)
    leading = np.load(found / "z_pca.npy", allow_pickle=False)[:, :2]
    design = np.c_[leading, np.ones(len(leading))]
    told = design @ np.linalg.lstsq(design, true, rcond=None)[0]
    ranks = [abs(spearmanr(told[:, i], true[:, i]).statistic) for i in range(2)]
    return {"part": "grid", "seed": seed, "spearman": ranks, "wall_seconds": cost["wall_seconds"]}


def mixture(bench: Bench, seed: int) -> Table:
    """Occupancies beside the planted ones (those drawn in this sample) by falling share."""
    weights = ",".join(str(SHARES.get(state, 0)) for state in range(STATES))
    words = ["--atoms", str(bench.shared / LINE), "--weights", weights, "-n", "4000", *SIZE]
    data, found, cost = bench.analysed("mixture", words, 4, seed)
    state, _ = truth(data)
    rows = table(next(found.glob("gmm*/occupancies.csv")))
    return {"part": "mixture", "seed": seed, "planted": [share / 100 for share in SHARES.values()],
            "drawn": [float((state == one).mean()) for one in SHARES],
            "occupancy": [row["occupancy"] for row in rows], "error": [row["error"] for row in rows],
            "wall_seconds": cost["wall_seconds"]}


def barrier(bench: Bench, seed: int) -> Table:
    """Heights of the barrier over both wells, planted and found."""
    weights = ",".join(f"{share:.6f}" for share in np.exp(-planted_energy()))
    words = ["--atoms", str(bench.shared / LINE), "--weights", weights, "-n", "6000", *SIZE]
    data, found, cost = bench.analysed("barrier", words, 4, seed)
    state, _ = truth(data)
    drawn = np.bincount(state, minlength=STATES)
    profile = [row["free_energy_kT"] for row in table(found / "path_density" / "free_energy.csv")]
    return {"part": "barrier", "seed": seed, "planted": heights(planted_energy()), "drawn": heights(-np.log(drawn)),
            "found": heights(np.array(profile)), "wall_seconds": cost["wall_seconds"]}


def heights(energy: np.ndarray) -> list[float]:
    """Of the barrier over the deepest well, over the well most cut off from it, and the difference of these wells, kT."""
    energy = np.where(np.isfinite(energy), energy, 20.0)
    deepest = int(energy.argmin())
    wells = [int(i) for i in argrelmin(energy, order=1, mode="clip")[0] if i != deepest]
    tops = {i: energy[min(i, deepest) : max(i, deepest) + 1].max() for i in wells}
    if not wells:
        return [0.0, 0.0, 0.0]
    other = max(wells, key=lambda i: tops[i] - energy[i])
    return [float(tops[other] - energy[deepest]), float(tops[other] - energy[other]), float(energy[other] - energy[deepest])]


def million(bench: Bench, seed: int, n: int = 1_000_000) -> Table:
    """Cost of a million latents of eight dimensions."""
    data = bench.work / "million"
    out = data / "run"
    if not (out / "weights.0.pt").is_file():
        shutil.rmtree(data, ignore_errors=True)
        run([*OURS, "simulate", "--motion", "hinge", "-n", "500", *SIZE, "--snr", "1", "-o", str(data)], bench.log(data),
            bench.threads)
        known = [str(data / "particles.mrcs"), "--poses", str(data / "poses.pkl"), "--ctf", str(data / "ctf.pkl")]
        run([*OURS, "train_vae", *known, "--zdim", "8", "-n", "0", "-o", str(out)], bench.log(data), bench.threads)
        (data / "particles.mrcs").unlink()
    rng = np.random.default_rng(seed)
    angle = rng.normal(size=n) + rng.choice([-1.5, 0.0, 1.5], n, p=[0.5, 0.2, 0.3])
    true = 0.1 * rng.normal(size=(n, 8))
    true[:, 0] += np.sin(angle)
    true[:, 1] += np.cos(angle)
    row, column = np.triu_indices(8)
    precision = np.where(row == column, rng.uniform(10, 60, (n, 1)), 0.0)
    seen = true + rng.normal(size=(n, 8)) / np.sqrt(precision[:, :1])
    np.save(out / "z.0.npy", (seen * precision[:, :1] / (1 + precision[:, :1])).astype(np.float32))
    np.save(out / "z_likelihood.0.npy", np.concatenate([seen * precision[:, :1], precision], 1).astype(np.float32))
    cost = bench.analyse(out, seed, "--ksample", "20")
    return {"part": "million", "seed": seed, "latents": n, "wall_seconds": cost["wall_seconds"],
            "cpu_seconds": cost["cpu_seconds"], "peak_rss_bytes": cost["peak_rss_bytes"],
            "report_bytes": (out / "analyze.0" / "report.html").stat().st_size}


def table(path: Path) -> list[dict[str, float]]:
    """Rows of a CSV of numbers."""
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def tables(results: Table) -> str:
    """The parts that were measured, in Markdown."""
    rows = {part: [row for row in results["rows"] if row["part"] == part] for part in PARTS}
    made = []
    if rows["grid"]:
        made += ["**grid**", common.markdown([[row["seed"], *row["spearman"], row["wall_seconds"]] for row in rows["grid"]],
                                             ("seed", "Spearman, motion 1", "motion 2", "analyze, s"))]
    if rows["mixture"]:
        made += ["**mixture**", common.markdown([[row["seed"], percent(row["planted"]), percent(row["drawn"]),
                                                  percent(row["occupancy"]), percent(row["error"])] for row in rows["mixture"]],
                                                ("seed", "planted, %", "drawn, %", "found, %", "its own error, %"))]
    if rows["barrier"]:
        cells = [[row["seed"], *np.stack([row[name] for name in ("planted", "drawn", "found")], 1).ravel().tolist()]
                 for row in rows["barrier"]]
        head = [f"{name}, {what}" for name in ("over the deepest well", "over the other", "between the wells")
                for what in ("planted", "drawn", "found")]
        made += ["**barrier**, kT", common.markdown(cells, ("seed", *head))]
    if rows["million"]:
        made += ["**million**", common.markdown([[row["latents"], row["wall_seconds"], row["cpu_seconds"],
                                                  row["peak_rss_bytes"] / 1e9, row["report_bytes"] / 1e6,
                                                  results["machine"]["threads"]] for row in rows["million"]],
                                                ("latents", "wall, s", "CPU-s", "peak memory, GB", "report, MB", "threads"))]
    return "\n\n".join(made)


def percent(values: list[float]) -> str:
    """Shares in words."""
    return " / ".join(f"{100 * value:.1f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(PARTS), help="(default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="of mixture and barrier; grid and "
                        "million take the first (default: 0 1 2)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of every process (default: 2)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where everything is kept")
    parser.add_argument("--shared", type=Path, default=common.SHARED, metavar="DIR", help="the shared data")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/analysis.json)")
    args = parser.parse_args()
    bench = Bench(args.work.absolute(), args.shared, args.threads)
    measured: dict[str, Any] = {"grid": grid, "mixture": mixture, "barrier": barrier, "million": million}
    with common.locked(bench.work):
        results: Table = {"benchmark": "analysis", "code": common.code_version(), "written": common.now(),
                          "arguments": sys.argv[1:], "machine": common.machine(args.threads), "rows": []}
        for part in args.parts:
            for seed in args.seeds if part in ("mixture", "barrier") else args.seeds[:1]:
                results["rows"].append(measured[part](bench, seed))
                write_results(args.out or bench.work / "analysis.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
