"""``cryorecon analyze`` on a run directory whose model is a stand-in."""

import json

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.data.mrc import read_volume
from cryorecon.training import run_directory


class Model:
    """Decodes z to a ball whose radius follows the first coordinate."""

    apix = 4.0

    def density(self, z: torch.Tensor) -> torch.Tensor:
        axis = torch.arange(16) - 8.0
        radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
        return torch.sigmoid(3 * (4 + 0.4 * z[:, 0, None, None, None] - radius))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "load_run", lambda run, epoch=None: Model(), raising=False)
    rng = np.random.default_rng(0)
    for epoch in (2, 10):
        np.save(tmp_path / f"z.{epoch}.npy", rng.normal(size=(80, 2)).astype(np.float32))
        (tmp_path / f"weights.{epoch}.pt").touch()
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "loss": 1.0}\n')
    return tmp_path


def test_the_last_epoch_is_analysed(run, capsys) -> None:
    assert main(["analyze", str(run), "--ksample", "3", "--pc", "1"]) == 0
    folder = run / "analyze.10"
    assert str(folder / "index.html") in capsys.readouterr().out
    for name in ("kmeans3/labels.npy", "kmeans3/vol_003.mrc", "pc1/vol_010.mrc", "z_pca.png", "z_pca_hexbin.png",
                 "learning_curve.png", "volumes.png", "index.html", "summary.json"):
        assert (folder / name).is_file(), name
    assert not (folder / "pc2").exists()
    assert read_volume(folder / "pc1/vol_001.mrc")[1] == pytest.approx(4.0)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["epoch"], summary["particles"], len(summary["cluster_sizes"])) == (10, 80, 3)


def test_a_given_epoch_without_maps(run) -> None:
    assert main(["analyze", str(run), "2", "--skip-vol", "-o", str(run / "here"), "--Apix", "2"]) == 0
    assert (run / "here/index.html").is_file()
    assert not list((run / "here").rglob("*.mrc"))
    assert json.loads((run / "here/summary.json").read_text())["apix"] == 2


@pytest.mark.parametrize(("arguments", "says"), [(["5"], "z.5.npy"), (["--Apix", "-1"], "above 0"),
                                                 (["--ksample", "0"], "at least 1")])
def test_bad_input_is_one_line(run, capsys, arguments, says) -> None:
    assert main(["analyze", str(run), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_not_a_run(run, tmp_path, capsys) -> None:
    assert main(["analyze", str(tmp_path / "absent")]) == 2
    assert "expected the folder of a run" in capsys.readouterr().err
