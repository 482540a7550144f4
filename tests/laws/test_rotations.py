"""Laws of rotations, against scipy where it has an opinion."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryorecon.errors import InputError
from cryorecon.geometry import rotations


def angles(n: int = 200, seed: int = 0) -> torch.Tensor:
    """Euler angles with rot and psi in (-pi, pi), tilt in (0, pi)."""
    unit = torch.rand(n, 3, generator=torch.Generator().manual_seed(seed))
    return (unit - torch.tensor([0.5, 0.0, 0.5])) * torch.tensor([2.0, 1.0, 2.0]) * math.pi


def test_euler_matrix_is_relions():
    """RELION's A is the inverse of the intrinsic (active) ZYZ rotation by (rot, tilt, psi)."""
    ours = rotations.from_euler(angles().double()).numpy()
    theirs = Rotation.from_euler("ZYZ", angles().double().numpy()).inv().as_matrix()
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_euler_matrix_entry_by_entry():
    """Written out by hand: rot 30, tilt 60, psi 45 degrees."""
    matrix = rotations.from_euler(torch.deg2rad(torch.tensor([30.0, 60.0, 45.0])))
    r, h, q = math.sqrt(0.5), math.sqrt(3) / 2, 0.5
    expected = [[r * q * h - r * q, r * q * q + r * h, -r * h],
                [-r * q * h - r * q, -r * q * q + r * h, r * h],
                [h * h, h * q, q]]
    torch.testing.assert_close(matrix, torch.tensor(expected))


def test_a_particles_view_direction_is_its_third_row():
    """x' = R x with projection along z: the viewing direction in the molecule's frame is R^T z."""
    rot, tilt = 0.7, 1.1
    matrix = rotations.from_euler(torch.tensor([rot, tilt, -2.0]))
    direction = [math.sin(tilt) * math.cos(rot), math.sin(tilt) * math.sin(rot), math.cos(tilt)]
    torch.testing.assert_close(matrix[2], torch.tensor(direction))


def test_euler_both_ways():
    torch.testing.assert_close(rotations.to_euler(rotations.from_euler(angles())), angles(), atol=5e-4, rtol=0)


@pytest.mark.parametrize("tilt", [0.0, math.pi])
def test_euler_at_the_poles_gives_the_same_matrix_with_rot_zero(tilt):
    matrix = rotations.from_euler(torch.tensor([[0.4, tilt, 1.3], [-2.0, tilt, 0.1], [0.0, tilt, 0.0]]))
    back = rotations.to_euler(matrix)
    assert (back[:, 0] == 0).all()
    torch.testing.assert_close(rotations.from_euler(back), matrix, atol=1e-5, rtol=0)


def test_rotation_vectors():
    vector = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    expected = Rotation.from_rotvec(vector.double().numpy()).as_matrix()
    np.testing.assert_allclose(rotations.from_rotation_vector(vector.double()).numpy(), expected, atol=1e-10)
    torch.testing.assert_close(rotations.from_rotation_vector(torch.zeros(2, 3)), torch.eye(3).expand(2, 3, 3))


def test_rotation_vector_has_a_gradient_at_zero():
    vector = torch.zeros(1, 3, requires_grad=True)
    rotations.from_rotation_vector(vector)[0, 2, 1].backward()
    torch.testing.assert_close(vector.grad, torch.tensor([[1.0, 0.0, 0.0]]))


def test_random_rotations_are_rotations_spread_evenly():
    sample = rotations.random(4000, torch.Generator().manual_seed(0))
    assert rotations.defect(sample).max() < 1e-5
    assert sample.mean(0).abs().max() < 0.05
    assert abs(float(torch.rad2deg(rotations.angle_between(sample[:2000], sample[2000:])).mean()) - 126.5) < 2
    assert torch.equal(sample, rotations.random(4000, torch.Generator().manual_seed(0)))


def test_defect_finds_what_is_no_rotation():
    good = rotations.random(3, torch.Generator().manual_seed(1))
    assert rotations.defect(good).max() < 1e-5
    assert rotations.defect(1.01 * good).min() > 0.01
    assert rotations.defect(-good).min() > 1.9
    assert rotations.defect(torch.zeros(3, 3)) > 0.9


def test_nearest_undoes_a_small_disturbance():
    good = rotations.random(20, torch.Generator().manual_seed(2))
    torch.testing.assert_close(rotations.nearest(2.0 * good), good, atol=1e-5, rtol=0)
    disturbed = good + 0.05 * torch.randn(20, 3, 3, generator=torch.Generator().manual_seed(3))
    near = rotations.nearest(disturbed)
    assert rotations.defect(near).max() < 1e-5
    assert rotations.angle_between(near, good).max() < 0.3


def test_angle_between():
    turn = rotations.from_rotation_vector(torch.tensor([0.0, 0.3, 0.0]))
    frames = rotations.random(5, torch.Generator().manual_seed(4))
    torch.testing.assert_close(rotations.angle_between(turn @ frames, frames), torch.full((5,), 0.3), atol=1e-3, rtol=0)


def test_stage_tilt_is_about_x():
    torch.testing.assert_close(rotations.about_x(0.4), rotations.from_rotation_vector(torch.tensor([0.4, 0.0, 0.0])))


@pytest.mark.parametrize(("name", "order"), [("C1", 1), ("C2", 2), ("c4", 4), ("C7", 7),
                                               ("D1", 2), ("D2", 4), ("d3", 6), ("D7", 14)])
def test_symmetry_groups_are_closed(name, order):
    group = rotations.symmetry_group(name)
    assert group.shape == (order, 3, 3)
    assert rotations.defect(group).max() < 1e-5
    distance = (group[:, None] - group[None, :]).abs().amax((-1, -2)) + 9 * torch.eye(order)
    assert distance.min() > 1e-2, "no element twice"
    products = (group[:, None] @ group[None, :]).reshape(-1, 1, 3, 3)
    assert (products - group).abs().amax((-1, -2)).amin(1).max() < 1e-5
    inverses = group.transpose(-1, -2)[:, None]
    assert (inverses - group).abs().amax((-1, -2)).amin(1).max() < 1e-5
    torch.testing.assert_close(group[0], torch.eye(3))


def test_symmetry_axes_are_relions():
    """The n-fold axis is z; the two-fold of D is x."""
    z, x = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(rotations.symmetry_group("C5") @ z, z)
    dihedral = rotations.symmetry_group("D5")
    about_x = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    assert (dihedral - about_x).abs().amax((-1, -2)).min() < 1e-6
    assert torch.allclose(about_x @ x, x)


@pytest.mark.parametrize("name", ["", "C", "C0", "E2", "T", "D-1", "C2.5", "2C"])
def test_unknown_symmetry_is_refused(name):
    with pytest.raises(InputError, match="expected C<n> or D<n>"):
        rotations.symmetry_group(name)
