"""The half Fourier plane on which images live: the only owner of box size, transform convention and point order."""

import math

import torch
from torch import Tensor

from cryorecon.errors import InputError

Selection = slice | Tensor  # which of the grid's points: a prefix (band limit) or indices


class Grid:
    r"""Half of the Fourier plane of a ``D x D`` image, its points sorted by radius.

    Points are the integer frequencies ``(kx, ky)`` with ``0 < |k| < D/2`` and ``kx > 0``, or ``kx = 0`` and ``ky > 0``:
    of each pair ``+-k`` of a real image's spectrum exactly one. A band limit is therefore a prefix: the first
    ``n_points(limit)`` points. The zero frequency and Nyquist are left out.

    The transform is orthonormal with the origin at index ``c = D // 2``:
    ``F(k) = 1/D sum_x f(x) exp(-2 pi i k (x - c) / D)``.

    Parameters
    ----------
    box: side ``D`` of the image in pixels.
    apix: pixel size in Å.

    Attributes
    ----------
    points: ``(P, 2)`` float, ``(kx, ky)`` in Fourier pixels.
    radius: ``(P,)`` float, ``|k|`` in Fourier pixels, ascending.
    shell: ``(P,)`` int64, ``|k|`` rounded.
    frequency: ``(P, 2)`` float, ``(kx, ky) / (D apix)`` in 1/Å.
    """

    def __init__(self, box: int, apix: float, device: torch.device | str = "cpu"):
        if box < 4 or apix <= 0:
            raise InputError(f"expected a box of at least 4 px and a positive pixel size, found {box} px and "
                             f"{apix} Å/px")
        self.box, self.apix, self.device = int(box), float(apix), torch.device(device)
        half = self.box // 2
        axis = torch.arange(-half, half + 1)
        ky, kx = torch.meshgrid(axis, axis, indexing="ij")
        squared = kx**2 + ky**2
        keep = (4 * squared < self.box**2) & ((kx > 0) | ((kx == 0) & (ky > 0)))
        order = torch.argsort(squared[keep], stable=True)
        kx, ky = kx[keep][order], ky[keep][order]
        self.points = torch.stack([kx, ky], 1).float().to(device)
        self.radius = squared[keep][order].double().sqrt().float().to(device)
        self.shell = self.radius.round().long()
        self.frequency = self.points / (self.box * self.apix)
        self._columns = self.box // 2 + 1
        self._index = (ky % self.box * self._columns + kx).to(device)
        self._mirror = ((-ky) % self.box * self._columns).to(device)[kx == 0]
        self._on_axis = (kx == 0).to(device)
        phase = 2 * math.pi * ((kx + ky).double() * (self.box // 2) % self.box) / self.box
        self._centre = torch.polar(torch.ones_like(phase), phase).to(torch.complex64).to(device)

    @property
    def n(self) -> int:
        """Number of points ``P``."""
        return len(self.points)

    @property
    def n_shells(self) -> int:
        """Number of shells, the empty shell 0 included."""
        return int(self.shell[-1]) + 1

    def n_points(self, limit: float) -> int:
        """How many leading points have ``|k| <= limit`` (in Fourier pixels)."""
        return int(torch.searchsorted(self.radius, torch.tensor(float(limit), device=self.device), right=True))

    def to(self, device: torch.device | str) -> "Grid":
        """The same grid on another device."""
        return self if torch.device(device) == self.device else Grid(self.box, self.apix, device)

    def spectra(self, images: Tensor) -> Tensor:
        """Spectra ``(..., P)`` complex of real images ``(..., D, D)``."""
        raw = torch.fft.rfft2(images, norm="ortho").flatten(-2)
        return raw[..., self._index] * self._centre

    def images(self, spectra: Tensor) -> Tensor:
        """Real images ``(..., D, D)`` of spectra ``(..., P)``; what lies outside the grid is zero."""
        raw = spectra.new_zeros((*spectra.shape[:-1], self.box * self._columns))
        values = spectra * self._centre.conj()
        raw[..., self._index] = values
        raw[..., self._mirror] = values[..., self._on_axis].conj()
        return torch.fft.irfft2(raw.unflatten(-1, (self.box, self._columns)), s=(self.box, self.box), norm="ortho")

    def band(self, limit: float) -> slice:
        """Selection of the points with ``|k| <= limit`` Fourier pixels."""
        return slice(0, self.n_points(limit))

    def phase_ramp(self, shift: Tensor, selection: Selection = slice(None)) -> Tensor:
        """``exp(-2 pi i k.t)``, ``(..., P)``: multiplies a spectrum so that its image moves by ``+t``.

        ``shift`` is ``(..., 2)`` in Å, ``(x, y)``.
        """
        angle = -2 * math.pi * (shift @ self.frequency[selection].T)
        return torch.polar(torch.ones_like(angle), angle)

    def symmetries(self) -> tuple[Tensor, Tensor]:
        """The 8 flips and transposes of an image about its origin: the spectrum after the g-th is ``F[:, index[g]]``,
        conjugated where ``mirrored[g]``.

        ``index``: ``(8, P)`` int64; ``mirrored``: ``(8, P)`` bool. The first is the identity. Radii stay, so that of a
        prefix ``index[g]`` is a prefix too.
        """
        half, side = self.box // 2, 2 * (self.box // 2) + 1
        place = torch.full((side * side,), -1, dtype=torch.int64, device=self.device)
        k = self.points.round().long()
        place[(k[:, 1] + half) * side + k[:, 0] + half] = torch.arange(self.n, device=self.device)
        index = []
        for g in range(8):
            moved = k * torch.tensor([1 - 2 * (g & 1), 1 - (g & 2)], device=self.device)
            kx, ky = (moved.flip(1) if g & 4 else moved).unbind(1)
            index.append(torch.stack([place[(s * ky + half) * side + s * kx + half] for s in (1, -1)]))
        found = torch.stack(index)
        return found.amax(1), found[:, 0] < 0

    def hartley(self, spectra: Tensor) -> Tensor:
        """The Hartley pair ``(H(k), H(-k)) = (Re - Im, Re + Im)``, ``(..., P, 2)``."""
        return torch.stack([spectra.real - spectra.imag, spectra.real + spectra.imag], -1)

    def shell_mean(self, values: Tensor) -> Tensor:
        """Mean of ``(..., P)`` over each shell, ``(..., n_shells)``; empty shells are zero."""
        out = values.new_zeros((*values.shape[:-1], self.n_shells))
        out.index_add_(-1, self.shell[: values.shape[-1]], values)
        count = torch.bincount(self.shell[: values.shape[-1]], minlength=self.n_shells)
        return out / count.clamp(min=1)
