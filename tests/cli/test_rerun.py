"""``cryorecon rerun``: the same seed is the same bits, whatever is trained; other data, versions and seeds are told."""

import json
import shutil
import warnings
from dataclasses import asdict

import numpy as np
import pytest
import torch

from cryorecon.analysis.repeat import compare
from cryorecon.cli.main import main
from cryorecon.training import provenance
from cryorecon.training.evaluate import image_fits
from cryorecon.training.run_directory import RunDirectory

SMALL = ["--dec-dim", "16", "--dec-layers", "1", "-b", "8", "--device", "cpu"]
SEARCH = ["--search-poses", "--searches", "1", "--polishes", "1", "--base-healpy", "1", "--niter", "1"]


@pytest.fixture(scope="module")
def particles(simulated):
    """60 images of 20 px."""
    return simulated(2, 60, 20, 1) / "particles.star"


@pytest.fixture(scope="module")
def searchable(simulated):
    """100 images of 20 px, in which a structure emerges."""
    return simulated(1, 100, 20, 1) / "particles.star"


def call(*words):
    return main([str(word) for word in words])


@pytest.fixture
def run(particles, tmp_path):
    """A short train_nn."""
    assert call("train_nn", particles, "-n", 1, *SMALL, "-o", tmp_path / "run") == 0
    return tmp_path / "run"


@pytest.mark.parametrize("command", [
    ["train_nn", "-n", 2, *SMALL],
    ["train_vae", "--zdim", 2, "-n", 2, "--atoms", 10, *SMALL],
    ["train_vae", "--zdim", 1, "-n", 1, "--road", "plain", "--enc-dim", 16, "--enc-layers", 1, *SMALL],
    ["train_gan", "-n", 1, "-b", 16, "--device", "cpu"],
], ids=["train_nn", "train_vae", "train_vae plain", "train_gan"])
def test_the_same_seed_is_the_same_bits(command, particles, tmp_path, capsys):
    name, *options = command
    assert call(name, particles, *options, "-o", tmp_path / "run") == 0
    assert call("rerun", tmp_path / "run", "-o", tmp_path / "again") == 0
    assert "same bits" in capsys.readouterr().out
    assert call(name, particles, *options, "--seed", 1, "-o", tmp_path / "other") == 0
    assert not compare(RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "other")).bits


def test_a_search_of_poses_is_the_same_bits(searchable, tmp_path):
    assert call("train_nn", searchable, "-n", 0, *SEARCH, "--init", searchable.parent / "maps/state_00.mrc", "--device", "cpu",
                "-o", tmp_path / "run") == 0
    assert call("rerun", tmp_path / "run") == 0
    assert (tmp_path / "run.again/poses.0.pkl").read_bytes() == (tmp_path / "run/poses.0.pkl").read_bytes()


def test_a_run_says_where_it_comes_from(run, particles):
    held = json.loads((run / "provenance.json").read_text())
    assert held["seed"] == 0
    files = {entry["path"] for entry in held["inputs"]}
    assert files == {str(particles), str(particles.with_suffix(".mrcs"))}
    session = held["sessions"][0]
    assert session["command"][0] == "cryorecon"
    assert session["torch"] == str(torch.__version__)
    assert session["threads"] == torch.get_num_threads()
    assert {"cryorecon", "numpy", "python", "platform", "processor"} <= session.keys()


def test_a_resumed_run_has_two_sessions_and_can_be_repeated(run, particles, capsys):
    for epochs in (2, 3):
        assert call("train_nn", particles, "-n", epochs, *SMALL, "-o", run, "--resume") == 0
    assert [each["epochs"] for each in json.loads((run / "provenance.json").read_text())["sessions"]] == [1, 2, 3]
    capsys.readouterr()
    assert call("rerun", run) == 1  # step sizes follow the number of epochs: not the same, and it says why
    assert "asked for anew" in capsys.readouterr().err


def test_what_differs_is_a_number(run, capsys):
    state = torch.load(run / "weights.1.pt", weights_only=True)
    state["model"]["volume.head.weight"][0, 0] += 1e-3
    torch.save(state, run / "weights.1.pt")
    assert call("rerun", run) == 1
    said = capsys.readouterr().out
    assert "not the same bits" in said
    assert 0.999 < float(said.split("correlate ")[1].split(",")[0]) <= 1


def test_settings_edited_since_are_told_before_training(run, error_of):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 7"))
    assert "with seed 7 as in config.yaml, found one of a run with 0" in error_of("rerun", run)
    assert not run.with_name("run.again").exists()


def test_other_data_are_named(run, particles, tmp_path, error_of):
    folder = tmp_path / "data"
    shutil.copytree(particles.parent, folder)
    assert call("train_nn", folder / "particles.star", "-n", 0, *SMALL, "-o", tmp_path / "copy") == 0
    with (folder / "particles.mrcs").open("r+b") as file:
        file.seek(5000)
        file.write(b"\x01")
    assert error_of("rerun", tmp_path / "copy").startswith(f"{folder / 'particles.mrcs'}: expected the contents")
    assert not (tmp_path / "copy.again").exists()
    with pytest.warns(UserWarning, match="run on other data"):
        call("train_nn", folder / "particles.star", "-n", 1, *SMALL, "-o", tmp_path / "copy", "--resume")
    (folder / "particles.mrcs").unlink()
    assert "found none" in error_of("rerun", tmp_path / "copy")


def test_other_versions_and_threads_are_noted(run, capsys):
    path = run / "provenance.json"
    held = json.loads(path.read_text())
    held["sessions"][0] |= {"numpy": "0.1"}
    path.write_text(json.dumps(held))
    assert call("rerun", run) == 0
    assert f"numpy: 0.1 then, {np.__version__} now" in capsys.readouterr().err


def test_an_older_run_is_repeated_with_a_note(run, capsys):
    (run / "provenance.json").unlink()
    assert call("rerun", run) == 0
    assert "says nothing of its data" in capsys.readouterr().err


def test_a_repeat_that_was_cut_goes_on(run, tmp_path, monkeypatch):
    from cryorecon.training import train

    whole = train.fit

    def cut(*arguments):
        for record in whole(*arguments):
            if record.particles >= 16:
                raise KeyboardInterrupt
            yield record

    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", cut)
        assert call("rerun", run) == 130
    assert RunDirectory(tmp_path / "run.again").epochs() == [0]
    assert call("rerun", run) == 0


def test_what_cannot_be_repeated(run, tmp_path, error_of):
    assert "is this a run directory" in error_of("rerun", tmp_path / "absent")
    (run / "weights.1.pt").unlink()
    assert "found 0 of 1 epochs" in error_of("rerun", run)
    (run / "provenance.json").write_text("{")
    (run / "weights.1.pt").write_bytes((run / "weights.0.pt").read_bytes())
    assert "is the file damaged" in error_of("rerun", run)


def test_a_large_stack_is_sampled_and_a_small_one_is_not(tmp_path):
    path = tmp_path / "stack.mrcs"
    path.write_bytes(np.random.default_rng(0).bytes(provenance.WHOLE + 1000))
    found = provenance.fingerprint(path, 16)
    assert found.blocks == 16
    assert provenance.changed([asdict(found)]) is None
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    assert "of the same size" in provenance.changed([asdict(found)])
    path.write_bytes(b"short")
    assert "expected the 4,195,304 bytes that the run read, found 5" in provenance.changed([asdict(found)])
    assert provenance.fingerprint(path, 16).blocks == 0


def test_a_run_judged_after_its_data_changed_says_so(simulated, tmp_path, capsys):
    shutil.copytree(simulated(2, 60, 20, 1), tmp_path / "data")
    star, stack = tmp_path / "data/particles.star", tmp_path / "data/particles.mrcs"
    assert call("train_nn", star, "-n", 0, *SMALL, "-o", tmp_path / "run") == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call("eval_images", tmp_path / "run", "-o", tmp_path / "fits.csv") == 0
    shutil.move(stack, tmp_path / "particles.mrcs")  # elsewhere, but the same
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_fits(RunDirectory(tmp_path / "run"), datadir=str(tmp_path))
    held = (tmp_path / "particles.mrcs").read_bytes()
    stack.write_bytes(held[:1024] + held[2624:] + held[1024:2624])  # the same images of 20 px in another order
    with pytest.warns(UserWarning, match="particles.mrcs: expected the contents that the run read, found others"):
        assert call("eval_images", tmp_path / "run", "-o", tmp_path / "fits.csv") == 0
