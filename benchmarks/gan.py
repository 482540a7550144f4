"""CryoGAN's homogeneous experiment: a map from images whose poses nobody looks for.

For every seed: simulate images of one structure (uniform poses, real CTFs, white noise), play the game of `train_gan`, lay
the map on the structure (rotation, shift, hand) and say where their Fourier shell correlation falls below 0.5. Half of
Nyquist is the mark. *true poses*: the map that the same images give in closed form with their true poses, which is the most
that there is in them.

    python benchmarks/gan.py --data igg -n 12000 --epochs 18 --critic-dim 8 --work scratch/gan -o results.json
    python benchmarks/gan.py -n 20000 --box 64 --max-shift 3 --epochs 4 --contrast 0.5 --growth 1 --last-band 0.75 --work gan
    python benchmarks/gan.py --data hsp90 -n 20000 --epochs 60 --batch 256 --device cuda --work scratch/gan
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import common
import torch
from common import Table, write_results

import cryorecon
from cryorecon.data.mrc import write_volume
from cryorecon.imaging.masks import soft_sphere
from cryorecon.metrics.alignment import align, apply
from cryorecon.metrics.fsc import fsc_curve, resolution
from cryorecon.simulation import molecule
from cryorecon.simulation.experiment import simulate_stack
from cryorecon.simulation.images import ctf_table
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.specimen import Specimen, density
from cryorecon.training.config import GAN, RunConfig

CTF = "metadata/cryodrgn_ctf_empiar10028_10049.npz"
EXTENT = {"igg": 216.0, "hsp90": 160.0, "helices": 180.0}  # Å of the box's side
FILES = {"igg": "atoms/1hzh.pdb.gz", "hsp90": "atoms/hsp90_2cg9_monoA.pdb.gz"}
CHANGED = ("contrast", "growth", "last_band")  # of the game's options, where they are given
HEAD = ("data", "px", "Å/px", "SNR", "shift, px", "images", "seed", "epochs", "device", "FSC 0.5, Å", "of Nyquist",
        "true poses, Å", "correlation", "wall, s", "images/s")


def specimen(name: str, shared: Path) -> Specimen:
    """The structure: of the shared data, or rods that need no file."""
    return flexible("hinge", 1) if name == "helices" else molecule.load(shared / FILES[name])


def score(args: argparse.Namespace, name: str, seed: int) -> Table:
    """Everything about a seed."""
    apix = EXTENT[name] / args.box
    what = specimen(name, args.shared)
    table = args.shared / CTF
    optics = ctf_table(table if table.is_file() else None)
    stack, _ = simulate_stack(what, args.n, args.box, apix, args.snr, max_shift=args.max_shift, optics=optics, seed=seed,
                              device=args.device)
    truth = density(what, 0, args.box, apix, what.usual_b_factor)
    mask = soft_sphere(args.box, 0.42 * args.box, 2)

    def reached(found: torch.Tensor) -> tuple[float, float]:
        """Å at FSC 0.5 with the truth, and the correlation."""
        laid = align(found, truth, apix)
        return resolution(fsc_curve(apply(laid, found, apix).float(), truth, mask), 0.5, apix).angstrom, laid.correlation

    floor, _ = reached(cryorecon.backproject(stack, device=args.device).density.cpu())
    out = args.work / f"{name}-{args.box}px-snr{args.snr:g}-shift{args.max_shift:g}-n{args.n}-seed{seed}"
    shutil.rmtree(out, ignore_errors=True)
    options = GAN | {"epochs": args.epochs, "batch": args.batch, "lr": args.lr, "critic_lr": args.critic_lr, "seed": seed,
                     "critic": args.critic, "critic_width": args.critic_dim, "device": args.device, "checkpoint": args.epochs}
    if args.max_shift:
        options["t_extent"] = args.max_shift
    options |= {name: getattr(args, name) for name in CHANGED if getattr(args, name) is not None}
    began = time.monotonic()

    def report(stage: str, values: dict[str, float]) -> None:
        print(f"{name} seed {seed} {time.monotonic() - began:6.0f} s  {stage}", json.dumps(values), file=sys.stderr)

    run = cryorecon.train(stack, out, 0, report=report, **options)
    seconds = time.monotonic() - began
    found = run.density(torch.zeros(1, 0))[0]
    write_volume(out / "truth.mrc", truth.numpy(), apix)
    angstrom, correlation = reached(found)
    rates = [json.loads(line)["images_per_s"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {"data": name, "box": args.box, "apix": apix, "snr": args.snr, "max_shift": args.max_shift, "images": args.n,
            "seed": seed, "epochs": args.epochs, "device": device_name(args.device), "resolution": angstrom,
            "of_nyquist": 2 * apix / angstrom, "true_poses_resolution": floor, "correlation": correlation,
            "wall_seconds": seconds, "images_per_s": sorted(rates)[len(rates) // 2]}


def device_name(device: str) -> str:
    """The card, or cpu."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def tables(results: Table) -> str:
    """The results in Markdown."""
    keys = ("data", "box", "apix", "snr", "max_shift", "images", "seed", "epochs", "device", "resolution", "of_nyquist",
            "true_poses_resolution", "correlation", "wall_seconds", "images_per_s")
    return common.markdown([[row[key] for key in keys] for row in results["rows"]], HEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=EXTENT, nargs="+", default=["igg"], help="(default: igg)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="(default: 0)")
    parser.add_argument("--box", type=int, default=32, metavar="PX", help="(default: 32)")
    parser.add_argument("-n", type=int, default=5000, metavar="N", help="images (default: 5000)")
    parser.add_argument("--snr", type=float, default=0.1, metavar="R", help="(default: 0.1, -10 dB)")
    parser.add_argument("--max-shift", type=float, default=0.0, metavar="PX", help="(default: 0)")
    parser.add_argument("--epochs", type=int, default=GAN["epochs"], metavar="N", help=f"(default: {GAN['epochs']})")
    parser.add_argument("--batch", type=int, default=GAN["batch"], metavar="N", help=f"(default: {GAN['batch']})")
    parser.add_argument("--lr", type=float, default=GAN["lr"], metavar="R", help=f"(default: {GAN['lr']})")
    parser.add_argument("--critic-lr", type=float, default=RunConfig.critic_lr, metavar="R",
                        help=f"(default: {RunConfig.critic_lr})")
    parser.add_argument("--critic", choices=("polar", "conv"), default=RunConfig.critic, help="(default: polar)")
    parser.add_argument("--contrast", type=float, metavar="R", help="part of the game after which the critic is the maps' "
                        "likelihood (default: never)")
    parser.add_argument("--growth", type=float, metavar="R", help="part of the game until the critic sees its whole band")
    parser.add_argument("--last-band", type=float, metavar="R", help="fraction of Nyquist that it sees then")
    parser.add_argument("--critic-dim", type=int, default=16, metavar="N", help="(default: 16)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="(default: cpu)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where runs are kept")
    parser.add_argument("--shared", type=Path, default=common.SHARED, metavar="DIR", help="the shared data")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/gan.json)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    results: Table = {"benchmark": "gan", "code": common.code_version(), "written": common.now(), "arguments": sys.argv[1:],
                      "machine": common.machine(args.threads), "rows": []}
    for name in args.data:
        for seed in args.seeds:
            results["rows"].append(score(args, name, seed))
            write_results(args.out or args.work / "gan.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
