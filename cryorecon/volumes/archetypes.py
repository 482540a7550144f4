"""Conformations as mixtures of a few maps: what a game of critic and generator can learn in minutes."""

import torch
from torch import Tensor, nn

from cryorecon.geometry.fourier import resample
from cryorecon.geometry.grid import Grid, Selection
from cryorecon.volumes.real_space import RealSpace

NODES = 41  # of the weights along alpha
OVERLAP = 0.7  # width of an archetype's share of alpha at first, in distances between archetypes
COARSE = 6  # voxels a side of the field that tells archetypes apart at first
APART = 0.15  # its standard deviation, relative to the map


class Archetypes(RealSpace):
    r"""``x(alpha) = sum_k w_k(alpha) X_k``: K maps, their voxels free and not negative, and weights that are positive and add
    up to 1.

    Every conformation is therefore a positive map too, and all of a batch cost K transforms. The weights are the softmax of
    tables along alpha in [0, 1], linear between nodes; they begin as bumps in a row, so that neighbours in alpha are alike, and
    are learned: two archetypes may share alpha at any ratio, with a step between them or a ramp.

    While ``tied`` all archetypes are one map (a projection after each step, ``X_k <- mean X``): views and hand are then found
    once for all of them. :meth:`release` parts them. From then on ``pull`` is the share by which each goes towards its
    neighbours' mean after a step: nothing in projections holds their frames together, and noise would turn them apart.

    Parameters
    ----------
    grid: the images' grid. mask: ``(D, D, D)``. n: K. pad: oversampling of the lattice.
    """

    tied: Tensor

    def __init__(self, grid: Grid, mask: Tensor | None = None, n: int = 6, pad: int = 2):
        super().__init__(grid, 1, mask, pad)
        self.voxels = nn.Parameter(torch.zeros((n, *(grid.box,) * 3), device=grid.device))
        alpha, centres = torch.linspace(0, 1, NODES), (torch.arange(n) + 0.5) / n
        self.logits = nn.Parameter((-0.5 * ((alpha[:, None] - centres) * n / OVERLAP) ** 2).to(grid.device))
        self.register_buffer("tied", torch.ones((), dtype=torch.bool, device=grid.device))
        self.pull = 0.0

    def weights(self, z: Tensor) -> Tensor:
        """Of the archetypes, ``(n, K)``, at ``z (n, 1)``."""
        place = z[:, 0].clamp(0, 1) * (NODES - 1)
        left = place.floor().long().clamp(max=NODES - 2)
        share = (place - left)[:, None]
        return torch.lerp(self.logits[left], self.logits[left + 1], share).softmax(-1)

    def maps(self) -> Tensor:
        """The archetypes ``(K, D, D, D)``."""
        return self.voxels * self.mask * self.scale

    def density(self, z: Tensor) -> Tensor:
        """Maps ``(n, D, D, D)`` at ``z (n, 1)``."""
        return torch.tensordot(self.weights(z), self.maps(), 1)

    def slices(self, rotation: Tensor, z: Tensor, selection: Selection) -> Tensor:
        """As of every volume: mixtures of the archetypes' slices, ``(B, K, P)`` complex."""
        lattice = torch.view_as_real(self.lattice.from_density(self.maps()).T.contiguous()).flatten(1)
        parts = self.lattice.slices(lattice, rotation.expand(len(z), -1, -1, -1).flatten(0, 1), self.grid.points[selection])
        weights = self.weights(z.flatten(0, 1)).to(parts.dtype)
        return torch.einsum("npk,nk->np", parts, weights).unflatten(0, z.shape[:2])

    def constrain(self) -> None:
        """No voxel below zero; one map while ``tied``, and neighbours near each other later."""
        with torch.no_grad():
            self.voxels.clamp_(min=0)
            if self.tied:
                self.voxels.copy_(self.voxels.mean(0).expand_as(self.voxels))
            elif len(self.voxels) > 1:
                inner = (self.voxels[2:] + self.voxels[:-2]) / 2
                self.voxels.lerp_(torch.cat([self.voxels[1:2], inner, self.voxels[-2:-1]]), self.pull)

    def release(self, generator: torch.Generator) -> None:
        """Let archetypes part: along alpha the map grows by a smooth random field, which gives the game a side to choose."""
        if not self.tied:
            return
        n = len(self.voxels)
        coarse = torch.randn(COARSE, COARSE, COARSE, generator=generator).to(self.voxels.device)
        field = resample(coarse, self.grid.box, 3)
        ramp = torch.linspace(-1, 1, n, device=field.device)[:, None, None, None] if n > 1 else field.new_zeros(1, 1, 1, 1)
        with torch.no_grad():
            self.voxels.mul_((1 + APART * ramp * field / field.std()).clamp(min=0))
            self.tied.fill_(False)
