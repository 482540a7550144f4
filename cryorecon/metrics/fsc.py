r"""Fourier shell correlation, its area and its resolution, in both conventions in use.

``FSC(s) = Re <a, b>_s / sqrt(<a, a>_s <b, b>_s)`` over the Fourier coefficients of shell ``s`` of two maps on one grid.

``rounded``: shell ``s`` holds ``|k|`` rounded to ``s``, ``s = 0 .. D // 2``, at frequency ``s / D`` cycles a pixel:
for curves and resolutions. ``cryobench``: entry ``i`` holds ``i - 1 <= |k| < i``, ``i = 0 .. D // 2 - 1``, at
``i / D``: for areas that are to be compared with CryoBench's (half a shell too optimistic, kept for parity). In both,
entry 0 is 1 by definition: one coefficient's sign says nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from cryorecon.errors import InputError

Convention = Literal["rounded", "cryobench"]


@dataclass(frozen=True)
class FSCCurve:
    """frequency: ``(S,)`` float64, cycles per pixel. value: ``(S,)`` float64. convention: how shells are cut.
    mask: what multiplied both maps, in words."""

    frequency: Tensor
    value: Tensor
    convention: Convention
    mask: str

    def clipped(self) -> "FSCCurve":
        """The same with values clipped to [0, 1], as CryoBench saves them."""
        return FSCCurve(self.frequency, self.value.clamp(0, 1), self.convention, self.mask)


@dataclass(frozen=True)
class Resolution:
    """Where a curve first falls below a threshold.

    frequency: cycles per pixel. pixels, angstrom: its inverse. crossed: False where the curve stays above the threshold
    up to its end, whose frequency is then given (the true figure is finer). resolved: False where the curve is below it
    from the first shell on, whose frequency is then given: the box, beyond which nothing can be said. threshold,
    convention, mask: of what.
    """

    frequency: float
    pixels: float
    angstrom: float
    crossed: bool
    threshold: float
    convention: Convention
    mask: str
    resolved: bool = True

    @property
    def bound(self) -> str:
        """≤ or ≥ where the figure is a bound, else nothing."""
        return "≥" if not self.resolved else "" if self.crossed else "≤"

    def __str__(self) -> str:
        bound = self.bound + " " * bool(self.bound)
        how = "first crossing" if self.resolved else "below it from the first shell on, nothing resolved"
        return (f"{bound}{self.angstrom:.2f} Å ({bound}{self.pixels:.2f} px) at FSC {self.threshold:g}, "
                f"{how}, {self.convention} shells, mask {self.mask}")


@dataclass(frozen=True)
class _Shells:
    """index: ``(P,)`` int64, into the curve, of every rfft coefficient; ``size`` for those outside. weight: ``(P,)``, 2
    where the mirror is not stored."""

    index: Tensor
    weight: Tensor
    size: int
    frequency: Tensor


@lru_cache(maxsize=4)
def _shells(box: int, convention: Convention, device: torch.device) -> _Shells:
    whole = torch.fft.fftfreq(box, 1 / box, device=device).round().long()
    half = torch.arange(box // 2 + 1, device=device)
    radius = (whole[:, None, None] ** 2 + whole[None, :, None] ** 2 + half**2).double().sqrt()
    if convention == "rounded":
        size = box // 2 + 1
        index = radius.round().long()
    else:
        size = box // 2
        index = radius.floor().long() + 1
    single = (half == 0) | (2 * half == box)
    weight = torch.where(single, 1.0, 2.0).double().expand(box, box, -1)
    frequency = torch.arange(size, dtype=torch.float64, device=device) / box
    return _Shells(index.clamp(max=size).flatten(), weight.flatten(), size, frequency)


def _sum(values: Tensor, shells: _Shells) -> Tensor:
    """Shell sums ``(size,)`` of ``(P,)`` values over the whole, not the half, transform."""
    return torch.bincount(shells.index, values * shells.weight, minlength=shells.size + 1)[: shells.size]


def _spectrum(density: Tensor, mask: Tensor | None) -> Tensor:
    """Transform ``(P,)`` of a map; the origin's place is the same for all maps and cancels."""
    return torch.fft.rfftn(density if mask is None else density * mask).flatten()


def _check(shapes: Iterable[torch.Size]) -> int:
    found = [tuple(shape) for shape in shapes]
    first = found[0]
    if len(first) != 3 or len(set(first)) != 1 or any(shape != first for shape in found):
        raise InputError(f"FSC: expected cubic maps of one box, found shapes {found}; resample them to one grid first")
    return first[0]


def _name(mask: Tensor | None, name: str | None) -> str:
    return name if name is not None else ("none" if mask is None else "given")


def _curve(a: Tensor, b: Tensor, mask: Tensor | None, convention: Convention, mask_name: str | None) -> FSCCurve:
    box = _check([a.shape, b.shape] + ([] if mask is None else [mask.shape]))
    shells = _shells(box, convention, a.device)
    first, second = _spectrum(a, mask), _spectrum(b, mask)
    cross = _sum((first * second.conj()).real.double(), shells)
    power = _sum(first.abs().double() ** 2, shells) * _sum(second.abs().double() ** 2, shells)
    value = torch.where(power > 0, cross / power.clamp(min=torch.finfo(torch.float64).tiny).sqrt(), 0.0)
    value[0] = 1.0
    return FSCCurve(shells.frequency, value, convention, _name(mask, mask_name))


def fsc_curve(a: Tensor, b: Tensor, mask: Tensor | None = None, mask_name: str | None = None) -> FSCCurve:
    """FSC of two maps ``(D, D, D)`` over shells of rounded ``|k|``, ``D // 2 + 1`` of them.

    ``mask (D, D, D)`` multiplies both maps in real space; ``mask_name`` says in the output what it was. Empty shells
    (no power in either map) are 0.

    Raises
    ------
    InputError: shapes differ or are not cubes.
    """
    return _curve(a, b, mask, "rounded", mask_name)


def cryobench_curve(a: Tensor, b: Tensor, mask: Tensor | None = None, mask_name: str | None = None) -> FSCCurve:
    """FSC of two maps in CryoBench's shells ``[i - 1, i)``, ``D // 2`` entries; otherwise as :func:`fsc_curve`."""
    return _curve(a, b, mask, "cryobench", mask_name)


def pooled_curve(maps: Tensor, others: Tensor) -> FSCCurve:
    """FSC of many pairs of maps ``(S, D, D, D)`` at once, in shells of rounded ``|k|``: products and powers are summed over
    pairs before they are divided, so that a pair of much power says more.

    Raises
    ------
    InputError: shapes differ or are not cubes.
    """
    if len(maps) != len(others):
        raise InputError(f"FSC: expected as many maps on either side, found {len(maps)} and {len(others)}")
    box = _check([*(one.shape for one in maps), *(one.shape for one in others)])
    shells = _shells(box, "rounded", maps.device)
    cross, left, right = (torch.zeros(shells.size, dtype=torch.float64, device=maps.device) for _ in range(3))
    for a, b in zip(maps, others, strict=True):
        first, second = _spectrum(a, None), _spectrum(b, None)
        cross += _sum((first * second.conj()).real.double(), shells)
        left += _sum(first.abs().double() ** 2, shells)
        right += _sum(second.abs().double() ** 2, shells)
    power = left * right
    value = torch.where(power > 0, cross / power.clamp(min=torch.finfo(torch.float64).tiny).sqrt(), 0.0)
    value[0] = 1.0
    return FSCCurve(shells.frequency, value, "rounded", "applied before")


def auc(curve: FSCCurve) -> float:
    """Area under the curve by trapezoids over cycles per pixel, unnormalised.

    CryoBench's figure is that of ``cryobench_curve(...)``; equal maps give ``(D / 2 - 1) / D`` there.
    """
    return float(torch.trapezoid(curve.value, curve.frequency))


def resolution(curve: FSCCurve, threshold: float, apix: float) -> Resolution:
    """The *first* crossing of ``threshold``, by linear interpolation between shells; ``apix`` in Å per pixel.

    Entry 0 is 1 by definition and no measurement: nothing is interpolated from it, so that no figure exceeds the box.
    """
    below = torch.nonzero(curve.value < threshold).flatten()
    i = int(below[0]) if len(below) else len(curve.value)
    if i <= 1:
        frequency = float(curve.frequency[1])
    elif i == len(curve.value):
        frequency = float(curve.frequency[-1])
    else:
        high, low = float(curve.value[i - 1]), float(curve.value[i])
        part = (high - threshold) / (high - low)
        frequency = float(curve.frequency[i - 1] + part * (curve.frequency[i] - curve.frequency[i - 1]))
    return Resolution(frequency, 1 / frequency, apix / frequency, len(below) > 0, threshold, curve.convention, curve.mask,
                      resolved=i > 1)


def per_conformation_auc(maps: Iterable[Tensor], truths: Iterable[Tensor], mask: Tensor | None = None) -> Tensor:
    """CryoBench's area for each state, ``(S,)`` float64.

    ``maps`` and ``truths`` are ``(S, D, D, D)`` or iterables of ``(D, D, D)``, read one at a time.

    Raises
    ------
    InputError: shapes differ. ValueError: they are not equally many.
    """
    pairs = zip(maps, truths, strict=True)
    return torch.tensor([auc(cryobench_curve(estimate, truth, mask)) for estimate, truth in pairs], dtype=torch.float64)


def difference_map_correlation(maps: Tensor, truths: Tensor, mask: Tensor | None = None) -> float:
    """Mean over states of the correlation of (state minus the mean of states) of ``maps`` and ``truths``.

    Both ``(S, D, D, D)``, ``S >= 2``. How much of the *motion* is right, where FSC is carried by what does not move.
    Pearson's correlation over voxels, after the mask has multiplied both; a state that does not differ from the mean
    counts 0.

    Raises
    ------
    InputError: shapes differ or there is one state only.
    """
    if maps.shape != truths.shape or maps.ndim != 4 or len(maps) < 2:
        raise InputError(f"difference maps: expected two equal shapes (S, D, D, D) with S >= 2, found "
                         f"{tuple(maps.shape)} and {tuple(truths.shape)}")
    mean, true_mean = maps.mean(0), truths.mean(0)
    total = 0.0
    for estimate, truth in zip(maps, truths, strict=True):
        pair = torch.stack([(estimate - mean).flatten(), (truth - true_mean).flatten()]).double()
        if mask is not None:
            pair = pair * mask.flatten()
        pair = pair - pair.mean(1, keepdim=True)
        norm = float(pair.square().sum(1).prod().sqrt())
        total += float(pair[0] @ pair[1]) / norm if norm > 0 else 0.0
    return total / len(maps)


def cross_conformation(maps: Tensor, others: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Matrix ``(S, S')`` float64 of FSC areas between all pairs of maps: FSCCC, Multi-CryoGAN's equation 7.

    ``maps (S, D, D, D)``, ``others (S', D, D, D)`` (default: ``maps``). Areas are CryoBench's, so that the diagonal of
    identical maps is ``(D / 2 - 1) / D``. Normalised per shell and weighted by the trapezoid, the spectra of all maps
    need one matrix product.
    """
    box = maps.shape[-1]
    step = torch.full((box // 2,), 1 / box, dtype=torch.float64, device=maps.device)
    step[-1] /= 2
    return 0.5 / box + _weighted_fsc(maps, others, mask, "cryobench", step)  # entry 0, 1 for every pair: half a step


def mean_fsc(maps: Tensor, others: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Matrix ``(S, S')`` float64 of the mean FSC over the shells 1 to ``D // 2`` of rounded ``|k|``, of all pairs of maps.

    1 minus it is the Flatiron challenge's distance ``fsc``. Arguments as of :func:`cross_conformation`.
    """
    size = maps.shape[-1] // 2
    weight = torch.full((size + 1,), 1 / size, dtype=torch.float64, device=maps.device)
    weight[0] = 0
    return _weighted_fsc(maps, others, mask, "rounded", weight)


def _weighted_fsc(maps: Tensor, others: Tensor | None, mask: Tensor | None, convention: Convention, weight: Tensor) -> Tensor:
    """Sum over shells of ``weight (S,)`` times the FSC, of all pairs of maps."""
    rows = _shell_features(maps, mask, convention, weight)
    if others is None:
        return (rows @ rows.T).double()
    _check([maps.shape[1:], others.shape[1:]])
    return (rows @ _shell_features(others, mask, convention, weight).T).double()


def _shell_features(maps: Tensor, mask: Tensor | None, convention: Convention, shell_weight: Tensor) -> Tensor:
    """Rows ``(S, 2 P)`` whose inner products are the weighted sums of FSC values."""
    box = _check(density.shape for density in maps)
    shells = _shells(box, convention, maps.device)
    inside = shells.index < shells.size
    index, weight = shells.index[inside], shells.weight[inside]
    rows = []
    for density in maps:
        spectrum = _spectrum(density, mask)
        norm = _sum(spectrum.abs().double() ** 2, shells)
        scale = torch.where(norm > 0, shell_weight / norm.clamp(min=torch.finfo(torch.float64).tiny), 0.0).sqrt()
        row = spectrum[inside] * (scale[index] * weight.sqrt()).to(density.dtype)
        rows.append(torch.view_as_real(row).flatten())
    return torch.stack(rows)
