"""Pose errors are blind to the frame and see everything else."""

import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.geometry.rotations import from_rotation_vector, random
from cryorecon.metrics.pose_error import IDENTITY, pose_error, squared_frobenius


def turned(rotation: torch.Tensor, degrees: float, generator: torch.Generator) -> torch.Tensor:
    axis = torch.randn(len(rotation), 3, generator=generator)
    return from_rotation_vector(torch.deg2rad(torch.tensor(degrees)) * axis / axis.norm(dim=1, keepdim=True)) @ rotation


@pytest.mark.parametrize("hand", [1, -1])
def test_frame_hand_and_offset_are_taken_out(hand: int) -> None:
    generator = torch.Generator().manual_seed(0)
    truth, true_shift = random(300, generator), 5 * torch.randn(300, 2, generator=generator)
    frame = random(1, generator)[0]
    estimated = turned(truth, 2.0, generator)
    estimated[::10] = random(30, generator)  # one in ten is lost
    estimated = torch.diag(torch.tensor([float(hand), float(hand), 1.0])) @ estimated @ frame.T
    shift = true_shift + (truth @ torch.tensor([4.0, -3.0, 7.0]))[:, :2]
    found = pose_error(estimated, truth, shift, true_shift)
    assert found.frame.hand == hand
    assert abs(found.summary()["angle_median"] - 2.0) < 0.3
    assert found.shift is not None
    assert float(found.shift.max()) < 1e-3


def test_given_frame_and_formula() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = random(50, generator)
    found = pose_error(turned(truth, 30.0, generator), truth, frame=IDENTITY)
    torch.testing.assert_close(found.angle, torch.full((50,), 30.0), atol=1e-2, rtol=0)
    expected = 8 * torch.sin(torch.deg2rad(torch.tensor(15.0))) ** 2
    torch.testing.assert_close(found.squared, expected.expand(50), atol=1e-4, rtol=0)
    assert found.shift is None
    assert float(squared_frobenius(truth, truth).max()) == 0


def test_random_poses_stay_random() -> None:
    """Random baseline of the frame search: the mean geodesic distance of two random rotations is 126.5 degrees."""
    generator = torch.Generator().manual_seed(2)
    found = pose_error(random(2000, generator), random(2000, generator))
    assert 115 < found.summary()["angle_mean"] < 130


def test_numbers_must_agree() -> None:
    with pytest.raises(InputError, match="equal shapes"):
        pose_error(random(3), random(4))
