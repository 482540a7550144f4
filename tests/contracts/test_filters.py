"""Filters by the agreement of half maps: what is believed where."""

import pytest
import torch

from cryorecon.geometry.fourier import centred_fft
from cryorecon.imaging.masks import radius_map
from cryorecon.objectives.filters import filter_by_shell, frequency_radius, half_set_fsc, local_wiener, wiener

BOXES = (31, 32)


def noise(box, *shape, seed=0):
    return torch.randn(*shape, box, box, box, generator=torch.Generator().manual_seed(seed))


def blob(box, signal=8.0):
    """A rough structure in a small ball off the centre."""
    axis = torch.arange(box) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    ball = torch.exp(-(((x - 4) ** 2 + y**2 + z**2) / 12.0) ** 2)
    return signal * ball * noise(box, seed=5)


@pytest.mark.parametrize("box", BOXES)
def test_radius_is_that_of_the_transform(box):
    whole = torch.fft.ifftshift(radius_map(box, 3))[..., : box // 2 + 1]
    torch.testing.assert_close(frequency_radius(box), whole)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("last", [3, 9, 13])
def test_what_agrees_wholly_is_kept_and_no_more(box, last):
    density = noise(box)
    kept = torch.arange(box) <= last
    [found] = local_wiener(density[None], torch.stack([density, density]), kept, [2.0])
    wanted = filter_by_shell(density[None], kept[None].float())[0]
    spectrum = centred_fft(found - wanted, 3).abs()
    inside = radius_map(box, 3) < box / 2 - 1  # a Nyquist row's sign is free
    assert float((spectrum * inside).max()) < 1e-3 * float(centred_fft(density, 3).abs().max())


def test_wiener_is_the_best_weight():
    signal, own = 3.0, 2.0
    agreement = torch.tensor(signal / (signal + own))
    for share in (1.0, 1.5, 2.0):
        assert float(wiener(agreement, share)) == pytest.approx(signal / (signal + own / share))


def test_noise_fades():
    halves = noise(32, 2)
    kept = torch.arange(32) <= 12
    [found] = local_wiener(halves.mean(0)[None], halves, kept, [2.0])
    cut = filter_by_shell(halves.mean(0)[None], kept[None].float())[0]
    left, there = (centred_fft(part, 3).abs().square()[radius_map(32, 3) > 4].sum() for part in (found, cut))
    assert float(left) < 0.15 * float(there)


def test_closer_to_the_truth_than_the_shells_own_filter():
    truth = blob(32)
    halves = truth + noise(32, 2)
    whole = halves.mean(0)
    fsc = half_set_fsc(halves[:, None], 15)
    shell = filter_by_shell(whole[None], wiener(fsc, 2.0))[0]
    [local] = local_wiener(whole[None], halves, fsc[0] > 0, [2.0])
    seen = filter_by_shell(truth[None], (fsc > 0).float())[0]
    assert float((local - seen).square().sum()) < 0.5 * float((shell - seen).square().sum())


def test_more_images_are_believed_more():
    halves = blob(32) + noise(32, 2)
    one, two = local_wiener(halves.mean(0).expand(2, -1, -1, -1), halves, torch.ones(16, dtype=torch.bool), [1.0, 2.0])
    assert float(one.square().sum()) < float(two.square().sum())


def test_nothing_kept_is_nothing():
    [found] = local_wiener(noise(16, 1), noise(16, 2), torch.zeros(9, dtype=torch.bool), [2.0])
    assert float(found.abs().max()) == 0


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_do_not_matter(unit):
    halves = blob(24) + noise(24, 2)
    kept = torch.ones(13, dtype=torch.bool)
    [wanted] = local_wiener(halves.mean(0)[None], halves, kept, [2.0])
    [found] = local_wiener(unit * halves.mean(0)[None], unit * halves, kept, [2.0])
    torch.testing.assert_close(found / unit, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
