"""Images of different pixel sizes: each keeps its own for CTF and shift, the map's grid has the mean."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryorecon.data.convert import convert_poses
from cryorecon.data.cryodrgn_files import read_poses, write_ctf
from cryorecon.data.load import load_particles, read_metadata
from cryorecon.data.loader import Loader
from cryorecon.data.mrc import write_stack
from cryorecon.data.preprocess import Preparation, prepare
from cryorecon.data.star_write import write_star
from cryorecon.data.tilt_pair import tilt_pair
from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.ctf import ctf

OWN = torch.tensor([2.5, 2.6, 2.5, 2.6, 2.6], dtype=torch.float64)
MEAN = 2.56


@pytest.fixture
def mixed(make_data):
    """Five images of two pixel sizes as ``images.star``, shifts in Å of each image's own; their one header says 2.5."""
    data = make_data(5)
    pixel = replace(data.stack, pixel=OWN, apix=MEAN)
    data.star.unlink()
    write_star(data.star, pixel)
    return data


def load(path, **options):
    with pytest.warns(UserWarning, match=r"2\.5 to 2\.6 Å/px among the images; the map has their mean, 2\.56 Å/px"):
        return load_particles(path, **options)


def test_each_images_ctf_is_at_its_own_pixel_size(mixed):
    stack = load(mixed.star)
    assert stack.apix == pytest.approx(MEAN)
    grid = Grid(stack.box, stack.apix)
    expected = torch.cat([ctf(stack.optics[[i]], Grid(stack.box, float(OWN[i])).frequency) for i in range(5)])
    torch.testing.assert_close(stack.transfer(torch.arange(5), grid.frequency), expected, atol=1e-4, rtol=0)
    apart = (ctf(stack.optics, grid.frequency) - expected).abs().max()
    assert float(apart) > 0.05, "one pixel size for all would not do"
    for cache in (0, 1 << 29):
        batch = Loader(stack, grid, torch.ones(grid.n_shells), cache_bytes=cache).read(torch.tensor([3, 0]))
        torch.testing.assert_close(batch.power, expected[[3, 0]].square(), atol=1e-4, rtol=0)
    torch.testing.assert_close(stack[[4, 0]].transfer(torch.tensor([0]), grid.frequency), expected[[4]], atol=1e-4, rtol=0)


def test_a_header_is_compared_with_its_own_images(mixed):
    """2.5 Å/px in the header is right for two images and wrong for three."""
    write_stack(mixed.mrcs, mixed.images[[0, 2]], 2.5)
    write_stack(mixed.folder / "other.mrcs", mixed.images[[1, 3, 4]], 2.6)
    text = mixed.star.read_text()
    for old, new in (("2@images", "1@other"), ("4@images", "2@other"), ("5@images", "3@other"), ("3@images", "2@images")):
        text = text.replace(f"00000{old}.mrcs", f"00000{new}.mrcs")
    mixed.star.write_text(text)
    stack = load(mixed.star)
    np.testing.assert_array_equal(stack.images(), mixed.images)
    assert stack.apix == pytest.approx(MEAN)
    write_stack(mixed.mrcs, mixed.images[[0, 2]], 2.6)
    with pytest.raises(InputError, match=r"images.mrcs: expected 2\.5 Å/px .* found 2\.6 in the header"):
        load_particles(mixed.star)


def test_shifts_are_as_many_pixels_as_in_the_image(mixed):
    stack = load(mixed.star)
    pixels = mixed.stack.poses.shift / MEAN  # as the fixture's stack had them on its grid
    torch.testing.assert_close(stack.poses.shift / stack.apix, pixels, atol=1e-5, rtol=0)
    written = read_metadata(mixed.star)
    torch.testing.assert_close(written.shift / OWN[:, None].float(), pixels, atol=1e-5, rtol=0)
    for kind in ("pkl", "npy"):  # fractions of the box, and Å of each image
        convert_poses(written, mixed.folder / f"p.{kind}")
        by_file = load(mixed.star, poses=mixed.folder / f"p.{kind}")
        torch.testing.assert_close(by_file.poses.shift, stack.poses.shift, atol=1e-5, rtol=0)
    fractions = read_poses(mixed.folder / "p.pkl", 16, 1.0).shift
    torch.testing.assert_close(fractions, pixels, atol=1e-5, rtol=0)
    by_star = load(mixed.star, poses=mixed.star)
    torch.testing.assert_close(by_star.poses.shift, stack.poses.shift, atol=1e-5, rtol=0)


def test_pixel_sizes_survive_preprocess_and_write_star(mixed, tmp_path):
    stack = load(mixed.star)
    with pytest.warns(UserWarning, match="5 to 5.2 Å/px among the images; the map has their mean, 5.12"):
        small = load_particles(prepare(stack, tmp_path / "small", Preparation(box=8)))
    torch.testing.assert_close(small.pixel, 2 * OWN)
    torch.testing.assert_close(small.poses.shift, stack.poses.shift, atol=1e-5, rtol=0)
    write_star(tmp_path / "again.star", stack[[4, 0, 1, 2, 3]])
    torch.testing.assert_close(load(tmp_path / "again.star").pixel, OWN[[4, 0, 1, 2, 3]])


def test_one_group_alone_has_one_pixel_size(mixed):
    with pytest.raises(InputError, match=r"give --apix 2\.6 if the header is wrong"):
        load_particles(mixed.star, ind=np.array([1, 3]))
    stack = load_particles(mixed.star, ind=np.array([1, 3]), apix=2.6)
    assert stack.pixel is None
    assert stack.apix == 2.6


def test_within_a_percent_nobody_is_warned_but_each_ctf_is_its_own(make_data):
    data = make_data(4)
    write_ctf(data.ctf, data.stack.optics, 16, torch.tensor([2.5, 2.52, 2.5, 2.5]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack = load_particles(data.mrcs, ctf=data.ctf)
    assert stack.apix == pytest.approx(2.505)
    torch.testing.assert_close(stack.pixel, torch.tensor([2.5, 2.52, 2.5, 2.5]).double())
    write_ctf(data.ctf, data.stack.optics, 16, torch.tensor([2.5, 2.500001, 2.5, 2.5]))
    assert load_particles(data.mrcs, ctf=data.ctf).pixel is None  # rounding


def test_the_tilted_images_of_a_pair_keep_theirs(make_data):
    untilted = make_data(2).stack
    pair = tilt_pair(untilted, replace(untilted, apix=2.51), 0.7)
    assert pair.apix == 2.5
    assert pair.pixel.tolist() == [2.5, 2.51, 2.5, 2.51]
    assert tilt_pair(untilted, untilted, 0.7).pixel is None
