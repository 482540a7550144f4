"""What the C library does with memory that is freed.

glibc returns blocks of 32 MB and more to the system as soon as they are freed, and the next one of the same size is
mapped, page by page, anew. Measured for `train_nn` without poses (300 images of 64 px, two searches): 16.5 s of the system's
time beside 39 s of our own, 1.1 s where blocks are kept.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 1 << 30  # bytes: larger blocks go back to the system still
KEPT = (1 << 31) - 1  # bytes at the heap's end that are kept


def keep_freed_blocks() -> None:
    """Let this process keep freed blocks for its next ones; does nothing where the C library is not glibc."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, KEPT)
