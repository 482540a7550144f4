"""A finished (or running) run, opened to decode its volumes; its particles are not needed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.training import build
from cryorecon.training.checkpoint_file import fill
from cryorecon.training.config import RunConfig
from cryorecon.training.run_directory import RunDirectory
from cryorecon.volumes.base import Volume
from cryorecon.volumes.symmetry import symmetrise


@dataclass
class Trained:
    """config, epoch, grid and volume of a checkpoint; latents ``(particles, d)``, d = 0 for one structure, None where the run
    knows those of no particle. searched: the run found its poses, whatever its files held: its frame is its own."""

    directory: RunDirectory
    config: RunConfig
    epoch: int
    grid: Grid
    volume: Volume
    latents: np.ndarray | None
    searched: bool = False

    @property
    def z(self) -> np.ndarray:
        """Latents ``(particles, d)``. Raises :class:`InputError` for a run that infers none."""
        if self.latents is None:
            raise InputError(f"{self.directory.path}: expected a run that knows its particles' conformations, found one of "
                             "train_gan, which draws them; analyze shows its maps, eval_vol --z-start 0 --z-end 1 decodes them")
        return self.latents

    @property
    def apix(self) -> float:
        """Pixel size in Å."""
        return self.grid.apix

    def density(self, z: Tensor | np.ndarray) -> Tensor:
        """Maps ``(n, D, D, D)`` at ``z (n, d)``; for one structure its map, whatever z.

        Raises
        ------
        InputError: z of another dimension.
        """
        z = torch.as_tensor(np.ascontiguousarray(z), dtype=torch.float32)
        z = z.reshape(z.shape[:-1].numel(), z.shape[-1])
        if z.shape[1] != self.config.zdim:
            raise InputError(f"expected z of {self.config.zdim} numbers, found {z.shape[1]}; one row a volume")
        with torch.no_grad():
            maps = self.volume.density(z.to(self.grid.device))
            if self.config.objective == "adversarial":  # symmetric by itself
                return maps.cpu()
            return torch.stack([symmetrise(one, self.config.symmetry) for one in maps]).cpu()

    def mask(self, path: str | Path) -> Tensor:
        """A mask ``(D, D, D)`` for these maps, read from a file.

        Raises
        ------
        InputError: no mask between 0 and 1, one of another box or pixel size, or one that leaves nothing.
        """
        mask = build.read_mask(str(path), self.grid.box, self.apix)
        if not float(mask.max()) > 0:
            raise InputError(f"{path}: expected a mask that leaves something, found no voxel above 0")
        return mask


def load_run(path: str | Path, epoch: int | None = None, device: str = "auto") -> Trained:
    """Open a run directory at ``epoch`` (default: the last checkpoint).

    Raises
    ------
    InputError: no run, no such epoch, or a damaged checkpoint.
    """
    directory = RunDirectory(path)
    config = directory.config()
    saved = directory.load(epoch)
    prefix, base_limit = "volume.", saved["shape"]["base_limit"]
    values = {k[len(prefix):]: v for k, v in saved["model"].items() if k.startswith(prefix)}
    least, held = build.least_numbers(config, saved["box"], base_limit), sum(value.numel() for value in values.values())
    if held < least or base_limit > saved["box"] / 2:
        raise InputError(f"{path}: expected a checkpoint of this configuration, with {least:,} numbers at least in its volume, "
                         f"found {held:,} and a band of {base_limit:g} px; config.yaml and weights are of different runs")
    try:
        grid = Grid(saved["box"], saved["apix"], build.choose_device(device))
        volume = build.make_volume(config, grid, base_limit).to(grid.device)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    fill(volume, values, "volume", f"{path}: ")
    z: np.ndarray | None = np.zeros((len(saved["scale"]), 0), np.float32)
    if config.zdim:
        z = directory.z(saved["epoch"]) if config.objective == "likelihood" else None
        if z is not None and z.shape[1] != config.zdim:
            raise InputError(f"{path}: expected latents of {config.zdim} numbers as in config.yaml, found {z.shape[1]} in "
                             f"z.{saved['epoch']}.npy")
    return Trained(directory, config, saved["epoch"], grid, volume.eval(), z, saved["shape"].get("found", False))
