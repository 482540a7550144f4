"""Neighbourhood similarity and information imbalance against closed forms and a count by hand."""

import numpy as np
import pytest

from cryorecon.errors import InputError
from cryorecon.metrics.neighbours import information_imbalance, neighbourhood_similarity, similarity_by_chance


@pytest.fixture
def line():
    return np.random.default_rng(0).normal(size=(400, 1))


def by_hand(truth, estimate, k):
    """CryoBench's sum, one particle at a time, itself left out."""
    hits = 0
    for i in range(len(truth)):
        near = [set([j for j in np.argsort(np.linalg.norm(x - x[i], axis=1)) if j != i][:k]) for x in (truth, estimate)]
        hits += len(near[0] & near[1])
    return 100 * hits / k / len(truth)


def imbalance_by_hand(a, b, k):
    ranks = []
    for i in range(len(a)):
        near = [j for j in np.argsort(np.linalg.norm(a - a[i], axis=1)) if j != i][:k]
        order = [j for j in np.argsort(np.linalg.norm(b - b[i], axis=1)) if j != i]
        ranks += [order.index(j) + 1 for j in near]
    return 2 * np.mean(ranks) / len(a)


def test_both_equal_their_definitions_without_ties():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(60, 2)), rng.normal(size=(60, 3))
    b[:, 0] += 2 * a[:, 0]
    found = neighbourhood_similarity(a, b, [3, 10])
    assert found == pytest.approx([by_hand(a, b, 3), by_hand(a, b, 10)])
    assert information_imbalance(a, b, 3) == pytest.approx(imbalance_by_hand(a, b, 3))
    assert information_imbalance(b, a, 1) == pytest.approx(imbalance_by_hand(b, a, 1))


def test_turned_scaled_and_shifted_coordinates_change_nothing():
    rng = np.random.default_rng(2)
    a = rng.normal(size=(300, 3))
    turned = 5 * a @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + 7
    assert neighbourhood_similarity(a, turned, [5, 50]) == pytest.approx([100, 100])
    assert information_imbalance(a, turned) == pytest.approx(2 / 300)  # the nearest is the nearest: rank 1


def test_what_is_independent_is_at_chance(line):
    noise = np.random.default_rng(3).normal(size=(400, 2))
    assert information_imbalance(line, noise) == pytest.approx(1, abs=0.1)
    assert neighbourhood_similarity(line, noise, [40])[0] == pytest.approx(100 * 40 / 399, abs=1)
    assert similarity_by_chance(line, [40])[0] == pytest.approx(100 * 40 / 399)


def test_a_plane_foretells_its_axis_but_not_the_axis_the_plane():
    plane = np.random.default_rng(4).normal(size=(1000, 2))
    axis = plane[:, :1]
    assert information_imbalance(plane, axis) < 0.1
    assert information_imbalance(axis, plane) > 0.3


def test_states_tie(line):
    """Four states of 100: a latent that keeps them apart is perfect, and an imbalance cannot be below a quarter."""
    state = np.repeat(np.arange(4.0), 100)[:, None]
    z = 10 * state + 0.01 * line
    assert neighbourhood_similarity(state, z, [5, 99]) == pytest.approx([100, 100])
    assert similarity_by_chance(state, [5])[0] == pytest.approx(100 * 99 / 399)
    # ranks 1 to 99 of those in one state have the mean 50
    assert information_imbalance(state, state) == pytest.approx(2 * 50 / 400)
    assert information_imbalance(z, state) == pytest.approx(2 * 50 / 400)
    shuffled = np.random.default_rng(5).permutation(z)
    assert neighbourhood_similarity(state, shuffled, [5])[0] == pytest.approx(100 * 99 / 399, abs=3)


def test_what_is_asked_of_them_is_checked(line):
    with pytest.raises(InputError, match="same particles"):
        information_imbalance(line, line[:-1])
    with pytest.raises(InputError, match="expected k from 1 to 399"):
        neighbourhood_similarity(line, line, [400])
