r"""Rotation, shift and hand that lay one map on another.

A coarse search: the moving map's transform is sampled on 4,608 rotated half balls of 8 Fourier pixels (both hands at
once: the inverted map's transform is the conjugate), each multiplied with the reference's and transformed back, which
scores all shifts. The best candidates are refined by gradient on (rotation vector, shift), with shells weighted by
their present FSC, in growing bands. All spectra are whitened by shell. Rotations are sampled by the super-Fibonacci
spiral (Alexa, CVPR 2022).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import map_coordinates, spline_filter
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import grid_sample

from cryorecon.geometry.fourier import centred_crop_or_pad, centred_fft, resample
from cryorecon.geometry.rotations import from_rotation_vector, nearest
from cryorecon.metrics.resample import match

COARSE_BAND, N_ROTATIONS, N_CANDIDATES = 8, 4608, 24
PADDING = 2  # of the moving map before its transform is interpolated
FINE_BANDS = ((12, 6), (20, 2), (32, 1))  # Fourier pixels, candidates kept


@dataclass(frozen=True)
class Alignment:
    """A point ``p`` (Å from the origin) of the moving map lies at ``rotation @ (mirror @ p) + shift`` in the reference.

    rotation: ``(3, 3)``. shift: ``(3,)`` Å, ``(x, y, z)``. hand: +1, or -1 where the moving map is first mirrored in z:
    ``mirror = diag(1, 1, hand)``. correlation: Pearson's, of the aligned map with the reference over the voxels of the
    common grid.
    """

    rotation: Tensor
    shift: Tensor
    hand: int
    correlation: float


def rotation_spiral(n: int) -> Tensor:
    """``n`` rotations spread evenly over SO(3), ``(n, 3, 3)``, float64."""
    phi, psi = math.sqrt(2.0), 1.533751168755204288118041
    s = torch.arange(n, dtype=torch.float64) + 0.5
    small, large = (s / n).sqrt(), (1 - s / n).sqrt()
    alpha, beta = 2 * math.pi * s / phi, 2 * math.pi * s / psi
    x, y, z, w = small * alpha.sin(), small * alpha.cos(), large * beta.sin(), large * beta.cos()
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).view(n, 3, 3)


class _Pair:
    """The spectra of both maps, whitened by shell, on the half ball's points ``(P, 3)`` sorted by radius."""

    def __init__(self, moving: Tensor, reference: Tensor, band: int):
        self.box = moving.shape[-1]
        axis = torch.arange(-band, band + 1)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        squared = x**2 + y**2 + z**2
        half = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
        keep = half & (squared > 0) & (squared <= band**2)
        order = torch.argsort(squared[keep], stable=True)
        self.points = torch.stack([x, y, z], -1)[keep][order]
        self.radius = squared[keep][order].double().sqrt()
        self.shell = self.radius.round().long()
        self.reference = self._whiten(self._gather(centred_fft(_soft_ball(reference), 3)))
        self.lattice = self._lattice(_soft_ball(moving), band)
        moving_power = self.shell_sum(self.sample(torch.eye(3)[None])[0].abs() ** 2)
        count = self.shell_sum(torch.ones(len(self.shell)))
        self.whitening = (count / moving_power.clamp(min=1e-30)).sqrt()[self.shell]

    def n_points(self, band: float) -> int:
        return int(torch.searchsorted(self.radius, float(band), right=True))

    def _gather(self, spectrum: Tensor) -> Tensor:
        x, y, z = (self.points + self.box // 2).unbind(-1)
        return spectrum[z, y, x]

    def shell_sum(self, values: Tensor) -> Tensor:
        out = torch.zeros(int(self.shell[-1]) + 1, dtype=values.dtype)
        return out.index_add(0, self.shell[: len(values)], values)

    def _whiten(self, values: Tensor) -> Tensor:
        power = self.shell_sum(values.abs() ** 2) / self.shell_sum(torch.ones(len(values))).clamp(min=1)
        return values / power.clamp(min=1e-30).sqrt()[self.shell]

    def _lattice(self, moving: Tensor, band: int) -> Tensor:
        """Padded transform ``(2, n, n, n)`` (real, imaginary) as far as ``band`` needs; trilinear interpolation's
        attenuation, a squared sinc, is divided out of the map beforehand."""
        offset = (torch.arange(self.box) - self.box // 2) / (PADDING * self.box)
        gain = 1 / torch.sinc(offset) ** 2
        padded = centred_crop_or_pad(moving * gain[:, None, None] * gain[:, None] * gain, PADDING * self.box, 3)
        side = 2 * (PADDING * band + 2) + 1
        spectrum = centred_crop_or_pad(centred_fft(padded, 3), min(side, PADDING * self.box), 3)
        return torch.view_as_real(spectrum).permute(3, 0, 1, 2).contiguous()

    def sample(self, rotation: Tensor, n_points: int | None = None) -> Tensor:
        """The moving map's transform at ``R^T k``, ``(B, P)`` complex, for rotations ``(B, 3, 3)``."""
        side = self.lattice.shape[-1]
        points = self.points[:n_points].to(rotation) * PADDING
        index = points @ rotation + side // 2  # rows are R^T k
        place = (index * (2 / (side - 1)) - 1).to(self.lattice.dtype)
        values = grid_sample(self.lattice[None], place[None, :, :, None], align_corners=True)[0, ..., 0]
        return torch.complex(values[0], values[1])


def _soft_ball(density: Tensor) -> Tensor:
    """The map less its rim's mean, within a ball of 0.42 D with a raised-cosine edge of 0.07 D: a cube's corners
    would turn out of the box."""
    box = density.shape[-1]
    axis = (torch.arange(box) - box // 2) / box
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    rim = density[(radius > 0.42) & (radius < 0.49)].mean()
    return (density - rim) * (0.5 + 0.5 * torch.cos(math.pi * ((radius - 0.42) / 0.07).clamp(0, 1)))


def _coarse(pair: _Pair) -> list[tuple[float, np.ndarray, Tensor, int]]:
    """The best (score, shift in pixels (x, y, z), rotation, hand) of the grid, one for a rotation and hand."""
    n = pair.n_points(COARSE_BAND)
    side = 2 * COARSE_BAND + 4
    x, y, z = pair.points[:n].unbind(-1)
    place = (z % side * side + y % side) * (side // 2 + 1) + x
    white, reference = pair.whitening[:n], pair.reference[:n]
    found: list[tuple[float, np.ndarray, Tensor, int]] = []
    for rotations in rotation_spiral(N_ROTATIONS).float().split(128):
        sampled = pair.sample(rotations, n) * white
        for hand in (1, -1):
            product = (sampled if hand > 0 else sampled.conj()).conj() * reference
            cube = product.new_zeros(len(rotations), side * side * (side // 2 + 1))
            cube[:, place] = product
            scores = torch.fft.irfftn(cube.view(-1, side, side, side // 2 + 1), s=(side,) * 3, dim=(1, 2, 3))
            best, where = scores.flatten(1).max(1)
            for i in best.topk(4).indices.tolist():
                shift = np.array(np.unravel_index(int(where[i]), (side,) * 3))[::-1]
                shift = (shift + side // 2) % side - side // 2
                found.append((float(best[i]), shift * (pair.box / side), rotations[i], hand))
    return sorted(found, key=lambda entry: -entry[0])[:N_CANDIDATES]


def _refine(pair: _Pair, rotation: Tensor, shift: np.ndarray, hand: int,
            band: float) -> tuple[float, np.ndarray, Tensor]:
    """Local maximum of the FSC-weighted mean of shell correlations in a band: (score, shift in pixels, rotation).

    The weight of a shell is its FSC at the start: shells beyond the two maps' agreement have no say.
    """
    n = pair.n_points(band)
    points = pair.points[:n].double()
    reference = pair.reference[:n]
    norm = (pair.shell_sum(reference.abs() ** 2)).clamp(min=1e-30)

    def shells(parameters: Tensor) -> Tensor:
        turned = from_rotation_vector(parameters[None, :3])[0] @ rotation.double()
        sampled = pair.sample(turned[None], n)[0]
        angle = -2 * math.pi / pair.box * (points @ parameters[3:])
        moved = (sampled if hand > 0 else sampled.conj()) * torch.polar(torch.ones_like(angle), angle)
        cross = pair.shell_sum((moved * reference.conj()).real)
        power = pair.shell_sum((moved.real**2 + moved.imag**2).double()) * norm
        return cross / power.clamp(min=1e-30).sqrt()

    start = torch.cat([torch.zeros(3), torch.from_numpy(shift.copy())]).double()
    count = pair.shell_sum(torch.ones(n)).double()
    with torch.no_grad():
        weight = count * shells(start).clamp(min=0.02)
    weight = weight / weight.sum()

    @torch.enable_grad()
    def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(values * scale).requires_grad_()
        loss = -(shells(parameters) * weight).sum()
        (gradient,) = torch.autograd.grad(loss, parameters)
        return float(loss.detach()), gradient.numpy() * scale

    # a turn by 1/band radians and a shift by box/(2 pi band) pixels change the band's edge alike
    scale = np.array([1 / band] * 3 + [pair.box / (2 * math.pi * band)] * 3)
    result = minimize(cost, start.numpy() / scale, jac=True, method="L-BFGS-B", options={"maxiter": 40})
    final = result.x * scale
    turned = from_rotation_vector(torch.from_numpy(final[None, :3]))[0] @ rotation.double()
    return -float(result.fun), final[3:], nearest(turned)


def align(moving: Tensor, reference: Tensor, apix_moving: float, apix_reference: float | None = None) -> Alignment:
    """The rotation, shift and hand that lay ``moving`` on ``reference``; cubes ``(D, D, D)`` of any box and pixel size.

    Both maps are brought to their common grid first. For symmetric molecules one of the equivalent answers is found.

    Raises
    ------
    InputError: a pixel size that is not positive.
    """
    apix_reference = apix_moving if apix_reference is None else apix_reference
    moving, reference, apix = match(moving.float(), apix_moving, reference.float(), apix_reference)
    small = min(moving.shape[-1], 2 * FINE_BANDS[-1][0] + 4)
    coarse_apix = apix * moving.shape[-1] / small
    pair = _Pair(resample(moving, small, 3), resample(reference, small, 3), min(FINE_BANDS[-1][0], small // 2 - 2))
    candidates = _coarse(pair)
    for band, keep in ((COARSE_BAND, N_CANDIDATES), *FINE_BANDS):
        refined = [(*_refine(pair, rotation, shift, hand, min(band, float(pair.radius[-1]))), hand)
                   for _, shift, rotation, hand in candidates[:keep]]
        candidates = sorted(refined, key=lambda entry: -entry[0])
    _, shift, rotation, hand = candidates[0]
    turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    if hand < 0:  # inside, the hand is an inversion: the mirror in z and half a turn about z
        rotation = rotation.double() @ turn
    found = Alignment(rotation.double(), torch.from_numpy(shift * coarse_apix), hand, 0.0)
    laid = torch.stack([apply(found, moving, apix).flatten(), reference.flatten()])
    return Alignment(found.rotation, found.shift, hand, float(torch.corrcoef(laid)[0, 1]))


def apply(alignment: Alignment, density: Tensor, apix: float) -> Tensor:
    """A map ``(D, D, D)`` moved by an alignment, on its own grid (cubic splines on a grid of half the pixel size).

    Boxes above 160 px are refined less than twofold, to bound memory at about 320^3 values.
    """
    box = density.shape[-1]
    fine = max(box, min(2 * box, 320))
    coefficients = spline_filter(resample(density.float(), fine, 3).numpy(), order=3, output=np.float32)
    mirror = np.diag([1.0, 1.0, float(alignment.hand)])
    back = mirror @ alignment.rotation.numpy().T * (fine / box)
    axis = np.arange(box) - box // 2
    out = np.empty((box, box, box), np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    shift = alignment.shift.numpy() / apix
    for plane, z in enumerate(axis):
        points = np.stack([x - shift[0], y - shift[1], np.full(x.shape, z - shift[2])]).reshape(3, -1)
        place = (back @ points)[::-1] + fine // 2
        out[plane] = map_coordinates(coefficients, place, order=3, prefilter=False, mode="constant").reshape(box, box)
    return torch.from_numpy(out)
