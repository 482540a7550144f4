"""The mask where none is given."""

import pytest
import torch

from cryorecon.imaging.masks import radius_map
from cryorecon.training.build import sphere


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
