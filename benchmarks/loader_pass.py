"""One pass of the loader over prepared particles in random order, as training makes it: ``loader_pass.py FOLDER BATCH``.

Prints when it began and ended, in seconds of the system's monotonic clock.
"""

import sys
import time

import torch

from cryorecon.data.load import load_particles
from cryorecon.data.loader import Loader, estimate_noise
from cryorecon.geometry.grid import Grid


def main() -> None:
    folder, batch = sys.argv[1], int(sys.argv[2])
    stack = load_particles(folder)
    grid = Grid(stack.box, stack.apix)
    loader = Loader(stack, grid, estimate_noise(stack, grid))
    seen, began = 0, time.monotonic()
    for part in loader.epoch(batch, torch.Generator().manual_seed(0)):
        seen += len(part)
    ended = time.monotonic()
    if seen != len(stack):
        raise RuntimeError(f"expected {len(stack)} images in a pass, found {seen}")
    print(began, ended)


if __name__ == "__main__":
    main()
