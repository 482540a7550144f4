"""Multi-CryoGAN's rule on made-up matrices of areas: a step, a ramp, maps that are all alike."""

import numpy as np
import pytest

from cryorecon.errors import InputError
from cryorecon.metrics.occupancy import FIRST, SECOND, TRANSITION, assign, by_ends, by_paper, fractions, halfway, normalised


def step(at: int, other: float, n: int = 21) -> np.ndarray:
    """Two conformations, the second from map ``at`` on; ``other``: the area of one with the other."""
    second = np.arange(n) >= at
    return np.where(second[:, None] == second, 1.0, other)


def ramp(other: float, n: int = 21) -> np.ndarray:
    """A motion without blocks: the area falls evenly with the distance in alpha, to ``other`` at the far end."""
    alpha = np.linspace(0, 1, n)
    return 1 - (1 - other) * np.abs(alpha[:, None] - alpha)


def test_a_step_at_a_quarter_is_found_by_either_rule_where_the_two_differ_much() -> None:
    for rule in (by_paper, by_ends):
        parts = rule(step(5, 0.2))
        np.testing.assert_array_equal(parts, [FIRST] * 5 + [SECOND] * 16)
        np.testing.assert_allclose(fractions(parts), [5 / 21, 0, 16 / 21])


def test_a_transition_is_what_is_like_neither_or_like_both() -> None:
    """The paper's own figure: 25 % and 70 %, and 5 % between."""
    areas = step(5, 0.2)
    areas[5, :] = areas[:, 5] = 0.3
    areas[5, 5] = 1
    np.testing.assert_allclose(fractions(by_paper(areas)), [5 / 21, 1 / 21, 15 / 21])
    areas[5, :] = areas[:, 5] = 0.8
    assert by_paper(areas)[5] == by_ends(areas)[5] == TRANSITION


def test_a_small_motion_is_all_transition_by_the_paper_and_a_step_relative_to_the_ends() -> None:
    areas = step(5, 0.83)
    np.testing.assert_allclose(fractions(by_paper(areas)), [0, 1, 0])
    np.testing.assert_allclose(fractions(by_ends(areas)), [5 / 21, 0, 16 / 21])
    assert halfway(areas) == pytest.approx(0.915)


@pytest.mark.parametrize("other", [0.0, 0.7])
def test_a_ramp_is_cut_in_the_middle_by_the_relative_rule(other) -> None:
    """Nothing but the one map halfway is like neither end: shares alone don't tell a motion from two states."""
    np.testing.assert_allclose(fractions(by_ends(ramp(other))), [10 / 21, 1 / 21, 10 / 21])
    assert fractions(by_paper(ramp(0.7)))[TRANSITION] == 1


def test_maps_that_are_all_alike_are_in_neither_conformation() -> None:
    for rule in (by_paper, by_ends):
        np.testing.assert_allclose(fractions(rule(np.ones((21, 21)))), [0, 1, 0])


def test_the_threshold_itself_is_in_neither() -> None:
    assert assign(np.array([[1, 0.5], [0.5, 1]]), 0.5).tolist() == [FIRST, SECOND]
    assert assign(np.array([[1, 0.6], [0.6, 1]]), 0.5).tolist() == [TRANSITION, TRANSITION]


def test_areas_are_in_units_of_a_maps_with_itself() -> None:
    found = normalised(np.array([[0.4, 0.1], [0.1, 0.1]]))
    np.testing.assert_allclose(found, [[1, 0.5], [0.5, 1]])


@pytest.mark.parametrize(("areas", "says"), [(np.ones((2, 3)), "square"), (np.ones((1, 1)), "2 maps"),
                                             (np.array([[1.0, 0], [0, 0]]), "above 0")])
def test_what_is_no_matrix_of_areas_is_refused(areas, says) -> None:
    with pytest.raises(InputError, match=says):
        normalised(areas)
