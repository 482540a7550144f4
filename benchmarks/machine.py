"""Describe the machine as JSON: processor, memory, PyTorch and the rate of its matrix products."""

import argparse
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any


def describe(threads: int, size: int = 1024) -> dict[str, Any]:
    """Names and measured rates; ``size``: of the square matrices."""
    import torch

    torch.set_num_threads(threads)
    cpu = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpu, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    described: dict[str, Any] = {
        "cpu": model[1] if model else platform.processor(), "cores": len(os.sched_getaffinity(0)), "threads": threads,
        "memory_GB": round(int(memory[1]) / 1e6) if memory else None, "bf16": has_bf16(), "torch": torch.__version__,
        "python": platform.python_version(), "matmul_fp32_gflops": matmul_rate(size, "float32", "cpu", threads),
    }
    if has_bf16():
        described["matmul_bf16_gflops"] = matmul_rate(size, "bfloat16", "cpu", threads)
    if torch.cuda.is_available():
        described |= {"gpu": torch.cuda.get_device_name(), "gpu_matmul_bf16_gflops": matmul_rate(8192, "bfloat16", "cuda"),
                      "gpu_matmul_tf32_gflops": matmul_rate(8192, "float32", "cuda")}
    return described


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (without, PyTorch emulates it, slower than float32)."""
    return re.search(r"\b(avx512_bf16|amx_bf16)\b", Path("/proc/cpuinfo").read_text()) is not None


def matmul_rate(size: int, dtype: str, device: str, threads: int = 1, repeats: int = 7) -> float:
    """GFLOP/s of the best of ``repeats`` square products.

    On a CPU the clock is the processor time over ``threads``: other processes on the machine then cost nothing.
    """
    import torch

    torch.set_float32_matmul_precision("highest" if device == "cpu" else "high")
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        began = clock(device, threads)
        a @ b
        best = min(best, clock(device, threads) - began)
    return 2 * size**3 / best / 1e9


def clock(device: str, threads: int) -> float:
    """Seconds: on a GPU the wall's, once it is idle; on a CPU the process's time over its ``threads``."""
    if device == "cpu":
        return time.process_time() / threads
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the products (default: 1)")
    print(json.dumps(describe(parser.parse_args().threads), indent=1))


if __name__ == "__main__":
    main()
