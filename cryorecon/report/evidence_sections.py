"""Sections of the report: how conformations are distributed, ways through them, and what the particles say of all that."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryorecon.analysis.distribution import Distribution
from cryorecon.analysis.latent import PCA
from cryorecon.analysis.vouch import Vouched
from cryorecon.analysis.walks import Walk
from cryorecon.report import distribution_plots as plots
from cryorecon.report.explorer import Curves, Series
from cryorecon.report.page import Picture, Section, Table
from cryorecon.report.style import save


def states_series(found: Distribution, z: np.ndarray, maps: Sequence[Path]) -> Series:
    """The states' maps as the explorer shows them."""
    labels = [f"State {i + 1}: {100 * share:.1f} ± {100 * error:.1f} %"
              for i, (share, error) in enumerate(zip(found.occupancy, found.error, strict=True))]
    return Series(found.name, "of states", "path", maps, z[found.nearest], labels, found.nearest)


def walk_series(made: Sequence[Walk]) -> list[Series]:
    """The maps along ways, as the explorer shows them."""
    return [Series(walk.name, f"along a way, {walk.title}", "path", walk.maps, walk.points,
                   [f"Way {walk.title}: map {n + 1} of {len(walk.maps)}" for n in range(len(walk.maps))], walk.particles)
            for walk in made if walk.maps]


def distribution_section(found: Distribution, pca: PCA, made: Sequence[Walk], folder: Path) -> Section:
    """Occupancies, free energies and their pictures: ``states.png``, ``free_energy.png``, ``density/*.png``."""
    names = [f"PC {i + 1}" for i in range(len(pca.mean))]
    dense = next((walk for walk in made if walk.density is not None), None)
    pictures = [Picture(save(plots.states(found), folder / "states.png"),
                        "Occupancies of the states of a Gaussian mixture that sees each particle through its own noise, with errors "
                        "from random half sets and free energies from the fullest; their number has the smallest BIC.", 720)]
    if found.plane is not None:
        walk = None if dense is None else pca.project(dense.points)[:, :2]
        drawn = plots.landscape(found.plane, names, found.mixture.mean[:, :2].numpy(), walk)
        way = "" if dense is None else "; the line is the way where particles are densest"
        pictures.append(Picture(save(drawn, folder / "density" / "pc1_pc2.png"),
                                f"Free energy over the first two components; numbers are states{way}.", 560))
    drawn = plots.free_energies(found.lines, names[: len(found.lines)])
    pictures.append(Picture(save(drawn, folder / "density" / "pcs.png"),
                            "Free energy along each component, all others averaged over; the band is one standard error.", 820))
    if dense is not None and dense.density is not None:
        drawn = plots.free_energies([dense.density], ["length along the way (units of z)"])
        pictures.append(Picture(save(drawn, folder / dense.name / "free_energy.png"),
                                "Free energy along the way where particles are densest. Where it says 6 kT or nothing, hardly "
                                "anybody is.", 420))
    rows = [(str(i + 1), f"{100 * share:.1f} ± {100 * error:.1f} %", f"{energy:.2f} ± {off:.2f}", f"{count:,}", str(particle))
            for i, (share, error, energy, off, count, particle) in enumerate(zip(
                found.occupancy, found.error, found.free_energy, found.free_energy_error,
                np.bincount(found.labels, minlength=len(found.mixture)), found.nearest, strict=True))]
    seen = ("Every particle's own uncertainty of z is taken out." if found.seen.measured else
            "This run tells no uncertainty of z: its noise is part of what is shown.")
    return Section("States and free energies", f"{seen} kT are those of the temperature at which the sample was frozen, if it was "
                   "in equilibrium there.", pictures=pictures,
                   tables=[Table(("state", "occupancy", "kT from the fullest", "particles nearest", "particle (from 0)"), rows)])


def vouched_sections(found: Vouched, apix: float, folder: Path) -> list[Section]:
    """What the particles say of clusters and of z: ``leakage.png``, ``NAME/half_maps.png``."""
    warned = found.leakage.warnings()
    said = ("; ".join(warned) + ": such differences may be no motion. Look at the maps along that component before you believe it."
            if warned else "No principal component of z follows pose, shift or defocus.")
    sections = [Section("Does z follow what it should not?", said[0].upper() + said[1:],
                        pictures=[Picture(save(plots.leaks(found.leakage), folder / "leakage.png"),
                                          "Share of each component's variance that a small linear model tells from each quantity, "
                                          "on particles left out; 0 is good.", 560)])]
    for name, maps in found.maps.items():
        if not maps:
            continue
        rows = [(str(i + 1), f"{one.images:,}", _angstrom(one.resolved(one.fsc, apix)),
                 _angstrom(one.resolved(one.difference, apix)),
                 "" if np.isnan(one.decoder).any() else f"{one.share():.2f}") for i, one in maps.items()]
        what = "states" if name.startswith("gmm") else "clusters"
        sections.append(Section(
            f"Are the {what} real?", f"The particles of each of the {what} backprojected, as two half maps (FSC 0.143). Any two "
            "maps of one molecule agree; where the halves' differences from all particles agree, this one differs in truth, and "
            "the last column says how much of that the decoder shows (1: all).",
            pictures=[Picture(save(plots.cluster_fsc(maps, apix), folder / name / "half_maps.png"),
                              f"Fourier shell correlations, a line for each of the {what}.", 860)],
            tables=[Table((what[:-1], "images", "half maps agree to", "their differences agree to", "decoder shows"), rows)]))
    return sections


def cluster_curves(found: Vouched, apix: float) -> list[Curves]:
    """FSC of the differences of half maps as lines, one plot a clustering."""
    return [Curves(f"Differences of half maps from all particles, {name}",
                   {f"{i + 1}": (one.frequency / apix, one.difference) for i, one in maps.items()})
            for name, maps in found.maps.items() if maps]


def _angstrom(value: float) -> str:
    return f"{value:.1f} Å" if np.isfinite(value) else "nowhere"
