"""Is a run that was repeated the same? Bit by bit, and else by how much its weights, latents and maps differ."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryorecon.training.run_directory import RunDirectory
from cryorecon.training.trained import load_run

MAPS = 5  # at particles of the first run whose maps are compared
STATE = ("model", "noise", "scale", "critic", "simulator")  # of a checkpoint: all but what the optimiser keeps


@dataclass(frozen=True)
class Repeat:
    """bits: all weights, latents, noise and contrasts are the same, bit for bit. weights: largest difference of any weight
    over the root mean square of its tensor (infinite where shapes differ). latents: root mean square difference of z over its
    standard deviation. correlation: the least of the maps'. latents is 0 where there are none."""

    bits: bool
    weights: float
    latents: float
    correlation: float

    def __str__(self) -> str:
        if self.bits:
            return "same bits: every weight, latent, noise power and contrast"
        if not math.isfinite(self.weights + self.latents):
            return "not the same bits: weights or z are of other shapes, so that they can't be compared"
        return (f"not the same bits: maps correlate {self.correlation:.6f}, weights differ by up to {self.weights:.3g} of "
                f"their root mean square, z by {self.latents:.3g} standard deviations")


def compare(first: RunDirectory, second: RunDirectory) -> Repeat:
    """The last checkpoint of ``first`` against the same one of ``second``. Raises :class:`InputError` where it has none."""
    epoch = first.epochs()[-1]
    ours, theirs = (dict(_tensors({name: part for name, part in directory.load(epoch).items() if name in STATE}))
                    for directory in (first, second))
    a, b = (load_run(directory.path, epoch, "cpu") for directory in (first, second))
    z = [np.zeros((1, run.config.zdim), np.float32) if run.latents is None else run.latents for run in (a, b)]
    bits = (ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
            and np.array_equal(z[0], z[1]))
    apart = max((_apart(one, theirs.get(name)) for name, one in ours.items()), default=0.0)
    rows = np.linspace(0, len(z[0]) - 1, min(MAPS, len(z[0]))).astype(int)
    if z[0].shape != z[1].shape:
        return Repeat(bits, apart, float("inf"), float("nan"))
    spread = float(z[0].std()) if z[0].size else 0.0
    latents = float(np.sqrt(np.mean(np.square(z[0] - z[1])))) / max(spread, 1e-30) if spread else 0.0
    pairs = ((a.density(z[0][[row]])[0], b.density(z[1][[row]])[0]) for row in rows)
    return Repeat(bits, apart, latents, min(_correlation(one, other) for one, other in pairs))


def _tensors(part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in part.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{name}.")


def _apart(one: Tensor, other: Tensor | None) -> float:
    if other is None or one.shape != other.shape:
        return float("inf")
    if torch.equal(one, other):
        return 0.0
    first, second = (torch.view_as_real(each) if each.is_complex() else each for each in (one, other))
    scale = float(first.double().square().mean().sqrt())
    return float((first.double() - second.double()).abs().max()) / max(scale, 1e-30)


def _correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1])
