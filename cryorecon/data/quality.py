"""What may be wrong with images: NaN, constant ones, the wrong contrast."""

import math

import numpy as np

from cryorecon.data.source import FileSource, ImageSource
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError
from cryorecon.imaging.masks import radius_map

SAMPLE = 64
CHUNK_PIXELS = 1 << 22
CLEAR_CONTRAST = 4.0  # standard errors
LARGEST = 1e15  # of a value, and one over it the least range of an image's values


def chunk_size(box: int) -> int:
    """How many images of ``box`` px to treat at once, so that memory stays bounded."""
    return max(1, CHUNK_PIXELS // box**2)


def check_sample(stack: ParticleStack, n: int = SAMPLE) -> None:
    """Read ``n`` images spread over the stack; :class:`InputError` where one is constant or not finite."""
    chosen = np.unique(np.linspace(0, len(stack) - 1, min(n, len(stack))).astype(np.int64))
    for part in np.split(chosen, range(chunk_size(stack.box), len(chosen), chunk_size(stack.box))):
        check_images(stack.source.read(part), part, stack.source)


def check_images(images: np.ndarray, positions: np.ndarray, source: ImageSource) -> None:
    """:class:`InputError` where one of ``images`` ``(n, D, D)``, at these positions of ``source``, is constant or not
    finite, or so large or small that float32 doesn't hold sums of its squares."""
    low, high = images.min((1, 2)), images.max((1, 2))
    with np.errstate(over="ignore", invalid="ignore"):
        apart, finite = high - low, np.isfinite(low) & np.isfinite(high)
    extreme = (np.maximum(-low, high) > LARGEST) | (apart < 1 / LARGEST)
    for wrong, what in ((~finite, "NaN or infinite"), (low == high, "constant"),
                        (extreme, f"too large or small (beyond {LARGEST:g} or all within {1 / LARGEST:g})")):
        if wrong.any():
            first = int(positions[np.flatnonzero(wrong)[0]])
            raise InputError(f"{image_name(source, first)}: expected an image, found {what} values in image "
                             f"{first + 1} ({int(wrong.sum())} of {len(images)} looked at); leave it out by --ind")


def image_name(source: ImageSource, position: int) -> str:
    """``000001@path`` of an image of a file, for errors."""
    if not isinstance(source, FileSource):
        return "images"
    return f"{source.frame[position] + 1:06d}@{source.headers[source.file_index[position]].path}"


def contrast(images: np.ndarray) -> float:
    """How much brighter the middle of images ``(n, D, D)`` is than their rim, in standard errors over the images.

    Above about 4 protein is white, below -4 dark; between, the images don't say. Each image is first given unit
    variance.
    """
    box = images.shape[-1]
    radius = radius_map(box, 2).numpy() / (box / 2)
    middle, rim = radius < 0.4, (radius > 0.85) & (radius < 1.0)
    flat = images.astype(np.float64)
    spread = flat.std((1, 2))
    difference = (flat[:, middle].mean(1) - flat[:, rim].mean(1)) / np.where(spread > 0, spread, 1)
    if len(images) < 2 or difference.std() == 0:
        return 0.0
    return float(difference.mean() / (difference.std(ddof=1) / math.sqrt(len(images))))


def sample_contrast(stack: ParticleStack, n: int = 500) -> float:
    """:func:`contrast` of ``n`` raw images spread over the stack (its sign is not applied)."""
    chosen = np.unique(np.linspace(0, len(stack) - 1, min(n, len(stack), chunk_size(stack.box) * 4)).astype(np.int64))
    return contrast(stack.source.read(chosen))
