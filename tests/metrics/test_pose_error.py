"""Pose errors are blind to the frame and see everything else."""

import math

import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.geometry.rotations import from_rotation_vector, random, symmetry_group
from cryorecon.metrics.pose_error import IDENTITY, best_frame, pose_error, squared_frobenius


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
    assert found.offset is not None
    assert float(found.shift.max()) < 1e-3
    torch.testing.assert_close(found.offset, torch.tensor([4.0, -3.0, 7.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.frame.rotation, frame, atol=0.02, rtol=0)


def test_shares_and_means() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = random(100, generator)
    estimated = torch.cat([turned(truth[:60], 3.0, generator), turned(truth[60:90], 8.0, generator),
                           turned(truth[90:], 90.0, generator)])
    found = pose_error(estimated, truth, frame=IDENTITY)
    assert [round(found.within(degrees), 3) for degrees in (1, 5, 10, 30)] == [0, 0.6, 0.9, 0.9]
    assert found.summary()["angle_mean"] == pytest.approx(0.6 * 3 + 0.3 * 8 + 0.1 * 90, abs=1e-2)
    each = [8 * math.sin(math.radians(degrees / 2)) ** 2 for degrees in (3, 8, 90)]
    assert found.summary()["squared_frobenius_mean"] == pytest.approx(0.6 * each[0] + 0.3 * each[1] + 0.1 * each[2], abs=1e-3)


@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize("name", ["C3", "D2"])
def test_any_equivalent_pose_of_a_symmetric_map_is_right(name: str, hand: int) -> None:
    """The estimated map lies anywhere; every particle sees it through an operator of its own."""
    generator = torch.Generator().manual_seed(4)
    group, frame = symmetry_group(name), random(1, generator)[0]
    truth, true_shift = random(400, generator), 5 * torch.randn(400, 2, generator=generator)
    equivalent = truth @ group[torch.randint(len(group), (400,), generator=generator)]
    estimated = turned(equivalent, 3.0, generator)
    estimated[::10] = random(40, generator)
    estimated = torch.diag(torch.tensor([float(hand), float(hand), 1.0])) @ estimated @ frame.T
    shift = true_shift + (equivalent @ torch.tensor([2.0, 1.0, -6.0]))[:, :2]
    found = pose_error(estimated, truth, shift, true_shift, group=group)
    assert found.frame.hand == hand
    assert abs(found.summary()["angle_median"] - 3.0) < 0.3
    assert found.within(5) >= 0.9
    assert found.shift is not None
    assert float(found.shift.median()) < 1e-3
    blind = pose_error(estimated, truth, shift, true_shift)
    assert blind.within(5) < 0.7


def test_the_least_error_over_the_group_is_taken() -> None:
    """In a given frame, against all operators tried one by one."""
    generator = torch.Generator().manual_seed(5)
    group, truth, estimated = symmetry_group("D3"), random(50, generator), random(50, generator)
    found = pose_error(estimated, truth, frame=IDENTITY, group=group)
    tried = squared_frobenius((estimated[:, None] @ group), truth[:, None]).amin(1)
    torch.testing.assert_close(found.squared, tried, atol=1e-5, rtol=0)
    torch.testing.assert_close(8 * torch.sin(torch.deg2rad(found.angle) / 2) ** 2, tried, atol=1e-4, rtol=0)


def test_a_hand_may_be_demanded() -> None:
    generator = torch.Generator().manual_seed(6)
    truth = random(200, generator)
    wrong = best_frame(truth, truth, hands=(-1,))
    assert wrong.hand == -1
    assert float(pose_error(truth, truth, frame=wrong).angle.median()) > 60


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
