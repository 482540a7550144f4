"""The two kinds of step that ``fit`` runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Gradient:
    """Accumulate gradients of one parameter group; the optimiser of that group then steps.

    backward: runs the backward pass (in parts that fit a cache), of a mean over the batch's images, and returns what to log, as
    sums over ``weight`` items. clip: largest norm of the gradient; where it is finite, the norm is logged too. every: batches
    that pass for one such step.
    settle: called after the optimiser's step, where parameters must stay within bounds.
    """

    group: str
    backward: Callable[[], dict[str, float]]
    settle: Callable[[], None] = lambda: None
    clip: float = math.inf
    every: int = 1


@dataclass(frozen=True)
class ClosedForm:
    """Add a batch to running sums, solved when the pass over the data ends. Returns what to log, like ``Gradient``."""

    accumulate: Callable[[], dict[str, float]]
