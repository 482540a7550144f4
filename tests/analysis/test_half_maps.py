"""Half maps of clusters: real ones differ from the rest in both halves, random ones in none."""

import csv

import numpy as np
import pytest

import cryorecon
from cryorecon.analysis.half_maps import agreement
from cryorecon.analysis.vouch import vouch
from cryorecon.data.mrc import read_volume, write_volume
from cryorecon.training.evaluate import reopened


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def run(tmp_path_factory, request):
    """Two states of a hinge, 600 images of 32 px, and their truth."""
    stack, truth = cryorecon.simulate_stack(cryorecon.flexible("hinge", 2), n=600, box=32, apix=6.0, snr=0.5, max_shift=1)
    made = cryorecon.train(stack, tmp_path_factory.mktemp("half") / "run", zdim=1, epochs=0, atoms=0,
                           device=request.param)
    problem, state = reopened(made.directory, 0, request.param, stack)
    return made, problem, state, truth.state.numpy()


def test_true_clusters_differ_and_random_ones_do_not(run, tmp_path):
    made, problem, state, truth = run
    means = [made.z[truth == i].mean(0) for i in range(2)]
    decoded = [tmp_path / f"vol_{i}.mrc" for i in range(2)]
    for path, z in zip(decoded, means, strict=True):
        write_volume(path, made.density(z[None])[0].numpy(), made.apix)
    chance = np.random.default_rng(0).integers(0, 2, 600)
    found = vouch(problem, state, made.z, {"true": (truth, decoded), "chance": (chance, decoded)}, tmp_path)
    for one in found.maps["true"].values():
        assert one.resolved(one.difference, made.apix) < 40
        assert one.share() > 0.6
    assert sum(one.images for one in found.maps["true"].values()) == 600
    for one in found.maps["chance"].values():
        assert abs(np.mean(one.difference[1:8])) < 0.35
        assert np.mean(one.difference[1:8]) < np.mean(found.maps["true"][0].difference[1:8]) - 0.3
    rows = list(csv.DictReader((tmp_path / "true" / "half_maps.csv").read_text().splitlines()))
    assert [row["cluster"] for row in rows] == ["1", "2"]
    half, apix = read_volume(tmp_path / "true" / "half_maps" / "cluster_001_a.mrc")
    assert half.shape == (32, 32, 32)
    assert apix == pytest.approx(6.0)
    assert (tmp_path / "leakage.csv").is_file()


def test_clusters_of_too_few_are_left_out(run, tmp_path):
    made, problem, state, _ = run
    labels = np.zeros(600, int)
    labels[:5] = 1
    found = vouch(problem, state, made.z, {"few": (labels, [])}, tmp_path)
    assert list(found.maps["few"]) == [0]
    assert np.isnan(found.maps["few"][0].decoder).all()


@pytest.mark.parametrize(("curve", "shells"), [
    ([1, 0.9, 0.5, 0.1, 0.9], slice(1, 3)), ([1, -0.5, 0.1, 0.6, 0.5, 0.1], slice(3, 5)), ([1, 0.9, 0.9], slice(1, 3)),
    ([1, 0, 0, 0, 0, 0.9], slice(0, 0)), ([1, np.nan, 0.5, 0.1], slice(2, 3))])
def test_shells_that_agree_are_the_first_run(curve, shells):
    assert agreement(np.array(curve, float)) == shells
