"""Density maps in place of atoms: each map is a conformation, and its images are central slices of its transform.

Poses turn a map about its origin, index ``D // 2`` of every axis. What a map holds outside the images' box is cut off,
and what the box holds outside the map is zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from cryorecon.data.mrc import read_volume
from cryorecon.errors import InputError
from cryorecon.geometry.fourier import centred_fft, centred_ifft
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.masks import radius_map
from cryorecon.metrics.resample import SAME, resample
from cryorecon.volumes.voxel_grid import VoxelGrid

MOLECULE = 0.2  # of the largest value: voxels above it are the molecule, whatever ripples and noise lie around it
LARGEST_TRANSFORM = 384  # points a side of an oversampled transform; making it takes 3 GB
LATTICES = 2 << 30  # bytes for all states beyond which they are sampled less finely
AT_ONCE = 16  # images sliced together: their points stay in the cache


@dataclass(frozen=True)
class MapMolecule:
    """Density maps of S conformations on one grid.

    densities: ``(S, D', D', D')``. apix: Å/voxel. coordinate: ``(S, q)``, where each state lies along its motions.
    """

    densities: Tensor
    apix: float
    coordinate: Tensor
    usual_b_factor: ClassVar[float] = 0.0  # a map has its own

    @property
    def n_states(self) -> int:
        """Number of conformations ``S``."""
        return len(self.densities)

    @property
    def box(self) -> int:
        """Voxels a side, ``D'``."""
        return self.densities.shape[-1]

    def radius(self) -> float:
        """Largest distance from the origin, in Å, of a voxel that has a fifth of the largest value or more."""
        distance = radius_map(self.box, 3) * self.apix
        level = MOLECULE * max(float(one.abs().max()) for one in self.densities)
        return max(float((distance * (one.abs() >= level)).max()) for one in self.densities)

    def sampling(self, box: int | None, apix: float | None) -> tuple[int, float]:
        """Box and pixel size (Å) of images for which the caller may have named either.

        One alone keeps the maps' extent, to the next even box; without both they are the maps', an odd box made even by
        one more pixel.
        """
        if box is not None:
            return box, apix if apix is not None else self.box * self.apix / max(1, box)
        ratio = self.apix / apix if apix is not None and apix > 0 else 1.0
        return max(0, 2 * math.ceil(self.box * ratio * (1 - SAME) / 2)), self.apix if apix is None else apix

    def density(self, state: int, box: int, apix: float, b_factor: float = 0.0) -> Tensor:
        """The map ``(D, D, D)`` of one conformation on ``box`` points of ``apix`` Å, times ``exp(-B k^2 / 4)``."""
        sampled = resample(self.densities[state], self.apix, box, apix)
        if b_factor == 0:
            return sampled
        decay = torch.exp(-b_factor / 4 * (radius_map(box, 3) / (box * apix)).square())
        return centred_ifft(centred_fft(sampled, 3) * decay, 3).real


class MapRenderer:
    """Spectra of maps' projections on a grid, by trilinear interpolation of their oversampled transforms.

    A state's transform is made when it is first asked for, and kept.
    """

    def __init__(self, maps: MapMolecule, grid: Grid, b_factor: float = 0.0, pad: int | None = None):
        self.maps, self.grid, self.b_factor = maps, grid, b_factor
        self.pad = pad or oversampling(maps.n_states, grid.box)
        self._volumes: dict[int, VoxelGrid] = {}

    @torch.no_grad()
    def __call__(self, state: Tensor, rotation: Tensor) -> Tensor:
        """Spectra ``(B, P)`` of conformations ``state (B,)`` seen at rotations ``(B, 3, 3)``."""
        spectra = torch.empty(len(state), self.grid.n, dtype=torch.complex64, device=self.grid.device)
        for one in state.unique().tolist():
            for rows in torch.nonzero(state == one)[:, 0].split(AT_ONCE):
                z = rotation.new_zeros(len(rows), 1, 0)
                spectra[rows] = self._volume(one).slices(rotation[rows, None], z, slice(None))[:, 0]
        return spectra

    def _volume(self, state: int) -> VoxelGrid:
        if state not in self._volumes:
            density = self.maps.density(state, self.grid.box, self.grid.apix, self.b_factor).to(self.grid.device)
            self._volumes[state] = VoxelGrid.from_density(density[None], self.grid, self.pad)
        return self._volumes[state]


def oversampling(n_states: int, box: int) -> int:
    """How many times finer than the images' Fourier pixels the transforms are kept: 4, 3 or 2, as memory bears."""
    for pad in (4, 3):
        if pad * box <= LARGEST_TRANSFORM and n_states * 4 * (pad * box) ** 3 <= LATTICES:  # half of it, 8 bytes a point
            return pad
    return 2


def load_maps(paths: Sequence[str | Path], apix: float | None = None) -> MapMolecule:
    """Maps from MRC files (gzipped too), each a state, on a line from 0 to 1 in the order given.

    ``apix``: their voxel size in Å; without it the headers'.

    Raises
    ------
    InputError: a file that can't be read, isn't cubic, or holds NaN or one value throughout; no voxel size; maps of
    unlike boxes or voxel sizes.
    """
    if apix is not None and not 0 < apix < math.inf:
        raise InputError(f"maps: expected a voxel size above 0 Å, found {apix:g}; check --map-apix")
    densities: list[Tensor] = []
    first = 0.0
    for path in paths:
        array, size = read_volume(path)
        size = size if apix is None else apix
        if size <= 0:
            raise InputError(f"{path}: expected a voxel size, found 0 in its header; give it by --map-apix Å")
        if array.min() == array.max():
            raise InputError(f"{path}: expected a map, found {array.flat[0]:g} in every voxel; check what wrote it")
        first = first or size
        if densities and (len(array) != len(densities[0]) or abs(size / first - 1) > SAME):
            raise InputError(f"{path}: expected {len(densities[0])} voxels of {first:.4g} Å as in {paths[0]}, found "
                             f"{len(array)} of {size:.4g} Å; bring the maps to one box and voxel size")
        densities.append(torch.from_numpy(array))
    coordinate = torch.linspace(0, 1, len(paths))[:, None] if len(paths) > 1 else torch.zeros(1, 1)
    return MapMolecule(torch.stack(densities), first, coordinate)
