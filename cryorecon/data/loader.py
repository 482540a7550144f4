r"""Batches for learning: spectra matched to their CTF and whitened, whole particles together.

Only :class:`Batch` crosses from files into learning. With noise power ``sigma^2(k)`` the energy in nats of a prediction
``v`` shifted by ``S`` is ``norm + sum_k (power |v|^2 - 2 Re(conj(data) S v))`` with ``data = y_1 / sigma^2`` and
``power = c^2 / sigma^2``, where ``y_1 = c y``, or the images as they come where they are CTF-premultiplied.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cryorecon import ranks
from cryorecon.data.stack import ParticleStack
from cryorecon.geometry.grid import Grid, Selection
from cryorecon.imaging.masks import radius_map, window
from cryorecon.imaging.noise import background_power, inside_power

CACHE_BYTES = 1 << 29


@dataclass(frozen=True)
class Batch:
    """Matched data of B images.

    data: ``(B, P)`` complex, ``y_1 / sigma^2``. power: ``(B, P)``, ``c^2 / sigma^2``. norm: ``(B,)``,
    ``sum |y|^2 / sigma^2`` (0 for premultiplied images, whose energy then lacks a constant).
    image, particle: ``(B,)`` int64 ids within the stack. selection: which of the grid's points these are.
    """

    data: Tensor
    power: Tensor
    norm: Tensor
    image: Tensor
    particle: Tensor
    selection: Selection = field(default_factory=lambda: slice(None))

    def __len__(self) -> int:
        return len(self.image)

    def select(self, selection: Selection, weight: Tensor | None = None) -> "Batch":
        """The same at a selection of the grid's points; ``norm`` stays that of the whole.

        ``weight``: one factor per selected point on its share of the energy (importance sampling).
        """
        data, power = self.data[:, selection], self.power[:, selection]
        if weight is not None:
            data, power = data * weight, power * weight
        return Batch(data, power, self.norm, self.image, self.particle, selection)

    def split(self, size: int) -> Iterator["Batch"]:
        """Parts of ``size`` images."""
        for i in range(0, len(self), size):
            yield self.at(slice(i, i + size))

    def particle_starts(self) -> Tensor:
        """Row of each particle's first image, ``(particles,)``; a batch holds a particle's images in a row."""
        new = torch.ones(len(self), dtype=torch.bool, device=self.particle.device)
        new[1:] = self.particle[1:] != self.particle[:-1]
        return torch.nonzero(new)[:, 0]

    def split_particles(self, size: int) -> Iterator["Batch"]:
        """Parts of ``size`` whole particles."""
        starts = self.particle_starts()[::size].tolist()
        for start, stop in zip(starts, [*starts[1:], len(self)], strict=True):
            yield self.at(slice(start, stop))

    def at(self, index: slice | Tensor) -> "Batch":
        """Some of the images."""
        return Batch(self.data[index], self.power[index], self.norm[index], self.image[index], self.particle[index],
                     self.selection)

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        data, power, norm, image, particle = (
            field.to(device, non_blocking=True) for field in (self.data, self.power, self.norm, self.image, self.particle))
        selection = self.selection.to(device) if isinstance(self.selection, Tensor) else self.selection
        return Batch(data, power, norm, image, particle, selection)


class Loader:
    """Turns a stack into batches on a grid.

    Parameters
    ----------
    stack: the particles. grid: the images' grid; batches are made, and kept, on its device.
    noise: ``(n_shells,)`` noise power per shell, in units of the images.
    windowed: multiply images by the soft circular window before the transform.
    cache_bytes: matched data smaller than this are computed once and kept (default: 512 MB, or a quarter of what is free on a
    GPU).
    """

    def __init__(self, stack: ParticleStack, grid: Grid, noise: Tensor, windowed: bool = True,
                 cache_bytes: int | None = None):
        self.stack, self.grid, self.noise, self.windowed = stack, grid, noise, windowed
        self._whiten = 1 / noise.to(grid.device)[grid.shell]
        self._window = window(grid.box).to(grid.device) if windowed else None
        outside = (radius_map(grid.box, 2, grid.device) > 0.92 * grid.box / 2).float()
        self._rim = outside / outside.sum()
        order = torch.argsort(stack.particle, stable=True)
        ids, counts = torch.unique_consecutive(stack.particle[order], return_counts=True)
        self._order, self._ids, self._counts = order, ids, counts
        self._starts = torch.cumsum(counts, 0) - counts
        self._scale = self._cached_scale = torch.ones(len(stack))
        self._cache: Batch | None = None
        if cache_bytes is None:
            cache_bytes = CACHE_BYTES if grid.device.type == "cpu" else torch.cuda.mem_get_info(grid.device)[0] // 4
        if len(stack) * grid.n * 12 <= cache_bytes:
            self._cache = joined([self._read(index) for index in torch.arange(len(stack)).split(512)])

    def set_scale(self, scale: Tensor) -> None:
        """Factor ``(N,)`` on each image's transfer function: its contrast."""
        self._scale = scale
        if self._cache is not None:
            c, s = self._cache, (scale / self._cached_scale)[:, None].to(self.grid.device)
            self._cache = Batch(c.data * s, c.power * s.square(), c.norm, c.image, c.particle)
            self._cached_scale = scale

    @property
    def n_particles(self) -> int:
        """Number of particles; as many as images unless tilt series."""
        return len(self._counts)

    def read(self, index: Tensor) -> Batch:
        """The batch of these images, ``(B,)`` int64."""
        if self._cache is not None:
            return self._cache.at(index)
        parts = [self._read(part) for part in index.split(512)]
        return parts[0] if len(parts) == 1 else joined(parts)

    def _read(self, index: Tensor) -> Batch:
        device = self.grid.device
        images = self.stack.images(index).to(device)
        images = images - (images * self._rim).sum((1, 2), keepdim=True)  # else the window turns a level into a bump
        if self._window is not None:
            images = images * self._window
        spectra = self.grid.spectra(images)
        transfer = self.stack.transfer(index, self.grid.frequency)
        scale = self._scale[index, None].to(device)
        if self.stack.premultiplied:
            data, norm = spectra * self._whiten, torch.zeros(len(index), device=device)
        else:
            data, norm = spectra * (transfer * self._whiten), (spectra.abs().square() * self._whiten).sum(1)
        return Batch(data * scale, (transfer * scale).square() * self._whiten, norm, index.to(device),
                     self.stack.particle[index].to(device))

    def particles_for(self, images: int) -> int:
        """How many particles hold about ``images`` images (one or more)."""
        return max(1, images * self.n_particles // max(len(self.stack), 1))

    def of(self, particles: Tensor) -> Batch:
        """The batch of these particles, ``(n,)`` positions in the order of particle ids."""
        if len(self.stack) == self.n_particles:
            return self.read(self._order[particles])
        spans = [self._order[self._starts[p] : self._starts[p] + self._counts[p]] for p in particles.tolist()]
        return self.read(torch.cat(spans))

    def places(self, batch: Batch) -> Tensor:
        """Positions of a batch's particles in the order of particle ids, ``(particles,)``."""
        return torch.searchsorted(self._ids, batch.particle[batch.particle_starts()].cpu())

    def epoch(self, particles: int, generator: torch.Generator | None = None, first: int = 0) -> Iterator[Batch]:
        """One pass in batches of whole particles, from the batch ``first`` on; in random order where a generator is given. Of
        several processes (:mod:`cryorecon.ranks`) each gets its share of every batch.

        Random order over a large stack is taken in blocks of neighbouring particles, so that a disk
        reads in runs; blocks and their contents are both shuffled.
        """
        n = self.n_particles
        if generator is None:
            chosen = torch.arange(n)
        elif len(self.stack) * self.grid.n * 12 <= CACHE_BYTES:  # whatever a device keeps, the order is the same
            chosen = torch.randperm(n, generator=generator)
        else:
            chosen = _block_shuffle(n, 4096, generator)
        size = max(particles, ranks.count())
        for start in range(first * size, n, size):
            stop = start + size
            if n - stop < ranks.count():  # none goes without a share: what is left over joins the last batch
                stop = n
            yield self.of(ranks.mine(chosen[start:stop]))
            if stop == n:
                break


def joined(parts: Sequence[Batch]) -> Batch:
    """One batch of all parts' images."""
    data, power, norm, image, particle = (torch.cat([getattr(part, name) for part in parts])
                                          for name in ("data", "power", "norm", "image", "particle"))
    return Batch(data, power, norm, image, particle, parts[0].selection)


def _block_shuffle(n: int, block: int, generator: torch.Generator) -> Tensor:
    """A permutation of ``n`` that mixes four blocks at a time: local reads, global mixing over epochs."""
    blocks = list(torch.arange(n).split(block))
    order = torch.randperm(len(blocks), generator=generator).tolist()
    out = []
    for i in range(0, len(order), 4):
        pool = torch.cat([blocks[j] for j in order[i : i + 4]])
        out.append(pool[torch.randperm(len(pool), generator=generator)])
    return torch.cat(out)


def has_corners(images: Tensor, box: int) -> bool:
    """Whether images ``(n, D, D)`` scatter in their corners as near the rim: else they were masked, or are noise-free."""
    radius = 2 * radius_map(box, 2) / box
    corner = images[:, radius > 1.05].var(1).mean()
    rim = images[:, (radius > 0.8) & (radius < 0.88)].var(1).mean()
    return float(corner) > 0.3 * float(rim)


def estimate_noise(stack: ParticleStack, grid: Grid, white: bool = False, n_images: int = 1000,
                   seed: int = 0) -> Tensor:
    """Noise power per shell ``(n_shells,)`` from the corners of at most ``n_images`` images; ``white``: their mean.

    Where the corners are empty, a warning says so, and what lies within stands for it, signal included, as white noise. Of
    images that were masked this is a little too much noise, which costs a little resolution. Noise-free images count as if
    half of their variance were noise; by shell, where signal is all there is, their coarse features would weigh no more than
    the finest ones.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(stack), min(n_images, len(stack)), replace=False))
    cornered = has_corners(stack.images(torch.from_numpy(chosen[:100])), grid.box)
    if not cornered:
        warnings.warn("expected images with noise in their corners, found (almost) none: they were masked or are noise-free; "
                      "whole images are taken for white noise; better take unmasked ones (preprocess without --window)",
                      stacklevel=2)
    measured = background_power if cornered else inside_power
    power = torch.stack([measured(stack.images(part), grid) * len(part)
                         for part in torch.from_numpy(chosen).split(250)]).sum(0) / len(chosen)
    if stack.premultiplied and stack.optics is not None:
        # the images' noise has been multiplied by the CTF: divide its mean square out again
        sample = stack.transfer(torch.from_numpy(chosen), grid.frequency).square().mean(0)
        power = power / grid.shell_mean(sample).clamp(min=1e-3)
    if white or not cornered:
        count = torch.bincount(grid.shell, minlength=grid.n_shells)
        power = ((power * count).sum() / count.sum()).expand(grid.n_shells).clone()
    return power.clamp(min=1e-12 * float(power.max()))
