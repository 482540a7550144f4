"""Paths through latents: lengths, neighbours, and the least integral of 1/density."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from cryorecon.analysis.paths import SUBSAMPLE, density_path, direct_path, even_points, graph_path, knn_log_density
from cryorecon.errors import InputError


def horseshoe(n: int = 3000, background: int = 0) -> np.ndarray:
    """Two wells at the ends of a 300-degree arc of radius 1 that joins them; particles 0 and 1 lie in the wells."""
    rng = np.random.default_rng(0)
    ends = np.array([[np.cos(a), np.sin(a)] for a in np.deg2rad([60, -60])])
    angle = np.deg2rad(rng.uniform(60, 300, n))
    arc = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * rng.normal(size=(n, 2))
    wells = np.repeat(ends, n // 4, 0) + 0.08 * rng.normal(size=(2 * (n // 4), 2))
    return np.concatenate([ends, arc, wells, rng.uniform(-1.3, 1.3, (background, 2))])


def steps(path: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(path, axis=0), axis=1)


def test_the_direct_path_is_even_by_length() -> None:
    anchors = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    np.testing.assert_allclose(direct_path(anchors, 5), [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]], atol=1e-12)
    np.testing.assert_allclose(direct_path(anchors, 2), anchors[[0, 2]])
    np.testing.assert_allclose(even_points(np.zeros((3, 2)), 4), np.zeros((4, 2)))
    for bad, n in ((anchors[:1], 5), (anchors[0], 5), (anchors, 1)):
        with pytest.raises(InputError, match="at least 2"):
            direct_path(bad, n)


def test_the_density_path_follows_the_bridge_and_the_direct_one_crosses_the_void() -> None:
    z = horseshoe()
    straight, dense = direct_path(z[:2], 15), density_path(z, [0, 1], n=15)
    assert np.linalg.norm(straight, axis=1).min() < 0.55
    assert abs(np.linalg.norm(dense, axis=1) - 1).max() < 0.1
    assert dense[:, 0].min() < -0.9, "it went round"
    np.testing.assert_allclose(dense[[0, -1]], z[:2])
    assert np.ptp(steps(dense)) < 0.1 * steps(dense).mean()


def test_density_decides_where_length_would_take_the_short_cut() -> None:
    z = horseshoe(background=400)
    short = z[graph_path(z, [0, 1], avg_neighbours=None)]
    assert np.linalg.norm(short, axis=1).min() < 0.6, "a few particles in the void lie on the shortest way"
    for density in (None, knn_log_density(z), lambda points: knn_log_density(z, points, 21)):
        dense = density_path(z, [0, 1], density, n=15)
        assert abs(np.linalg.norm(dense, axis=1) - 1).max() < 0.12


def test_the_path_minimises_the_integral_of_one_over_density() -> None:
    """Two media of densities 1 and 4: the best path is refracted as light at speeds 1 and 4 (Snell)."""
    z = np.random.default_rng(1).uniform(-1, 1, (20_000, 2))
    z[:2] = [-0.9, 0.6], [0.9, -0.6]

    def log_density(points):
        return np.where(points[:, 1] > 0, 0.0, np.log(4.0))

    def travel(x):
        return np.hypot(x + 0.9, 0.6) + np.hypot(0.9 - x, 0.6) / 4

    best = minimize_scalar(travel, bounds=(-0.9, 0.9), method="bounded")
    path = density_path(z, [0, 1], log_density, n=200)
    middle = 0.5 * (path[1:] + path[:-1])
    spent = float((steps(path) / np.exp(log_density(middle))).sum())
    assert best.fun <= spent < 1.06 * best.fun
    assert travel(0.0) > 1.2 * best.fun, "the straight line is much worse"
    crossing = path[np.abs(path[:, 1]).argmin(), 0]
    assert abs(crossing - best.x) < 0.15


def test_paths_go_through_every_anchor() -> None:
    z = horseshoe()
    middle = int(np.linalg.norm(z - [-1, 0], axis=1).argmin())
    index = graph_path(z, [0, middle, 1], avg_neighbours=9)
    assert (index[0], index[-1]) == (0, 1)
    assert (index == middle).sum() == 1
    assert steps(z[index]).max() < 0.15
    dense = density_path(z, [1, middle, 0], n=101)
    assert np.linalg.norm(dense - z[middle], axis=1).min() < 0.05
    np.testing.assert_allclose(dense[[0, -1]], z[[1, 0]])


def test_the_graph_is_cryodrgns() -> None:
    """On a line each step goes to a neighbour; cutting long edges leaves no way over a gap."""
    z = np.r_[0:10, 12:19].astype(float)[:, None]
    assert graph_path(z, [0, 9], avg_neighbours=1.5).tolist() == list(range(10))
    assert graph_path(z, [9, 0], avg_neighbours=1.5).tolist() == list(range(10))[::-1]
    whole = graph_path(z, [0, 16], max_neighbours=4, avg_neighbours=None)
    assert np.ptp(z[whole, 0]) == 18
    cut = graph_path(z, [0, 16], max_neighbours=4, avg_neighbours=1.5)
    assert (z[cut[0], 0], z[cut[-1], 0]) == (0, 18)
    with pytest.raises(InputError, match=r"particles 0 and 16 .* no chain \(10 particles"):
        graph_path(z, [0, 16], max_neighbours=2, avg_neighbours=1.5)


def test_wells_without_a_bridge_have_no_density_path() -> None:
    z = np.random.default_rng(0).normal(size=(200, 2)) + np.repeat([[0, 0], [50, 0]], 100, 0)
    with pytest.raises(InputError, match="hardly any lie between"):
        density_path(z, [0, 199])


def test_a_subsample_keeps_the_anchors_and_repeats() -> None:
    z = horseshoe(20_000)
    first, again, other = (density_path(z, [0, 1], n=12, subsample=2000, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_allclose(first[[0, -1]], z[:2])
    assert abs(np.linalg.norm(first, axis=1) - 1).max() < 0.12
    index = graph_path(z, [0, 1], avg_neighbours=9, subsample=2000)
    assert (index[0], index[-1]) == (0, 1)
    assert SUBSAMPLE == 100_000


def test_coincident_particles_do_no_harm() -> None:
    z = np.repeat(np.arange(12.0), 30)[:, None]
    index = graph_path(z, [0, 359], max_neighbours=40, avg_neighbours=None)
    assert (np.diff(z[index, 0]) <= 1).all()
    assert np.isfinite(density_path(z, [0, 359], max_neighbours=40)).all()
    np.testing.assert_allclose(density_path(z, [5, 5]), np.repeat(z[5:6], 10, 0))


def test_the_neighbours_density_is_a_density() -> None:
    z = np.random.default_rng(0).normal(size=(50_000, 2))
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -2.0]])
    truth = -np.log(2 * np.pi) - 0.5 * (points**2).sum(1)
    np.testing.assert_allclose(knn_log_density(z, points, k=400), truth, atol=0.15)
    own = knn_log_density(z, k=100)
    assert abs((own + np.log(2 * np.pi) + 0.5 * (z**2).sum(1))[np.linalg.norm(z, axis=1) < 1].mean()) < 0.03


def test_dimensions_that_a_run_leaves_unused_do_not_count() -> None:
    z = np.random.default_rng(0).normal(size=(2000, 2))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    padded = np.concatenate([z, np.zeros((2000, 3))], 1) @ turn + 7
    np.testing.assert_allclose(knn_log_density(padded), knn_log_density(z), atol=1e-5)
    np.testing.assert_allclose(knn_log_density(padded, padded[:9], 5), knn_log_density(z, z[:9], 5), atol=1e-5)


@pytest.mark.parametrize(("call", "says"), [
    (lambda z: graph_path(z, [0, 50]), "from 0 to 39, found 50"),
    (lambda z: graph_path(z, [-1, 5]), "found -1"),
    (lambda z: graph_path(z, [3]), "at least 2 particles"),
    (lambda z: graph_path(z, [0, 5], max_neighbours=0), "at least 1"),
    (lambda z: graph_path(z, [0, 5], avg_neighbours=0), "above 0"),
    (lambda z: density_path(z, [0, 5], np.zeros(39)), "each of 40 particles"),
    (lambda z: density_path(z, [0, 5], np.full(40, np.nan)), "found 40 that are not"),
    (lambda z: density_path(z * np.nan, [0, 5]), "finite latents"),
    (lambda z: knn_log_density(z[:1]), "at least 2 particles"),
])
def test_bad_input_is_said(call, says) -> None:
    with pytest.raises(InputError, match=says):
        call(np.random.default_rng(0).normal(size=(40, 2)))
