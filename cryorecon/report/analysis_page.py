"""Pictures and page of what ``analyze`` found."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cryorecon.analysis.explore import Findings
from cryorecon.analysis.latent import nearest_particles
from cryorecon.data.mrc import read_volume
from cryorecon.data.stack import ParticleStack
from cryorecon.report import maps, plots
from cryorecon.report.explorer import Explorer, Series, asset, explorer_data, scripts
from cryorecon.report.page import Picture, Section, Table, embedded, ending, write_page
from cryorecon.report.style import save
from cryorecon.report.thumbnails import columns, thumbnails

FEW = 7  # images shown of a cluster, beside its representative's


def draw_latents(found: Findings) -> list[Picture]:
    """``z_pca.png``, ``z_pca_hexbin.png``, ``variance.png``."""
    names = plots.component_names(found.pca.explained)
    centres = found.coordinates[found.clusters.nearest]
    scatter = plots.latent_scatter(found.coordinates, names, found.clusters.labels, centres)
    path, what = (found.paths[0], "path along PC 1") if found.paths else (found.pca.mean[None], "mean")
    hexes = plots.latent_density(found.coordinates, names, found.pca.project(path), what)
    return [
        Picture(save(scatter, found.folder / "z_pca.png"),
                "Every particle along the first two principal components of z; numbers are clusters, their dots the "
                "real particles whose maps are shown below.", 530, "points"),
        Picture(save(hexes, found.folder / "z_pca_hexbin.png"),
                "Particles as a density; numbers are the points of the path.", 530),
        Picture(save(plots.variance(found.pca.explained), found.folder / "variance.png"),
                "How much of the variance of z each principal component holds.", 460),
    ]


def draw_umap(folder: Path, positions: np.ndarray, labels: np.ndarray, n_clusters: int) -> Picture:
    """``umap.png`` of positions ``(n, 2)`` and their clusters ``(n,)``; a cluster's number stands at its median."""
    middle = np.stack([np.median(positions[labels == i], 0) if (labels == i).any() else positions[0]
                       for i in range(n_clusters)])
    drawn = plots.latent_scatter(positions, ("UMAP 1", "UMAP 2"), labels, middle)
    return Picture(save(drawn, folder / "umap.png"), "UMAP of z, coloured by cluster.", 530, "points")


def draw_maps(found: Findings, apix: float) -> list[Picture]:
    """``volumes.png`` and ``slices.png`` of the clusters, ``pcN/volumes.png`` of the trajectories."""
    pictures = []
    if found.cluster_maps:
        densities = maps.read_maps(found.cluster_maps)
        labels = [f"{i + 1}  ({count:,})" for i, count in enumerate(found.clusters.counts)]
        drawn = maps.surfaces(densities, labels, f"Maps of {len(densities)} clusters (particles)")
        pictures.append(Picture(save(drawn, found.folder / "volumes.png"),
                                "Maps at the real particle nearest to each cluster's centre, all at one level.",
                                instead="surface"))
        largest = int(found.clusters.counts.argmax())
        box = read_volume(found.cluster_maps[largest])[0].shape[-1]
        drawn = maps.slices(densities[largest], apix * box / densities[largest].shape[-1],
                            f"Cluster {largest + 1}, the largest")
        pictures.append(Picture(save(drawn, found.folder / "slices.png"),
                                "Central slices and projections of the largest cluster's map.", 720))
    for i, paths in enumerate(found.path_maps):
        if paths:
            title = f"Along principal component {i + 1}, 5th to 95th percentile"
            drawn = maps.surfaces(maps.read_maps(paths), [str(n + 1) for n in range(len(paths))], title)
            pictures.append(Picture(save(drawn, found.folder / f"pc{i + 1}" / "volumes.png"),
                                    f"Maps along principal component {i + 1}; the other components stay at the mean. "
                                    "Where few particles lie, the map is the decoder's guess.", instead="surface"))
    return pictures


def draw_history(history: Mapping[str, np.ndarray], folder: Path) -> Picture:
    """``learning_curve.png``."""
    return Picture(save(plots.learning_curve(history), folder / "learning_curve.png"), "Learning curve by epoch.")


def found_series(found: Findings, z: np.ndarray) -> list[Series]:
    """The maps of ``found``, of latents ``z (N, d)``, as the explorer shows them."""
    counts = found.clusters.counts
    series = []
    if found.cluster_maps:
        labels = [f"Cluster {i + 1}: {count:,} particles, {100 * count / counts.sum():.1f} %" for i, count in enumerate(counts)]
        nearest = found.clusters.nearest
        series.append(Series("clusters", "of clusters", "clusters", found.cluster_maps, z[nearest], labels, nearest))
    for i, (maps_of, points) in enumerate(zip(found.path_maps, found.paths, strict=True)):
        labels = [f"Along PC {i + 1}: map {n + 1} of {len(points)}" for n in range(len(points))]
        series.append(Series(f"pc{i + 1}", f"along PC {i + 1}", "path", maps_of, points, labels, nearest_particles(z, points)))
    return series


def make_explorer(found: Findings, z: np.ndarray, select: str, umap: tuple[np.ndarray, np.ndarray] | None = None,
                  stack: ParticleStack | None = None, more: Sequence[Series] = ()) -> Explorer:
    """The interactive part for ``found`` of latents ``z (N, d)``.

    ``select``: the command that reads a lasso. ``umap``: indices and positions. ``stack``: the particles, for their images
    and columns, or None where they are gone. ``more``: further series of maps, shown after the clusters'.
    """
    series = found_series(found, z)
    series[1:1] = more
    if stack is None:
        return Explorer(found.folder, z, found.pca, found.clusters, series, select, umap)
    rng, chosen = np.random.default_rng(0), [found.clusters.nearest]
    for cluster in range(len(found.clusters.centres)):
        members = np.flatnonzero(found.clusters.labels == cluster)
        chosen.append(rng.choice(members, min(FEW, len(members)), replace=False))
    chosen += [one.particles for one in series if one.particles is not None]
    return Explorer(found.folder, z, found.pca, found.clusters, series, select, umap, columns(stack),
                    thumbnails(stack, np.unique(np.concatenate(chosen))))


def write_analysis(found: Findings, history: Mapping[str, np.ndarray], apix: float, title: str,
                   facts: Mapping[str, str], explorer: Explorer, evidence: Sequence[Section] = ()) -> Path:
    """Draw everything and write ``report.html``; returns its path.

    ``facts``: name -> words, the table of how this was made. ``explorer``: the interactive part. ``evidence``: a section
    to begin with, and those that follow on the clusters.
    """
    latents = draw_latents(found)
    if explorer.umap is not None:
        index, positions = explorer.umap
        latents.insert(2, draw_umap(found.folder, positions, found.clusters.labels[index], len(found.clusters.centres)))
    total = len(found.clusters.labels)
    rows = [(str(i + 1), f"{count:,}", f"{100 * count / total:.1f}\u00a0%", str(particle))
            for i, (count, particle) in enumerate(zip(found.clusters.counts, found.clusters.nearest, strict=True))]
    drawn = latents + draw_maps(found, apix)
    still = [picture for picture in drawn if not picture.instead]
    slices = [picture for picture in still if picture.path.name == "slices.png"]
    sections = [
        Section("Explore", "Each dot is a particle; near dots are alike. Where few lie, a map is the decoder's guess.",
                [picture for picture in drawn if picture.instead],
                markup=asset("explorer.html") + embedded(explorer_data(explorer), "explorer-data")),
        Section("Clusters", "k-means clusters of z, numbered along the first principal component;"
                " select --cluster takes these numbers.",
                tables=[Table(("cluster", "particles", "share", "particle shown (from 0)"), rows, series="clusters")]),
        Section("Latent space", "Where particles crowd, and how many numbers describe them.",
                [picture for picture in still if picture not in slices]),
    ]
    sections = [*evidence[:1], *sections[:2], *evidence[1:], *sections[2:]]
    if slices:
        sections.append(Section("Slices", pictures=slices))
    sections += [Section("Training", pictures=[draw_history(history, found.folder)]),
                 *ending(found.folder, found.files, facts)]
    subtitle = f"{total:,} particles, z of {len(found.pca.mean)} dimensions"
    return write_page(found.folder / "report.html", title, subtitle, sections,
                      "Made by cryorecon analyze. This page needs no network.", asset("explorer.css"), scripts())
