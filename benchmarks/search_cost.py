"""What a search of poses costs, ours and cryodrgn's: the search part of vs_abinit.py.

CPU time and error of one image's full search in a known map, at cryodrgn's default grids, shifts, bands, numbers of kept
poses and subdivisions. cryodrgn's time is that with its own network of default size; its errors are those of the same search
with the true map in the network's place (peer_search.py), which no network surpasses. Both maps are brought to the images'
scale at the true poses. Ours: `grid`, the very same search, slices read at the nearest point; `train_nn`, what a run does by
default in cryodrgn's range of shifts, Gauss-Newton on trilinear slices at the end. An image's time includes a thousandth of
what is made once for a map. Rates: slices, energies and products a second of `grid`, beside the machine's matrix products.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
from common import OURS, Table, fail, measure, read_json, write_json
from vs_cryodrgn import check, say, shortened

if TYPE_CHECKING:
    from ab_initio import Problem
    from torch import Tensor, nn

    from cryorecon.geometry.grid import Grid
    from cryorecon.inference.pose.search import Plan
    from cryorecon.metrics.pose_error import PoseError

PEER = f"cryodrgn {common.PEER_VERSION}"
CTF = "metadata/cryodrgn_ctf_empiar10028_10049.npz"
BATCH = 256  # of ours
COSTED_FOR = 1000  # images that share the fixed cost where ratios are given
DEFAULTS = {"t_extent": 10, "t_ngrid": 7, "niter": 4, "nkeptposes": 8, "base_healpy": 2, "l_start": 12, "l_end": 32}
"""The peer's search at 64 px as it comes, for rates where the peer itself isn't run (vs_abinit.json holds what it said)."""


@dataclass(frozen=True)
class Sizes:
    """box, apix, shift (px) and images of the search part; costed, judged: images of the peer with its network and with the
    map. run_box, run_images, run_snr: of whole runs. homo, newer: the peer's settings of these."""

    box: int
    apix: float
    shift: int
    images: int
    costed: int
    judged: int
    run_box: int
    run_images: int
    run_snr: float
    homo: str
    newer: str


@dataclass(frozen=True)
class Bench:
    """What the command line asks for; ``binaries``: the peer's."""

    work: Path
    shared: Path
    binaries: Path
    threads: int
    limit: float
    sizes: Sizes

    def simulate(self, name: str, box: int, apix: float, shift: int, n: int, snr: float, seed: int) -> Path:
        """IgG's images, made once."""
        out = self.work / f"{name}-{box}px-{n}-snr{snr:g}-seed{seed}"
        command = [*OURS, "simulate", "--atoms", str(self.shared / "atoms/1hzh.pdb.gz"), "--ctf-table", str(self.shared / CTF),
                   *f"-D {box} --apix {apix} --max-shift {shift} -n {n} --snr {snr} --seed {seed}".split()]
        self.done(out, [*command, "-o"], f"cryorecon {common.code_version()}")
        return out

    def done(self, out: Path, command: list[str], code: str, accepted: tuple[int, ...] = (0,)) -> Table:
        """What a command (the folder ``out`` its last word) cost, now or before. Ends the program where it fails."""
        finished = read_json(out / "done.json")
        if finished is None:
            shutil.rmtree(out, ignore_errors=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            log = out.with_name(f"{out.name}.log")
            say(out.name)
            measured = measure([*command, str(out)], log, self.threads)
            if measured.exit_code not in accepted:
                check(measured, log)
            out.mkdir(exist_ok=True)
            finished = measured.table() | {"code": code, "command": shortened(list(measured.command))}
            write_json(out / "done.json", finished)
        return finished


def kept(path: Path, make: Callable[[], Table]) -> Table:
    """The table of a file; made and written where there is none."""
    found = read_json(path)
    if found is None:
        found = make()
        write_json(path, found)
    return found


def search_part(bench: Bench, snrs: list[float]) -> Table:
    """Rows of both programs' searches, and the rates of ours."""
    sizes = bench.sizes
    folders = {snr: bench.simulate("search", sizes.box, sizes.apix, sizes.shift, sizes.images, snr, 0) for snr in snrs}
    cost = kept(bench.work / "peer_cost.json", lambda: peer_search(bench, folders[snrs[0]], "network", sizes.costed))
    found: Table = {"rows": [], "rates": [], "peer": cost}
    for snr, folder in folders.items():
        found["rows"] += kept(folder / "peer.json", lambda folder=folder, snr=snr: peer_row(bench, folder, snr, cost))["rows"]
        found["rows"] += kept(folder / "ours.json", lambda folder=folder, snr=snr: our_rows(bench, folder, snr, cost))["rows"]
    found["rates"] = kept(bench.work / "rates.json", lambda: {"rows": rates(bench, folders[snrs[0]], cost)})["rows"]
    for row in found["rows"]:
        if row["row"] != "cryodrgn":
            row["times_less_cpu"] = cost["cpu_seconds_an_image"] / row["cpu_seconds_an_image"]
    return found


def peer_search(bench: Bench, folder: Path, kind: str, count: int) -> Table:
    """The peer's default search of ``count`` images with its network or the true map; its poses are left beside the log."""
    say(f"cryodrgn's search, {kind}, {count} images")
    out, log = folder / f"peer_{kind}.json", folder / f"peer_{kind}.log"
    words = [str(folder), str(true_map(folder)), kind, str(count), str(out)]
    measured = measure([str(bench.binaries / "python"), str(common.HERE / "peer_search.py"), *words], log, bench.threads)
    if measured.exit_code:
        fail(f"cryodrgn's search: {log.read_text().strip().splitlines()[-1]} (all of it in {log})")
    cost = {key: value for key, value in measured.table().items() if key not in ("command", "exit_code")}
    return (read_json(out) or {}) | {f"process_{key}": value for key, value in cost.items()} | {"code": PEER}


def true_map(folder: Path) -> Path:
    """The simulated structure."""
    return folder / "maps" / "state_00.mrc"


def peer_row(bench: Bench, folder: Path, snr: float, cost: Table) -> Table:
    """Errors of the peer's search in the true map, and its time with the network."""
    from ab_initio import Problem

    judged = peer_search(bench, folder, "map", bench.sizes.judged)
    problem = Problem(folder)
    rotation, shift = peer_poses(folder / "peer_map.pkl", problem.grid.apix)
    row = {"row": "cryodrgn", "snr": snr, "step_degrees": degrees(cost["base_healpy"] + cost["niter"]),
           "cpu_seconds_an_image": cost["cpu_seconds_an_image"], "fixed_cpu_seconds": 0.0, "code": PEER,
           "correlation_at_true_poses": judged["correlation"], "map_cpu_seconds_an_image": judged["cpu_seconds_an_image"]}
    return {"rows": [row | told(planted_error(problem, rotation, shift), problem.grid.apix)]}


def degrees(level: int) -> float:
    """Grid step of a level."""
    return 360 / (6 << level)


def peer_poses(path: Path, scale: float) -> tuple["Tensor", "Tensor"]:
    """Rotations and shifts of the peer's file, the latter times ``scale``."""
    import numpy as np
    import torch

    from cryorecon.data.poses import Poses
    from cryorecon.data.safe_pickle import load_pickles

    rotation, shift = (torch.from_numpy(np.asarray(part, np.float64)) for part in load_pickles(path)[0])
    poses = Poses.checked(rotation, shift * scale, str(path))
    return poses.rotation, poses.shift


def planted_error(problem: "Problem", rotation: "Tensor", shift: "Tensor") -> "PoseError":
    """Errors of the first images' poses in the truth's own frame: nothing is fitted."""
    from cryorecon.metrics.pose_error import IDENTITY, pose_error

    true = problem.stack.poses[: len(rotation)]
    return replace(pose_error(rotation, true.rotation, frame=IDENTITY), shift=(shift - true.shift).norm(dim=1))


def told(error: "PoseError", apix: float) -> Table:
    """An error in numbers."""
    shift = None if error.shift is None else float(error.shift.median()) / apix
    return {"images": len(error.angle), "angle": float(error.angle.median()), "shift_px": shift,
            "within_10": error.within(10)}


def our_rows(bench: Bench, folder: Path, snr: float, peer: Table) -> Table:
    """Our searches of all images in the true map. What is made once for a map (rasters, slices of the base grid) is counted
    apart; an image's time then holds its share of it among ``COSTED_FOR``."""
    import torch
    from ab_initio import Problem

    from cryorecon.inference.hypotheses import Hypotheses
    from cryorecon.inference.pose.table import PoseTable

    torch.set_num_threads(bench.threads)
    problem, rows = Problem(folder, "cpu"), []
    n, apix = problem.loader.n_particles, problem.grid.apix
    density = planted_map(problem, folder)
    for name, make in (("grid", same_search), ("train_nn", default_search)):
        say(f"our search, {name}, SNR {snr:g}, {n} images")
        table, marks = PoseTable.unknown(n), [time.process_time()]
        with torch.no_grad():
            inference = make(problem, table, density, peer)
            inference(Hypotheses.empty(1, problem.grid.device), problem.loader.of(torch.arange(1)))
            marks.append(time.process_time())
            for batch in problem.loader.epoch(BATCH):
                inference(Hypotheses.empty(len(batch), problem.grid.device), batch)
        marks.append(time.process_time())
        fixed, each = marks[1] - marks[0], (marks[2] - marks[1]) / n
        step = degrees(peer["base_healpy"] + peer["niter"]) if name == "grid" else None
        same = planted_error(problem, table.rotation[: bench.sizes.judged], table.shift[: bench.sizes.judged])
        rows.append({"row": name, "snr": snr, "step_degrees": step, "cpu_seconds_an_image": each + fixed / COSTED_FOR,
                     "cpu_seconds_an_image_alone": each, "fixed_cpu_seconds": fixed, "code": common.code_version(),
                     **told(planted_error(problem, table.rotation, table.shift), apix),
                     "on_the_peers_images": told(same, apix)})
    return {"rows": rows}


def planted_map(problem: "Problem", folder: Path) -> "Tensor":
    """The true structure, scaled so that it predicts the images best at their true poses."""
    import torch

    from cryorecon.data.mrc import read_volume
    from cryorecon.volumes.voxel_grid import VoxelGrid

    density, grid, true = torch.from_numpy(read_volume(true_map(folder))[0]), problem.grid, problem.stack.poses
    volume, dot, square = VoxelGrid.from_density(density[None], grid), 0.0, 0.0
    with torch.no_grad():
        for batch in problem.loader.epoch(BATCH):
            slices = volume.slices(true.rotation[batch.image][:, None], torch.zeros(len(batch), 1, 0), slice(None))[:, 0]
            moved = batch.data * grid.phase_ramp(true.shift[batch.image])
            dot += float((moved.conj() * slices).real.sum())
            square += float((batch.power * slices.abs().square()).sum())
    return density * (dot / square)


def same_search(problem: "Problem", table: Any, density: "Tensor", peer: Table) -> "nn.Module":
    """The peer's grids, bands and numbers of kept poses."""
    from cryorecon.inference.pose.search import Search
    from cryorecon.volumes.raster import Raster

    plan = same_plan(peer, problem.grid.apix)
    search = Search(problem.grid, table, plan)
    search.look_at(Raster(density[None], problem.grid, plan.kmax))
    return search


def same_plan(peer: Table, apix: float) -> "Plan":
    """The peer's settings in our words; its base grid of shifts is finer by a power of two than it says."""
    from cryorecon.inference.pose.search import Plan

    shifts = int(peer["t_ngrid"]) * 2 ** (peer["base_healpy"] - 1)
    return Plan(peer["t_extent"] * apix, peer["base_healpy"], shifts, peer["niter"], peer["l_start"], peer["l_end"],
                peer["nkeptposes"])


def default_search(problem: "Problem", table: Any, density: "Tensor", peer: Table) -> "nn.Module":
    """A search pass of a run as it comes, but for the range of shifts and the band, which are the peer's."""
    from cryorecon.training.ab_initio import pose_inference, schedule_for
    from cryorecon.training.config import RunConfig

    config = RunConfig("", conformation="fixed", t_extent=peer["t_extent"])
    schedule = schedule_for(config, problem.stack, problem.grid.device)
    return pose_inference(problem.grid, table, density, peer["l_end"], schedule, True)


def rates(bench: Bench, folder: Path, peer: Table) -> list[Table]:
    """Slices, energies and products a second of the same search, the base grid apart from the levels below it."""
    import machine
    import torch
    from ab_initio import Problem

    torch.set_num_threads(bench.threads)
    problem, rows = Problem(folder, "cpu"), []
    density, plan = planted_map(problem, folder), same_plan(peer, problem.grid.apix)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        say(f"rates, {device}")
        base, whole = (seconds_an_image(problem, density, stop, device, bench.threads)
                       for stop in (replace(plan, subdivisions=0), plan))
        peak = machine.matmul_rate(1024 if device == "cpu" else 8192, "float32", device, bench.threads)
        parts = zip(("base grid", "levels below"), (base, whole - base), work(plan, problem.grid), strict=True)
        for level, spent, (slices, energies, products) in parts:
            rows.append({"device": device, "level": level, "slices_per_second": slices / spent,
                         "energies_per_second": energies / spent, "gflops": products / spent / 1e9, "matmul_gflops": peak,
                         "percent_of_matmul": 100 * products / spent / 1e9 / peak, "ms_an_image": 1000 * spent})
    return rows


def seconds_an_image(problem: "Problem", density: "Tensor", plan: "Plan", device: str, threads: int) -> float:
    """Time of a search of one batch once what belongs to the map is made: processor time on a CPU, the clock on a GPU."""
    import machine
    import torch

    from cryorecon.inference.hypotheses import Hypotheses
    from cryorecon.inference.pose.search import Search
    from cryorecon.inference.pose.table import PoseTable
    from cryorecon.volumes.raster import Raster

    grid, n = problem.grid.to(device), min(BATCH, len(problem.stack))
    batch = problem.loader.of(torch.arange(n)).to(device)
    search = Search(grid, PoseTable.unknown(n, device=device), plan)
    search.look_at(Raster(density[None].to(device), grid, plan.kmax))
    search(Hypotheses.empty(1, grid.device), batch.at(slice(0, 1)))
    began = machine.clock(device, threads)
    search(Hypotheses.empty(n, grid.device), batch)
    return (machine.clock(device, threads) - began) / n


def work(plan: "Plan", grid: "Grid") -> list[tuple[int, int, float]]:
    """Slices, energies and products (a multiplication and an addition count two) of an image on the base grid, and on all
    levels below; the base grid's slices are those that an image is compared with."""
    from cryorecon.geometry import so3_grid

    base, shifts, points = so3_grid.size(plan.level), plan.shifts**2, grid.n_points(plan.kmin)
    below = [grid.n_points(plan.limit(number)) for number in range(1, plan.subdivisions + 1)]
    slices = 8 * plan.survivors
    return [(base, base * shifts, base * (4.0 * shifts + 2) * points),
            (slices * len(below), 4 * slices * len(below), slices * (4.0 * 4 + 2) * sum(below))]
