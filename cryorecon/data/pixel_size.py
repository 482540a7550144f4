"""One pixel size for the maps out of what CTF, star, option and headers say of each image's own.

Images of several sessions differ by a few per cent in pixel size. Each keeps its own for its CTF and its shift; the maps'
grid has the mean.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.source import FileSource
from cryorecon.errors import InputError

APIX_TOLERANCE = 0.01  # sources that differ by more contradict each other
MAX_SPREAD = 0.05  # of the images of a stack: largest over smallest pixel size, less one
EQUAL = 1e-5  # below, it is rounding


@dataclass(frozen=True)
class Stated:
    """Pixel sizes ``(N,)`` in Å of the images by the word of ``where``; ``box``: the px that it was written for where these
    aren't the images', to whose box the values have been brought."""

    values: np.ndarray
    where: str
    box: int | None = None


def settle(path: Path, stated: Sequence[Stated], source: FileSource, apix: float | None) -> tuple[float, Tensor | None]:
    """Å/px of the maps, and ``(N,)`` float64 of each image where they differ, else None.

    ``stated``: by the CTF file and by the star, the best first; then come ``--apix`` and the headers. Each is compared
    with the first. Raises :class:`InputError` where they contradict each other or images differ by more than 5 %; warns
    where they differ by more than 1 %, and where nobody knows.
    """
    if apix is not None and apix <= 0:
        raise InputError(f"--apix: expected a positive pixel size, found {apix}")
    headers = by_headers(source)
    if not stated:
        if apix is not None:
            return float(apix), None
        if np.isnan(headers).all():
            if source.headers[0].apix == 0:
                warnings.warn(f"{path}: no pixel size in the CTF, star or header; taking 1 Å/px, give --apix", stacklevel=3)
            return 1.0, None
        return _common(np.where(np.isnan(headers), np.nanmean(headers), headers), path)
    best = stated[0]
    for other in stated:
        if not (other.values > 0).all():
            raise InputError(f"{path}: expected positive pixel sizes, found {other.values.min():g} in {other.where}")
        _agree(path, best, other.values, other.where, source.box)
    if apix is None:
        near = nearest(best.values, headers, source)
        wrong = np.flatnonzero(differ(near, headers))
        named = source.headers[source.file_index[wrong[0]]].path if len(wrong) else path
        _agree(named, replace(best, values=near), headers, "the header", source.box)
    common, own = _common(best.values, path)
    if apix is not None:
        _agree(path, replace(best, values=np.array([common])), np.array([apix]), "--apix", source.box)
    return common, own


def differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether pixel sizes contradict each other; NaN, which nobody knows, never does."""
    return np.abs(a - b) > APIX_TOLERANCE * np.minimum(a, b)


def by_headers(source: FileSource) -> np.ndarray:
    """Å/px of each image by its stack's header, NaN where that is 0 or 1: what programs write that don't know."""
    known = np.array([header.apix if header.apix > 0 and abs(header.apix - 1) > 1e-6 else np.nan for header in source.headers])
    return known[source.file_index]


def nearest(values: np.ndarray, headers: np.ndarray, source: FileSource) -> np.ndarray:
    """For each image what of its stack's ``values`` is nearest to the header: a stack of several pixel sizes has one."""
    low, high = np.full(len(source.headers), np.inf), np.zeros(len(source.headers))
    np.minimum.at(low, source.file_index, values)
    np.maximum.at(high, source.file_index, values)
    return np.clip(headers, low[source.file_index], high[source.file_index])


def _agree(path: Path, best: Stated, values: np.ndarray, where: str, box: int) -> None:
    """Raise :class:`InputError` where ``values`` contradict the best ones."""
    wrong = np.flatnonzero(differ(best.values, values))
    if not len(wrong):
        return
    expected, found = float(best.values[wrong[0]]), float(values[wrong[0]])
    confirm = f"give --apix {expected:.4g} if the header is wrong, else " if where == "the header" else ""
    if best.box is None:
        todo = "use the CTF of this extraction" if confirm else "correct the one that is wrong"
        raise InputError(f"{path}: expected {expected:.4g} Å/px as in the CTF or star, found {found:.4g} in {where}; "
                         f"{confirm}{todo}")
    raise InputError(f"{best.where}: expected a CTF for images of {box} px (or of another box and the same extent in Å), "
                     f"found one for {best.box} px of {expected * box / best.box:.4g} Å, which makes {expected:.4g} Å/px at "
                     f"{box} px, and {found:.4g} in {where}; {confirm}write it anew for these images, by parse_ctf_star or "
                     f"parse_ctf_csparc with -D {box} --Apix {found:.4g}")


def _common(values: np.ndarray, path: Path) -> tuple[float, Tensor | None]:
    """Mean of the images' pixel sizes, and these where they differ."""
    low, high = float(values.min()), float(values.max())
    if high <= (1 + EQUAL) * low:
        return float(np.median(values)), None
    if high > (1 + MAX_SPREAD) * low:
        raise InputError(f"{path}: expected pixel sizes within {MAX_SPREAD:.0%} of each other, found {low:.4g} to {high:.4g} "
                         "Å/px among the images; take one group at a time by --ind, or rescale the groups to one pixel size "
                         "and box with the program that extracted them")
    mean = float(values.mean())
    if high > (1 + APIX_TOLERANCE) * low:
        warnings.warn(f"{path}: pixel sizes of {low:.4g} to {high:.4g} Å/px among the images; the map has their mean, "
                      f"{mean:.4g} Å/px. Each image's CTF and shift are at its own; its magnification is not corrected, "
                      "which blurs fine detail", stacklevel=4)
    return mean, torch.from_numpy(values)
