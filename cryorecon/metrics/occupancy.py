r"""How much of a generator's conformations are alike: Multi-CryoGAN's rule (Gupta, Phan, Yoo & Unser 2020, section 5.2).

Of maps :math:`x_n` at :math:`\alpha_n = n / L`, :math:`n = 0 .. L`, and the areas :math:`M[m, n]` under the FSC of every pair
(equation 7; :func:`cryorecon.metrics.fsc.cross_conformation`), a map is of the first conformation where ``M[0, n]`` is above a
threshold and ``M[L, n]`` below it, of the second in the reversed case, and else a transition.

The paper's threshold is 0.5. Maps of one molecule that moves are far more alike than that (the ends of the simulator's
hinge, at 32 px of 5 Å: 0.83), and nothing then belongs anywhere. The relative rule puts the threshold halfway between the
area of the two ends and that of a map with itself.
"""

import numpy as np

from cryorecon.errors import InputError

FIRST, TRANSITION, SECOND = 0, 1, 2
PARTS = ("first", "transition", "second")


def normalised(areas: np.ndarray) -> np.ndarray:
    """Areas under the FSC ``(n, n)`` in units of a map's with itself, so that the diagonal is 1.

    Raises
    ------
    InputError: no square matrix of two maps at least, or a map without power in any shell.
    """
    areas = np.asarray(areas, np.float64)
    if areas.ndim != 2 or areas.shape[0] != areas.shape[1] or len(areas) < 2:
        raise InputError(f"areas under the FSC: expected a square matrix of 2 maps or more, found shape {areas.shape}")
    own = areas.diagonal()
    if not (own > 0).all():
        raise InputError("areas under the FSC: expected each map's with itself above 0, found "
                         f"{own.min():g}; is a map empty?")
    return areas / np.sqrt(own[:, None] * own)


def assign(areas: np.ndarray, threshold: float) -> np.ndarray:
    """Part ``(n,)`` of each map, :data:`FIRST`, :data:`TRANSITION` or :data:`SECOND`, by its areas with the first and the last.

    areas: :func:`normalised`, ``(n, n)``.
    """
    first, last = areas[0] > threshold, areas[-1] > threshold
    return np.where(first & ~last, FIRST, np.where(last & ~first, SECOND, TRANSITION))


def by_paper(areas: np.ndarray) -> np.ndarray:
    """:func:`assign` at the paper's threshold of 0.5."""
    return assign(areas, 0.5)


def by_ends(areas: np.ndarray) -> np.ndarray:
    """:func:`assign` halfway between the ends' area and 1: where ``(M[0, n] - M[0, L]) / (1 - M[0, L])`` is above 0.5."""
    return assign(areas, halfway(areas))


def halfway(areas: np.ndarray) -> float:
    """The threshold of :func:`by_ends`."""
    return (1 + float(areas[0, -1])) / 2


def fractions(parts: np.ndarray) -> np.ndarray:
    """Shares ``(3,)`` of the maps in the first conformation, the transition and the second."""
    return np.bincount(parts, minlength=len(PARTS)) / len(parts)


RULES = {"paper": by_paper, "ends": by_ends}
