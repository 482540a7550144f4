"""The mask where none is given, and maps that are inverted."""

import pytest
import torch

from cryorecon.imaging.masks import radius_map, soft_sphere
from cryorecon.training.build import sphere
from cryorecon.training.closed_form import DARK, contrast


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2, 0.5, 0.85, 1.2])
def test_the_sphere_is_one_inside_and_nothing_beyond_its_radius(fraction):
    mask, radius = sphere(32, fraction), radius_map(32, 3)
    wanted = fraction * 16
    assert mask[16, 16, 16] == 1
    assert not mask[radius >= wanted].any()
    assert (mask[radius <= wanted - 4] == 1).all()
    by_radius = mask.flatten()[radius.flatten().argsort(stable=True)]
    assert (by_radius.diff() <= 1e-6).all(), "it falls outwards"


def test_a_large_sphere_has_an_edge_of_four_pixels():
    profile = sphere(64, 0.5)[32, 32, 32:]
    assert torch.nonzero(profile == 1)[-1] == 12
    assert torch.nonzero(profile > 0)[-1] == 15


@pytest.mark.parametrize(("signs", "dark"), [((1, 1), False), ((-1, -1), True), ((1, -1), False)])
def test_only_a_map_that_is_dark_in_both_halves_is_called_inverted(signs, dark):
    mask = soft_sphere(24, 9, 2)
    halves = 0.1 * torch.randn(2, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    assert contrast(halves, mask) > DARK
    halves[:, 10:14, 10:14, 10:14] += torch.tensor(signs)[:, None, None, None]
    assert (contrast(halves, mask) < DARK) is dark
