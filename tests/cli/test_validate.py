"""``cryorecon validate``: a sound run passes; Einstein from noise, and motion where nothing moves, are flagged."""

import json
import shutil

import numpy as np
import pytest
import torch

from cryorecon.analysis import validation
from cryorecon.analysis.controls import RandomPhases, Subject, fits, reconstruct, searched_again, still_images
from cryorecon.analysis.validation import compared, of_poses, of_still, shared_by
from cryorecon.cli.main import main
from cryorecon.data.cryodrgn_files import write_poses
from cryorecon.data.load import load_particles
from cryorecon.data.loader import Loader
from cryorecon.data.mrc import StackWriter, read_volume
from cryorecon.data.poses import Poses
from cryorecon.data.source import ArraySource
from cryorecon.geometry.grid import Grid
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.search import Plan, Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.metrics.fsc import fsc_curve
from cryorecon.simulation.experiment import Experiment, ctf_table
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.write import write_simulation
from cryorecon.training.evaluate import reopened
from cryorecon.training.run_directory import RunDirectory
from cryorecon.volumes.raster import Raster

BOX, N = 28, 300
SMALL = ["-n", "0", "--dec-dim", "16", "--dec-layers", "1", "--device", "cpu"]


def call(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A rigid molecule, and one that moves, in 300 images of 28 px at SNR 0.1."""
    out = tmp_path_factory.mktemp("validate")
    for name, motion in (("rigid", flexible("rigid", 1)), ("hinge", flexible("hinge", 3))):
        write_simulation(motion, Experiment(N, BOX, 7.0, 0.1, max_shift=1, optics=ctf_table(None)), out / name)
    return out


@pytest.fixture(scope="module")
def sound(folder):
    """A run on images of a molecule at its true poses."""
    assert call("train_nn", folder / "rigid/particles.star", *SMALL, "-o", folder / "sound") == 0
    return folder / "sound"


@pytest.fixture(scope="module")
def einstein(folder):
    """A run on images of noise, whose poses were searched for in the map of a molecule."""
    out = folder / "einstein"
    shutil.copytree(folder / "rigid", out)
    images = torch.randn(N, BOX, BOX, generator=torch.Generator().manual_seed(7))
    with StackWriter(out / "particles.mrcs", BOX, 7.0) as writer:
        writer.append(images.numpy())
    stack, grid, table = load_particles(out / "particles.star"), Grid(BOX, 7.0), PoseTable.unknown(N)
    reference = torch.from_numpy(read_volume(out / "maps/state_00.mrc")[0])
    amplitude = 0.3 / float(reference.std())  # any: it is the place of the maximum that counts
    search = Search(grid, table, Plan(14.0, 2, 3, 1, 8.0, 9.0, 8))
    search.look_at(Raster(amplitude * reference[None], grid, 9.0))
    loader = Loader(stack, grid, torch.ones(grid.n_shells))
    search(Hypotheses.empty(N, "cpu"), loader.of(torch.arange(N)))
    write_poses(out / "poses.pkl", Poses(table.rotation, table.shift), BOX, 7.0)
    assert call("train_nn", out / "particles.star", "--poses", out / "poses.pkl", *SMALL, "-o", out / "run") == 0
    return out / "run"


def subject_of(run, most=5000):
    directory = RunDirectory(run)
    return Subject.of(directory.config(), *reopened(directory), most)


def test_a_sound_run_passes(sound, tmp_path, capsys):
    assert call("validate", sound, "-o", tmp_path) == 0
    held = json.loads((tmp_path / "validate.json").read_text())
    assert held["passed"]
    assert [each["control"] for each in held["controls"]] == ["detail", "noise", "poses"]
    noise = held["controls"][1]["numbers"]
    assert noise["images"] > noise["control"] + 3
    assert "Every control passed." in capsys.readouterr().out
    for name in ("fsc.csv", "fits.csv", "fsc.png", "fits.png", "validate.html"):
        assert (tmp_path / name).is_file()
    assert len(np.loadtxt(tmp_path / "fits.csv", delimiter=",", skiprows=1)) == N


def test_einstein_from_noise_is_flagged(einstein, tmp_path, capsys):
    density = torch.from_numpy(read_volume(einstein / "consensus.mrc")[0])
    reference = torch.from_numpy(read_volume(einstein.parent / "maps/state_00.mrc")[0])
    assert float(fsc_curve(density, reference).value[2:6].mean()) > 0.4  # Einstein it is
    assert call("validate", einstein, "-o", tmp_path) == 1
    held = json.loads((tmp_path / "validate.json").read_text())
    verdict = {each["control"]: each for each in held["controls"]}["noise"]
    assert verdict["passed"] is False
    assert abs(verdict["numbers"]["standard_errors"]) < 4
    assert "no better than noise" in capsys.readouterr().out


def of_given(folder, given, name):
    """What the control of poses says of a run on ``folder``'s images at these poses."""
    write_poses(folder / f"{name}.pkl", given, BOX, 7.0)
    poses = ["--poses", folder / f"{name}.pkl"]
    assert call("train_nn", folder / "rigid/particles.star", *poses, *SMALL, "-o", folder / name) == 0
    subject = subject_of(folder / name)
    return of_poses(subject, reconstruct(subject, subject.stack, subject.given()))


def test_poses_are_told_from_those_of_other_particles(folder, sound):
    subject = subject_of(sound)
    verdict = of_poses(subject, reconstruct(subject, subject.stack, subject.given()))
    assert verdict.passed
    assert verdict.numbers["standard_errors"] > 20
    assert verdict.numbers["standard_errors_of_shifts"] > 20


def test_poses_in_another_order_are_not_passed(folder):
    true = load_particles(folder / "rigid/particles.star").poses
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    verdict = of_given(folder, Poses(true.rotation[order], true.shift[order]), "another_order")
    assert not verdict.passed
    assert verdict.few or "another order" in verdict.words
    assert verdict.numbers["standard_errors"] < 4


def test_shifts_of_the_wrong_sign_are_flagged(folder):
    true = load_particles(folder / "rigid/particles.star").poses
    verdict = of_given(folder, Poses(true.rotation, -2 * true.shift), "wrong_sign")
    assert verdict.passed is False
    assert "sign, unit or order of the shifts" in verdict.words


@pytest.mark.parametrize(("motion", "moves"), [("hinge", True), ("rigid", False)])
def test_motion_is_told_from_chance(motion, moves, folder):
    """By components of the other half; on their own, half sets of so few images may agree on a component that isn't there."""
    out = folder / f"vae_{motion}"
    assert call("train_vae", folder / motion / "particles.star", "--zdim", 1, *SMALL, "-o", out) == 0
    subject = subject_of(out)
    verdict = of_still(subject, reconstruct(subject, subject.stack, subject.given()))
    assert verdict.passed is moves
    assert ("What z shows may be chance" in verdict.words) is not moves
    assert (verdict.numbers["motion"]["standard_errors"] > 5) is moves


@pytest.mark.slow
def test_a_run_with_conformations_has_a_fourth_control(folder, tmp_path):
    assert call("train_vae", folder / "hinge/particles.star", "--zdim", 2, *SMALL, "-o", tmp_path / "run") == 0
    assert call("validate", tmp_path / "run") == 0
    held = json.loads((tmp_path / "run/validate/validate.json").read_text())
    assert [each["control"] for each in held["controls"]] == ["detail", "noise", "poses", "motion"]


def test_a_search_that_overfits_is_measured(sound):
    """Passes in four folds, of 300 images, polished far beyond what is left of the molecule, share noise; given poses don't."""
    subject, first, band = subject_of(sound), 6, 11.0
    stack, mask = subject.with_random_phases(first), subject.problem.mask

    def shared(pose):
        found = reconstruct(subject, stack, pose)
        curve = fsc_curve(found.halves[0], found.halves[1], mask)
        assert float(curve.value[2:5].mean()) > 0.7  # what was left of the molecule is found again
        return shared_by(curve, slice(first + 2, 12), mask)

    given, chance = shared(subject.given())
    assert abs(given) < chance
    assert shared(searched_again(subject, stack, band))[0] > chance + 0.1


def test_random_phases_follow_from_seed_and_place():
    images = torch.randn(6, 16, 16, generator=torch.Generator().manual_seed(0)).numpy()
    source = RandomPhases(ArraySource(images), 4, 3)
    whole = source.read(np.arange(6))
    np.testing.assert_array_equal(source.read(np.array([4, 1])), whole[[4, 1]])
    np.testing.assert_array_equal(source.select(np.array([4, 1])).read(np.arange(2)), whole[[4, 1]])
    np.testing.assert_array_equal(images, torch.randn(6, 16, 16, generator=torch.Generator().manual_seed(0)).numpy())
    assert (len(source), source.box) == (6, 16)
    assert not np.allclose(RandomPhases(ArraySource(images), 4, 2).read(np.arange(6)), whole)


def test_still_images_are_the_mean_maps(sound):
    subject = subject_of(sound)
    found = reconstruct(subject, subject.stack, subject.given())
    still = reconstruct(subject, still_images(subject, found), subject.given())
    alike = fsc_curve(still.density, found.density, subject.problem.mask)
    assert float(alike.value[1:6].min()) > 0.9
    scale = float((still.density * found.density).sum() / found.density.square().sum())
    assert scale == pytest.approx(1, abs=0.1)


def test_noise_and_aligned_noise_gain_alike(einstein):
    subject = subject_of(einstein)
    found = reconstruct(subject, subject.stack, subject.given())
    ours, theirs = (fits(subject, stack, found)[0] for stack in (subject.stack, subject.with_random_phases(1)))
    assert abs(ours.mean() - theirs.mean()) < 0.3 * theirs.std()


def test_gains_are_compared_by_standard_errors():
    rng = np.random.default_rng(0)
    same = compared(rng.normal(0, 1, 1000), rng.normal(0, 1, 1000))
    assert abs(same["standard_errors"]) < 3
    assert abs(same["images_reach_more"] - 0.5) < 0.05
    apart = compared(rng.normal(1, 1, 1000), rng.normal(0, 1, 1000))
    assert apart["standard_errors"] == pytest.approx(1000**0.5 / 2**0.5, rel=0.1)
    assert apart["images_reach_more"] == pytest.approx(0.76, abs=0.03)


def test_few_particles_are_drawn(sound):
    subject = subject_of(sound, 120)
    assert subject.stack.n_particles == 120
    assert len(subject.scale) == 120 == len(subject.problem.half)
    assert validation.FITTED > 120


def test_too_few_particles_are_not_a_verdict(tmp_path, capsys):
    """Sixty faint images of a molecule: what they gain on noise is nothing sure, and no reason to call the map noise."""
    experiment = Experiment(60, BOX, 7.0, 0.01, max_shift=1, optics=ctf_table(None))
    write_simulation(flexible("rigid", 1), experiment, tmp_path / "data")
    assert call("train_nn", tmp_path / "data/particles.star", *SMALL, "-o", tmp_path / "run") == 0
    assert call("validate", tmp_path / "run") == 3
    said = capsys.readouterr().out
    assert "noise: too few particles." in said
    assert "60 particles can't tell" in said
    held = json.loads((tmp_path / "run/validate/validate.json").read_text())
    assert held["passed"] is False
    assert held["controls"][1]["few"] is True


@pytest.mark.parametrize(("standard_errors", "n", "few"), [
    (1.9, 60, True), (-1.0, 60, False), (0.5, 300, False), (4.0, 300, True), (4.0, 1000, False), (4.9, 5000, False),
])
def test_when_particles_are_too_few(standard_errors, n, few):
    assert validation.too_few(standard_errors, n) is few


def test_a_folder_that_cannot_be_is_told_before_the_work(sound, folder, monkeypatch, error_of):
    monkeypatch.setattr(validation, "validate", None)
    (folder / "taken").touch()
    assert "found a file" in error_of("validate", sound, "-o", folder / "taken")
    monkeypatch.setattr("cryorecon.training.train.first_map", None)
    assert "found a file" in error_of("backproject", folder / "rigid/particles.star", "-o", folder / "taken/below")


def test_what_cannot_be_validated(sound, folder, tmp_path, error_of):
    assert "at least 100" in error_of("validate", sound, "--most", 10)
    assert "is this a run directory" in error_of("validate", tmp_path)
    assert call("train_gan", folder / "rigid/particles.star", "-n", 0, "--device", "cpu", "-o", tmp_path / "gan") == 0
    assert "train_gan" in error_of("validate", tmp_path / "gan")
    assert not (tmp_path / "gan/validate").exists()
