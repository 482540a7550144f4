"""Conformations as mixtures of a few maps: what a game of critic and generator can learn in minutes."""

import torch
from torch import Tensor, nn

from cryorecon.geometry.fourier import resample
from cryorecon.geometry.grid import Grid, Selection
from cryorecon.volumes.real_space import RealSpace

STAY = -2.0  # logarithm of the share of alpha at an archetype at first, beside that between two
COARSE = 6  # voxels a side of the field that tells archetypes apart at first
APART = 0.15  # its standard deviation, relative to the map


class Archetypes(RealSpace):
    r"""``x(alpha) = sum_k w_k(alpha) X_k``: K maps in a row, their voxels free and not negative, and a walk along them.

    While alpha goes from 0 to 1, ``x`` stays at the first archetype for a share of it, goes straight to the second, stays
    there, and so on: 2 K - 1 shares that add up to 1, the softmax of ``logits``. Every conformation is therefore a positive map
    too, and all of a batch cost K transforms. The shares are learned: those at archetypes are what two states of unequal
    occupancy take, with a step between them; those between archetypes are a motion's.

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
        self.logits = nn.Parameter(torch.zeros(2 * n - 1, device=grid.device))
        self.logits.data[::2] = STAY
        self.register_buffer("tied", torch.ones((), dtype=torch.bool, device=grid.device))
        self.pull, self.degree = 0.0, n - 1

    def weights(self, z: Tensor) -> Tensor:
        """Of the archetypes, ``(n, K)``, at ``z (n, 1)``."""
        shares = self.logits.softmax(0)
        begin, gone = (shares.cumsum(0) - shares)[1::2], shares[1::2]
        passed = ((z[:, :1].clamp(0, 1) - begin) / gone.clamp(min=1e-6)).clamp(0, 1)  # of each way between two
        one = passed.new_ones(len(passed), 1)
        return torch.cat([one, passed], 1) - torch.cat([passed, 0 * one], 1)

    def maps(self) -> Tensor:
        """The archetypes ``(K, D, D, D)``."""
        return self.voxels * self.mask * self.scale

    def density(self, z: Tensor) -> Tensor:
        """Maps ``(n, D, D, D)`` at ``z (n, 1)``."""
        return torch.tensordot(self.weights(z), self.maps(), 1)

    def slices(self, rotation: Tensor, z: Tensor, selection: Selection) -> Tensor:
        """As of every volume: mixtures of the archetypes' slices, ``(B, K, P)`` complex; one rotation may serve all K."""
        lattice = torch.view_as_real(self.lattice.from_density(self.maps()).T.contiguous()).flatten(1)
        rotation = rotation.expand(len(z), -1, -1, -1)
        parts = self.lattice.slices(lattice, rotation.flatten(0, 1), self.grid.points[selection])
        weights = self.weights(z.flatten(0, 1)).unflatten(0, z.shape[:2]).to(parts.dtype)
        return torch.einsum("bnpk,bnk->bnp", parts.unflatten(0, rotation.shape[:2]), weights)

    def constrain(self) -> None:
        """No voxel below zero; one map while ``tied``, later a curve of a low ``degree``, or neighbours near each other. All
        have the same mass: conformations hold the same atoms, and no image sees the mean of a map."""
        with torch.no_grad():
            self.voxels.clamp_(min=0)
            if self.tied:
                self.voxels.copy_(self.voxels.mean(0).expand_as(self.voxels))
                return
            if self.degree < len(self.voxels) - 1:
                self.voxels.copy_(torch.tensordot(self._curve(), self.voxels, 1).clamp(min=0))
            elif len(self.voxels) > 1:
                inner = (self.voxels[2:] + self.voxels[:-2]) / 2
                self.voxels.lerp_(torch.cat([self.voxels[1:2], inner, self.voxels[-2:-1]]), self.pull)
            whole = (self.voxels * self.mask).sum((1, 2, 3), keepdim=True)
            self.voxels.mul_(torch.where(whole > 0, whole.mean() / whole, 1.0))

    def _curve(self) -> Tensor:
        """What lays the row on the nearest polynomial of ``degree`` in its places, ``(K, K)``."""
        place = torch.linspace(-1, 1, len(self.voxels), dtype=torch.float64)
        basis, _ = torch.linalg.qr(torch.stack([place**power for power in range(self.degree + 1)], 1))
        return (basis @ basis.T).to(self.voxels)

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
