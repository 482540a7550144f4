"""The standard look at a run's latents: principal components, clusters, and maps at both. Writes arrays and maps."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryorecon.analysis.clusters import Clusters, kmeans
from cryorecon.analysis.latent import PCA, drawn, fit_pca
from cryorecon.analysis.trajectories import Decode, component_path, write_latents, write_series
from cryorecon.data.arrays import write_array
from cryorecon.data.files import atomic_path
from cryorecon.errors import InputError

UMAP_SAMPLE = 100_000  # particles that UMAP embeds at most


@dataclass(frozen=True)
class Findings:
    """What :func:`explore` found and where it wrote it.

    coordinates: ``(N, d)`` along the principal components. paths: latents ``(n, d)`` along each component asked for.
    cluster_maps, path_maps: the map files, empty where none were asked for. files: what was written (relative to
    ``folder``) -> what it is.
    """

    folder: Path
    pca: PCA
    coordinates: np.ndarray
    clusters: Clusters
    paths: list[np.ndarray]
    cluster_maps: list[Path]
    path_maps: list[list[Path]]
    files: dict[str, str]

    @property
    def clusters_name(self) -> str:
        """Folder of the clusters."""
        return f"kmeans{len(self.clusters.centres)}"


def explore(z: np.ndarray, folder: Path, decode: Decode | None, apix: float, k: int = 20, n_components: int = 2,
            n_points: int = 10, seed: int = 0) -> Findings:
    """Analyse latents ``(N, d)`` into ``folder``.

    ``z_pca.npy``; ``kmeansK/`` with ``labels.npy``, ``centers.txt`` and ``centers_ind.txt`` (the real particle nearest
    to each centre) and maps there; ``pc1/``, ``pc2/`` ... with ``n_points`` maps between the 5th and the 95th
    percentile. ``decode`` maps a latent ``(d,)`` to a map ``(D, D, D)``; None: no maps.

    Raises
    ------
    InputError: latents that are not finite, or no clusters or components asked for.
    """
    if n_components < 0:
        raise InputError(f"principal components: expected 0 or more, found {n_components}")
    pca = fit_pca(z)
    coordinates = pca.project(z)
    clusters = kmeans(z, k, seed)
    name = f"kmeans{len(clusters.centres)}"
    representatives = z[clusters.nearest]
    write_array(folder / "z_pca.npy", coordinates.astype(np.float32))
    write_array(folder / name / "labels.npy", clusters.labels)
    write_latents(folder / name / "centers.txt", representatives)
    with atomic_path(folder / name / "centers_ind.txt") as temporary:
        np.savetxt(temporary, clusters.nearest, fmt="%d")
    files = {
        "z_pca.npy": f"{len(z)} x {z.shape[1]}: every particle along the principal components",
        f"{name}/labels.npy": "the cluster of every particle, counted from 0",
        f"{name}/centers.txt": "latents of the real particles nearest to the cluster centres",
        f"{name}/centers_ind.txt": "which particles these are, counted from 0",
    }
    paths = [component_path(pca, z, i, n_points) for i in range(min(n_components, z.shape[1]))]
    cluster_maps: list[Path] = []
    path_maps: list[list[Path]] = [[] for _ in paths]
    if decode is not None:
        cluster_maps = write_series(folder / name, decode, representatives, apix, "cluster maps")
        files[f"{name}/vol_*.mrc"] = "maps of the clusters, in the order of z_values.txt"
        for i, path in enumerate(paths):
            path_maps[i] = write_series(folder / f"pc{i + 1}", decode, path, apix, f"maps along PC {i + 1}")
            files[f"pc{i + 1}/vol_*.mrc"] = f"maps along principal component {i + 1}, 5th to 95th percentile"
    return Findings(folder, pca, coordinates, clusters, paths, cluster_maps, path_maps, files)


def write_summary(found: Findings, facts: Mapping[str, object]) -> dict[str, object]:
    """Write ``summary.json``: ``facts`` (run, epoch, version ...) with what was found; returns it."""
    summary: dict[str, object] = {
        **facts,
        "particles": len(found.coordinates),
        "zdim": len(found.pca.mean),
        "variance_explained": [round(float(share), 6) for share in found.pca.explained],
        "cluster_sizes": found.clusters.counts.tolist(),
        "cluster_particles": found.clusters.nearest.tolist(),
        "files": found.files,
    }
    with atomic_path(found.folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def embed_umap(z: np.ndarray, folder: Path, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """UMAP of at most 100,000 latents drawn at random: their indices ``(n,)`` and positions ``(n, 2)``.

    Writes ``umap.npy`` and ``umap_ind.npy``.

    Raises
    ------
    InputError: the extra is not installed.
    """
    try:
        from umap import UMAP
    except ImportError as error:
        raise InputError("--umap: expected umap-learn, found it absent; pip install 'cryorecon[umap]'") from error
    index = drawn(len(z), UMAP_SAMPLE, seed)
    embedded = UMAP(random_state=seed, n_jobs=1).fit_transform(z[index])
    write_array(folder / "umap.npy", embedded)
    write_array(folder / "umap_ind.npy", index)
    return index, embedded
