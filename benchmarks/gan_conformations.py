"""Multi-CryoGAN's two experiments: the 20 all-atom states of Hsp90, images of random pose, and a game that knows no pose.

Maps of 32 voxels of 5 Å are made of the states and projected at uniform poses; defocus 1 to 2 µm, no astigmatism, no shifts,
white noise at -10 dB. `continuous`: all states alike; `discrete`: the first in a quarter of the images, the last in the rest.
The game sees the images Fourier-cropped to --game-box pixels, whose Nyquist frequency is finer than the mark: FSC 0.5 at 20 Å,
half of the images' own Nyquist. The box is tight, so that the mask reaches to its edge.

For every experiment and seed: where the maps at both ends of alpha, laid on the true ones, fall below FSC 0.5, each laid on by
itself (a game has no frame) and, in brackets, by the one turn that lays their mean on the true mean; how the FSC areas of all
pairs of maps along alpha (FSCCC) correlate with the truth's; occupancies, in %, by the relative rule and by the paper's. *true
poses*: the maps of the end states' own images in closed form.

    python benchmarks/gan_conformations.py --seeds 0 1 2 --work scratch/multi
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import common
import numpy as np
import torch
from common import Table, write_results
from torch import Tensor

import cryorecon
from cryorecon.data.stack import ParticleStack
from cryorecon.geometry.fourier import resample
from cryorecon.imaging.ctf import Optics
from cryorecon.imaging.masks import soft_sphere
from cryorecon.metrics import occupancy
from cryorecon.metrics.alignment import align, apply
from cryorecon.metrics.fsc import cross_conformation, fsc_curve, resolution
from cryorecon.simulation import molecule
from cryorecon.simulation.experiment import simulate_stack
from cryorecon.simulation.images import Truth
from cryorecon.simulation.map_molecule import MapMolecule
from cryorecon.simulation.specimen import density
from cryorecon.training.config import MULTI, RunConfig
from cryorecon.training.trained import load_run

STATES = "atoms/hsp90_2cg9_1D_20states_allatom.npz"
BOX, APIX, SNR = 32, 5.0, 0.1
ALPHA = np.arange(21) / 20
HEAD = ("experiment", "images", "seed", "iterations", "ends, Å", "in one frame, Å", "true poses, Å", "FSCCC", "motion",
        "occupancies, %", "by the paper's", "CPU, s", "images/s")


def maps(shared: Path) -> Tensor:
    """The states' maps ``(20, D, D, D)``."""
    atoms = molecule.load(shared / STATES)
    return torch.stack([density(atoms, state, BOX, APIX, atoms.usual_b_factor) for state in range(atoms.n_states)])


def optics() -> Tensor:
    """CTF rows, defocus uniform between 1 and 2 µm."""
    defocus = 1e4 * (1 + torch.rand(2000, generator=torch.Generator().manual_seed(1)))
    return Optics.from_columns(len(defocus), defocus_u=defocus, defocus_v=defocus, voltage=300.0, cs=2.7,
                               amplitude_contrast=0.1).parameters


def images(args: argparse.Namespace, states: Tensor, name: str, seed: int) -> tuple[ParticleStack, Truth]:
    """An experiment's images, cropped to the game's box."""
    weights = (0.25, *[0.0] * (len(states) - 2), 0.75) if name == "discrete" else None
    what = MapMolecule(states, APIX, torch.linspace(0, 1, len(states))[:, None])
    stack, truth = simulate_stack(what, args.n, BOX, APIX, SNR, max_shift=0, optics=optics(), seed=seed, weights=weights)
    seen = torch.cat([resample(stack.images(index), args.game_box, 2) for index in torch.arange(args.n).split(2000)])
    return ParticleStack.from_images(seen.numpy(), APIX * BOX / args.game_box, truth.optics, stack.poses), truth


def reached(found: Tensor, truth: Tensor, apix: float) -> float:
    """Å at which a map falls below FSC 0.5 with the true one."""
    return resolution(fsc_curve(found, truth, soft_sphere(len(truth), 0.42 * len(truth), 1.5)), 0.5, apix).angstrom


def laid(found: Tensor, truth: Tensor, apix: float) -> Tensor:
    """A map turned, shifted and perhaps mirrored onto another."""
    return apply(align(found, truth, apix), found, apix).float()


def floor(stack: ParticleStack, truth: Truth, state: int, true: Tensor) -> float:
    """What the images of one state hold, with their true poses."""
    own = torch.nonzero(truth.state == state)[:, 0].numpy()
    return reached(cryorecon.backproject(stack[own]).density.cpu(), true, stack.apix)


def judge(found: Tensor, true: Tensor, weight: Tensor, apix: float) -> Table:
    """Maps along alpha ``(21, D, D, D)`` against the states' ``(20, D, D, D)``; alpha may run either way."""
    frame = align(found.mean(0), torch.tensordot(weight, true, 1), apix)
    turned = torch.stack([apply(frame, one, apix).float() for one in found])
    mask = soft_sphere(len(true[0]), 0.42 * len(true[0]), 1.5)
    motion = [float(torch.corrcoef(torch.stack([((way[0] - way[-1]) * mask).flatten(),
                                                ((true[0] - true[-1]) * mask).flatten()]))[0, 1])
              for way in (turned, turned.flip(0))]
    if motion[1] > motion[0]:
        found, turned = found.flip(0), turned.flip(0)
    areas, truths = (cross_conformation(one).numpy() for one in
                     (found, true[torch.from_numpy(ALPHA * 19).round().long()]))
    matrix = occupancy.normalised(areas)
    return {"ends": [reached(laid(found[i], true[i], apix), true[i], apix) for i in (0, -1)],
            "ends_in_frame": [reached(turned[i], true[i], apix) for i in (0, -1)],
            "motion": max(motion), "fsccc": float(np.corrcoef(areas.ravel(), truths.ravel())[0, 1]),
            "occupancies": {rule: occupancy.fractions(of(matrix)).tolist() for rule, of in occupancy.RULES.items()}}


def score(args: argparse.Namespace, states: Tensor, name: str, seed: int) -> Table:
    """One game."""
    stack, truth = images(args, states, name, seed)
    true = resample(states, args.game_box, 3)
    weight = torch.bincount(truth.state, minlength=len(true)) / len(truth)
    out = args.work / f"{name}-seed{seed}"
    shutil.rmtree(out, ignore_errors=True)
    options = {key: value for key, value in MULTI.items() if key != "zdim"}
    options |= {"epochs": args.epochs, "seed": seed, "device": args.device, "critic_width": args.critic_dim,
                "archetypes": args.archetypes, "mask_radius": args.mask_radius, "first_band": 0.7, "growth": 0.1}
    began, cpu = time.monotonic(), time.process_time()
    cryorecon.train(stack, out, 1, report=lambda stage, values: print(
        f"{name} seed {seed} {time.monotonic() - began:6.0f} s  {stage}", json.dumps(values), file=sys.stderr), **options)
    wall, spent = time.monotonic() - began, time.process_time() - cpu
    last = [epoch for epoch in range(args.epochs + 1) if epoch > args.epochs * 2 / 3]
    judged = {epoch: judge(load_run(out, epoch, args.device).density(torch.from_numpy(ALPHA[:, None]).float()), true, weight,
                           stack.apix) for epoch in last}
    shares = {rule: np.array([one["occupancies"][rule] for one in judged.values()]) for rule in occupancy.RULES}
    return {"experiment": name, "images": args.n, "seed": seed, "iterations": args.epochs * -(-args.n // options["batch"]),
            **judged[args.epochs], "occupancies_spread": {rule: all_.std(0, ddof=1).tolist() for rule, all_ in shares.items()},
            "true_poses": [floor(stack, truth, state, true[state]) for state in (0, len(true) - 1)],
            "wall_seconds": wall, "cpu_seconds": spent, "images_per_s": args.n * args.epochs / wall}


def tables(results: Table) -> str:
    """The results in Markdown."""
    def pair(values: list[float]) -> str:
        return " / ".join(f"{value:.1f}" for value in values)

    def shares(row: Table, rule: str) -> str:
        return " / ".join(f"{100 * share:.0f} ± {100 * error:.0f}" for share, error in
                          zip(row["occupancies"][rule], row["occupancies_spread"][rule], strict=True))

    return common.markdown([[row["experiment"], row["images"], row["seed"], row["iterations"], pair(row["ends"]),
                             pair(row["ends_in_frame"]), pair(row["true_poses"]), row["fsccc"], row["motion"],
                             shares(row, "ends"), shares(row, "paper"), row["cpu_seconds"], row["images_per_s"]]
                            for row in results["rows"]], HEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", choices=("continuous", "discrete"), nargs="+", default=["continuous", "discrete"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="(default: 0)")
    parser.add_argument("-n", type=int, default=50_000, metavar="N", help="images (default: 50000)")
    parser.add_argument("--epochs", type=int, default=9, metavar="N", help="(default: 9)")
    parser.add_argument("--game-box", type=int, default=20, metavar="PX", help="(default: 20)")
    parser.add_argument("--archetypes", type=int, default=RunConfig.archetypes, metavar="N",
                        help=f"(default: {RunConfig.archetypes})")
    parser.add_argument("--mask-radius", type=float, default=1.0, metavar="R", help="of half the box, which the molecule fills "
                        "(default: 1)")
    parser.add_argument("--critic-dim", type=int, default=24, metavar="N", help="(default: 24)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="(default: cpu)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where runs are kept")
    parser.add_argument("--shared", type=Path, default=common.SHARED, metavar="DIR", help="the shared data")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/gan_conformations.json)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    states = maps(args.shared)
    results: Table = {"benchmark": "gan_conformations", "code": common.code_version(), "written": common.now(),
                      "arguments": sys.argv[1:], "machine": common.machine(args.threads), "rows": []}
    for name in args.experiments:
        for seed in args.seeds:
            results["rows"].append(score(args, states, name, seed))
            write_results(args.out or args.work / "gan_conformations.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
