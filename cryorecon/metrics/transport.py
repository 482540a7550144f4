r"""Optimal transport between two weighted sets of points, exactly.

:math:`W_p^p = \min_T \sum_{ij} T_{ij} c_{ij}` over plans T >= 0 whose row sums are the weights of one set and whose column
sums are those of the other, c the p-th power of distances.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import coo_array

from cryorecon.errors import InputError


def optimal_plan(cost: np.ndarray, a: np.ndarray | None = None, b: np.ndarray | None = None) -> np.ndarray:
    """The plan ``(m, n)`` of least ``(plan * cost).sum()`` from weights ``a (m,)`` to ``b (n,)`` (default: equal ones).

    Sets of one size with equal weights are matched one to one (a plan of that kind is optimal); else a linear programme.

    Raises
    ------
    InputError: weights that are negative or of other sums, costs that are not finite.
    """
    cost = np.asarray(cost, np.float64)
    m, n = cost.shape
    given = a is not None or b is not None
    a = np.full(m, 1 / m) if a is None else _checked(a, m)
    b = np.full(n, 1 / n) if b is None else _checked(b, n)
    if not np.isfinite(cost).all():
        raise InputError(f"transport: expected finite costs, found {int((~np.isfinite(cost)).sum())} that are not")
    if m == n and (not given or (np.ptp(a) == 0 and np.ptp(b) == 0)):
        plan = np.zeros((m, n))
        plan[linear_sum_assignment(cost)] = 1 / m
        return plan
    row, column = np.divmod(np.arange(m * n), n)
    entries = (np.ones(2 * m * n), (np.concatenate([row, m + column]), np.tile(np.arange(m * n), 2)))
    scale = np.abs(cost).max() or 1.0
    found = linprog(cost.ravel() / scale, A_eq=coo_array(entries, shape=(m + n, m * n)).tocsr(),
                    b_eq=np.concatenate([a, b]), method="highs")
    if found.x is None:
        raise InputError(f"transport: expected a plan for weights of sums {a.sum():g} and {b.sum():g}, found none: "
                         f"{found.message}")
    return found.x.reshape(m, n)


def transport_cost(cost: np.ndarray, a: np.ndarray | None = None, b: np.ndarray | None = None) -> float:
    """What the optimal plan costs; arguments as of :func:`optimal_plan`."""
    return float((optimal_plan(cost, a, b) * cost).sum())


def _checked(weight: np.ndarray, n: int) -> np.ndarray:
    """Weights ``(n,)`` that sum to 1."""
    weight = np.asarray(weight, np.float64)
    total = weight.sum()
    if weight.shape != (n,) or not (weight >= 0).all() or not abs(total - 1) < 1e-5:
        raise InputError(f"transport: expected {n} weights of at least 0 that sum to 1, found shape {weight.shape}, "
                         f"sum {total:g}")
    return weight / total
