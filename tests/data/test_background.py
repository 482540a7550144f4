"""Patches of empty ice: where they are cut, what those of corners keep, and how they are written and read again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cryorecon.cli.main import main
from cryorecon.data import corners, empty_ice
from cryorecon.data.background import load_background, write_background
from cryorecon.data.corners import corner_patches, corner_side, quilt
from cryorecon.data.empty_ice import empty_windows
from cryorecon.data.load import load_particles
from cryorecon.data.mrc import read_header, write_stack, write_volume
from cryorecon.data.preprocess import Preparation, prepare_images
from cryorecon.data.stack import ParticleStack
from cryorecon.data.star_write import write_blocks, write_star
from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.imaging import noise
from cryorecon.imaging.masks import radius_map, soft_sphere

SIDE, APIX = 32, 2.0


@pytest.fixture
def micrographs(tmp_path):
    """Two micrographs of 400 x 300 px, coarse noise and dark particles, and the star of the particles cut from them, white."""
    import pandas as pd

    rng = np.random.default_rng(0)
    rows, images, folder = [], [], tmp_path / "micrographs"
    folder.mkdir()
    for name, places in (("a.mrc", [(60, 50), (60, 120), (200, 60), (330, 220)]), ("b.mrc", [(250, 150), (100, 200)])):
        picture = 7 + rng.normal(size=(300, 400)) + 0.5 * gaussian_filter(rng.normal(size=(300, 400)), 2) * 7
        for x, y in places:
            cut = np.s_[y - SIDE // 2 : y + SIDE // 2, x - SIDE // 2 : x + SIDE // 2]
            picture[cut] -= 4 * soft_sphere(SIDE, 8, 4, 2).numpy()
            images.append(-picture[cut])
            rows.append({"rlnImageName": f"{len(images):06d}@particles.mrcs", "rlnMicrographName": f"job/{name}",
                         "rlnCoordinateX": float(x), "rlnCoordinateY": float(y), "rlnOpticsGroup": 1})
        write_volume(folder / name, picture[None], APIX)
    write_stack(tmp_path / "particles.mrcs", np.stack(images).astype(np.float32), APIX)
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [APIX], "rlnMicrographOriginalPixelSize": [APIX]})
    write_blocks(tmp_path / "particles.star", {"optics": optics, "particles": pd.DataFrame(rows)})
    return tmp_path


def prepared(folder, *more):
    """Out of the command, its particles and patches."""
    assert main(["preprocess", str(folder / "particles.star"), "-o", str(folder / "out"), "--contrast", "white", *more]) == 0
    return load_particles(folder / "out"), load_particles(folder / "out" / "background.star")


def test_micrographs_give_a_patch_for_each_particle_prepared_like_it(micrographs, monkeypatch):
    seen = []

    def watched(picture, starts, side, n):
        found = empty_windows(picture, starts, side, n)
        seen.append((picture, starts, found))
        return found

    monkeypatch.setattr(empty_ice, "empty_windows", watched)
    particles, patches = prepared(micrographs, "--background", str(micrographs / "micrographs"), "-D", "16", "--radius", ".8")
    assert patches.micrograph.tolist() == particles.micrograph.tolist() == 4 * ["job/a.mrc"] + 2 * ["job/b.mrc"]
    assert (patches.box, patches.apix, patches.white, patches.sign, patches.optics) == (16, 4.0, True, 1, None)
    raw = np.concatenate([[-picture[y : y + SIDE, x : x + SIDE] for y, x in found] for picture, _, found in seen])  # now white
    expected = prepare_images(torch.from_numpy(raw), 16, Preparation(16, radius=0.8))
    torch.testing.assert_close(patches.images(), expected, atol=1e-5, rtol=1e-4)
    for picture, starts, found in seen:
        assert (found >= 0).all()
        assert (found + SIDE <= picture.shape).all()
        middle = np.zeros((300, 400), bool)
        for y, x in starts:
            middle[max(y, 0) : y + SIDE, x : x + SIDE] |= radius_map(SIDE, 2).numpy()[-min(y, 0) :] < SIDE / 2 - 1
        assert not any(middle[y : y + SIDE, x : x + SIDE].any() for y, x in found)
        gaps = np.abs(found[:, None] - found).max(2)[~np.eye(len(found), dtype=bool)]
        assert gaps.min() >= SIDE


def test_windows_avoid_what_is_coarse_and_what_is_dead():
    """Of a picture, noise but for a frame of a constant and a half full of dirt, the other half is taken."""
    rng = np.random.default_rng(1)
    picture = rng.normal(size=(320, 320)).astype(np.float32)
    picture[:, 160:] += 40 * gaussian_filter(rng.normal(size=(320, 160)), 10)
    picture[:100] = 0.0
    found = empty_windows(picture, np.zeros((0, 2), int), 32, 6)
    assert len(found) == 6
    assert (found[:, 1] + 32 <= 176).all()
    assert (found[:, 0] >= 100 - 8).all()


def test_windows_come_closer_where_there_is_no_room_and_no_closer_than_that():
    picture = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)
    nothing = np.zeros((0, 2), int)
    assert np.unique(empty_windows(picture, nothing, 32, 4) % 32).tolist() == [0]
    many = empty_windows(picture, nothing, 32, 1000)
    gaps = np.abs(many[:, None] - many).max(2)[~np.eye(len(many), dtype=bool)]
    assert 4 < len(many) <= 25
    assert gaps.min() == 8
    assert not len(empty_windows(picture, np.array([[16, 16]]), 32, 9))


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda d: (d / "micrographs" / "b.mrc").unlink(), "expected a micrograph, found no such file"),
    (lambda d: write_volume(d / "micrographs" / "b.mrc", np.zeros((1, 300, 400)), APIX), "constant"),
    (lambda d: write_volume(d / "micrographs" / "b.mrc", np.full((1, 300, 400), np.nan), APIX), "NaN"),
    (lambda d: write_volume(d / "micrographs" / "b.mrc", np.random.default_rng(0).normal(size=(1, 150, 200)), APIX),
     "found 200 x 150 px and one at x 250, y 150"),
    (lambda d: write_volume(d / "micrographs" / "b.mrc", np.random.default_rng(0).normal(size=(1, 300, 400)), APIX),
     "not like their places"),
    (lambda d: write_volume(d / "micrographs" / "b.mrc", np.random.default_rng(0).normal(size=(3, 300, 400)), APIX),
     "3 frames"),
    (lambda d: write_volume(d / "micrographs" / "b.mrc", np.random.default_rng(0).normal(size=(1, 300, 400)), 1.5), "1.5"),
])  # fmt: skip
def test_micrographs_that_do_not_fit_are_one_error_and_leave_nothing(spoil, says, micrographs, capsys):
    spoil(micrographs)
    assert main(["preprocess", str(micrographs / "particles.star"), "-o", str(micrographs / "out"), "--contrast", "white",
                 "--background", str(micrographs / "micrographs")]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cryorecon: error: ")]
    assert len(said) == 1
    assert says in said[0]
    assert not list(micrographs.glob("out/*"))


def test_a_star_without_coordinates_is_sent_to_the_corners(make_data, tmp_path):
    with pytest.raises(InputError, match="rlnCoordinateX"):
        empty_ice.read_picks(make_data(3).star)
    with pytest.raises(InputError, match="--background corners"):
        empty_ice.read_picks(make_data(3, name="other").mrcs)


def coloured(n, box, seed=0):
    """Noise images ``(n, D, D)`` of a spectrum that falls to a quarter."""
    grid = Grid(box, APIX)
    power = 1 / (0.25 + 0.75 * torch.arange(grid.n_shells) / grid.n_shells)
    return noise.draw(power, grid, n, torch.Generator().manual_seed(seed)), grid


def test_a_quilt_keeps_variance_and_what_is_finer_than_its_squares():
    images, grid = coloured(300, 32)
    squares = corners._corners(images, 12, 0.6)
    assert squares.shape == (1200, 12, 12)
    made = quilt(squares, 400, 32, torch.Generator().manual_seed(1))
    assert made.shape == (400, 32, 32)
    assert float(made.var(0).std() / made.var(0).mean()) < 0.1  # as even as 400 patches show
    found, power = (grid.shell_mean(grid.spectra(x).abs().square().mean(0)) for x in (made, images))
    assert float((found[4:] / power[4:] - 1).abs().max()) < 0.08


def test_a_quilts_covariance_is_the_squares_times_the_windows_overlap():
    """Of squares of one value each, nothing but the window makes the covariance."""
    squares = torch.randn(4000, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 8, 8)
    made = quilt(squares, 3000, 16, torch.Generator().manual_seed(1))
    half_sine = torch.sin(torch.pi * (torch.arange(8) + 0.5) / 8)
    for lag in (0, 1, 3, 6, 9):
        found = float((made[:, :, lag:] * made[:, :, : 16 - lag]).mean())
        assert found == pytest.approx(float((half_sine[lag:] * half_sine[: 8 - lag]).sum() / 4) if lag < 8 else 0, abs=0.04)


def test_corners_lie_outside_the_circle_and_are_of_their_micrograph():
    for box, radius in ((32, 0.5), (33, 0.7), (64, 0.92)):
        side = corner_side(box, radius)
        outside = radius_map(box, 2) > radius * box / 2 - 1e-3
        ends = slice(side), slice(-side, None)
        assert all(bool(outside[y, x].all()) for y in ends for x in ends)
        assert not bool(outside[: side + 3, : side + 3].all())
    images = coloured(60, 32)[0]
    images[:40] *= 3
    stack = replace(ParticleStack.from_images(images.numpy(), APIX),
                    micrograph=np.array(["loud"] * 40 + ["soft"] * 20, dtype=object))
    found = dict(corner_patches(stack, 0.5))
    assert {name: len(patches) for name, patches in found.items()} == {"loud": 40, "soft": 20}
    assert float(found["loud"].std() / found["soft"].std()) == pytest.approx(3, rel=0.1)
    again = dict(corner_patches(stack, 0.5))
    assert all(torch.equal(again[name], patches) for name, patches in found.items())
    assert not torch.equal(dict(corner_patches(stack, 0.5, seed=1))["loud"], found["loud"])


def test_corners_by_the_command(micrographs):
    particles, patches = prepared(micrographs, "--background", "corners", "--radius", ".5")
    assert patches.micrograph.tolist() == particles.micrograph.tolist()
    assert read_header(micrographs / "out" / "background.mrcs").shape == (6, 32, 32)
    outside = radius_map(32, 2) > 8
    torch.testing.assert_close(patches.images()[:, outside].std(1), torch.ones(6), atol=1e-4, rtol=0)


def test_corners_that_are_too_small_or_premultiplied_are_refused():
    stack = ParticleStack.from_images(coloured(3, 16)[0].numpy(), APIX)
    with pytest.raises(InputError, match="--radius"):
        next(corner_patches(stack, 0.92))
    with pytest.raises(InputError, match="premultiplied"):
        next(corner_patches(replace(stack, premultiplied=True), 0.5))


def test_patches_are_read_in_the_contrast_of_the_particles(tmp_path, make_data):
    data = make_data(5)
    write_background(data.stack, [("", data.stack.images())], tmp_path / "white.star", Preparation(normalise="none"))
    white = tmp_path / "white.star"
    assert load_particles(white).micrograph is None
    for stack in (data.stack, data.stack.uninverted()):  # not marked: what white patches are is known
        torch.testing.assert_close(load_background(white, stack).images(), data.stack.images())
        found = load_background(data.mrcs, stack)
        torch.testing.assert_close(found.images(), stack.images())
        assert found.optics is None
    marked = replace(data.stack, white=True)
    torch.testing.assert_close(load_background(white, marked.uninverted()).images(), -data.stack.images())


def test_patches_of_another_box_or_pixel_are_refused(make_data):
    data = make_data(5)
    for other in (make_data(5, box=18, name="box"), make_data(5, apix=3.0, name="pixel")):
        with pytest.raises(InputError, match="prepare both at once by cryorecon preprocess --background"):
            load_background(other.star, data.stack)


def test_no_patch_at_all_is_an_error_and_fewer_a_warning(make_data, tmp_path):
    stack = make_data(5).stack
    with pytest.raises(InputError, match="found none"):
        write_background(stack, [("a", torch.zeros(0, 16, 16))], tmp_path / "o" / "background.star", Preparation())
    assert not list((tmp_path / "o").iterdir())
    with pytest.warns(UserWarning, match="room for 2 patches beside 5 particles"):
        assert write_background(stack, [("a", stack.images()[:2])], tmp_path / "o" / "background.star", Preparation()) == 2


def test_micrographs_survive_selection_and_writing(micrographs):
    stack = load_particles(micrographs / "particles.star", ind=np.array([1, 4]))
    assert stack.micrograph.tolist() == ["job/a.mrc", "job/b.mrc"]
    assert stack[[1]].micrograph.tolist() == ["job/b.mrc"]
    write_star(micrographs / "again.star", stack)
    assert load_particles(micrographs / "again.star").micrograph.tolist() == stack.micrograph.tolist()
