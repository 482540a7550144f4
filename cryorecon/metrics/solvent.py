r"""How much of a masked FSC is the mask's: Chen et al., Ultramicroscopy 135, 24 (2013).

A mask multiplies both half maps in real space, which mixes shells: what they share at low frequency leaks to where they share
nothing. The same two maps, their phases made random beyond a shell, share nothing there; what their masked FSC still shows is
the mask's doing, and

.. math:: \mathrm{FSC}_{true} = \frac{\mathrm{FSC}_t - \mathrm{FSC}_n}{1 - \mathrm{FSC}_n}

is free of it. The shell is the first at which the FSC without the mask falls below 0.8; up to two shells beyond it the masked
curve stands as it is (RELION's choices).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryorecon.geometry.fourier import randomise_phases
from cryorecon.metrics.fsc import FSCCurve, Resolution, fsc_curve, resolution

LEVEL = 0.8  # of the FSC without a mask, below which phases are made random
BESIDE = 2  # shells beyond that which are left as they are
DRAWS = 4  # of random phases, whose FSCs are averaged


@dataclass(frozen=True)
class SolventFSC:
    """Four curves of two maps: unmasked, masked, ``randomised`` (masked, after phases were made random from shell ``first`` on)
    and ``corrected``."""

    unmasked: FSCCurve
    masked: FSCCurve
    randomised: FSCCurve
    corrected: FSCCurve
    first: int

    def curves(self) -> dict[str, FSCCurve]:
        """All four by name, the one to quote first."""
        return {"corrected": self.corrected, "masked": self.masked, "unmasked": self.unmasked,
                "phases randomised": self.randomised}

    def resolutions(self, apix: float, threshold: float = 0.143) -> dict[str, Resolution]:
        """Where the first three fall below the threshold."""
        shown = {name: curve for name, curve in self.curves().items() if curve is not self.randomised}
        return {name: resolution(curve, threshold, apix) for name, curve in shown.items()}


def first_below(curve: FSCCurve, level: float = LEVEL) -> int:
    """The first shell, 1 or beyond, at which a curve is below ``level``; the number of shells where it never is."""
    below = torch.nonzero(curve.value[1:] < level)
    return int(below[0, 0]) + 1 if len(below) else len(curve.value)


def overfit_free(total: Tensor, noise: Tensor, first: int) -> Tensor:
    """``(FSC_t - FSC_n) / (1 - FSC_n)`` from shell ``first + 2`` on, ``FSC_t`` before; 0 where noise agrees better."""
    beyond = torch.arange(len(total)) >= first + BESIDE
    true = ((total - noise) / (1 - noise).clamp(min=1e-6)).clamp(min=0)
    return torch.where(beyond, torch.where(noise > 0, true, total), total)


def solvent_fsc(a: Tensor, b: Tensor, mask: Tensor, mask_name: str, seed: int = 0) -> SolventFSC:
    """The curves of half maps ``(D, D, D)`` under a ``mask``. Raises :class:`InputError` as :func:`fsc_curve` does."""
    unmasked, masked = fsc_curve(a, b), fsc_curve(a, b, mask, mask_name)
    first = first_below(unmasked)
    generator = torch.Generator().manual_seed(seed)
    pairs = [[randomise_phases(each, first, 3, generator) for each in (a, b)] for _ in range(DRAWS)]
    noise = torch.stack([fsc_curve(one, other, mask).value for one, other in pairs]).mean(0)
    name = f"{mask_name}, corrected for it"
    return SolventFSC(unmasked, masked, replace(masked, value=noise),
                      replace(masked, value=overfit_free(masked.value, noise, first), mask=name), first)
