"""What images say of z: evidence and posteriors under a Gaussian."""

import numpy as np
import pytest
import torch

from cryorecon.analysis.latent import fit_pca
from cryorecon.analysis.observed import Observed, observed, seen_through
from cryorecon.errors import InputError


def random_observed(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(n, d, d, generator=generator)
    return Observed(root @ root.transpose(1, 2), torch.randn(n, d, generator=generator))


def test_evidence_is_the_integral_over_the_prior():
    found = random_observed(5, 1)
    mean, covariance = torch.tensor([0.3], dtype=torch.float64), torch.tensor([[0.7]], dtype=torch.float64)
    evidence, middle, spread = seen_through(found, mean, covariance)
    z = torch.linspace(-12, 12, 40001, dtype=torch.float64)
    prior = torch.exp(-((z - 0.3) ** 2) / 1.4) / np.sqrt(2 * np.pi * 0.7)
    precision, pull = found.double()
    joint = prior * torch.exp(pull * z - 0.5 * precision[:, 0] * z**2)
    total = torch.trapezoid(joint, z, dim=1)
    torch.testing.assert_close(evidence, total.log(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(middle[:, 0], torch.trapezoid(joint * z, z, dim=1) / total, atol=1e-6, rtol=1e-6)
    variance = torch.trapezoid(joint * (z - middle) ** 2, z, dim=1) / total
    torch.testing.assert_close(spread[:, 0, 0], variance, atol=1e-6, rtol=1e-6)


def test_likelihoods_turn_with_the_principal_components():
    """At a particle's own maximum the pull vanishes, wherever the axes lie."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(50, 3)) @ np.diag([3.0, 1.0, 0.3]) + 5
    precision = np.stack([np.diag(rng.uniform(1, 4, 3)) + 0.3 for _ in z])
    row, column = np.triu_indices(3)
    packed = np.concatenate([np.einsum("nij,nj->ni", precision, z), precision[:, row, column]], 1).astype(np.float32)
    pca = fit_pca(z)
    found = observed(z.astype(np.float32), packed, pca)
    best = torch.linalg.solve(found.precision, found.pull[..., None])[..., 0].numpy()
    np.testing.assert_allclose(best, pca.project(z), atol=1e-3)


def test_latents_without_uncertainty_are_taken_as_nearly_exact():
    z = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    pca = fit_pca(z)
    found = observed(z, None, pca)
    assert not found.measured
    _, middle, _ = seen_through(found, torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    np.testing.assert_allclose(middle.numpy(), pca.project(z), atol=1e-3)


def test_a_likelihood_of_another_run_is_refused():
    z = np.zeros((4, 2), np.float32)
    with pytest.raises(InputError, match="expected 5 numbers for each of 4 particles"):
        observed(z, np.zeros((4, 4), np.float32), fit_pca(np.random.default_rng(0).normal(size=(4, 2))))


def test_coordinates_that_do_not_vary_are_left_out(tmp_path):
    """A run may leave dimensions unused: states, densities and ways are those of the others."""
    from cryorecon.analysis.distribution import distribution
    from cryorecon.analysis.walks import walks

    rng = np.random.default_rng(1)
    z = np.zeros((300, 4), np.float32)
    z[:, 1], z[:, 2] = rng.normal(size=300), 0.3 * rng.normal(size=300)
    pca = fit_pca(z)
    found = distribution(z, None, pca, tmp_path, most=3)
    assert found.mixture.mean.shape[1] == 2
    assert len(found.lines) == 2
    dense = walks(z, found, pca, tmp_path, None, 1.0)[-1]
    assert dense.points.shape == (10, 4)
    assert dense.density is not None
    assert np.isfinite(dense.density.free_energy).any()
    assert (tmp_path / "density" / "pc1_pc2_density.npy").is_file()
    assert not (tmp_path / "density" / "pc3.csv").exists()


def test_clouds_that_nothing_joins_have_the_straight_way_alone(tmp_path):
    from cryorecon.analysis.distribution import distribution
    from cryorecon.analysis.walks import walks

    rng = np.random.default_rng(2)
    z = (0.1 * rng.normal(size=(200, 2)) + 10 * rng.integers(0, 2, (200, 1))).astype(np.float32)
    pca = fit_pca(z)
    found = distribution(z, None, pca, tmp_path, most=3)
    with pytest.warns(UserWarning, match="hardly any lie between"):
        made = walks(z, found, pca, tmp_path, None, 1.0)
    assert [walk.name for walk in made] == ["path_direct"]
    assert abs(made[0].points[0] - made[0].points[-1]).min() > 9
