"""The road of the README, on a molecule small enough for a test: simulate, train, analyze, judge."""

import json

import numpy as np
import pytest

from cryorecon.cli.main import main
from cryorecon.data.mrc import read_volume

SMALL = ["--dec-dim", "32", "--dec-layers", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(simulation, tmp_path_factory):
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("road") / "run"
    assert main(["train_vae", str(simulation / "particles.star"), "--zdim", "2", "-n", "2", "-o", str(folder), *SMALL,
                 "--points", "1"]) == 0  # all points: the loss of one pass can then be held against the next
    return folder


def test_the_run_directory_holds_what_it_promises(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "run.log", "metrics.jsonl", "consensus.mrc", "half_map_a.mrc", "half_map_b.mrc", "weights.2.pt",
            "z.2.npy"} <= names
    assert not [name for name in names if name.startswith(".") or name.endswith(".tmp")]
    assert np.load(run / "z.2.npy").shape == (300, 2)
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert epochs[1]["energy"] <= epochs[0]["energy"]
    log = (run / "run.log").read_text()
    for part in ("300 images", "consensus", "low rank", "epoch 2/2", "images/s"):
        assert part in log
    assert read_volume(run / "consensus.mrc")[1] == pytest.approx(6)


def test_z_follows_the_hinge_and_maps_the_states(run, simulation, tmp_path, capsys):
    truth = str(simulation / "truth.npz")
    assert main(["eval_conformation", str(run), "--truth", truth, "-o", str(tmp_path), "-n", "10", "-k", "10", "--device",
                 "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "FSC-AUC" in printed
    found = json.loads((tmp_path / "conformation.json").read_text())
    assert found["states"] == [0, 1, 2, 3, 4]
    assert sum(found["particles"]) == 300
    assert found["spearman_pc1"] >= 0.8
    assert found["auc_mean"] >= 0.38  # of at most (D / 2 - 1) / D = .469
    assert found["difference_correlation"] >= 0.45
    assert f"{found['auc_mean']:.4f}" in printed


def test_analyze_and_eval_fsc_take_the_run_from_there(run, tmp_path, capsys):
    assert main(["analyze", str(run), "--ksample", "3", "--pc", "1", "-o", str(tmp_path / "a"), "--device", "cpu"]) == 0
    assert (tmp_path / "a/report.html").is_file()
    first, last = tmp_path / "a/pc1/vol_001.mrc", tmp_path / "a/pc1/vol_010.mrc"
    capsys.readouterr()
    assert main(["eval_fsc", str(first), str(last), "-o", str(tmp_path / "f")]) == 0
    assert "area under the curve" in capsys.readouterr().out
    assert not np.allclose(read_volume(first)[0], read_volume(last)[0])
    assert main(["eval_vol", str(run), "--zfile", str(tmp_path / "a/kmeans3/centers.txt"), "-o", str(tmp_path / "v"),
                 "--device", "cpu"]) == 0
    again, apix = read_volume(tmp_path / "v/vol_001.mrc")
    assert apix == pytest.approx(6)
    np.testing.assert_allclose(again, read_volume(tmp_path / "a/kmeans3/vol_001.mrc")[0], atol=1e-5)


def test_images_are_scored(run, tmp_path, capsys):
    assert main(["eval_images", str(run), "-o", str(tmp_path / "fits.csv"), "--device", "cpu"]) == 0
    table = np.genfromtxt(tmp_path / "fits.csv", delimiter=",", names=True)
    assert table.dtype.names == ("image", "particle", "energy", "kl", "z0", "z1")
    np.testing.assert_array_equal(table["image"], np.arange(300))
    np.testing.assert_allclose(np.c_[table["z0"], table["z1"]], np.load(run / "z.2.npy"), atol=1e-4)
    assert 0.3 < table["energy"].mean() < 1.2
    assert main(["eval_images", str(run), "--epoch", "0", "-o", str(tmp_path / "fits.npz"), "--device", "cpu"]) == 0
    earlier = np.load(tmp_path / "fits.npz")
    assert earlier["energy"].mean() >= table["energy"].mean()
    assert earlier["z"].shape == (300, 2)


def test_backproject_agrees_with_the_truth(simulation, tmp_path, capsys):
    from torch import from_numpy

    from cryorecon.metrics.fsc import fsc_curve

    assert main(["backproject", str(simulation / "particles.mrcs"), "--poses", str(simulation / "poses.pkl"),
                 "--ctf", str(simulation / "ctf.pkl"), "-o", str(tmp_path / "b"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "at FSC 0.143" in printed
    assert "at FSC 0.5" in printed
    density, apix = read_volume(tmp_path / "b/backproject.mrc")
    assert apix == pytest.approx(6)
    mean = np.mean([read_volume(simulation / f"maps/state_{state:02d}.mrc")[0] for state in range(5)], 0)
    assert fsc_curve(from_numpy(density), from_numpy(mean)).value[:10].min() > 0.9
    halves = [from_numpy(read_volume(tmp_path / f"b/half_map_{name}.mrc")[0]) for name in "ab"]
    table = np.genfromtxt(tmp_path / "b/fsc.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["fsc_unmasked"], fsc_curve(*halves).value, atol=1e-5)
    assert (tmp_path / "b/fsc.png").is_file()


def test_uninverted_data_give_the_negative_map(simulation, tmp_path):
    known = [str(simulation / "particles.mrcs"), "--poses", str(simulation / "poses.pkl"), "--ctf", str(simulation / "ctf.pkl"),
             "--device", "cpu"]
    assert main(["backproject", *known, "-o", str(tmp_path / "plus")]) == 0
    with pytest.warns(UserWarning, match="darker than what surrounds it"):
        assert main(["backproject", *known, "--uninvert-data", "-o", str(tmp_path / "minus")]) == 0
    plus, minus = (read_volume(tmp_path / name / "backproject.mrc")[0] for name in ("plus", "minus"))
    np.testing.assert_allclose(minus, -plus, atol=1e-4 * np.abs(plus).max())


def test_homogeneous_map(simulation, tmp_path, capsys):
    out = tmp_path / "nn"
    assert main(["train_nn", str(simulation / "particles.star"), "-n", "1", "-o", str(out), "--dim", "24", "--layers", "2",
                 "--device", "cpu"]) == 0
    assert str(out / "reconstruct.1.mrc") in capsys.readouterr().out
    ours, apix = read_volume(out / "reconstruct.1.mrc")
    base, _ = read_volume(out / "consensus.mrc")
    assert apix == pytest.approx(6)
    assert np.corrcoef(ours.ravel(), base.ravel())[0, 1] > 0.9
    assert not list(out.glob("z.*"))
    assert main(["eval_vol", str(out), "-o", str(tmp_path / "v"), "--downsample", "16", "--device", "cpu"]) == 0
    small, apix = read_volume(tmp_path / "v/vol_001.mrc")
    assert (small.shape, apix) == ((16, 16, 16), pytest.approx(12))
