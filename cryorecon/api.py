"""What ``import cryorecon`` offers: every step from particles to maps as a call.

Paths and in-memory stacks are taken alike. ``docs/methods/python.md`` says where to find what is not here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryorecon.data.load import load_particles
from cryorecon.data.mrc import read_volume, write_volume
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError
from cryorecon.metrics.fsc import fsc_curve as fsc
from cryorecon.metrics.fsc import resolution
from cryorecon.simulation.experiment import simulate_stack
from cryorecon.simulation.motion import flexible
from cryorecon.training import build
from cryorecon.training import train as training
from cryorecon.training.closed_form import Consensus
from cryorecon.training.config import RunConfig, absolute_paths
from cryorecon.training.evaluate import image_fits
from cryorecon.training.run_directory import RunDirectory
from cryorecon.training.trained import Trained, load_run

__all__ = ["InputError", "ParticleStack", "RunConfig", "Trained", "backproject", "flexible", "fsc", "image_fits",
           "load_particles", "load_run", "read_volume", "resolution", "simulate_stack", "train", "write_volume"]

Particles = str | Path | ParticleStack
IN_MEMORY = "(in memory)"


def train(particles: Particles, outdir: str | Path, zdim: int, *, resume: bool = False,
          report: Callable[[str, dict[str, float]], None] = lambda stage, values: None, **options: Any) -> Trained:
    """Train into the folder ``outdir`` and open the result, as ``train_vae`` does (``zdim`` 0: ``train_nn``).

    Parameters
    ----------
    particles: a file of any kind that :func:`load_particles` takes, or a stack. zdim: numbers that describe a particle.
    resume: go on from the last checkpoint in ``outdir``; of the options only ``epochs`` and ``device`` may have changed.
    report: hears of the stages before the network and of the end of each epoch, as (name, numbers).
    options: further fields of :class:`cryorecon.training.config.RunConfig`.

    Raises
    ------
    InputError: bad input, or an ``outdir`` that holds another run; nothing is left behind where no checkpoint was reached.

    >>> import cryorecon
    >>> run = cryorecon.train("particles.star", "out", zdim=8, epochs=25)  # doctest: +SKIP
    >>> cryorecon.write_volume("first.mrc", run.density(run.z[:1])[0].numpy(), run.apix)  # doctest: +SKIP
    """
    table, stack = _settled(particles, zdim, options)
    directory = RunDirectory(outdir)
    config = directory.resumed(table) if resume else RunConfig(**table)
    with directory.begun(config, [f"cryorecon.train({table!r})"], resume):
        for record in training.train(config, directory, resume, report, stack):
            if record.done:
                report(f"epoch {record.epoch}", record.means())
    return load_run(outdir, device=config.device)


def backproject(particles: Particles, **options: Any) -> Consensus:
    """One map and its half maps in closed form: see :class:`cryorecon.training.closed_form.Consensus`.

    ``options``: fields of :class:`cryorecon.training.config.RunConfig`, such as ``symmetry="D2"``. Raises
    :class:`InputError`: bad input.
    """
    table, stack = _settled(particles, 0, options)
    config = RunConfig(**table)
    return training.first_map(config, build.open_data(config, stack), lambda stage, values: None).found


def _settled(particles: Particles, zdim: int, options: dict[str, Any]) -> tuple[dict[str, Any], ParticleStack | None]:
    """Fields of the configuration that a call names, and the stack where there is one."""
    table = options | {"zdim": zdim}
    if zdim == 0:
        table = {"conformation": "fixed"} | table
    if isinstance(particles, ParticleStack):
        return absolute_paths(table) | {"particles": IN_MEMORY}, particles
    return absolute_paths(table | {"particles": particles}), None
