"""Noise: its power per shell, estimated from data, and noise images drawn from such a spectrum."""

import torch
from torch import Tensor

from cryorecon.geometry.grid import Grid
from cryorecon.imaging.masks import radius_map


def background_power(images: Tensor, grid: Grid, radius: float = 0.92) -> Tensor:
    """Noise power ``E|n(k)|^2`` per shell ``(n_shells,)`` from what lies outside the particle.

    ``images``: ``(N, D, D)``; the particle is taken to lie within ``radius`` (fraction of ``D/2``). The outside's
    mean is removed; its power is scaled by the area that the window keeps.
    """
    outside = (radius_map(grid.box, 2, images.device) > radius * grid.box / 2).to(images.dtype)
    mean = (images * outside).sum((-2, -1), keepdim=True) / outside.sum()
    spectra = grid.spectra((images - mean) * outside)
    power = grid.shell_mean(spectra.abs().square().mean(0)) / outside.mean()
    power[0] = power[1]
    return smooth_shells(power)


def inside_power(images: Tensor, grid: Grid, radius: float = 0.8) -> Tensor:
    """Power ``E|y(k)|^2`` per shell ``(n_shells,)`` of all that lies within ``radius``, as of :func:`background_power`."""
    inside = (radius_map(grid.box, 2, images.device) < radius * grid.box / 2).to(images.dtype)
    mean = (images * inside).sum((-2, -1), keepdim=True) / inside.sum()
    power = grid.shell_mean(grid.spectra((images - mean) * inside).abs().square().mean(0)) / inside.mean()
    power[0] = power[1]
    return smooth_shells(power)


def smooth_shells(power: Tensor) -> Tensor:
    """A running geometric mean over three shells: a spectrum of few samples must not show their scatter."""
    log = power.clamp(min=power[power > 0].min() if (power > 0).any() else 1e-30).log()
    padded = torch.cat([log[:1], log, log[-1:]])
    return torch.exp((padded[:-2] + padded[1:-1] + padded[2:]) / 3)


def draw(power: Tensor, grid: Grid, n: int, generator: torch.Generator | None = None) -> Tensor:
    """``n`` noise images ``(n, D, D)`` whose power per shell is ``power (n_shells,)``; white beyond the last shell."""
    white = torch.randn(n, grid.box, grid.box, generator=generator)
    spectra = grid.spectra(white)
    rest = white - grid.images(spectra)
    return grid.images(spectra * power.to(white)[grid.shell].sqrt()) + rest * power[-1].sqrt()
