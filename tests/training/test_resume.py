"""`kill -9` in the middle of training, then ``--resume``: bit for bit what an undisturbed run gives, on the CPU."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.simulation.experiment import Experiment, ctf_table
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.write import write_simulation
from cryorecon.training.run_directory import RunDirectory

KILLED = """
import os, signal, sys
from cryorecon.training import train as training
whole = training.fit

def fit(*arguments):
    for record in whole(*arguments):
        yield record
        if record.epoch == 2 and record.particles >= 16:
            os.kill(os.getpid(), signal.SIGKILL)

training.fit = fit
from cryorecon.cli.main import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    """40 images of 20 px."""
    folder = tmp_path_factory.mktemp("data") / "sim"
    write_simulation(flexible("hinge", 2), Experiment(40, 20, 9.0, 1.0, max_shift=1, optics=ctf_table(None)), folder)
    return folder / "particles.star"


@pytest.fixture
def one_thread():
    """As the child process has it: sums in another order are other sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("road", [
    ["--points", "0.6"],
    ["--conformation", "table", "--refine-poses"],
    ["--road", "plain", "--conformation", "encoder", "--enc-dim", "16", "--enc-layers", "1"],
], ids=["posterior", "table", "plain encoder"])
def test_killed_and_resumed_is_undisturbed(road, particles, tmp_path, one_thread):
    common = ["train_vae", str(particles), "--zdim", "2", "-n", "3", "--dec-dim", "16", "--dec-layers", "1", "-b", "8",
              "--atoms", "10", "--device", "cpu", *road]
    killed = subprocess.run([sys.executable, "-c", KILLED, *common, "-o", str(tmp_path / "killed")], capture_output=True,
                            timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert RunDirectory(tmp_path / "killed").epochs() == [0, 1]
    assert main([*common, "-o", str(tmp_path / "killed"), "--resume"]) == 0
    assert main([*common, "-o", str(tmp_path / "whole")]) == 0
    resumed, whole = (RunDirectory(tmp_path / name) for name in ("killed", "whole"))
    assert resumed.epochs() == whole.epochs() == [0, 1, 2, 3]
    ours, theirs = resumed.load()["model"], whole.load()["model"]
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        assert torch.equal(ours[name], values), name
    np.testing.assert_array_equal(resumed.z(), whole.z())
    assert not torch.equal(whole.load(2)["model"]["volume.head.weight"], theirs["volume.head.weight"])
