r"""Exact images and volumes of atoms.

Every atom is a sum of Gaussians (electron scattering factors ``f(k) = sum_i a_i exp(-b_i k^2 / 4)``, International
Tables C 4.3.2, by gemmi), so an image's transform is ``sum_e f_e(k) sum_{j in e} exp(-2 pi i k.r_j)``. The inner sum is
a non-uniform FFT: each atom is spread with the kernel ``exp(beta (sqrt(1 - t^2) - 1))`` (Barnett, Magland and af
Klinteberg 2019) over a few points of a grid of half the pixel size, whose transform is divided by the kernel's own;
what this aliases is below 1e-5. No volume and no interpolation are involved: these images are an oracle for slices.
"""

import math

import torch
from torch import Tensor

from cryorecon.geometry.grid import Grid
from cryorecon.simulation.molecule import Molecule

OVERSAMPLING, TAPS = 2, 7  # fine points per pixel; fine points that the kernel covers along each axis
BETA = 2.30 * TAPS  # the best kernel of this width at this oversampling
ATOMS_AT_ONCE = 1 << 14  # in a volume, whose atoms reach 343 points each


def scattering_factors(molecule: Molecule, squared: Tensor, b_factor: float) -> Tensor:
    """``f_e(k) exp(-B k^2 / 4)``, ``(E, ...)``, at squared frequencies ``(...)`` in 1/Å^2."""
    import gemmi

    rows = []
    for name in molecule.elements:
        c = gemmi.Element(name).c4322
        rows.append(sum(a * torch.exp(-(b + b_factor) / 4 * squared) for a, b in zip(c.a, c.b, strict=True)))
    return torch.stack([torch.as_tensor(row) for row in rows])


def _kernel(t: Tensor) -> Tensor:
    """The spreading kernel on ``-1 <= t <= 1``."""
    return torch.exp(BETA * ((1 - t.square()).clamp(min=0).sqrt() - 1))


def _deconvolution(k: Tensor, box: int) -> Tensor:
    """One over the kernel's transform at frequencies ``k`` in Fourier pixels, along one axis."""
    t = (torch.arange(2000, dtype=torch.float64) + 0.5) / 1000 - 1
    phase = math.pi * TAPS / (OVERSAMPLING * box) * k.double().cpu()[..., None] * t
    return (1 / ((_kernel(t) * phase.cos()).mean(-1) * TAPS)).float().to(k.device)


def _spread(position: Tensor, amount: Tensor, slot: Tensor, n_slots: int, fine: int) -> Tensor:
    """Atoms at ``position (B, d, A)`` in fine points, spread on periodic grids: ``(B, n_slots, fine, ...)``.

    ``amount (B, A)`` weights the atoms, ``slot (A,)`` int32 names each atom's grid; x is a grid's last axis. Indices
    are int32 and atoms run along the last axis: half the time.
    """
    batch, dims, _ = position.shape
    tap = torch.arange(TAPS, dtype=torch.int32, device=position.device)[:, None]
    first = torch.ceil(position - TAPS / 2)
    profile = _kernel(((first - position)[:, :, None] + tap) * (2 / TAPS))
    point = (first.int()[:, :, None] + tap + fine // 2) % fine
    grid = torch.arange(batch, dtype=torch.int32, device=position.device)[:, None] * n_slots + slot
    index, weight = grid[:, None], amount[:, None]
    for axis in reversed(range(dims)):  # (B, taps so far, A)
        index = (index[:, :, None] * fine + point[:, axis, None]).flatten(1, 2)
        weight = (weight[:, :, None] * profile[:, axis, None]).flatten(1, 2)
    total = torch.bincount(index.flatten(), weight.flatten(), minlength=batch * n_slots * fine**dims)
    return total.to(position.dtype).view(batch, n_slots, *[fine] * dims)


class ImageRenderer:
    """Exact spectra of a molecule's projections on a grid; scattering factors computed once.

    The projection is a sum over z of density: a volume from :func:`volume` projects to the same image. Atoms beyond the
    box come in again on its other side.
    """

    def __init__(self, molecule: Molecule, grid: Grid, b_factor: float):
        self.molecule, self.grid = molecule, grid
        factors = scattering_factors(molecule, grid.frequency.square().sum(-1), b_factor)
        kernel = _deconvolution(grid.points, grid.box).prod(-1)
        self._factors = factors * kernel * (OVERSAMPLING / grid.apix**3)
        self._fine = Grid(OVERSAMPLING * grid.box, grid.apix / OVERSAMPLING, grid.device)
        self._coordinates = molecule.coordinates.to(grid.device).transpose(1, 2)
        self._occupancy = molecule.occupancy.to(grid.device)
        self._slot = molecule.element.to(grid.device, torch.int32)
        # few images at a time: their points stay in the cache
        self._chunk = max(1, (1 << 20) // (molecule.coordinates.shape[1] * TAPS**2))

    def __call__(self, state: Tensor, rotation: Tensor) -> Tensor:
        """Spectra ``(B, P)`` of conformations ``state (B,)`` seen at rotations ``(B, 3, 3)``."""
        parts = zip(state.split(self._chunk), rotation.split(self._chunk), strict=True)
        return torch.cat([self._spectra(s, r) for s, r in parts])

    def _spectra(self, state: Tensor, rotation: Tensor) -> Tensor:
        position = rotation[:, :2] @ self._coordinates[state] * (OVERSAMPLING / self.grid.apix)
        fine = _spread(position, self._occupancy[state], self._slot, len(self.molecule.elements), self._fine.box)
        # the fine grid's points are the same frequencies in the same order: a prefix of it is this grid
        return (self._fine.spectra(fine)[..., : self.grid.n] * self._factors).sum(1)


def volume(molecule: Molecule, state: int, box: int, apix: float, b_factor: float) -> Tensor:
    """Density ``(D, D, D)`` (per Å^3) of one conformation, band-limited at the grid's Nyquist sphere."""
    k, kx, fine = (torch.fft.fftfreq(box) * box).round(), torch.arange(box // 2 + 1), OVERSAMPLING * box
    squared = k[:, None, None] ** 2 + k[:, None] ** 2 + kx**2
    factors = scattering_factors(molecule, squared / (box * apix) ** 2, b_factor)
    # the origin at index fine / 2 = D is a change of sign at odd frequencies
    along, along_x = (_deconvolution(axis, box) * (1 - 2 * (axis % 2)) for axis in (k, kx))
    weight = along[:, None, None] * along[:, None] * along_x * (4 * squared < box**2) / apix**3
    spectrum = torch.zeros(squared.shape, dtype=torch.complex64)
    for e in range(len(molecule.elements)):
        spread = torch.zeros([fine] * 3)
        for chosen in torch.nonzero(molecule.element == e)[:, 0].split(ATOMS_AT_ONCE):
            atoms = molecule.coordinates[state, chosen].T[None] * (OVERSAMPLING / apix)
            slot = torch.zeros(len(chosen), dtype=torch.int32)
            spread += _spread(atoms, molecule.occupancy[state, chosen][None], slot, 1, fine)[0, 0]
        part = torch.fft.rfft(spread)[..., : len(kx)]  # axis by axis, each cropped before the next
        for axis in (1, 0):
            part = torch.fft.fft(part, dim=axis).index_select(axis, k.long() % fine)
        spectrum += part * factors[e] * weight
    return torch.fft.fftshift(torch.fft.irfftn(spectrum, s=(box, box, box)))
