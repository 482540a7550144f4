"""The two kinds of step that ``fit`` runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Gradient:
    """Accumulate gradients of one parameter group; the optimiser of that group then steps.

    backward: runs the backward pass (in parts that fit a cache) and returns what to log, as sums over ``weight`` items.
    settle: called after the optimiser's step, where parameters must stay within bounds.
    """

    group: str
    backward: Callable[[], dict[str, float]]
    settle: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class ClosedForm:
    """Add a batch to running sums, solved when the pass over the data ends. Returns what to log, like ``Gradient``."""

    accumulate: Callable[[], dict[str, float]]
