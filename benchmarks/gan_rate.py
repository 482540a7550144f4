"""How fast a game of train_gan is: simulator, critic and generator, one by one and together, in images a second.

Random images in memory, the run's own parts and steps. *of matrix products*: what PyTorch's profiler counts as operations
(matrix products, convolutions forward, sums and products of arrays; complex ones count as real, and gathers along slices,
Fourier transforms and convolutions backward not at all: a lower bound), as a rate, beside that of a large float32 matrix
product in the same process. A low figure says that memory and small operations rule, not products.

    python benchmarks/gan_rate.py -o results.json
    python benchmarks/gan_rate.py --device cuda --batch 256 -o results.json
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import common
import machine
import torch
from common import Table, write_results
from step import random_batch

from cryorecon.geometry.grid import Grid
from cryorecon.inference.conformation import CONFORMATIONS
from cryorecon.inference.pose.prior import Prior
from cryorecon.model import Model
from cryorecon.objectives.adversarial import Adversarial, Game
from cryorecon.objectives.critic import CRITICS
from cryorecon.objectives.simulator import Simulator
from cryorecon.volumes import VOLUMES

HEAD = ("volume", "critic", "px", "batch", "simulator", "critic's step", "generator's step", "both", "of matrix products, %")


def rates(volume: str, critic: str, box: int, args: argparse.Namespace, products: float) -> Table:
    """Images a second of each part, and of a step of either player together."""
    torch.manual_seed(0)
    grid = Grid(box, 1.0, args.device)
    batch = random_batch(grid, args.batch)
    several = volume != "density"
    model = Model(grid, VOLUMES[volume](grid), Prior(), CONFORMATIONS["prior"](1) if several else CONFORMATIONS["fixed"]())
    model = model.to(args.device)
    torch.nn.init.uniform_(model.volume.get_parameter("voxels"))
    rival = CRITICS[critic](box, args.critic_dim).to(args.device)
    game = Adversarial(Simulator(grid).to(args.device), rival, Game(), box / 2, model.volume.constrain)
    optimisers = {"critic": torch.optim.Adam(rival.parameters()), "generator": torch.optim.Adam(model.parameters())}

    def simulate() -> None:
        with torch.no_grad():
            game.simulator.images(game.simulator(model, batch))

    def play(group: str) -> None:
        for step in game.phases(model, batch):
            if group in (step.group, "both"):
                optimisers[step.group].zero_grad(set_to_none=True)
                step.backward()
                optimisers[step.group].step()
                step.settle()

    parts: dict[str, Callable[[], None]] = {
        "simulator": simulate, "critic_step": lambda: play("critic"), "generator_step": lambda: play("generator"),
        "both": lambda: play("both")}
    found = {name: args.batch / seconds(part, args) for name, part in parts.items()}
    with torch.profiler.profile(with_flops=True) as profiler:
        play("both")
    counted = sum(event.flops for event in profiler.key_averages()) / args.batch
    return {"volume": volume, "critic": critic, "box": box, "batch": args.batch, **found, "flops_per_image": counted,
            "of_matrix_products": counted * found["both"] / (1e9 * products)}


def seconds(part: Callable[[], None], args: argparse.Namespace) -> float:
    """Of one call, in processor time on a CPU."""
    part()
    part()
    began, done = machine.clock(args.device, args.threads), 0
    while (used := machine.clock(args.device, args.threads) - began) < args.seconds or not done:
        part()
        done += 1
    return used / done


def tables(results: Table) -> str:
    """The results in Markdown."""
    return common.markdown([[row["volume"], row["critic"], row["box"], row["batch"], row["simulator"], row["critic_step"],
                             row["generator_step"], row["both"], 100 * row["of_matrix_products"]]
                            for row in results["rows"]], HEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[20, 32, 64], metavar="PX", help="(default: 20 32 64)")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--critic-dim", type=int, default=16, metavar="N", help="(default: 16)")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="a measurement (default: 4)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="(default: cpu)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="JSON", help="results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    products = machine.matmul_rate(8192 if args.device == "cuda" else 2048, "float32", args.device, args.threads)
    results: Table = {"benchmark": "gan_rate", "code": common.code_version(), "written": common.now(),
                      "arguments": sys.argv[1:], "machine": common.machine(args.threads),
                      "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
                      "matmul_fp32_gflops": products, "rows": []}
    for box in args.boxes:
        for volume, critic in (("density", "polar"), ("density", "conv"), ("archetypes", "polar")):
            results["rows"].append(rates(volume, critic, box, args, products))
            write_results(args.out, results)
    print(tables(results))


if __name__ == "__main__":
    main()
