"""What a simulation knows, read for a run of its particles: states, coordinates and true maps."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.analysis.states import check_truth
from cryorecon.data.arrays import read_npz
from cryorecon.data.cryodrgn_files import read_indices
from cryorecon.data.mrc import read_volume
from cryorecon.errors import InputError
from cryorecon.metrics.resample import resample
from cryorecon.simulation.write import MAPS
from cryorecon.training.trained import Trained


@dataclass(frozen=True)
class Truth:
    """state: ``(N,)`` of the run's particles. coordinate: ``(S, q)``. files: number of a state -> its map. box, apix: the
    grid on which :meth:`density` gives maps, the run's."""

    state: np.ndarray
    coordinate: np.ndarray
    files: dict[int, Path]
    box: int
    apix: float

    def density(self, number: int) -> Tensor:
        """The true map ``(D, D, D)`` of a state."""
        density, apix = read_volume(self.files[number])
        return resample(torch.from_numpy(density), apix or self.apix, self.box, self.apix)

    @property
    def mapped(self) -> np.ndarray:
        """``(N,)`` bool: the particles whose state has a map (a simulation writes 100 at most)."""
        return np.isin(self.state, list(self.files))


def read_truth(path: Path, run: Trained, maps: Path | None = None) -> Truth:
    """The truth ``path`` of a simulation for the particles of ``run`` (its --ind is applied).

    maps: folder of ``state_00.mrc`` ... (default: ``maps`` beside the truth).

    Raises
    ------
    InputError: no such files, or the truth of other particles.
    """
    held = read_npz(path, "the truth of a simulation")
    absent = {"state", "coordinate"} - set(held)
    if absent:
        raise InputError(f"{path}: expected state and coordinate, found no {' and no '.join(sorted(absent))}")
    state, coordinate = held["state"], held["coordinate"].reshape(len(held["coordinate"]), -1)
    if run.config.ind is not None and len(state) != len(run.z):
        state = state[read_indices(run.config.ind, len(state))]
    check_truth(run.z, state, coordinate)
    folder = path.parent / MAPS if maps is None else maps
    files = {int(found[1]): file for file in sorted(folder.glob("state_*.mrc"))
             if (found := re.fullmatch(r"state_(\d+)", file.stem))}
    if not set(files) & set(np.unique(state).tolist()):
        raise InputError(f"{folder}: expected the true maps, state_00.mrc and on, found none of the states that the particles "
                         "have; give their folder by --maps")
    return Truth(state, coordinate, files, run.grid.box, run.apix)
