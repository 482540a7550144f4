"""cryoDRGN's files round trip, and match what plain pickle reads."""

import pickle

import numpy as np
import pytest
import torch

from cryorecon.data.cryodrgn_files import (
    read_ctf,
    read_indices,
    read_latents,
    read_poses,
    write_ctf,
    write_indices,
    write_latents,
    write_poses,
)
from cryorecon.errors import InputError


@pytest.mark.parametrize("ending", ["pkl", "npy"])
def test_poses_round_trip_in_angstrom(make_data, tmp_path, ending):
    poses = make_data(5).stack.poses
    write_poses(tmp_path / f"p.{ending}", poses, 16, 2.5)
    back = read_poses(tmp_path / f"p.{ending}", 16, 2.5)
    torch.testing.assert_close(back.rotation, poses.rotation)
    torch.testing.assert_close(back.shift, poses.shift)


def test_poses_pickles_hold_fractions_of_the_box(make_data):
    data = make_data(5, box=16, apix=2.5)
    rotation, shift = pickle.loads(data.poses.read_bytes())
    np.testing.assert_array_equal(rotation, data.stack.poses.rotation)
    np.testing.assert_allclose(shift * 16 * 2.5, data.stack.poses.shift, rtol=1e-6)
    # another box over the same extent: the same shifts in Å
    torch.testing.assert_close(read_poses(data.poses, 8, 5.0).shift, data.stack.poses.shift)


@pytest.mark.parametrize("held", [lambda r: r, lambda r: (r,)], ids=["bare", "1-tuple"])
def test_poses_without_shifts(make_data, tmp_path, held):
    rotation = make_data(4).stack.poses.rotation.numpy().astype("f8")
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(held(rotation)))
    back = read_poses(tmp_path / "p.pkl", 16, 1.0)
    assert not back.shift.any()
    np.testing.assert_allclose(back.rotation, rotation, rtol=1e-6)


@pytest.mark.parametrize("ending", ["pkl", "npy"])
def test_ctf_round_trips_and_is_rescaled_row_by_row(make_data, tmp_path, ending):
    optics = make_data(6).stack.optics
    apix = torch.linspace(1, 1.5, 6)
    write_ctf(tmp_path / f"c.{ending}", optics, 64, apix)
    table = read_ctf(tmp_path / f"c.{ending}")
    torch.testing.assert_close(table.optics.parameters, optics.parameters)
    torch.testing.assert_close(table.apix_at(32).float(), 2 * apix)


@pytest.mark.parametrize("ending", ["pkl", "ind", "npy", "txt"])
def test_indices_round_trip(tmp_path, ending):
    write_indices(tmp_path / f"i.{ending}", np.array([5, 2, 9]))
    assert read_indices(tmp_path / f"i.{ending}", 10).tolist() == [5, 2, 9]


def test_indices_as_lists_and_masks(tmp_path):
    (tmp_path / "l.pkl").write_bytes(pickle.dumps([3, 1]))
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(np.array([False, True, True])))
    assert read_indices(tmp_path / "l.pkl").tolist() == [3, 1]
    assert read_indices(tmp_path / "m.pkl", 3).tolist() == [1, 2]


def test_latents_round_trip(tmp_path):
    mean, log_variance = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("f4")
    write_latents(tmp_path / "z.pkl", mean, log_variance)
    for got, true in zip(read_latents(tmp_path / "z.pkl"), (mean, log_variance), strict=True):
        np.testing.assert_array_equal(got, true)
    np.savetxt(tmp_path / "z.txt", mean)
    np.testing.assert_allclose(read_latents(tmp_path / "z.txt")[0], mean, rtol=1e-6)
    assert read_latents(tmp_path / "z.txt")[1] is None


def test_real_pickles(shared_data):
    folder = shared_data / "metadata"
    poses = read_poses(folder / "cryosparc_P12_J24_pose.pkl", 180, 2.95)
    assert len(poses) == len(read_ctf(folder / "cryosparc_P12_J24_ctf.pkl")) == 2019


def test_other_endings_are_refused(make_data, tmp_path):
    with pytest.raises(InputError, match=r"\.pkl, \.npy"):
        write_poses(tmp_path / "p.txt", make_data(3).stack.poses, 16, 1.0)
