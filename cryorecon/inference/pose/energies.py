r"""Energies of many poses at once: ``sum_k (p |s|^2 - 2 Re(conj(d e^{-2 pi i k.t}) s))`` in nats, without each image's
own constant (``Batch.norm``).

The shift acts on the data, so that a slice serves all shifts. What all images share is one matrix product; what belongs
to each image a batch of small ones.
"""

import torch
from torch import Tensor


def flat(values: Tensor) -> Tensor:
    """Complex ``(..., P)`` as real ``(..., 2 P)``: a real scalar product of two is ``Re(conj(a) b)``."""
    return torch.view_as_real(values).flatten(-2)


def shared_energies(slices: Tensor, data: Tensor, power: Tensor, ramps: Tensor) -> Tensor:
    """Every image with every slice and shift: ``(B, T, M)``.

    slices ``(M, P)``; data ``(B, P)``, power ``(B, P)`` as in a batch; ramps ``(T, P)``: ``Grid.phase_ramp(+shift)``.
    """
    moved = (data[:, None] * ramps).flatten(0, 1)
    cross = (flat(moved) @ flat(slices).T).view(len(data), len(ramps), len(slices))
    squares = power @ (slices.real.square() + slices.imag.square()).T
    return squares[:, None] - 2 * cross


def own_energies(slices: Tensor, data: Tensor, power: Tensor, ramps: Tensor) -> Tensor:
    """Every image with slices of its own: ``(B, K, T, C)``.

    slices ``(B, K, C, P)``: C rotations of each of K candidates; ramps ``(B, K, T, P)``: T shifts of each.
    """
    moved = data[:, None, None] * ramps
    cross = flat(moved) @ flat(slices).transpose(-1, -2)
    squares = ((slices.real.square() + slices.imag.square()) @ power[:, None, :, None])[..., 0]
    return squares[:, :, None] - 2 * cross
