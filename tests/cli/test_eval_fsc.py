"""``cryorecon eval_fsc`` from the command line."""

import json
import warnings

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.data.mrc import write_volume
from cryorecon.metrics.alignment import Alignment, apply
from cryorecon.metrics.fsc import auc, cryobench_curve, fsc_curve, resolution
from cryorecon.metrics.resample import resample


@pytest.fixture
def pair(tmp_path):
    """Two noisy maps of one smooth random density, on disk."""
    generator = torch.Generator().manual_seed(0)
    signal = resample(torch.randn(10, 10, 10, generator=generator), 6.0, 30, 2.0)
    maps = [signal + 0.3 * torch.randn(signal.shape, generator=generator) for _ in range(2)]
    for name, density in zip("ab", maps, strict=True):
        write_volume(tmp_path / f"{name}.mrc", density.numpy(), 2.0)
    return tmp_path, *maps


def test_numbers_agree_with_the_library_and_everything_is_written(pair, capsys) -> None:
    folder, a, b = pair
    assert main(["eval_fsc", str(folder / "a.mrc"), str(folder / "b.mrc"), "-o", str(folder / "out")]) == 0
    printed = capsys.readouterr().out
    curve = fsc_curve(a, b)
    expected = resolution(curve, 0.5, 2.0)
    assert f"{expected.angstrom:.2f}" in printed
    assert "first crossing" in printed
    assert "mask: none" in printed
    written = json.loads((folder / "out/fsc.json").read_text())
    assert written["resolution"][0]["angstrom"] == pytest.approx(expected.angstrom)
    assert {each["convention"] for each in written["resolution"]} == {"rounded", "cryobench"}
    assert written["auc"]["cryobench"] == pytest.approx(auc(cryobench_curve(a, b)))
    table = np.genfromtxt(folder / "out/fsc.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["fsc"], curve.value, atol=1e-6)
    np.testing.assert_allclose(table["fsc_cryobench"][:15], cryobench_curve(a, b).value, atol=1e-6)
    assert np.isnan(table["fsc_cryobench"][15])
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["fsc.csv", "fsc.json", "fsc.png"]


def test_masks_are_named_and_resampled(pair, capsys) -> None:
    folder, a, b = pair
    mask = torch.zeros(15, 15, 15)
    mask[4:11, 4:11, 4:11] = 1
    write_volume(folder / "m.mrc", mask.numpy(), 4.0)
    arguments = ["eval_fsc", str(folder / "a.mrc"), str(folder / "b.mrc"), "-o", str(folder), "--mask"]
    assert main([*arguments, str(folder / "m.mrc")]) == 0
    written = json.loads((folder / "fsc.json").read_text())
    fine = resample(mask, 4.0, 30, 2.0)
    assert written["mask"].endswith("m.mrc")
    assert written["auc"]["rounded"] == pytest.approx(auc(fsc_curve(a, b, fine)), abs=1e-5)
    assert main([*arguments, "sphere"]) == 0
    assert "soft sphere (radius" in capsys.readouterr().out
    assert main([*arguments, str(folder / "absent.mrc")]) == 2


def test_other_grid_and_pose_are_brought_together(tmp_path, capsys) -> None:
    generator = torch.Generator().manual_seed(1)
    axis = (torch.arange(40) - 20) * 3.0
    atoms = torch.randn(40, 3, generator=generator) * torch.tensor([18.0, 12.0, 8.0]) + torch.tensor([0, 3.0, 1.0])
    x, y, z = (torch.exp(-0.5 * ((axis - atoms[:, i : i + 1]) / 6) ** 2) for i in range(3))
    density = torch.einsum("az,ay,ax->zyx", z, y, x)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    planted = Alignment(turn * torch.sign(torch.linalg.det(turn)), torch.tensor([5.0, -4.0, 3.0]).double(), -1, 1.0)
    write_volume(tmp_path / "a.mrc", resample(apply(planted, density, 3.0), 3.0, 36, 3.3).numpy(), 3.3)
    write_volume(tmp_path / "b.mrc", density.numpy(), 3.0)
    assert main(["eval_fsc", str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), "--align", "-o", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "mirrored in z" in printed
    assert "compared at 36 px of 3.3 Å" in printed
    written = json.loads((tmp_path / "fsc.json").read_text())
    assert written["alignment"]["correlation"] > 0.99
    assert written["resolution"][0]["pixels"] < 3
    assert (tmp_path / "aligned.mrc").is_file()


def test_unknown_pixel_size_warns_and_reports_pixels(pair, capsys) -> None:
    folder, a, b = pair
    write_volume(folder / "c.mrc", a.numpy(), 0.0)
    write_volume(folder / "d.mrc", b.numpy(), 0.0)
    with pytest.warns(UserWarning, match="no pixel size; resolution is in pixels only"):
        assert main(["eval_fsc", str(folder / "c.mrc"), str(folder / "d.mrc"), "-o", str(folder)]) == 0
    assert json.loads((folder / "fsc.json").read_text())["resolution"][0]["angstrom"] is None
    with pytest.warns(UserWarning, match="taking the other map's 2 Å"):
        assert main(["eval_fsc", str(folder / "a.mrc"), str(folder / "d.mrc")]) == 0
    capsys.readouterr()
    assert main(["eval_fsc", str(folder / "c.mrc"), str(folder / "d.mrc"), "--apix", "1.5"]) == 0
    assert "1.5 Å/px" in capsys.readouterr().out


def test_a_map_against_itself_is_told(pair, capsys) -> None:
    folder, a, _ = pair
    write_volume(folder / "copy.mrc", a.numpy(), 2.0)
    with pytest.warns(UserWarning, match="copy.mrc: expected another map than .*a.mrc, found the same voxels"):
        assert main(["eval_fsc", str(folder / "a.mrc"), str(folder / "copy.mrc")]) == 0
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["eval_fsc", str(folder / "a.mrc"), str(folder / "b.mrc")]) == 0


def test_nothing_resolved_is_said_and_no_figure_exceeds_the_box(pair, capsys) -> None:
    folder, a, _ = pair
    write_volume(folder / "c.mrc", -a.numpy(), 2.0)
    assert main(["eval_fsc", str(folder / "a.mrc"), str(folder / "c.mrc"), "-o", str(folder)]) == 0
    assert "≥60.00" in capsys.readouterr().out
    for found in json.loads((folder / "fsc.json").read_text())["resolution"]:
        assert not found["resolved"]
        assert found["angstrom"] == pytest.approx(60)


def test_the_aligned_map_does_not_replace_its_input(pair, capsys) -> None:
    folder = pair[0]
    (folder / "a.mrc").rename(folder / "aligned.mrc")
    before = (folder / "aligned.mrc").read_bytes()
    assert main(["eval_fsc", str(folder / "aligned.mrc"), str(folder / "b.mrc"), "--align", "-o", str(folder)]) == 2
    assert "isn't the input" in capsys.readouterr().err
    assert (folder / "aligned.mrc").read_bytes() == before


@pytest.mark.parametrize(("arguments", "says"), [
    (["a.mrc", "absent.mrc"], "absent.mrc"),
    (["a.mrc", "flat.mrc"], "cubic"),
    (["a.mrc", "b.mrc", "--apix", "0"], "above 0"),
    (["a.mrc", "zero.mrc"], "zero.mrc: expected a map, found 0 in every voxel"),
    (["ones.mrc", "b.mrc"], "ones.mrc: expected a map, found 1 in every voxel"),
    (["a.mrc", "b.mrc", "--mask", "zero.mrc"], "zero.mrc: expected a mask that leaves something"),
    (["a.mrc", "b.mrc", "--mask", "a.mrc"], "a.mrc: expected a mask between 0 and 1"),
    (["a.mrc", "b.mrc", "--mask", "faint.mrc"], "faint.mrc: expected a mask between 0 and 1, found 0.001 to 0.001"),
    (["a.mrc", "corner.mrc", "--mask", "middle.mrc"], "corner.mrc: expected a map that shows something where the mask"),
])
def test_bad_input_is_one_line(pair, capsys, arguments, says) -> None:
    folder = pair[0]
    write_volume(folder / "flat.mrc", np.zeros((4, 8, 8), np.float32), 1.0)
    corner, middle = np.zeros((2, 30, 30, 30), np.float32)
    corner[:4, :4, :4], middle[10:20, 10:20, 10:20] = 1, 1
    for name, values in (("zero", 0 * corner), ("ones", 1 + 0 * corner), ("corner", corner), ("middle", middle),
                         ("faint", 0.001 + 0 * corner)):
        write_volume(folder / f"{name}.mrc", values, 2.0)
    assert main(["eval_fsc", *(str(folder / each) if each.endswith("mrc") else each for each in arguments)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
