"""Loss on images that training did not see, for several settings of train_vae on the same data."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from common import OURS, Table, fail, measure
from vs_cryodrgn import WIDTHS, network_seconds, say

from cryorecon.data.cryodrgn_files import write_indices
from cryorecon.data.load import load_particles
from cryorecon.data.loader import Batch
from cryorecon.data.stack import ParticleStack
from cryorecon.model import Model, per_particle
from cryorecon.training import build
from cryorecon.training.run_directory import RunDirectory

HELD = 10  # one in so many


def compare(folder: Path, settings: dict[str, list[str]], epochs: int, work: Path, threads: int) -> Iterator[Table]:
    """Train each setting on nine tenths of a simulation, judge it on the rest.

    energy: nats a point and image. against_full: percent above the first setting of its road (all points, fp32).
    explained_against_full: the same difference as a share of what that one explains, the energy that a prediction of
    nothing would have minus its own: noise is most of the loss and would hide any harm.
    """
    stack = load_particles(folder / "particles.mrcs", poses=folder / "poses.pkl", ctf=folder / "ctf.pkl")
    chosen = np.arange(len(stack)) % HELD == 0
    ind = work / "training.npy"
    write_indices(ind, np.flatnonzero(~chosen))
    held = stack[np.flatnonzero(chosen)]
    first: dict[str, tuple[float, float]] = {}
    for name, words in settings.items():
        say(f"held-out: {name}")
        run = train(folder, words, epochs, ind, work, threads)
        energy, nothing = held_out_energy(run, held)
        road = name.partition(",")[0]
        full, explained = first.setdefault(road, (energy, nothing - energy))
        yield {"setting": name, "epochs": epochs, "energy": energy, "energy_of_nothing": nothing,
               "against_full": 100 * (energy - full) / full, "explained_against_full": 100 * (energy - full) / explained,
               "cpu_seconds": max(network_seconds(run).values())}


def train(folder: Path, words: list[str], epochs: int, ind: Path, work: Path, threads: int) -> Path:
    """One run by the command line, afresh."""
    run = work / "heldout"
    shutil.rmtree(run, ignore_errors=True)
    command = [*OURS, "train_vae", str(folder / "particles.mrcs"), "--poses", str(folder / "poses.pkl"), "--ctf",
               str(folder / "ctf.pkl"), "--ind", str(ind), "--zdim", "8", *WIDTHS, "-n", str(epochs), "--checkpoint",
               "1000", "--seed", "0", *words, "-o", str(run)]
    log = work / "heldout.log"
    if measure(command, log, threads).exit_code:
        fail(log.read_text().strip().splitlines()[-1])
    return run


def held_out_energy(run: Path, held: ParticleStack) -> tuple[float, float]:
    """Mean energy per point in nats of images that the run has not seen: of its predictions, and of none (v = 0).

    Their z is inferred as the run infers z; their noise and contrast are the training set's.
    """
    directory = RunDirectory(run)
    config, saved = directory.config(), directory.load()
    problem = build.open_data(config, held)
    loader = problem.loader(saved["noise"], config.window)
    pose = build.pose_inference(config, problem)
    model = build.assemble(config, problem.grid, pose, problem.stack, saved["shape"])
    learned = {key: value for key, value in saved["model"].items() if not key.startswith("pose.")}
    if set(model.state_dict()) - set(learned) - {key for key in model.state_dict() if key.startswith("pose.")}:
        raise ValueError(f"{run}: the checkpoint lacks parts of the model")
    model.load_state_dict(learned, strict=False)
    total, nothing = 0.0, 0.0
    model.eval()
    with torch.no_grad():
        for batch in loader.epoch(32):
            total += energy_sum(model, batch.to(problem.device))
            nothing += float(batch.norm.sum())
    count = len(held) * problem.grid.n
    return total / count, nothing / count


def energy_sum(model: Model, batch: Batch) -> float:
    """Summed over the batch's images."""
    return float(per_particle(model.energy(model.infer(batch), batch), batch).sum())
