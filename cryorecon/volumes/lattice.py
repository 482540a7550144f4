r"""Half of a volume's Fourier transform on a lattice, and trilinear traffic between it and central slices.

The lattice is ``pad`` times finer than the images' Fourier pixels and reaches only as far as a band limit, so a coarse
round of an algorithm costs a coarse round's memory. Of each pair ``+-k`` the half ``kz >= 0`` is kept; on the plane
``kz = 0`` both points are, and are made to agree by :meth:`Lattice.symmetrise`.
"""

import math

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from cryorecon.geometry.fourier import centred_crop_or_pad, centred_ifft


class Lattice:
    """Geometry of the half lattice for boxes of ``box`` px, reaching ``limit`` Fourier pixels, ``pad`` times
    oversampled.

    Attributes
    ----------
    n: number of lattice points ``V``.
    radius: ``(V,)`` float, ``|k|`` in Fourier pixels of the image. shell: ``(V,)`` int64, rounded.
    """

    def __init__(self, box: int, limit: float, pad: int = 2, device: torch.device | str = "cpu"):
        self.box, self.limit, self.pad, self.device = box, min(float(limit), box / 2), pad, torch.device(device)
        self.reach = min(math.ceil(self.limit * pad) + 1, pad * box // 2 - 1)
        self.side = 2 * self.reach + 1
        axis = torch.arange(-self.reach, self.reach + 1, device=device)
        kz, ky, kx = torch.meshgrid(axis[self.reach :], axis, axis, indexing="ij")
        self.radius = ((kx**2 + ky**2 + kz**2).float().sqrt() / pad).flatten()
        self.shell = self.radius.round().long()
        self.n = len(self.radius)
        self.n_shells = int(self.shell.max()) + 1
        offset = torch.tensor([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], device=device)
        self._offset = (offset[:, 2] * self.side + offset[:, 1]) * self.side + offset[:, 0]

    def corners(self, rotation: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Trilinear neighbours of slices' points.

        rotation ``(N, 3, 3)``, points ``(P, 2)`` in Fourier pixels within the band. Returns indices ``(N P, 8)``,
        weights ``(N P, 8)`` and ``sign (N P,)``: -1 where the point was mirrored into the kept half (conjugate the
        value there).
        """
        k3 = torch.einsum("pi,nij->npj", points * self.pad, rotation[:, :2]).reshape(-1, 3)
        sign = 1.0 - 2.0 * (k3[:, 2] < 0).to(k3)
        k3 = k3 * sign[:, None]
        cell = k3.floor().long().clamp_(-self.reach, self.reach - 1)
        fx, fy, fz = (k3 - cell).clamp(0, 1).unbind(1)  # beyond the lattice: its last point
        base = (cell[:, 2] * self.side + cell[:, 1] + self.reach) * self.side + cell[:, 0] + self.reach
        low_x, low_y, low_z = 1 - fx, 1 - fy, 1 - fz
        planes = ((low_y * low_z, fy * low_z), (low_y * fz, fy * fz))
        weight = torch.stack([x * planes[z][y] for z in (0, 1) for y in (0, 1) for x in (low_x, fx)], 1)
        return base[:, None] + self._offset, weight, sign

    def gather(self, values: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """Weighted sums of rows of real ``values (V, C)`` at corners ``(M, 8)``: ``(M, C)``."""
        return torch.nn.functional.embedding_bag(index, values, per_sample_weights=weight, mode="sum")

    def slices(self, coefficients: Tensor, rotation: Tensor, points: Tensor, owner: Tensor | None = None) -> Tensor:
        """Central slices ``(N, P, Q)`` complex at rotations ``(N, 3, 3)`` and points ``(P, 2)`` in Fourier pixels.

        coefficients: ``(V, 2 Q)``, real and imaginary parts of Q volumes in turn; or ``(L V, 2 Q)``, L lattices of which
        ``owner (N,)`` names each slice's.
        """
        index, weight, sign = self.corners(rotation, points)
        if owner is not None:
            index = index + torch.repeat_interleave(self.n * owner, len(points))[:, None]
        rows = self.gather(coefficients, index, weight).view(len(sign), -1, 2)
        flip = torch.stack([torch.ones_like(sign), sign], -1)
        return torch.view_as_complex(rows * flip[:, None]).view(len(rotation), len(points), -1)

    def scatter(self, rows: Tensor, index: Tensor, weight: Tensor, out: Tensor) -> None:
        """Adjoint of :meth:`gather`: adds real ``rows (M, C)`` to ``out (V, C)`` in place."""
        if rows.device.type == "cpu":  # a sparse product is five times faster than index_add_ there
            m = len(rows)
            matrix = csr_array((weight.reshape(-1).numpy(), index.reshape(-1).numpy(),
                                np.arange(0, 8 * m + 1, 8)), shape=(m, self.n))
            out += torch.from_numpy(matrix.T @ rows.numpy())
        else:
            for corner in range(8):
                out.index_add_(0, index[:, corner], rows * weight[:, corner : corner + 1])

    def symmetrise(self, values: Tensor, odd: Tensor | None = None) -> None:
        """Adds to the plane ``kz = 0`` of real ``values (V, C)`` its mirror image, in place.

        ``odd (C,)`` bool marks imaginary parts, whose mirror image has the other sign.
        """
        plane = values[: self.side**2]
        mirrored = plane.flip(0)
        plane += mirrored if odd is None else torch.where(odd, -mirrored, mirrored)
        plane[self.side**2 // 2] *= 0.5

    def shell_mean(self, values: Tensor) -> Tensor:
        """Mean of ``(..., V)`` over each shell: ``(..., n_shells)``."""
        out = values.new_zeros((*values.shape[:-1], self.n_shells)).index_add_(-1, self.shell, values)
        return out / torch.bincount(self.shell, minlength=self.n_shells).clamp(min=1)

    def from_density(self, density: Tensor, corrected: bool = True) -> Tensor:
        """Lattice values ``(Q, V)`` complex of maps ``(Q, D', D', D')`` that span the box; ``D'`` may be coarser.

        ``corrected``: divide by the trilinear kernel's envelope first, so that interpolated slices are true to the map.
        """
        n, coarse = len(density), density.shape[-1]
        if corrected:
            density = density / self.envelope(coarse)
        # as matrix products along each axis: of the padded box's transform only the band is made, and of padding nothing
        series = self._series(coarse)
        rows = torch.view_as_complex((density @ torch.view_as_real(series.T.contiguous()).flatten(1)).unflatten(-1, (-1, 2)))
        planes = (series @ rows).flatten(2)
        return (series[self.reach :] @ planes).reshape(n, -1) * ((self.box / coarse) ** 3 / self.box)

    def _series(self, coarse: int) -> Tensor:
        """Fourier series of an axis of ``coarse`` voxels, origin in its middle, at the lattice's points: ``(side, coarse)``."""
        k = torch.arange(-self.reach, self.reach + 1, device=self.device)
        x = torch.arange(coarse, device=self.device) - coarse // 2
        angle = -2 * math.pi * ((k[:, None] * x) % (self.pad * coarse)) / (self.pad * coarse)
        return torch.polar(torch.ones_like(angle), angle)

    def to_density(self, values: Tensor, coarse: int | None = None, corrected: bool = True) -> Tensor:
        """Maps ``(Q, D', D', D')`` of lattice values ``(Q, V)`` complex; inverse of :meth:`from_density`.

        ``coarse``: sample the same extent with so many voxels a side (default: the box). ``corrected``: divide by the
        envelope that trilinear *insertion* left (gridding correction).
        """
        coarse = coarse or self.box
        big, middle = self.pad * coarse, self.pad * coarse // 2
        window = slice(middle - self.reach, middle + self.reach + 1)
        scale = self.box * (coarse / self.box) ** 3
        out = []
        for one in values:
            half = one.reshape(self.reach + 1, self.side, self.side)
            full = values.new_zeros(big, big, big)
            full[middle : middle + self.reach + 1, window, window] = half
            full[middle - self.reach : middle, window, window] = half[1:].flip(0, 1, 2).conj()
            out.append(centred_crop_or_pad(centred_ifft(full, 3).real, coarse, 3) * scale)
        density = torch.stack(out)
        return density / self.envelope(coarse) if corrected else density

    def coarse_box(self) -> int:
        """The smallest even number of voxels a side that holds the lattice's band."""
        return min(self.box, 2 * math.ceil((self.reach + 1) / self.pad))

    def envelope(self, box: int) -> Tensor:
        """The trilinear kernel in real space, ``sinc^2`` along each axis of ``box`` voxels, ``(D', D', D')``."""
        axis = (torch.arange(box, device=self.device) - box // 2) / (self.pad * box)
        one = torch.sinc(axis).square()
        return one[:, None, None] * one[None, :, None] * one[None, None, :]
