r"""Contrast transfer: a microscope's optics per image, and the CTF on a set of frequencies.

.. math::
    c(k) = s\, e^{-B k^2 / 4} \left(\sqrt{1 - w^2} \sin\gamma + w \cos\gamma\right), \quad
    \gamma = \pi\lambda z(\theta) k^2 - \tfrac{\pi}{2} C_s \lambda^3 k^4 + \varphi

with defocus :math:`z(\theta) = \tfrac12 (z_u + z_v + (z_u - z_v) \cos 2(\theta - \theta_0))`. RELION's sign:
positive at low frequency, so white protein stays white. cryoDRGN's is its negative.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

COLUMNS = (
    "defocus_u",  # Å, larger is more underfocus
    "defocus_v",  # Å
    "astigmatism",  # radians, angle of defocus_u from x
    "voltage",  # kV
    "cs",  # mm
    "amplitude_contrast",  # fraction w
    "phase_shift",  # radians
    "b_factor",  # Å^2, envelope exp(-B k^2 / 4)
    "scale",  # factor
)


@dataclass(frozen=True)
class Optics:
    """CTF parameters of N images, one row each.

    parameters: ``(N, 9)`` float32 in the order and units of :data:`COLUMNS`.
    """

    parameters: Tensor

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, index: Tensor | slice) -> "Optics":
        return Optics(self.parameters[index])

    def column(self, name: str) -> Tensor:
        """One parameter of all images, ``(N,)``."""
        return self.parameters[:, COLUMNS.index(name)]

    @staticmethod
    def from_columns(n: int, **columns: Tensor | float) -> "Optics":
        """Optics of ``n`` images from named columns (scalars are repeated); missing ones are 0, ``scale`` is 1."""
        table = torch.zeros(n, len(COLUMNS))
        table[:, COLUMNS.index("scale")] = 1.0
        for name, value in columns.items():
            table[:, COLUMNS.index(name)] = torch.as_tensor(value)
        return Optics(table)


def wavelength(voltage: Tensor) -> Tensor:
    """Relativistic electron wavelength in Å at ``voltage`` kV: ``h / sqrt(2 m e V (1 + e V / 2 m c^2))``."""
    volts = voltage * 1e3
    return 12.2642597 / torch.sqrt(volts * (1 + 0.97847554e-6 * volts))


def ctf(optics: Optics, frequency: Tensor) -> Tensor:
    """CTF ``(N, P)`` of N images at frequencies ``(P, 2)`` or ``(N, P, 2)`` in 1/Å."""
    du, dv, astigmatism, voltage, cs, w, phase, b_factor, scale = optics.parameters.unsqueeze(1).unbind(-1)
    squared = frequency.square().sum(-1)
    theta = torch.atan2(frequency[..., 1], frequency[..., 0])
    defocus = 0.5 * (du + dv + (du - dv) * torch.cos(2 * (theta - astigmatism)))
    lam = wavelength(voltage)
    gamma = math.pi * lam * defocus * squared - 0.5 * math.pi * cs * 1e7 * lam**3 * squared**2 + phase
    return scale * torch.exp(-b_factor / 4 * squared) * (torch.sqrt(1 - w**2) * gamma.sin() + w * gamma.cos())
