"""Optimal transport against closed forms."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from cryorecon.errors import InputError
from cryorecon.metrics.transport import optimal_plan, transport_cost


def test_a_permuted_set_is_no_distance_away():
    rng = np.random.default_rng(0)
    points, order = rng.normal(size=(30, 3)), rng.permutation(30)
    cost = ((points[:, None] - points[order][None]) ** 2).sum(-1)
    plan = optimal_plan(cost)
    assert (plan * cost).sum() == pytest.approx(0, abs=1e-12)
    assert (plan.argmax(1) == np.argsort(order)).all()


def test_a_shift_costs_its_length():
    points = np.random.default_rng(1).normal(size=(20, 2))
    cost = ((points[:, None] - points[None] - np.array([3.0, 4.0])) ** 2).sum(-1)
    assert transport_cost(cost) == pytest.approx(25)


def test_weights_on_a_line_agree_with_the_integral_of_distribution_functions():
    rng = np.random.default_rng(2)
    x, y, a, b = rng.normal(size=12), rng.normal(size=7), rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(7))
    cost = np.abs(x[:, None] - y)
    plan = optimal_plan(cost, a, b)
    assert (plan * cost).sum() == pytest.approx(wasserstein_distance(x, y, a, b))
    assert plan.sum(1) == pytest.approx(a)
    assert plan.sum(0) == pytest.approx(b)


def test_what_cannot_be_carried_is_refused():
    with pytest.raises(InputError, match="sum to 1"):
        optimal_plan(np.ones((2, 2)), np.array([0.5, 0.6]))
    with pytest.raises(InputError, match="finite"):
        optimal_plan(np.array([[np.nan]]))
