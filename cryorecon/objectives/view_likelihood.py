r"""The likelihood of images under maps, whichever way they were seen: a critic that has nothing to learn.

.. math::
    \log p(y) = \log \sum_{s, v, \varphi, t} \exp\Big(e^{-2 n} \big[ 2\,\mathrm{Re}\,\langle S_t P_{v\varphi} V_s,\, d\rangle
    - \langle p, |P_v V_s|^2 \rangle - \langle 1 / p, |d|^2 \rangle \big]\Big) - 2 n P + \mathrm{const},

over conformations s, views v of a grid on the sphere, turns and mirror images :math:`\varphi` of each, and shifts t; d and p
are the data and the power of a whitened batch of P points, :math:`e^n` the noise's scale, the third product without zeros of
the CTF. With the critic :math:`D = \log p`, made of the generator's own maps and noise anew before each step, the step goes up

.. math:: \nabla_{V, n} \big( E \log p(y) - E \log p(\tilde y) \big), \qquad \tilde y \sim V, n \text{ held still},

*self-contrastive estimation*, which in expectation is maximum likelihood's gradient (Goodfellow 2015, arXiv:1412.6515).
Simulated images take away what is coarse about the sum: a grid of views, turns read on rings, in the second term a CTF without
astigmatism. Where real images are distributed as simulated ones both means are the same, whatever the critic.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cryorecon.data.loader import Batch
from cryorecon.geometry import rotations, so3_grid
from cryorecon.geometry.grid import Grid
from cryorecon.geometry.rings import Rings, around
from cryorecon.geometry.shift_grid import shift_grid
from cryorecon.objectives.simulator import whitened_power
from cryorecon.volumes.base import Volume

LEVEL = 2  # of the grid of views, 15 degrees apart; turned at random each time
OVERSAMPLED = 1.45  # angles of the outermost ring beside its circumference at half of Nyquist
SPACING = 2.0  # px between shifts, about as far as views 15 degrees apart move a rim; moved at random each time
SMALLEST = 8  # px of a side
MARGIN = 1.3  # Nyquist frequency beside the band: rings are read between pixels
FAINTEST = -60.0  # nats below the likeliest place
PLACES = 1 << 24  # held at once, of all images; where there are more they are gone through twice, once in the backward pass


class ViewLikelihood:
    """grid: the images' grid. extent: largest shift in pixels, None where there is none.

    Batches of a part of the band are compared on as few pixels as hold it. The places of an image grow as the square of
    the extent.
    """

    def __init__(self, grid: Grid, extent: float | None = None):
        self.grid, self.extent = grid, (extent or 0.0) * grid.apix
        self.views = half_sphere(LEVEL).to(grid.device)
        self.at: dict[int, _Scale] = {}

    def difference(self, volume: Volume, real: Batch, simulated: Batch, noise: Tensor, states: int = 1) -> Tensor:
        """Mean of ``log p`` of real images less that of simulated ones, in nats; its derivative goes to the volume and the
        noise.

        noise: scale ``()`` of the noise beside what the batches were whitened by. states: conformations summed over, evenly
        apart in alpha from a random one on.
        """
        scale = self._scale(real.data.shape[1])
        turned = self.views @ rotations.random(1)[0].to(self.views)
        z = (torch.arange(states) + torch.rand(1)) / states if states > 1 else torch.zeros(1)
        z = z.to(turned)[None, :, None][..., : volume.z_dim].expand(len(turned), -1, -1)
        slices = volume.slices(turned[:, None], z, real.selection).flatten(0, 1)
        angles = scale.rings.angles
        templates = scale.orders(slices).conj().transpose(1, 2) * (math.sqrt(angles) / noise**2)
        own = scale.by_shell(slices.abs().square()) / noise**2
        shifts = scale.some_shifts()
        size = max(1, PLACES // (2 * angles * len(own) * len(shifts)))

        def mean(batch: Batch) -> Tensor:
            if len(batch) <= size:
                return scale.log_likelihood(templates, own, batch, shifts).mean()
            parts = [checkpoint(scale.log_likelihood, templates, own, part, shifts, use_reentrant=False)
                     for part in batch.split(size)]
            return torch.cat(parts).mean()

        energies = [whitened_power(batch)[0].sum(1).mean() for batch in (real, simulated)]
        return mean(real) - mean(simulated) - (energies[0] - energies[1]) / noise**2

    def _scale(self, points: int) -> "_Scale":
        """Where the first ``points`` of the grid are compared."""
        box = max(SMALLEST, 2 * (int(MARGIN * self.grid.radius[points - 1]) + 1))
        if box not in self.at:
            fine = self.grid
            grid = fine if box >= fine.box else Grid(box, fine.apix * fine.box / box, fine.device)
            n = max(1, math.ceil(2 * self.extent / (SPACING * grid.apix)))
            self.at[box] = _Scale(grid, shift_grid(self.extent, n, fine.device), 2 * self.extent / n)
        return self.at[box]


class _Scale:
    """A grid with rings on it. shifts: ``(n, 2)`` in Å, ``apart`` from each other."""

    def __init__(self, grid: Grid, shifts: Tensor, apart: float):
        self.grid, self.shifts, self.apart = grid, shifts, apart
        self.rings = Rings(grid.box, 1.0, OVERSAMPLED).to(grid.device)

    def some_shifts(self) -> Tensor:
        """The grid of shifts, moved at random by less than half its spacing."""
        return self.shifts + (self.apart * (torch.rand(2) - 0.5)).to(self.shifts) if self.apart else self.shifts

    def log_likelihood(self, templates: Tensor, own: Tensor, batch: Batch, shifts: Tensor) -> Tensor:
        """``(B,)``; templates ``(M, N, R)``, own ``(N, n_shells)``: power of each by shell; both in units of the noise."""
        with torch.no_grad():
            ramps = self.grid.phase_ramp(-shifts, slice(0, batch.data.shape[1]))
            orders = self.orders((batch.data[:, None] * ramps).flatten(0, 1))
            counts = self.by_shell(torch.ones_like(batch.power[:1])).clamp(min=1)
            power = (self.by_shell(batch.power) / counts).repeat_interleave(len(ramps), 0).repeat(2, 1)
        cross = around(templates @ torch.cat([orders, orders.conj()], -1), self.rings.angles)
        places = _LogSumExp.apply((cross - own @ power.T).flatten(0, 1))
        return places.view(2, len(batch), -1).logsumexp((0, 2))

    def orders(self, spectra: Tensor) -> Tensor:
        """``(M, R, N)`` of spectra ``(N, p)`` of the grid's first points."""
        return self.rings(self.grid.images(F.pad(spectra, (0, self.grid.n - spectra.shape[-1]))))

    def by_shell(self, values: Tensor) -> Tensor:
        """Sums ``(N, n_shells)`` of ``values (N, p)``."""
        shell = self.grid.shell[: values.shape[1]]
        return values.new_zeros(len(values), self.grid.n_shells).index_add(1, shell, values)


class _LogSumExp(torch.autograd.Function):
    """Of columns ``(N, B)``; the exponentials are taken once, and none so small that it isn't a normal number."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        largest = values.amax(0)
        weights = (values - largest).clamp_(min=FAINTEST).exp_()
        total = weights.sum(0)
        ctx.save_for_backward(weights, total)
        return largest + total.log()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        weights, total = ctx.saved_tensors
        return weights * (gradient / total)


def half_sphere(level: int) -> Tensor:
    """Rotations ``(6 * 4^level, 3, 3)``: a grid's views, of each and the one from behind, its mirror image, only one."""
    n = so3_grid.n_angles(level)
    every = so3_grid.rotations(level, torch.arange(so3_grid.size(level) // n) * n)
    x, y, z = every[:, 2].unbind(-1)
    side = torch.where(z.abs() > 1e-6, z, torch.where(y.abs() > 1e-6, y, x))
    return every[side > 0]
