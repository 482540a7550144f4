"""Options that change nothing: each is told of where it was named, defaults never, and what is told is true."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon.cli import idle as table
from cryorecon.cli import options
from cryorecon.cli.idle import idle
from cryorecon.cli.main import command, main
from cryorecon.simulation.experiment import Experiment, ctf_table
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.write import write_simulation
from cryorecon.training.config import GAMES, RunConfig
from cryorecon.training.run_directory import RunDirectory

DATA = ["p.mrcs", "-o", "out"]


def told(name, typed, searched=False):
    """Lines for a command line ``typed``, in one string; the preset of ``name`` as the command sets it."""
    parser = argparse.ArgumentParser()
    command(name).add_args(parser)
    named = options.given(parser.parse_args([*DATA, *typed.split()]))
    preset = {"conformation": "encoder"} if named.get("road") == "plain" else {}
    game = GAMES.get(named.get("volume", "density"), {})
    preset = {"train_gan": game, "train_vae": {"zdim": 4} | preset}.get(name, {"conformation": "fixed"})
    return "\n".join(idle(options.configuration(preset | named), named, searched))


@pytest.mark.parametrize(("typed", "names", "remedy"), [
    ("--beta 1", "--beta", "add --conformation encoder"),
    ("--beta 1 --enc-dim 64 --enc-layers 2", "each of --beta, --enc-dim, --enc-layers", "add --conformation encoder"),
    ("--conformation table --enc-dim 64", "--enc-dim", "--conformation encoder"),
    ("--road plain --conformation encoder --atoms 9", "--atoms", "leave out --road plain"),
    ("--volume voxels -n 1", "--num-epochs", "leave it out to train a network"),
    ("--volume voxels --lr 1 -b 3 --points 1 --checkpoint 2", "each of --batch-size, --lr, --points, --checkpoint", "leave it"),
    ("--volume voxels --dec-dim 9 --pe-dim 3", "each of --dec-dim, --pe-dim", "no network"),
    ("--volume voxels --amp", "--amp", "no network"),
    ("--pe-type geometric --feat-sigma 1", "--feat-sigma", "--pe-type"),
    ("--mask m.mrc --mask-radius .7", "--mask-radius", "--mask "),
    ("--tilt-deg 30", "--tilt-deg", "add --tilt"),
    ("--poses p.pkl --pose-init q.pkl", "--poses", "--pose-init"),
    ("--poses p.pkl --init m.mrc", "--init", "add --search-poses"),
    ("--poses p.pkl --search-poses", "--poses", "leave out --search-poses"),
    ("--poses p.pkl --restarts 4 --searches 1", "each of --restarts, --searches", "add --search-poses"),
])  # fmt: skip
def test_an_option_that_changes_nothing_is_told_of_with_what_to_do(typed, names, remedy):
    lines = told("train_vae", typed).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{names} changes nothing in this run: ")
    assert remedy in lines[0].partition(": ")[2]


@pytest.mark.parametrize(("typed", "names", "remedy"), [
    ("--pose-init q.pkl --restarts 4", "--restarts", "leave out --pose-init"),
    ("--pose-init q.pkl --init m.mrc", "--init", "--pose-init says where"),
    ("--schedule network --init m.mrc", "--init", "leave out --schedule network"),
    ("--init m.mrc --restarts 2", "--restarts", "--init is the one start"),
    ("--searches 0 --niter 3", "--niter", "--searches 0"),
    ("--ps-freq 2 --l-end 9", "each of --ps-freq, --l-end", "--schedule network"),
    ("--schedule network --restarts 2", "--restarts", "--search-epochs"),
    ("--pose-init q.pkl --schedule network", "--schedule", "leave out --pose-init"),
])
def test_an_option_of_the_search_that_changes_nothing(typed, names, remedy):
    lines = told("train_nn", typed, searched=True)
    assert lines.startswith(f"{names} changes nothing")
    assert remedy in lines


@pytest.mark.parametrize(("typed", "names", "remedy"), [
    ("--poses p.pkl", "--poses", "--pose-prior"), ("--dec-dim 8", "--dec-dim", "--volume conv"),
    ("--volume conv --constraint radial", "--constraint", "leave out --volume"),
    ("--volume conv --contrast 0.5", "--contrast", "leave out --volume"),
    ("--t-extent 2 --lr 1 -b 3 --constraint radial --pose-prior p.pkl", "", ""),
])  # fmt: skip
def test_an_option_of_a_game_that_changes_nothing(typed, names, remedy):
    lines = told("train_gan", typed, searched=True)
    assert lines.startswith(f"{names} changes nothing") if names else not lines
    assert remedy in lines


@pytest.mark.parametrize("typed", [
    "", "--beta 1 --enc-dim 64 --conformation encoder", "--beta 1 --conformation table", "--atoms 9 --conformation encoder",
    "--road plain --beta 1 --enc-layers 2", "--volume voxels", "--volume voxels -n 0", "--volume voxels --no-amp",
    "--volume voxels -n 1 --refine-poses", "--volume voxels -n 1 --lr 1 --conformation encoder", "--feat-sigma 1",
    "--mask-radius .7", "--tilt t.mrcs --tilt-deg 30", "--poses p.pkl --refine-poses", "-n 0 --lr 1 --dec-dim 9",
])
def test_options_that_count_are_not_spoken_of(typed):
    assert told("train_vae", typed) == ""


@pytest.mark.parametrize("searched", [False, True])
@pytest.mark.parametrize("fields", [{}, {"zdim": 2, "conformation": "posterior"}, {"zdim": 2, "conformation": "table"},
                                    {"volume": "voxels"}, {"mask": "m.mrc"}, {"pose_init": "p.pkl"}])
def test_defaults_never_warn(fields, searched):
    assert idle(RunConfig("p.mrcs", **{"conformation": "fixed"} | fields), ["particles", *fields], searched) == []


def test_every_rule_speaks_of_options_that_exist():
    assert {name for rule in table.RULES for name in rule.fields} <= set(options.FLAGS)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """40 images of 20 px and what is known about them."""
    folder = tmp_path_factory.mktemp("data") / "sim"
    write_simulation(flexible("hinge", 2), Experiment(40, 20, 9.0, 1.0, max_shift=1, optics=ctf_table(None)), folder)
    return [str(folder / "particles.mrcs"), "--poses", str(folder / "poses.pkl"), "--ctf", str(folder / "ctf.pkl")]


def warned(text):
    return [line.partition("cryorecon: warning: ")[2] for line in text.splitlines() if "cryorecon: warning: " in line]


def test_what_is_told_is_true_and_stands_in_the_log(known, tmp_path, capsys):
    """A run with all that is said to change nothing ends with the bits of the run without."""
    common = ["train_vae", *known, "--zdim", "1", "-n", "1", "--dec-dim", "16", "--dec-layers", "1", "--device", "cpu",
              "--pe-type", "geometric"]
    vain = ["--beta", "9", "--enc-dim", "7", "--enc-layers", "1", "--feat-sigma", "3", "--restarts", "9", "--searches", "7",
            "--t-extent", "1", "--tilt-deg", "3"]
    assert main([*common, "-o", str(tmp_path / "a")]) == 0
    assert warned(capsys.readouterr().err) == []
    assert main([*common, *vain, "-o", str(tmp_path / "b")]) == 0
    lines = warned(capsys.readouterr().err)
    assert len(lines) == 4
    assert warned(Path(tmp_path / "b/run.log").read_text()) == lines
    assert all(any(option in line for line in lines) for option in vain[::2])
    a, b = (RunDirectory(tmp_path / name) for name in "ab")
    np.testing.assert_array_equal(a.z(), b.z())
    for name, values in a.load()["model"].items():
        assert torch.equal(values, b.load()["model"][name]), name


def test_voxels_run_no_epoch_and_say_so(known, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train_nn", *known, "--volume", "voxels", "-n", "1", "--device", "cpu", "-o", str(out)]) == 0
    assert RunDirectory(out).epochs() == [0]
    (line,) = warned(capsys.readouterr().err)
    assert line.startswith("--num-epochs changes nothing in this run: --volume voxels takes the closed-form maps")


def test_backproject_tells_too(known, tmp_path, capsys):
    from cryorecon.data.mrc import write_volume

    write_volume(tmp_path / "mask.mrc", np.ones((20, 20, 20), np.float32), 9.0)
    assert main(["backproject", *known, "--mask", str(tmp_path / "mask.mrc"), "--mask-radius", "0.5", "--device", "cpu", "-o",
                 str(tmp_path / "out")]) == 0
    assert warned(capsys.readouterr().err) == ["--mask-radius changes nothing in this run: --mask says the mask; leave out one "
                                               "of the two"]
