"""A planted rotation, shift and hand is found, with noise, between maps of different grids."""

import pytest
import torch

from cryorecon.geometry.rotations import angle_between, random
from cryorecon.metrics.alignment import Alignment, align, apply, rotation_spiral
from cryorecon.metrics.fsc import fsc_curve

ATOMS = torch.randn(60, 3, generator=torch.Generator().manual_seed(2)) * torch.tensor([20.0, 13.0, 9.0])
ATOMS = ATOMS + 9 * torch.sign(ATOMS[:, :1]) * torch.tensor([0.3, 1.0, 0.5])


def molecule(atoms: torch.Tensor, box: int, apix: float) -> torch.Tensor:
    """Gaussian blobs of 5 Å at ``(A, 3)`` (x, y, z)."""
    axis = (torch.arange(box) - box // 2) * apix
    x, y, z = (torch.exp(-0.5 * ((axis - atoms[:, i : i + 1]) / 5) ** 2) for i in range(3))
    return torch.einsum("az,ay,ax->zyx", z, y, x)


def test_the_rotations_cover_evenly() -> None:
    grid = rotation_spiral(600).float()
    torch.testing.assert_close(grid @ grid.transpose(1, 2), torch.eye(3).expand(600, 3, 3), atol=1e-5, rtol=0)
    nearest = angle_between(random(200, torch.Generator().manual_seed(0))[:, None], grid).amin(1)
    assert float(torch.rad2deg(nearest).max()) < 28


@pytest.mark.parametrize("hand", [1, -1])
def test_a_planted_alignment_is_found(hand: int) -> None:
    generator = torch.Generator().manual_seed(3 + hand)
    rotation, shift = random(1, generator)[0], torch.tensor([8.3, -6.1, 4.9])
    reference = molecule(ATOMS, 48, 3.0)
    mirror = torch.diag(torch.tensor([1.0, 1.0, float(hand)]))
    moving = molecule((ATOMS - shift) @ rotation @ mirror, 44, 3.37)  # p = M R^T (q - t)
    noisy = moving + 0.5 * moving.std() * torch.randn(moving.shape, generator=generator)
    with torch.no_grad():  # a caller's business, not the refinement's
        found = align(noisy, reference, 3.37, 3.0)
    assert found.hand == hand
    assert float(torch.rad2deg(angle_between(found.rotation.float(), rotation))) < 0.4
    assert float((found.shift - shift).abs().max()) < 0.15
    assert found.correlation > 0.8


def test_apply_keeps_every_shell_and_says_where_points_go() -> None:
    rotation, shift = random(1, torch.Generator().manual_seed(8))[0].double(), torch.tensor([3.1, -2.2, 1.3]).double()
    planted = Alignment(rotation, shift, -1, 1.0)
    moved = apply(planted, molecule(ATOMS, 40, 4.0), 4.0)
    mirrored = ATOMS * torch.tensor([1.0, 1.0, -1.0])
    expected = molecule(mirrored @ rotation.float().T + shift.float(), 40, 4.0)
    assert float((moved - expected).abs().max()) < 0.01 * float(expected.max())
    assert float(fsc_curve(moved, expected).value[:14].min()) > 0.999
