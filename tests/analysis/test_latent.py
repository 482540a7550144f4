"""Principal components, clusters and paths of latents."""

import numpy as np
import pytest
import torch

from cryorecon.analysis import clusters, latent
from cryorecon.analysis.clusters import kmeans
from cryorecon.analysis.latent import fit_pca, nearest_particles
from cryorecon.analysis.trajectories import component_path, write_series
from cryorecon.data.mrc import read_volume
from cryorecon.errors import InputError

RNG = np.random.default_rng(0)


def cloud(n: int, d: int = 4) -> np.ndarray:
    """Normal deviates of variances 9, 4, 1, ... along turned axes, not centred."""
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(d, d)))[0]
    scale = np.array([3.0, 2.0, 1.0, 0.5, 0.2, 0.1][:d])
    return (RNG.normal(size=(n, d)) * scale @ turn + 7).astype(np.float32)


def test_pca_in_chunks_equals_a_singular_value_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent, "CHUNK", 100)
    z = cloud(1234)
    found = fit_pca(z)
    _, singular, vectors = np.linalg.svd(z.astype(np.float64) - z.mean(0, dtype=np.float64), full_matrices=False)
    np.testing.assert_allclose(found.variance, singular**2 / len(z), rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(found.components * vectors, 1)), 1, atol=1e-6)
    assert (np.take_along_axis(found.components, np.abs(found.components).argmax(1)[:, None], 1) > 0).all()
    np.testing.assert_allclose(found.restore(found.project(z)), z, atol=1e-4)
    assert abs(found.explained.sum() - 1) < 1e-12


def test_nan_is_told_with_its_count() -> None:
    z = cloud(50)
    z[3, 1] = np.nan
    with pytest.raises(InputError, match="1 of 50 particles"):
        fit_pca(z)
    with pytest.raises(InputError, match="shape"):
        fit_pca(np.zeros((0, 3)))


def test_nearest_particles_over_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent, "CHUNK", 64)
    z, points = cloud(500), cloud(9)
    plain = np.linalg.norm(z[:, None].astype(np.float64) - points, axis=2).argmin(0)
    np.testing.assert_array_equal(nearest_particles(z, points), plain)


def test_planted_clusters_are_found_in_order_and_stand_for_real_particles() -> None:
    truth = RNG.integers(5, size=2000)
    z = np.c_[10.0 * truth, np.zeros(2000)] + RNG.normal(size=(2000, 2))
    found = kmeans(z, 5)
    direction = 1 if found.centres[-1, 0] > 0 else -1
    np.testing.assert_array_equal(found.labels, truth if direction > 0 else 4 - truth)
    np.testing.assert_array_equal(found.counts, np.bincount(found.labels))
    assert (found.labels[found.nearest] == np.arange(5)).all()
    np.testing.assert_array_equal(found.labels, kmeans(z, 5).labels)


def test_a_sample_is_fitted_and_everyone_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "SAMPLE", 300)
    z = cloud(2000)
    found = kmeans(z, 6)
    assert len(found.labels) == 2000
    plain = np.linalg.norm(z[:, None].astype(np.float64) - found.centres, axis=2).argmin(1)
    np.testing.assert_array_equal(found.labels, plain)


def test_more_clusters_than_particles() -> None:
    assert len(kmeans(cloud(3), 20).centres) == 3
    assert len(kmeans(np.ones((4, 2)), 20).centres) == 1
    with pytest.raises(InputError, match="at least 1"):
        kmeans(cloud(3), 0)


def test_path_runs_between_percentiles_along_one_component() -> None:
    z = cloud(4000)
    pca = fit_pca(z)
    path = pca.project(component_path(pca, z, 1, n=7))
    np.testing.assert_allclose(path[[0, -1], 1], np.percentile(pca.project(z)[:, 1], [5, 95]), rtol=1e-9)
    np.testing.assert_allclose(np.delete(path, 1, 1), 0, atol=1e-9)
    np.testing.assert_allclose(np.diff(path[:, 1]), np.ptp(path[:, 1]) / 6)
    with pytest.raises(InputError, match="expected 1 to 4, found 5"):
        component_path(pca, z, 4)


def test_series_holds_the_decoded_maps_and_nothing_stale(tmp_path) -> None:
    z = cloud(3)
    (tmp_path / "vol_009.mrc").touch()
    paths = write_series(tmp_path, lambda point: torch.full((4, 4, 4), float(point[0])), z, 1.5, "maps")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vol_001.mrc", "vol_002.mrc", "vol_003.mrc",
                                                                 "z_values.txt"]
    for path, point in zip(paths, z, strict=True):
        volume, apix = read_volume(path)
        assert float(volume[0, 0, 0]) == point[0]
        assert abs(apix - 1.5) < 1e-6
    np.testing.assert_allclose(np.loadtxt(tmp_path / "z_values.txt"), z, rtol=1e-6)
