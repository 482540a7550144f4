"""A simulated data collection: how many images of what size, noise and optics; and its images as a stack in memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cryorecon.data.poses import Poses
from cryorecon.data.stack import ParticleStack
from cryorecon.data.tilt_pair import tilt_pair
from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.simulation.images import Truth, ctf_table, draw_truth, noisy_images
from cryorecon.simulation.specimen import Specimen

TILTED_SEED = 1_000_003  # added to an experiment's seed for the noise of its tilted images


@dataclass(frozen=True)
class Experiment:
    """What is recorded and how.

    n: number of images. box: ``D``. apix: Å/px. snr: ratio of the variances of signal and noise over the whole image
    (0: no noise). max_shift: largest shift in x and in y, in pixels. b_factor: of all atoms, or beside a map's own, in
    Å^2 (None: 20 for atoms, 0 for maps). seed: of everything random. weights: population of each state, in any unit
    (None: equal). optics: ``(M, 9)`` CTF rows to draw from (see :func:`cryorecon.simulation.images.ctf_table`); None
    images without a CTF. noise: power per shell ``(n_shells,)``, of which the shape matters (None: white). device:
    where images are computed. tilt: radians by which the stage turns about x for a second image of every particle
    (None: there is none).

    Raises :class:`InputError` for numbers that make no experiment.
    """

    n: int
    box: int
    apix: float
    snr: float = 0.1
    max_shift: float = 3.0
    b_factor: float | None = None
    seed: int = 0
    weights: tuple[float, ...] | None = None
    optics: Tensor | None = None
    noise: Tensor | None = None
    device: str = "cpu"
    tilt: float | None = None

    def __post_init__(self) -> None:
        if self.n < 1 or self.box < 4 or not 1e-3 <= self.apix <= 1e6:
            raise InputError("expected a positive number of images, a box of at least 4 px and a pixel size of 0.001 to "
                             f"1,000,000 Å, found {self.n}, {self.box} px and {self.apix:g} Å")
        b_factor = 0.0 if self.b_factor is None else self.b_factor
        if not all(0 <= value < math.inf for value in (self.snr, self.max_shift, b_factor)):
            raise InputError("expected SNR, largest shift and B-factor of 0 or more, found "
                             f"{self.snr:g}, {self.max_shift:g} and {b_factor:g}")
        if self.tilt is not None and not math.isfinite(self.tilt):
            raise InputError(f"expected an angle by which the stage is tilted, found {self.tilt:g}")

    def grid(self) -> Grid:
        """The images' grid on the experiment's device."""
        return Grid(self.box, self.apix, self.device)

    def decay(self, molecule: Specimen) -> float:
        """The B-factor of this molecule's images and maps, in Å^2."""
        return molecule.usual_b_factor if self.b_factor is None else self.b_factor

    def check_fits(self, molecule: Specimen) -> None:
        """Raise :class:`InputError` where the molecule, shifted as far as it may be, leaves the box."""
        needed = 2 * (molecule.radius() + self.max_shift * self.apix)
        if needed > self.box * self.apix:
            raise InputError(f"expected a box for the molecule and its shifts, {needed:.0f} Å, found {self.box} px of "
                             f"{self.apix:g} Å; give a box of at least {2 * int(needed / self.apix / 2 + 1)} px of that "
                             "size, or smaller shifts")

    def run(self, molecule: Specimen) -> tuple[Truth, Iterator[Tensor]]:
        """The truth, and the images ``(b, D, D)`` in chunks as they are made.

        Raises :class:`InputError`: the molecule does not fit; weights that are not the states'.
        """
        self.check_fits(molecule)
        generator = torch.Generator().manual_seed(self.seed)
        weights = None if self.weights is None else torch.tensor(self.weights)
        truth = draw_truth(self.n, molecule.n_states, self.optics, self.max_shift * self.apix, generator, weights)
        return truth, self._images(molecule, truth, generator)

    def run_tilted(self, molecule: Specimen, truth: Truth) -> Iterator[Tensor]:
        """The tilted images ``(b, D, D)`` of the particles of :meth:`run`, in chunks: the same CTF and shifts, noise of
        their own. None are made without a ``tilt``."""
        if self.tilt is None:
            return iter(())
        return self._images(molecule, truth.tilted(self.tilt), torch.Generator().manual_seed(self.seed + TILTED_SEED))

    def _images(self, molecule: Specimen, truth: Truth, generator: torch.Generator) -> Iterator[Tensor]:
        return noisy_images(molecule, truth, self.grid(), self.decay(molecule), self.snr, generator, self.noise)


def simulate_stack(molecule: Specimen, n: int, box: int, apix: float, snr: float = 0.1,
                   **options: Any) -> tuple[ParticleStack, Truth]:
    """A stack of ``n`` simulated images in memory and its truth; with ``tilt``, of ``n`` pairs (see
    :func:`cryorecon.data.tilt_pair.tilt_pair`).

    ``options`` are further fields of :class:`Experiment`. Where ``optics`` is not among them, CTFs of a usual session
    are drawn; ``optics=None`` images without a CTF. Half-sets alternate. Raises :class:`InputError` as
    :meth:`Experiment.run` does.

    >>> from cryorecon.simulation.motion import flexible
    >>> stack, truth = simulate_stack(flexible("hinge", 5), n=10, box=64, apix=3.0)
    >>> stack.images().shape, len(truth)
    (torch.Size([10, 64, 64]), 10)
    """
    options.setdefault("optics", ctf_table(None))
    experiment = Experiment(n, box, apix, snr, **options)
    truth, images = experiment.run(molecule)
    stack = ParticleStack.from_images(torch.cat(list(images)).numpy(), apix, truth.optics,
                                      Poses(truth.rotation, truth.shift))
    stack = replace(stack, half=half_sets(n))
    if experiment.tilt is None:
        return stack, truth
    tilted = torch.cat(list(experiment.run_tilted(molecule, truth))).numpy()
    return tilt_pair(stack, ParticleStack.from_images(tilted, apix), experiment.tilt), truth


def half_sets(n: int) -> Tensor:
    """Half-set of each image ``(n,)``, 1 and 2 in turn: states and poses are drawn independently, so this is random."""
    return 1 + torch.arange(n) % 2
