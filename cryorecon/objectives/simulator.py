r"""Images as a microscope would make them of the model: the generator of CryoGAN (Algorithm 1), in the terms of a batch.

An image is :math:`y = c\,S_t P_\theta V(z) + e^{s} n`, its signal's scale that of the map. A batch holds images
matched to their CTF and whitened, ``data = c y / sigma^2``, with ``power = c^2 / sigma^2``; so a simulated one is

.. math:: \mathrm{data} = p\, S v + e^{s}\, (c / \sigma^2)\, n.

CTFs are those of the batch's own images. Where the noise comes from is a source's affair
(:mod:`cryorecon.objectives.noise_source`): Gaussian of the spectrum that was measured, or real patches of empty ice.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryorecon.data.loader import Batch
from cryorecon.geometry.grid import Grid, Selection
from cryorecon.imaging.masks import window
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.model import Model
from cryorecon.objectives.noise_source import NoiseSource, gaussian

DAMPED = 0.02  # of the mean power: zeros of the CTF are not divided by
CLEAR = 0.1  # of the mean power: what has less tells nothing of the signal
FAINTEST = 1e-3  # signal-to-noise ratio that any shell is taken to have


class Simulator(nn.Module):
    """Simulated batches, and how a critic sees batches, real or simulated.

    ``log_noise``: learned logarithm s of the noise's scale beside the measured one, from 0.

    grid: the images' grid. windowed: show images within the soft circular window. The window comes last, after noise, on
    real and simulated images alike; the loader must not have applied it, else real corners would be empty and simulated ones
    not. noise: where it comes from. ``view``: weight ``(n_shells,)`` of each shell in what a critic sees, 1 until :meth:`look`.
    """

    view: Tensor

    def __init__(self, grid: Grid, windowed: bool = True, noise: NoiseSource = gaussian):
        super().__init__()
        self.grid, self.noise = grid, noise
        self.window = window(grid.box).to(grid.device) if windowed else None
        self.log_noise = nn.Parameter(torch.zeros((), device=grid.device))
        self.register_buffer("view", torch.ones(grid.n_shells, device=grid.device))

    def look(self, batch: Batch) -> None:
        r"""Weigh shells by the square root of Wiener's filter, :math:`\sqrt{\mathrm{SNR} / (1 + \mathrm{SNR})}`, SNR as these
        real images have it.

        A critic's slope is bounded by one number over the whole image; where all pixels have the same noise it is spent on
        frequencies that hold nothing.
        """
        ratio = signal_to_noise(batch, self.grid)
        self.view.copy_((ratio / (1 + ratio)).sqrt())

    def clean(self, model: Model, hypotheses: Hypotheses, batch: Batch) -> Batch:
        """Noise-free images of the hypotheses ``(B, 1)`` with the CTF and the noise power of the batch's images."""
        predicted = model.predict(hypotheses, batch.selection)[:, 0]
        norm = (batch.power * predicted.abs().square()).sum(1)
        return replace(batch, data=batch.power * predicted, norm=norm)

    def noisy(self, clean: Batch) -> Batch:
        """The same images with noise, its signal-to-noise ratio as ``log_noise`` says; ``norm`` is left alone."""
        return replace(clean, data=clean.data + self.log_noise.exp() * self.noise(clean))

    def forward(self, model: Model, batch: Batch) -> Batch:
        """A simulated image for each of the batch: nuisances by the model's inferences, which are priors, then noise."""
        return self.noisy(self.clean(model, model.infer(batch), batch))

    def images(self, batch: Batch) -> Tensor:
        """What a critic sees, ``(B, D, D)``: phases flipped, noise of unit variance, zeros of the CTF damped, shells weighed.

        Of ``data = c y / sigma^2`` this is ``sign(c) y / sigma``, but where ``power`` is small, times ``view`` in units of its
        root mean square over the band; outside the band it is zero.
        """
        weight = self.view[self.grid.shell[batch.selection]]
        weight = weight / weight.square().mean().sqrt()
        spectra = batch.data * weight / torch.sqrt(batch.power + DAMPED * batch.power.mean(1, keepdim=True))
        images = self.grid.images(self._whole(spectra, batch.selection))
        return images if self.window is None else images * self.window

    def _whole(self, spectra: Tensor, selection: Selection) -> Tensor:
        """Spectra ``(B, P)`` of a band's points ``(B, p)``."""
        if isinstance(selection, Tensor):
            raise TypeError("expected a band of the grid's points, found single ones: an image needs all of a band")
        return F.pad(spectra, (0, self.grid.n - spectra.shape[1]))


def signal_to_noise(batch: Batch, grid: Grid) -> Tensor:
    """Ratio of the powers of signal, CTF and all, and noise by shell, ``(n_shells,)``: ``E|data|^2 / power = 1 + ratio``, the
    mean over points where the CTF is not near a zero."""
    whitened, clear = whitened_power(batch)
    excess = (whitened.sum(0) - clear.sum(0)) / clear.sum(0).clamp(min=1)
    return grid.shell_mean(excess[None])[0].clamp(min=FAINTEST)


def whitened_power(batch: Batch) -> tuple[Tensor, Tensor]:
    """``|data|^2 / power``, ``(B, P)``, of mean 1 where there is noise alone; 0 near zeros of the CTF, where images that came
    multiplied by it hold what leaked there. And where it isn't near one, ``(B, P)`` bool."""
    clear = batch.power > CLEAR * batch.power.mean(1, keepdim=True)
    whitened = batch.data.abs().square() / batch.power.clamp(min=torch.finfo(batch.power.dtype).tiny)
    return torch.where(clear, whitened, 0.0), clear


def natural_unit(model: Model, batch: Batch, ball: Tensor) -> float:
    """The density at which a ball ``(D, D, D)`` of ones has as much signal as the batch's images (noise subtracted).

    ``E|data|^2 = power^2 |v|^2 + power``; the sum over points is what is compared.
    """
    excess = float((batch.data.abs().square() - batch.power).sum() / batch.power.square().sum(1).mean()) / len(batch)
    total = max(excess, 1e-6 / float(batch.power.mean())) * batch.data.shape[1]
    spectrum = model.grid.spectra(ball.sum(0))[batch.selection]
    return math.sqrt(total / float(spectrum.abs().square().sum()))
