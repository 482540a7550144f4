"""Write a stack of white noise: ``noise_stack.py PATH IMAGES BOX APIX``."""

import sys
from pathlib import Path

import numpy as np

from cryorecon.data.mrc import StackWriter


def main() -> None:
    path, images, box, apix = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    rng = np.random.default_rng(0)
    with StackWriter(path, box, apix) as stack:
        for start in range(0, images, 1000):
            stack.append(rng.standard_normal((min(1000, images - start), box, box), np.float32))


if __name__ == "__main__":
    main()
