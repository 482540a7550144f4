"""Every bad input gives one line that says what was expected, what was found and what to do."""

import gzip
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryorecon.data import files, preprocess
from cryorecon.data.cryodrgn_files import read_ctf, read_indices, read_poses, write_ctf, write_poses
from cryorecon.data.cs import read_cs
from cryorecon.data.load import load_particles
from cryorecon.data.mrc import StackWriter, read_header, read_volume, write_stack, write_volume
from cryorecon.data.poses import Poses
from cryorecon.data.preprocess import Preparation, prepare
from cryorecon.data.source import ArraySource
from cryorecon.data.star_write import write_star
from cryorecon.errors import InputError


def complains(match, call, *args, **keywords):
    with pytest.raises(InputError, match=match) as caught:
        call(*args, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    assert "found" in message


def patch(path, offset, form, *values):
    raw = bytearray(path.read_bytes())
    struct.pack_into(form, raw, offset, *values)
    path.write_bytes(raw)


@pytest.mark.parametrize("name", ["none.mrcs", "none.star", "none.cs", "none.txt", "none.star.gz"])
def test_missing_file(tmp_path, name):
    complains("no such file", load_particles, tmp_path / name)


@pytest.mark.parametrize("option", ["poses", "ctf", "ind"])
@pytest.mark.parametrize("name", ["none.pkl", "none.npy"])
def test_missing_option_file(make_data, tmp_path, option, name):
    complains("no such file", load_particles, make_data(3).mrcs, **{option: tmp_path / name})


def test_unknown_ending_and_folder(tmp_path):
    (tmp_path / "a.hdf").write_text("x")
    complains("found .hdf", load_particles, tmp_path / "a.hdf")
    complains("particles.star as preprocess makes it, found neither", load_particles, tmp_path)


def test_truncated_stack(make_data):
    data = make_data(5, box=16)
    data.mrcs.write_bytes(data.mrcs.read_bytes()[:-100])
    complains(
        r"expected 6144 bytes .* found 6044 bytes \(4 whole sections\); the file is truncated",
        load_particles,
        data.mrcs,
    )


def test_truncated_header(make_data):
    data = make_data(3)
    data.mrcs.write_bytes(data.mrcs.read_bytes()[:500])
    complains("header of 1024 bytes, found 500 bytes", load_particles, data.mrcs)


def test_header_that_claims_more_images_than_the_file_holds(make_data):
    data = make_data(5, box=16)
    patch(data.mrcs, 8, "<i", 500)
    complains("for the 500 sections of 16 x 16 that its header claims, found 6144 bytes", load_particles, data.mrcs)


def test_not_an_mrc_file(tmp_path):
    (tmp_path / "a.mrcs").write_bytes(b"These are no images at all. " * 100)
    complains("makes sense in neither byte order", load_particles, tmp_path / "a.mrcs")


@pytest.mark.parametrize(("mode", "match"), [(3, "complex"), (4, "complex"), (101, "mode 101"), (5, "mode 5")])
def test_complex_or_unknown_mode(make_data, mode, match):
    data = make_data(3)
    patch(data.mrcs, 12, "<i", mode)
    complains(match, load_particles, data.mrcs)


def test_images_that_are_not_square(make_data):
    data = make_data(4, box=16)
    patch(data.mrcs, 0, "<2i", 32, 8)
    complains("expected square images, found 8 x 32", load_particles, data.mrcs)


def test_stacks_of_different_boxes(make_data, tmp_path):
    make_data(3, box=16, name="a")
    make_data(3, box=12, name="b")
    (tmp_path / "l.txt").write_text("a/images.mrcs\nb/images.mrcs\n")
    complains("found 12 px", load_particles, tmp_path / "l.txt")


def test_damaged_gzip(tmp_path):
    write_volume(tmp_path / "v.mrc", np.ones((4, 4, 4)), 1.0)
    (tmp_path / "v.mrc.gz").write_bytes(gzip.compress((tmp_path / "v.mrc").read_bytes())[:-20])
    complains("found a damaged one", read_volume, tmp_path / "v.mrc.gz")


def test_gzipped_stack(make_data):
    data = make_data(3)
    packed = data.folder / "images.mrcs.gz"
    packed.write_bytes(gzip.compress(data.mrcs.read_bytes()))
    complains("gunzip it", load_particles, packed)


def test_star_that_points_at_absent_stacks(tmp_path):
    rows = "".join(f"{i}@gone{i % 3}.mrcs\n" for i in range(1, 9))
    (tmp_path / "p.star").write_text(f"data_\n\nloop_\n_rlnImageName\n{rows}")
    complains(
        r"gone1.mrcs: .*no such file \(3 of 3 stacks are absent\); .*--datadir", load_particles, tmp_path / "p.star"
    )
    complains("3 of 3 stacks", load_particles, tmp_path / "p.star", datadir=tmp_path)


def test_star_that_names_an_image_the_stack_does_not_have(make_data):
    data = make_data(3)
    data.star.write_text(data.star.read_text().replace("000003@", "000009@"))
    complains("expected image numbers 1 to 3, found 9 in row 3", load_particles, data.star)


@pytest.mark.parametrize("name", ["0@images.mrcs", "x@images.mrcs", "@images.mrcs"])
def test_star_with_broken_image_names(make_data, name):
    data = make_data(3)
    data.star.write_text(data.star.read_text().replace("000002@images.mrcs", name))
    complains("such as 000001@stack.mrcs", load_particles, data.star)


def test_star_without_particles_or_image_names(tmp_path, make_data):
    (tmp_path / "a.star").write_text("hello\n")
    complains("no data_ block", load_particles, tmp_path / "a.star")
    (tmp_path / "b.star").write_text("data_model\n\n_rlnX 1\n")
    complains("block of particles, found 'model'", load_particles, tmp_path / "b.star")
    data = make_data(3)
    data.star.write_text(data.star.read_text().replace("rlnImageName", "rlnOther"))
    complains("names the images, found none", load_particles, data.star)


def test_star_with_broken_rows(make_data):
    data = make_data(3)
    lines = data.star.read_text().rstrip().split("\n")
    data.star.write_text("\n".join([*lines[:-1], lines[-1][:40]]) + "\n")
    complains("expected numbers in rln", load_particles, data.star)
    data.star.write_text("\n".join([*lines, lines[-1] + " 5 5 5"]) + "\n")
    complains("can't be read", load_particles, data.star)


def test_star_whose_optics_group_is_undefined(make_data):
    data = make_data(3)
    data.star.write_text(data.star.read_text().replace("1 opticsGroup1", "7 opticsGroup1"))
    complains("found group 1 undefined", load_particles, data.star)


def test_star_with_defocus_but_no_voltage(make_data):
    data = make_data(3)
    data.star.write_text(data.star.read_text().replace("rlnVoltage", "rlnOther"))
    complains("found rlnVoltage missing", load_particles, data.star)
    assert load_particles(data.star, ctf=data.ctf).optics is not None


@pytest.mark.parametrize("what", ["poses", "ctf"])
def test_counts_of_images_poses_and_ctf_that_differ(make_data, what):
    data, other = make_data(5, name="a"), make_data(4, name="b")
    extra = {what: getattr(other, what)}
    complains(r"for the 5 images of .*, found 4", load_particles, data.mrcs, **extra)
    complains("found 4", load_particles, data.mrcs, ind=np.arange(4), **extra)
    complains("found 4", load_particles, data.mrcs, **{what: other.star})


def test_box_that_disagrees_with_the_star(make_data):
    data = make_data(3, box=16)
    write_stack(data.mrcs, np.random.default_rng(0).normal(size=(3, 8, 8)), 2.5)
    complains("expected images of 16 px, found 8 px", load_particles, data.star)


def test_pixel_size_that_disagrees_with_the_ctf_file(make_data):
    data = make_data(3, apix=2.5)
    write_ctf(data.ctf, data.stack.optics, 16, 1.25)
    complains("found 2.5 in the header", load_particles, data.mrcs, ctf=data.ctf)


def test_a_ctf_file_of_another_box_is_named_with_both_boxes(make_data):
    data = make_data(3, box=16, apix=2.5)
    write_ctf(data.ctf, data.stack.optics, 32, 2.5)
    named = r"ctf.pkl: expected a CTF for images of 16 px .* found one for 32 px of 2.5 Å, .* 5 Å/px at 16 px, and 2.5 in "
    again = ".*parse_ctf_star.* -D 16 --Apix 2.5"
    complains(f"{named}the header; give --apix 5 if the header is wrong, else{again}", load_particles, data.mrcs, ctf=data.ctf)
    complains(f"{named}the star or cs file; write{again}", load_particles, data.star, ctf=data.ctf)
    assert load_particles(data.mrcs, ctf=data.ctf, apix=5.0).apix == 5.0
    write_star(data.folder / "big.star", replace(data.stack, source=ArraySource(np.zeros((3, 32, 32)))), "big.mrcs")
    complains("found one for 32 px", load_particles, data.mrcs, ctf=data.folder / "big.star")


def test_pixel_sizes_that_vary_too_much_among_images(make_data):
    data = make_data(4)
    write_ctf(data.ctf, data.stack.optics, 16, torch.tensor([2.5, 2.65, 2.5, 2.5]))
    complains(r"within 5% of each other, found 2.5 to 2.65 Å/px among the images; take one group at a time by --ind",
              load_particles, data.mrcs, ctf=data.ctf)
    assert load_particles(data.mrcs, ctf=data.ctf, ind=np.array([0, 2, 3])).apix == 2.5  # as the advice says


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "NaN or infinite"), (3.0, "constant")])
def test_nan_or_constant_images(make_data, value, what):
    data = make_data(5)
    data.images[2] = value
    write_stack(data.mrcs, data.images, 2.5)
    complains(rf"000003@.*: expected an image, found {what}.* in image 3 ", load_particles, data.star)
    assert len(load_particles(data.star, ind=np.array([0, 1, 3, 4]))) == 4


def test_one_nan_among_many_images_is_found_by_preprocess(make_data, tmp_path):
    data = make_data(200, box=8)
    data.images[1, 3, 3] = np.nan
    write_stack(data.mrcs, data.images, 2.5)
    stack = load_particles(data.star)  # the sample misses it
    complains("found NaN or infinite values in image 2 ", prepare, stack, tmp_path / "out", Preparation())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r * 1.01,
        lambda r: -r,
        lambda r: r + 0.01,
        lambda r: r * float("nan"),
        lambda r: 0 * r,
    ],
    ids=["scaled", "mirrored", "skewed", "NaN", "zero"],
)
def test_rotations_that_are_not_rotations(make_data, spoil):
    data = make_data(4)
    rotation = data.stack.poses.rotation.clone()
    rotation[2] = spoil(rotation[2])
    write_poses(data.poses, Poses(rotation, data.stack.poses.shift), 16, 2.5)
    complains(
        r"expected rotation matrices, found 1 of 4 that are none \(the first in row 3",
        load_particles,
        data.mrcs,
        poses=data.poses,
    )


def test_shifts_that_are_not_finite_or_in_pixels(make_data):
    data = make_data(4)
    rotation, shift = data.stack.poses.rotation, data.stack.poses.shift.clone()
    shift[1, 0] = float("nan")
    write_poses(data.poses, Poses(rotation, shift), 16, 2.5)
    complains("expected finite shifts", load_particles, data.mrcs, poses=data.poses)
    data.poses.write_bytes(pickle.dumps((rotation.numpy(), np.full((4, 2), 3.0))))
    complains("old format in pixels: divide", load_particles, data.mrcs, poses=data.poses)


def test_poses_or_ctf_of_other_shapes(make_data, tmp_path):
    data = make_data(3)
    for held, match in (
        ((np.ones((3, 2, 2)),), r"found \(3, 2, 2\)"),
        ("text", "found str"),
        ((), "found 0 arrays"),
        ((np.ones((3, 3, 3)), np.ones((2, 2))), r"\(2, 2\)"),
    ):
        (tmp_path / "p.pkl").write_bytes(pickle.dumps(held))
        complains(match, read_poses, tmp_path / "p.pkl", 16, 1.0)
    for held, match in (
        (np.ones((3, 4)), r"found shape \(3, 4\)"),
        (np.full((3, 9), np.nan), "finite CTF values"),
        (np.zeros((3, 9)), "positive box"),
        ([1], "found list"),
    ):
        (tmp_path / "c.pkl").write_bytes(pickle.dumps(held))
        complains(match, read_ctf, tmp_path / "c.pkl")
    complains("found a folder", read_ctf, data.folder / "..")


def test_non_cubic_or_nan_volume(tmp_path):
    write_volume(tmp_path / "v.mrc", np.ones((4, 6, 4)), 1.0)
    complains("cubic volume, found 4 x 6 x 4", read_volume, tmp_path / "v.mrc")
    write_volume(tmp_path / "n.mrc", np.full((4, 4, 4), np.nan), 1.0)
    complains("64 NaN", read_volume, tmp_path / "n.mrc")


def test_odd_box_where_even_is_needed(make_data, tmp_path):
    stack = make_data(3, box=15).stack
    complains("even box of at least 4 px, found 15; give -D 14", prepare, stack, tmp_path / "o", Preparation())
    complains("found 7", prepare, stack, tmp_path / "o", Preparation(box=7))
    complains("at most the images' 15 px, found -D 32", prepare, stack, tmp_path / "o", Preparation(box=32))
    assert not (tmp_path / "o").exists()


def test_pickle_that_holds_anything_but_arrays(make_data, tmp_path):
    class Attack:
        def __reduce__(self):
            return print, ("owned",)

    data = make_data(3)
    for option in ("poses", "ctf", "ind"):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(Attack()))
        complains("builtins.print; such a file can run code", load_particles, data.mrcs, **{option: tmp_path / "a.pkl"})


def test_npy_of_objects(make_data, tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    complains("array of numbers", load_particles, make_data(3).mrcs, ind=tmp_path / "a.npy")


@pytest.mark.parametrize("values", [[0, 5], [-1, 2], [7]])
def test_index_out_of_range(make_data, tmp_path, values):
    data = make_data(5)
    np.save(tmp_path / "i.npy", np.array(values))
    complains(
        f"indices from 0 to 4, found {min(values)} to {max(values)}", load_particles, data.star, ind=tmp_path / "i.npy"
    )
    complains("indices from 0 to 4", load_particles, data.star, ind=np.array(values))


@pytest.mark.parametrize("kind", ["file", "array"])
def test_indices_that_repeat(make_data, tmp_path, kind):
    data = make_data(5)
    ind = np.array([1, 1, 2, 2])
    np.save(tmp_path / "i.npy", ind)
    complains("expected each index once, found 2 of 4 repeated, the first 1; remove them", load_particles, data.star,
              ind=ind if kind == "array" else tmp_path / "i.npy")


def test_indices_that_are_none(tmp_path):
    for text, match in (("a b\n", "whole numbers"), ("1.5\n", "whole numbers"), ("1 2\n3 4\n", "whole numbers")):
        (tmp_path / "i.txt").write_text(text)
        complains(match, read_indices, tmp_path / "i.txt")
    np.save(tmp_path / "i.npy", np.zeros(0, int))
    complains("at least one index", read_indices, tmp_path / "i.npy")


def test_cs_files_of_other_kinds(tmp_path):
    (tmp_path / "a.cs").write_bytes(b"CSDAT" + bytes(100))
    complains("numpy's format, found b'CSDAT", read_cs, tmp_path / "a.cs")
    (tmp_path / "b.cs").write_bytes(b"\x93NUMPY" + bytes(10))
    complains("damaged", read_cs, tmp_path / "b.cs")
    with (tmp_path / "c.cs").open("wb") as file:
        np.save(file, np.arange(3))
    complains("table of particles", read_cs, tmp_path / "c.cs")


def test_real_group_file_is_refused(shared_data):
    complains("found .csg", load_particles, shared_data / "metadata/P9_J209_particles.csg")
    complains("block of particles", load_particles, shared_data / "metadata/relion31_class2d_run_it025_model.star")


def test_tilt_series_without_its_tomograms(shared_data, tmp_path):
    base = "real_particles/ribosome70S_tilt_tomodrgn/warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
    text = (shared_data / f"{base}.star").read_text()
    (tmp_path / "p.star").write_text(text)
    complains("--tomograms", load_particles, tmp_path / "p.star")
    other = tmp_path / "other.star"
    tomograms = (shared_data / f"{base}_tomograms.star").read_text()
    other.write_text(tomograms.replace("data_Unt_050", "data_Unt_999"))
    complains("block for tomogram Unt_050", load_particles, tmp_path / "p.star", tomograms=other)
    (tmp_path / "p.star").write_text(text.replace("[0,1,1,1,1,0,", "[0,1,1,1,1,", 1))
    other.write_text(tomograms)
    complains("37 flags", load_particles, tmp_path / "p.star", tomograms=other)


def test_subtomograms_in_three_dimensions(make_data):
    data = make_data(3)
    text = data.star.read_text()
    data.star.write_text(text.replace(" 16 2 \n", " 16 3 \n"))
    complains("found 3-D subtomograms", load_particles, data.star)
    data.star.write_text(text.replace("rlnOriginXAngst", "rlnTomoVisibleFrames"))
    complains("rlnTomoName missing", load_particles, data.star)


def test_no_space_left(make_data, tmp_path, monkeypatch):
    stack = make_data(3).stack
    usage = files.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    complains("GB of free disk space, found 0.000 GB", prepare, stack, tmp_path / "o", Preparation())
    complains("free disk space", write_volume, tmp_path / "v.mrc", np.ones((8, 8, 8)), 1.0)
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "v.mrc").exists()


def test_output_over_the_input(make_data):
    data = make_data(3)
    before = data.mrcs.read_bytes()
    complains("isn't the input", prepare, data.stack, data.folder / "images.star", Preparation())
    assert data.mrcs.read_bytes() == before
    other = data.folder / "p.star"  # the star alone would be replaced
    data.star.rename(other)
    complains("p.star: .* isn't the input", prepare, load_particles(other), other, Preparation())
    assert not (data.folder / "p.mrcs").exists()


def test_output_folder_that_is_a_file(make_data, tmp_path):
    (tmp_path / "f").write_text("x")
    complains("found a file of that name", write_poses, tmp_path / "f" / "p.pkl", make_data(3).stack.poses, 16, 1.0)


def test_images_of_another_box_are_not_appended(tmp_path):
    def append():
        with StackWriter(tmp_path / "s.mrcs", 8, 1.0) as out:
            out.append(np.zeros((2, 4, 4)))

    complains("images of 8 x 8", append)
    assert preprocess.part_name(tmp_path / "s.mrcs").exists() is False
    complains("no such file", read_header, tmp_path / "s.mrcs")
