"""The train commands: options, endings, and one line for each thing that a user can get wrong."""

import argparse
import errno
import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cryorecon.cli import options
from cryorecon.cli.main import command, main
from cryorecon.data.cryodrgn_files import read_ctf, write_ctf, write_poses
from cryorecon.data.mrc import read_volume, write_stack, write_volume
from cryorecon.imaging.masks import window
from cryorecon.simulation.experiment import simulate_stack
from cryorecon.simulation.motion import flexible
from cryorecon.training import memory, run_directory
from cryorecon.training import train as training
from cryorecon.training.config import RunConfig

TINY = ["--dec-dim", "16", "--dec-layers", "1", "--atoms", "10", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(simulated):
    """40 images of 20 px."""
    return simulated(2, 40, 20, 1)


@pytest.fixture
def known(data):
    """The images and what is known about them, as cryoDRGN's users have it."""
    return [str(data / "particles.mrcs"), "--poses", str(data / "poses.pkl"), "--ctf", str(data / "ctf.pkl")]


def parsed(name, *arguments):
    parser = argparse.ArgumentParser()
    command(name).add_args(parser)
    return parser.parse_args(arguments)


# --- options -------------------------------------------------------------------------------------------------------


def test_every_field_of_the_configuration_has_an_option_or_a_reason():
    spelled = set(options.FLAGS) | {"particles"}
    assert {field.name for field in fields(RunConfig)} - spelled == {"limit", "objective"}  # Python; the command
    assert spelled <= {field.name for field in fields(RunConfig)}


def test_cryodrgns_command_is_understood():
    typed = ("p.mrcs --poses pose.pkl --ctf ctf.pkl --zdim 8 -n 25 -b 8 -o out --lr 1e-4 --beta 0.1 --seed 3 --ind i.pkl "
             "--datadir d --uninvert-data --no-window --enc-dim 64 --enc-layers 2 --dec-dim 128 --dec-layers 4 --pe-type "
             "gaussian --pe-dim 9 --feat-sigma 0.4 --checkpoint 5 --no-amp --do-pose-sgd --load latest")
    args = parsed("train_vae", *typed.split())
    assert options.given(args) == {
        "particles": os.path.abspath("p.mrcs"), "poses": os.path.abspath("pose.pkl"), "ctf": os.path.abspath("ctf.pkl"),
        "zdim": 8, "epochs": 25, "batch": 8, "lr": 1e-4, "beta": 0.1, "seed": 3, "ind": os.path.abspath("i.pkl"),
        "datadir": os.path.abspath("d"), "uninvert": True, "window": False, "enc_width": 64, "enc_layers": 2, "width": 128,
        "layers": 4, "encoding": "gaussian", "features": 9, "feature_sigma": 0.4, "checkpoint": 5, "amp": False,
        "pose": "refine"}  # fmt: skip


@pytest.mark.parametrize("name", ["train_vae", "train_nn", "backproject"])
def test_what_is_not_given_is_the_configurations_default(name):
    assert options.given(parsed(name, "p.mrcs", "-o", "out")) == {"particles": os.path.abspath("p.mrcs")}


def test_a_flag_that_only_cryodrgn_has_is_refused(error_of):
    said = error_of("train_vae", "p.mrcs", "--zdim", 2, "-o", "out", "--multigpu")
    assert "unrecognized arguments: --multigpu" in said


# --- what a run leaves, and how it goes on -----------------------------------------------------------------------------


def test_train_vae_works_as_it_stands(known, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert main(["train_vae", *known, "--zdim", "2", "-n", "2", "-o", str(out)]) == 0
    said = capsys.readouterr()
    for part in (out / "z.2.npy", out / "weights.2.pt", out / "consensus.mrc", f"cryorecon analyze {out}"):
        assert str(part) in said.out
    for part in ("40 images", "noise: sigma", "consensus: resolution", "low rank 1/", "epoch 2/2: loss"):
        assert part in said.err
    table = yaml.safe_load((out / "config.yaml").read_text())["run"]
    assert table["poses"] == known[2]
    assert table["zdim"] == 2


def test_plain_road_takes_an_encoder(known, tmp_path):
    out = tmp_path / "out"
    assert main(["train_vae", *known, "--zdim", "1", "-n", "1", "--road", "plain", "--enc-dim", "16", "--enc-layers", "1", "-o",
                 str(out), *TINY]) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["run"]["conformation"] == "encoder"


@pytest.mark.parametrize("more", [["--conformation", "table"], ["--volume", "voxels"], ["--refine-poses"], ["--atoms", "0"]])
def test_other_cells_of_the_grid_run(known, tmp_path, more):
    out = tmp_path / "out"
    assert main(["train_vae", *known, "--zdim", "1", "-n", "1", "-o", str(out), *TINY, *more]) == 0
    assert np.isfinite(np.load(next(out.glob("z.[01].npy")))).all()
    if "--refine-poses" in more:
        assert (out / "poses.1.png").is_file()
        assert main(["backproject", str(out / "poses.1.star"), "-o", str(tmp_path / "b"), "--device", "cpu"]) == 0


def test_resume_after_the_end_trains_on(known, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train_vae", *known, "--zdim", "1", "-n", "1", "-o", str(out), *TINY]) == 0
    metrics = out / "metrics.jsonl"
    first = json.loads(metrics.read_text())
    metrics.write_text(json.dumps(first | {"cpu_seconds": 1000.0}) + "\n")
    assert main(["train_vae", known[0], "-n", "2", "-o", str(out), "--load", "latest"]) == 0
    assert "resumed after epoch 1" in capsys.readouterr().err
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert first["cpu_seconds"] < 100
    assert 1000 < lines[1]["cpu_seconds"] < 1100, "the time of a resumed run goes on"
    assert yaml.safe_load((out / "config.yaml").read_text())["run"]["epochs"] == 2
    assert (out / "z.2.npy").is_file()


def interrupt(monkeypatch, at, error=KeyboardInterrupt):
    """Makes the network's pass ``at`` fail after its first batch."""
    whole = training.fit

    def fit(*arguments):
        for record in whole(*arguments):
            yield record
            if record.epoch == at:
                raise error

    monkeypatch.setattr(training, "fit", fit)


def test_ctrl_c_says_how_to_go_on(known, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    interrupt(monkeypatch, 2)
    assert main(["train_vae", *known, "--zdim", "1", "-n", "3", "-o", str(out), *TINY]) == 130
    said = capsys.readouterr().err
    again = f"cryorecon train_vae {known[0]} -o {out} --resume"
    assert f"stopped after epoch 1; continue with: {again}" in said
    monkeypatch.undo()
    assert main(again.split()[1:]) == 0
    assert (out / "weights.3.pt").is_file()


def test_ctrl_c_before_anything_is_saved_leaves_nothing(known, tmp_path, capsys, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "begin", stop)
    assert main(["train_vae", *known, "--zdim", "1", "-o", str(tmp_path / "a/out")]) == 130
    assert "before the first checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


# --- bad input ---------------------------------------------------------------------------------------------------------


def nothing_left(folder):
    return not folder.exists()


def test_missing_file(tmp_path, error_of):
    said = error_of("train_vae", tmp_path / "absent.mrcs", "--zdim", 2, "-o", tmp_path / "out")
    assert f"{tmp_path / 'absent.mrcs'}: expected" in said
    assert nothing_left(tmp_path / "out")


def test_zdim_0_is_for_train_nn(known, tmp_path, error_of):
    assert "train_nn" in error_of("train_vae", *known, "--zdim", 0, "-o", tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def test_zdim_beyond_the_number_of_particles(known, tmp_path, error_of):
    said = error_of("train_vae", *known, "--zdim", 41, "-o", tmp_path / "out")
    assert said.startswith("zdim: expected at most one number for each of the 40 particles, found 41")
    assert nothing_left(tmp_path / "out")


def test_zdim_that_no_memory_holds(known, tmp_path, error_of, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 1 << 24)
    said = error_of("train_vae", *known, "--zdim", 30, "-o", tmp_path / "out", *TINY)
    assert "zdim: expected Gram matrices that fit into the 0.0168 GB of memory" in said
    assert "give --zdim" in said
    assert nothing_left(tmp_path / "out")


@pytest.mark.parametrize("letter", ["a", "d"])
def test_schedules_of_beta_are_refused(known, tmp_path, error_of, letter):
    """cryoDRGN names four by letters."""
    said = error_of("train_vae", *known, "--zdim", 2, "--beta", letter, "-o", tmp_path / "out")
    assert f"argument --beta: expected a number, found '{letter}'; schedules of beta" in said
    assert nothing_left(tmp_path / "out")


def test_a_sphere_of_a_few_voxels_is_a_mask(known, tmp_path):
    """Smaller than its soft edge."""
    assert main(["backproject", *known, "--mask-radius", "0.2", "--device", "cpu", "-o", str(tmp_path / "out")]) == 0
    found = read_volume(tmp_path / "out" / "backproject.mrc")[0]
    inner = found[8:13, 8:13, 8:13]
    assert np.square(inner).sum() > 0.9 * np.square(found).sum() > 0


def test_zdim_absent(known, tmp_path, error_of):
    assert error_of("train_vae", *known, "-o", tmp_path / "out").startswith("--zdim: expected")


def test_output_folder_of_another_run(known, tmp_path, error_of):
    out = tmp_path / "out"
    assert main(["train_nn", *known, "-n", "0", "-o", str(out), *TINY[:4]]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "found another run" in error_of("train_nn", *known, "-o", out)
    assert "found a training run" in error_of("backproject", *known, "-o", out)
    assert "found one of train_nn" in error_of("train_vae", known[0], "-o", out, "--resume")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_output_folder_is_a_file(known, tmp_path, error_of):
    (tmp_path / "out").write_text("mine")
    for name in ("train_nn", "backproject"):
        assert "found a file" in error_of(name, *known, "-o", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_files_of_others_in_the_output_folder_stay(known, tmp_path, error_of):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    error_of("train_vae", *known[:3], "--ctf", tmp_path / "absent.pkl", "--zdim", 2, "-o", out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_numbers_of_images_poses_and_ctf_differ(data, known, tmp_path, error_of):
    with (data / "ctf.pkl").open("rb"):
        table = read_ctf(data / "ctf.pkl")
    write_ctf(tmp_path / "short.pkl", table.optics[:30], 20, 9.0)
    said = error_of("train_vae", *known[:3], "--ctf", tmp_path / "short.pkl", "--zdim", 2, "-o", tmp_path / "out")
    assert "short.pkl: expected CTF for the 40 images" in said
    assert "found 30" in said
    assert nothing_left(tmp_path / "out")


def test_absent_poses(data, tmp_path, error_of):
    """Only backprojection can't do without: train_nn and train_vae search for them."""
    said = error_of("backproject", data / "particles.mrcs", "--ctf", data / "ctf.pkl", "-o", tmp_path / "out")
    assert "--poses" in said
    assert nothing_left(tmp_path / "out")


def test_mask_of_another_box(known, tmp_path, error_of):
    write_volume(tmp_path / "mask.mrc", np.ones((16, 16, 16), np.float32), 9.0)
    said = error_of("train_nn", *known, "--mask", tmp_path / "mask.mrc", "-o", tmp_path / "out")
    assert "expected a mask on the images' grid of 20 px" in said
    assert "found 16 px of 9 Å" in said
    assert nothing_left(tmp_path / "out")


def test_starts_that_are_none(known, tmp_path, error_of):
    (tmp_path / "empty").mkdir()
    write_volume(tmp_path / "small.mrc", np.ones((8, 8, 8), np.float32), 9.0)
    for name, says in (("absent.mrc", "found no such file"), ("empty", "is this a run directory"),
                       ("small.mrc", "about the images' box of 180 Å")):
        said = error_of("train_nn", *known[:1], *known[3:], "--init", tmp_path / name, "-o", tmp_path / "out")
        assert said.startswith(str(tmp_path / name))
        assert says in said
        assert nothing_left(tmp_path / "out")


@pytest.mark.parametrize(("more", "says"), [
    (["--symmetry", "T"], "symmetry: expected C<n> or D<n>"), (["--points", "0"], "points: expected a fraction"),
    (["--lr", "-1"], "lr: expected more than 0"), (["-n", "-1"], "epochs: expected 0 or more"),
    (["-b", "0"], "--batch-size: expected more than 0"), (["--pe-dim", "0"], "--pe-dim: expected more than 0"),
    (["--lr", "inf"], "lr: expected more than 0, and finite, found inf"),
    (["--feat-sigma", "-1"], "--feat-sigma: expected more than 0"), (["--mask-radius", "0"], "--mask-radius: expec"),
    (["--search-poses", "--refine-poses"], "not allowed with argument"), (["--device", "cuda:9"], "cuda:9"),
    (["--ind", "absent.pkl"], "absent.pkl"),
])
def test_numbers_and_names_that_make_no_run(known, tmp_path, error_of, more, says):
    if more[0] == "--device" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert says in error_of("train_nn", *known, *more, "-o", tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def test_resume_where_nothing_is(known, tmp_path, error_of):
    assert "expected a run's configuration" in error_of("train_vae", known[0], "-o", tmp_path / "out", "--resume")
    assert nothing_left(tmp_path / "out")


def test_resume_with_other_options(known, tmp_path, error_of):
    out = tmp_path / "out"
    assert main(["train_nn", *known, "-n", "2", "-o", str(out), *TINY[:4]]) == 0
    for more, says in ((["--lr", "1"], "--lr: expected"), (["--dec-dim", "17"], "--dec-dim: expected 16"),
                       (["--no-window"], "--no-window: expected"), (["-n", "1"], "--num-epochs: expected at least 2")):
        assert says in error_of("train_nn", known[0], "-o", out, "--resume", *more)
    assert "particles: expected" in error_of("train_nn", "other.mrcs", "-o", out, "--resume")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("epoch", [0, 2])
def test_no_space_left(known, tmp_path, error_of, monkeypatch, epoch):
    real = run_directory.save_state
    monkeypatch.setattr(run_directory, "save_state",
                        lambda path, state: real(Path("/dev/full") if state["epoch"] == epoch else path, state))
    out = tmp_path / "out"
    said = error_of("train_vae", *known, "--zdim", 1, "-n", 2, "-o", out, *TINY)
    assert f"{out / f'weights.{epoch}.pt'}: expected room to write, found no space left on the device" in said
    if epoch == 0:
        assert nothing_left(out)
        return
    assert f"stopped after epoch 1; continue with: cryorecon train_vae {known[0]} -o {out} --resume" in said
    assert [path for path in out.iterdir() if path.name.startswith(".")] == []
    assert run_directory.RunDirectory(out).load()["epoch"] == 1
    monkeypatch.undo()
    assert main(["train_vae", known[0], "-o", str(out), "--resume"]) == 0


def test_a_system_error_of_another_kind_is_not_called_a_full_disk(known, tmp_path, error_of, monkeypatch):
    interrupt(monkeypatch, 1, OSError(errno.EACCES, "Permission denied", "somewhere"))
    said = error_of("train_nn", *known, "-o", tmp_path / "out", *TINY[:4])
    assert said.startswith("somewhere: ")
    assert "space" not in said


def test_a_damaged_checkpoint(known, tmp_path, error_of):
    out = tmp_path / "out"
    assert main(["train_nn", *known, "-n", "0", "-o", str(out), *TINY[:4]]) == 0
    (out / "weights.0.pt").write_bytes((out / "weights.0.pt").read_bytes()[:5000])
    for name in ("eval_vol", "train_nn"):
        tail = ["-o", tmp_path / "v"] if name == "eval_vol" else ["-o", out, "--resume"]
        first = out if name == "eval_vol" else known[0]
        assert "weights.0.pt: expected a checkpoint" in error_of(name, first, *tail)


# --- looking at a run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """One epoch, zdim 2."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(["train_vae", str(data / "particles.star"), "--zdim", "2", "-n", "1", "-o", str(out), *TINY]) == 0
    return out


def test_eval_vol_along_a_line_and_flipped(run, tmp_path):
    line = ["--z-start", "-1", "0", "--z-end", "1", "0.5", "-n", "3"]
    assert main(["eval_vol", str(run), *line, "-o", str(tmp_path / "a")]) == 0
    assert main(["eval_vol", str(run), *line, "--flip", "--apix", "2", "-o", str(tmp_path / "b")]) == 0
    np.testing.assert_allclose(np.loadtxt(tmp_path / "a/z_values.txt"), [[-1, 0], [0, 0.25], [1, 0.5]])
    plain, flipped = (read_volume(tmp_path / name / "vol_002.mrc") for name in "ab")
    np.testing.assert_allclose(flipped[0][1:], plain[0][:0:-1], atol=1e-6)  # index D // 2 stays where it is
    assert (plain[1], flipped[1]) == (pytest.approx(9), pytest.approx(2))
    assert main(["eval_vol", str(run), "-z", "0", "0.25", "-o", str(tmp_path / "c")]) == 0
    np.testing.assert_allclose(read_volume(tmp_path / "c/vol_001.mrc")[0], plain[0], atol=1e-6)


@pytest.mark.parametrize(("more", "says"), [
    ([], "found none"), (["-z", "1"], "shape (1, 1)"), (["-z", "1", "nan"], "finite"),
    (["-z", "1", "2", "--zfile", "x"], "found several"), (["--zfile", "absent.txt"], "absent.txt: expected"),
    (["--z-start", "1", "2"], "--z-end"), (["-z", "1", "2", "-d", "22"], "at most 20 px"),
    (["-z", "1", "2", "-d", "7"], "even"),
    (["-z", "1", "2", "--apix", "0"], "above 0"), (["-z", "1", "2", "--epoch", "7"], "found 7"),
])
def test_eval_vol_of_nothing(run, tmp_path, error_of, more, says):
    assert says in error_of("eval_vol", run, *more, "-o", tmp_path / "v")
    assert nothing_left(tmp_path / "v")


def test_eval_vol_of_text(run, tmp_path, error_of):
    (tmp_path / "z.txt").write_text("one two\n")
    assert "z.txt: expected numbers" in error_of("eval_vol", run, "--zfile", tmp_path / "z.txt", "-o", tmp_path / "v")


def test_eval_conformation_without_a_truth_of_these_particles(run, tmp_path, error_of):
    assert "truth.npz: expected the truth" in error_of("eval_conformation", run, "--truth", tmp_path / "truth.npz")
    np.savez(tmp_path / "truth.npz", state=np.zeros(7, int))
    assert "found no coordinate" in error_of("eval_conformation", run, "--truth", tmp_path / "truth.npz")
    np.savez(tmp_path / "truth.npz", state=np.zeros(7, int), coordinate=np.zeros((1, 1)))
    assert "found 7" in error_of("eval_conformation", run, "--truth", tmp_path / "truth.npz")
    np.savez(tmp_path / "truth.npz", state=np.zeros(40, int), coordinate=np.zeros((1, 1)))
    assert "state_00.mrc" in error_of("eval_conformation", run, "--truth", tmp_path / "truth.npz")
    assert not list(run.glob("conformation*"))


def test_eval_vol_where_no_image_is(run, tmp_path, capsys):
    assert main(["eval_vol", str(run), "-z", "0", "0", "-o", str(tmp_path / "a")]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(["eval_vol", str(run), "-z", "0", "1e4", "-o", str(tmp_path / "b")]) == 0
    assert "warning: map 1: coordinate 2 is 10000, where this run's go from" in capsys.readouterr().err
    assert main(["eval_vol", str(run), "-z", "0", "3e38", "-o", str(tmp_path / "c")]) == 2
    assert "expected coordinates that give a map" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_eval_images_of_moved_stacks(known, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(Path(known[0]).parent, data)
    small = ["-n", "0", *TINY[:4], "--device", "cpu"]
    assert main(["train_nn", str(data / "particles.star"), *small, "-o", str(tmp_path / "run")]) == 0
    (tmp_path / "elsewhere").mkdir()
    shutil.move(data / "particles.mrcs", tmp_path / "elsewhere")
    assert main(["eval_images", str(tmp_path / "run")]) == 2
    assert main(["eval_images", str(tmp_path / "run"), "--datadir", str(tmp_path / "elsewhere")]) == 0


def test_eval_images_of_another_kind(run, tmp_path, error_of):
    assert ".csv or .npz" in error_of("eval_images", run, "-o", tmp_path / "x.json")
    assert "expected a run's configuration" in error_of("eval_images", tmp_path)


def test_masked_images_get_a_warning_and_a_map(tmp_path):
    """Their corners say nothing of the noise; what lies within does."""
    stack, _ = simulate_stack(flexible("rigid", 1), n=12, box=20, apix=9.0, snr=1.0, max_shift=0)
    write_stack(tmp_path / "masked.mrcs", (stack.images() * window(20)).numpy(), 9.0)
    write_poses(tmp_path / "poses.pkl", stack.poses, 20, 9.0)
    with pytest.warns(UserWarning, match="noise in their corners"):
        assert main(["train_nn", str(tmp_path / "masked.mrcs"), "--poses", str(tmp_path / "poses.pkl"), "--uninvert-data",
                     "-n", "0", "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "reconstruct.0.mrc").is_file()


def test_one_particle_makes_no_half_sets(known, tmp_path, error_of):
    np.save(tmp_path / "one.npy", np.array([0]))
    assert "at least two particles" in error_of("train_nn", *known, "--ind", tmp_path / "one.npy", "-o",
                                                tmp_path / "out")


@pytest.mark.parametrize("road", [[], ["--road", "plain", "--conformation", "encoder"]], ids=["low rank", "plain"])
def test_half_precision_runs_on_both_roads(known, tmp_path, road):
    assert main(["train_vae", *map(str, known), "--zdim", "1", "-n", "1", "--dec-dim", "16", "--enc-dim", "16", "--amp", *road,
                 "--device", "cpu", "-o", str(tmp_path / "out")]) == 0
    loss = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])["energy"]
    assert np.isfinite(loss)
