"""``--halves``: two runs on halves that never meet, resumable, and the gold standard of what they find."""

import json
import shutil

import numpy as np
import pytest
import torch

from cryorecon.analysis import gold_standard
from cryorecon.cli.main import main
from cryorecon.data.cryodrgn_files import read_indices
from cryorecon.data.load import load_particles
from cryorecon.data.mrc import read_volume
from cryorecon.metrics.fsc import fsc_curve
from cryorecon.training import halves
from cryorecon.training.config import RunConfig
from cryorecon.training.run_directory import RunDirectory

SMALL = ["--dec-dim", "16", "--dec-layers", "1", "-b", "16", "--device", "cpu"]


def call(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def particles(simulated):
    """300 images of 24 px; its star has half sets."""
    return simulated(3, 300, 24, 1) / "particles.star"


@pytest.fixture(scope="module")
def trained(particles, tmp_path_factory):
    """Halves of train_nn."""
    out = tmp_path_factory.mktemp("halves") / "out"
    assert call("train_nn", particles, "-n", 1, *SMALL, "--halves", "-o", out) == 0
    return out


def test_the_files_half_sets_are_kept(trained, particles):
    half = load_particles(particles).half
    for number in (1, 2):
        assert np.array_equal(read_indices(trained / f"half_{number}.npy"), np.flatnonzero(half == number))
    ours, theirs = (RunDirectory(trained / f"half_{number}").config() for number in (1, 2))
    assert ours.ind == str(trained / "half_1.npy")
    assert ours.seed != theirs.seed  # networks that begin alike agree on what no image says


def test_without_half_sets_they_are_drawn_by_the_seed(particles):
    stack = str(particles.with_suffix(".mrcs"))
    first, second = halves.split(RunConfig(stack, conformation="fixed"))
    assert len(first) == len(second) == 150
    assert np.array_equal(np.sort(np.r_[first, second]), np.arange(300))
    assert not np.array_equal(first, halves.split(RunConfig(stack, conformation="fixed", seed=1))[0])


def test_only_chosen_particles_are_split(particles, tmp_path):
    np.save(tmp_path / "ind.npy", np.arange(10, 50))
    first, second = halves.split(RunConfig(str(particles), conformation="fixed", ind=str(tmp_path / "ind.npy")))
    assert np.array_equal(np.sort(np.r_[first, second]), np.arange(10, 50))


def test_a_tilt_series_stays_whole(shared_data):
    folder = shared_data / "real_particles/ribosome70S_tilt_tomodrgn"
    name = "warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
    config = RunConfig(str(folder / f"{name}.star"), conformation="fixed", tomograms=str(folder / f"{name}_tomograms.star"))
    first, second = halves.split(config)
    assert np.array_equal(np.sort(np.r_[first, second]), np.arange(40))
    assert len(first) == 20
    stack = load_particles(config.particles, tomograms=config.tomograms, ind=first)
    assert stack.n_particles == 20


def test_the_gold_standard_is_of_maps_that_never_met(trained):
    held = json.loads((trained / "gold_standard/gold_standard.json").read_text())
    assert set(held["maps"]) == {"map", "backprojection"}
    assert "alignment" not in held
    table = np.genfromtxt(trained / "gold_standard/fsc.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    maps = [torch.from_numpy(read_volume(trained / f"half_{number}/reconstruct.1.mrc")[0]) for number in (1, 2)]
    mask = torch.from_numpy(read_volume(trained / "gold_standard/mask.mrc")[0])
    ours = table[table["map"] == "map"]
    np.testing.assert_allclose(ours["unmasked"], fsc_curve(*maps).value, atol=1e-4)
    np.testing.assert_allclose(ours["masked"], fsc_curve(*maps, mask).value, atol=1e-4)
    assert held["maps"]["map"]["resolution"]["0.143"]["corrected"]["angstrom"] < 60
    for name in ("fsc_map.png", "fsc_backprojection.png"):
        assert (trained / "gold_standard" / name).is_file()


def test_a_half_is_a_run_like_any_other(trained, tmp_path, capsys):
    assert call("eval_vol", trained / "half_1", "-o", tmp_path / "maps") == 0
    assert call("rerun", trained / "half_2", "-o", tmp_path / "again") == 0
    assert "same bits" in capsys.readouterr().out


@pytest.mark.parametrize("cut", [1, 2])
def test_stopped_in_either_half_it_goes_on_to_the_same_bits(cut, particles, trained, tmp_path, monkeypatch, capsys):
    from cryorecon.training import train

    whole, passes = train.fit, []

    def fit(*arguments):
        passes.append(arguments)
        for record in whole(*arguments):
            if len(passes) == cut and record.particles >= 32:
                raise KeyboardInterrupt
            yield record

    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", fit)
        assert call("train_nn", particles, "-n", 1, *SMALL, "--halves", "-o", tmp_path / "out") == 130
    assert f"stopped in half {cut}; continue with" in capsys.readouterr().err
    assert not (tmp_path / "out/gold_standard").exists()
    assert call("train_nn", particles, "--halves", "-o", tmp_path / "out", "--resume") == 0
    for number in (1, 2):
        ours, theirs = (RunDirectory(out / f"half_{number}").load()["model"] for out in (tmp_path / "out", trained))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (tmp_path / "out/gold_standard/gold_standard.json").is_file()


def test_conformations_are_compared_state_by_state(particles, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gold_standard, "MAPS", 10)
    out = tmp_path / "out"
    assert call("train_vae", particles, "--zdim", 1, "-n", 1, "--atoms", 10, *SMALL, "--halves", "-o", out) == 0
    held = json.loads((out / "gold_standard/gold_standard.json").read_text())
    assert set(held["maps"]) == {*(f"state {i}" for i in range(1, 6)), "backprojection"}
    assert json.loads((out / "gold_standard/halves.json").read_text())["ratio"] < 1
    assert "landscapes: ratio" in capsys.readouterr().out


def test_halves_that_searched_are_laid_on_each_other(particles, tmp_path, capsys):
    out, start = tmp_path / "out", particles.parent / "maps/state_01.mrc"
    np.save(tmp_path / "ind.npy", np.arange(160))
    assert call("train_nn", particles, "-n", 0, "--search-poses", "--searches", 1, "--polishes", 1, "--base-healpy", 1,
                "--init", start, "--ind", tmp_path / "ind.npy", "--device", "cpu", "--halves", "-o", out) == 0
    held = json.loads((out / "gold_standard/gold_standard.json").read_text())
    assert held["alignment"]["hand"] == 1  # both began from one map
    assert "half 2 laid on half 1" in capsys.readouterr().out


def test_halves_that_meet_or_were_swapped_are_refused(particles, trained, tmp_path, error_of):
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    shutil.copy(out / "half_1.npy", out / "half_2.npy")
    assert "expected halves that never meet" in error_of("train_nn", particles, "--halves", "--resume", "-o", out)
    shutil.copy(trained / "half_2.npy", out / "half_2.npy")
    shutil.rmtree(out / "half_2")
    shutil.copytree(out / "half_1", out / "half_2")
    before = (out / "half_2/config.yaml").read_bytes()
    assert "expected the run that goes on, with seed" in error_of("train_nn", particles, "--halves", "--resume", "-o", out)
    assert (out / "half_2/config.yaml").read_bytes() == before


def test_no_halves(particles, trained, tmp_path, error_of):
    assert "found a run in it" in error_of("train_nn", particles, "--halves", "-o", trained)
    assert "found none; begin them" in error_of("train_nn", particles, "--halves", "--resume", "-o", tmp_path / "out")
    assert "expected halves of train_vae" in error_of("train_vae", particles, "--halves", "--resume", "-o", trained)
    assert "--dec-dim" in error_of("train_nn", particles, "--halves", "--resume", "--dec-dim", 8, "-o", trained)
    np.save(tmp_path / "one.npy", np.array([3]))
    assert "at least two" in error_of("train_nn", particles.with_suffix(".mrcs"), "--poses", particles.parent / "poses.pkl",
                                      "--ind", tmp_path / "one.npy", "--halves", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_before_anything_leaves_nothing(particles, tmp_path, error_of):
    assert "zdim" in error_of("train_vae", particles, "--zdim", 200, "--halves", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
