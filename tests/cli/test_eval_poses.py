"""``cryorecon eval_poses`` from the command line."""

import json

import numpy as np
import pandas as pd
import pytest
import roma
import torch

from cryorecon.cli.main import main
from cryorecon.data.cryodrgn_files import write_ctf, write_indices, write_poses
from cryorecon.data.poses import Poses
from cryorecon.data.safe_pickle import dump_pickles
from cryorecon.data.star_write import write_blocks
from cryorecon.geometry.rotations import from_rotation_vector, random, symmetry_group, to_euler
from cryorecon.imaging.ctf import Optics
from cryorecon.training.config import RunConfig

N, BOX, APIX = 200, 64, 3.0


def star(path, poses):
    angles = np.rad2deg(to_euler(poses.rotation.double()).numpy())
    columns = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles.T, strict=True))
    columns |= {"rlnOriginXAngst": poses.shift[:, 0].double().numpy(), "rlnOriginYAngst": poses.shift[:, 1].double().numpy()}
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [APIX], "rlnImageSize": [BOX]})
    write_blocks(path, {"optics": optics, "particles": pd.DataFrame(columns | {"rlnOpticsGroup": 1})})


def cs(path, poses):
    """As cryoSPARC writes it: transposed rotation vectors, shifts in px of the alignment's pixel size."""
    table = np.zeros(len(poses), [("alignments3D/pose", "f4", 3), ("alignments3D/shift", "f4", 2),
                                  ("alignments3D/psize_A", "f4")])
    table["alignments3D/pose"] = roma.rotmat_to_rotvec(poses.rotation.transpose(-1, -2)).numpy()
    table["alignments3D/shift"], table["alignments3D/psize_A"] = poses.shift.numpy() / 1.5, 1.5
    with path.open("wb") as file:
        np.save(file, table)


@pytest.fixture
def planted(tmp_path):
    """A truth, and poses off by 2 degrees and about 0.5 px in a mirrored, turned and displaced frame."""
    generator = torch.Generator().manual_seed(0)
    truth = Poses(random(N, generator), 6 * torch.randn(N, 2, generator=generator))
    axis = torch.randn(N, 3, generator=generator)
    off = from_rotation_vector(torch.deg2rad(torch.tensor(2.0)) * axis / axis.norm(dim=1, keepdim=True)) @ truth.rotation
    noise = torch.randn(N, 2, generator=generator)
    noise *= 1.5 / noise.norm(dim=1, keepdim=True)
    shift = truth.shift + (truth.rotation @ torch.tensor([5.0, -8.0, 2.0]))[:, :2] + noise
    estimated = Poses(torch.diag(torch.tensor([-1.0, -1.0, 1.0])) @ off @ random(1, generator)[0].T, shift)
    np.savez(tmp_path / "truth.npz", rotation=truth.rotation.numpy(), shift=truth.shift.numpy(), apix=APIX, box=BOX,
             state=np.zeros(N, int))
    write_poses(tmp_path / "est.pkl", estimated, BOX, APIX)
    optics = Optics.from_columns(N, defocus_u=torch.linspace(8000, 20000, N), defocus_v=torch.linspace(9000, 21000, N),
                                 astigmatism=0.0, voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    write_ctf(tmp_path / "ctf.pkl", optics, BOX, APIX)
    return tmp_path, estimated, truth


@pytest.fixture
def undrawn(monkeypatch):
    """The picture is left out, which takes the longest."""
    monkeypatch.setattr("cryorecon.report.pose_plots.pose_errors", lambda *_: None)
    monkeypatch.setattr("cryorecon.report.style.save", lambda *_: None)


def judge(*arguments):
    return main(["eval_poses", *map(str, arguments)])


def complaint(capsys, *arguments) -> str:
    assert judge(*arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def read(folder):
    return json.loads((folder / "eval_poses.json").read_text())


def test_what_was_planted_comes_back(planted, capsys) -> None:
    folder, _, _ = planted
    out = folder / "out"
    assert judge(folder / "est.pkl", folder / "truth.npz", "--ctf", folder / "ctf.pkl", "-o", out) == 0
    printed = capsys.readouterr().out
    assert "hand: mirrored" in printed
    for line in ("rotation (°)", "|R - R'|_F^2", "shift (px)", "shift (Å)", "5°: 100.0 %"):
        assert line in printed
    found = read(out)
    assert found["hand"] == -1
    assert found["angle_degrees"]["median"] == pytest.approx(2.0, abs=0.1)
    assert found["squared_frobenius"]["mean"] == pytest.approx(8 * np.sin(np.deg2rad(1)) ** 2, rel=0.1)
    assert found["shift_angstrom"]["median"] == pytest.approx(1.5, abs=0.15)
    assert found["shift_px"]["mean"] == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(found["offset"]["angstrom"], [5, -8, 2], atol=0.5)
    assert found["share_within_degrees"]["5"] == 1
    assert found["angle_median_other_hand"] > 60
    assert (found["images"], found["box"], found["apix"], found["missing"]) == (N, BOX, APIX, None)
    assert sorted(path.name for path in out.iterdir()) == ["eval_poses.json", "eval_poses.png", "pose_error.csv"]
    table = np.genfromtxt(out / "pose_error.csv", delimiter=",", names=True)
    np.testing.assert_allclose(np.sort(table["angle_degrees"])[(N - 1) // 2], found["angle_degrees"]["median"], rtol=1e-5)
    np.testing.assert_allclose(table["shift_px"] * APIX, table["shift_angstrom"], rtol=1e-4)
    np.testing.assert_allclose(table["defocus_angstrom"], np.linspace(8500, 20500, N), rtol=1e-5)


@pytest.mark.usefixtures("undrawn")
def test_every_kind_of_file_says_the_same(planted) -> None:
    folder, estimated, truth = planted
    star(folder / "est.star", estimated)
    write_poses(folder / "est.npy", estimated, BOX, APIX)
    (folder / "run").mkdir()
    for name, poses in (("poses.2.star", truth), ("poses.10.star", estimated), ("poses.9.star", truth)):
        star(folder / "run" / name, poses)
    star(folder / "truth.star", truth)
    write_poses(folder / "truth.pkl", truth, BOX, APIX)
    cs(folder / "est.cs", estimated)
    pairs = [("est.pkl", "truth.npz"), ("est.cs", "truth.npz"), ("est.star", "truth.npz"),
             ("est.npy", "truth.pkl"), ("run", "truth.star")]
    results = []
    for i, (first, second) in enumerate(pairs):
        assert judge(folder / first, folder / second, "-D", BOX, "--apix", APIX, "-o", folder / f"o{i}") == 0
        results.append(read(folder / f"o{i}"))
    for each in results[1:]:
        for name in ("angle_degrees", "squared_frobenius", "shift_px", "shift_angstrom"):
            assert each[name] == pytest.approx(results[0][name], rel=1e-3), name


@pytest.mark.usefixtures("undrawn")
def test_units_that_are_not_known_are_not_made_up(planted, capsys) -> None:
    folder, estimated, truth = planted
    write_poses(folder / "truth.pkl", truth, BOX, APIX)
    files = (folder / "est.pkl", folder / "truth.pkl", "-o", folder / "o")
    assert judge(*files) == 0
    printed = capsys.readouterr().out
    assert "shift (box widths)" in printed
    assert "no shift error in Å and px, which takes the images' box and pixel size" in printed
    assert read(folder / "o")["shift_box_fraction"]["median"] == pytest.approx(1.5 / (BOX * APIX), rel=0.1)
    assert "shift_px" not in read(folder / "o")
    assert judge(*files, "-D", BOX) == 0
    assert read(folder / "o")["shift_px"]["median"] == pytest.approx(0.5, rel=0.1)
    assert "shift_angstrom" not in read(folder / "o")
    assert judge(*files, "--ctf", folder / "ctf.pkl") == 0
    assert read(folder / "o")["shift_angstrom"]["median"] == pytest.approx(1.5, rel=0.1)
    write_poses(folder / "truth.npy", truth, BOX, APIX)
    capsys.readouterr()
    assert judge(folder / "est.pkl", folder / "truth.npy", "-o", folder / "o") == 0
    assert "no shift error: shifts are in box" in capsys.readouterr().out
    dump_pickles(folder / "alone.pkl", (estimated.rotation.numpy(),))
    assert judge(folder / "alone.pkl", folder / "truth.npz", "-o", folder / "o") == 0
    assert "no shift error: rotations alone in" in capsys.readouterr().out
    assert read(folder / "o")["angle_degrees"]["median"] == pytest.approx(2.0, abs=0.1)
    assert read(folder / "o")["offset"] is None


@pytest.mark.usefixtures("undrawn")
def test_a_box_that_contradicts_the_files_is_refused(planted, capsys) -> None:
    folder, _, _ = planted
    files = (folder / "est.pkl", folder / "truth.npz")
    assert "expected images of 192 Å (64 px of 3 Å" in complaint(capsys, *files, "-D", 128)
    assert "--apix: expected more than 0" in complaint(capsys, *files, "--apix", 0)
    assert judge(*files, "-D", 32, "--apix", 6, "-o", folder / "o") == 0  # the same extent: px of other images
    assert read(folder / "o")["shift_px"]["median"] == pytest.approx(0.25, rel=0.1)


@pytest.mark.usefixtures("undrawn")
def test_symmetry(planted) -> None:
    folder, _, truth = planted
    generator = torch.Generator().manual_seed(1)
    which = symmetry_group("D2")[torch.randint(4, (N,), generator=generator)]
    write_poses(folder / "equivalent.pkl", Poses(truth.rotation @ which, truth.shift), BOX, APIX)
    files = (folder / "equivalent.pkl", folder / "truth.npz", "-o", folder / "o")
    assert judge(*files) == 0
    assert read(folder / "o")["share_within_degrees"]["5"] < 0.5
    assert judge(*files, "--symmetry", "d2") == 0
    found = read(folder / "o")
    assert found["symmetry"] == "D2"
    assert found["angle_degrees"]["mean"] < 0.1
    assert found["shift_px"]["mean"] < 1e-3


@pytest.mark.usefixtures("undrawn")
def test_a_run_on_some_of_the_images(planted, capsys) -> None:
    folder, estimated, _ = planted
    rows = np.array([5, 3, *range(50, 150)])
    write_indices(folder / "rows.npy", rows)
    (folder / "run").mkdir()
    star(folder / "run/poses.1.star", estimated[torch.from_numpy(rows)])
    files = (folder / "run", folder / "truth.npz", "--ctf", folder / "ctf.pkl", "-o", folder / "o")
    assert "found 102; give by --ind" in complaint(capsys, *files)
    assert judge(*files, "--ind", folder / "rows.npy") == 0
    first = read(folder / "o")
    assert (first["images"], first["angle_degrees"]["median"]) == (102, pytest.approx(2.0, abs=0.1))
    defocus = np.genfromtxt(folder / "o/pose_error.csv", delimiter=",", names=True)["defocus_angstrom"]
    np.testing.assert_allclose(defocus, np.linspace(8500, 20500, N)[rows], rtol=1e-5)
    run = RunConfig("x.star", conformation="fixed", ind=str(folder / "rows.npy")).to_yaml()
    (folder / "run/config.yaml").write_text("run:\n" + "".join(f"  {line}\n" for line in run.splitlines()))
    assert judge(*files) == 0  # as the run itself says
    again = read(folder / "o")
    assert again.keys() == first.keys()
    assert again["shift_px"] == pytest.approx(first["shift_px"], rel=1e-4)
    assert judge(folder / "est.pkl", folder / "truth.npz", "--ind", folder / "rows.npy", "-o", folder / "o") == 0
    assert read(folder / "o")["angle_degrees"] == pytest.approx(first["angle_degrees"], rel=1e-3)


def test_bad_input(planted, capsys) -> None:
    folder, estimated, _ = planted
    est, true = folder / "est.pkl", folder / "truth.npz"
    write_poses(folder / "short.pkl", estimated[:7], BOX, APIX)
    assert "expected poses of the 200 images" in complaint(capsys, folder / "short.pkl", true)
    assert "absent.star: expected poses" in complaint(capsys, est, folder / "absent.star")
    (folder / "empty").mkdir()
    assert "expected a run with poses.N.star" in complaint(capsys, folder / "empty", true)
    np.savez(folder / "z.npz", state=np.zeros(N))
    assert "z.npz: expected rotation" in complaint(capsys, est, folder / "z.npz")
    np.save(folder / "z.npy", np.zeros((N, 8)))
    assert "expected poses (N, 11)" in complaint(capsys, folder / "z.npy", true)
    np.savez(folder / "flat.npz", rotation=np.ones((N, 3, 3)), shift=np.zeros((N, 2)))
    assert "expected rotation matrices" in complaint(capsys, est, folder / "flat.npz")
    write_blocks(folder / "bare.star", {"particles": pd.DataFrame({"rlnDefocusU": [1.0, 2.0]})})
    assert "found no rotations" in complaint(capsys, folder / "bare.star", true)
    (folder / "poses.txt").write_text("1 2 3\n")
    assert "found .txt" in complaint(capsys, folder / "poses.txt", true)
    assert "symmetry: expected" in complaint(capsys, est, true, "--symmetry", "O")
    write_ctf(folder / "other.pkl", Optics.from_columns(3, defocus_u=1e4, defocus_v=1e4, voltage=300.0, cs=2.7,
                                                        amplitude_contrast=0.1, astigmatism=0.0), BOX, APIX)
    assert "expected a CTF of the 200 images" in complaint(capsys, est, true, "--ctf", folder / "other.pkl", "-o", folder / "o")
    assert not (folder / "o").exists()
