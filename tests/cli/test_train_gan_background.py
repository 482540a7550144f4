"""``train_gan --background``: real patches as noise, from the command line to the last bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.data.background import write_background
from cryorecon.data.load import load_particles
from cryorecon.data.mrc import write_stack
from cryorecon.data.preprocess import Preparation
from cryorecon.errors import InputError
from cryorecon.objectives.noise_source import Patches, gaussian
from cryorecon.training import build
from cryorecon.training.config import GAN, RunConfig
from cryorecon.training.run_directory import RunDirectory


@pytest.fixture(scope="module")
def data(simulated):
    """48 images of 16 px, their noise as patches."""
    folder = simulated(1, 48, 16, 0)
    assert main(["preprocess", str(folder / "particles.mrcs"), "--ctf", str(folder / "ctf.pkl"), "-o", str(folder / "prepared"),
                 "--background", "corners", "--radius", ".7"]) == 0
    return folder / "prepared"


@pytest.fixture
def known(data):
    """The command's first words."""
    return ["train_gan", str(data), "--background", str(data / "background.star"), "--critic-dim", "2", "-b", "8", "--device",
            "cpu"]


def test_a_run_with_patches_says_so_and_resumes_bit_for_bit(known, tmp_path, monkeypatch, cut_short, capsys):
    assert cut_short(*known, "-n", "3", "-o", tmp_path / "cut") == 130
    assert "patches 48, power 1" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)  # the patches' path is absolute in the run
    assert main([known[0], known[1], "-n", "3", "-o", str(tmp_path / "cut"), "--resume"]) == 0
    assert main([*known, "-n", "3", "-o", str(tmp_path / "whole")]) == 0
    assert main([*known[:2], *known[4:], "-n", "3", "-o", str(tmp_path / "gaussian")]) == 0
    resumed, undisturbed, other = (RunDirectory(tmp_path / name).load() for name in ("cut", "whole", "gaussian"))
    for part in ("model", "critic", "simulator"):
        for name, values in undisturbed[part].items():
            assert torch.equal(resumed[part][name], values), name
    assert not torch.equal(other["critic"]["mixed.weight"], undisturbed["critic"]["mixed.weight"])


def problem_of(data, background, **more):
    config = RunConfig(str(data), background=background, device="cpu", **GAN | more)
    problem = build.open_data(config)
    return config, problem, build.first_noise(problem, config)


def test_patches_of_another_power_are_scaled_and_told_of(data, tmp_path):
    source, told = build.noise_source(*problem_of(data, str(data / "background.star")))
    assert isinstance(source, Patches)
    assert told["power"] == pytest.approx(1, abs=0.2)
    loud = load_particles(data / "background.star").images().numpy()
    write_stack(tmp_path / "loud.mrcs", 2 * loud, 9.0)
    with pytest.warns(UserWarning, match=r"4\.\d+ times"):
        scaled, more = build.noise_source(*problem_of(data, str(tmp_path / "loud.mrcs")))
    assert more["power"] == pytest.approx(4 * told["power"], rel=1e-3)
    batch = problem_of(data, None)[1].loader(torch.ones(9), False).read(torch.arange(8))
    made = []
    for one in (source, scaled):
        torch.manual_seed(0)
        made.append(one(batch))
    sign = float((made[0].conj() * made[1]).real.sum().sign())  # bare patches are of the particles' contrast: both white
    assert sign == 1
    torch.testing.assert_close(made[1], made[0], rtol=1e-3, atol=1e-3)


def test_images_of_micrographs_without_patches_are_told_of(data, tmp_path):
    stack = load_particles(data)
    named = replace(stack, micrograph=np.array(["a"] * 40 + ["b"] * 8, dtype=object))
    write_background(named, [("a", stack.images())], tmp_path / "background.star", Preparation(normalise="none"))
    config, problem, noise = problem_of(data, str(tmp_path / "background.star"))
    problem.stack = replace(problem.stack, micrograph=named.micrograph)
    with pytest.warns(UserWarning, match="8 of 48 images are of micrographs without patches"):
        build.noise_source(config, problem, noise)


def test_without_patches_noise_is_gaussian(data):
    assert build.noise_source(*problem_of(data, None)) == (gaussian, {})


def test_patches_that_do_not_fit_are_refused_before_anything_is_written(known, data, tmp_path, error_of):
    write_stack(tmp_path / "wide.mrcs", np.random.default_rng(0).normal(size=(4, 20, 20)), 9.0)
    said = error_of(*known[:2], "--background", tmp_path / "wide.mrcs", *known[4:], "-o", tmp_path / "out")
    assert "expected patches of 16 px of 9 Å as the particles, found 20 px" in said
    assert "preprocess --background" in said
    assert "no such file" in error_of(*known[:2], "--background", tmp_path / "none.star", *known[4:], "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_a_game_takes_patches(data):
    with pytest.raises(InputError, match="background: expected objective 'adversarial'"):
        RunConfig(str(data), background="b.star", conformation="fixed")
