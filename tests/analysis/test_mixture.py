"""Occupancies seen through noise: planted shares come back, with honest errors."""

import numpy as np
import pytest
import torch

from cryorecon.analysis.mixture import Mixture, choose_mixture, occupancies, shares
from cryorecon.analysis.observed import Observed

PLANTED = np.array([0.6, 0.3, 0.1])


def planted(n=4000, noise=1.0, seed=0):
    """Three states in two dimensions, each particle with noise of its own along its own axes; a third axis says nothing."""
    rng = np.random.default_rng(seed)
    state = rng.choice(3, n, p=PLANTED)
    true = np.array([[-2.0, 0.0, 0.0], [1.0, 1.5, 0.0], [1.5, -2.0, 0.0]])[state] + 0.15 * rng.normal(size=(n, 3))
    spread = noise * rng.uniform(0.3, 1.3, (n, 1))
    precision = np.zeros((n, 3, 3))
    precision[:, 0, 0] = precision[:, 1, 1] = 1 / spread[:, 0] ** 2
    seen = true + spread * rng.normal(size=(n, 3))
    pull = np.einsum("nij,nj->ni", precision, seen)
    shrunk = seen / (1 + spread**2)  # what an encoder would tell
    shrunk[:, 2] = 0.01 * rng.normal(size=n)
    return Observed(torch.from_numpy(precision).float(), torch.from_numpy(pull).float()), shrunk.astype(np.float32), state


@pytest.fixture(scope="module")
def mixture():
    """Of the planted states."""
    return choose_mixture(*planted()[:2])


def test_planted_shares_come_back(mixture):
    found, _, _ = planted()
    assert len(mixture) == 3
    np.testing.assert_allclose(mixture.weight.numpy(), PLANTED, atol=0.02)
    assert mixture.bic.argmin() == 2
    share, error = occupancies(mixture.evidence(found), mixture.weight)
    np.testing.assert_allclose(share, PLANTED, atol=0.02)
    exact = np.sqrt(PLANTED * (1 - PLANTED) / 4000)
    assert (error > 0.7 * exact).all()
    assert (error < 3 * exact).all()


def test_errors_from_half_sets_are_those_of_repeats(mixture):
    """The scatter of shares over independent samples is what one sample says of itself."""
    repeats, told = [], []
    for seed in range(12):
        found, _, _ = planted(1000, seed=seed)
        share, error = occupancies(mixture.evidence(found), mixture.weight)
        repeats.append(share)
        told.append(error)
    ratio = np.mean(told, 0) / np.std(repeats, 0)
    assert ((ratio > 0.5) & (ratio < 2)).all()


def test_shares_of_certain_particles_are_counts():
    likelihood = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 0, 0, 1, 1, 2])]
    torch.testing.assert_close(shares(likelihood, torch.full((3,), 1 / 3, dtype=torch.float64)),
                               torch.tensor([0.5, 1 / 3, 1 / 6], dtype=torch.float64), atol=1e-5, rtol=0)


def test_one_state_is_one():
    found, coordinates, state = planted(noise=0.3)
    one = np.flatnonzero(state == 0)
    assert len(choose_mixture(found.at(one), coordinates[one])) == 1


def test_the_density_of_the_mixture_integrates_to_one(mixture):
    plane = Mixture(mixture.weight, mixture.mean[:, :2], mixture.covariance[:, :2, :2], mixture.bic)
    at = np.linspace(-5, 5, 401)
    points = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    assert np.exp(plane.log_density(points)).sum() * (at[1] - at[0]) ** 2 == pytest.approx(1, abs=0.01)


def test_an_axis_that_does_not_vary_is_no_obstacle():
    found, coordinates, _ = planted(400)
    flat = Observed(found.precision[:, :2, :2] * torch.tensor([[1.0, 0], [0, 0]]), found.pull[:, :2] * torch.tensor([1.0, 0]))
    narrow = np.stack([coordinates[:, 0], np.zeros(400, np.float32)], 1)
    mixture = choose_mixture(flat, narrow, most=3)
    assert np.isfinite(mixture.log_density(narrow)).all()
    assert float(mixture.weight.sum()) == pytest.approx(1)
