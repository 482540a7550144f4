"""``cryorecon analyze`` of runs of ``train_gan``, from particles to the page."""

import json
import shutil

import numpy as np
import pytest

from cryorecon.cli.main import main
from cryorecon.data.mrc import read_volume

TINY = ["--critic-dim", "2", "-b", "8", "--device", "cpu"]
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def data(simulated):
    """48 images of 16 px."""
    return simulated(1, 48, 16, 0)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """A run of maps along alpha and one of one map, two epochs each."""
    folder = tmp_path_factory.mktemp("runs")
    known = ["train_gan", str(data / "particles.mrcs"), "--ctf", str(data / "ctf.pkl"), *TINY, "-n", "2"]
    assert main([*known, "--volume", "conv", "--dec-dim", "2", "-o", str(folder / "several")]) == 0
    assert main([*known, "-o", str(folder / "one")]) == 0
    return folder


def sections(folder):
    """Titles of the page's sections."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    return [part.split("</h2>")[0] for part in text.split("<h2>")[1:]]


def test_maps_along_alpha(runs, capsys):
    assert main(["analyze", str(runs / "several")]) == 0
    said, folder = capsys.readouterr(), runs / "several" / "analyze.2"
    assert str(folder / "report.html") in said.out
    assert "by the paper rule: first" in said.out
    assert "by the relative rule: first" in said.out
    for name in ("vol_000.mrc", "vol_020.mrc", "z_values.txt", "fsccc.npy", "fsccc.csv", "alpha.csv", "occupancies.csv",
                 "chimerax.cxc", "volumes.png", "slices.png", "fsccc.png", "projections.png", "along_alpha.png",
                 "learning_curve.png", "summary.json"):
        assert (folder / name).is_file(), name
    assert not (folder / "vol_021.mrc").exists()
    areas = np.load(folder / "fsccc.npy")
    assert areas.shape == (21, 21)
    assert areas.diagonal() == pytest.approx(np.ones(21), abs=1e-5)
    assert read_volume(folder / "vol_000.mrc")[1] == pytest.approx(9)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["epoch"], summary["zdim"], summary["maps"]) == (2, 1, 21)
    for rule in ("paper", "ends"):
        assert sum(summary["occupancies"][rule]["shares"]) == pytest.approx(1, abs=1e-4)
        assert summary["occupancies"][rule]["errors"] is None  # one checkpoint in the last third of two epochs
    assert sections(folder) == ["In short", "Maps along alpha", "Conformations", "Projections", "Has it settled?", "Training",
                                "Files", "How this was made"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "There are no errors: the last third of the epochs has one checkpoint" in page
    assert "Hand and orientation of the map are not determined, and are the same for all alpha" in page
    assert page.count("<img") == 6
    assert main(["eval_vol", str(runs / "several"), "-z", "1", "-o", str(runs / "maps")]) == 0
    np.testing.assert_allclose(read_volume(runs / "maps" / "vol_001.mrc")[0], read_volume(folder / "vol_020.mrc")[0])


def test_one_map(runs):
    assert main(["analyze", str(runs / "one"), "--Apix", "4"]) == 0
    folder = runs / "one" / "analyze.2"
    np.testing.assert_allclose(read_volume(folder / "vol_000.mrc")[0], read_volume(runs / "one" / "reconstruct.2.mrc")[0])
    assert read_volume(folder / "vol_000.mrc")[1] == pytest.approx(4)
    assert not (folder / "vol_001.mrc").exists()
    assert not (folder / "fsccc.npy").exists()
    assert (folder / "settling.csv").read_text().splitlines()[1].startswith("1,")
    assert sections(folder) == ["In short", "The map", "Projections", "Has it settled?", "Training", "Files",
                                "How this was made"]
    assert json.loads((folder / "summary.json").read_text())["occupancies"] == {}


def test_another_epoch_without_maps(runs, tmp_path):
    assert main(["analyze", str(runs / "several"), "1", "--skip-vol", "-o", str(tmp_path / "here")]) == 0
    assert not list((tmp_path / "here").glob("*.mrc"))
    assert not (tmp_path / "here" / "chimerax.cxc").exists()
    assert (tmp_path / "here" / "fsccc.npy").is_file()
    assert "Maps along alpha" not in sections(tmp_path / "here")
    assert json.loads((tmp_path / "here" / "summary.json").read_text())["epoch"] == 1


def test_options_of_particles_are_idle_and_a_choice_of_them_is_refused(runs, tmp_path, error_of):
    with pytest.warns(UserWarning, match="^each of --ksample, --umap changes nothing in this analysis: a run"):
        assert main(["analyze", str(runs / "one"), "--ksample", "3", "--umap", "--skip-vol", "-o", str(tmp_path / "out")]) == 0
    np.save(tmp_path / "ind.npy", np.arange(20))
    assert "--ind" in error_of("analyze", runs / "one", "--ind", tmp_path / "ind.npy", "-o", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_maps_that_are_all_alike_are_warned_of(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("cryorecon.analysis.generated.ALIKE", -1.0)
    with pytest.warns(UserWarning, match="all maps along alpha are alike: no conformations found"):
        assert main(["analyze", str(runs / "several"), "--skip-vol", "-o", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Warning: all maps along alpha are alike" in page
    assert "By the rule relative" not in page


def test_names_and_doubts_are_words(runs, tmp_path):
    run = tmp_path / EVIL
    shutil.copytree(runs / "several", run, ignore=shutil.ignore_patterns("analyze*"))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 2, "doubts": [EVIL]}) + "\n")
    assert main(["analyze", str(run), "--skip-vol", "-o", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert EVIL not in page
    assert "Warning: &lt;img src=x onerror=alert(1)&gt;" in page
    assert "<h1>&lt;img src=x" in page


def test_what_asks_for_particles_conformations_says_what_it_found(runs, data, tmp_path, error_of):
    judged = ["eval_conformation", runs / "several", "--truth", data / "truth.npz", "-o", tmp_path / "out"]
    for command in (judged, ["serve", runs / "several"],
                    ["select", runs / "several", "--cluster", "1", "-o", tmp_path / "chosen"],
                    ["analyze_landscape", runs / "several"]):
        said = error_of(*command)
        assert "found one of train_gan" in said, command
        assert "analyze shows its maps" in said
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_run_is_no_place_for_it(runs, error_of):
    assert "found a run" in error_of("analyze", runs / "several", "-o", runs / "one")
    assert (runs / "one" / "config.yaml").is_file()
