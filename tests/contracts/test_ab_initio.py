"""Poses found by a whole run: near given ones, resumed in the middle, and not from noise."""

from dataclasses import replace

import pytest
import torch

import cryorecon
from cryorecon.data.poses import Poses
from cryorecon.data.source import ArraySource
from cryorecon.errors import InputError
from cryorecon.geometry.rotations import from_rotation_vector
from cryorecon.metrics.pose_error import pose_error
from cryorecon.training import ab_initio, build
from cryorecon.training.config import RunConfig
from cryorecon.training.run_directory import RunDirectory

CONFIG = RunConfig("in memory", conformation="fixed", pose_init="rough", window=False, t_extent=1.0, t_ngrid=3, l_start=6,
                   searches=1, polishes=2, mask_radius=1.0)


def rough(problem, degrees=6.0, angstrom=2.0):
    """The problem's stack with poses a few degrees and Å beside the planted ones."""
    generator = torch.Generator().manual_seed(0)
    n, poses = len(problem.stack), problem.stack.poses
    axis = torch.randn(n, 3, generator=generator)
    turn = from_rotation_vector(axis / axis.norm(dim=1, keepdim=True) * torch.deg2rad(torch.tensor(degrees)))
    shift = poses.shift + angstrom * (torch.rand(n, 2, generator=generator) * 2 - 1)
    return problem.stack.with_poses(Poses(turn @ poses.rotation, shift))


def found(config, stack, folder):
    """Poses that a run finds into a folder."""
    folder.mkdir(exist_ok=True)
    return ab_initio.find_poses(config, build.open_data(config, stack), RunDirectory(folder), lambda stage, values: None)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, searches=0)], ids=["search and polish", "polish alone"])
def test_rough_poses_are_brought_home(planted, tmp_path, config):
    problem = planted(300, box=32, sigma=0.5)
    truth, poses = problem.stack.poses, found(config, rough(problem), tmp_path / "run")
    error = pose_error(poses.rotation, truth.rotation, poses.shift, truth.shift)
    assert error.angle.median() < 1.0
    assert error.shift.median() < 0.4  # Å, a tenth of a pixel


def test_a_run_stopped_between_passes_ends_as_if_it_had_not(planted, tmp_path, stopped_after_a_pass):
    problem = planted(80, box=24, sigma=0.5)
    stack, whole, stopped = rough(problem), tmp_path / "whole", tmp_path / "stopped"
    undisturbed = found(CONFIG, stack, whole)
    stopped_after_a_pass(lambda: found(CONFIG, stack, stopped))
    resumed = found(CONFIG, stack, stopped)
    assert torch.equal(resumed.rotation, undisturbed.rotation)
    assert torch.equal(resumed.shift, undisturbed.shift)


def test_noise_has_no_structure(planted, tmp_path):
    problem = planted(200, box=24, sigma=0.5)
    noise = torch.randn(200, 24, 24, generator=torch.Generator().manual_seed(1)).numpy()
    config = replace(CONFIG, pose_init=None, restarts=1)
    with pytest.raises(InputError, match="no structure emerged"):
        found(config, replace(problem.stack, source=ArraySource(noise), poses=None), tmp_path / "run")
    assert not (tmp_path / "run" / "stage.poses.pt").exists()


@pytest.mark.parametrize("box", [12, 16, 24, 64])
def test_shells_remain_beyond_the_first_band(box):
    grid = build.Grid(box, 4.0)
    assert ab_initio.first_band(grid) + ab_initio.EMERGED < grid.n_shells - 1


def test_folds_halve_each_half_set_by_particle():
    particle = torch.arange(100).repeat_interleave(3)
    half = 1 + particle % 2  # as RELION may number them: by turns
    fold = ab_initio.folds(half, particle, 0)
    assert torch.equal(fold % 2 + 1, half)
    assert torch.equal(fold.view(100, 3).amin(1), fold.view(100, 3).amax(1))
    assert torch.bincount(fold).min() > 3 * 15


def test_later_passes_must_show_more():
    first = ab_initio.Stage(0, torch.zeros(0), 11.0, 11.0)
    assert not first.emerges(13.0, 1.0)
    assert first.emerges(14.0, 1.0)
    later = replace(first, number=3)
    assert not later.emerges(15.0, 0.1), "what noise reaches when it settles on its own map"
    assert not later.emerges(16.0, 0.6), "particles still change places"
    assert later.emerges(16.0, 0.3)


@pytest.mark.parametrize("pose", ["given", "refine"])
def test_a_run_knows_whether_its_frame_is_its_own(planted, tmp_path, pose):
    """Poses that were found make a frame; those of a file keep theirs, whatever network refines either."""
    stack, options = rough(planted(60, box=24, sigma=0.5)), {"epochs": 0, "searches": 0, "polishes": 1, "pose": pose}
    found = cryorecon.train(stack, tmp_path / "found", zdim=0, pose_init="in memory", device="cpu", **options)
    given = cryorecon.train(stack, tmp_path / "given", zdim=0, device="cpu", **options)
    assert (found.searched, given.searched) == (True, False)
