"""Arrays and maps as text that a page carries: gzip and base64, densities in 8 bits. explorer.js reads them."""

import base64
import gzip

import numpy as np
from torch import Tensor

from cryorecon.geometry.fourier import resample


def pack(array: np.ndarray) -> str:
    """Numbers, little-endian and in C order, as gzip in base64; the reader knows shape and type."""
    numbers = np.ascontiguousarray(array)
    return base64.b64encode(gzip.compress(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes(), 6, mtime=0)).decode()


def pack_density(density: Tensor, box: int, low: float, high: float) -> str:
    """A map ``(D, D, D)`` at ``box`` px in 256 steps from ``low`` to ``high``; what is below or above is clipped."""
    few = resample(density.float(), box, 3).numpy() if density.shape[-1] != box else density.float().numpy()
    steps = (few - low) * (255 / max(high - low, 1e-30))
    return pack(np.rint(steps).clip(0, 255).astype(np.uint8))
