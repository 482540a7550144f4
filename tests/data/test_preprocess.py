"""Preparation: what happens to images and metadata, bounded memory, going on after a kill, one contrast."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon.data import preprocess, quality
from cryorecon.data.load import load_particles
from cryorecon.data.mrc import part_name, read_header
from cryorecon.data.preprocess import Preparation, fourier_crop, prepare, prepare_images, with_contrast
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError
from cryorecon.geometry.fourier import resample
from cryorecon.imaging.masks import radius_map, soft_sphere


@pytest.mark.parametrize(("old", "new"), [(16, 8), (16, 14), (16, 16), (15, 8), (64, 32)])
def test_fast_cropping_is_resampling(old, new):
    images = torch.randn(3, old, old, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fourier_crop(images, new), resample(images, new, 2), atol=1e-5, rtol=1e-4)


def test_a_folder_whose_name_is_no_text(make_data, tmp_path):
    folder = tmp_path / os.fsdecode(b"d\xf6")
    make_data(3, box=16).folder.rename(folder)
    star = prepare(load_particles(folder / "images.star"), folder / "out", Preparation())
    assert len(load_particles(star)) == 3


def test_prepared_data_keep_poses_ctf_and_halves_and_change_the_pixel_size(make_data, tmp_path):
    data = make_data(9, box=16, apix=2.5)
    star = prepare(load_particles(data.star), tmp_path / "out", Preparation(box=8))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["particles.mrcs", "particles.star"]
    for path in (star, tmp_path / "out"):
        stack = load_particles(path)
        assert (len(stack), stack.box, stack.apix, stack.sign) == (9, 8, 5.0, 1)
        torch.testing.assert_close(stack.poses.rotation, data.stack.poses.rotation, atol=1e-6, rtol=0)
        torch.testing.assert_close(stack.poses.shift, data.stack.poses.shift, atol=1e-5, rtol=0)
        torch.testing.assert_close(stack.optics.parameters, data.stack.optics.parameters, atol=1e-3, rtol=1e-6)
        assert torch.equal(stack.half, data.stack.half)
    assert read_header(tmp_path / "out" / "particles.mrcs").apix == pytest.approx(5.0)
    expected = prepare_images(torch.from_numpy(data.images), 8, Preparation())
    torch.testing.assert_close(load_particles(star).images(), expected)


@pytest.mark.parametrize("normalise", ["background", "whole", "none"])
def test_normalisation(normalise):
    images = 5 + 3 * torch.randn(20, 32, 32, generator=torch.Generator().manual_seed(0)) + 4 * soft_sphere(32, 8, 2, 2)
    out = prepare_images(images, 32, Preparation(normalise=normalise))
    outside = radius_map(32, 2) > 0.92 * 16
    if normalise == "background":
        torch.testing.assert_close(out[:, outside].mean(1), torch.zeros(20), atol=1e-5, rtol=0)
        torch.testing.assert_close(out[:, outside].std(1), torch.ones(20), atol=1e-4, rtol=0)
    elif normalise == "whole":
        torch.testing.assert_close(out.std((1, 2)), torch.ones(20), atol=1e-4, rtol=0)
    else:
        assert torch.equal(out, images)
    windowed = prepare_images(images, 32, Preparation(normalise=normalise, windowed=True))
    assert not windowed[:, radius_map(32, 2) > 16].any()


def test_noise_free_images_survive_normalisation():
    images = soft_sphere(32, 6, 3, 2)[None]
    out = prepare_images(images, 32, Preparation())
    assert torch.isfinite(out).all()
    assert float(out.std()) == pytest.approx(1.0, rel=1e-3)


def test_float16_takes_half_the_space(make_data, tmp_path):
    data = make_data(4, box=16)
    star = prepare(load_particles(data.star), tmp_path / "h", Preparation(half=True))
    assert read_header(star.with_suffix(".mrcs")).mode == 12
    expected = prepare_images(torch.from_numpy(data.images), 16, Preparation()).half().float()
    torch.testing.assert_close(load_particles(star).images(), expected)


def blobs(sign, n=60):
    images = sign * soft_sphere(32, 7, 4, 2) + torch.randn(n, 32, 32, generator=torch.Generator().manual_seed(1))
    return ParticleStack.from_images(images.numpy(), 3.0)


@pytest.mark.parametrize("protein", ["white", "dark"])
@pytest.mark.parametrize("how", ["told", "guess"])
def test_contrast_ends_white_and_is_not_turned_twice(tmp_path, protein, how):
    stack = blobs(1 if protein == "white" else -1)
    prepared = with_contrast(stack, protein if how == "told" else "guess")
    star = prepare(prepared, tmp_path / "o", Preparation())
    back = load_particles(star)
    assert back.sign == 1
    assert quality.sample_contrast(back) > 10
    again = load_particles(prepare(with_contrast(back, "rule"), tmp_path / "again", Preparation(normalise="none")))
    torch.testing.assert_close(again.images(), back.images())


def test_the_rule_is_that_of_training(make_data):
    data = make_data(3)
    for ctf in (None, data.ctf):
        stack = load_particles(data.mrcs, ctf=ctf)
        assert with_contrast(stack, "rule").sign == stack.sign
        assert with_contrast(stack, "rule", uninvert=True).sign == -stack.sign


def test_noise_has_no_contrast_to_guess():
    with pytest.raises(InputError, match="no clear contrast"):
        with_contrast(blobs(0), "guess")


def test_dark_protein_warns():
    with pytest.warns(UserWarning, match="protein looks dark"):
        preprocess.warn_of_contrast(blobs(-1))
    preprocess.warn_of_contrast(replace(blobs(-1), sign=-1))


def test_a_killed_preparation_goes_on_where_it_was(make_data, tmp_path, monkeypatch):
    data = make_data(20, box=16)
    whole = prepare(load_particles(data.star), tmp_path / "whole", Preparation(box=8))
    monkeypatch.setattr(preprocess, "chunk_size", lambda box: 3)
    treated = []

    def interrupted(images, box, how):
        treated.append(len(images))
        if len(treated) == 4:
            raise KeyboardInterrupt
        return prepare_images(images, box, how)

    monkeypatch.setattr(preprocess, "prepare_images", interrupted)
    stack = load_particles(data.star)
    with pytest.raises(KeyboardInterrupt):
        prepare(stack, tmp_path / "out", Preparation(box=8))
    mrcs = tmp_path / "out" / "particles.mrcs"
    assert part_name(mrcs).exists()
    assert not mrcs.exists()
    with part_name(mrcs).open("ab") as file:
        file.write(b"half a chunk")
    star = prepare(stack, tmp_path / "out", Preparation(box=8))
    assert sum(treated[4:]) == 20 - 9
    assert sorted(p.name for p in star.parent.iterdir()) == ["particles.mrcs", "particles.star"]
    assert star.read_bytes() == whole.read_bytes()
    assert mrcs.read_bytes()[1024:] == whole.with_suffix(".mrcs").read_bytes()[1024:]


def test_another_task_does_not_take_up_an_unfinished_one(make_data, tmp_path, monkeypatch):
    data = make_data(9, box=16)
    monkeypatch.setattr(preprocess, "chunk_size", lambda box: 3)
    stack = load_particles(data.star)

    def interrupted(note, key, done):
        write_note(note, key, done)
        raise KeyboardInterrupt

    write_note = preprocess._write_note
    monkeypatch.setattr(preprocess, "_write_note", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(stack, tmp_path / "out", Preparation())
    monkeypatch.setattr(preprocess, "_write_note", write_note)
    other = Preparation(normalise="whole")
    star = prepare(stack, tmp_path / "out", other)
    expected = prepare_images(torch.from_numpy(data.images), 16, other)
    torch.testing.assert_close(load_particles(star).images(), expected)


def test_kill_9_leaves_no_half_written_name(make_data, tmp_path):
    data = make_data(40, box=16)
    script = (
        "import os, signal, sys\n"
        "from cryorecon.data import preprocess\n"
        "from cryorecon.data.load import load_particles\n"
        "preprocess.chunk_size = lambda box: 4\n"
        "note = preprocess._write_note\n"
        "def die(path, key, done):\n"
        "    note(path, key, done)\n"
        "    if done == 12: os.kill(os.getpid(), signal.SIGKILL)\n"
        "preprocess._write_note = die\n"
        f"preprocess.prepare(load_particles({str(data.star)!r}), {str(tmp_path / 'out')!r}, preprocess.Preparation())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(preprocess.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False, capture_output=True)
    assert done.returncode == -9
    assert not (tmp_path / "out" / "particles.mrcs").exists()
    star = prepare(load_particles(data.star), tmp_path / "out", Preparation())
    expected = prepare_images(torch.from_numpy(data.images), 16, Preparation())
    torch.testing.assert_close(load_particles(star).images(), expected)


def test_real_dark_particles_come_out_white(shared_data, tmp_path):
    stack = load_particles(shared_data / "real_particles/betagal_empiar10061/betagal_101_b96.star")
    star = prepare(with_contrast(stack, "guess"), tmp_path / "b", Preparation(box=48))
    back = load_particles(star)
    assert back.apix == pytest.approx(5.096)
    assert quality.sample_contrast(back) > 10


def test_real_tilt_series_stay_tilt_series(shared_data, tmp_path):
    folder = shared_data / "real_particles/ribosome70S_tilt_tomodrgn"
    stack = load_particles(folder / "warptools_test_4-tomos_10-ptcls_box-32_angpix-12.star")
    back = load_particles(prepare(stack, tmp_path / "t", Preparation(half=True)))
    assert (back.n_particles, back.premultiplied) == (40, True)
    torch.testing.assert_close(back.tilt, stack.tilt, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.poses.rotation, stack.poses.rotation, atol=1e-5, rtol=0)


def test_contrast_of_real_images(shared_data):
    for name, protein in (
        ("real_particles/betagal_empiar10061/betagal_101_b96.star", -1),
        ("sim_truth/ribosome50S_10076_DE/10076_both_32_sim.star", -1),
        ("real_particles/ribosome70S_tilt_tomodrgn/warptools_test_4-tomos_10-ptcls_box-32_angpix-12.star", 1),
        ("real_particles/betagal_empiar10061/betagal_background_101_b96_f16.mrcs", 0),
    ):
        score = quality.sample_contrast(load_particles(shared_data / name))
        assert np.sign(score) * (abs(score) > quality.CLEAR_CONTRAST) == protein
