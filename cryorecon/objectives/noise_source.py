r"""Where a simulated image's noise comes from: a Gaussian of the measured spectrum, or real patches of empty ice.

A source makes, for a batch, what stands beside the signal in ``data``: the noise matched and whitened as an image is,
:math:`(c / \sigma^2)\, n`, of power :math:`c^2 / \sigma^2 = p`. Patches are CryoGAN's way (Gupta, McCann, Donati & Unser 2021):
an image gets a patch of the micrograph that it lends its CTF from.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.loader import Batch, Loader
from cryorecon.data.stack import ParticleStack

NoiseSource = Callable[[Batch], Tensor]  # a batch's noise (B, P), complex


def gaussian(batch: Batch) -> Tensor:
    """Noise ``(B, P)`` of the measured spectrum: ``sqrt(p) epsilon``, ``E|epsilon|^2 = 1``."""
    return batch.power.sqrt() * torch.randn_like(batch.data)  # real and imaginary part of variance 1/2 each


class Patches:
    """Real patches, one drawn anew for each image, in one of its 8 flips and transposes.

    Where both stacks name micrographs, the patch is of the image's own; where that one has no patches, and without names,
    it is any. All draws are from torch's own generator.

    Parameters
    ----------
    particles: whose images are simulated, and whose CTFs the patches are matched with. patches: a loader of the patches (a
    stack without CTF), whitened by the particles' noise. scale: factor that brings the patches' power to that noise.

    Attributes
    ----------
    strangers: how many images have no patch of their own micrograph, though both stacks name theirs.
    """

    def __init__(self, particles: ParticleStack, patches: Loader, scale: float = 1.0):
        self.particles, self.patches, self.scale = particles, patches, scale
        self.index, self.mirrored = patches.grid.symmetries()
        self._order, self._first, self._count, self.strangers = _by_micrograph(particles.micrograph, patches.stack.micrograph,
                                                                               len(particles), len(patches.stack))

    def draw(self, image: Tensor) -> Tensor:
        """A patch at random for each of these images ``(B,)``: its position ``(B,)`` among the patches."""
        place = (torch.rand(len(image), dtype=torch.float64) * self._count[image]).long()
        return self._order[self._first[image] + place]

    def __call__(self, batch: Batch) -> Tensor:
        """Noise ``(B, P)`` for each image of the batch, with its CTF's true sign."""
        image = batch.image.cpu()
        found = self.patches.read(self.draw(image)).data
        turn = torch.randint(8, (len(batch),)).to(found.device)
        index, mirrored = (of_each[:, batch.selection][turn] for of_each in (self.index, self.mirrored))
        found = found.gather(1, index)
        transfer = self.particles.transfer(image, self.patches.grid.frequency[batch.selection])
        return self.scale * transfer * torch.where(mirrored, found.conj(), found)


def _by_micrograph(images: np.ndarray | None, patches: np.ndarray | None, n: int,
                   m: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """The m patches in the order ``(m,)`` of their micrographs; for each of n images where its own begin in it ``(n,)`` and
    how many they are ``(n,)``, which are all where none is its own; and how many images that befell."""
    if images is None or patches is None:
        return torch.arange(m), torch.zeros(n, dtype=torch.int64), torch.full((n,), m), 0
    names, code, count = np.unique(patches, return_inverse=True, return_counts=True)
    place = np.searchsorted(names, images).clip(max=len(names) - 1)
    own = names[place] == images
    first = np.where(own, (np.cumsum(count) - count)[place], 0)
    order = np.argsort(code, kind="stable")
    return (torch.from_numpy(order), torch.from_numpy(first), torch.from_numpy(np.where(own, count[place], m)),
            int((~own).sum()))
