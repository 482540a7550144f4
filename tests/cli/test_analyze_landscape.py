"""``cryorecon analyze_landscape`` on a run directory whose model is a stand-in."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.data.mrc import read_volume, write_volume
from cryorecon.data.safe_pickle import dump_pickles, load_pickles
from cryorecon.errors import InputError
from cryorecon.training import trained


class Model:
    """Decodes z to a ball that moves along x with the first coordinate and swells with the second."""

    apix = 4.0
    grid = SimpleNamespace(box=20)

    def __init__(self, zdim: int, ind: str | None):
        self.epoch = 4
        self.config = SimpleNamespace(ind=ind)
        self.z = np.random.default_rng(0).normal(size=(90, zdim)).astype(np.float32)

    def density(self, z: np.ndarray) -> torch.Tensor:
        axis = torch.arange(20) - 10.0
        maps = []
        for point in np.asarray(z, float):
            radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + (axis - point[0]) ** 2).sqrt()
            maps.append(torch.sigmoid(3 * (4 + 0.3 * point[-1] - radius)))
        return torch.stack(maps)


@pytest.fixture
def run(tmp_path, monkeypatch):
    dump_pickles(tmp_path / "ind.pkl", np.arange(10, 100))

    def load_run(path, epoch=None, device="auto"):
        if path.name != "run":
            raise InputError(f"{path}: no run")
        return Model({1: 0, 2: 1}.get(epoch, 2), str(tmp_path / "ind.pkl"))

    monkeypatch.setattr(trained, "load_run", load_run)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_everything_is_written_and_shown(run, capsys) -> None:
    assert main(["analyze_landscape", str(run), "-N", "12", "-M", "3", "-d", "16", "--plot-dim", "1"]) == 0
    folder = run / "landscape.4"
    states = folder / "clustering_L2_average_3"
    for name in ("landscape.png", "states.png", "distances.png", "variance.png", "state_maps.png", "vol_pcs/pc1/volumes.png",
                 "index.html", "vol_pcs/pc1/chimerax.cxc"):
        assert (folder / name).stat().st_size > 0, name
    assert not (folder / "vol_pcs/pc2").exists()
    density, apix = read_volume(folder / "kmeans12/vol_001.mrc")
    assert (density.shape, apix) == ((16, 16, 16), pytest.approx(5.0))
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["maps"], summary["particles"], summary["box"], summary["epoch"]) == (12, 90, 16, 4)
    assert all(list(folder.glob(name.replace("state_N", "state_1"))) for name in summary["files"]), "what it names is there"
    held = np.sort(np.concatenate([load_pickles(path)[0] for path in states.glob("*_ind.pkl")]))
    assert held.tolist() == list(range(10, 100)), "positions in the file that the run was given"
    script = (states / "chimerax.cxc").read_text()
    assert 'open "state_1_mean.mrc"' in script
    assert "mseries slider #1-3" in script
    page = (folder / "index.html").read_text()
    assert page.count("<img") == 6
    assert "http" not in page.replace("http-equiv", "")
    assert str(folder / "index.html") in capsys.readouterr().out


def test_one_latent_and_one_component(run) -> None:
    assert main(["analyze_landscape", str(run), "2", "-N", "8", "-M", "2", "--linkage", "ward", "--pc-dim", "1",
                 "--plot-dim", "0", "-o", str(run / "here")]) == 0
    assert (run / "here/clustering_L2_ward_2/state_2_mean.mrc").is_file()
    assert (run / "here/landscape.png").is_file()


def test_a_mask_of_the_runs_box_is_resampled(run) -> None:
    mask = np.zeros((20, 20, 20), np.float32)
    mask[5:15, 5:15, 5:15] = 1
    write_volume(run / "mask.mrc", mask, 4.0)
    assert main(["analyze_landscape", str(run), "-N", "6", "-M", "2", "-d", "10", "--mask", str(run / "mask.mrc"),
                 "--plot-dim", "0"]) == 0
    used = read_volume(run / "landscape.4/mask.mrc")[0]
    assert used.shape == (10, 10, 10)
    assert used[5, 5, 5] == 1
    assert (used > 0).sum() == 5**3, "pixels 5 to 14 of 20: every second one"


@pytest.mark.parametrize(("arguments", "says"), [
    (["1"], "found one structure"), (["-d", "15"], "even box of at most 20"), (["-d", "22"], "found 22"),
    (["-N", "1"], "at least 2 maps"), (["-M", "0", "-N", "4"], "at least 1"), (["--mask", "{}/odd.mrc"], "found 6"),
    (["--thresh", "99", "-N", "4"], "another --thresh"),
])
def test_bad_input_is_one_line(run, capsys, arguments, says) -> None:
    write_volume(run / "odd.mrc", np.ones((6, 6, 6), np.float32), 4.0)
    assert main(["analyze_landscape", str(run), *(word.format(run) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
