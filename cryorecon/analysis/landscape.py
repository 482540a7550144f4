"""The landscape of a run: maps at many places of the latents, compared with one another. Writes arrays and maps."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cryorecon.analysis.clusters import kmeans
from cryorecon.analysis.latent import drawn, nearest_points
from cryorecon.analysis.trajectories import Decode, write_series
from cryorecon.analysis.volume_space import VolumeSpace, agglomerate, compare, project, regression, regression_score
from cryorecon.data.arrays import write_array
from cryorecon.data.files import atomic_path
from cryorecon.data.mrc import read_volume, write_volume
from cryorecon.data.safe_pickle import dump_pickles
from cryorecon.errors import InputError
from cryorecon.imaging.masks import from_map

STOPS = 10  # maps along each component
PER_MAP = 60  # particles drawn for each map of the sketch, at most


@dataclass(frozen=True)
class Settings:
    """n_maps: of the sketch. mask: ``(D, D, D)`` in [0, 1]; None: made from the maps, cut at ``threshold`` (None: found) and
    grown by ``dilate`` Å. n_states, linkage: the clusters. n_components: kept; n_walks: of these, walked with maps."""

    n_maps: int = 500
    mask: Tensor | None = None
    threshold: float | None = None
    dilate: float = 6.0
    n_states: int = 10
    linkage: str = "average"
    n_components: int = 20
    n_walks: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Landscape:
    """What :func:`explore_landscape` found.

    sketch: ``(K,)`` particles whose maps were made. coordinates: ``(N, c)`` float32 of all particles along the maps'
    components. nearest: ``(N,)``, the map of the sketch nearest to each there. state_of_map: ``(K,)``. score: R^2 of the
    coordinates, on maps left out. state_maps, walk_maps: files. files: what was written (relative to ``folder``) -> what it
    is.
    """

    folder: Path
    settings: Settings
    sketch: np.ndarray
    mask: np.ndarray
    space: VolumeSpace
    coordinates: np.ndarray
    nearest: np.ndarray
    state_of_map: np.ndarray
    score: float
    state_maps: list[Path]
    walk_maps: list[list[Path]]
    files: dict[str, str]

    @property
    def states(self) -> np.ndarray:
        """State of every particle, ``(N,)``."""
        return self.state_of_map[self.nearest]

    @property
    def counts(self) -> np.ndarray:
        """Particles of each state, ``(M,)``."""
        return np.bincount(self.states, minlength=int(self.state_of_map.max()) + 1)


def explore_landscape(z: np.ndarray, folder: Path, decode: Decode, apix: float, settings: Settings | None = None,
                      positions: np.ndarray | None = None) -> Landscape:
    """Maps at K real particles that stand for the latents ``(N, d)``, their components and clusters, into ``folder``.

    The particles are those nearest to K k-means centres. ``decode`` takes a latent ``(d,)`` to a map ``(D, D, D)`` of pixel
    size ``apix`` Å. positions: ``(N,)``, where each particle stands in the file that the run was given (default: in order).
    Memory: K maps within the mask in float32, and less than that again.

    Raises
    ------
    InputError: fewer than 2 different latents, maps all alike, a mask of another box or empty, or settings out of range.
    """
    settings = Settings() if settings is None else settings
    sketch = sketch_particles(z, settings.n_maps, settings.seed)
    name = f"kmeans{len(sketch)}"
    paths = write_series(folder / name, decode, z[sketch], apix, "maps of the landscape")
    mean, mask = _mean_and_mask(paths, apix, settings)
    space = compare(_within(paths, mask), settings.n_components)
    predict = regression(z[sketch], space.coordinates)
    coordinates = project(z, predict)
    nearest = nearest_points(coordinates, space.coordinates)
    state_of_map = agglomerate(space, settings.n_states, settings.linkage)
    found = Landscape(folder, settings, sketch, mask, space, coordinates, nearest, state_of_map,
                      regression_score(z[sketch], space.coordinates, settings.seed), [], [], {})
    write_volume(folder / "mask.mrc", mask, apix)
    _write_sketch(found, name)
    _write_components(found, mean, apix)
    _write_states(found, paths, apix, np.arange(len(z)) if positions is None else positions)
    return found


def sketch_particles(z: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """At most ``k`` particles at different places that stand for the latents ``(N, d)``: nearest to k-means centres.

    Of more than ``PER_MAP`` for each the centres and the particles are among so many drawn at random (``seed``).
    """
    if k < 2:
        raise InputError(f"landscape: expected at least 2 maps, found {k}")
    places = np.unique(z, axis=0, return_index=True)[1]
    if len(places) < 2:
        raise InputError(f"landscape: expected particles at different latents, found all {len(z)} at one place")
    if len(places) <= k:
        return np.sort(places)
    few = drawn(len(z), PER_MAP * k, seed)
    index = few[kmeans(z[few], k, seed).nearest]
    return index[np.sort(np.unique(z[index], axis=0, return_index=True)[1])]


def _read(paths: list[Path], label: str) -> "tqdm[Path]":
    return tqdm(paths, desc=label, unit="map", disable=None, leave=False)


def _mean_and_mask(paths: list[Path], apix: float, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Mean map and mask ``(D, D, D)``; a part that moves is inside wherever it goes, as the mask is of the maps' maximum."""
    first = read_volume(paths[0])[0]
    total, highest = np.zeros(first.shape), np.full(first.shape, -np.inf, np.float32)
    for path in _read(paths, "mask"):
        density = read_volume(path)[0]
        total += density
        highest = np.maximum(highest, density)
    mask = settings.mask
    if mask is None and settings.threshold is not None and settings.threshold >= highest.max():
        raise InputError(f"mask: expected a threshold below {highest.max():.4g}, the maps' highest density, found "
                         f"{settings.threshold:g}; give another --thresh")
    if mask is None:
        mask = from_map(torch.from_numpy(highest), apix, settings.threshold, dilate=settings.dilate)
    if mask.shape != first.shape or not bool((mask > 0).any()):
        raise InputError(f"mask: expected one of {len(first)} px with voxels above 0, found {tuple(mask.shape)} with "
                         f"{int((mask > 0).sum())}; give another")
    return total / len(paths), mask.numpy()


def _within(paths: list[Path], mask: np.ndarray) -> np.ndarray:
    """Maps times the mask where it is above 0, ``(K, V)`` float32."""
    inside = mask > 0
    weight = mask[inside].astype(np.float32)
    out = np.empty((len(paths), len(weight)), np.float32)
    for i, path in enumerate(_read(paths, "compare")):
        out[i] = read_volume(path)[0][inside] * weight
    return out


def _write_sketch(found: Landscape, name: str) -> None:
    k = len(found.sketch)
    with atomic_path(found.folder / name / "centers_ind.txt") as temporary:
        np.savetxt(temporary, found.sketch, fmt="%d")
    write_array(found.folder / name / "labels.npy", found.nearest)
    write_array(found.folder / "distances.npy", found.space.distances.astype(np.float32))
    write_array(found.folder / f"vol_pca_{k}.npy", found.space.coordinates.astype(np.float32))
    write_array(found.folder / "particle_pca.npy", found.coordinates)
    found.files.update({
        f"{name}/vol_*.mrc": f"{k} maps, in the order of z_values.txt",
        f"{name}/centers_ind.txt": "the particles that they are maps of, counted from 0",
        f"{name}/labels.npy": "the map nearest to every particle, counted from 0",
        "mask.mrc": "where maps are compared",
        "distances.npy": f"{k} x {k}: distances of the maps",
        f"vol_pca_{k}.npy": "the maps along their principal components",
        "particle_pca.npy": "every particle along the same, by regression from z",
    })


def _write_components(found: Landscape, mean: np.ndarray, apix: float) -> None:
    """Mean map, eigenvolumes, and maps from the 5th to the 95th percentile of the particles along the first components."""
    folder, inside = found.folder / "vol_pcs", found.mask > 0
    for stale in (*folder.glob("eigenvolume_*.mrc"), *folder.glob("pc*/vol_*.mrc")):
        stale.unlink()
    write_volume(folder / "vol_mean.mrc", mean, apix)

    def full(component: np.ndarray) -> np.ndarray:
        out = np.zeros(mean.shape, np.float32)
        out[inside] = component
        return out

    for i, component in enumerate(found.space.components):
        write_volume(folder / f"eigenvolume_{i + 1}.mrc", full(component), apix)
    for i in range(min(found.settings.n_walks, len(found.space.components))):
        volume = full(found.space.components[i])
        first, last = np.percentile(found.coordinates[:, i], [5, 95])
        stops = np.linspace(float(first), float(last), STOPS)
        paths = [folder / f"pc{i + 1}" / f"vol_{j + 1:03d}.mrc" for j in range(STOPS)]
        for path, stop in zip(paths, stops, strict=True):
            write_volume(path, mean + stop * volume, apix)
        found.walk_maps.append(paths)
        found.files[f"vol_pcs/pc{i + 1}/vol_*.mrc"] = (f"mean map plus component {i + 1}, 5th to 95th percentile of the "
                                                       "particles")
    found.files["vol_pcs/eigenvolume_*.mrc"] = "the maps' principal components, of length 1 within the mask"
    found.files["vol_pcs/vol_mean.mrc"] = "mean of the maps"


def _write_states(found: Landscape, paths: list[Path], apix: float, positions: np.ndarray) -> None:
    """Of each state its mean map and standard deviation, maps counted by their particles, and its particles."""
    states, settings = found.states, found.settings
    folder = found.folder / f"clustering_L2_{settings.linkage}_{settings.n_states}"
    for stale in (*folder.glob("state_*_*.mrc"), *folder.glob("state_*_particle_ind.pkl")):
        stale.unlink()
    share = np.bincount(found.nearest, minlength=len(paths)).astype(np.float64)
    shape = read_volume(paths[0])[0].shape
    write_array(folder / "state_labels.npy", found.state_of_map.astype(np.int32))
    write_array(folder / "particle_states.npy", states.astype(np.int32))
    for state in range(len(found.counts)):
        members = np.flatnonzero(found.state_of_map == state)
        weight = share[members] if share[members].sum() > 0 else np.ones(len(members))
        total, squares = np.zeros(shape), np.zeros(shape)
        for member, w in zip(members, weight / weight.sum(), strict=True):
            density = read_volume(paths[member])[0].astype(np.float64)
            total += w * density
            squares += w * density**2
        found.state_maps.append(folder / f"state_{state + 1}_mean.mrc")
        write_volume(found.state_maps[-1], total, apix)
        write_volume(folder / f"state_{state + 1}_std.mrc", np.sqrt(np.maximum(squares - total**2, 0)), apix)
        dump_pickles(folder / f"state_{state + 1}_particle_ind.pkl", positions[states == state])
    found.files.update({
        f"{folder.name}/state_N_mean.mrc": "mean map of each state, maps counted by their particles",
        f"{folder.name}/state_N_std.mrc": "standard deviation of its maps",
        f"{folder.name}/state_N_particle_ind.pkl": "its particles, for --ind of the training commands",
        f"{folder.name}/state_labels.npy": "the state of every map, counted from 0",
        f"{folder.name}/particle_states.npy": "the state of every particle, counted from 0",
    })


def write_landscape_summary(found: Landscape, facts: Mapping[str, object]) -> dict[str, object]:
    """Write ``summary.json``: ``facts`` (run, epoch, version ...) with what was found; returns it."""
    counts = found.counts
    summary: dict[str, object] = {
        **facts,
        "particles": len(found.nearest),
        "maps": len(found.sketch),
        "box": len(found.mask),
        "mask_voxels": int((found.mask > 0).sum()),
        "variance_explained": [round(float(share), 6) for share in found.space.explained],
        "regression_r2": round(found.score, 4),
        "linkage": found.settings.linkage,
        "states": [{"particles": int(count), "share": round(float(count / counts.sum()), 6),
                    "maps": int((found.state_of_map == i).sum())} for i, count in enumerate(counts)],
        "files": found.files,
    }
    with atomic_path(found.folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n")
    return summary
