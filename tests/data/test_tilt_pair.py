"""Two stacks of the same particles as one stack of pairs, and poses of particles and of their images."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryorecon.data.cryodrgn_files import write_ctf, write_indices
from cryorecon.data.load import load_particles
from cryorecon.data.loader import Loader
from cryorecon.data.mrc import write_stack
from cryorecon.data.poses import Poses
from cryorecon.data.source import ArraySource, FileSource, JoinedSource, joined
from cryorecon.data.stack import ParticleStack
from cryorecon.data.star_write import write_star
from cryorecon.data.tilt_pair import first_image, load_tilt_pair, owner, poses_of_images, poses_of_particles, tilt_pair
from cryorecon.errors import InputError
from cryorecon.geometry import rotations
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.ctf import Optics

ANGLE = math.radians(45)


@pytest.fixture
def pair(make_data):
    """Untilted stack, tilted stack as files, and their images."""
    data, other = make_data(7), make_data(7, name="tilted")
    images = -3 * other.images  # make_data gives both the same
    write_stack(other.mrcs, images, 2.5)
    return data, other, images


def test_images_of_a_particle_lie_in_a_row_untilted_first(pair):
    data, other, images = pair
    stack = load_tilt_pair(load_particles(data.star), other.mrcs, ANGLE)
    assert (len(stack), stack.n_particles, stack.box, stack.apix, stack.sign) == (14, 7, 16, 2.5, 1)
    assert stack.particle.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    np.testing.assert_array_equal(stack.images().numpy(), np.stack([data.images, images], 1).reshape(14, 16, 16))
    assert stack.half.tolist() == [1, 1, 2, 2] * 3 + [1, 1]


def test_the_tilted_image_has_the_particles_pose_turned_by_the_stage(pair):
    data, other, _ = pair
    untilted = load_particles(data.star)
    stack = load_tilt_pair(untilted, other.star, ANGLE)  # poses of its own, which do not count
    c = math.sqrt(0.5)
    turn = torch.tensor([[1, 0, 0], [0, c, -c], [0, c, c]])
    torch.testing.assert_close(stack.tilt, torch.stack([torch.eye(3), turn]).repeat(7, 1, 1))
    torch.testing.assert_close(stack.poses.rotation[0::2], untilted.poses.rotation)
    torch.testing.assert_close(stack.poses.rotation[1::2], turn @ untilted.poses.rotation)
    torch.testing.assert_close(stack.poses.shift, untilted.poses.shift.repeat_interleave(2, 0))
    without = load_tilt_pair(load_particles(data.mrcs), other.mrcs, ANGLE)
    assert without.poses is None
    assert without.optics is None


def test_the_tilted_images_ctf_is_their_own_or_else_the_untilted_ones(pair, tmp_path):
    data, other, _ = pair
    untilted = load_particles(data.star)
    same = load_tilt_pair(untilted, other.mrcs, ANGLE).optics
    assert torch.equal(same.parameters, untilted.optics.parameters.repeat_interleave(2, 0))
    deeper = Optics(data.stack.optics.parameters + torch.tensor([5000.0, 5000, 0, 0, 0, 0, 0, 0, 0]))
    write_ctf(tmp_path / "ctf_tilt.pkl", deeper, 16, 2.5)
    write_star(other.star, replace(other.stack, optics=deeper))
    for path, ctf in ((other.mrcs, tmp_path / "ctf_tilt.pkl"), (other.star, None)):
        own = load_tilt_pair(untilted, path, ANGLE, ctf=ctf).optics.parameters
        torch.testing.assert_close(own[0::2], untilted.optics.parameters)
        torch.testing.assert_close(own[1::2], deeper.parameters, atol=1e-2, rtol=1e-5)


def test_the_contrast_is_the_untilted_images(pair):
    data, other, images = pair
    for untilted in (load_particles(data.mrcs), load_particles(data.star).uninverted()):
        assert untilted.sign == -1
        stack = load_tilt_pair(untilted, other.mrcs, ANGLE)
        np.testing.assert_array_equal(stack.images([1]).numpy(), -images[:1])


def test_ind_selects_pairs(pair, tmp_path):
    data, other, images = pair
    write_indices(tmp_path / "ind.pkl", np.array([4, 1]))
    stack = load_tilt_pair(load_particles(data.star, ind=tmp_path / "ind.pkl"), other.mrcs, ANGLE, ind=tmp_path / "ind.pkl")
    np.testing.assert_array_equal(stack.images().numpy(), np.stack([data.images[[4, 1]], images[[4, 1]]], 1).reshape(4, 16, 16))


def test_a_pair_written_as_a_star_is_read_as_a_tilt_series(pair):
    data, other, _ = pair
    stack = load_tilt_pair(load_particles(data.star), other.mrcs, ANGLE)
    write_star(data.folder / "pairs.star", stack)
    again = load_particles(data.folder / "pairs.star")
    assert torch.equal(again.particle, stack.particle)
    torch.testing.assert_close(again.tilt, stack.tilt, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.poses.rotation, stack.poses.rotation, atol=1e-5, rtol=0)
    assert torch.equal(again.images(), stack.images())


def test_a_batch_of_the_loader_holds_pairs(pair):
    data, other, _ = pair
    stack = load_tilt_pair(load_particles(data.star), other.mrcs, ANGLE)
    grid = Grid(16, 2.5)
    loader = Loader(stack, grid, torch.ones(grid.n_shells))
    batch = loader.of(torch.tensor([5, 2]))
    assert batch.image.tolist() == [10, 11, 4, 5]
    assert batch.particle.tolist() == [5, 5, 2, 2]


@pytest.mark.parametrize("header", [0.0, 1.0])
def test_a_header_that_does_not_know_its_pixel_size_has_the_untilted_ones(pair, header):
    data, other, images = pair
    write_stack(other.mrcs, images, header)
    assert load_tilt_pair(load_particles(data.star), other.mrcs, ANGLE).apix == 2.5


def refused(words, *arguments, **options):
    with pytest.raises(InputError, match=words) as error:
        load_tilt_pair(*arguments, **options)
    assert "\n" not in str(error.value)


def test_stacks_that_do_not_belong_together(pair, make_data):
    data, other, images = pair
    untilted = load_particles(data.star)
    refused("a tilted image for each of 7 untilted ones, found 5", untilted, make_data(5, name="few").mrcs, ANGLE)
    refused("expected images of 16 px as the untilted ones, found 12", untilted, make_data(7, box=12, name="small").mrcs, ANGLE)
    refused(r"expected 2\.5 Å/px as the untilted images, found 3", untilted, make_data(7, apix=3.0, name="a").star, ANGLE)
    write_stack(other.mrcs, images, 3.0)
    refused(r"expected 2\.5 Å/px as the untilted images, found 3.*--apix 2\.5", untilted, other.mrcs, ANGLE)
    assert load_tilt_pair(untilted, other.mrcs, ANGLE, apix=2.5).apix == 2.5
    refused("absent.mrcs: expected", untilted, data.folder / "absent.mrcs", ANGLE)
    refused("expected CTF for the 7 images", untilted, data.mrcs, ANGLE, ctf=make_data(4, name="four").ctf)
    refused("theirs by --ctf", load_particles(data.mrcs), data.star, ANGLE)
    twice = load_tilt_pair(untilted, data.mrcs, ANGLE)
    refused("expected one untilted image of each particle, found a tilt series", twice, data.mrcs, ANGLE)


def test_stacks_in_memory_that_were_treated_differently(pair):
    stack = pair[0].stack
    with pytest.raises(InputError, match="the other; load both alike"):
        tilt_pair(stack, stack.uninverted(), ANGLE)
    with pytest.raises(InputError, match="expected images not multiplied"):
        tilt_pair(stack, replace(stack, premultiplied=True), ANGLE)


def test_joined_sources_of_any_kind():
    """Images in memory and in files, selected from a selection."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 8, 8)).astype("f4")
    source = joined(ArraySource(first), joined(ArraySource(second), ArraySource(first)))
    assert isinstance(source, JoinedSource)
    assert (len(source), source.box) == (15, 8)
    everything, order = np.concatenate([first, second, first]), np.array([9, 0, 14, 5, 5, 2])
    np.testing.assert_array_equal(source.read(order), everything[order])
    np.testing.assert_array_equal(source.select(order).read(np.array([2, 1])), everything[[14, 0]])
    with pytest.raises(InputError, match="one box, found 8 and 6 px"):
        joined(ArraySource(first), ArraySource(np.zeros((2, 6, 6))))


def test_joined_files_are_files(pair):
    data, other, images = pair
    source = joined(FileSource.open([data.mrcs]), FileSource.open([other.mrcs]).select(np.array([3, 1])))
    assert isinstance(source, FileSource)
    np.testing.assert_array_equal(source.read(np.array([8, 6, 7])), np.stack([images[1], data.images[6], images[3]]))


@pytest.fixture
def series():
    """Eight images of three particles with ids in disorder, their tilts, and the particles' poses by id."""
    generator = torch.Generator().manual_seed(0)
    particle = torch.tensor([9, 9, 2, 9, 5, 5, 2, 5])
    source, tilt = ArraySource(np.zeros((8, 4, 4), "f4")), rotations.random(8, generator)
    stack = ParticleStack(source, 1.0, None, None, particle, tilt=tilt)
    return stack, Poses(rotations.random(3, generator), torch.randn(3, 2, generator=generator))


def test_poses_of_particles_and_of_their_images(series):
    stack, poses = series
    assert owner(stack).tolist() == [2, 2, 0, 2, 1, 1, 0, 1]
    assert first_image(stack).tolist() == [2, 4, 0]
    images = poses_of_images(poses, stack)
    torch.testing.assert_close(images.rotation[3], stack.tilt[3] @ poses.rotation[2])
    torch.testing.assert_close(images.shift[6], poses.shift[0])
    back = poses_of_particles(images, stack)
    torch.testing.assert_close(back.rotation, poses.rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(back.shift, poses.shift)


def test_without_tilts_the_poses_are_the_images(series):
    generator = torch.Generator().manual_seed(1)
    poses = Poses(rotations.random(8, generator), torch.randn(8, 2, generator=generator))
    stack = replace(series[0], tilt=None, particle=torch.arange(8))
    for found in (poses_of_images(poses, stack), poses_of_particles(poses, stack)):
        assert torch.equal(found.rotation, poses.rotation)
        assert torch.equal(found.shift, poses.shift)
