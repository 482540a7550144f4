"""Simulated images: projections with CTF, shifts and noise, streamed with their truth."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.arrays import read_array, read_columns, read_npz
from cryorecon.errors import InputError
from cryorecon.geometry import rotations
from cryorecon.geometry.grid import Grid
from cryorecon.imaging import noise
from cryorecon.imaging.ctf import Optics, ctf
from cryorecon.simulation.specimen import Renderer, Specimen, renderer

NOISE_IMAGES = 256  # the level of the noise is set by the signal of so many first images


@dataclass(frozen=True)
class Truth:
    """What a simulation knows: state ``(N,)``, rotation ``(N, 3, 3)``, shift ``(N, 2)`` in Å (as poses are stored: the
    particle sits at ``-shift``), optics (None: no CTF)."""

    state: Tensor
    rotation: Tensor
    shift: Tensor
    optics: Optics | None

    def __len__(self) -> int:
        return len(self.state)

    def __getitem__(self, index: Tensor | slice) -> "Truth":
        optics = None if self.optics is None else self.optics[index]
        return Truth(self.state[index], self.rotation[index], self.shift[index], optics)

    def tilted(self, angle: float) -> "Truth":
        """The same particles after the stage has turned by ``angle`` radians about x: rotation ``T R``, the same shift."""
        return replace(self, rotation=rotations.about_x(angle) @ self.rotation)


def ctf_table(path: str | Path | None) -> Tensor:
    """Rows ``(M, 9)`` of :data:`cryorecon.imaging.ctf.COLUMNS` to draw from.

    ``path``: an ``.npz`` of cryoDRGN's tables ``[D, Å/px, dfU, dfV, angle°, kV, Cs, w, phase°]``. Without one, defocus
    is spread over 0.8-2.5 µm with slight astigmatism at 300 kV, Cs 2.7 mm, amplitude contrast 0.1 (a usual Krios
    session).

    Raises
    ------
    InputError: the file is absent, no ``.npz`` of arrays, or its tables have not nine columns.
    """
    if path is None:
        generator = torch.Generator().manual_seed(0)
        defocus = 8000 + 17000 * torch.rand(2000, generator=generator)
        split = 150 * torch.randn(2000, generator=generator)
        angle = torch.pi * torch.rand(2000, generator=generator)
        return Optics.from_columns(2000, defocus_u=defocus + split, defocus_v=defocus - split, astigmatism=angle,
                                   voltage=300.0, cs=2.7, amplitude_contrast=0.1).parameters
    tables = [np.unique(table, axis=0) for table in read_npz(path, "tables of CTF parameters (.npz)").values()]
    if not tables or any(table.ndim != 2 or table.shape[1] != 9 for table in tables):
        raise InputError(f"{path}: expected tables of 9 columns, found shapes {[table.shape for table in tables]}; see "
                         "docs/formats")
    rows = torch.cat([torch.from_numpy(table) for table in tables])
    return Optics.from_columns(
        len(rows), defocus_u=rows[:, 2], defocus_v=rows[:, 3], astigmatism=torch.deg2rad(rows[:, 4]),
        voltage=rows[:, 5], cs=rows[:, 6], amplitude_contrast=rows[:, 7], phase_shift=torch.deg2rad(rows[:, 8]),
    ).parameters


def draw_truth(n: int, n_states: int, table: Tensor | None, max_shift: float, generator: torch.Generator,
               weights: Tensor | None = None) -> Truth:
    """Random truth for ``n`` images: states uniform or by ``weights``, poses uniform on SO(3), shifts uniform on
    ``+-max_shift`` Å in x and y, CTF rows drawn from ``table`` (None: no CTF).

    Raises
    ------
    InputError: ``weights`` are not one positive number (or zero) for each state.
    """
    if weights is None:
        weights = torch.ones(n_states)
    if len(weights) != n_states or bool((weights < 0).any()) or float(weights.sum()) <= 0:
        raise InputError(f"weights: expected {n_states} numbers of 0 or more, one per state, found {weights.tolist()}; "
                         "give as many as there are states")
    state = torch.multinomial(weights.float(), n, replacement=True, generator=generator)
    rotation = rotations.random(n, generator)
    shift = (2 * torch.rand(n, 2, generator=generator) - 1) * max_shift
    optics = None if table is None else Optics(table[torch.randint(len(table), (n,), generator=generator)])
    return Truth(state, rotation, shift, optics)


def clean_spectra(molecule: Specimen, truth: Truth, grid: Grid, b_factor: float, chunk: int = 64) -> Iterator[Tensor]:
    """Noise-free spectra ``(b, P)`` of the truth's images in order, in chunks: CTF, then the shift to ``-t``."""
    return _drawn(renderer(molecule, grid, b_factor), truth, grid, chunk)


def _drawn(render: Renderer, truth: Truth, grid: Grid, chunk: int = 64) -> Iterator[Tensor]:
    for index in torch.arange(len(truth)).split(chunk):
        part = truth[index]
        slices = render(part.state.to(grid.device), part.rotation.to(grid.device))
        if part.optics is not None:
            slices = slices * ctf(Optics(part.optics.parameters.to(grid.device)), grid.frequency)
        yield slices * grid.phase_ramp(-part.shift.to(grid.device))


def noise_level(signal: Tensor, snr: float) -> float:
    """Standard deviation of white noise for images ``(N, D, D)``; SNR is the ratio of variances over whole images."""
    return float(signal.var() / snr) ** 0.5 if snr > 0 else 0.0


def noise_spectrum(path: str | Path, grid: Grid) -> Tensor:
    """Power per shell ``(n_shells,)``, of which only the shape matters, from a text or ``.npy`` file.

    The file holds powers from zero frequency to Nyquist at equal steps; other numbers of steps are interpolated.

    Raises
    ------
    InputError: the file is absent, or holds no list of positive numbers.
    """
    what = "noise powers per shell (.txt, .npy) or the word white"
    power = read_array(path, what) if Path(path).suffix == ".npy" else read_columns(path, what)
    if power.dtype.kind not in "fiu" or power.ndim != 1 or len(power) < 2 or not (np.isfinite(power) & (power > 0)).all():
        raise InputError(f"{path}: expected a list of positive powers, found others or an array {power.shape} of "
                         f"{power.dtype}; give one per shell")
    position = np.linspace(0, 1, grid.n_shells)
    return torch.from_numpy(np.interp(position, np.linspace(0, 1, len(power)), power)).float()


def noisy_images(molecule: Specimen, truth: Truth, grid: Grid, b_factor: float, snr: float,
                 generator: torch.Generator, spectrum: Tensor | None = None, chunk: int = 64) -> Iterator[Tensor]:
    """Images ``(b, D, D)`` in chunks on the CPU with noise at ``snr`` (0 or less: none), set by the first images.

    ``spectrum``: noise power per shell ``(n_shells,)``, rescaled to that SNR; None is white. Noise is drawn on the CPU,
    so that devices agree.
    """
    render = renderer(molecule, grid, b_factor)
    first = _drawn(render, truth[:NOISE_IMAGES], grid)
    sigma = noise_level(torch.cat([grid.images(spectra) for spectra in first]), snr)
    on_cpu = grid.to("cpu")
    if spectrum is not None:
        outside = grid.box**2 - 2 * grid.n  # frequencies that have the last shell's power
        variance = (2 * spectrum[on_cpu.shell].sum() + outside * spectrum[-1]) / grid.box**2
        spectrum = spectrum * sigma**2 / variance
    for spectra in _drawn(render, truth, grid, chunk):
        signal = grid.images(spectra).cpu()
        if spectrum is None:
            yield signal + sigma * torch.randn(signal.shape, generator=generator)
        else:
            yield signal + noise.draw(spectrum, on_cpu, len(signal), generator)
