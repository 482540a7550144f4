"""How fast `train_vae` is: an epoch against cryoDRGN's, what the fast settings cost, and how busy the machine is.

epoch: processor time of an epoch at equal widths (3 x 256) and batch (16), ours and cryodrgn's in turn (A B A B ...).
heldout: loss on images that training did not see, by setting. flops: the network's products against the machine's own.

    python benchmarks/throughput.py --work scratch/throughput --peer ENVIRONMENT -o results.json
"""

import argparse
import itertools
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import common
import machine
from common import OURS, Table, fail, measure, write_results
from vs_cryodrgn import WIDTHS, network_seconds, say

PARTS = ("epoch", "heldout", "flops")
PLAIN = ["--road", "plain", "--conformation", "encoder"]
ALL, HALF = ["--points", "1"], ["--points", "0.5"]
SETTINGS = {  # of train_vae; bf16 only where the processor has it
    "plain": [*PLAIN, *ALL], "plain, half the points": [*PLAIN, *HALF], "plain, bf16": [*PLAIN, *ALL, "--amp"],
    "plain, bf16, half the points": [*PLAIN, *HALF, "--amp"], "default road, all points": ALL,
    "default road, half the points": HALF,
}
SHAPES = {"cpu": ((32, 256), (64, 64), (64, 256), (64, 1024), (128, 256), (128, 1024)),
          "cuda": ((64, 256), (64, 1024), (128, 256), (128, 1024), (256, 1024))}  # box, width
LAYERS = 3


def settings() -> dict[str, list[str]]:
    """The settings that this processor can run as meant."""
    return {name: words for name, words in SETTINGS.items() if machine.has_bf16() or "bf16" not in name}


def particles(work: Path, images: int) -> Path:
    """A simulated set of ``images`` at 64 px, made once."""
    folder = work / f"hinge{images}"
    if not (folder / "particles.star").is_file():  # written last
        made = measure([*OURS, "simulate", "--motion", "hinge", "-n", str(images), "-D", "64", "--apix", "3", "--snr", "0.1",
                        "-o", str(folder), "--overwrite"], work / "simulate.log")
        if made.exit_code:
            fail(f"{folder}: simulation ended with {made.exit_code}; see {work / 'simulate.log'}")
    return folder


def data_words(folder: Path) -> list[str]:
    """The data's arguments, the same for both programs."""
    return [str(folder / "particles.mrcs"), "--poses", str(folder / "poses.pkl"), "--ctf", str(folder / "ctf.pkl"),
            "--zdim", "8", *WIDTHS, "-b", "16", "--checkpoint", "1000", "--seed", "0"]


def our_epochs(folder: Path, words: list[str], epochs: int, threads: int) -> list[float]:
    """CPU seconds of the network's epochs after the first."""
    with tempfile.TemporaryDirectory() as out:
        run = Path(out) / "run"
        command = [*OURS, "train_vae", *data_words(folder), "-n", str(epochs), *words, "-o", str(run)]
        done = measure(command, Path(out) / "log", threads)
        if done.exit_code:
            fail((Path(out) / "log").read_text().strip().splitlines()[-1])
        passes = network_seconds(run)
    return [passes[epoch] - passes[epoch - 1] for epoch in range(2, epochs + 1)]


def peer_epochs(folder: Path, binaries: Path, epochs: int, threads: int) -> list[float]:
    """CPU seconds of cryodrgn's epochs after the first: its process's clock, read as it reports each epoch's end.

    Nothing is saved between epochs, so that from one report to the next there is training alone.
    """
    with tempfile.TemporaryDirectory() as out:
        command = [str(binaries / "cryodrgn"), "train_vae", *data_words(folder), "-n", str(epochs), "--no-analysis", "-o", out]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   env=common.environment(threads))
        marks, last = [], ""
        with common.stopped(process):
            for line in process.stdout or ():
                last = line
                if re.search(r"=====> Epoch: \d+ ", line):
                    marks.append(common.cpu_of(process.pid))
        if process.wait():
            fail(last.strip())
    return [b - a for a, b in itertools.pairwise(marks)]


def epoch_part(args: argparse.Namespace, binaries: Path) -> list[Table]:
    """CPU milliseconds an image, medians over rounds and epochs, with every reading."""
    folder = particles(args.work, args.images)
    names = ["cryodrgn", *settings()]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(args.rounds):
        for name in names:
            say(f"epoch: round {number + 1}/{args.rounds}, {name}")
            seconds[name] += (peer_epochs(folder, binaries, args.epochs, args.threads) if name == "cryodrgn"
                              else our_epochs(folder, settings()[name], args.epochs, args.threads))
    middle = {name: 1000 * statistics.median(found) / args.images for name, found in seconds.items()}
    return [{"setting": name, "cpu_ms_an_image": middle[name], "times_faster": middle["cryodrgn"] / middle[name],
             "epochs_cpu_seconds": seconds[name]} for name in names]


def heldout_part(args: argparse.Namespace) -> list[Table]:
    """Held-out loss after five epochs, by setting."""
    import heldout

    folder = particles(args.work, args.heldout_images)
    return list(heldout.compare(folder, settings(), args.heldout_epochs, args.work, args.threads))


def flops_part(threads: int, seconds: float) -> Iterator[Table]:
    """Images a second of a training step in memory, and its products' share of the measured matrix rate."""
    import step
    import torch

    torch.set_num_threads(threads)
    devices = {"cpu": ("float32", *(("bfloat16",) if machine.has_bf16() else ()))}
    if torch.cuda.is_available():
        devices["cuda"] = ("float32", "bfloat16")
    for device, dtypes in devices.items():
        for dtype in dtypes:
            peak = machine.matmul_rate(1024 if device == "cpu" else 8192, dtype, device, threads)
            for box, width in SHAPES[device]:
                say(f"flops: {device}, {dtype}, D = {box}, {LAYERS} x {width}")
                rate = step.images_per_second(box, width, LAYERS, device, dtype == "bfloat16", threads, seconds)
                gflops = rate * step.flops_an_image(box, width, LAYERS) / 1e9
                yield {"device": device, "dtype": dtype, "box": box, "width": width, "images_per_second": rate,
                       "model_gflops": gflops, "matmul_gflops": peak, "percent_of_matmul": 100 * gflops / peak}


HEADS = {
    "epoch": {"setting": "setting", "cpu_ms_an_image": "CPU-ms an image", "times_faster": "times faster than cryodrgn"},
    "heldout": {"setting": "setting", "energy": "loss, nats a point", "against_full": "against fp32, all points, %",
                "explained_against_full": "of what it explains, %", "cpu_seconds": "CPU-s of the network"},
    "flops": {"device": "device", "dtype": "dtype", "box": "D", "width": "width", "images_per_second": "images/s",
              "model_gflops": "model GFLOP/s", "matmul_gflops": "matrix GFLOP/s", "percent_of_matmul": "%"},
}


def tables(results: Table) -> str:
    """The parts that were measured, in Markdown."""
    made = []
    for part, head in HEADS.items():
        if part in results:
            lines = [[row[key] for key in head] for row in results[part]]
            made.append(f"**{part}**\n\n" + common.markdown(lines, list(head.values())))
    return "\n\n".join(made)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(PARTS), help="(default: all)")
    parser.add_argument("--images", type=int, default=400, metavar="N", help="of the epoch part (default: 400)")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="a reading; the first warms up (default: 3)")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="of A B A B (default: 2)")
    parser.add_argument("--heldout-images", type=int, default=1000, metavar="N", help="a tenth is held out (default: 1000)")
    parser.add_argument("--heldout-epochs", type=int, default=5, metavar="N", help="(default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="for each line of flops (default: 3)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every process (default: 1)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the data are kept")
    parser.add_argument("--peer", metavar="PATH", help="an environment with the peer (default: made in --work)")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/results.json)")
    return parser


def main() -> None:
    args = arguments().parse_args()
    if args.epochs < 2:
        fail(f"--epochs: expected at least 2, of which the first warms up, found {args.epochs}")
    with common.locked(args.work):
        results: Table = {"benchmark": "throughput", "code": common.code_version(), "written": common.now(),
                          "arguments": sys.argv[1:], "machine": common.machine(args.threads)}
        out = args.out or args.work / "results.json"
        for part in args.parts:
            if part == "epoch":
                results[part] = epoch_part(args, common.peer_environment(args.work, args.peer))
            elif part == "heldout":
                results[part] = heldout_part(args)
            else:
                results[part] = list(flops_part(args.threads, args.seconds))
            write_results(out, results)
    print(tables(results))


if __name__ == "__main__":
    main()
