"""What ten million images ask of a machine, from pieces measured at a million: bytes, seconds and memory of every stage.

Each piece runs in a process of its own; its peak anonymous memory is read from outside (RssAnon), less that of one that only
imports. Ten million is ten times the million where a stage is linear in the number of images, which the same pieces at 250,000
confirm or not (*linear*: ratio of the memory to four times that). Images themselves are never all in memory; their bytes are
those on the disk.

    python benchmarks/size.py --work scratch/size -o benchmarks/results/size.json
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import common
from common import Table, write_results
from million import make_input, watch

COUNTS = (250_000, 1_000_000)
ZDIM = 8
PLANNED = 10_000_000
HEAD = ("piece", "bytes on disk an image", "memory an image, bytes", "linear", "s a million", "at ten million")


def star(folder: Path, n: int) -> None:
    """Read a star of n rows: names, poses, CTF, half sets."""
    from cryorecon.data.load import load_particles

    assert len(load_particles(folder / "particles.star")) == n


def order(_: Path, n: int) -> None:
    """Draw a pass's order."""
    import torch

    from cryorecon.data.loader import _block_shuffle

    assert len(_block_shuffle(n, 4096, torch.Generator().manual_seed(0))) == n


def poses(folder: Path, n: int) -> None:
    """Hold a table of poses that are searched for, and save the stage."""
    from cryorecon.inference.pose.table import PoseTable
    from cryorecon.training.run_directory import RunDirectory

    RunDirectory(folder).save_stage("poses", {"table": PoseTable.unknown(n).state_dict()})


def posterior(folder: Path, n: int) -> None:
    """Hold the closed-form posterior of z of every particle, zdim 8, and save a checkpoint's latents."""
    import numpy as np
    import torch

    from cryorecon.inference.conformation.posterior import Known
    from cryorecon.training.inferred import Latents
    from cryorecon.training.run_directory import RunDirectory

    known = Known(torch.zeros(n, ZDIM), torch.zeros(n), torch.ones(n, ZDIM, ZDIM), torch.ones(n, ZDIM))
    found = Latents(known.z.clone(), 2 * known.gram, 2 * known.vector)
    RunDirectory(folder).save(1, {"model": {}, "scale": torch.ones(n)}, np.asarray(found.mean), found.packed())


PIECES = {"star": star, "order": order, "poses": poses, "posterior": posterior}


def run_piece(name: str, folder: Path, n: int) -> None:
    """In a process of its own: the piece; the seconds that it took are printed."""
    import cryorecon.training.train  # noqa: F401  what every piece would import is no part of it

    began = time.monotonic()
    if name != "nothing":
        PIECES[name](folder, n)
    print(time.monotonic() - began)


def measured(args: argparse.Namespace, name: str, n: int) -> Table:
    """Peak memory, seconds and bytes on disk of a piece."""
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        folder = Path(scratch)
        if name == "star":
            make_input(folder, 100, n // 100, 64)
        command = [sys.executable, __file__, "--work", str(folder), "--piece", name, "--count", str(n)]
        readings, _, output = watch(command, None, args.work / f"{name}.log", 1)
        size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".mrcs")
    return {"piece": name, "n": n, "peak_bytes": max(one.bytes for one in readings), "seconds": float(output.split()[-1]),
            "disk_bytes": size}


def tables(results: Table) -> str:
    """The pieces in Markdown."""
    rows, nothing = results["rows"], results["nothing"]
    lines = []
    for name in PIECES:
        small, large = (next(row for row in rows if row["piece"] == name and row["n"] == n) for n in COUNTS)
        memory = [row["peak_bytes"] - nothing for row in (small, large)]
        share = memory[1] / COUNTS[1]
        times = PLANNED / COUNTS[1]
        lines.append([name, large["disk_bytes"] / COUNTS[1], share, memory[1] / max(memory[0], 1) / (COUNTS[1] / COUNTS[0]),
                      large["seconds"] / COUNTS[1] * 1e6, f"{share * PLANNED / 1e9:.1f} GB, {large['seconds'] * times:.0f} s"])
    return common.markdown(lines, HEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="scratch, 1 GB")
    parser.add_argument("--piece", choices=("nothing", *PIECES), help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/size.json)")
    args = parser.parse_args()
    if args.piece:
        run_piece(args.piece, args.work, args.count)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    results: Table = {"benchmark": "size", "code": common.code_version(), "written": common.now(), "arguments": sys.argv[1:],
                      "machine": common.machine(1), "nothing": measured(args, "nothing", 0)["peak_bytes"], "rows": []}
    for name in PIECES:
        results["rows"] += [measured(args, name, n) for n in COUNTS]
        write_results(args.out or args.work / "size.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
