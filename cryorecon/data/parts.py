"""Work in parts that fit the memory: where a GPU does not hold one, it is halved, and the work goes on."""

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from cryorecon.data.loader import Batch
from cryorecon.errors import InputError

Result = TypeVar("Result")


def halved(size: int, what: str) -> int:
    """Half of ``size``, after CUDA ran out of memory; says so, and gives what PyTorch keeps for itself back.

    Raises
    ------
    InputError: ``size`` is 1 already.
    """
    if size <= 1:
        raise InputError(f"expected a GPU with memory for one {what}, found too little left on it; end what else runs there, "
                         "or make the box smaller (cryorecon preprocess -D)")
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    warnings.warn(f"the GPU's memory did not hold {size} {what}s at once; going on with {size // 2}", stacklevel=3)
    return size // 2


class Room:
    """How many particles are treated at once: as asked for, or ``most``, since CUDA ran out of memory with more."""

    def __init__(self) -> None:
        self.most = sys.maxsize

    def parts(self, batch: Batch, size: int, work: Callable[[Batch], Result]) -> Iterator[Result]:
        """Results of ``work`` on parts of ``size`` whole particles, in order; a part that CUDA's memory does not hold, and all
        that follow, are done in halves. ``work`` is done again on a part that failed: until then it must have changed nothing.

        Raises
        ------
        InputError: the memory does not hold one particle.
        """
        waiting: Batch | None = batch
        while waiting is not None:
            whole, waiting, behind = waiting, None, 0
            for part in whole.split_particles(min(size, self.most)):
                try:
                    yield work(part)
                    behind += len(part)
                except torch.cuda.OutOfMemoryError:
                    waiting = whole.at(slice(behind, len(whole)))
                    held = len(part.particle_starts())
                    break
            if waiting is not None:
                self.most = halved(held, "particle")
