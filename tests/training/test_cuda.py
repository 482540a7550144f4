"""Whole runs on a GPU end where the same runs end on a CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import cryorecon
from cryorecon.data.loader import Loader
from cryorecon.metrics.pose_error import pose_error
from cryorecon.training.build import first_noise, open_data
from cryorecon.training.config import GAMES, RunConfig

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def hinge():
    return cryorecon.simulate_stack(cryorecon.flexible("hinge", 6), n=600, box=32, apix=6.0, snr=0.5, max_shift=1)[0]


def agreement(first, second):
    """Correlation of two arrays, whatever the axes' signs."""
    return abs(np.corrcoef(np.ravel(first), np.ravel(second))[0, 1])


def test_batches_are_the_same(hinge):
    config = RunConfig("in memory", conformation="fixed")
    problem = open_data(replace(config, device="cuda"), hinge)
    noise = first_noise(problem, config)
    there = problem.loader(noise, True)
    here = Loader(problem.stack, problem.grid.to("cpu"), noise, True)
    scale = torch.linspace(0.5, 2, len(hinge))
    for loader in (there, here):
        loader.set_scale(scale)
    chosen = torch.tensor([5, 2, 599])
    for name in ("data", "power", "norm", "image", "particle"):
        found, wanted = getattr(there.of(chosen), name), getattr(here.of(chosen), name)
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.parametrize("road", ["lowrank", "plain"])
def test_conformations(hinge, tmp_path, road):
    options = {"zdim": 1, "epochs": 1, "width": 32, "road": road}
    if road == "plain":
        options["conformation"] = "encoder"
    here, there = (cryorecon.train(hinge, tmp_path / device, device=device, **options) for device in ("cpu", "cuda"))
    assert np.isfinite(there.z).all()
    assert there.density(there.z[:1]).shape == (1, 32, 32, 32)
    if road == "lowrank":
        assert agreement(here.z, there.z) > 0.95
        assert agreement(here.density(here.z[:1]).cpu(), there.density(here.z[:1]).cpu()) > 0.98


@pytest.mark.parametrize("zdim", [0, 2])
def test_poses_from_nothing(hinge, tmp_path, zdim):
    run = cryorecon.train(replace(hinge, poses=None), tmp_path / "run", zdim=zdim, epochs=0, device="cuda",
                          t_extent=2.0)
    assert run is not None
    from cryorecon.data.cryodrgn_files import read_poses

    found = read_poses(tmp_path / "run" / "poses.0.pkl", 32, 6.0)
    error = pose_error(found.rotation, hinge.poses.rotation, found.shift, hinge.poses.shift)
    assert float(error.angle.median()) < 12


@pytest.mark.parametrize("zdim", [0, 1])
def test_the_networks_own_schedule(hinge, tmp_path, zdim):
    run = cryorecon.train(replace(hinge, poses=None), tmp_path / "run", zdim=zdim, epochs=0, device="cuda", t_extent=2.0,
                          schedule="network", search_epochs=2, ps_freq=1, pretrain=200, width=32, l_start=6.0, polishes=1,
                          enc_width=32)
    assert torch.isfinite(run.density(run.z[:1] if zdim else np.zeros((1, 0), np.float32))).all()


@pytest.mark.parametrize("volume", ["density", "archetypes", "conv"])
def test_a_game(hinge, tmp_path, volume):
    options = {key: value for key, value in GAMES[volume].items() if key != "zdim"} | {"width": 4}
    zdim = int(volume != "density")
    run = cryorecon.train(hinge, tmp_path / "run", zdim=zdim, device="cuda", **options | {"epochs": 2, "critic_width": 4})
    again = cryorecon.train(hinge, tmp_path / "run", zdim=zdim, device="cuda", resume=True,
                            **options | {"epochs": 3, "critic_width": 4})
    first, second = (one.density(torch.zeros(1, zdim)) for one in (run, again))
    assert torch.isfinite(second).all()
    assert float(second.max()) > 0
    assert not torch.equal(first, second)
