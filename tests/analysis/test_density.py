"""Free energies with the noise of z taken out."""

import numpy as np
import pytest
import torch

from cryorecon.analysis.density import along, deconvolve, seen_on
from cryorecon.analysis.mixture import Mixture
from cryorecon.analysis.observed import Observed

BARRIER = 2.0  # kT


def double_well(n, noise, seed=0):
    """What noisy images say of z with F = BARRIER (1 - x^2)^2 on [-1.6, 1.6]."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1.6, 1.6, 4001)
    p = np.exp(-BARRIER * (1 - x**2) ** 2)
    true = rng.choice(x, n, p=p / p.sum())
    return true + noise * rng.normal(size=n)


def one_normal(d):
    """A mixture of one component, wide."""
    return Mixture(torch.ones(1, dtype=torch.float64), torch.zeros(1, d, dtype=torch.float64),
                   torch.eye(d, dtype=torch.float64)[None], np.empty(0))


def energy_at(density, where):
    return float(np.interp(where, density.centres[0], density.free_energy))


def test_a_barrier_blurred_by_noise_stands_again():
    seen = double_well(20_000, 0.45)
    found = Observed(torch.full((len(seen), 1, 1), 1 / 0.45**2), torch.from_numpy(seen[:, None] / 0.45**2).float())
    made = deconvolve(found, one_normal(1), (0,))
    wells = (energy_at(made, -1) + energy_at(made, 1)) / 2
    assert energy_at(made, 0) - wells == pytest.approx(BARRIER, abs=0.3)
    count, edges = np.histogram(seen, 40)
    blurred = -np.log(np.interp(0.0, (edges[1:] + edges[:-1]) / 2, count) / count.max())
    assert blurred < BARRIER - 0.6, "the plain histogram has lost it"
    assert made.share.sum() == pytest.approx(1)
    inner = (np.abs(made.centres[0]) < 1.2)
    assert made.error[inner].max() < 0.6


def test_two_coordinates_and_one_tell_the_same():
    seen = double_well(6000, 0.2)
    other = 0.3 * np.random.default_rng(5).normal(size=len(seen))
    precision = torch.diag(torch.tensor([1 / 0.04, 1 / 0.01])).expand(len(seen), 2, 2)
    both = np.stack([seen, other], 1)
    found = Observed(precision, torch.from_numpy(both * [1 / 0.04, 1 / 0.01]).float())
    line, plane = (deconvolve(found, one_normal(2), axes) for axes in ((0,), (0, 1)))
    at = plane.centres[0]
    summed = plane.share.sum(1) / (at[1] - at[0])
    single = np.interp(at, line.centres[0], line.share) / (line.centres[0][1] - line.centres[0][0])
    assert np.corrcoef(summed, single)[0, 1] > 0.95


def test_along_a_bent_path_the_barrier_is_the_same():
    """The same well on a half circle in three dimensions, the third of which no image tells."""
    seen = double_well(20_000, 0.3)
    # radians: on a unit circle, length is angle; beside it as much noise
    radius = 1 + 0.3 * np.random.default_rng(1).normal(size=len(seen))
    points = np.stack([radius * np.sin(seen), radius * np.cos(seen), 0 * seen], 1)
    precision = torch.diag(torch.tensor([1 / 0.09, 1 / 0.09, 0.0])).expand(len(seen), 3, 3)
    found = Observed(precision, torch.from_numpy(points / 0.09).float())
    at = np.linspace(-1.7, 1.7, 64)
    made = along(found, np.stack([np.sin(at), np.cos(at), 0 * at], 1))
    energy = np.interp([-1, 0, 1], at, made.free_energy)
    assert energy[1] - (energy[0] + energy[2]) / 2 == pytest.approx(BARRIER, abs=0.4)


def test_exact_latents_give_a_histogram():
    values = np.random.default_rng(0).normal(size=5000)
    found = Observed(torch.full((5000, 1, 1), 1e6), torch.from_numpy(1e6 * values[:, None]).float())
    made = deconvolve(found, one_normal(1), (0,))
    width = made.centres[0][1] - made.centres[0][0]
    count, _ = np.histogram(values, np.r_[made.centres[0] - width / 2, made.centres[0][-1] + width / 2])
    smooth = np.convolve(count / 5000, [0.25, 0.5, 0.25], "same")
    assert np.abs(made.share - smooth).max() < 0.003
    assert np.isinf(made.free_energy[made.share < 1e-6]).all()


def test_other_coordinates_are_integrated_out_under_the_mixture():
    """Numerically: the likelihood on one axis is the mean of that of both over the other, given the first."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 2, 2, generator=generator)
    found = Observed(root @ root.transpose(1, 2) + 0.1 * torch.eye(2), torch.randn(4, 2, generator=generator))
    tilted = torch.tensor([[[0.5, 0.3], [0.3, 0.4]], [[0.3, -0.2], [-0.2, 0.6]]], dtype=torch.float64)
    weight, mean = torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([[-1.0, 0.5], [1.0, -0.5]], dtype=torch.float64)
    mixture = Mixture(weight, mean, tilted, np.empty(0))
    at = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    made = seen_on(found, mixture, [0], at, torch.tensor([1e-6], dtype=torch.float64))
    other = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    plane = torch.stack(torch.meshgrid(at[:, 0], other, indexing="ij"), -1).reshape(-1, 2)
    prior = torch.from_numpy(mixture.log_density(plane.numpy())).reshape(9, -1)
    precision, pull = found.double()
    told = (pull @ plane.T - 0.5 * torch.einsum("gi,nij,gj->ng", plane, precision, plane)).reshape(4, 9, -1)
    wanted = torch.logsumexp(told + prior, 2) - torch.logsumexp(prior, 1)
    wanted = torch.exp(wanted - wanted.amax(1, keepdim=True))
    torch.testing.assert_close(made.double(), wanted, atol=2e-4, rtol=2e-3)
