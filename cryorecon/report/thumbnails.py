"""Small pictures of particle images, and what a stack tells of each particle beside its pixels."""

from dataclasses import dataclass

import numpy as np
import torch

from cryorecon.data.stack import ParticleStack
from cryorecon.geometry.fourier import resample

SIDE = 64  # px at most
SMOOTH = 0.35  # of the picture's Nyquist frequency, where the Gaussian low-pass falls to exp(-1/2): noise hides nothing less


@dataclass(frozen=True)
class Thumbnails:
    """particles: ``(m,)``, whose; tiles: ``(m, s, s)`` uint8, first row at the bottom."""

    particles: np.ndarray
    tiles: np.ndarray


def thumbnails(stack: ParticleStack, particles: np.ndarray) -> Thumbnails:
    """The first image of each of ``particles (m,)`` (rows of z), low-passed, from its 1st to its 99th percentile."""
    first = np.unique(_owner(stack), return_index=True)[1]
    return Thumbnails(np.asarray(particles), _tiles(stack, first[particles]))


def images_of(stack: ParticleStack, particle: int, most: int = 8) -> Thumbnails:
    """At most ``most`` images of one particle (row of z): all of a tilt series that fit, or the one there is."""
    rows = np.flatnonzero(_owner(stack) == particle)[:most]
    return Thumbnails(np.full(len(rows), particle), _tiles(stack, rows))


def _owner(stack: ParticleStack) -> np.ndarray:
    """Row of z of each image: particles in the order of their ids, as a run numbers them."""
    return torch.unique(stack.particle, return_inverse=True)[1].numpy()


def _tiles(stack: ParticleStack, rows: np.ndarray) -> np.ndarray:
    images = stack.images(rows)
    side = min(SIDE, stack.box)
    few = resample(images, side, 2)
    line = torch.fft.fftfreq(side) / 0.5
    keep = torch.exp(-(line[:, None] ** 2 + line**2) / (2 * SMOOTH**2))
    smooth = torch.fft.ifft2(torch.fft.fft2(few) * keep).real.numpy()
    low, high = np.percentile(smooth, [1, 99], axis=(1, 2), keepdims=True)
    return np.rint((smooth - low) / np.maximum(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8)


def columns(stack: ParticleStack) -> dict[str, np.ndarray]:
    """What colours particles: name -> ``(N,)``, the mean over a particle's images. Defocus in µm, half set, where known."""
    owner = _owner(stack)
    count = np.bincount(owner)
    found = {}
    if stack.optics is not None:
        defocus = (stack.optics.column("defocus_u") + stack.optics.column("defocus_v")).numpy() / 2e4
        found["defocus (µm)"] = np.bincount(owner, defocus) / count
    if stack.half is not None:
        found["half set"] = np.bincount(owner, stack.half.numpy()) / count
    return {name: values for name, values in found.items() if np.isfinite(values).all() and np.ptp(values) > 0}
