"""Resampling is exact for what the grid can hold, whatever the ratio of pixel sizes."""

import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.metrics.resample import common_grid, interpolation_matrix, match, resample


def gaussians(box: int, apix: float) -> torch.Tensor:
    """Two Gaussian blobs, off centre and of different widths, on any grid."""
    axis = (torch.arange(box).double() - box // 2) * apix
    out = torch.zeros(box, box, box, dtype=torch.float64)
    for (x, y, z), sigma in (((11.0, -7.0, 4.0), 9.0), ((-8.0, 3.0, -13.0), 7.5)):
        part = [torch.exp(-0.5 * ((axis - c) / sigma) ** 2) for c in (z, y, x)]
        out += part[0][:, None, None] * part[1][:, None] * part[2]
    return out.float()


@pytest.mark.parametrize(("box", "apix", "new_box", "new_apix"), [
    (64, 2.548, 48, 3.54), (48, 3.54, 64, 2.548), (47, 3.3, 44, 3.71), (40, 4.0, 80, 2.0), (64, 3.0, 40, 3.0),
])
def test_a_gaussian_phantom_is_reproduced(box: int, apix: float, new_box: int, new_apix: float) -> None:
    found = resample(gaussians(box, apix), apix, new_box, new_apix)
    assert float((found - gaussians(new_box, new_apix)).abs().max()) < 2e-4


def test_outside_the_old_box_is_zero_and_the_same_grid_is_untouched() -> None:
    density = gaussians(32, 3.0)
    padded = resample(density, 3.0, 64, 3.0)
    assert float(padded[:14].abs().max()) == 0.0
    torch.testing.assert_close(padded[16:48, 16:48, 16:48], density, atol=1e-5, rtol=0)
    assert resample(density, 3.0, 32, 3.00001) is density


def test_coarser_pixels_are_low_passed() -> None:
    axis = torch.arange(64).double() - 32
    fast, slow = torch.cos(2 * torch.pi * 20 * axis / 64), torch.cos(2 * torch.pi * 8 * axis / 64)
    matrix = interpolation_matrix(64, 1.0, 32, 2.0)
    assert float((matrix @ fast).abs().max()) < 1e-9
    coarse = torch.cos(2 * torch.pi * 8 * (torch.arange(32).double() - 16) / 32)
    torch.testing.assert_close(matrix @ slow, coarse, atol=1e-9, rtol=0)


def test_common_grid() -> None:
    assert common_grid(65, 5.0, 65, 5.0) == (65, 5.0)
    assert common_grid(96, 2.548, 100, 3.54) == (68, 3.54)
    a, b, apix = match(gaussians(96, 1.3), 1.3, gaussians(40, 2.9), 2.9)
    assert a.shape == b.shape
    assert apix == 2.9
    torch.testing.assert_close(a, b, atol=2e-3, rtol=0)
    with pytest.raises(InputError, match="pixel sizes"):
        match(a, 0.0, b, 1.0)
