"""Floor 4: a volume, and what is inferred about each image, joined by the energy."""

import torch
from torch import Tensor, nn

from cryorecon.data.loader import Batch
from cryorecon.geometry.grid import Grid, Selection
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.volumes.base import Volume


class Model(nn.Module):
    """Volume × pose × conformation.

    Parameters
    ----------
    grid: the images' grid. volume: a parametrisation with ``slices`` and ``density``.
    pose, conformation: inferences ``(hypotheses, batch, score) -> hypotheses``, applied in this order.
    """

    grid: Grid
    volume: Volume
    pose: nn.Module
    conformation: nn.Module

    def __init__(self, grid: Grid, volume: Volume, pose: nn.Module, conformation: nn.Module):
        super().__init__()
        self.grid, self.volume, self.pose, self.conformation = grid, volume, pose, conformation

    def infer(self, batch: Batch) -> Hypotheses:
        """Hypotheses for the batch's images."""
        hypotheses = Hypotheses.empty(len(batch), batch.data.device)
        for inference in (self.pose, self.conformation):
            hypotheses = inference(hypotheses, batch, self.energy)
        return hypotheses

    def predict(self, hypotheses: Hypotheses, selection: Selection = slice(None)) -> Tensor:
        """Predicted spectra before the CTF ``(B, K, P)``: slices with the particle at ``-shift``."""
        slices = self.volume.slices(hypotheses.rotation, hypotheses.z, selection)
        return slices * self.grid.phase_ramp(-hypotheses.shift, selection)

    def energy(self, hypotheses: Hypotheses, batch: Batch) -> Tensor:
        """``-log p(image | hypothesis)`` up to a constant, ``(B, K)`` in nats."""
        return energy(self.predict(hypotheses, batch.selection), batch)


def energy(predicted: Tensor, batch: Batch) -> Tensor:
    r"""``norm + sum_k (power |v|^2 - 2 Re(conj(data) v))`` for predictions ``v (B, K, P)``: ``(B, K)`` in nats.

    Equal to ``sum |y - c v|^2 / sigma^2``. No half: a complex Gaussian has ``-log p = |n|^2 / sigma^2``.
    """
    real, imaginary = predicted.real, predicted.imag
    power, data = batch.power[:, None], batch.data[:, None]
    squares = power * (real.square() + imaginary.square()) - 2 * (data.real * real + data.imag * imaginary)
    return squares.sum(-1) + batch.norm[:, None]


def per_particle(values: Tensor, batch: Batch) -> Tensor:
    """Sums of ``(B, K)`` over each particle's images, ``(particles, K)``, particles in order of appearance."""
    starts = batch.particle_starts()
    if len(starts) == len(batch):
        return values
    counts = torch.diff(starts, append=starts.new_tensor([len(batch)]))
    owner = torch.repeat_interleave(torch.arange(len(starts), device=starts.device), counts)
    return values.new_zeros(len(starts), values.shape[1]).index_add(0, owner, values)
