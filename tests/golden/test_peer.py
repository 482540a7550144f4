"""cryodrgn 4.3.1's own numbers (``make_peer_golden.py`` made them): its transforms, CTF, files and map signs."""

import pickle
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.data.cryodrgn_files import read_ctf, read_poses, write_ctf, write_poses
from cryorecon.data.mrc import read_volume, write_stack
from cryorecon.geometry.fourier import resample
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.ctf import Optics, ctf
from cryorecon.metrics.fsc import fsc_curve

BOX, APIX = 32, 5.0
LOW_BAND = slice(1, 6)  # shells; 40 views of 32 px leave few gaps in them


@pytest.fixture(scope="module")
def peer() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "peer_cryodrgn.npz") as held:
        return dict(held)


@pytest.fixture
def files(peer, tmp_path):
    """The peer's input, written by us."""
    for kind in ("ctf", "noctf"):
        write_stack(tmp_path / f"{kind}.mrcs", peer[f"images_{kind}"].astype(np.float32), APIX)
    (tmp_path / "given.pkl").write_bytes(pickle.dumps((peer["rotation"], peer["trans"])))
    (tmp_path / "ctf_given.pkl").write_bytes(pickle.dumps(peer["ctf"]))
    write_poses(tmp_path / "poses.pkl", read_poses(tmp_path / "given.pkl", BOX, APIX), BOX, APIX)
    write_ctf(tmp_path / "ctf.pkl", read_ctf(tmp_path / "ctf_given.pkl").optics, BOX, torch.full((40,), APIX))
    return tmp_path


def at_points(hartley: np.ndarray, grid: Grid, sign: int = 1) -> torch.Tensor:
    """The peer's transform (n, D + 1, D + 1) at plus or minus the grid's points, (n, P)."""
    kx, ky = (sign * grid.points).long().T + grid.box // 2
    return torch.from_numpy(hartley)[:, ky, kx]


def test_hartley_transform(peer):
    grid = Grid(BOX, APIX)
    pair = BOX * grid.hartley(grid.spectra(torch.from_numpy(peer["images_ctf"][:2].astype(np.float32))))
    for side, sign in ((0, 1), (1, -1)):
        torch.testing.assert_close(pair[..., side], at_points(peer["hartley"], grid, sign), atol=1e-3, rtol=1e-4)


def test_a_shift_moves_the_image_the_way_the_peer_does(peer):
    grid = Grid(BOX, APIX)
    spectra = grid.spectra(torch.from_numpy(peer["images_ctf"][:2].astype(np.float32)))
    moved = BOX * grid.hartley(spectra * grid.phase_ramp(APIX * torch.from_numpy(peer["shift_px"])))[..., 0]
    torch.testing.assert_close(moved, at_points(peer["moved"], grid), atol=2e-3, rtol=1e-3)


def test_ctf_is_the_negative_of_the_peers(peer, tmp_path):
    (tmp_path / "rows.pkl").write_bytes(pickle.dumps(peer["ctf_rows"]))
    optics: Optics = read_ctf(tmp_path / "rows.pkl").optics
    ours = ctf(optics, Grid(BOX, APIX).frequency)
    np.testing.assert_allclose(-ours.numpy(), peer["ctf_values"], atol=2e-3)


def test_our_pickles_are_what_the_peer_read(peer, files):
    """The peer's loaders took these files; its shifts come out in pixels of a box one too large (its defect)."""
    rotation, trans = pickle.loads((files / "poses.pkl").read_bytes())
    assert rotation.dtype == peer["rotation"].dtype
    assert trans.dtype == peer["trans"].dtype
    np.testing.assert_array_equal(rotation, peer["read_rotation"])
    np.testing.assert_allclose(trans * (BOX + 1), peer["read_trans"], rtol=1e-6, atol=1e-7)
    table = pickle.loads((files / "ctf.pkl").read_bytes())
    assert table.dtype == peer["ctf"].dtype
    np.testing.assert_allclose(table[:, 1:], peer["read_ctf"], rtol=1e-6)


def low_band_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean of the FSC over LOW_BAND: a correlation that either program's filter leaves alone.

    The peer adds a constant to its weights, which damps what its CTFs damp; ours is a Wiener filter by shell.
    """
    return float(fsc_curve(a, b).value[LOW_BAND].mean())


@pytest.mark.parametrize("sign", ["invert", "uninvert"])
@pytest.mark.parametrize("kind", ["ctf", "noctf"])
def test_the_same_command_makes_the_same_map(peer, files, kind, sign):
    given = ["--ctf", f"{files}/ctf.pkl"] if kind == "ctf" else []
    flag = ["--uninvert-data"] if sign == "uninvert" else []
    out = files / "map"
    argv = ["backproject", f"{files}/{kind}.mrcs", "--poses", f"{files}/poses.pkl", *given, *flag, "-o", str(out)]
    inverted = (kind, sign) in (("ctf", "uninvert"), ("noctf", "invert"))  # of images of white protein
    with pytest.warns(UserWarning, match="darker than what surrounds it") if inverted else nullcontext():
        assert main(argv) == 0
    ours, apix = read_volume(out / "backproject.mrc")
    theirs = torch.from_numpy(peer[f"map_{kind}_{sign}"].astype(np.float32))
    assert apix == pytest.approx(APIX)
    found = low_band_correlation(resample(torch.from_numpy(ours), len(theirs), 3), theirs)
    assert found > 0.95
