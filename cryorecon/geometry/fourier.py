"""Centred Fourier transforms and band-limited resampling of images and volumes.

Arrays have their origin at index ``D // 2`` of every axis, in real space and in centred Fourier space. The 2-D
transform is orthonormal. The 3-D transform is scaled by ``1 / D`` alone, so that a central slice of a volume's
transform *is* the orthonormal transform of its projection (the sum over z); see ``docs/conventions.md``.
"""

import torch
from torch import Tensor


def centred_fft(array: Tensor, dims: int) -> Tensor:
    """Unnormalised centred FFT over the last ``dims`` axes; origin at ``D // 2`` before and after."""
    axes = tuple(range(-dims, 0))
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(array, dim=axes), dim=axes), dim=axes)


def centred_ifft(array: Tensor, dims: int) -> Tensor:
    """Inverse of :func:`centred_fft` (divides by the number of points); complex."""
    axes = tuple(range(-dims, 0))
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(array, dim=axes), dim=axes), dim=axes)


def centred_crop_or_pad(array: Tensor, box: int, dims: int) -> Tensor:
    """Crop or zero-pad the last ``dims`` axes to ``box``, keeping the origin at ``D // 2``."""
    old = array.shape[-1]
    before = box // 2 - old // 2
    return torch.nn.functional.pad(array, (before, box - old - before) * dims)  # negative widths crop


def resample(array: Tensor, box: int, dims: int) -> Tensor:
    """Band-limited resampling of the last ``dims`` axes to ``box`` points over the same extent.

    Values are kept (a constant stays that constant). The pixel size grows by ``D / box``; the origin stays at
    ``box // 2``. Fourier cropping (``box < D``) is the field's downsampling.
    """
    old = array.shape[-1]
    if box == old:
        return array
    spectrum = centred_crop_or_pad(centred_fft(array, dims), box, dims)
    if box % 2 == 0 and box < old:  # the Nyquist row of a cropped even box has lost its partner
        for axis in range(-dims, 0):
            spectrum.select(axis, 0).zero_()
    elif old % 2 == 0 and box > old:
        for axis in range(-dims, 0):
            spectrum.select(axis, box // 2 - old // 2).zero_()
    return centred_ifft(spectrum, dims).real * (box / old) ** dims


def randomise_phases(array: Tensor, first: int, dims: int, generator: torch.Generator) -> Tensor:
    """Real arrays ``(..., D, D)`` or ``(..., D, D, D)`` whose coefficients from shell ``first`` of rounded ``|k|`` on keep
    their amplitudes and get random phases; each array of a stack its own.

    The phases are those of white noise, so that the result is real.
    """
    axes, box = tuple(range(-dims, 0)), array.shape[-1]
    spectrum = torch.fft.rfftn(array, dim=axes)
    noise = torch.fft.rfftn(torch.randn(array.shape, generator=generator).to(array), dim=axes)
    whole, half = torch.fft.fftfreq(box, 1 / box), torch.fft.rfftfreq(box, 1 / box)
    squared = half**2
    for _ in range(dims - 1):
        squared = whole.view(-1, *[1] * squared.ndim) ** 2 + squared
    beyond = (squared.sqrt().round() >= first).to(array.device)
    mixed = torch.where(beyond, spectrum.abs() * torch.sgn(noise), spectrum)
    return torch.fft.irfftn(mixed, s=array.shape[-dims:], dim=axes)
