"""cryoSPARC's files against cryoDRGN's parse of the same particles, and its zero rotations."""

import numpy as np
import pytest
import torch

from cryorecon.data.cryodrgn_files import read_ctf, read_poses
from cryorecon.data.cs import read_cs
from cryorecon.data.load import load_particles


def write_cs(path, n=4, **fields):
    columns = {
        "uid": np.arange(n, dtype="u8"),
        "blob/path": np.array([b">images.mrcs"] * n),
        "blob/idx": np.arange(n, dtype="u4"),
        "blob/shape": np.full((n, 2), 16, "u4"),
        "blob/psize_A": np.full(n, 2.5, "f4"),
        "alignments3D/pose": np.zeros((n, 3), "f4"),
        "alignments3D/shift": np.ones((n, 2), "f4"),
        "alignments3D/split": np.arange(n, dtype="u4") % 2,
        **fields,
    }
    table = np.zeros(n, [(name, v.dtype.str, v.shape[1:]) for name, v in columns.items() if v is not None])
    for name in table.dtype.names:
        table[name] = columns[name]
    with open(path, "wb") as file:
        np.save(file, table)


def test_real_particles_have_cryodrgns_poses_and_ctf(shared_data):
    folder = shared_data / "metadata"
    meta = read_cs(folder / "cryosparc_P12_J24_001_particles.cs")
    poses = read_poses(folder / "cryosparc_P12_J24_pose.pkl", 180, 2.95)
    ctf = read_ctf(folder / "cryosparc_P12_J24_ctf.pkl")
    torch.testing.assert_close(meta.rotation, poses.rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(meta.shift, poses.shift, atol=1e-5, rtol=0)
    torch.testing.assert_close(meta.optics.parameters, ctf.optics.parameters, atol=1e-6, rtol=1e-6)
    assert meta.box == 180
    assert sorted(np.unique(meta.half)) == [1, 2]


def test_real_particles_without_3d_alignments(shared_data):
    meta = read_cs(shared_data / "metadata/cryosparc_J2_particles_exported.cs")
    assert meta.rotation is None
    assert meta.optics is not None
    assert all(name.startswith("J1/imported/") for name in meta.stacks)


def test_zero_rotation_vectors_are_the_identity(make_data):
    data = make_data(4)
    write_cs(data.folder / "p.cs")
    stack = load_particles(data.folder / "p.cs")
    torch.testing.assert_close(stack.poses.rotation, torch.eye(3).expand(4, 3, 3))
    assert stack.poses.shift.tolist() == [[2.5, 2.5]] * 4
    assert stack.half.tolist() == [1, 2, 1, 2]
    np.testing.assert_array_equal(stack.source.read(np.arange(4)), data.images)


def test_shifts_have_the_pixel_size_of_their_alignment(make_data):
    folder = make_data(4).folder
    write_cs(folder / "p.cs", **{"alignments3D/psize_A": np.full(4, 5.0, "f4")})
    assert read_cs(folder / "p.cs").shift[0].tolist() == [5.0, 5.0]
    assert read_cs(folder / "p.cs", halved=True).shift[0].tolist() == [5.0, 5.0]
    write_cs(folder / "p.cs")
    assert read_cs(folder / "p.cs", halved=True).shift[0].tolist() == [5.0, 5.0]


def test_of_several_classes_the_most_probable_gives_the_pose(tmp_path):
    pose = np.zeros((4, 3, 3), "f4")
    pose[:, 1, 2] = np.pi / 2
    write_cs(
        tmp_path / "p.cs",
        **{
            "alignments3D_multi/pose": pose,
            "alignments3D_multi/shift": np.arange(24, dtype="f4").reshape(4, 3, 2),
            "alignments3D_multi/class_posterior": np.tile(np.float32([0.1, 0.8, 0.1]), (4, 1)),
        },
    )
    meta = read_cs(tmp_path / "p.cs", "alignments3D_multi")
    assert meta.shift[0].tolist() == [5.0, 7.5]
    expected = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(meta.rotation[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("box", [8, 16])
def test_an_absent_alignment_names_those_that_are_there(tmp_path, box):
    from cryorecon.errors import InputError

    write_cs(tmp_path / "p.cs")
    with pytest.raises(InputError, match="expected poses under alignments_class_0, found alignments3D"):
        read_cs(tmp_path / "p.cs", "alignments_class_0")
