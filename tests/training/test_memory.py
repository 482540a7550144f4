"""What closed-form stages need of the memory is told before they begin."""

import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.objectives.em import LinearEM
from cryorecon.training import memory
from cryorecon.volumes.voxel_grid import VoxelGrid

GRID = Grid(20, 4.0)


@pytest.mark.parametrize(("z_dim", "band"), [(1, 9.0), (6, 5.0), (6, 12.0)])
def test_the_estimate_is_of_what_em_holds(z_dim, band):
    volumes = (VoxelGrid(GRID, z_dim, 5.0), VoxelGrid(GRID, z_dim, 5.0))
    em = LinearEM(GRID, torch.tensor([0, 1]), band, torch.ones(20, 20, 20), volumes, (lambda *_: None, lambda *_: None))
    sums = sum(part.numel() * 4 for each in em.sums for part in (each.gram, each.numerator))
    grams = sum(each.gram.numel() * 4 for each in em.sums)
    estimate = memory.low_rank_bytes(20, band, z_dim)
    assert sums + grams / 2 <= estimate <= 4 * sums


def test_the_machine_has_some_memory():
    assert 1e6 < memory.available(torch.device("cpu")) < 1e15


def test_without_meminfo_it_is_all_of_the_machines(tmp_path, monkeypatch):
    known = memory.available(torch.device("cpu"))
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "absent")
    assert memory.available(torch.device("cpu")) >= 0.5 * known


def test_a_zdim_that_does_not_fit_is_refused_and_one_that_does_is_named(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: memory.low_rank_bytes(20, 8.0, 5) + 1)
    memory.require_room(GRID, 8.0, 5)
    for z_dim in (6, 40):
        with pytest.raises(InputError, match=rf"zdim: expected .* for {z_dim} components .*give --zdim 5 at most"):
            memory.require_room(GRID, 8.0, z_dim)


def test_a_box_for_which_no_zdim_fits(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    with pytest.raises(InputError, match="make the box smaller"):
        memory.require_room(GRID, 8.0, 3)
