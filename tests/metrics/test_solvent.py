"""The correction for a mask: what is known of two maps, what the mask adds, and what is left."""

import pytest
import torch

from cryorecon.geometry.fourier import randomise_phases
from cryorecon.imaging.masks import soft_sphere
from cryorecon.metrics.fsc import fsc_curve
from cryorecon.metrics.solvent import BESIDE, first_below, overfit_free, solvent_fsc
from cryorecon.objectives.filters import filter_by_shell


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("box", "dims"), [(15, 2), (16, 2), (15, 3), (16, 3)])
def test_random_phases_keep_amplitudes_and_what_lies_below(box, dims):
    array = noise(0, *[box] * dims)
    out = randomise_phases(array, 4, dims, torch.Generator().manual_seed(1))
    before, after = torch.fft.fftn(array), torch.fft.fftn(out)
    assert torch.allclose(before.abs(), after.abs(), atol=1e-4)
    axis = torch.fft.fftfreq(box, 1 / box)
    radius = sum(k**2 for k in torch.meshgrid(*[axis] * dims, indexing="ij")).sqrt().round()
    assert torch.allclose(before[radius < 4], after[radius < 4], atol=1e-4)
    beyond = radius >= 4
    turned = (before[beyond] * after[beyond].conj()).real.sum() / before[beyond].abs().square().sum()
    assert abs(float(turned)) < 3 / float(beyond.sum()) ** 0.5  # three standard deviations


def test_each_image_of_a_stack_gets_phases_of_its_own():
    out = randomise_phases(noise(0, 16, 16).expand(2, 16, 16), 1, 2, torch.Generator().manual_seed(1))
    assert not torch.allclose(out[0], out[1])


@pytest.fixture(scope="module")
def leaky():
    """Two maps of 48 px that share what lies below shell 8 and nothing beyond, and a small tight mask that mixes the two."""
    shared = noise(0, 1, 48, 48, 48)
    low = filter_by_shell(shared, (torch.arange(25) < 8).float()[None])[0]
    high = filter_by_shell(noise(1, 2, 48, 48, 48), (torch.arange(25) >= 8).float()[None].expand(2, -1)) * 0.1
    return low + high[0], low + high[1], soft_sphere(48, 8, 1)


def test_what_a_mask_leaks_is_taken_off(leaky):
    found = solvent_fsc(*leaky, "tight")
    assert found.first == 8
    shells = slice(8 + BESIDE, 15)
    assert float(found.masked.value[shells].mean()) > 0.5  # the mask's doing: without it there is nothing
    assert abs(float(found.unmasked.value[shells].mean())) < 0.02
    assert float(found.corrected.value[shells].mean()) < 0.1
    assert torch.equal(found.corrected.value[:8], found.masked.value[:8])
    assert "corrected" in found.resolutions(1.0)["corrected"].mask


def test_what_is_true_stays():
    """Signal in the mask at all shells: what the correction takes off is the scatter of a curve about 0."""
    mask = soft_sphere(48, 10, 4)
    signal = noise(0, 48, 48, 48) * mask * 5
    a, b = signal + noise(1, 48, 48, 48), signal + noise(2, 48, 48, 48)
    found = solvent_fsc(a, b, mask, "soft")
    shells = slice(found.first + BESIDE, 24)
    assert float((found.corrected.value - found.masked.value)[shells].abs().max()) < 0.03
    assert float(found.masked.value[shells].mean()) > float(found.unmasked.value[shells].mean()) + 0.2


def test_maps_that_agree_throughout_have_nothing_to_correct():
    a = noise(0, 24, 24, 24)
    found = solvent_fsc(a, a, soft_sphere(24, 8, 2), "sphere")
    assert found.first == 13 == len(found.masked.value)
    assert torch.equal(found.corrected.value, found.masked.value)


def test_the_correction_is_chens_equation():
    total, chance = torch.tensor([1.0, 0.9, 0.8, 0.6, 0.3, 0.1]), torch.tensor([1.0, 0.9, 0.5, 0.2, -0.1, 0.4])
    assert torch.allclose(overfit_free(total, chance, 1), torch.tensor([1.0, 0.9, 0.8, 0.5, 0.3, 0.0]))


def test_the_first_shell_below():
    curve = fsc_curve(noise(0, 24, 24, 24), noise(1, 24, 24, 24))
    assert first_below(curve) == 1
    assert first_below(curve, -2.0) == len(curve.value)
