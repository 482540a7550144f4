"""What a run of train_gan made: maps along alpha, how alike they are, whether they still change."""

import csv
import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryorecon.analysis import generated
from cryorecon.analysis.generated import compared, explore_generated, read_doubts, write_generated_summary
from cryorecon.data.mrc import read_volume

BOX, APIX = 16, 5.0


def ball(x: float, box: int = BOX) -> torch.Tensor:
    """A body and a ball at x px."""
    axis = torch.arange(float(box)) - box // 2
    z, y, x0 = axis[:, None, None], axis[:, None], axis
    return (torch.exp(-(z**2 + y**2 + x0**2) / 6) + torch.exp(-((x0 - x) ** 2 + (y - 3) ** 2 + z**2) / 3)).float()


@dataclass
class Run:
    """A generator whose second ball jumps at alpha = ``at``; earlier checkpoints jump elsewhere."""

    directory: SimpleNamespace
    epoch: int = 9
    zdim: int = 1
    at: float = 0.25
    apix: float = APIX

    @property
    def config(self):
        return SimpleNamespace(zdim=self.zdim)

    @property
    def grid(self):
        return SimpleNamespace(device=torch.device("cpu"))

    def density(self, z):
        assert z.shape[1] == self.zdim
        return torch.stack([ball(4.0 if self.zdim and point[0] >= self.at else -4.0) for point in z])


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a run with checkpoints of ``epochs``; ``at``: epoch -> where its generator jumps."""
    def made(epochs=range(10), at=None, **more):
        directory = SimpleNamespace(path=tmp_path, epochs=lambda: list(epochs))
        jumps = at or {}
        monkeypatch.setattr(generated, "load_run", lambda path, epoch, device: Run(directory, epoch, at=jumps.get(epoch, 0.25),
                                                                                  **more))
        return Run(directory, max(epochs), **more)

    return made


def table(path):
    with path.open() as file:
        return list(csv.reader(file))


def test_a_jump_at_a_quarter_is_the_occupancy(make, tmp_path):
    found = explore_generated(make(), tmp_path / "out")
    np.testing.assert_allclose(found.occupancy["ends"].share, [5 / 21, 0, 16 / 21])
    assert not found.alike
    assert found.areas.diagonal() == pytest.approx(np.ones(21))
    assert found.areas[0, 4] == pytest.approx(1)
    assert found.areas[0, 5] == pytest.approx(found.areas[0, 20]) == pytest.approx(found.areas.min())
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "fsccc.npy"), found.areas)
    rows = table(tmp_path / "out" / "alpha.csv")
    assert [row[-1] for row in rows[1:]] == ["first"] * 5 + ["second"] * 16
    assert rows[6][0] == "0.25"
    assert table(tmp_path / "out" / "fsccc.csv")[1][:2] == ["0", "1"]


def test_maps_are_numbered_from_0_and_stand_where_alpha_says(make, tmp_path):
    found = explore_generated(make(), tmp_path / "out", apix=2.5)
    assert [path.name for path in found.map_files] == [f"vol_{i:03d}.mrc" for i in range(21)]
    density, apix = read_volume(tmp_path / "out" / "vol_005.mrc")
    assert apix == pytest.approx(2.5)
    np.testing.assert_array_equal(density, ball(4.0).numpy())
    np.testing.assert_array_equal(read_volume(tmp_path / "out" / "vol_004.mrc")[0], ball(-4.0).numpy())
    assert np.loadtxt(tmp_path / "out" / "z_values.txt")[5] == pytest.approx(0.25)


def test_errors_are_the_spread_over_the_last_checkpoints(make, tmp_path):
    found = explore_generated(make(at={7: 0.35, 8: 0.3, 3: 0.9}), tmp_path / "out").occupancy["ends"]
    assert found.checkpoints == [7, 8, 9]
    first = np.array([7, 6, 5]) / 21  # epochs 7, 8 and the one looked at
    np.testing.assert_allclose(found.share[0], 5 / 21)
    np.testing.assert_allclose(found.error, np.array([1, 0, 1]) * first.std(ddof=1), atol=1e-12)


def test_one_checkpoint_has_no_error(make, tmp_path):
    found = explore_generated(make([0, 6]), tmp_path / "out")
    assert found.occupancy["ends"].error is None
    assert found.earlier == {}
    assert table(tmp_path / "out" / "occupancies.csv")[1][3] == ""
    assert not (tmp_path / "out" / "settling.csv").exists()


def test_maps_that_are_all_alike_are_said_to_be(make, tmp_path):
    run = make(at=dict.fromkeys(range(10), 2.0))
    run.at = 2.0
    assert explore_generated(run, tmp_path / "out").alike


def test_one_map_is_compared_with_all_earlier_ones(make, tmp_path):
    found = explore_generated(make(zdim=0), tmp_path / "out")
    assert [path.name for path in found.map_files] == ["vol_000.mrc"]
    assert list(found.earlier) == [1, 2, 4, 5, 7, 8]
    assert float(found.earlier[1].value.min()) == pytest.approx(1)
    assert not found.unchanged(1).crossed
    assert (found.occupancy, found.alike) == ({}, False)
    assert not (tmp_path / "out" / "fsccc.npy").exists()
    assert len(table(tmp_path / "out" / "settling.csv")) == 7


def test_what_still_changes_shows(make, tmp_path):
    found = explore_generated(make(at={7: 2.0}), tmp_path / "out")  # of epoch 7 every map is the first
    assert found.earlier[7].value.min() < 0.9
    assert found.earlier[8].value.min() == pytest.approx(1)


def test_of_several_numbers_no_occupancies_are_told(make, tmp_path):
    found = explore_generated(make(zdim=2), tmp_path / "out", write_maps=False)
    assert found.occupancy == {}
    assert found.areas.shape == (21, 21)
    assert found.map_files == []
    assert not list((tmp_path / "out").glob("*.mrc"))


def test_which_checkpoints_are_compared():
    assert compared([0, 1, 2], 2, 1 / 3) == []
    assert compared([0, 1, 2], 2, 1) == [1]
    assert compared(list(range(10)), 9, 1 / 3) == [7, 8]
    assert compared(list(range(0, 101, 5)), 60, 1 / 3) == [45, 50, 55]
    assert compared(list(range(101)), 100, 1)[0] == 1
    assert len(compared(list(range(101)), 100, 1)) == 6
    assert compared(list(range(101)), 100, 1)[-1] == 99


def test_the_summary_is_the_findings(make, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 8, "doubts": ["old"]}\n{"epoch": 9, "doubts": ["<b>"]}\n{"epoch": ')
    found = explore_generated(make(), tmp_path / "out")
    write_generated_summary(found, {"run": "here"})
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["run"] == "here"
    assert summary["occupancies"]["ends"]["shares"] == [0.2381, 0, 0.7619]
    assert summary["occupancies"]["ends"]["errors"] == [0, 0, 0]
    assert summary["occupancies_of"] == ["first", "transition", "second"]
    assert (summary["doubts"], summary["alike"], summary["empty"]) == (["<b>"], False, False)
    assert set(summary["A_unchanged_since"]) == {"7", "8"}
    assert read_doubts(tmp_path / "absent.jsonl", 9) == []
