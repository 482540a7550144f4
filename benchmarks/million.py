"""Memory of a million images: `preprocess` and one pass of the loader over a star that names a noise stack many times.

Both run as processes of their own; their anonymous resident memory (RssAnon: what they hold, not files that the system
keeps cached) is read from outside ten times a second. Asked for: under 2 GB, and flat over the pass.

    python benchmarks/million.py --work scratch/million -o results.json
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import common
from common import OURS, Table, fail, write_results
from vs_cryodrgn import say

APIX = 3.0
GB = 1e9
PERIOD = 0.1  # seconds between readings
HEADER = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
1 opticsGroup1 300.0 2.7 0.1 {apix} {box} 2

data_particles

loop_
_rlnImageName #1
_rlnAngleRot #2
_rlnAngleTilt #3
_rlnAnglePsi #4
_rlnOriginXAngst #5
_rlnOriginYAngst #6
_rlnDefocusU #7
_rlnDefocusV #8
_rlnDefocusAngle #9
_rlnRandomSubset #10
_rlnOpticsGroup #11
"""


@dataclass(frozen=True)
class Reading:
    """Memory at a time: seconds of the system's monotonic clock, bytes; working: in the part that should be flat."""

    seconds: float
    bytes: int
    working: bool


def make_input(folder: Path, images: int, times: int, box: int) -> Path:
    """A stack of ``images`` of noise and a star that names it ``times`` times, poses and CTF of every row its own."""
    star = folder / "particles.star"
    if star.is_file():
        return star
    made = subprocess.run([sys.executable, str(common.HERE / "noise_stack.py"), str(folder / "noise.mrcs"), str(images),
                           str(box), str(APIX)], check=False, env=common.environment(1))
    if made.returncode:
        fail(f"{folder}: the noise stack could not be written")
    part = star.with_name("particles.part")
    with part.open("w") as file:
        file.write(HEADER.format(apix=APIX, box=box))
        for number in range(images * times):
            turn = number * 0.61803398875 % 1  # spread evenly, so that no two rows are alike
            file.write(f"{number % images + 1:06d}@noise.mrcs {360 * turn:.4f} {180 * (turn * 7 % 1):.4f} "
                       f"{360 * (turn * 13 % 1):.4f} {6 * turn - 3:.3f} {3 - 6 * turn:.3f} {9000 + 9000 * turn:.1f} "
                       f"{8900 + 9000 * turn:.1f} {180 * turn:.2f} {number % 2 + 1} 1\n")
    part.replace(star)
    return star


def watch(command: list[str], working: Path | None, log: Path, threads: int) -> tuple[list[Reading], float, str]:
    """Run a process to its end; its readings (marked while the file ``working`` exists), CPU seconds and output."""
    began = os.times()
    readings = []
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True,
                                   env=common.environment(threads))
    with common.stopped(process):
        while process.poll() is None:
            held = anonymous(process.pid)
            if held is not None:
                readings.append(Reading(time.monotonic(), held, working is not None and working.exists()))
            time.sleep(PERIOD)
    output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        fail(f"expected exit code 0, found {process.returncode} of {' '.join(command)}; see {log}")
    ended = os.times()
    used = ended.children_user + ended.children_system - began.children_user - began.children_system
    return readings, used, output


def anonymous(pid: int) -> int | None:
    """RssAnon of a process in bytes; None once it has none."""
    try:
        found = re.search(r"^RssAnon:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return 1024 * int(found[1]) if found else None


def summary(readings: list[Reading], cpu: float, images: int) -> Table:
    """peak: over the whole process. growth: over its working part, by a straight line through the readings."""
    part = [reading for reading in readings if reading.working]
    part = part[len(part) // 20 :]  # what the first batches allocate is no trend
    growth = slope(part) * (part[-1].seconds - part[0].seconds) if len(part) > 2 else float("nan")
    return {"peak_GB": max(reading.bytes for reading in readings) / GB, "growth_GB": growth / GB,
            "peak_while_working_GB": max((reading.bytes for reading in part), default=0) / GB, "cpu_seconds": cpu,
            "wall_seconds": readings[-1].seconds - readings[0].seconds, "images_per_cpu_second": images / cpu,
            "readings": len(readings)}


def slope(readings: list[Reading]) -> float:
    """Bytes a second, least squares."""
    n = len(readings)
    x = sum(reading.seconds for reading in readings) / n
    y = sum(reading.bytes for reading in readings) / n
    above = sum((reading.seconds - x) * (reading.bytes - y) for reading in readings)
    return above / sum((reading.seconds - x) ** 2 for reading in readings)


def preprocess_step(star: Path, out: Path, box: int, threads: int) -> tuple[list[Reading], float]:
    """`preprocess`; it works while its unfinished stack is there."""
    command = [*OURS, "preprocess", str(star), "-D", str(box), "--contrast", "white", "-o", str(out)]
    readings, cpu, _ = watch(command, out / "particles.mrcs.part", out.with_name("preprocess.log"), threads)
    return readings, cpu


def loader_step(prepared: Path, batch: int, threads: int) -> tuple[list[Reading], float]:
    """One pass of the loader in random order; it works between the two times that it prints."""
    command = [sys.executable, str(common.HERE / "loader_pass.py"), str(prepared), str(batch)]
    readings, cpu, output = watch(command, None, prepared.with_name("loader.log"), threads)
    begin, end = map(float, output.split())
    return [Reading(r.seconds, r.bytes, begin <= r.seconds <= end) for r in readings], cpu


HEAD = ("step", "images", "peak RssAnon, GB", "peak in the pass, GB", "growth over the pass, GB", "CPU-s", "images a CPU-s")


def tables(results: Table) -> str:
    """The steps in Markdown."""
    lines = [[name, results["images"], row["peak_GB"], row["peak_while_working_GB"], row["growth_GB"], row["cpu_seconds"],
              row["images_per_cpu_second"]]
             for name, row in results["steps"].items()]
    return common.markdown(lines, HEAD)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, metavar="N", help="in the stack (default: 10000)")
    parser.add_argument("--times", type=int, default=100, metavar="N", help="that the star names it (default: 100)")
    parser.add_argument("-D", "--box", type=int, default=64, metavar="PX", help="side of an image (default: 64)")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="of the loader (default: 64)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every process (default: 1)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="17 GB for a million images of 64 px")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/results.json)")
    return parser


def main() -> None:
    args = arguments().parse_args()
    images = args.images * args.times
    with common.locked(args.work):
        say("writing the star")
        star = make_input(args.work, args.images, args.times, args.box)
        results: Table = {"benchmark": "million", "code": common.code_version(), "written": common.now(), "images": images,
                          "box": args.box, "arguments": sys.argv[1:], "machine": common.machine(args.threads), "steps": {}}
        prepared = args.work / "prepared"
        if prepared.exists():
            fail(f"{prepared}: expected a new folder, found an earlier run's; remove it")
        say("preprocess")
        results["steps"]["preprocess"] = summary(*preprocess_step(star, prepared, args.box, args.threads), images)
        say("one pass of the loader")
        results["steps"]["loader"] = summary(*loader_step(prepared, args.batch, args.threads), images)
        write_results(args.out or args.work / "results.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
