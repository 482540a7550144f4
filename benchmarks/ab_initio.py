"""Poses from nothing, beside the oracle: how close to what the same images could give at best.

For every seed: simulate images of one structure, find their poses with `train_nn` and no poses, and compare with

oracle: poses polished from the true ones on the map that as many *other* images of the same structure give with their
true poses, by the package's own polishing in the same band;
floor: the map that the images themselves give with their true poses (its FSC with the true structure).

    python benchmarks/ab_initio.py --data igg --seeds 0 1 2 --work scratch/ab_initio -o results.json
"""

import argparse
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import common
import torch
from common import OURS, Table, fail, measure, read_json, write_json, write_results
from vs_cryodrgn import say

from cryorecon.data.cryodrgn_files import read_poses
from cryorecon.data.mrc import read_volume
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.given import Given
from cryorecon.inference.pose.polish import Polish
from cryorecon.inference.pose.table import PoseTable
from cryorecon.metrics.alignment import align, apply
from cryorecon.metrics.fsc import fsc_curve, resolution
from cryorecon.metrics.pose_error import IDENTITY, PoseError, pose_error
from cryorecon.training import build
from cryorecon.training.closed_form import consensus
from cryorecon.training.config import RunConfig
from cryorecon.volumes.voxel_grid import VoxelGrid

OTHERS = 1000  # added to the seed of the images that make the oracle's map


CTF = "metadata/cryodrgn_ctf_empiar10028_10049.npz"
DATASETS = {  # a file of the shared data and the option that takes it, and the other options of `simulate`
    "igg": ("--atoms", "atoms/1hzh.pdb.gz", "-D 64 --apix 4.06 --max-shift 5"),
    "hsp90": ("--atoms", "atoms/hsp90_2cg9_monoA.pdb.gz", "-D 64 --apix 3 --max-shift 5"),
    "ribosome": ("--map", "maps/clean70SRibosome_vol_65p.mrc", "--map-apix 5 -D 128 --apix 2.5390625 --max-shift 10"),
}
HEAD = ("data", "SNR", "images", "seed", "rotation, degrees", "oracle", "ratio", "\\|R - R'\\|²", "shift, px", "oracle",
        "ratio", "within 10°", "FSC 0.5, Å", "true poses", "ratio", "CPU-s", "wall, s", "threads")


@dataclass(frozen=True)
class Bench:
    """What the command line asks for. simulation, training: arguments of `simulate` (but for number, SNR, seed and folder) and
    of the run (but for CTF, seed and folder; ``DATA`` stands for the particles' folder)."""

    work: Path
    name: str
    n: int
    snr: float
    threads: int
    simulation: tuple[str, ...]
    training: tuple[str, ...]

    def folder(self, seed: int) -> Path:
        """Where a seed's images lie."""
        return self.work / f"{self.name}-snr{self.snr:g}-n{self.n}-seed{seed}"

    def simulate(self, seed: int) -> Path:
        """Make a seed's images unless they are there."""
        out = self.folder(seed)
        if not (out / "truth.npz").is_file():
            shutil.rmtree(out, ignore_errors=True)
            command = [*OURS, "simulate", *self.simulation, "-n", str(self.n), "--snr", str(self.snr), "--seed", str(seed),
                       "-o", str(out)]
            run(command, out.with_name(f"{out.name}.log"), self.threads)
        return out

    def train(self, seed: int) -> tuple[Path, Table]:
        """The run without poses, and what it cost."""
        data = self.simulate(seed)
        out = data / "run"
        done = read_json(out / "done.json")
        if done is None:
            shutil.rmtree(out, ignore_errors=True)
            command = [*OURS, *(word.replace("DATA", str(data)) for word in self.training), "--ctf", str(data / "ctf.pkl"),
                       "--seed", str(seed), "-o", str(out)]
            done = run(command, data / "run.log", self.threads)
            write_json(out / "done.json", done)
        return out, done


def run(command: list[str], log: Path, threads: int) -> Table:
    """Run a command; what it cost."""
    say(" ".join(command[2:5]))
    log.parent.mkdir(parents=True, exist_ok=True)
    measured = measure(command, log, threads)
    if measured.exit_code:
        fail(f"{log.read_text().strip().splitlines()[-1]} (all of it in {log})")
    return measured.table()


class Problem:
    """A simulation opened with its true poses."""

    def __init__(self, folder: Path, device: str = "auto"):
        config = RunConfig(str(folder / "particles.mrcs"), poses=str(folder / "poses.pkl"), ctf=str(folder / "ctf.pkl"),
                           conformation="fixed", device=device)
        self.data = build.open_data(config)
        self.stack, self.grid = self.data.stack, self.data.grid
        self.noise = build.first_noise(self.data, config)
        self.loader = self.data.loader(self.noise, True)

    def true_map(self, rows: torch.Tensor | slice = slice(None)) -> tuple[torch.Tensor, float]:
        """The map ``(D, D, D)`` that these images give with their true poses, and the band to which its halves agree."""
        stack, device = self.stack[rows], self.grid.device
        stack = replace(stack, particle=torch.arange(len(stack)))
        pose = Given(stack.poses.rotation, stack.poses.shift).to(device)
        loader = replace(self.data, stack=stack).loader(self.noise, True)
        found = consensus(loader, self.grid, pose, stack.half.to(device), self.data.mask)
        return found.density.cpu(), found.resolved

    def oracle(self, density: torch.Tensor, limit: float) -> PoseError:
        """Errors of poses polished from the true ones on a map of other images."""
        true = self.stack.poses
        table = PoseTable(true.rotation, true.shift).to(self.grid.device)
        volume = VoxelGrid.from_density(density[None].to(self.grid.device), self.grid).requires_grad_(False)
        polish = Polish(self.grid, table, volume, limit, iterations=6)
        for batch in self.loader.epoch(256):
            polish(Hypotheses.empty(len(batch), self.grid.device), batch)
        table.to("cpu")
        return pose_error(table.rotation, true.rotation, table.shift, true.shift, IDENTITY)

    def resolution(self, density: torch.Tensor, truth: torch.Tensor) -> float:
        """Å at which the FSC with the structure crosses 0.5, in a soft sphere."""
        mask = soft_sphere(self.grid.box, 0.4 * self.grid.box, 3)
        return resolution(fsc_curve(density, truth, mask), 0.5, self.grid.apix).angstrom


def score(bench: Bench, seed: int) -> Table:
    """Everything about a seed."""
    folder, cost = bench.train(seed)
    problem, others = Problem(bench.simulate(seed)), Problem(bench.simulate(seed + OTHERS))
    truth = torch.from_numpy(read_volume(bench.folder(seed) / "maps" / "state_00.mrc")[0])
    with torch.no_grad():
        other_map, limit = others.true_map()
        oracle = problem.oracle(other_map, limit)
        floor = problem.resolution(problem.true_map()[0], truth)
        density = torch.from_numpy(read_volume(folder / "consensus.mrc")[0])
        found = align(density, truth, problem.grid.apix)
        reached = problem.resolution(apply(found, density, problem.grid.apix).float(), truth)
    poses, true = read_poses(folder / "poses.0.pkl", problem.grid.box, problem.grid.apix), problem.stack.poses
    error = pose_error(poses.rotation, true.rotation, poses.shift, true.shift)
    row = {"data": bench.name, "snr": bench.snr, "images": bench.n, "seed": seed, "hand": error.frame.hand,
           "angle": float(error.angle.median()), "oracle_angle": float(oracle.angle.median()),
           "squared_frobenius": float(error.squared.median()),
           "shift_px": float(error.shift.median()) / problem.grid.apix,
           "oracle_shift_px": float(oracle.shift.median()) / problem.grid.apix,
           "within_10": float((error.angle < 10).float().mean()), "resolution": reached, "floor_resolution": floor}
    return row | {key: cost[key] for key in ("cpu_seconds", "wall_seconds", "peak_rss_bytes", "started", "command")}


def tables(results: Table) -> str:
    """The results in Markdown."""
    lines = []
    for row in results["rows"]:
        pairs = [(row["angle"], row["oracle_angle"]), (row["shift_px"], row["oracle_shift_px"]),
                 (row["resolution"], row["floor_resolution"])]
        cells = [[a, b, a / b if b else float("nan")] for a, b in pairs]
        lines.append([row["data"], row["snr"], row["images"], row["seed"], *cells[0], f"{row['squared_frobenius']:.2g}",
                      *cells[1], row["within_10"], *cells[2], row["cpu_seconds"], row["wall_seconds"],
                      results["machine"]["threads"]])
    return common.markdown(lines, HEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATASETS, nargs="+", default=["igg"], help="(default: igg)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="(default: 0 1 2)")
    parser.add_argument("-n", type=int, default=2000, metavar="N", help="images (default: 2000)")
    parser.add_argument("--snr", type=float, default=0.1, metavar="R", help="0: no noise (default: 0.1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every process (default: 1)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where everything is kept")
    parser.add_argument("--shared", type=Path, default=common.SHARED, metavar="DIR", help="the shared data")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/ab_initio.json)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)  # of the scoring too: pools of threads that share cores wait for each other
    with common.locked(args.work.absolute()):
        results: Table = {"benchmark": "ab_initio", "code": common.code_version(), "written": common.now(),
                          "arguments": sys.argv[1:], "machine": common.machine(args.threads), "rows": []}
        for name in args.data:
            option, file, words = DATASETS[name]
            simulation = (option, str(args.shared / file), *words.split(), "--ctf-table", str(args.shared / CTF))
            training = ("train_nn", "DATA/particles.mrcs", "-n", "0")
            bench = Bench(args.work.absolute(), name, args.n, args.snr, args.threads, simulation, training)
            for seed in args.seeds:
                results["rows"].append(score(bench, seed))
                write_results(args.out or args.work / "ab_initio.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
