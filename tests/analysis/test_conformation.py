"""Runs that are right, permuted or mixed, against a simulation's truth: answers known beforehand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon.analysis import conformation
from cryorecon.analysis.conformation_scores import judge, summary, table, write
from cryorecon.analysis.states import score_states, state_maps
from cryorecon.analysis.truth import Truth

BOX, STATES, EACH = 16, 5, 60


def blobs(n=STATES):
    """A ball that moves along x beside one that stays."""
    axis = torch.arange(BOX) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    still = torch.exp(-((x + 3).square() + (y + 4).square() + z.square()) / 6.0)
    return torch.stack([still + torch.exp(-((x - s).square() + y.square() + z.square()) / 6.0) for s in range(n)])


class Known(Truth):
    """A truth in memory."""

    def density(self, number):
        return blobs()[number]


@pytest.fixture
def truth():
    state = np.random.default_rng(0).permutation(np.repeat(np.arange(STATES), EACH))
    coordinate = np.arange(STATES)[:, None] / (STATES - 1)
    return Known(state, coordinate, {number: Path() for number in range(STATES)}, BOX, 3.0)


@pytest.fixture
def latents(truth):
    """States a unit apart along the first axis, with a little noise."""
    noise = 0.02 * np.random.default_rng(1).normal(size=(len(truth.state), 2))
    return noise + np.stack([truth.state, 0 * truth.state], 1)


def perfect(z):
    return blobs()[torch.from_numpy(z[:, 0]).round().long().clamp(0, STATES - 1)]


def test_a_perfect_run_has_full_marks(truth, latents):
    found = judge(latents, truth, perfect, k=STATES, n_images=20)
    full = (BOX / 2 - 1) / BOX
    assert found.states.auc == pytest.approx(np.full(STATES, full))
    assert found.images.auc == pytest.approx(np.full(len(found.images.auc), full))
    assert found.images.particle.tolist() == list(range(0, 300, 15))
    assert found.states.difference == pytest.approx(1)
    assert found.states.spearman[0, 0] > 0.97
    assert found.neighbours.similarity[0] == pytest.approx(100)
    one, other, floor = found.neighbours.imbalance[1]
    assert one == pytest.approx(floor)
    assert other < 1.3 * floor
    assert found.cross.run == pytest.approx(found.cross.truth, abs=1e-6)
    assert found.cross.both.diagonal() == pytest.approx(np.full(STATES, full), abs=1e-6)
    assert found.cross.truth[0, 4] < found.cross.truth[0, 1]
    for each in found.distributions.result.values():
        assert each.emd_best == pytest.approx(np.ones(30))
        assert each.emd.max() < 1.8  # a replicate leaves a fifth of the truth out, whose map must go elsewhere
    assert found.occupancy.by_latent == pytest.approx(np.full(STATES, 1 / STATES))
    assert found.occupancy.by_map == pytest.approx(np.full(STATES, 1 / STATES))


def test_maps_in_the_wrong_order_lose_the_maps_but_not_the_neighbours(truth, latents):
    found = judge(latents, truth, lambda z: perfect(STATES - 1 - z), k=STATES, n_images=20)
    assert found.states.auc[0] < 0.8 * found.states.auc[2]  # the middle one stays
    assert found.states.difference < 0
    assert found.neighbours.similarity[0] == pytest.approx(100)
    assert found.occupancy.by_map == pytest.approx(found.occupancy.by_map[::-1])


def test_planted_occupancies_are_found(truth):
    """A 60/30/10 mixture, and a tenth of the particles of the first state taken for the second."""
    state = np.repeat([0, 1, 2], [600, 300, 100])
    coordinate = np.arange(STATES)[:, None] / (STATES - 1)
    known = Known(state, coordinate, {number: Path() for number in range(STATES)}, BOX, 3.0)
    seen = state.copy()
    seen[:60] = 1
    z = np.stack([seen, 0 * seen], 1) + 0.01 * np.random.default_rng(2).normal(size=(1000, 2))
    found = judge(z, known, perfect, k=3, n_images=10).occupancy
    assert found.truth == pytest.approx([0.6, 0.3, 0.1])
    assert found.by_map == pytest.approx([0.54, 0.36, 0.1])
    assert found.by_latent == pytest.approx([0.54, 0.36, 0.1])
    assert found.error(found.by_map, found.truth) == pytest.approx(0.06)


def test_a_latent_that_knows_nothing_is_at_chance(truth):
    z = np.random.default_rng(3).normal(size=(len(truth.state), 2))
    near = conformation.compare_neighbours(z, truth.coordinate[truth.state])
    assert near.similarity == pytest.approx(near.chance, abs=12)
    assert near.imbalance[3][0] == pytest.approx(1, abs=0.2)
    assert near.imbalance[3][1] == pytest.approx(1, abs=0.2)


def test_a_million_latents_are_compared_on_few(monkeypatch):
    z = np.zeros((1_000_000, 1), np.float32)
    z[:, 0] = np.arange(1_000_000)
    monkeypatch.setattr(conformation, "NEIGHBOURS", 200)
    near = conformation.compare_neighbours(z, z)
    assert near.particles == 200
    assert near.k.tolist() == list(range(2, 41, 2))  # 1 % to 20 %
    assert near.similarity == pytest.approx(np.full(20, 100))


def test_too_few_particles_have_no_neighbours():
    assert conformation.compare_neighbours(np.zeros((40, 1)), np.zeros((40, 1))) is None


def test_places_of_maps_are_as_far_as_the_maps():
    maps = blobs()
    place = conformation.places_of_maps(maps)
    assert np.linalg.norm(place[0] - place[3]) == pytest.approx(float((maps[0] - maps[3]).norm()), rel=1e-5)


def test_states_without_maps_are_left_out(truth, latents):
    some = Known(truth.state, truth.coordinate, {0: Path(), 3: Path()}, BOX, 3.0)
    found = judge(latents, some, perfect, k=2, n_images=10)
    assert found.states.state.tolist() == [0, 3]
    assert found.states.count.tolist() == [EACH, EACH]


def test_what_is_written_can_be_read(truth, latents, tmp_path):
    found = judge(latents, truth, perfect, k=STATES, n_images=10, by_maps=True)
    write(found, tmp_path, {"run": "out"})
    held = json.loads((tmp_path / "conformation.json").read_text())
    assert held["run"] == "out"
    assert held["auc_mean"] == table(found)["auc_mean"] == pytest.approx((BOX / 2 - 1) / BOX)
    with np.load(tmp_path / "conformation.npz", allow_pickle=False) as arrays:
        assert arrays["state_fsc"].shape == (STATES, BOX // 2)
        assert arrays["fsccc_both"].shape == arrays["distance_l2"].shape == (STATES, STATES)
    assert f"mean correlation: {found.states.difference:.4f}" in summary(found)


def test_scores_of_states_alone(truth, latents):
    held = state_maps(latents, truth.state, perfect, truth.density)
    assert score_states(latents, truth.state, truth.coordinate, held).count.tolist() == [EACH] * STATES
