"""A scheduler's SIGTERM: the run stops between two batches, and its pass over the data can be gone on with, bit for bit.

The signal itself only raises a flag, so that nothing is torn apart: :func:`check`, which the loops over batches call, raises
:class:`~cryorecon.errors.Stopped`. Where no batch ends within :data:`GRACE` seconds, the process ends there and then; files
are written such that this costs no more than the present pass. Schedulers kill after 30 s (Slurm's KillWait).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cryorecon import ranks
from cryorecon.errors import Stopped

GRACE = 25.0  # seconds
_asked = threading.Event()


def check() -> None:
    """Raise :class:`Stopped` where the process was told to stop; of several that work together all do, where one was."""
    asked = torch.tensor([float(_asked.is_set())])
    ranks.add_up(asked)
    if float(asked):
        raise Stopped


@contextmanager
def on_sigterm(last_words: Callable[[], None]) -> Iterator[None]:
    """Within, SIGTERM makes :func:`check` raise, and after :data:`GRACE` seconds the process say ``last_words`` and exit with
    code 0. Outside the main thread, where signals don't come, this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ear, mouth = os.pipe()  # the C library's handler writes there at once, whatever long operation Python is in
    os.set_blocking(mouth, False)
    over = threading.Event()

    def listen() -> None:
        while (heard := os.read(ear, 1)) and heard[0] != 0:
            if heard[0] != signal.SIGTERM:
                continue
            _asked.set()
            if not over.wait(GRACE):
                last_words()
                os._exit(0)

    before, wakeup = signal.signal(signal.SIGTERM, lambda *_: _asked.set()), signal.set_wakeup_fd(mouth)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        os.write(mouth, b"\0")
        listener.join()
        os.close(ear)
        os.close(mouth)
        _asked.clear()


def random_state(*generators: torch.Generator) -> dict[str, Any]:
    """Where torch's own random numbers stand, a row for each process, and those of ``generators``, which all share."""
    own = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [])]
    return {"torch": [ranks.gathered(each[None]) for each in own], "generators": [each.get_state() for each in generators]}


def set_random_state(state: dict[str, Any], *generators: torch.Generator) -> None:
    """Go on from there; with another number of processes than then, each draws from a new stream of its own."""
    cpu, *cuda = state["torch"]
    if len(cpu) == ranks.count():
        torch.set_rng_state(cpu[ranks.number()].clone())  # of a view PyTorch 2.13 reads the wrong memory
        if cuda and torch.cuda.is_available():
            torch.cuda.set_rng_state(cuda[0][ranks.number()].clone())
    else:
        torch.manual_seed(ranks.own(int(cpu[0].sum())))
    for generator, values in zip(generators, state["generators"], strict=True):
        generator.set_state(values)
