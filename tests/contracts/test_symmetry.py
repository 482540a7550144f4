"""Maps and backprojections with a point group."""

import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.geometry.rotations import symmetry_group
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.pose.given import Given
from cryorecon.metrics.alignment import Alignment, apply
from cryorecon.metrics.fsc import fsc_curve
from cryorecon.training.closed_form import consensus
from cryorecon.volumes.symmetry import symmetrise


@pytest.mark.parametrize("group", ["C2", "C3", "D2", "D3"])
def test_symmetrised_maps_stay_when_turned(group, smooth_maps):
    density = symmetrise(smooth_maps(20, 1, sharpness=0.12)[0], group)
    for rotation in symmetry_group(group):
        turned = apply(Alignment(rotation, torch.zeros(3), 1, 1.0), density, 1.0)
        assert float((turned - density).norm() / density.norm()) < 0.02


def test_a_symmetric_map_is_kept_and_c1_is_nothing(smooth_maps):
    density = smooth_maps(20, 1, sharpness=0.12)[0]
    assert symmetrise(density, "C1") is density
    once = symmetrise(density, "D2")
    torch.testing.assert_close(symmetrise(once, "D2"), once, atol=0.01 * float(once.abs().max()), rtol=0)


def test_unknown_group(smooth_maps):
    with pytest.raises(InputError, match="symmetry"):
        symmetrise(smooth_maps(20, 1)[0], "O")


def test_symmetry_stands_for_images_that_are_not_there(planted):
    """With D2 told, 60 noisy images of a D2 object are worth 240."""
    problem = planted(60, box=20, sigma=2.0, group="D2")
    half, mask = 1 + torch.arange(60) % 2, soft_sphere(20, 8, 1.5)
    pose = Given(problem.stack.poses.rotation, problem.stack.poses.shift)
    loader = problem.loader()
    curves = [fsc_curve(consensus(loader, problem.grid, pose, half, mask, group).halves.mean(0), problem.maps[0], mask).value
              for group in ("C1", "D2")]
    assert curves[1][1:7].mean() > curves[0][1:7].mean() + 0.05
    assert (curves[1][1:5] > 0.9).all()
