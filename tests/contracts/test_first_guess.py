"""Searches of poses that begin from a map: of a file or a run, in any units, on any grid, and of either hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import cryorecon
from cryorecon.data.mrc import read_volume, write_volume
from cryorecon.errors import InputError
from cryorecon.geometry.fourier import centred_fft
from cryorecon.geometry.rotations import angle_between
from cryorecon.imaging.masks import radius_map
from cryorecon.metrics.resample import resample
from cryorecon.training import ab_initio, build
from cryorecon.training.config import CONV, GAN, RunConfig
from cryorecon.training.first_guess import first_guess, fitted_factor
from cryorecon.training.run_directory import RunDirectory

SEARCH = {"conformation": "fixed", "window": False, "t_extent": 1.0, "t_ngrid": 3, "l_start": 6.0, "base_healpy": 1,
          "searches": 2, "polishes": 1, "mask_radius": 1.0, "device": "cpu"}
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0]))  # in z


@pytest.fixture(scope="module")
def problem(planted):
    """100 images of 24 px of 4 Å, and the map that they are of."""
    return planted(100, box=24, sigma=0.5)


@pytest.fixture
def start(problem, tmp_path):
    """The file of a start: the planted map in other units."""
    write_volume(tmp_path / "map.mrc", 100 * problem.maps[0].numpy(), 4.0)
    return tmp_path / "map.mrc"


def found(problem, start, folder):
    """Poses that a search from a map finds, and the stages that it told of."""
    folder.mkdir(exist_ok=True)
    told = {}
    config = RunConfig("in memory", init=str(start), **SEARCH)
    table = ab_initio.find_poses(config, build.open_data(config, replace(problem.stack, poses=None)), RunDirectory(folder),
                                 told.__setitem__)
    return table, told


@pytest.mark.parametrize("mirror", [False, True])
def test_the_map_settles_frame_and_hand(problem, start, tmp_path, mirror):
    """Poses come out in the frame of the start, nothing laid on anything; those of the mirrored map as M R M."""
    if mirror:  # the origin, index 12, stays
        write_volume(start, np.roll(problem.maps[0].flip(0).numpy(), 1, 0), 4.0)
    table, told = found(problem, start, tmp_path / "run")
    truth = problem.stack.poses
    wanted = MIRROR @ truth.rotation @ MIRROR if mirror else truth.rotation
    assert float(torch.rad2deg(angle_between(table.rotation, wanted)).median()) < 1.0
    assert float((table.shift - truth.shift).norm(dim=1).median()) < 0.4  # Å, a tenth of a pixel
    assert "start from a map" in told
    assert not any(name.startswith("start 1/") for name in told), "no random start"


@pytest.mark.parametrize("unit", [1e-3, 1e4])
@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_the_factor_to_the_images_units_is_found(planted, unit, sigma):
    """Within 5 % (poses of the grid lie beside the true ones), the signal four times the noise or a ninth, in any units."""
    problem = planted(200, box=24, sigma=sigma)
    config, loader = RunConfig("in memory", init="map", **SEARCH), problem.loader()
    plan = ab_initio.schedule_for(config, problem.stack, torch.device("cpu")).plan
    with torch.no_grad():
        factor = fitted_factor(unit * problem.maps[0], loader, loader, replace(plan, kmax=8.0), None, 0)
    assert factor * unit == pytest.approx(1, abs=0.05)


def test_a_map_of_another_grid_is_brought_to_the_images(problem, start, tmp_path):
    other = resample(problem.maps[0] + 0.7, 4.0, 40, 3.0)  # 120 Å of 3 Å for 96 Å of 4 Å; a level of the solvent
    axis = torch.arange(40) - 20
    outside = (axis.abs() > 15)[:, None, None] | (axis.abs() > 15)[:, None] | (axis.abs() > 15)
    write_volume(tmp_path / "other.mrc", other.masked_fill(outside, 0.7).numpy(), 3.0)
    own, brought = (first_guess(path, problem.grid, 8.0) for path in (start, tmp_path / "other.mrc"))
    assert float((brought - own / 100).norm() / (own / 100).norm()) < 0.02


def test_nothing_beyond_the_band_comes_in(problem, start):
    spectrum = centred_fft(first_guess(start, problem.grid, 7.0), 3).abs()
    beyond = radius_map(24, 3).round() > 7
    assert float(spectrum[beyond].max()) < 1e-5 * float(spectrum.max())


def test_a_voxel_size_that_nobody_wrote_is_the_images(problem, start, tmp_path):
    write_volume(tmp_path / "bare.mrc", read_volume(start)[0], 0.0)
    torch.testing.assert_close(first_guess(tmp_path / "bare.mrc", problem.grid, 8.0), first_guess(start, problem.grid, 8.0))


@pytest.mark.parametrize(("box", "voxel", "says"), [
    (24, 1.0, "is the voxel size in its header right"), (20, 0.0, "expected a voxel size"), (90, 4.0, "about the images' box")])
def test_maps_that_can_not_be_the_particle_are_refused(problem, tmp_path, box, voxel, says):
    write_volume(tmp_path / "map.mrc", torch.rand(box, box, box).numpy(), voxel)
    with pytest.raises(InputError, match=says):
        first_guess(tmp_path / "map.mrc", problem.grid, 8.0)


def test_a_map_of_one_value_is_refused(problem, tmp_path):
    write_volume(tmp_path / "map.mrc", np.full((24, 24, 24), 3, np.float32), 4.0)
    with pytest.raises(InputError, match="one value throughout"):
        first_guess(tmp_path / "map.mrc", problem.grid, 8.0)


@pytest.mark.parametrize(("zdim", "options"), [
    (0, {"epochs": 0}), (1, {"epochs": 0, "road": "plain", "conformation": "encoder", "enc_width": 8, "width": 8}),
    (0, GAN | {"epochs": 1, "critic_width": 2}), (1, CONV | {"epochs": 0, "width": 2})],
    ids=["one map", "latents", "a game's map", "a game's latent"])
def test_the_map_of_a_run(problem, tmp_path, zdim, options):
    run = cryorecon.train(problem.stack, tmp_path / "run", **{"zdim": zdim, "device": "cpu"} | options)
    middle = np.full((1, zdim), 0.5) if run.latents is None else np.median(run.z, 0)[None]
    write_volume(tmp_path / "middle.mrc", run.density(middle)[0].numpy(), 4.0)
    torch.testing.assert_close(*(first_guess(tmp_path / name, problem.grid, 8.0) for name in ("run", "middle.mrc")))


def test_a_whole_run_ends_on_the_starts_map(problem, start, tmp_path):
    """Sharper than its start, and lying on it: no alignment."""
    truth = problem.maps[0]
    run = cryorecon.train(replace(problem.stack, poses=None), tmp_path / "run", zdim=0, init=str(start), epochs=0,
                          **{name: value for name, value in SEARCH.items() if name != "conformation"})
    assert run.searched
    laid, coarse = (cryorecon.fsc(one, truth) for one in (run.density(np.zeros((1, 0)))[0],
                                                          first_guess(start, problem.grid, ab_initio.first_band(problem.grid))))
    assert (laid.value[1:8] > 0.95).all()
    assert laid.value[10] > 0.5 > coarse.value[10]


def test_a_run_stopped_between_passes_ends_as_if_it_had_not(problem, start, tmp_path, stopped_after_a_pass):
    """And the start is not read again."""
    undisturbed, _ = found(problem, start, tmp_path / "whole")
    stopped_after_a_pass(lambda: found(problem, start, tmp_path / "stopped"))
    start.unlink()
    resumed, _ = found(problem, start, tmp_path / "stopped")
    assert torch.equal(resumed.rotation, undisturbed.rotation)
    assert torch.equal(resumed.shift, undisturbed.shift)


def test_noise_aligned_on_a_start_is_no_structure(problem, start, tmp_path):
    """A map in which the search begins is not found in what does not hold it."""
    noise = np.random.default_rng(1).standard_normal((100, 24, 24)).astype(np.float32)
    stack = cryorecon.ParticleStack.from_images(noise, 4.0, problem.stack.optics)
    with pytest.raises(InputError, match="no structure emerged"):
        found(replace(problem, stack=stack), start, tmp_path / "run")
