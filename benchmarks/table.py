"""Write the tables of docs/benchmarks.md from benchmarks/results/*.json; with --check, say whether they are those.
"""

import argparse
import importlib
import re
from pathlib import Path

import common

PAGE = common.REPOSITORY / "docs" / "benchmarks.md"
RESULTS = common.HERE / "results"
SECTION = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def machine_line(machine: common.Table) -> str:
    """The machine in a sentence."""
    rates = ", ".join(f"{machine[key]:.0f} GFLOP/s in {name} products" for key, name in
                      (("matmul_fp32_gflops", "fp32"), ("matmul_bf16_gflops", "bf16"),
                       ("gpu_matmul_bf16_gflops", "the GPU's bf16")) if key in machine)
    gpu = f", {machine['gpu']}" if "gpu" in machine else ""
    return (f"{machine['cpu']}{gpu}, {machine['cores']} cores of which {machine['threads']} used, "
            f"{machine['memory_GB']} GB; PyTorch {machine['torch']}; {rates}")


def section(name: str, folder: Path) -> str:
    """All results of one benchmark, a table for each file by its script's ``tables``; empty where none has been measured."""
    made = []
    for path in sorted(folder.glob("*.json")):
        results = common.read_json(path)
        if results and results.get("benchmark") == name:
            code = f" by cryorecon {results['code']}" if "code" in results else ""
            title = f"`{path.name}`, written {results['written'][:10]}{code}."
            made.append(f"{title} {machine_line(results['machine'])}.\n\n{importlib.import_module(name).tables(results)}\n")
    return "\n" + "\n".join(made) + "\n" if made else ""


def filled(page: str, folder: Path = RESULTS) -> str:
    """The page with its tables made anew."""
    return SECTION.sub(lambda found: found[1] + section(found[2], folder) + found[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page is out of date")
    args = parser.parse_args()
    page = PAGE.read_text()
    made = filled(page)
    if args.check:
        raise SystemExit(page != made)
    PAGE.write_text(made)


if __name__ == "__main__":
    main()
