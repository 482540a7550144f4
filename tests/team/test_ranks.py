"""Two processes on one run: the same curve, poses and map as one; a job that was killed goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon import ranks
from cryorecon.cli.main import main
from cryorecon.errors import InputError
from cryorecon.training.follower import Follower, run_directory

HERE = Path(__file__).parent
TINY = ["--dec-dim", "16", "--dec-layers", "1", "--device", "cpu", "-b", "7"]
CURVE = 2e-5  # relative: sums in another order, through a dozen steps of EM and Adam


def team(*command: str | Path, **environment: str) -> subprocess.Popen:
    """Two processes of a module or script, as torchrun starts them."""
    path = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
                             *map(str, command)], env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_who_waits_for_others_that_never_come_says_so(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"WORLD_SIZE": 2, "RANK": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(ranks, "MEETING", timedelta(seconds=1))
    began = time.monotonic()
    with pytest.raises(InputError, match="expected 2 processes that find each other"), ranks.joined():
        pass
    assert time.monotonic() - began < 60
    assert not torch.distributed.is_initialized()


def finished(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def curve(run: Path, name: str = "energy") -> list[float]:
    return [json.loads(line)[name] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """61 images of 22 px: an odd number, so that shares differ."""
    out = tmp_path_factory.mktemp("team") / "data"
    assert main(["simulate", "--motion", "hinge", "--states", "3", "-n", "61", "-D", "22", "--apix", "8", "--snr", "2",
                 "--max-shift", "1", "-o", str(out), "--device", "cpu"]) == 0
    return out


@pytest.fixture(scope="module")
def known(data):
    given = [data / "particles.mrcs", "--poses", data / "poses.pkl", "--ctf", data / "ctf.pkl"]
    return ["train_vae", *given, "--zdim", "1", "--atoms", "8", *TINY]


def test_one_process_is_alone():
    assert (ranks.count(), ranks.number(), ranks.leads()) == (1, 0, True)
    assert torch.equal(ranks.mine(torch.arange(3)), torch.arange(3))


@pytest.mark.slow
def test_what_is_exchanged():
    code, out, err = finished(team(HERE / "exchange.py"))
    assert code == 0, err
    assert out.count("all exchanged") == 2


@pytest.mark.slow
def test_the_same_curve_and_latents_and_one_writer(known, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*map(str, known), "-n", "2", "-o", str(one)]) == 0
    code, out, err = finished(team("-m", "cryorecon", *known, "-n", "2", "-o", two))
    assert code == 0, err
    assert out.count("latents") == 1, "one speaks"
    assert err.count("epoch 2/2") == 1
    assert curve(two) == pytest.approx(curve(one), rel=CURVE)
    assert (two / "run.log").read_text().count("particles: 61 images") == 1, "not the speed, 461 images/s"
    np.testing.assert_allclose(np.load(two / "z.2.npy"), np.load(one / "z.2.npy"), atol=1e-3)
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}


@pytest.mark.slow
def test_poses_are_searched_together(data, tmp_path):
    out, command = tmp_path / "out", ["train_nn", data / "particles.mrcs", "--ctf", data / "ctf.pkl", *TINY]
    search = ["--restarts", "1", "--searches", "2", "--polishes", "1", "--base-healpy", "1"]
    code, _, err = finished(team("-m", "cryorecon", *command, *search, "-n", "1", "-o", out))
    assert code == 0, err
    table = torch.load(out / "weights.1.pt", weights_only=True)["model"]
    evidence, rotation = table["pose.evidence"], table["pose.rotation"]
    assert (evidence != 0).all(), "every particle's pose has been found by one of the two"
    assert len(torch.unique(rotation.flatten(1), dim=0)) > 55


@pytest.mark.slow
def test_halves_are_trained_together(data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    command = ["train_nn", data / "particles.star", *TINY, "-n", "1", "--halves", "-o"]
    assert main([*map(str, command), str(one)]) == 0
    code, out, err = finished(team("-m", "cryorecon", *command, two))
    assert code == 0, err
    assert (err.count("half 2\n"), out.count("gold standard of the map")) == (1, 1), "one speaks"
    for half in ("half_1", "half_2"):
        np.testing.assert_array_equal(np.load(two / f"{half}.npy"), np.load(one / f"{half}.npy"))
        assert curve(two / half) == pytest.approx(curve(one / half), rel=CURVE)
    ours, theirs = (np.loadtxt(out / "gold_standard/fsc.csv", delimiter=",", skiprows=1, usecols=(4, 6)) for out in (one, two))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.fixture(scope="module")
def whole(known, tmp_path_factory):
    """Three passes of two processes that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, _, err = finished(team("-m", "cryorecon", *known, "-n", "3", "-o", out))
    assert code == 0, err
    return out


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_job_goes_on_as_if_nothing_had_happened(known, whole, tmp_path, signalled):
    """Killed: from its checkpoint. Told to stop: both leave between the same two batches."""
    out = tmp_path / "out"
    job = team("-m", "cryorecon", *known, "-n", "3", "-o", out)
    while not (out / "weights.1.pt").is_file() and job.poll() is None:
        time.sleep(0.02)
    os.killpg(job.pid, signalled)
    job.communicate(timeout=60)
    for later in [*out.glob("*.2.*"), *out.glob("*.3.*")]:
        if later.name != "pass.2.pt":
            later.unlink()  # it was faster than the signal
    code, _, err = finished(team("-m", "cryorecon", *known[:2], "-o", out, "--resume"))
    assert code == 0, err
    assert curve(out) == curve(whole)
    np.testing.assert_array_equal(np.load(out / "z.3.npy"), np.load(whole / "z.3.npy"))


@pytest.mark.slow
def test_bad_input_ends_both_with_a_line(known, tmp_path):
    code, _, err = finished(team("-m", "cryorecon", known[0], tmp_path / "none.mrcs", "--zdim", "1", "-o", tmp_path / "out"))
    assert code != 0
    assert "none.mrcs: expected an image stack, found no such file" in err
    assert "[rank0]" not in err, "no traceback of ours"
    assert not (tmp_path / "out").exists()


def test_other_commands_are_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["inspect", "x.star"]) == 2
    assert "inspect: expected one process, found 2 (WORLD_SIZE)" in capsys.readouterr().err


def test_a_follower_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "leads", lambda: False)
    directory = run_directory(tmp_path / "out")
    assert isinstance(directory, Follower)
    with directory.begun(None, []):
        directory.save(1, {}, np.zeros(1))
        directory.save_stage("poses", {})
        directory.save_samples(1, np.zeros(1))
        directory.log({"epoch": 1})
        directory.drop_stage("poses")
        directory.drop_after(0)
        directory.write("map.mrc", lambda path: path.write_text("x"))
    assert not (tmp_path / "out").exists()
