"""How well each image fits what a run predicts for it."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError
from cryorecon.training import build, provenance
from cryorecon.training.inferred import inferred
from cryorecon.training.run_directory import RunDirectory
from cryorecon.training.train import State, restore

POINTS = 1 << 18  # Fourier points predicted at once: a network holds its width's numbers for each of them


@dataclass(frozen=True)
class ImageFits:
    """Of each of N images, in the stack's order.

    energy: ``(N,)``, nats a Fourier point: ``sum |y - c v|^2 / sigma^2`` over their number. Where only noise is left this is
    the mean square of the window, .63 (1 without it); for CTF-premultiplied images a constant is missing. kl: ``(N,)``,
    divergence of its z from the prior, in nats, a particle's shared out over its images. z: ``(N, d)``. particle: ``(N,)`` ids.
    """

    energy: np.ndarray
    kl: np.ndarray
    z: np.ndarray
    particle: np.ndarray


def image_fits(directory: RunDirectory, epoch: int | None = None, device: str | None = None,
               stack: ParticleStack | None = None, datadir: str | None = None) -> ImageFits:
    """Pass over a run's images with the model of ``epoch`` (default: the last).

    ``device``: instead of the run's. ``stack``: the particles, where they are not files any more. ``datadir``: where image
    stacks lie now, if elsewhere than when the run began.

    Raises
    ------
    InputError: no such run or epoch, or its particles are not where they were.
    """
    problem, state = reopened(directory, epoch, device, stack, datadir)
    n = len(problem.stack)
    energy, kl, z = torch.zeros(n), torch.zeros(n), torch.zeros(n, state.model.volume.z_dim)
    bar = tqdm(total=n, unit="img", desc="images", disable=None, leave=False)
    for batch, found in inferred(state.model, state.loader, POINTS):
        bar.update(len(batch))
        image, weight = batch.image.cpu(), found.log_weight.exp()
        with torch.no_grad():
            energy[image] = (weight * state.model.energy(found, batch)).sum(1).cpu() / problem.grid.n
        kl[image] = (weight * found.kl).sum(1).cpu()
        z[image] = (weight[..., None] * found.z).sum(1).cpu()
    bar.close()
    return ImageFits(energy.numpy(), kl.numpy(), z.numpy(), problem.stack.particle.numpy())


def reopened(directory: RunDirectory, epoch: int | None = None, device: str | None = None,
             stack: ParticleStack | None = None, datadir: str | None = None) -> tuple[build.Problem, State]:
    """A run with its particles as it was at ``epoch`` (default: the last); arguments and errors as :func:`image_fits`.

    Warns where a file that the run read is there with other contents; one that was moved is no reason to doubt.
    """
    config = directory.config()
    saved = directory.load(epoch)
    if device is not None:
        config = replace(config, device=device)
    if datadir is not None:
        config = replace(config, datadir=datadir)
    if stack is None and not Path(config.particles).exists():
        raise InputError(f"{config.particles}: expected the particles of {directory.path}, found no such file; if they have "
                         f"moved, write their new place into {directory.path}/config.yaml")
    problem = build.open_data(config, stack)
    if stack is None and (told := provenance.altered(directory)) is not None:
        warnings.warn(f"{told}, and what is found of them tells nothing of the run", stacklevel=2)
    return problem, restore(config, problem, saved)
