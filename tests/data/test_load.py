"""What load_particles puts together: sources of poses, CTF, pixel size and sign, and selections."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryorecon.data.cryodrgn_files import write_ctf, write_indices, write_poses
from cryorecon.data.load import load_particles
from cryorecon.data.mrc import write_stack
from cryorecon.data.stack import ParticleStack
from cryorecon.data.star_write import write_star
from cryorecon.errors import InputError


def test_a_stack_with_pickles_equals_its_star(make_data):
    data = make_data(7)
    a, b = load_particles(data.star), load_particles(data.mrcs, poses=data.poses, ctf=data.ctf)
    torch.testing.assert_close(a.poses.rotation, b.poses.rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(a.poses.shift, b.poses.shift, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.optics.parameters, b.optics.parameters, atol=1e-3, rtol=1e-6)
    assert a.apix == b.apix == 2.5
    for other in (load_particles(data.mrcs, poses=data.star, ctf=data.star),):
        torch.testing.assert_close(other.poses.shift, a.poses.shift)
        torch.testing.assert_close(other.optics.parameters, a.optics.parameters)


def test_lists_of_stacks(make_data, tmp_path):
    a, b = make_data(3, name="a"), make_data(4, name="b")
    (tmp_path / "list.txt").write_text("a/images.mrcs\n\nb/images.mrcs\n")
    stack = load_particles(tmp_path / "list.txt")
    np.testing.assert_array_equal(stack.source.read(np.arange(7)), np.concatenate([a.images, b.images]))


@pytest.mark.parametrize("kind", ["star", "mrcs"])
def test_ind_selects_images_poses_and_ctf_alike(make_data, tmp_path, kind):
    data = make_data(7)
    keep = np.array([5, 0, 3])
    write_indices(tmp_path / "ind.pkl", keep)
    extra = {} if kind == "star" else {"poses": data.poses, "ctf": data.ctf}
    for ind in (keep, tmp_path / "ind.pkl"):
        stack = load_particles(getattr(data, kind), ind=ind, **extra)
        np.testing.assert_array_equal(stack.source.read(np.arange(3)), data.images[keep])
        torch.testing.assert_close(stack.poses.shift, data.stack.poses.shift[keep], atol=1e-5, rtol=0)
        torch.testing.assert_close(stack.optics.parameters, data.stack.optics.parameters[keep], atol=1e-3, rtol=1e-6)


def test_ind_needs_only_the_stacks_it_uses(make_data, tmp_path):
    make_data(3, name="a")
    (tmp_path / "p.star").write_text("data_\n\nloop_\n_rlnImageName\n1@a/images.mrcs\n1@gone.mrcs\n2@a/images.mrcs\n")
    assert len(load_particles(tmp_path / "p.star", ind=np.array([0, 2]))) == 2


@pytest.mark.parametrize(
    ("ctf", "invert", "sign"),
    [
        (True, None, 1),
        (False, None, -1),
        (True, True, -1),
        (True, False, 1),
        (False, True, -1),
        (False, False, 1),
    ],
)
def test_the_contrast_rule(make_data, ctf, invert, sign):
    data = make_data(3)
    stack = load_particles(data.mrcs, ctf=data.ctf if ctf else None, invert=invert)
    assert stack.sign == sign
    np.testing.assert_array_equal(stack.images().numpy(), sign * data.images)


def test_a_ctf_of_another_box_is_rescaled(make_data):
    data = make_data(4, box=16, apix=2.5)
    write_ctf(data.ctf, data.stack.optics, 64, 0.625)
    assert load_particles(data.mrcs, ctf=data.ctf).apix == pytest.approx(2.5)


def write_header_apix(data, apix):
    write_stack(data.mrcs, data.images, apix)


@pytest.mark.parametrize("header", [0.0, 1.0, 2.51])
def test_the_stars_pixel_size_comes_before_a_header_that_does_not_know(make_data, header):
    data = make_data(3)
    write_header_apix(data, header)
    assert load_particles(data.star).apix == 2.5


def test_a_header_that_contradicts_is_an_error_until_apix_confirms(make_data):
    data = make_data(3)
    write_header_apix(data, 3.0)
    with pytest.raises(InputError, match=r"expected 2\.5 Å/px as in the CTF or star, found 3 in the header"):
        load_particles(data.star)
    with pytest.raises(InputError, match="found 3 in the header"):
        load_particles(data.mrcs, ctf=data.ctf)
    assert load_particles(data.star, apix=2.5).apix == 2.5
    with pytest.raises(InputError, match="found 3 in --apix"):
        load_particles(data.star, apix=3.0)


def test_without_a_star_apix_comes_before_the_header_and_nothing_warns(make_data):
    data = make_data(3)
    assert load_particles(data.mrcs).apix == pytest.approx(2.5)
    assert load_particles(data.mrcs, apix=4.0).apix == 4.0
    write_header_apix(data, 0.0)
    with pytest.warns(UserWarning, match="taking 1 Å/px, give --apix"):
        assert load_particles(data.mrcs).apix == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_particles(data.mrcs, apix=4.0).apix == 4.0


def test_shifts_in_pixels_use_the_pixel_size_found(make_data):
    data = make_data(1)
    text = "data_\n\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnOriginX\n_rlnOriginY\n"
    text += "1@images.mrcs 0 0 0 2 4\n"
    (data.folder / "p.star").write_text(text)
    assert load_particles(data.folder / "p.star").poses.shift.tolist() == [[5.0, 10.0]]
    assert load_particles(data.folder / "p.star", apix=3.0).poses.shift.tolist() == [[6.0, 12.0]]


def test_simulated_stacks_in_memory_load_nothing(make_data):
    data = make_data(3)
    stack = data.stack.from_images(data.images, 2.0)
    assert (len(stack), stack.box, stack.sign) == (3, 16, 1)


def test_poses_of_a_star_at_another_box(make_data):
    data = make_data(3)
    small = replace(data.stack, apix=5.0)
    write_star(data.folder / "half.star", small)
    torch.testing.assert_close(
        load_particles(data.mrcs, poses=data.folder / "half.star").poses.shift,
        data.stack.poses.shift,
        atol=1e-5,
        rtol=0,
    )
    write_poses(data.folder / "p.npy", data.stack.poses, 16, 2.5)
    torch.testing.assert_close(
        load_particles(data.mrcs, poses=data.folder / "p.npy").poses.shift, data.stack.poses.shift
    )


def test_images_of_some_particles_are_numbered_anew():
    stack = ParticleStack.from_images(np.arange(6.0)[:, None, None] * np.ones((6, 4, 4)), 1.0)
    stack = replace(stack, particle=torch.tensor([7, 2, 7, 5, 2, 5]))
    some = stack.of_particles(np.array([2, 0]))  # ids 7 and 2
    assert some.particle.tolist() == [0, 1, 0, 1]
    assert some.images()[:, 0, 0].tolist() == [0.0, 1.0, 2.0, 4.0]


def test_rows_that_name_an_image_again_are_told(make_data):
    data = make_data(6)
    rows = [line for line in data.star.read_text().splitlines() if "@" in line]
    data.star.write_text(data.star.read_text().rstrip() + "\n" + "\n".join(rows[2:4]) + "\n")
    with pytest.warns(UserWarning, match="found 2 of 8 rows that name one again, the first row 7"):
        assert len(load_particles(data.star)) == 8
    assert len(load_particles(data.star, ind=np.arange(6))) == 6  # nothing to warn of


def test_a_list_that_names_a_stack_twice_is_told(make_data):
    data = make_data(3)
    (data.folder / "list.txt").write_text("images.mrcs\nimages.mrcs\n")
    with pytest.warns(UserWarning, match="found 3 of 6 rows that name one again, the first row 4"):
        load_particles(data.folder / "list.txt", apix=2.5)


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_images_whose_squares_float32_does_not_hold_are_refused(make_data, factor):
    data = make_data(3)
    write_stack(data.mrcs, data.images * np.float32(factor), 2.5)
    with pytest.raises(InputError, match="found too large or small"):
        load_particles(data.star)
