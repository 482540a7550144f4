"""Poses by the network's own schedule: what it searches when, in which map, and that it can be stopped."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cryorecon.errors import InputError
from cryorecon.geometry.rotations import angle_between
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.search import Plan
from cryorecon.inference.pose.table import PoseTable
from cryorecon.model import Model
from cryorecon.training import ab_initio, build, network_search
from cryorecon.training.config import RunConfig
from cryorecon.training.network_search import Drawn, March, march_for, search_all, signal_amplitude
from cryorecon.training.run_directory import RunDirectory
from cryorecon.volumes.voxel_grid import VoxelGrid

PLAN = Plan(8.0, level=2, shifts=4, subdivisions=2, kmin=6, kmax=6, survivors=12)
CONFIG = RunConfig("in memory", conformation="fixed", schedule="network", search_epochs=2, ps_freq=1, pretrain=40, window=False,
                   width=16, layers=1, t_extent=1.0, t_ngrid=3, l_start=5, l_end=8, polishes=1, mask_radius=1.0)


def test_searches_come_every_few_epochs_in_a_growing_band():
    march = March(30, 5, 0, 32.0, replace(PLAN, kmin=12, kmax=12))
    assert [epoch for epoch in range(1, 31) if march.searches(epoch)] == [1, 6, 11, 16, 21, 26]
    bands = [march.at(epoch).kmax for epoch in (1, 6, 11, 26, 30)]
    assert bands[0] == 12
    assert bands == sorted(bands)
    assert bands[-2:] == [32, 32]  # the ramp ends after four fifths
    assert march.at(11).kmin == 12


def test_a_small_box_bounds_the_band():
    march = march_for(replace(CONFIG, l_start=40, l_end=50), replace(PLAN, kmin=40, kmax=40), 8.0)
    assert march.last == 7
    assert march.plan.kmin == 7


@pytest.mark.parametrize("motion", [0.0, 0.6])
def test_the_search_looks_at_the_present_map_and_each_image_at_its_own_z(planted, motion):
    problem = planted(24, box=24, motion=motion)
    maps = problem.maps if motion else problem.maps[:1]

    class Known(nn.Module):
        known = None

        def forward(self, hypotheses, batch, score=None):
            return hypotheses.with_z(problem.z[batch.particle][:, None], torch.zeros(len(batch), 1))

    table = PoseTable.unknown(24)
    model = Model(problem.grid, VoxelGrid.from_density(maps, problem.grid), table, Known() if motion else Fixed())
    told = search_all(model, problem.loader(), table, replace(PLAN, kmax=10))
    angle = torch.rad2deg(angle_between(table.rotation, problem.stack.poses.rotation))
    assert angle.median() < 3  # the nodes lie 3.75 degrees apart
    assert told["nodes kept at level 2"] == 12
    assert told["searched_to_A"] == pytest.approx(24 * 4 / 10)


def test_power_of_the_molecule_is_told_from_that_of_the_noise(planted):
    problem = planted(400, box=24, sigma=2.0)
    wanted = float((problem.clean.abs().square() * problem.loader().of(torch.arange(400)).power.square()).sum()
                   / problem.loader().of(torch.arange(400)).power.square().sum()) ** 0.5
    assert signal_amplitude(problem.loader()) == pytest.approx(wanted, rel=0.1)


def test_drawn_hypotheses_belong_to_particles(planted):
    problem = planted(6, box=16)
    stack = replace(problem.stack, particle=torch.tensor([0, 0, 1, 1, 2, 2]))
    batch = replace(problem.loader().of(torch.arange(6)), particle=stack.particle)
    found = Drawn(PoseTable.unknown(3), 2, torch.Generator().manual_seed(0))(Hypotheses.empty(6, "cpu"), batch, None)
    assert torch.equal(found.z[::2], found.z[1::2])
    assert torch.equal(found.rotation[::2], found.rotation[1::2])
    assert len(torch.unique(found.z[:, 0, 0])) == 3
    assert float((found.rotation @ found.rotation.transpose(-1, -2) - torch.eye(3)).abs().max()) < 1e-5


def found(config, stack, folder):
    folder.mkdir(exist_ok=True)
    return ab_initio.find_poses(config, build.open_data(config, stack), RunDirectory(folder), lambda stage, values: None)


@pytest.mark.parametrize("zdim", [0, 1])
def test_stopped_between_epochs_it_ends_as_if_it_had_not(planted, tmp_path, monkeypatch, zdim):
    problem = planted(60, box=24, sigma=0.5)
    stack = replace(problem.stack, poses=None)
    config = replace(CONFIG, zdim=zdim, conformation="encoder" if zdim else "fixed", enc_width=16, enc_layers=1)
    undisturbed = found(config, stack, tmp_path / "whole")
    searches, one = [], network_search.search_all

    def interrupted(*args):
        if searches:
            raise KeyboardInterrupt
        searches.append(args)
        return one(*args)

    monkeypatch.setattr(network_search, "search_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found(config, stack, tmp_path / "stopped")
    monkeypatch.setattr(network_search, "search_all", one)
    resumed = found(config, stack, tmp_path / "stopped")
    assert torch.equal(resumed.rotation, undisturbed.rotation)
    assert torch.equal(resumed.shift, undisturbed.shift)


def test_numbers_that_make_no_schedule_are_refused():
    for field in ("search_epochs", "ps_freq", "l_end"):
        with pytest.raises(InputError, match=field):
            replace(CONFIG, **{field: 0})
    with pytest.raises(InputError, match="symmetry"):
        replace(CONFIG, symmetry="D2")
