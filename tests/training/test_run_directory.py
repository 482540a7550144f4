"""The run directory and the configuration in it."""

import json
import os
import shutil
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryorecon.data.files import append_text
from cryorecon.errors import InputError
from cryorecon.inference.conformation import CONFORMATIONS
from cryorecon.inference.pose import POSES
from cryorecon.inference.pose.search import BOUNDS
from cryorecon.training.config import CHOICES, RunConfig, absolute_paths
from cryorecon.training.evaluate import reopened
from cryorecon.training.run_directory import RunDirectory, write_atomically
from cryorecon.volumes import VOLUMES
from cryorecon.volumes.fourier_mlp import ENCODINGS

CONFIG = RunConfig("/data/p.star", zdim=2, epochs=4, lr=1e-5, beta=None, features=7)


def state(epoch):
    return {"version": "0", "epoch": epoch, "model": {"w": torch.full((3,), float(epoch))},
            "shape": {"base_limit": 0.0, "atoms": 0}, "noise": torch.ones(9), "scale": torch.ones(5),
            "half": torch.ones(5), "box": 16, "apix": 1.0, "optimisers": []}


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.start(CONFIG, ["cryorecon", "train_vae"])
    return directory


def test_a_name_that_is_no_text_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"d\xf6")
    with pytest.raises(InputError, match="whole name is UTF-8"):
        RunDirectory(folder).start(CONFIG, ["cryorecon", "train_vae"])
    assert not folder.exists()


def test_a_folder_with_weights_of_a_run_without_its_configuration_is_refused(run):
    run.save(3, state(3), np.zeros((5, 2)))
    (run.path / "config.yaml").unlink()
    with pytest.raises(InputError, match="found another run"):
        run.start(CONFIG, ["cryorecon", "train_vae"])


def test_where_particles_went_is_told_to_the_configuration(run, tmp_path):
    with pytest.raises(InputError, match=r"write its new place into .*config.yaml"):
        run.resumed({"particles": "/moved/p.star"})
    run.save(0, state(0), None)
    with pytest.raises(InputError, match=r"found no such file; if they have moved, write their new place into .*config.yaml"):
        reopened(run)


def test_the_log_takes_names_that_are_no_text(tmp_path):
    append_text(tmp_path / "run.log", os.fsdecode(b"d\xf6\n"))
    assert (tmp_path / "run.log").read_bytes() == b"d\xf6\n"


def test_the_configuration_survives_the_file(run):
    assert run.config() == CONFIG


@pytest.mark.parametrize(("text", "says"), [
    ("just text", "table 'run'"), ("run: [1, 2]", "table 'run'"), ("run:\n  particles: p\n  nonsense: 3\n", "nonsense"),
    ("run: {a: [", "expected YAML"), ("run:\n  zdim: 1\n", "particles"), ("run:\n  particles: p\n  zdim: -1\n", "zdim"),
    ("run: !!python/object/apply:os.system ['true']", "expected YAML"),
])
def test_a_configuration_that_is_none(run, text, says):
    (run.path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        run.config()


@pytest.mark.parametrize(("fields", "says"), [
    ({"zdim": 0}, "zdim"), ({"conformation": "fixed", "zdim": 2}, "zdim"), ({"volume": "clay"}, "volume: expected one of"),
    ({"road": "plain"}, "closed-form posterior"), ({"symmetry": "D2"}, "symmetry"), ({"points": 0.0}, "points"),
])
def test_parts_that_do_not_fit(fields, says):
    with pytest.raises(InputError, match=says):
        RunConfig(**{"particles": "p", "zdim": 1} | fields)


@pytest.mark.parametrize("fields", [{"features": 0}, {"feature_sigma": 0.0}, {"feature_sigma": -1.0},
                                    {"feature_sigma": float("nan")}, {"encoding": "rotary"}])
def test_numbers_of_the_encoding_are_checked(fields):
    with pytest.raises(InputError, match=f"^{next(iter(fields))}: expected"):
        RunConfig("p", zdim=1, **fields)


def test_the_choices_are_the_registries_names():
    assert CHOICES["volume"] == tuple(VOLUMES)
    assert CHOICES["conformation"] == tuple(CONFORMATIONS)
    assert set(CHOICES["pose"]) == set(POSES)
    assert CHOICES["encoding"] == ENCODINGS
    assert CHOICES["bound"] == BOUNDS


def test_beta_counts_as_cryodrgn_counts_it():
    assert RunConfig("p", zdim=8).kl_weight == pytest.approx(1 / 16)
    assert RunConfig("p", zdim=8, beta=0.5).kl_weight == pytest.approx(0.25)


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_paths({"particles": "a/b.star", "ctf": None, "zdim": 3}) == {
        "particles": str(tmp_path / "a/b.star"), "ctf": None, "zdim": 3}


def test_a_folder_that_holds_a_run_is_refused(run):
    with pytest.raises(InputError, match="another run"):
        run.start(CONFIG, [])


def test_checkpoints_come_back(run):
    for epoch in (0, 2, 10):
        run.save(epoch, state(epoch), np.full((5, 2), epoch, np.float32))
    assert run.epochs() == [0, 2, 10]
    assert run.load()["epoch"] == 10
    assert float(run.load(2)["model"]["w"][0]) == 2
    np.testing.assert_array_equal(run.z(), np.full((5, 2), 10))
    np.testing.assert_array_equal(run.z(0), np.zeros((5, 2)))
    with pytest.raises(InputError, match="expected one of the epochs 0, 2, 10, found 3"):
        run.load(3)


def another(tmp_path, data=None, **fields):
    directory = RunDirectory(tmp_path / "another")
    directory.start(replace(CONFIG, **fields), ["cryorecon", "train_vae"])
    if data is not None:
        (directory.path / "provenance.json").write_text(json.dumps({"inputs": [{"sha256": data}]}))
    return directory


def test_weights_of_another_run_are_told(run, tmp_path):
    (run.path / "provenance.json").write_text(json.dumps({"inputs": [{"sha256": "aa"}, {"sha256": "bb"}]}))
    run.save(1, state(1), None)
    ours = run.path / "weights.1.pt"
    other = another(tmp_path, seed=3)
    other.save(1, state(1), None)
    other.save_pass(2, state(1))
    shutil.copy(other.path / "weights.1.pt", ours)
    with pytest.raises(InputError, match=r"weights\.1\.pt: expected a checkpoint of this run, with seed 0 .* found one .* 3"):
        run.load()
    other.save_stage("poses", {"number": 4})
    assert other.load_stage("poses") == {"number": 4}
    shutil.copy(other.path / "stage.poses.pt", run.path)
    with pytest.raises(InputError, match=r"stage\.poses\.pt: expected a checkpoint of this run, with seed 0"):
        run.load_stage("poses")
    shutil.copy(other.path / "pass.2.pt", run.path)
    with pytest.raises(InputError, match=r"pass\.2\.pt: expected a checkpoint of this run, with seed 0"):
        run.load_last()


def test_weights_of_the_same_settings_on_other_data_are_told(run, tmp_path):
    (run.path / "provenance.json").write_text(json.dumps({"inputs": [{"sha256": "aa"}]}))
    other = another(tmp_path, "bb", particles="/elsewhere.star", epochs=9)  # what a run that was moved and resumed has
    other.save(1, state(1), None)
    shutil.copy(other.path / "weights.1.pt", run.path)
    with pytest.raises(InputError, match=r"of this run's data, as in provenance\.json"):
        run.load()
    (other.path / "provenance.json").write_text(json.dumps({"inputs": [{"sha256": "aa"}]}))
    other.save(1, state(1), None)
    shutil.copy(other.path / "weights.1.pt", run.path)
    assert run.load()["epoch"] == 1


def test_settings_that_a_version_does_not_know_tell_nothing(run):
    run.save(1, state(1), None)
    held = torch.load(run.path / "weights.1.pt", weights_only=True)
    held["of"]["settings"] |= {"of_a_later_version": 5}
    del held["of"]["settings"]["seed"]
    torch.save(held, run.path / "weights.1.pt")
    assert run.load()["epoch"] == 1
    torch.save(state(1), run.path / "weights.1.pt")  # of a version that wrote none
    assert run.load()["epoch"] == 1


def test_latents_of_another_checkpoint_are_told(run):
    for epoch in (1, 2):
        run.save(epoch, state(epoch), np.full((5, 2), epoch, np.float32), np.full((5, 5), epoch, np.float32))
    for name in ("z", "z_likelihood"):
        shutil.copy(run.path / f"{name}.1.npy", run.path / f"{name}.2.npy")
    assert run.z(1).shape == (5, 2)
    for read in (run.z, run.likelihood):
        with pytest.raises(InputError, match=r"2\.npy: expected the latents that weights\.2\.pt was saved with, found others"):
            read(2)


def test_a_run_of_very_many_files_knows_them(run):
    """A stack for each of 20,000 micrographs."""
    folder = "/data/Extract/job012/Micrographs"
    inputs = [{"path": f"{folder}/FoilHole_{i:08d}_Fractions.mrcs", "sha256": "0" * 64} for i in range(20_000)]
    (run.path / "provenance.json").write_text(json.dumps({"inputs": inputs}, indent=1))
    run.save(1, state(1), None)
    assert len(run.load()["of"]["data"]) == 64


def test_a_checkpoint_that_holds_code_is_not_run(run, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"model": Trap()}, run.path / "weights.1.pt")
    with pytest.raises(InputError, match=r"weights\.1\.pt: expected a checkpoint"):
        run.load()
    assert not (tmp_path / "sprung").exists()


def test_others_may_read_what_is_written(run):
    run.save(1, state(1), np.zeros((2, 2), np.float32))
    expected = (run.path / "config.yaml").stat().st_mode
    (run.path / "plain").touch()
    assert stat.S_IMODE(expected) == stat.S_IMODE((run.path / "plain").stat().st_mode)


def test_what_fails_while_it_is_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def half(temporary):
        temporary.write_text("ne")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_after_the_checkpoint_are_forgotten(run):
    for epoch in (1, 2, 3):
        run.log({"epoch": epoch, "energy": 1.0})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "en')  # a kill cut it short
    run.drop_after(2)
    assert (run.path / "metrics.jsonl").read_text() == '{"epoch": 1, "energy": 1.0}\n{"epoch": 2, "energy": 1.0}\n'


def test_the_last_number_logged(run):
    assert run.last_logged("cpu_seconds") == 0
    for seconds in (1.5, 2.5):
        run.log({"epoch": 1, "cpu_seconds": seconds})
    assert run.last_logged("cpu_seconds") == 2.5
    assert run.last_logged("another") == 0


class TestBegun:
    def test_failure_before_a_checkpoint_leaves_nothing(self, tmp_path):
        directory = RunDirectory(tmp_path / "a/b/run")
        with pytest.raises(InputError, match="bad"), directory.begun(CONFIG, []):
            (directory.path / "run.log").touch()
            raise InputError("bad")
        assert list(tmp_path.iterdir()) == []

    def test_failure_after_a_checkpoint_keeps_it(self, tmp_path):
        directory = RunDirectory(tmp_path / "run")
        with pytest.raises(KeyboardInterrupt), directory.begun(CONFIG, []):
            directory.save(0, state(0), None)
            raise KeyboardInterrupt
        assert directory.epochs() == [0]
        assert directory.config() == CONFIG

    def test_files_of_others_stay(self, tmp_path):
        (tmp_path / "notes").touch()
        with pytest.raises(ValueError), RunDirectory(tmp_path).begun(CONFIG, []):
            raise ValueError
        assert [path.name for path in tmp_path.iterdir()] == ["notes"]

    def test_a_run_of_others_is_not_touched(self, run):
        with pytest.raises(InputError, match="another run"), run.begun(CONFIG, []):
            raise AssertionError
        assert run.config() == CONFIG

    def test_resumed_keeps_everything_and_writes_what_changed(self, run):
        config = run.resumed({"epochs": 9, "zdim": 2})
        with pytest.raises(InputError), run.begun(config, ["again"], resume=True):
            raise InputError("bad")
        assert run.config().epochs == 9


def test_resumed_refuses_what_would_be_another_run(run):
    run.save(4, state(4), None)
    with pytest.raises(InputError, match="THE lr: expected 1e-05 as the run"):
        run.resumed({"lr": 0.1}, lambda name: f"THE {name}")
    with pytest.raises(InputError, match="expected at least 4"):
        run.resumed({"epochs": 3})
    assert run.resumed({"epochs": 4, "device": "cpu"}).device == "cpu"


@pytest.mark.parametrize("contents", [b"", b"not a checkpoint", b"PK\x03\x04", b"\x80\x02cos\nsystem\n(S'true'\ntR."],
                         ids=["empty", "text", "cut archive", "code"])
def test_what_is_no_checkpoint_is_one_line(tmp_path, contents):
    (tmp_path / "weights.1.pt").write_bytes(contents)
    with pytest.raises(InputError, match=r"weights\.1\.pt: expected a checkpoint of plain tensors, found .+"):
        RunDirectory(tmp_path).load()
