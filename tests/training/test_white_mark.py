"""The mark of white protein goes wherever a stack's poses go: nobody inverts images that are known to be white."""

import numpy as np
import pytest
import torch

import cryorecon
from cryorecon.cli.main import main
from cryorecon.data.load import load_particles
from cryorecon.simulation.experiment import Experiment
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.write import write_simulation
from cryorecon.training.run_directory import RunDirectory
from cryorecon.training.train import write_found


@pytest.fixture
def simulated(tmp_path):
    """A simulation without a CTF, where the rule of contrast inverts what is not marked; its star."""
    experiment = Experiment(120, 32, 6.0, snr=1.0, max_shift=1.0, seed=3)
    write_simulation(flexible("hinge", 2), experiment, tmp_path / "sim")
    return tmp_path / "sim/particles.star"


def correlation(a, b):
    return float(np.corrcoef(a.density.cpu().numpy().ravel(), b.density.cpu().numpy().ravel())[0, 1])


def test_poses_that_a_run_writes_give_the_same_map_again(simulated, tmp_path):
    stack = load_particles(simulated)
    write_found(RunDirectory(tmp_path / "run"), 1, stack, stack.poses)
    assert main(["write_star", str(simulated), "-o", str(tmp_path / "copy.star")]) == 0
    first = cryorecon.backproject(simulated)
    for path in (tmp_path / "run/poses.1.star", tmp_path / "copy.star"):
        again = load_particles(path)
        assert (again.white, again.sign) == (True, 1)
        torch.testing.assert_close(again.images([0, 5]), stack.images([0, 5]))
        assert correlation(first, cryorecon.backproject(path)) > 0.9, "inverted"


@pytest.mark.parametrize("invert", [False, True])
def test_the_same_command_on_what_is_written_means_the_same(simulated, tmp_path, invert):
    """--uninvert-data turns the sign, not the files' word: with it once, with it again."""
    stack = load_particles(simulated)
    stack = stack.uninverted() if invert else stack
    write_found(RunDirectory(tmp_path / "run"), 1, stack, stack.poses)
    again = load_particles(tmp_path / "run/poses.1.star")
    again = again.uninverted() if invert else again
    assert again.sign == stack.sign
    unmarked = load_particles(simulated.with_suffix(".mrcs"))
    unmarked = unmarked.uninverted() if invert else unmarked
    write_found(RunDirectory(tmp_path / "other"), 1, unmarked, stack.poses)
    again = load_particles(tmp_path / "other/poses.1.star")
    assert (again.uninverted() if invert else again).sign == unmarked.sign


def test_selections_and_images_in_memory_know_it():
    stack, _ = cryorecon.simulate_stack(flexible("hinge", 2), n=4, box=32, apix=6.0, max_shift=0.0, optics=None)
    assert stack.white
    assert stack[[2, 0]].with_poses(stack.poses[[2, 0]]).white
