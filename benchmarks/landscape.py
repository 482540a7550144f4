"""From particles to conformations with no poses, for four kinds of heterogeneity, beside what the truth would give.

Kinds: line (20 states of Hsp90), grid (its 20 x 20 states of two motions), circle, classes (10), as in table 2 of Zhong et
al. 2020. For every seed: simulate, `train_vae` without poses, and compare with

oracle: poses polished from the true ones on the map that as many *other* images give with their true poses;
floor: the true state's own images, backprojected with their true poses.

Resolutions are means over 100 images: each image's map at its own z against its own true conformation, FSC 0.5, in pixels;
one alignment (rotation, shift, hand) for all of a run. No mask.

    python benchmarks/landscape.py --data line circle --seeds 0 1 --work scratch/landscape -o results.json
"""

import argparse
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import common
import numpy as np
import torch
from ab_initio import CTF, OTHERS, Bench, Problem
from common import Table, write_results
from scipy.stats import spearmanr

from cryorecon.analysis.latent import fit_pca
from cryorecon.data.cryodrgn_files import read_poses
from cryorecon.metrics.alignment import align, apply
from cryorecon.metrics.fsc import cryobench_curve, resolution
from cryorecon.metrics.pose_error import pose_error
from cryorecon.simulation.molecule import Molecule, load
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.render import volume
from cryorecon.training.trained import load_run

B_FACTOR = 20.0  # simulate's default
JUDGED = 100


@dataclass(frozen=True)
class Kind:
    """What moves: a file of the shared data, or a built-in motion and its number of states. paper: mean resolution in pixels
    of table 2 with 50,000 images, without and with tilt pairs."""

    atoms: str | None
    motion: tuple[str, int]
    paper: tuple[float, float]

    def words(self, shared: Path) -> tuple[str, ...]:
        """Arguments of `simulate`."""
        return ("--atoms", str(shared / self.atoms)) if self.atoms else ("--motion", self.motion[0], "--states",
                                                                         str(self.motion[1]))

    def molecule(self, shared: Path) -> Molecule:
        """The same molecule in memory."""
        return load(shared / self.atoms) if self.atoms else flexible(*self.motion)


KINDS = {
    "line": Kind("atoms/hsp90_2cg9_1D_20states_allatom.npz", ("", 0), (2.50, 2.35)),
    "grid": Kind("atoms/hsp90_2cg9_2D_400states_CA.npz", ("", 0), (4.44, 2.93)),
    "circle": Kind(None, ("circle", 20), (4.05, 2.63)),
    "classes": Kind(None, ("states", 10), (4.95, 2.58)),
}
HEAD = ("kind", "images", "tilt pairs", "seed", "Spearman", "rotation, degrees", "oracle", "ratio", "within 10°",
        "FSC 0.5, px", "true poses and states", "ratio", "paper (50,000)", "CPU-s", "wall, s", "threads")


class Truth:
    """True maps of a kind's states, drawn when asked for. state ``(N,)``, coordinate ``(S, q)``."""

    def __init__(self, kind: Kind, folder: Path, shared: Path):
        with np.load(folder / "truth.npz", allow_pickle=False) as held:
            self.state, self.coordinate = held["state"], held["coordinate"]
            self.apix, self.box = float(held["apix"]), int(held["box"])
        self.kind, self.shared = kind, shared
        self._maps: dict[int, torch.Tensor] = {}

    @cached_property
    def molecule(self) -> Molecule:
        """What was projected."""
        return self.kind.molecule(self.shared)

    def map_of(self, state: int) -> torch.Tensor:
        """Map ``(D, D, D)`` of a state."""
        if state not in self._maps:
            self._maps[state] = volume(self.molecule, state, self.box, self.apix, B_FACTOR)
        return self._maps[state]

    def pixels(self, density: torch.Tensor, state: int) -> float:
        """Where the FSC of a map with a state's crosses 0.5, in pixels."""
        return resolution(cryobench_curve(density, self.map_of(state)), 0.5, self.apix).angstrom / self.apix


def score(bench: Bench, kind: Kind, seed: int, tilted: bool, shared: Path) -> Table:
    """Everything about a seed."""
    folder, cost = bench.train(seed)
    problem, others = Problem(bench.simulate(seed)), Problem(bench.simulate(seed + OTHERS))
    truth, run = Truth(kind, bench.folder(seed), shared), load_run(folder)
    judged = np.random.default_rng(0).permutation(len(run.z))[:JUDGED]
    states = truth.state[judged].tolist()
    with torch.no_grad():
        maps = [run.density(run.z[[index]])[0] for index in judged]
        true_mean = torch.stack([truth.map_of(state) for state in states]).mean(0)
        frame = align(torch.stack(maps).mean(0), true_mean, truth.apix)
        reached = [truth.pixels(apply(frame, density, truth.apix).float(), state)
                   for density, state in zip(maps, states, strict=True)]
        floor = {state: truth.pixels(problem.true_map(torch.from_numpy(np.flatnonzero(truth.state == state)))[0], state)
                 for state in set(states)}
        oracle = problem.oracle(*others.true_map())
    poses, true = read_poses(folder / "poses.0.pkl", truth.box, truth.apix), problem.stack.poses
    every = slice(None, None, 2 if tilted else 1)  # of a pair the untilted image
    error = pose_error(poses.rotation[every], true.rotation, poses.shift[every], true.shift)
    components = fit_pca(run.z).project(run.z)
    rho = [abs(spearmanr(truth.coordinate[truth.state, 0], column).statistic) for column in components.T]
    row = {"kind": bench.name, "images": bench.n, "tilt_pairs": tilted, "seed": seed, "spearman": float(rho[0]),
           "spearman_of_components": rho, "angle": float(error.angle.median()), "oracle_angle": float(oracle.angle.median()),
           "shift_px": float(error.shift.median()) / truth.apix, "within_10": float((error.angle < 10).float().mean()),
           "resolution_px": float(np.mean(reached)), "floor_px": float(np.mean([floor[state] for state in states])),
           "paper_px": kind.paper[int(tilted)]}
    return row | {key: cost[key] for key in ("cpu_seconds", "wall_seconds", "peak_rss_bytes", "started", "command")}


def tables(results: Table) -> str:
    """The results in Markdown."""
    lines = [[row["kind"], row["images"], row["tilt_pairs"], row["seed"], row["spearman"], row["angle"], row["oracle_angle"],
              row["angle"] / row["oracle_angle"], row["within_10"], row["resolution_px"], row["floor_px"],
              row["resolution_px"] / row["floor_px"], row["paper_px"], row["cpu_seconds"], row["wall_seconds"],
              results["machine"]["threads"]] for row in results["rows"]]
    return common.markdown(lines, HEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=KINDS, nargs="+", default=list(KINDS), help="(default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="(default: 0)")
    parser.add_argument("-n", type=int, default=4000, metavar="N", help="particles (default: 4000)")
    parser.add_argument("--snr", type=float, default=0.1, metavar="R", help="(default: 0.1)")
    parser.add_argument("--zdim", type=int, default=8, metavar="D", help="(default: 8)")
    parser.add_argument("--tilt-deg", type=float, metavar="DEG", help="pairs of images, the second tilted")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every process (default: 1)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where everything is kept")
    parser.add_argument("--shared", type=Path, default=common.SHARED, metavar="DIR", help="the shared data")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/landscape.json)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)  # of the scoring too: pools of threads that share cores wait for each other
    tilt = () if args.tilt_deg is None else ("--tilt-deg", str(args.tilt_deg))
    pairs = (*tilt, "--tilt", "DATA/particles_tilt.mrcs", "--ctf-tilt", "DATA/ctf_tilt.pkl") if tilt else ()
    with common.locked(args.work.absolute()):
        results: Table = {"benchmark": "landscape", "code": common.code_version(), "written": common.now(),
                          "arguments": sys.argv[1:], "machine": common.machine(args.threads), "rows": []}
        for name in args.data:
            kind = KINDS[name]
            simulation = (*kind.words(args.shared), "-D", "64", "--apix", "3", "--max-shift", "5",
                          "--ctf-table", str(args.shared / CTF), *tilt)
            training = ("train_vae", "DATA/particles.mrcs", "--zdim", str(args.zdim), "-n", "0", *pairs)
            bench = Bench(args.work.absolute() / ("pairs" if tilt else "single"), name, args.n, args.snr, args.threads,
                          simulation, training)
            for seed in args.seeds:
                results["rows"].append(score(bench, kind, seed, bool(tilt), args.shared))
                write_results(args.out or args.work / "landscape.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
