"""``cryorecon analyze`` on a run directory whose model is a stand-in."""

import json

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.data.mrc import read_volume
from cryorecon.errors import InputError
from cryorecon.training import trained
from cryorecon.training.config import RunConfig
from cryorecon.training.run_directory import RunDirectory


class Model:
    """Decodes z to a ball whose radius follows the first coordinate."""

    apix = 4.0
    config = RunConfig("/absent/particles.star", zdim=2)

    def __init__(self, path, epoch: int, zdim: int = 2):
        self.directory, self.epoch = RunDirectory(path), epoch
        self.z = np.random.default_rng(epoch).normal(size=(80, zdim)).astype(np.float32)

    def density(self, z: np.ndarray) -> torch.Tensor:
        axis = torch.arange(16) - 8.0
        radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
        return torch.stack([torch.sigmoid(3 * (4 + 0.4 * float(point[0]) - radius)) for point in z])


@pytest.fixture
def run(tmp_path, monkeypatch):
    def load_run(path, epoch=None, device="auto"):
        if path != tmp_path:
            raise InputError(f"{path}: no run")
        return Model(path, 10 if epoch is None else epoch, zdim=0 if epoch == 1 else 2)

    monkeypatch.setattr(trained, "load_run", load_run)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "loss": 1.0}\n')
    return tmp_path


def test_the_last_epoch_is_analysed(run, capsys) -> None:
    with pytest.warns(UserWarning, match="no half maps, leakage and particle images: "):
        assert main(["analyze", str(run), "--ksample", "3", "--pc", "1"]) == 0
    folder = run / "analyze.10"
    assert str(folder / "report.html") in capsys.readouterr().out
    states = json.loads((folder / "summary.json").read_text())["states"]
    for name in (f"gmm{states}/occupancies.csv", f"gmm{states}/vol_001.mrc", "density/pc1.csv", "path_direct/vol_010.mrc",
                 "path_density/free_energy.csv", "kmeans3/chimerax.cxc", "kmeans3/labels.npy", "kmeans3/vol_003.mrc",
                 "pc1/vol_010.mrc", "z_pca.png", "z_pca_hexbin.png", "learning_curve.png", "volumes.png", "report.html",
                 "summary.json"):
        assert (folder / name).is_file(), name
    assert not (folder / "pc2").exists()
    assert read_volume(folder / "pc1/vol_001.mrc")[1] == pytest.approx(4.0)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["epoch"], summary["particles"], len(summary["cluster_sizes"])) == (10, 80, 3)


def test_a_given_epoch_without_maps(run) -> None:
    with pytest.warns(UserWarning, match="no half maps"):
        assert main(["analyze", str(run), "2", "--skip-vol", "-o", str(run / "here"), "--Apix", "2"]) == 0
    assert (run / "here/report.html").is_file()
    assert not list((run / "here").rglob("*.mrc"))
    assert not list((run / "here").rglob("*.cxc"))
    assert (run / "here/path_direct/z_values.txt").is_file()
    assert json.loads((run / "here/summary.json").read_text())["apix"] == 2


@pytest.mark.parametrize(("arguments", "says"), [(["1"], "found one structure"), (["--Apix", "-1"], "above 0"),
                                                 (["--ksample", "0"], "at least 1"),
                                                 (["--states", "0"], "at least 1 state"),
                                                 (["--anchors", "3", "80"], "from 0 to 79"),
                                                 (["--anchors", "3"], "at least 2")])
def test_bad_input_is_one_line(run, capsys, arguments, says) -> None:
    assert main(["analyze", str(run), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_not_a_run(run, tmp_path, capsys) -> None:
    assert main(["analyze", str(tmp_path / "absent")]) == 2
    assert "no run" in capsys.readouterr().err


@pytest.mark.parametrize("link", ["analyze.10", "analyze.10/pc1", "analyze.10/a/b"])
def test_no_linked_folder_in_a_strangers_run_is_written_into(run, tmp_path_factory, capsys, link):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "summary.json").write_text("precious")
    (run / link).parent.mkdir(parents=True, exist_ok=True)
    (run / link).symlink_to(elsewhere, target_is_directory=True)
    assert main(["analyze", str(run), "--skip-vol"]) == 2
    assert f"{run / link}: expected a folder of its own, found a link to {elsewhere}" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == {"summary.json": "precious"}


def test_a_linked_folder_that_the_user_names_is_his(run, tmp_path_factory):
    there = tmp_path_factory.mktemp("there")
    (run / "here").symlink_to(there, target_is_directory=True)
    with pytest.warns(UserWarning, match="no half maps"):
        assert main(["analyze", str(run), "--skip-vol", "-o", str(run / "here")]) == 0
    assert (there / "summary.json").is_file()
