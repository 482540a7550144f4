"""``cryorecon eval_halves`` and what ``eval_conformation`` takes besides a run and a truth, from the command line."""

import json

import numpy as np
import pytest

from cryorecon.cli.main import main
from cryorecon.data.cryodrgn_files import write_indices
from cryorecon.data.mrc import write_volume
from cryorecon.simulation.experiment import Experiment, ctf_table
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.write import write_simulation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A simulation of 400 images of 32 px, a run of all and one of each half."""
    folder = tmp_path_factory.mktemp("halves")
    experiment = Experiment(400, 32, 6.0, 1.0, max_shift=1, optics=ctf_table(None))
    write_simulation(flexible("hinge", 3), experiment, folder / "sim")
    known = ["--poses", str(folder / "sim/poses.pkl"), "--ctf", str(folder / "sim/ctf.pkl"), "--device", "cpu"]
    for name, rows in (("whole", None), ("a", np.arange(0, 400, 2)), ("b", np.arange(1, 400, 2))):
        half = []
        if rows is not None:
            write_indices(folder / f"{name}.pkl", rows)
            half = ["--ind", str(folder / f"{name}.pkl")]
        assert main(["train_vae", str(folder / "sim/particles.mrcs"), *known, *half, "--zdim", "2", "-n", "0", "-o",
                     str(folder / name)]) == 0
    return folder


def call(*words):
    return main([str(word) for word in words])


def test_halves_of_one_motion_agree(folder, tmp_path, capsys):
    assert call("eval_halves", folder / "a", folder / "b", "-k", "10", "-o", tmp_path, "--device", "cpu") == 0
    held = json.loads((tmp_path / "halves.json").read_text())
    assert held["box"] == 32
    assert held["particles"] is None
    assert "alignment" not in held  # poses were given
    assert 0 <= held["ratio"] < 0.8
    assert held["between"] < held["spread_a"]
    assert (tmp_path / "halves.png").is_file()
    printed = capsys.readouterr().out
    assert f"ratio: {held['ratio']:.3f}" in printed
    assert "no particles of one file in common" in printed
    assert held["particles_in_common"] == 0


def test_particles_in_common_are_compared(folder, tmp_path, capsys):
    assert call("eval_halves", folder / "whole", folder / "b", "-k", "4", "-o", tmp_path, "--device", "cpu") == 0
    held = json.loads((tmp_path / "halves.json").read_text())
    particles = held["particles"]
    assert held["particles_in_common"] == 200
    assert "200 particles are in both runs: these are no independent halves" in capsys.readouterr().err
    assert particles["particles"] == 200
    assert particles["a_to_b"] > 0.7
    assert particles["imbalance"][0] < 0.5


@pytest.mark.parametrize(("more", "says"), [
    (["--box", "7"], "expected --box even"), (["-k", "1"], "--maps 2 or more"), (["--epoch", "9"], "found 9"),
])
def test_eval_halves_of_nothing(folder, tmp_path, capsys, more, says):
    assert call("eval_halves", folder / "a", folder / "b", *more, "-o", tmp_path / "out") == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_submitted_maps_stand_for_the_run(folder, tmp_path):
    """The true maps with the true populations are as near to the truth as can be."""
    truth = folder / "sim/truth.npz"
    with np.load(truth, allow_pickle=False) as held:
        counts = np.bincount(held["state"], minlength=3)
    np.savetxt(tmp_path / "populations.txt", counts)
    maps = [folder / f"sim/maps/state_{i:02d}.mrc" for i in range(3)]
    write_volume(tmp_path / "mask.mrc", np.ones((32, 32, 32), np.float32), 6.0)
    assert call("eval_conformation", folder / "whole", "--truth", truth, "-n", "4", "--submitted", *maps, "--populations",
                tmp_path / "populations.txt", "--mask", tmp_path / "mask.mrc", "-o", tmp_path / "out", "--by-maps",
                "--device", "cpu") == 0
    held = json.loads((tmp_path / "out/conformation.json").read_text())
    assert held["occupancy"]["error_by_map"] == pytest.approx(0, abs=1e-6)
    assert held["challenge"]["l2"]["emd_best"]["mean"] == pytest.approx(1)
    assert held["mask"].endswith("mask.mrc")
    for name in ("conformation.npz", "fsc.png", "fsccc.png"):
        assert (tmp_path / "out" / name).is_file()


@pytest.mark.parametrize(("more", "says"), [
    (["-n", "0"], "--images: expected at least 1"), (["--populations", "p.txt"], "expected --submitted beside it"),
    (["--maps", "absent"], "give their folder by --maps"), (["--submitted", "absent.mrc"], "absent.mrc"),
    (["-k", "0"], "at least 1 cluster"),
])
def test_eval_conformation_of_nothing(folder, tmp_path, capsys, more, says):
    assert call("eval_conformation", folder / "whole", "--truth", folder / "sim/truth.npz", *more, "-o", tmp_path / "out") == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
