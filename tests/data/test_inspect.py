"""`inspect` says what a file is and names what looks wrong."""

import gzip

import numpy as np
import pytest
import torch

from cryorecon.data.cryodrgn_files import write_indices, write_poses
from cryorecon.data.inspect import inspect
from cryorecon.data.mrc import write_stack, write_volume
from cryorecon.data.poses import Poses
from cryorecon.data.preprocess import Preparation, prepare
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
    assert "prepared by cryorecon" in str(inspect(tmp_path / "out"))
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
