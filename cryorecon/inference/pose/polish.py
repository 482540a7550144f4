r"""Gauss-Newton on a pose: the last fraction of a grid step, at the cost of seven slices an iteration.

With the slice's derivatives for rotations ``exp(w) R`` (central differences) and shifts (``2 pi i k s``) as ``J (5, P)``,
the energy is ``w^T Re(J^H p J) w + 2 Re(J^H (p s - d)) w + constant``. A step that raises a particle's energy is taken
back, and its damping grows (Levenberg-Marquardt).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cryorecon.data.loader import Batch
from cryorecon.data.parts import Room
from cryorecon.geometry.grid import Grid
from cryorecon.geometry.rotations import from_rotation_vector
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.energies import flat
from cryorecon.inference.pose.rescore import Rescore
from cryorecon.inference.pose.search import Search, Sliced
from cryorecon.inference.pose.table import PoseTable

AT_ONCE = 64  # images whose slices a core's cache bears
POINTS_ON_GPU = 1 << 21  # points of images at once there; each costs about 1.5 KB
Inference = Callable[[Hypotheses, Batch, Callable | None], Hypotheses]


def normal_equations(volume: Sliced, grid: Grid, rotation: Tensor, shift: Tensor, batch: Batch, tilt: Tensor | None, z: Tensor,
                     step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Energy ``(B,)`` in nats without the image's constant, half its gradient ``(B, 5)`` and its Gauss-Newton matrix
    ``(B, 5, 5)``, per radian and Å.

    rotation ``(B, 3, 3)`` of particles, shift ``(B, 2)`` in Å, tilt ``(B, 3, 3)`` or None, z ``(B, d)``; step: of the
    differences in radians.
    """
    turns = from_rotation_vector(step * torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)]).to(rotation))
    posed = turns @ rotation[:, None]
    if tilt is not None:
        posed = tilt[:, None] @ posed
    slices = volume.slices(posed, z[:, None].expand(-1, 7, -1), batch.selection)
    data = batch.data * grid.phase_ramp(shift, batch.selection)
    here = slices[:, 0]
    wave = 2j * math.pi * grid.frequency[batch.selection].T
    turned = (slices[:, 1:4] - slices[:, 4:]) / (2 * step)
    jacobian = torch.cat([turned, wave * here[:, None]], 1)
    power = batch.power
    squares = power * (here.real.square() + here.imag.square()) - 2 * (data.conj() * here).real
    rows = flat(jacobian)
    gradient = (rows @ flat(power * here - data)[..., None])[..., 0]
    matrix = (rows * power.repeat_interleave(2, 1)[:, None]) @ rows.transpose(1, 2)
    return squares.sum(1), gradient, matrix


def polish(volume: Sliced, grid: Grid, rotation: Tensor, shift: Tensor, batch: Batch, tilt: Tensor | None = None,
           z: Tensor | None = None, iterations: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Rotation ``(n, 3, 3)``, shift ``(n, 2)`` and energy ``(n,)`` of particles at their nearest minimum, in the batch's
    band.

    volume: differentiable enough for differences: trilinear, not nearest-point. rotation, shift: of the batch's particles,
    in the order of their ids.
    """
    _, owner = torch.unique(batch.particle, return_inverse=True)
    reach = float(grid.radius[batch.selection].max())
    step = 0.5 / reach  # about half a Fourier pixel's arc at the band's edge
    best = torch.full((len(rotation),), math.inf, device=rotation.device)
    damping = torch.full_like(best, 1e-2)
    trial = rotation, shift
    z = rotation.new_zeros(len(rotation), volume.z_dim) if z is None else z
    gradient, matrix = rotation.new_zeros(len(rotation), 5), rotation.new_zeros(len(rotation), 5, 5)
    for number in range(iterations + 1):
        parts = normal_equations(volume, grid, trial[0][owner], trial[1][owner], batch, tilt, z[owner], step)
        energy, new_gradient, new_matrix = (part.new_zeros(len(rotation), *part.shape[1:]).index_add_(0, owner, part)
                                            for part in parts)
        better = energy < best
        best = torch.where(better, energy, best)
        rotation = torch.where(better[:, None, None], trial[0], rotation)
        shift = torch.where(better[:, None], trial[1], shift)
        gradient = torch.where(better[:, None], new_gradient, gradient)
        matrix = torch.where(better[:, None, None], new_matrix, matrix)
        damping = torch.where(better, damping / 4, damping * 16)
        if number == iterations:
            break
        scale = matrix.diagonal(dim1=1, dim2=2).clamp(min=1e-12)
        damped = matrix + torch.diag_embed(scale * damping[:, None] + 1e-6)
        move = -torch.linalg.solve(damped, gradient)
        trial = from_rotation_vector(move[:, :3]) @ rotation, shift + move[:, 3:]
    return rotation, shift, best


class Polish(nn.Module):
    """One pose a particle: the table's, or a search's best one, brought to its minimum.

    volume: trilinear. limit: band in Fourier pixels. base: a search to begin with (or a :class:`Rescore` of one), or None: from
    the table's poses.
    conformation: where the volume has conformations, the inference that tells them at the poses so far; the pose is then
    polished at their means.
    """

    volume: Sliced

    def __init__(self, grid: Grid, table: PoseTable, volume: Sliced, limit: float, iterations: int = 3,
                 base: Search | Rescore | None = None, conformation: Inference | None = None):
        super().__init__()
        object.__setattr__(self, "volume", volume)  # not registered: not this module's to save
        self.grid, self.table, self.limit, self.iterations, self.base = grid, table, limit, iterations, base
        self.conformation, self.room = conformation, Room()
        self.chunk = AT_ONCE if grid.device.type == "cpu" else max(1, POINTS_ON_GPU // grid.n_points(limit))

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable | None = None) -> Hypotheses:
        """Polished poses; the table holds them too."""
        with torch.no_grad():
            if self.base is not None:
                self.base(hypotheses, batch, score)
            images = max(1, len(batch) // len(batch.particle_starts()))
            for _ in self.room.parts(batch, max(1, self.chunk // images), lambda part: self._polish(part, score)):
                pass
        return self.table(hypotheses, batch)

    def _polish(self, batch: Batch, score: Callable | None) -> None:
        table = self.table
        particles, owner = torch.unique(batch.particle, return_inverse=True)
        tilt = None if len(table.tilt_of) == 1 else table.tilts[table.tilt_of[batch.image]]
        z = None
        if self.conformation is not None:
            posed = table(Hypotheses.empty(len(batch), batch.data.device), batch)
            of_images = self.conformation(posed, batch, score).z[:, 0]
            z = of_images.new_zeros(len(particles), of_images.shape[1]).index_copy(0, owner, of_images)
        found = polish(self.volume, self.grid, table.rotation[particles], table.shift[particles],
                       batch.select(self.grid.band(self.limit)), tilt, z, self.iterations)
        table.store(particles, found[0], found[1], -found[2])
