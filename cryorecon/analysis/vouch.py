"""What the particles themselves say of a run's clusters and of its z: half maps, differences, leakage. Writes arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryorecon.analysis.half_maps import ClusterMap, cluster_maps
from cryorecon.analysis.leakage import Leakage, leakage, quantities
from cryorecon.data.arrays import write_csv
from cryorecon.training.build import Problem
from cryorecon.training.train import State, image_poses

COMPONENTS = 8  # principal components that are asked what they follow


@dataclass(frozen=True)
class Vouched:
    """leakage: of the principal components. rotation: of the images, ``(n, 3, 3)``. maps: by clustering and cluster (from 0),
    of clusters with enough particles. files: what was written -> what it is."""

    leakage: Leakage
    rotation: np.ndarray
    maps: dict[str, dict[int, ClusterMap]]
    files: dict[str, str]


def vouch(problem: Problem, state: State, coordinates: np.ndarray,
          clusterings: Mapping[str, tuple[np.ndarray, list[Path]]], folder: Path, seed: int = 0,
          rows: np.ndarray | None = None) -> Vouched:
    """Leakage of ``coordinates (n, d)``, and half maps of every clustering: folder's name -> labels ``(n,)`` and the decoder's
    maps (or none). Writes ``leakage.csv``, ``NAME/half_maps.csv``, ``NAME/half_map_fsc.csv`` and the half maps.

    rows: which of the run's particles these are (default: all).
    """
    rows = np.arange(len(coordinates)) if rows is None else rows
    poses = image_poses(state)
    asked = {name: features[rows] for name, features in quantities(problem.stack, poses).items()}
    varying = coordinates.var(0) > 1e-6 * coordinates.var(0).max()
    told = leakage(coordinates[:, varying][:, :COMPONENTS], asked, seed)
    write_csv(folder / "leakage.csv", ("component", *told.names), ((i + 1, *row) for i, row in enumerate(told.explained)))
    files = {"orientations.png": "from where the particles were seen",
             "leakage.csv": "share of each principal component's variance that pose, shift and defocus tell"}
    maps: dict[str, dict[int, ClusterMap]] = {}
    for name, (labels, decoded) in clusterings.items():
        whole = np.full(problem.stack.n_particles, -1)
        whole[rows] = labels
        found = cluster_maps(problem, state, whole, folder / name, decoded, f"half maps, {name}")
        maps[name] = {i: one for i, one in enumerate(found) if one is not None}
        _write(folder / name, maps[name], problem.grid.apix)
        files |= {f"{name}/half_maps/cluster_*_[ab].mrc": "half maps of each cluster's particles, unfiltered",
                  f"{name}/half_maps.csv": "how far half maps, and their differences from all particles', agree",
                  f"{name}/half_map_fsc.csv": "these curves"}
    seen = np.isin(problem.stack.particle.numpy(), rows)
    return Vouched(told, poses.rotation.numpy()[seen], maps, files)


def _write(folder: Path, maps: dict[int, ClusterMap], apix: float) -> None:
    write_csv(folder / "half_maps.csv", ("cluster", "images", "resolution_A", "difference_A", "decoder_correlation"),
              ((i + 1, one.images, one.resolved(one.fsc, apix), one.resolved(one.difference, apix), one.share())
               for i, one in maps.items()))
    rows = ((i + 1, *row) for i, one in maps.items()
            for row in zip(one.frequency / apix, one.fsc, one.difference, one.decoder, strict=True))
    write_csv(folder / "half_map_fsc.csv", ("cluster", "frequency_per_A", "half_maps", "differences", "decoder"), rows)
