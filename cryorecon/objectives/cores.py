"""Independent tasks side by side on the cores of a machine."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

from cryorecon.geometry.grid import Grid

Result = TypeVar("Result")
SMALL_BOX = 128
_workers: ContextVar[int] = ContextVar("workers", default=1)


@contextmanager
def one_core_a_task(grid: Grid) -> Iterator[None]:
    """On the CPU and for small boxes, operations run on one thread and :func:`side_by_side` keeps the cores busy.

    Their steps are many and short, and a pool of threads waits more than it works (measured at 64 px on two cores: twice the
    processor time, no less wall time; far worse where cores are shared).
    """
    threads = torch.get_num_threads()
    small = grid.device.type == "cpu" and grid.box <= SMALL_BOX
    token = _workers.set(threads if small else 1)
    torch.set_num_threads(1 if small else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _workers.reset(token)


@contextmanager
def all_cores() -> Iterator[None]:
    """Within :func:`one_core_a_task`: threads within operations again, for work that is one task, such as a network's."""
    threads, workers = torch.get_num_threads(), _workers.get()
    token = _workers.set(1)
    torch.set_num_threads(max(threads, workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _workers.reset(token)


def side_by_side(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Results of tasks that share nothing they write to, in their order."""
    workers = min(_workers.get(), len(tasks))
    if workers < 2:
        return [task() for task in tasks]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda task: task(), tasks))
