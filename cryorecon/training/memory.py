"""What closed-form stages need of the machine's memory, told before they begin."""

import math
import os
from pathlib import Path

import torch

from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid

GB = 1e9
PAD = 2  # of the lattice on which LinearEM sums
MEMINFO = Path("/proc/meminfo")


def available(device: torch.device) -> int:
    """Bytes that can still be had: of a GPU; of the machine, caches counted as free (Linux), or all that it has."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what PyTorch keeps for itself is free
        return torch.cuda.mem_get_info(device)[0]
    if MEMINFO.is_file():
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def search_room(megabytes: int | None, device: torch.device) -> int:
    """Bytes that a search of poses may hold at once: as asked for, else 256 MB, or a thirty-second of what is free on a GPU."""
    if megabytes is not None:
        return megabytes << 20
    return 1 << 28 if device.type == "cpu" else available(device) // 32


def low_rank_bytes(box: int, band: float, z_dim: int) -> int:
    """What a pass of low-rank EM to ``band`` Fourier pixels holds: at each lattice point the Gram matrix of two half sets,
    as much again while sums are added and solved, and six times ``Q = z_dim + 1`` complex numbers (sums and maps)."""
    reach = min(math.ceil(min(band, box / 2) * PAD) + 1, PAD * box // 2 - 1)
    points = (reach + 1) * (2 * reach + 1) ** 2
    q = 1 + z_dim
    return points * (3 * (q * (q + 1) // 2) * 4 + 6 * q * 8)


def require_room(grid: Grid, band: float, z_dim: int) -> None:
    """Raise :class:`InputError` where low-rank EM to ``band`` Fourier pixels needs more memory than there is."""
    free, needed = available(grid.device), low_rank_bytes(grid.box, band, z_dim)
    if needed <= free:
        return
    fits = max((d for d in range(1, z_dim) if low_rank_bytes(grid.box, band, d) <= free), default=0)
    advice = f"give --zdim {fits} at most" if fits else "no --zdim fits; make the box smaller (cryorecon preprocess -D)"
    raise InputError(f"zdim: expected Gram matrices that fit into the {free / GB:.3g} GB of memory that are free, found "
                     f"{needed / GB:.3g} GB for {z_dim} components of {grid.box} px to {grid.box * grid.apix / band:.3g} Å; "
                     f"{advice}")
