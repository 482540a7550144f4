"""A simulation on disk: images, poses and CTF in the formats that programs read, maps and truth."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cryorecon.data.cryodrgn_files import write_ctf, write_poses
from cryorecon.data.files import LOCK, atomic_path, exclusive, free_space
from cryorecon.data.mrc import StackWriter, part_name, write_volume
from cryorecon.data.poses import Poses
from cryorecon.data.source import FileSource
from cryorecon.data.stack import ParticleStack
from cryorecon.data.star_write import write_star
from cryorecon.errors import InputError
from cryorecon.simulation.experiment import Experiment, half_sets
from cryorecon.simulation.images import Truth
from cryorecon.simulation.specimen import Specimen, density

STACK, STAR, POSES, CTF, TRUTH, MAPS = "particles.mrcs", "particles.star", "poses.pkl", "ctf.pkl", "truth.npz", "maps"
TILTED_STACK, TILTED_CTF = "particles_tilt.mrcs", "ctf_tilt.pkl"
OUTPUTS = (STAR, STACK, POSES, CTF, TRUTH, TILTED_STACK, TILTED_CTF)
MAX_MAPS = 100


def write_simulation(molecule: Specimen, experiment: Experiment, folder: str | Path, half_precision: bool = False,
                     overwrite: bool = False) -> Truth:
    """Simulate and write a folder; images are streamed, so that memory does not grow with their number.

    The star file is written last: where it is, all is.

    Raises
    ------
    InputError: the folder holds files and ``overwrite`` is not set, too little disk space, or as
    :meth:`Experiment.run` does; nothing is written then.
    """
    folder = Path(folder)
    with exclusive(folder):
        _claim(folder, overwrite)
        return _write(molecule, experiment, folder, half_precision, overwrite)


def _write(molecule: Specimen, experiment: Experiment, folder: Path, half_precision: bool, overwrite: bool) -> Truth:
    n_maps = min(molecule.n_states, MAX_MAPS)
    image_bytes = (2 if half_precision else 4) * experiment.box**2 + 500  # 500: its rows in the other files
    n_stacks = 1 if experiment.tilt is None else 2
    free_space(folder / STACK, n_stacks * experiment.n * image_bytes + n_maps * 4 * experiment.box**3)
    truth, images = experiment.run(molecule)
    if overwrite:
        _remove_earlier(folder)
    _write_images(folder / STACK, images, experiment, half_precision)
    if experiment.tilt is not None:
        _write_images(folder / TILTED_STACK, experiment.run_tilted(molecule, truth), experiment, half_precision)
    for state in tqdm(range(n_maps), unit="map", desc="maps", disable=None):
        one = density(molecule, state, experiment.box, experiment.apix, experiment.decay(molecule))
        write_volume(folder / MAPS / f"state_{state:02d}.mrc", one.numpy(), experiment.apix)
    _write_metadata(folder, molecule, experiment, truth)
    return truth


def _write_images(path: Path, images: Iterator[Tensor], experiment: Experiment, half_precision: bool) -> None:
    bar = tqdm(total=experiment.n, unit="img", desc=path.stem, disable=None)
    with bar, StackWriter(path, experiment.box, experiment.apix, half=half_precision) as stack:
        for part in images:
            stack.append(part.numpy())
            bar.update(len(part))


def _write_metadata(folder: Path, molecule: Specimen, experiment: Experiment, truth: Truth) -> None:
    poses = Poses(truth.rotation, truth.shift)
    write_poses(folder / POSES, poses, experiment.box, experiment.apix)
    if truth.optics is not None:
        for name in (CTF,) if experiment.tilt is None else (CTF, TILTED_CTF):
            write_ctf(folder / name, truth.optics, experiment.box, experiment.apix)
    with atomic_path(folder / TRUTH) as temporary, temporary.open("wb") as file:
        np.savez(file, state=truth.state.numpy(), rotation=truth.rotation.numpy(), shift=truth.shift.numpy(),
                 coordinate=molecule.coordinate.numpy(), apix=experiment.apix, box=experiment.box)
    stack = ParticleStack(FileSource.open([folder / STACK]), experiment.apix, truth.optics, poses,
                          particle=torch.arange(len(truth)), half=half_sets(len(truth)), white=True)
    write_star(folder / STAR, stack, STACK)


def _claim(folder: Path, overwrite: bool) -> None:
    """Raise unless ``folder``, which we have locked, is free to write into."""
    if any(path.name != LOCK for path in folder.iterdir()) and not overwrite:
        raise InputError(f"{folder}: expected an empty or new folder, found files in it; give another or --overwrite")


def _remove_earlier(folder: Path) -> None:
    """Remove what an earlier simulation wrote: a map or CTF of it must not stay beside the new images."""
    for path in [*(folder / name for name in OUTPUTS), *(part_name(folder / name) for name in (STACK, TILTED_STACK)),
                 *earlier_maps(folder)]:
        path.unlink(missing_ok=True)


def earlier_maps(folder: str | Path) -> list[Path]:
    """The maps of states that a simulation left in ``folder``."""
    return sorted((Path(folder) / MAPS).glob("state_*.mrc"))
