"""Distances, components, clusters, regression and free energy of a space of maps."""

import numpy as np
import pytest

from cryorecon.analysis.volume_space import agglomerate, compare, free_energy, project, regression, regression_score
from cryorecon.errors import InputError


def maps(n: int = 30, v: int = 400, rank: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(v, rank)))[0].T
    return (5 + (rng.normal(size=(n, rank)) * np.array([4.0, 2.0, 1.0])[:rank]) @ basis).astype(np.float32)


def test_components_and_distances_are_those_of_the_maps(monkeypatch) -> None:
    monkeypatch.setattr("cryorecon.analysis.volume_space.BLOCK", 70)
    x = maps()
    space = compare(x, 8)
    assert space.components.shape == (3, 400), "without variance, no component"
    np.testing.assert_allclose(space.components @ space.components.T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(space.mean + space.coordinates @ space.components, x, atol=1e-4)
    np.testing.assert_allclose(space.distances, np.linalg.norm(x[:, None] - x[None], axis=2), atol=1e-4)
    np.testing.assert_allclose(space.variance[:3], space.coordinates.var(0), rtol=1e-5)
    np.testing.assert_allclose(space.explained.sum(), 1, atol=1e-5)
    np.testing.assert_allclose(compare(x, 2).explained, space.explained[:2], rtol=1e-5)
    assert (np.abs(space.components).max(1) == space.components.max(1)).all(), "signs repeat"


@pytest.mark.parametrize("method", ["average", "ward", "complete", "single"])
def test_clusters_are_found_and_numbered_along_the_first_component(method) -> None:
    rng = np.random.default_rng(1)
    truth = rng.permutation(np.repeat([0, 1, 2], [5, 9, 4]))
    x = np.zeros((18, 50), np.float32)
    x[:, 7] = np.array([0, 10, 30])[truth]
    x += 0.1 * rng.normal(size=x.shape)
    assert agglomerate(compare(x), 3, method).tolist() == truth.tolist()
    assert agglomerate(compare(x), 1, method).tolist() == [0] * 18
    assert len(set(agglomerate(compare(x), 50, method))) == 18


def test_a_linear_decoder_is_met_exactly_and_a_curved_one_nearly() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(size=(150, 4))
    z[:, 3] = 0.7  # a latent that never moves
    other = rng.normal(size=(2000, 4))
    other[:, 3] = 0.7
    matrix = rng.normal(size=(4, 3))
    np.testing.assert_allclose(regression(z, z @ matrix)(other), other @ matrix, atol=1e-6)
    assert regression_score(z, z @ matrix) == pytest.approx(1)

    def bend(points):
        return np.stack([np.sin(points[:, 0]), points[:, 1] ** 2, points[:, 0] * points[:, 2]], 1)

    predict = regression(z, bend(z))
    np.testing.assert_allclose(predict(z), bend(z), atol=1e-8)
    inside = other[np.linalg.norm(other[:, :3], axis=1) < 1.5]
    residual = predict(inside) - bend(inside)
    assert residual.var() < 0.03 * bend(inside).var()
    assert 0.7 < regression_score(z, bend(z)) < 0.99
    assert regression_score(z, rng.normal(size=(150, 2))) < 0.1, "noise is not predicted"


def test_few_or_coincident_maps_still_have_a_regression() -> None:
    z = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert np.isfinite(regression(z, np.array([[0.0], [1.0], [1.0]]))(z)).all()
    with pytest.raises(InputError, match="at one"):
        regression(np.zeros((3, 2)), np.zeros((3, 1)))


def test_all_particles_are_projected_in_pieces(monkeypatch) -> None:
    monkeypatch.setattr("cryorecon.analysis.latent.CHUNK", 7)
    z = np.arange(40.0).reshape(20, 2)
    sizes = []

    def predict(part):
        sizes.append(len(part))
        return 2 * part

    np.testing.assert_array_equal(project(z, predict), (2 * z).astype(np.float32))
    assert sizes == [7, 7, 6]


def test_free_energy_of_a_planted_mixture() -> None:
    """Wells of 80 and 20 % and of equal width differ by ln 4; the barrier is where the mixture says."""
    rng = np.random.default_rng(3)
    n = 200_000
    well = rng.random(n) < 0.2
    points = rng.normal(size=(n, 2)) * [0.5, 0.5] + np.where(well[:, None], [2, 0], [0, 0])
    found = free_energy(points)

    def at(x, y):
        return found.energy[np.searchsorted(found.edges[0], x) - 1, np.searchsorted(found.edges[1], y) - 1]

    assert np.nanmin(found.energy) == 0
    assert at(2, 0) - at(0, 0) == pytest.approx(np.log(4), abs=0.1)
    density = 0.8 * np.exp(-2 * 1.2**2) + 0.2 * np.exp(-2 * 0.8**2)
    assert at(1.2, 0) - at(0, 0) == pytest.approx(np.log(0.8 / density), abs=0.3)
    assert np.isnan(at(found.edges[0][1], found.edges[1][-2])), "nobody was seen in the corner"
    line = free_energy(points[:, :1])
    right, left = (line.energy[np.searchsorted(line.edges[0], x) - 1] for x in (2, 0))
    assert right - left == pytest.approx(np.log(4), abs=0.1)


@pytest.mark.parametrize(("call", "says"), [
    (lambda: compare(maps()[:1]), "at least 2 maps"),
    (lambda: compare(np.ones((4, 9), np.float32)), "4 alike"),
    (lambda: compare(maps(), 0), "1 component"),
    (lambda: agglomerate(compare(maps()), 0), "at least 1"),
    (lambda: agglomerate(compare(maps()), 3, "centroid"), "by centroid"),
])
def test_bad_input_is_said(call, says) -> None:
    with pytest.raises(InputError, match=says):
        call()
