"""`inspect` says what a file is and names what looks wrong."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryorecon.data.cryodrgn_files import write_indices, write_poses
from cryorecon.data.inspect import inspect
from cryorecon.data.mrc import write_stack, write_volume
from cryorecon.data.poses import Poses
from cryorecon.data.preprocess import Preparation, prepare
from cryorecon.data.star_write import write_star
from cryorecon.errors import InputError


def test_a_good_star_is_told_in_a_screen(make_data):
    data = make_data(9)
    report = inspect(data.star)
    text = str(report)
    assert not report.problems
    assert "nothing looks wrong" in text
    for part in (
        "RELION 3.1",
        "9 of 16 px in 1 stack",
        "float32",
        "little-endian",
        "2.5 Å/px",
        "300 kV",
        "phase shift 11.46°",
        "5 and 4 images",
        "poses      yes",
        "all images",
    ):
        assert part in text
    assert len(text.splitlines()) < 24
    assert max(map(len, text.splitlines()[1:])) < 160


def test_a_star_of_image_names_alone_lacks_poses_ctf_and_pixel_size(make_data):
    data = make_data(3)
    rows = "".join(f"{i + 1}@images.mrcs\n" for i in range(3))
    (data.folder / "bare.star").write_text(f"data_\n\nloop_\n_rlnImageName #1\n{rows}")
    write_stack(data.mrcs, data.images, 1.0)  # what programs write that don't know
    report = inspect(data.folder / "bare.star")
    assert not report.problems, "images without poses can be used"
    text = str(report)
    for part in ("not in it:", "- poses: train_nn and train_vae find them", "- CTF: give it by --ctf", "- pixel size: 1 Å/px"):
        assert part in text
    assert "not in it" not in str(inspect(data.star))
    write_stack(data.mrcs, data.images, 0.0)
    assert "no pixel size anywhere" in str(inspect(data.folder / "bare.star"))


def test_pixel_sizes_that_vary_are_told_with_the_maps(make_data):
    data = make_data(3)
    for last, part in ((2.6, "2.5 to 2.6 Å/px, a map has their mean, 2.533"), (2.7, "2.5 to 2.7 Å/px, too much for one map")):
        data.star.unlink()
        write_star(data.star, replace(data.stack, pixel=torch.tensor([2.5, 2.5, last], dtype=torch.float64)))
        assert inspect(data.star).problems == [f"pixel sizes vary: {part}"]  # the header, 2.5, is in their range


def test_a_simulation_is_not_called_prepared(make_data):
    data = make_data(3)
    write_star(data.star, replace(data.stack, white=True))
    text = str(inspect(data.star))
    assert "prepared" not in text
    assert "marked by cryorecon as white protein" in text


def test_defects_of_images_are_named(make_data):
    data = make_data(9, box=15)
    data.images[3] = np.nan
    data.images[5] = 1.0
    write_stack(data.mrcs, data.images, 4.0)
    text = str(inspect(data.star))
    for part in (
        "box 15 is odd",
        "1 images with NaN or infinite values, the first number 4",
        "one constant value, the first number 6",
        "pixel size: 2.5 Å/px in the star or cs file, 4 in the header",
    ):
        assert part in text


def test_images_of_another_strength_and_repeated_rows_are_named(make_data):
    data = make_data(9)
    data.images[4] *= 100
    data.images[6] /= 100
    write_stack(data.mrcs, data.images, 2.5)
    last = data.star.read_text().rstrip().splitlines()[-1]
    data.star.write_text(data.star.read_text().rstrip() + f"\n{last}\n")
    text = str(inspect(data.star))
    assert "2 images of which the standard deviation is more than 10 times the usual" in text
    assert "the first number 5" in text
    assert "found 1 of 10 rows that name one again, the first row 10" in text


def test_absent_stacks_and_missing_columns_do_not_hide_the_rest(make_data):
    data = make_data(5)
    data.star.write_text(data.star.read_text().replace("rlnVoltage", "rlnOther"))
    data.mrcs.unlink()
    text = str(inspect(data.star))
    for part in ("defocus without rlnVoltage", "1 of 1 stacks are absent", "images     5 of 16 px", "poses      yes"):
        assert part in text


def test_pickles_and_their_defects(make_data, tmp_path):
    data = make_data(4)
    assert "poses (cryoDRGN)" in str(inspect(data.poses))
    assert "16 px at 2.5 Å/px" in str(inspect(data.ctf))
    write_indices(tmp_path / "i.pkl", np.array([3, 9]))
    assert "2, 3 to 9" in str(inspect(tmp_path / "i.pkl"))
    write_poses(data.poses, Poses(data.stack.poses.rotation * 1.1, data.stack.poses.shift), 16, 2.5)
    assert "4 of 4 that are none" in str(inspect(data.poses))


def test_maps(tmp_path):
    volume = np.random.default_rng(0).normal(size=(9, 9, 9))
    write_volume(tmp_path / "v.mrc", volume, 0.0)
    text = str(inspect(tmp_path / "v.mrc"))
    assert "9 x 9 x 9" in text
    assert "odd box" in text
    assert "no pixel size" in text
    write_volume(tmp_path / "w.mrc", volume[:, :, :8], 1.5)
    (tmp_path / "w.mrc.gz").write_bytes(gzip.compress((tmp_path / "w.mrc").read_bytes()))
    assert "not cubic" in str(inspect(tmp_path / "w.mrc.gz"))


def test_prepared_folders_and_samples(make_data, tmp_path, monkeypatch):
    data = make_data(30, box=16)
    prepare(data.stack, tmp_path / "out", Preparation())
    assert "marked by cryorecon as white protein" in str(inspect(tmp_path / "out"))
    monkeypatch.setattr("cryorecon.data.inspect.READ_BYTES", 10 * 16 * 16 * 4)
    assert "(10 images)" in str(inspect(data.star))
    assert "(all images)" in str(inspect(data.star, everything=True))


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        inspect(tmp_path / "none.star")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("real_particles/betagal_empiar10061/betagal_101_b96.star", ["dark protein", "101 of 96 px"]),
        (
            "real_particles/ribosome70S_tilt_tomodrgn/warptools_test_4-tomos_10-ptcls_box-32_angpix-12.star",
            ["tilt series", "premultiplied", "40 with", "float16", "white protein", "nothing looks wrong"],
        ),
        (
            "sim_truth/ribosome50S_10076_DE/10076_both_32_sim.star",
            ["no MAP id", "144 with 8 to 10 tilts", "phase shift 90°", "dark"],
        ),
        (
            "metadata/cryosparc_P12_J24_001_particles.cs",
            ["cryoSPARC", "2019 of 180 px in 50 stacks", "50 of 50 stacks are absent"],
        ),
        ("metadata/cryosparc_P12_J24_pose.pkl", ["poses (cryoDRGN)", "nothing looks wrong"]),
        ("maps/EMD-3001.map.gz", ["73 x 25 x 43", "not cubic"]),
    ],
)
def test_real_files(shared_data, name, parts):
    text = str(inspect(shared_data / name))
    for part in parts:
        assert part in text


def test_tensor_shapes_do_not_matter_for_plain_arrays(tmp_path):
    np.save(tmp_path / "z.npy", torch.zeros(4, 2).numpy())
    assert "float32 of shape (4, 2)" in str(inspect(tmp_path / "z.npy"))


def test_a_training_run_is_no_particles(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(InputError, match=r"found a training run; look at it by cryorecon analyze"):
        inspect(tmp_path)
