r"""Filters of maps whose half maps say how much of them to believe: by shell, and by place and frequency.

**Local Wiener filter.** With half maps ``a = v + n_a`` and ``b = v + n_b`` cut into octaves of frequency, the correlation of
``a`` and ``b`` in a Gaussian window, ``C = <a b> / sqrt(<a a> <b b>)``, is the share of signal in either of them at that place
and octave. A map of ``s`` times a half set's images has noise of variance ``N / s``, and what is to be believed of it is
``s C / (1 + (s - 1) C)``. Solvent, and parts that move or are absent, do not agree and fade out octave by octave; a shell's
filter has to give them the same weight as the rigid core, noise and all. (Local FSC: Cardone, Heymann & Steven, J. Struct.
Biol. 184, 226 (2013); regularisation that follows local agreement: Ramlaul, Palmer & Aylett, LAFTER, J. Struct. Biol. 205, 30
(2019), and Punjani, Zhang & Fleet, Nature Methods 17, 1214 (2020).)

The weight of a half map sees the other half: where both agree by chance, noise of the one passes by the other's leave. Cross-
fitted maps are therefore not wholly free of the images that they judge.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cryorecon.geometry.fourier import centred_fft, centred_ifft
from cryorecon.imaging.masks import radius_map

FIRST_OCTAVE = 4.0  # Fourier pixels: below, the window is as wide as the particle
WINDOW = 0.5  # wavelengths, standard deviation of the window
TINY = 1e-30  # where both half maps are zero


def local_wiener(maps: Tensor, halves: Tensor, kept: Tensor, shares: Sequence[float]) -> list[Tensor]:
    """Maps filtered by the local agreement of two half maps.

    maps ``(M, D, D, D)``, each of ``shares[m]`` times as many images as a half map; halves ``(2, D, D, D)``; kept
    ``(n_shells,)`` bool: the shells to keep, others become zero.
    """
    radius = frequency_radius(maps.shape[-1], maps.device)
    shell = radius.round().long()
    inside = torch.nn.functional.pad(kept, (0, int(shell.max()) + 1))[shell]
    last = max(1.0, float(kept.nonzero().max())) if bool(kept.any()) else 1.0
    octave = torch.log2(radius.clamp(min=TINY) / FIRST_OCTAVE)
    octaves = max(0, math.ceil(math.log2(last / FIRST_OCTAVE)))
    spectra, half_spectra = torch.fft.rfftn(maps, dim=(1, 2, 3)), torch.fft.rfftn(halves, dim=(1, 2, 3))
    out = torch.zeros_like(maps)
    for number in range(octaves + 1):  # raised cosines that sum to one
        band = inside * torch.cos(math.pi / 2 * (octave.clamp(0, octaves) - number).abs().clamp(max=1)).square()
        agreement = local_agreement(_real(half_spectra * band, halves), radius, FIRST_OCTAVE * 2**number)
        for total, spectrum, share in zip(out, spectra, shares, strict=True):
            total.add_(wiener(agreement, share) * _real(spectrum * band, total))
    return list(out)


def local_agreement(halves: Tensor, radius: Tensor, frequency: float) -> Tensor:
    """Correlation ``(D, D, D)``, at least 0, of band-passed half maps ``(2, D, D, D)`` in a Gaussian window around each place.

    radius: of :func:`frequency_radius`. frequency: of the band in Fourier pixels; the window is ``WINDOW`` of its waves wide.
    """
    window = torch.exp(-2 * (math.pi * WINDOW / frequency * radius).square())
    products = torch.stack([halves[0] * halves[1], halves[0].square(), halves[1].square()])
    both, first, second = _real(torch.fft.rfftn(products, dim=(1, 2, 3)) * window, products)
    norm = first.clamp(min=0).sqrt() * second.clamp(min=0).sqrt()  # not of the product: in other units it leaves float32
    return (both / norm.clamp(min=max(1e-6 * float(norm.max()), TINY))).clamp(0, 1)


def frequency_radius(box: int, device: torch.device | str = "cpu") -> Tensor:
    """``|k|`` in Fourier pixels of the transform ``torch.fft.rfftn`` of a map ``(D, D, D)``: ``(D, D, D // 2 + 1)``."""
    whole, half = torch.fft.fftfreq(box, 1 / box, device=device), torch.fft.rfftfreq(box, 1 / box, device=device)
    return (whole[:, None, None] ** 2 + whole[None, :, None] ** 2 + half**2).sqrt()


def _real(spectrum: Tensor, like: Tensor) -> Tensor:
    """Inverse of ``rfftn`` over the last three axes."""
    return torch.fft.irfftn(spectrum, s=like.shape[-3:], dim=(-3, -2, -1))


def wiener(agreement: Tensor, share: float) -> Tensor:
    """Wiener filter of a map of ``share`` times a half set's images, from the half maps' agreement C: ``s C / (1 + (s - 1)
    C)``."""
    return share * agreement / (1 + (share - 1) * agreement)


def half_set_fsc(halves: Tensor, n_shells: int) -> Tensor:
    """FSC by shell of masked half maps ``(2, Q, D, D, D)``: ``(Q, n_shells)``, at least 0 and at most .999."""
    shell = radius_map(halves.shape[-1], 3, halves.device).round().long().flatten()
    n = max(n_shells, int(shell.max()) + 1)
    out = []
    for first, second in zip(halves[0], halves[1], strict=True):
        a, b = centred_fft(first, 3).flatten(), centred_fft(second, 3).flatten()
        sums = torch.stack([(a * b.conj()).real, a.abs().square(), b.abs().square()])
        by_shell = sums.new_zeros(3, n).index_add_(1, shell, sums)
        out.append(by_shell[0] / (by_shell[1] * by_shell[2]).sqrt().clamp(min=1e-30))
    return torch.stack(out)[:, :n_shells].clamp(0, 0.999)


def resolved_part(fsc: Tensor, threshold: float = 0.143) -> Tensor:
    """FSCs ``(Q, n_shells)`` set to zero from where they first fall below the threshold, counted from their peak.

    From the peak, because a motion that moves no mass far has little power, and a low FSC, in the innermost shells. A
    running mean over three shells decides, so that one unlucky shell doesn't.
    """
    padded = torch.cat([fsc[:, :1], fsc, fsc[:, -1:]], 1)
    smooth = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
    after = torch.arange(fsc.shape[1], device=fsc.device) > smooth.argmax(1, keepdim=True)
    lost = (after & (smooth < threshold)).cumsum(1) > 0
    return fsc.masked_fill(lost, 0.0)


def filter_by_shell(maps: Tensor, factor: Tensor) -> Tensor:
    """Maps ``(Q, D, D, D)`` with each shell of their transforms multiplied by ``factor (Q, n_shells)``."""
    shell = radius_map(maps.shape[-1], 3, maps.device).round().long()
    padded = torch.cat([factor, factor.new_zeros(len(factor), int(shell.max()) + 1)], 1)
    return torch.stack([centred_ifft(centred_fft(m, 3) * f[shell], 3).real for m, f in zip(maps, padded, strict=True)])
