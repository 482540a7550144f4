"""``train_gan`` from particles to a map: what it recovers, what it leaves, how it goes on and how it ends."""

import json

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.data.loader import Loader
from cryorecon.data.mrc import read_volume
from cryorecon.geometry.rotations import symmetry_group
from cryorecon.imaging.masks import radius_map, soft_sphere
from cryorecon.metrics.alignment import align, apply
from cryorecon.metrics.fsc import fsc_curve
from cryorecon.objectives.filters import filter_by_shell
from cryorecon.simulation.experiment import Experiment, ctf_table
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.write import write_simulation
from cryorecon.training import adversarial, build
from cryorecon.training.config import GAN, RunConfig
from cryorecon.training.run_directory import RunDirectory
from cryorecon.training.trained import load_run
from cryorecon.volumes.symmetry import mean_over_group

TINY = ["--critic-dim", "2", "-b", "8", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(simulated):
    """48 images of 16 px."""
    return simulated(1, 48, 16, 0)


@pytest.fixture
def known(data):
    """The command's first words: images and CTF, no poses."""
    return ["train_gan", str(data / "particles.mrcs"), "--ctf", str(data / "ctf.pkl"), *TINY]


def agreement(out, folder):
    """FSC by shell ``(9,)`` of a run's map, laid on the truth, with it."""
    found, truth = (torch.from_numpy(read_volume(path)[0]) for path in (*out.glob("reconstruct.*.mrc"),
                                                                        folder / "maps" / "state_00.mrc"))
    return fsc_curve(apply(align(found, truth, 9.0), found, 9.0).float(), truth, soft_sphere(16, 5, 2)).value


def recovered(tmp_path, *more):
    """FSC by shell of the map that 1500 images of random poses give, at a signal-to-noise ratio of 5."""
    write_simulation(flexible("hinge", 1), Experiment(1500, 16, 9.0, 5.0, max_shift=0, optics=ctf_table(None)),
                     tmp_path / "sim")
    command = ["train_gan", str(tmp_path / "sim" / "particles.mrcs"), "--ctf", str(tmp_path / "sim" / "ctf.pkl"), "-o",
               str(tmp_path / "out"), "--critic-dim", "6", "--critic-lr", "3e-3", "--lr", "0.2", "-b", "64", "-n", "10",
               "--checkpoint", "10", "--device", "cpu", *more]
    assert main(command) == 0
    return agreement(tmp_path / "out", tmp_path / "sim")


def test_a_small_phantom_is_recovered_without_poses(tmp_path):
    """FSC above 0.5 to shell 3 of 8, and 0.65 in the mean up to half of Nyquist (seeds 0 to 2: .70 to .81)."""
    fsc = recovered(tmp_path)
    assert float(fsc[1:4].min()) > 0.5
    assert float(fsc[1:5].mean()) > 0.65


def test_the_likelihood_as_critic_finds_more_of_it(tmp_path):
    """From the map of four passes, in six: FSC above 0.82 in the mean up to half of Nyquist (seeds 0
    to 2: .91, .82, .98; without, .70 to .81)."""
    fsc = recovered(tmp_path, "--contrast", "0.4")
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert ["distance" in line for line in lines] == [True] * 4 + [False] * 6
    assert ["contrast" in line for line in lines] == [False] * 4 + [True] * 6
    assert float(fsc[1:5].mean()) > 0.82


def test_a_critic_that_does_not_learn_recovers_nothing(tmp_path):
    """What alignment alone makes of a random map: .48 after 10 epochs."""
    assert float(recovered(tmp_path, "--critic-lr", "1e-9", "-n", "3")[1:5].mean()) < 0.6


def test_what_a_run_leaves(known, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert main([*known, "-n", "2", "-o", str(out)]) == 0
    said = capsys.readouterr()
    for part in (out / "reconstruct.2.mrc", out / "weights.2.pt", out / "samples.2.png"):
        assert str(part) in said.out
        assert part.is_file()
    for part in ("48 images", "noise: sigma", "density unit", "epoch 2/2: critic distance"):
        assert part in said.err
        assert part in (out / "run.log").read_text()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    for name in ("distance", "penalty", "critic_slope", "generator_gradient", "images_per_s", "noise", "band"):
        assert np.isfinite(lines[1][name]), name
    assert lines[0]["band"] == pytest.approx(4 + 4 * (5 / 6))  # before the sixth batch of the pass in which it grows
    assert lines[1]["band"] == 8
    images = np.load(out / "samples.2.npy", allow_pickle=False)
    assert images.shape == (3, 8, 16, 16)
    assert images[0].std() > 2 * images[2].std() > 0  # real ones are noisy, the last row is not
    map_, apix = read_volume(out / "reconstruct.2.mrc")
    assert apix == pytest.approx(9)
    assert map_.min() == 0
    assert map_.max() > 0
    assert main(["eval_vol", str(out), "-o", str(out / "maps")]) == 0
    np.testing.assert_allclose(read_volume(out / "maps" / "vol_001.mrc")[0], map_, atol=1e-6 * map_.max())


def test_real_images_are_windowed_after_their_transform_like_simulated_ones(data):
    """Windowed by the loader alone, real corners would be empty and simulated ones not: a critic would see it."""
    config = RunConfig(str(data / "particles.mrcs"), ctf=str(data / "ctf.pkl"), device="cpu", **GAN)
    problem = build.open_data(config)
    state = adversarial.begin(config, problem, None, lambda stage, values: None)
    index = torch.arange(4)
    plain = Loader(problem.stack, problem.grid, state.noise, windowed=False).read(index)
    torch.testing.assert_close(state.loader.read(index).data, plain.data)
    assert state.simulator.window is not None


@pytest.mark.parametrize("volume", ["density", "archetypes"])
def test_interrupted_and_resumed_is_undisturbed(volume, known, tmp_path, cut_short, capsys):
    command = [*known, "--volume", volume, "-n", "3"]
    assert cut_short(*command, "-o", tmp_path / "cut") == 130
    assert "continue with: cryorecon train_gan" in capsys.readouterr().err
    assert RunDirectory(tmp_path / "cut").epochs() == [0, 1]
    assert main([*command, "-o", str(tmp_path / "cut"), "--resume"]) == 0
    assert main([*command, "-o", str(tmp_path / "whole")]) == 0
    resumed, undisturbed = (RunDirectory(tmp_path / name).load() for name in ("cut", "whole"))
    for part in ("model", "critic", "simulator"):
        for name, values in undisturbed[part].items():
            assert torch.equal(resumed[part][name], values), name
    assert not torch.equal(undisturbed["model"]["volume.voxels"],
                           RunDirectory(tmp_path / "whole").load(2)["model"]["volume.voxels"])


def test_poses_are_drawn_from_a_file(data, known, tmp_path):
    """The same from any of its formats; another map than from all views; and resumed as if undisturbed."""
    command = [*known, "--checkpoint", "1", "-n"]
    for name, file in (("pkl", "poses.pkl"), ("star", "particles.star"), ("cut", "poses.pkl")):
        assert main([*command, "2", "--pose-prior", str(data / file), "-o", str(tmp_path / name)]) == 0
    (tmp_path / "cut" / "weights.2.pt").unlink()  # as if it had been killed before
    assert main([*command, "2", "-o", str(tmp_path / "all")]) == 0
    assert main([*command, "2", "-o", str(tmp_path / "cut"), "--resume"]) == 0
    pkl, star, cut, every = (read_volume(tmp_path / name / "reconstruct.2.mrc")[0] for name in ("pkl", "star", "cut", "all"))
    np.testing.assert_allclose(star, pkl, atol=0.02 * pkl.max())
    np.testing.assert_array_equal(cut, pkl)
    assert not np.allclose(every, pkl, atol=0.1 * pkl.max())


@pytest.mark.parametrize("group", ["C2", "D2", "D3"])
def test_the_map_has_the_symmetry_that_is_told(group, known, tmp_path, error_of):
    out = tmp_path / "out"
    assert main([*known, "-n", "2", "--symmetry", group, "-o", str(out)]) == 0
    found = torch.from_numpy(read_volume(out / "reconstruct.2.mrc")[0])
    assert float(found.min()) == 0 < float(found.max())
    assert main([*known, "-n", "2", "-o", str(tmp_path / "plain")]) == 0
    plain = torch.from_numpy(read_volume(tmp_path / "plain" / "reconstruct.2.mrc")[0])

    def changed(map_):
        """By its group's mean: of turns that lay voxels on voxels as it is, of others smooth, and within what can be turned."""
        if group == "D3":
            map_ = filter_by_shell(map_[None], (torch.arange(9) < 3)[None].float())[0] * soft_sphere(16, 5, 2.5)
        return float((mean_over_group(map_[None], symmetry_group(group))[0] - map_).norm() / map_.norm())

    assert changed(found) < (0.03 if group == "D3" else 1e-5)
    assert changed(plain) > 0.1
    assert main(["eval_vol", str(out), "-o", str(out / "maps")]) == 0
    np.testing.assert_allclose(read_volume(out / "maps" / "vol_001.mrc")[0], found, atol=1e-6 * float(found.max()))
    assert "--symmetry: expected" in error_of(*known, "--symmetry", "C1", "-o", out, "--resume")


def test_the_constraint_reaches_the_map(known, tmp_path, error_of):
    maps = {}
    for name in ("positive", "radial", "none"):
        assert main([*known, "-n", "2", "--constraint", name, "-o", str(tmp_path / name)]) == 0
        maps[name] = torch.from_numpy(read_volume(tmp_path / name / "reconstruct.2.mrc")[0])
    rim = (radius_map(16, 3) > 0.97 * 0.85 * 8) & (maps["none"] != 0)
    assert float(maps["none"].min()) < 0 == float(maps["positive"].min()) == float(maps["radial"].min())
    assert float(maps["radial"][rim].max()) <= 0.3 * float(maps["radial"].max())
    assert "--constraint" in error_of(*known, "--constraint", "hard", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_groups_that_are_none(known, tmp_path, error_of):
    assert "symmetry: expected C<n> or D<n>" in error_of(*known, "--symmetry", "T", "-o", tmp_path / "out")
    conv = [*known, "--volume", "conv", "--symmetry", "C2", "-o", tmp_path / "out"]
    assert "--symmetry: expected C1 where conformations" in error_of(*conv)
    assert not (tmp_path / "out").exists()


def test_files_without_poses_to_draw(data, known, tmp_path, error_of):
    (tmp_path / "bare.star").write_text("data_\n\nloop_\n_rlnImageName #1\n1@a.mrcs\n")
    for name, says in (("absent.pkl", "absent.pkl: expected"), ("bare.star", "bare.star: expected poses, found no rotations")):
        assert says in error_of(*known, "--pose-prior", tmp_path / name, "-o", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_critic_is_not_gone_on_with(known, tmp_path, error_of):
    out = tmp_path / "out"
    assert main([*known, "-n", "1", "-o", str(out)]) == 0
    contents = torch.load(out / "weights.1.pt", weights_only=True)
    del contents["critic"]["mixed.weight"]
    torch.save(contents, out / "weights.1.pt")
    assert "expected a checkpoint with the critic" in error_of(*known, "-n", "2", "-o", out, "--resume")


def test_the_same_seed_is_the_same_map_and_another_is_not(known, tmp_path):
    for name, seed in (("a", "4"), ("b", "4"), ("c", "5")):
        assert main([*known, "-n", "1", "--seed", seed, "-o", str(tmp_path / name)]) == 0
    a, b, c = (read_volume(tmp_path / name / "reconstruct.1.mrc")[0] for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_network_makes_a_map_of_each_number(known, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*known, "--volume", "conv", "--dec-dim", "2", "-n", "1", "-o", str(out)]) == 0
    assert f"next     cryorecon analyze {out}" in capsys.readouterr().out
    command = [*known, "--volume", "conv", "--dec-dim", "2", "-n", "2", "--contrast", "0.5", "-o", str(tmp_path / "other")]
    assert main(command) == 0
    assert "--contrast changes nothing" in capsys.readouterr().err
    assert "contrast" not in (tmp_path / "other" / "metrics.jsonl").read_text()
    assert main(["eval_vol", str(out), "--z-start", "0", "--z-end", "1", "-n", "3", "-o", str(out / "maps")]) == 0
    first, middle, last = (read_volume(path)[0] for path in sorted((out / "maps").glob("vol_*.mrc")))
    assert np.isfinite(middle).all()
    assert not np.allclose(first, last, atol=1e-3 * first.max())
    assert first.min() >= 0
    assert load_run(out).config.zdim == 1


def test_divergence_is_said_and_the_last_good_checkpoint_named(known, tmp_path, monkeypatch, error_of):
    whole = adversarial.fit

    def fit(*arguments):
        for record in whole(*arguments):
            if record.epoch == 2 and record.done:
                record.sums["distance"] = float("nan")
            yield record

    monkeypatch.setattr(adversarial, "fit", fit)
    said = error_of(*known, "-n", "3", "-o", tmp_path / "out")
    assert "epoch 2: it diverged; weights.1.pt is sound" in said
    assert RunDirectory(tmp_path / "out").epochs() == [0, 1]


@pytest.mark.parametrize(("slope", "sign", "says"), [
    (0.1, 1, "the critic is flat"), (9.0, 1, "the critic is steep"), (1.0, -1, "the map is empty")])
def test_a_game_gone_wrong_is_doubted(slope, sign, says, known, tmp_path, monkeypatch, capsys):
    whole = adversarial.fit

    def fit(model, *arguments):
        for record in whole(model, *arguments):
            if record.done:
                record.sums["critic_slope"] = slope * record.sums["weight"]
                model.volume.voxels.data.clamp_(min=0).mul_(sign)
            yield record

    monkeypatch.setattr(adversarial, "fit", fit)
    with pytest.warns(UserWarning, match=says):
        assert main([*known, "-n", "1", "-o", str(tmp_path / "out")]) == 0
    assert says in json.loads((tmp_path / "out" / "metrics.jsonl").read_text())["doubts"][0]


@pytest.mark.parametrize(("first", "last", "begins"), [("0.5", "0.75", 4.0), ("0.5", "0.4", 3.2)])
def test_the_critic_sees_no_more_than_the_last_band(first, last, begins, known, tmp_path):
    """From the smaller of both to the last: of 8 Fourier pixels at Nyquist."""
    out = tmp_path / "out"
    assert main([*known, "-n", "2", "--first-band", first, "--last-band", last, "-o", str(out)]) == 0
    bands = [json.loads(line)["band"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    end = 8 * float(last)
    assert bands == pytest.approx([begins + (end - begins) * (5 / 6), end])


@pytest.mark.parametrize(("more", "says"), [
    (["--critic", "conv", "--critic-layers", "7"], "--critic-layers"), (["--penalty", "-1"], "--penalty"),
    (["--first-band", "0"], "--first-band"), (["--tied", "1"], "--tied"), (["--archetypes", "0"], "--archetypes"),
    (["--critic-lr", "0"], "--critic-lr"), (["--growth", "2"], "--growth"), (["--contrast", "1.5"], "--contrast"),
    (["--last-band", "1.2"], "--last-band")])
def test_what_can_not_be_is_said_of_its_option(more, says, known, tmp_path, error_of):
    assert says in error_of(*known, *more, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_of_other_commands_are_not_resumed(known, tmp_path, error_of):
    assert main([*known, "-n", "1", "-o", str(tmp_path / "out")]) == 0
    assert "found one of train_gan" in error_of("train_nn", known[1], "-o", tmp_path / "out", "--resume")
    assert "found one of train_gan" in error_of("eval_images", tmp_path / "out", "-o", tmp_path / "fits.csv")
