"""Ways from one particle to another: straight, by near neighbours, and where particles are densest; maps along each.

The free energy along the densest way is that of particles on it, wherever on it their images say (:func:`along`).
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryorecon.analysis.density import Density, along
from cryorecon.analysis.distribution import Distribution, write_density
from cryorecon.analysis.latent import PCA, nearest_particles
from cryorecon.analysis.paths import check_anchors, density_path, direct_path, even_points, graph_path, path_ends
from cryorecon.analysis.trajectories import Decode, write_latents, write_series
from cryorecon.errors import InputError

FINE = 64  # points of a path along which the free energy is told
BEYOND = 0.08  # of its length, by which a path is prolonged at each end: what lies beyond must not crowd on its last point


@dataclass(frozen=True)
class Walk:
    """name: of its folder. title: in words. points ``(n, d)``: latents. particles ``(n,)``: nearest to them. maps: files, or
    none. density: along it, of the densest way only."""

    name: str
    title: str
    points: np.ndarray
    particles: np.ndarray
    maps: list[Path]
    density: Density | None = None


def walks(z: np.ndarray, found: Distribution, pca: PCA, folder: Path, decode: Decode | None, apix: float,
          anchors: list[int] | None = None, n: int = 10, seed: int = 0) -> list[Walk]:
    """Walks of ``n`` points through ``anchors`` (default: two particles at the far ends of z) into ``folder/path_*``.

    Where no chain of near neighbours joins the anchors there is the straight one only, and a warning says so.

    Raises
    ------
    InputError: fewer than two anchors, or one that is no particle.
    """
    ends = sorted(path_ends(z, seed=seed), key=lambda i: float(pca.project(z[i : i + 1])[0, 0]))  # as clusters are numbered
    through = ends if anchors is None else check_anchors(anchors, len(z)).tolist()
    made = [_walk("path_direct", "straight way", direct_path(z[through].astype(np.float64), n), z, folder, decode, apix)]
    try:
        chain = graph_path(z, through, avg_neighbours=None, seed=seed)
        fine = density_path(z, through, found.log_density, FINE, seed=seed)
    except InputError:  # nothing joins them, which is a finding and no fault
        warnings.warn(f"no way by near neighbours joins particles {' and '.join(map(str, through))}: hardly any lie between; "
                      "only the straight way is made", stacklevel=2)
        return made
    stops = chain[np.unique(np.linspace(0, len(chain) - 1, n).round().astype(int))]
    made.append(_walk("path_graph", "way by near neighbours", z[stops], z, folder, decode, apix))
    density = along(found.seen, pca.project(prolonged(fine))[:, : found.seen.pull.shape[1]], seed)
    write_density(folder / "path_density" / "free_energy.csv", density)
    made.append(_walk("path_density", "way where particles are densest", even_points(fine, n), z, folder, decode, apix,
                      density))
    return made


def _walk(name: str, title: str, points: np.ndarray, z: np.ndarray, folder: Path, decode: Decode | None, apix: float,
          density: Density | None = None) -> Walk:
    particles = nearest_particles(z, points)
    if decode is None:
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_latents(folder / name / "z_values.txt", points)
        return Walk(name, title, points, particles, [], density)
    return Walk(name, title, points, particles, write_series(folder / name, decode, points, apix, f"maps, {title}"), density)


def prolonged(path: np.ndarray) -> np.ndarray:
    """The path ``(g, d)`` with straight ends beyond it, as many points again evenly by length."""
    length = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    lead = max(1, len(path) // 16)
    ends = [path[0] - path[lead], path[-1] - path[-1 - lead]]
    first, last = (end / max(np.linalg.norm(end), 1e-30) * BEYOND * length for end in ends)
    return even_points(np.concatenate([[path[0] + first], path, [path[-1] + last]]), len(path))
