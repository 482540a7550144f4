"""Maps of different boxes and pixel sizes brought to one grid by exact trigonometric interpolation."""

import math

import torch
from torch import Tensor

from cryorecon.errors import InputError

SAME = 5e-4  # relative difference of pixel sizes that headers' rounding explains


def interpolation_matrix(box: int, apix: float, new_box: int, new_apix: float) -> Tensor:
    """``(new_box, box)`` float64: samples of the band-limited periodic function through ``box`` points.

    Both axes have their origin at index ``D // 2``. Frequencies beyond the new grid's Nyquist are left out (a low-pass,
    if the new pixel is coarser); what lies outside the old box is zero.
    """
    old = torch.arange(box, dtype=torch.float64) - box // 2
    new = (torch.arange(new_box, dtype=torch.float64) - new_box // 2) * (new_apix / apix)
    k = torch.arange(box // 2 + 1, dtype=torch.float64)
    weight = torch.where((k == 0) | (2 * k == box), 1.0, 2.0) / box
    weight = weight * (k / (box * apix) < 0.5 / new_apix * (1 + SAME))
    angle = 2 * math.pi / box * k
    cosine = (angle * new[:, None]).cos() * weight @ (angle * old[:, None]).cos().T
    sine = (angle * new[:, None]).sin() * weight @ (angle * old[:, None]).sin().T
    inside = (new >= old[0] - 0.5) & (new <= old[-1] + 0.5)
    return (cosine + sine) * inside[:, None]


def resample(density: Tensor, apix: float, new_box: int, new_apix: float) -> Tensor:
    """A map ``(D, D, D)`` of ``apix`` Å/px on a grid of ``new_box`` points of ``new_apix`` Å/px.

    Exact for any ratio of pixel sizes, up to the periodic extension at the box's edge. Density is kept: a value per
    volume element of the old map stays that value.

    Raises
    ------
    InputError: a pixel size that is not positive.
    """
    if apix <= 0 or new_apix <= 0:
        raise InputError(f"resampling: expected pixel sizes above 0 Å, found {apix} and {new_apix}; give --apix")
    box = density.shape[-1]
    if new_box == box and abs(new_apix / apix - 1) < SAME:
        return density
    matrix = interpolation_matrix(box, apix, new_box, new_apix).to(density)
    out = torch.einsum("ak,zyk->zya", matrix, density)
    out = torch.einsum("ak,zkx->zax", matrix, out)
    return torch.einsum("ak,kyx->ayx", matrix, out)


def common_grid(box_a: int, apix_a: float, box_b: int, apix_b: float) -> tuple[int, float]:
    """Box and pixel size on which two maps compare: the coarser pixel, the smaller extent (even, unless they agree)."""
    apix = max(apix_a, apix_b)
    if abs(apix_a / apix_b - 1) < SAME and box_a == box_b:
        return box_a, apix
    extent = min(box_a * apix_a, box_b * apix_b)
    box = int(extent / apix * (1 + SAME))
    return box - box % 2, apix


def match(a: Tensor, apix_a: float, b: Tensor, apix_b: float) -> tuple[Tensor, Tensor, float]:
    """Both maps on their :func:`common_grid`, and its pixel size."""
    if apix_a <= 0 or apix_b <= 0:
        raise InputError(f"resampling: expected pixel sizes above 0 Å, found {apix_a} and {apix_b}; give --apix")
    box, apix = common_grid(a.shape[-1], apix_a, b.shape[-1], apix_b)
    return resample(a, apix_a, box, apix), resample(b, apix_b, box, apix), apix
