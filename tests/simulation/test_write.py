"""`cryorecon simulate`: a folder that every reader here understands, and clear refusals."""

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.data.cryodrgn_files import read_ctf, read_poses
from cryorecon.data.load import load_particles
from cryorecon.data.mrc import read_header, read_volume
from cryorecon.data.tilt_pair import load_tilt_pair
from cryorecon.geometry.rotations import angle_between
from cryorecon.simulation.experiment import simulate_stack
from cryorecon.simulation.motion import flexible

SMALL = ["-n", "70", "-D", "32", "--apix", "6", "--max-shift", "1.5", "--states", "3"]


def simulate(folder, *options):
    return main(["simulate", "-o", str(folder), *SMALL, *options])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "set"
    assert simulate(path) == 0
    return path


def test_the_files_of_a_simulation(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {"particles.mrcs", "particles.star", "poses.pkl", "ctf.pkl", "truth.npz",
                     *(f"maps/state_0{i}.mrc" for i in range(3))}


def test_star_pickles_and_truth_agree(folder):
    stack = load_particles(folder / "particles.star")
    truth = np.load(folder / "truth.npz")
    rotation, shift = torch.from_numpy(truth["rotation"]), torch.from_numpy(truth["shift"])
    assert (len(stack), stack.box, stack.apix, stack.sign) == (70, 32, 6.0, 1)
    assert stack.half.tolist() == [1, 2] * 35
    pickled, table = read_poses(folder / "poses.pkl", 32, 6.0), read_ctf(folder / "ctf.pkl")
    for poses in (stack.poses, pickled):
        assert float(angle_between(poses.rotation, rotation).max()) < 1e-3
        torch.testing.assert_close(poses.shift, shift, atol=1e-4, rtol=0)
    torch.testing.assert_close(table.optics.parameters, stack.optics.parameters, atol=1e-2, rtol=1e-5)
    assert float(shift.abs().max()) <= 9
    assert sorted(set(truth["state"].tolist())) == [0, 1, 2]
    assert (truth["coordinate"].shape, float(truth["apix"]), int(truth["box"])) == ((3, 1), 6.0, 32)


def test_the_files_hold_the_stack_that_python_makes(folder):
    stack, truth = simulate_stack(flexible("hinge", 3), 70, 32, 6.0, max_shift=1.5)
    written = load_particles(folder / "particles.star").images()
    torch.testing.assert_close(written, stack.images(), rtol=0, atol=1e-5 * float(written.std()))
    density, apix = read_volume(folder / "maps" / "state_02.mrc")
    assert (density.shape, apix) == ((32, 32, 32), 6.0)
    assert len(truth) == 70


def test_tilted_images_beside_the_untilted(folder, tmp_path, capsys):
    assert simulate(tmp_path / "pairs", "--tilt-deg", "45") == 0
    assert "tilted by 45°" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "pairs").iterdir()} - {path.name for path in folder.iterdir()}
    assert names == {"particles_tilt.mrcs", "ctf_tilt.pkl"}
    for name in ("particles.mrcs", "particles.star", "poses.pkl", "ctf.pkl", "truth.npz"):  # what is there without it
        assert (tmp_path / "pairs" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "pairs" / "ctf_tilt.pkl").read_bytes() == (folder / "ctf.pkl").read_bytes()
    stack, _ = simulate_stack(flexible("hinge", 3), 70, 32, 6.0, max_shift=1.5, tilt=np.pi / 4)
    read = load_tilt_pair(load_particles(tmp_path / "pairs" / "particles.star"), tmp_path / "pairs" / "particles_tilt.mrcs",
                          np.pi / 4, ctf=tmp_path / "pairs" / "ctf_tilt.pkl")
    torch.testing.assert_close(read.images(), stack.images(), rtol=0, atol=1e-5 * float(stack.images().std()))
    torch.testing.assert_close(read.tilt, stack.tilt)
    torch.testing.assert_close(read.poses.rotation, stack.poses.rotation, rtol=0, atol=1e-5)
    torch.testing.assert_close(read.optics.parameters, stack.optics.parameters, atol=1e-2, rtol=1e-5)
    assert torch.equal(read.half, stack.half)
    assert simulate(tmp_path / "pairs", "--overwrite") == 0
    assert not {path.name for path in (tmp_path / "pairs").iterdir()} & names


def test_options(tmp_path):
    assert simulate(tmp_path / "a", "--no-ctf", "--float16", "--weights", "1,0,1", "--snr", "0") == 0
    assert not (tmp_path / "a" / "ctf.pkl").exists()
    assert read_header(tmp_path / "a" / "particles.mrcs").mode == 12
    assert set(np.load(tmp_path / "a" / "truth.npz")["state"].tolist()) == {0, 2}
    stack = load_particles(tmp_path / "a" / "particles.star")
    assert stack.optics is None
    assert stack.sign == 1  # protein is white here, and the star says so
    projections = stack.images()
    assert float(projections.amax((1, 2)).mean() / projections.amin((1, 2)).abs().mean()) > 2


def test_overwriting_leaves_nothing_of_before(tmp_path):
    assert simulate(tmp_path / "a") == 0
    (tmp_path / "a" / "notes.txt").write_text("mine")
    assert simulate(tmp_path / "a", "--overwrite", "--no-ctf", "--motion", "rigid", "-n", "5") == 0
    assert not (tmp_path / "a" / "ctf.pkl").exists()
    assert [path.name for path in (tmp_path / "a" / "maps").iterdir()] == ["state_00.mrc"]
    assert len(load_particles(tmp_path / "a" / "particles.star")) == 5
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weights", "1,2"], "weights"),
        (["--weights", "a,b,c"], "--weights"),
        (["--atoms", "absent.pdb"], "--states"),
        (["--ctf-table", "absent.npz"], "absent.npz"),
        (["--noise", "absent.txt"], "absent.txt"),
        (["-n", "0"], "number of images"),
        (["--apix", "3"], "box of at least"),
        (["--apix", "0"], "pixel size"),
        (["--snr", "-1"], "SNR"),
        (["--b-factor", "nan"], "B-factor"),
        (["--tilt-deg", "nan"], "tilted"),
        (["--states", "0"], "states"),
        (["-n", "1000000000000"], "free disk space"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, capsys, options, words):
    assert simulate(tmp_path / "out", *options) == 2
    message = capsys.readouterr().err
    assert message.startswith("cryorecon: error: ")
    assert words in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert simulate(tmp_path / "out") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert main(["simulate", "-o", str(tmp_path / "out" / "mine.txt"), *SMALL]) == 2
