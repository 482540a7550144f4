"""A particle stack: images that are read when asked for, with what is known about each."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.poses import Poses
from cryorecon.data.source import ArraySource, FileSource, ImageSource
from cryorecon.errors import InputError
from cryorecon.imaging.ctf import Optics, ctf

__all__ = ["ArraySource", "FileSource", "ImageSource", "ParticleStack", "contrast_sign"]

Index = Tensor | np.ndarray | slice | list


def contrast_sign(has_ctf: bool, uninvert: bool = False) -> int:
    """The factor applied to raw images so that a map's sign equals that of cryoDRGN's same command.

    cryoDRGN's CTF is the negative of ours (RELION's) and it multiplies the data by -1 unless told ``--uninvert-data``.
    With a CTF its two signs cancel, so that our factor is +1, and -1 for ``--uninvert-data``; without one it is -1, and
    +1.
    """
    return 1 if has_ctf != uninvert else -1


@dataclass(frozen=True)
class ParticleStack:
    """N images and what is known about each of them; ``stack[index]`` is a stack.

    source: the images. apix: Å/px, of the maps that are made from them. optics: CTF parameters, None where unknown.
    poses: None where unknown; ``rotation`` is the whole rotation of the image, the shift is in Å at ``apix`` (pixels
    times ``apix``). particle: ``(N,)`` int64, images of one particle share an id. half: ``(N,)`` int64 in {1, 2} or
    None. tilt: ``(N, 3, 3)``, the fixed rotation ``T`` of each image of a tilt series (image = ``T R_particle``), or
    None. premultiplied: the images have been multiplied by their CTF. sign: factor applied when images are read. white:
    the images as stored, without that factor, are known to show white protein; what is written of them says so.
    pixel: ``(N,)`` float64, each image's own Å/px where they differ, or None. micrograph: ``(N,)`` names of the micrographs
    that the images were cut from, or None. files: what was read beside the images.
    """

    source: ImageSource
    apix: float
    optics: Optics | None
    poses: Poses | None
    particle: Tensor
    half: Tensor | None = None
    tilt: Tensor | None = None
    premultiplied: bool = False
    sign: int = 1
    white: bool = False
    pixel: Tensor | None = None
    micrograph: np.ndarray | None = None
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.source)
        counted = {"CTF": self.optics, "poses": self.poses, "particle ids": self.particle, "half-sets": self.half,
                   "tilts": self.tilt, "pixel sizes": self.pixel, "micrographs": self.micrograph}
        for name, part in counted.items():
            if part is not None and len(part) != n:
                raise InputError(f"expected {n} {name} for {n} images, found {len(part)}")

    @staticmethod
    def from_images(images: np.ndarray, apix: float, optics: Optics | None = None,
                    poses: Poses | None = None) -> "ParticleStack":
        """A stack of images in memory ``(N, D, D)``; white protein, each image a particle of its own."""
        return ParticleStack(ArraySource(images), apix, optics, poses, torch.arange(len(images)), white=True)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Index) -> "ParticleStack":
        positions = self._positions(index)
        where = torch.from_numpy(positions)
        return replace(
            self, source=self.source.select(positions),
            optics=None if self.optics is None else self.optics[where],
            poses=None if self.poses is None else self.poses[where],
            particle=self.particle[where],
            half=None if self.half is None else self.half[where],
            tilt=None if self.tilt is None else self.tilt[where],
            pixel=None if self.pixel is None else self.pixel[where],
            micrograph=None if self.micrograph is None else self.micrograph[positions],
        )

    def of_particles(self, rows: np.ndarray) -> "ParticleStack":
        """All images of some particles, ``(m,)`` positions in the order of particle ids, which are numbered anew."""
        owner = torch.unique(self.particle, return_inverse=True)[1].numpy()
        number = np.full(self.n_particles, -1)
        number[rows] = np.arange(len(rows))
        kept = np.flatnonzero(number[owner] >= 0)
        return replace(self[kept], particle=torch.from_numpy(number[owner[kept]]))

    @property
    def box(self) -> int:
        """Side ``D`` of an image in pixels."""
        return self.source.box

    @property
    def n_particles(self) -> int:
        """Number of particles; less than that of images in a tilt series."""
        return len(torch.unique(self.particle))

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Every file that the stack was read from, its images' too; no output may replace one."""
        stacks = (header.path for header in self.source.headers) if isinstance(self.source, FileSource) else ()
        return (*self.files, *stacks)

    def transfer(self, index: Tensor, frequency: Tensor) -> Tensor:
        """CTF ``(n, P)`` of the images ``index`` ``(n,)`` int64 at points ``(P, 2)`` of the maps' grid, in 1/Å; 1
        without a CTF.

        A point is a place in an image's transform: where the image's own pixel is larger than the grid's, it lies at a
        lower frequency.
        """
        if self.optics is None:
            return torch.ones(len(index), len(frequency), device=frequency.device)
        optics = Optics(self.optics[index].parameters.to(frequency.device))
        if self.pixel is None:
            return ctf(optics, frequency)
        return ctf(optics, frequency * (self.apix / self.pixel[index]).to(frequency)[:, None, None])

    def images(self, indices: Index | None = None) -> Tensor:
        """Images ``(n, D, D)`` float32, contrast factor applied; all of them without ``indices``."""
        images = torch.from_numpy(self.source.read(self._positions(slice(None) if indices is None else indices)))
        return images.neg_() if self.sign < 0 else images

    def _positions(self, index: Index) -> np.ndarray:
        """``index`` (slice, positions or a mask) as positions ``(n,)`` int64."""
        if isinstance(index, Tensor) and index.dtype == torch.int64 and (not len(index) or int(index.min()) >= 0):
            return index.numpy()  # the way of every batch: nothing of the stack's length is made
        everything = np.arange(len(self))
        return everything[index] if isinstance(index, slice) else everything[np.asarray(index)].reshape(-1)

    def uninverted(self) -> "ParticleStack":
        """The same images with the other sign (``--uninvert-data``); ``white``, which is the files' word, stays: the same
        command on what is written of them gives the same map."""
        return replace(self, sign=-self.sign)

    def with_poses(self, poses: Poses) -> "ParticleStack":
        """The same images with other poses."""
        return replace(self, poses=poses)
