"""The challenge's distances against its formulas written out one pair at a time, and against closed forms."""

import math

import numpy as np
import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.metrics.challenge import distribution_distance, map_distances
from cryorecon.metrics.fsc import auc, cross_conformation, cryobench_curve, fsc_curve, mean_fsc, pooled_curve


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 12, 12, 12, generator=generator, dtype=torch.float64)


def test_matrices_equal_their_formulas(maps):
    truths, mask = maps[:2] + 0.3 * maps[2], torch.zeros(12, 12, 12)
    mask[3:9, 3:9, 3:9] = 1
    found = map_distances(truths, maps[2:], mask)
    n = int(mask.sum())
    for i, truth in enumerate(truths):
        for j, one in enumerate(maps[2:]):
            a, b = (x[mask > 0].numpy() for x in (truth, one))
            a, b = ((x - np.sort(x)[(n - 1) // 2]) / x.std(ddof=1) for x in (a, b))
            assert found["l2"][i, j] == pytest.approx(((a - b) ** 2).sum())
            assert found["corr"][i, j] == pytest.approx(-(a * b).sum())
            o, c, oo, cc, oc = a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()
            joint = n * (cc * oo - oc**2) + 2 * o * oc * c - cc * o**2 - oo * c**2
            log = 0.5 * math.pi + math.log(2 * math.pi * math.e) * (1 - n / 2) + (1.5 - n / 2) * math.log(joint) \
                + (n / 2 - 2) * math.log((n - 2) * (n * cc - c * c))
            assert found["bioem"][i, j] == pytest.approx(-log)
            cubes = [torch.zeros(12, 12, 12, dtype=torch.float64).masked_scatter(mask > 0, torch.from_numpy(x)) for x in (a, b)]
            assert found["fsc"][i, j] == pytest.approx(1 - float(fsc_curve(*cubes).value[1:].mean()))


def test_the_nearest_map_is_the_map_itself_by_every_distance(maps):
    order = [3, 1, 4, 0, 2]
    for matrix in map_distances(maps, maps[order]).values():
        assert matrix.argmin(0).tolist() == order


def test_matrices_of_fsc_equal_single_curves(maps):
    assert float(cross_conformation(maps[:2], maps[2:])[1, 2]) == pytest.approx(auc(cryobench_curve(maps[1], maps[4])))
    assert float(mean_fsc(maps[:2], maps[2:])[1, 2]) == pytest.approx(float(fsc_curve(maps[1], maps[4]).value[1:].mean()))
    assert cross_conformation(maps).diagonal().numpy() == pytest.approx(np.full(5, 5 / 12))


def test_a_pooled_curve_of_one_pair_is_that_pair_s(maps):
    assert pooled_curve(maps[:1], maps[1:2]).value.numpy() == pytest.approx(fsc_curve(maps[0], maps[1]).value.numpy())
    assert pooled_curve(maps, -2 * maps).value[1:].numpy() == pytest.approx(-np.ones(6))


def test_the_truth_submitted_is_as_near_as_can_be():
    states = np.linspace(0, 1, 20)
    population = np.random.default_rng(1).dirichlet(np.full(20, 5.0))
    distance = np.abs(states[:, None] - states)
    found = distribution_distance(distance, population, population, pool=1, fraction=1.0, replicates=2)
    assert found.windows == 20
    assert found.emd == pytest.approx([1, 1])  # every state's nearest map has rank 1
    assert found.emd_best == pytest.approx([1, 1])
    for each in (found.kl, found.kl_best, found.kl_back, found.kl_back_best):
        assert each == pytest.approx([0, 0], abs=1e-6)


def test_planted_populations_have_their_divergence():
    truth, submitted = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    distance = 1.0 - np.eye(3)
    found = distribution_distance(distance, truth, submitted, pool=1, fraction=1.0, replicates=1)
    assert found.kl[0] == pytest.approx((truth * np.log(truth / submitted)).sum())
    assert found.kl_back[0] == pytest.approx((submitted * np.log(submitted / truth)).sum())
    # 0.4 of the population must go to a map of rank 2.5 (two tie) rather than 1
    assert found.emd[0] == pytest.approx(0.6 * 1 + 0.4 * 2.5)
    assert found.emd_best[0] == pytest.approx(1)


def test_states_are_pooled_along_the_motion():
    found = distribution_distance(1.0 - np.eye(10), np.full(10, 0.1), np.full(10, 0.1), pool=3, replicates=4)
    assert found.windows == 3  # of 9 drawn
    assert len(found.emd) == 4
    assert (found.emd >= found.emd_best - 1e-9).all()


def test_what_does_not_fit_is_refused(maps):
    with pytest.raises(InputError, match="one box"):
        map_distances(maps, maps[:, :10, :10, :10])
    with pytest.raises(InputError, match="at most 4 states pooled"):
        distribution_distance(np.ones((5, 2)), np.full(5, 0.2), np.full(2, 0.5), pool=5)
    with pytest.raises(InputError, match="sum to 1"):
        distribution_distance(np.ones((5, 2)), np.full(5, 0.2), np.full(2, 0.6), pool=1)
