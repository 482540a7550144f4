"""The landscape of a run whose maps are known: a ball that moves, in three places."""

import json

import numpy as np
import pytest
import torch

from cryorecon.analysis.landscape import Settings, explore_landscape, sketch_particles, write_landscape_summary
from cryorecon.data.mrc import read_volume
from cryorecon.data.safe_pickle import load_pickles
from cryorecon.errors import InputError

BOX, APIX = 24, 4.0
PLACES, SIZES = np.array([-1.0, 0.2, 1.0]), np.array([60, 100, 40])


def ball(x: float) -> torch.Tensor:
    """A still ball, and another that stands at ``6 x`` px."""
    axis = torch.arange(BOX) - BOX / 2
    z, y, x_ = torch.meshgrid(axis, axis, axis, indexing="ij")
    still = torch.exp(-((x_ / 3) ** 2 + ((y + 5) / 3) ** 2 + (z / 3) ** 2))
    return still + torch.exp(-(((x_ - 6 * x) / 2.5) ** 2 + ((y - 4) / 2.5) ** 2 + (z / 2.5) ** 2))


def decode(point: np.ndarray) -> torch.Tensor:
    return ball(float(point[0])).float()


def latents() -> tuple[np.ndarray, np.ndarray]:
    """Latents ``(200, 2)``, the second of no effect, and which place each particle is at."""
    rng = np.random.default_rng(0)
    owner = rng.permutation(np.repeat([0, 1, 2], SIZES))
    return np.stack([PLACES[owner] + 0.03 * rng.normal(size=200), rng.normal(size=200)], 1).astype(np.float32), owner


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    z, _ = latents()
    settings = Settings(n_maps=40, n_states=3, n_walks=2, linkage="average")
    return explore_landscape(z, tmp_path_factory.mktemp("landscape"), decode, APIX, settings, np.arange(200) * 2)


def test_planted_states_are_found_with_their_particles(found) -> None:
    _, owner = latents()
    number = np.array([found.states[owner == place][0] for place in range(3)])
    assert sorted(number) == [0, 1, 2]
    assert found.states.tolist() == number[owner].tolist()
    assert found.counts[number].tolist() == SIZES.tolist()
    folder = found.folder / "clustering_L2_average_3"
    for place in range(3):
        held = load_pickles(folder / f"state_{number[place] + 1}_particle_ind.pkl")[0]
        assert held.tolist() == (2 * np.flatnonzero(owner == place)).tolist(), "positions in the run's own file"
        mean, apix = read_volume(folder / f"state_{number[place] + 1}_mean.mrc")
        truth = ball(PLACES[place]).numpy()
        assert np.corrcoef(mean.ravel(), truth.ravel())[0, 1] > 0.995
        assert apix == pytest.approx(APIX)
    np.testing.assert_array_equal(np.load(folder / "particle_states.npy"), found.states)


def test_means_count_maps_by_their_particles(found) -> None:
    folder, k = found.folder, len(found.sketch)
    maps = np.stack([read_volume(folder / f"kmeans{k}/vol_{i + 1:03d}.mrc")[0] for i in range(k)]).astype(np.float64)
    share = np.bincount(found.nearest, minlength=k)
    for state in range(3):
        weight = np.where(found.state_of_map == state, share, 0)[:, None, None, None] / share[found.state_of_map == state].sum()
        mean = (weight * maps).sum(0)
        std = np.sqrt((weight * (maps - mean) ** 2).sum(0))
        for name, expected in (("mean", mean), ("std", std)):
            held = read_volume(folder / f"clustering_L2_average_3/state_{state + 1}_{name}.mrc")[0]
            np.testing.assert_allclose(held, expected, atol=1e-5)
    np.testing.assert_allclose(read_volume(folder / "vol_pcs/vol_mean.mrc")[0], maps.mean(0), atol=1e-5)
    inside = found.mask > 0
    weighted = maps[:, inside] * found.mask[inside]
    np.testing.assert_allclose(np.load(folder / "distances.npy"), np.linalg.norm(weighted[:, None] - weighted[None], axis=2),
                               atol=1e-3)


def test_the_mask_holds_the_moving_part_wherever_it_goes(found) -> None:
    row = found.mask[BOX // 2, BOX // 2 + 4]
    assert (row[BOX // 2 + (6 * PLACES).astype(int)] == 1).all()
    assert found.mask[0].max() == 0
    assert 0.02 < (found.mask > 0.5).mean() < 0.4


def test_walks_run_over_the_particles_and_files_are_named(found) -> None:
    k = len(found.sketch)
    for name in (f"kmeans{k}/vol_001.mrc", f"kmeans{k}/z_values.txt", "mask.mrc", f"vol_pca_{k}.npy", "particle_pca.npy",
                 "vol_pcs/eigenvolume_2.mrc", "vol_pcs/pc2/vol_010.mrc", "clustering_L2_average_3/state_labels.npy"):
        assert (found.folder / name).is_file(), name
    assert [len(paths) for paths in found.walk_maps] == [10, 10]
    inside = found.mask > 0
    change = np.diff([read_volume(found.walk_maps[0][i])[0][inside] for i in (0, 9)], axis=0)[0]
    span = np.ptp(np.percentile(found.coordinates[:, 0], [5, 95]))
    np.testing.assert_allclose(change, span * found.space.components[0], atol=1e-4)
    np.testing.assert_array_equal(np.loadtxt(found.folder / f"kmeans{k}/centers_ind.txt", dtype=int), found.sketch)
    np.testing.assert_array_equal(found.nearest[found.sketch], np.arange(k), "a map's own particle is nearest to it")
    assert 0.9 < found.score < 1
    summary = write_landscape_summary(found, {"epoch": 3})
    assert json.loads((found.folder / "summary.json").read_text()) == summary
    assert [state["particles"] for state in summary["states"]] == found.counts.tolist()
    assert summary["mask_voxels"] == int(inside.sum())


def test_a_given_mask_decides_what_counts_and_stale_states_go(tmp_path) -> None:
    z, _ = latents()
    still = torch.zeros(BOX, BOX, BOX)
    still[:, : BOX // 2 - 4] = 1
    with pytest.raises(InputError, match="alike"):
        explore_landscape(z, tmp_path, lambda point: decode(point) * (still == 0) + still, APIX, Settings(10, still))
    stale = tmp_path / "clustering_L2_ward_2/state_7_mean.mrc"
    stale.parent.mkdir()
    stale.touch()
    found = explore_landscape(z, tmp_path, decode, APIX, Settings(10, n_states=2, linkage="ward", n_components=1))
    assert not stale.exists()
    assert len(found.counts) == 2
    assert found.coordinates.shape == (200, 1)
    assert load_pickles(stale.parent / "state_1_particle_ind.pkl")[0].tolist() == np.flatnonzero(found.states == 0).tolist()


@pytest.mark.parametrize(("z", "settings", "says"), [
    (latents()[0], Settings(1), "at least 2 maps"),
    (np.ones((9, 2)), Settings(5), "at one place"),
    (latents()[0], Settings(4, torch.ones(8, 8, 8)), "one of 24 px"),
    (latents()[0], Settings(4, torch.zeros(BOX, BOX, BOX)), "with 0"),
    (latents()[0], Settings(4, linkage="centroid"), "by centroid"),
    (latents()[0], Settings(4, n_components=0), "1 component"),
])
def test_bad_input_is_said(z, settings, says, tmp_path) -> None:
    with pytest.raises(InputError, match=says):
        explore_landscape(z, tmp_path, decode, APIX, settings)


def test_the_sketch_spreads_over_the_particles_and_repeats() -> None:
    z = np.random.default_rng(0).uniform(size=(20_000, 2)).astype(np.float32)
    index = sketch_particles(z, 25)
    np.testing.assert_array_equal(index, sketch_particles(z, 25))
    cells = {tuple(cell) for cell in (z[index] * 3).astype(int)}
    assert len(cells) == 9, "every ninth of the plane has its map"


def test_the_sketch_has_no_place_twice() -> None:
    z = np.repeat(np.arange(6.0)[:, None], 30, 0)
    assert sorted(z[sketch_particles(z, 50), 0].tolist()) == [0, 1, 2, 3, 4, 5]
