"""Sections of the report: how conformations are distributed, ways through them, and what the particles say of all that."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryorecon.analysis.distribution import Distribution
from cryorecon.analysis.half_maps import ClusterMap
from cryorecon.analysis.latent import PCA
from cryorecon.analysis.vouch import Vouched
from cryorecon.analysis.walks import Walk
from cryorecon.report import distribution_plots as plots
from cryorecon.report.explorer import Curves, Series, curves_markup
from cryorecon.report.page import Picture, Section, Table
from cryorecon.report.plots import orientations
from cryorecon.report.style import save

STATES = ("A Gaussian mixture that sees each particle through its own noise; as many states as have the smallest BIC. Errors "
          "are from random half sets, free energies from the fullest state.")
LEAKAGE = ("Share of each component's variance that a small linear model tells from each quantity, on particles left out; 0 is "
           "good.")
REAL = ("The particles of each of the {what} backprojected, as two half maps (FSC 0.143). Any two maps of one molecule agree; "
        "where the halves' differences from all particles agree, this one differs in truth. The last column says how much of "
        "that the decoder shows (1: all). At the lowest frequencies maps of one molecule hardly differ, and the curve may dip.")


def in_short(found: Distribution, explained: np.ndarray, made: Sequence[Walk], vouched: Vouched | None, apix: float,
             most: int) -> Section:
    """What was found, in sentences. explained: shares of variance of the components; most: states that were tried."""
    k, dense = len(found.mixture), next((walk.density for walk in made if walk.density is not None), None)
    directions, share = found.mixture.mean.shape[1], f"{100 * explained[0]:.0f} %"
    said = [f"z varies along {directions} directions, the first with {share} of the variance."]
    if k == 1:
        said.append("One state describes it.")
    else:
        tried = "; no more were tried (--states), there may be more" if k >= most else ""
        said.append(f"{k} states describe it best{tried}. A continuous motion is cut into as many as it needs: separate they "
                    "are only where a barrier lies between.")
    if dense is None:
        said.append("Hardly any particle lies between the far ends of z: what lies there is separate.")
    else:
        inner = dense.free_energy[len(dense.free_energy) // 8 : -len(dense.free_energy) // 8]
        top = float(inner.max())
        height = f"reaches {top:.1f} kT above its lowest" if np.isfinite(top) else "has gaps where nobody is"
        said.append(f"Along the way where particles are densest, between its ends, the free energy {height}.")
    if vouched is not None:
        for name, maps in vouched.maps.items():
            what = "states" if name.startswith("gmm") else "clusters"
            real = sum(bool(np.isfinite(one.resolved(one.difference, apix))) for one in maps.values())
            said.append(f"{real} of {len(maps)} {what} differ from the rest in both half sets.")
        warned = vouched.leakage.warnings()
        said.append(f"Warning: {'; '.join(warned)}." if warned else "")
    return Section("In short", " ".join(said).strip())


def states_series(found: Distribution, z: np.ndarray, maps: Sequence[Path]) -> Series:
    """The states' maps as the explorer shows them."""
    labels = [f"State {i + 1}: {100 * share:.1f} ± {100 * error:.1f} %"
              for i, (share, error) in enumerate(zip(found.occupancy, found.error, strict=True))]
    return Series(found.name, "of states", "states", maps, z[found.nearest], labels, found.nearest)


def walk_series(made: Sequence[Walk]) -> list[Series]:
    """The maps along ways, as the explorer shows them; the densest first."""
    return [Series(walk.name, f"along the {walk.title}", "path", walk.maps, walk.points,
                   [f"The {walk.title}: map {n + 1} of {len(walk.maps)}" for n in range(len(walk.maps))], walk.particles)
            for walk in reversed(made) if walk.maps]


def distribution_section(found: Distribution, pca: PCA, made: Sequence[Walk], folder: Path) -> Section:
    """Occupancies, free energies, their pictures: ``gmmK/states.png``, ``density/*.png``, ``path_density/free_energy.png``."""
    counts = np.bincount(found.labels, minlength=len(found.mixture))
    rows = [(str(i + 1), f"{100 * found.occupancy[i]:.1f} ± {100 * found.error[i]:.1f} %",
             f"{found.free_energy[i]:.2f} ± {found.free_energy_error[i]:.2f}", f"{counts[i]:,}", str(found.nearest[i]))
            for i in range(len(found.mixture))]
    seen = ("Every particle's own uncertainty of z is taken out." if found.seen.measured else
            "This run tells no uncertainty of z: its noise is part of what is shown.")
    dense = next((walk for walk in made if walk.density is not None), None)
    return Section("States and free energies", f"{seen} Energies are in kT of the temperature at which it was frozen.",
                   _pictures(found, pca, dense, folder),
                   [Table(("state", "occupancy", "kT from the fullest", "particles nearest", "particle shown (from 0)"), rows,
                          series=found.name)])


def _pictures(found: Distribution, pca: PCA, dense: Walk | None, folder: Path) -> list[Picture]:
    names = [f"PC {i + 1}" for i in range(len(pca.mean))]
    pictures = [Picture(save(plots.states(found), folder / found.name / "states.png"), STATES, 720)]
    if found.plane is not None:
        walk = None if dense is None else pca.project(dense.points)[:, :2]
        drawn = plots.landscape(found.plane, names, found.mixture.mean[:, :2].numpy(), walk)
        way = "" if dense is None else "; the line is the way where particles are densest"
        pictures.append(Picture(save(drawn, folder / "density" / "pc1_pc2.png"),
                                f"Free energy over the first two components; numbers are states{way}.", 520))
    if dense is not None and dense.density is not None:
        drawn = plots.free_energies([dense.density], ["length along the way (units of z)"])
        pictures.append(Picture(save(drawn, folder / dense.name / "free_energy.png"),
                                "Free energy along the way where particles are densest, with one standard error.", 420))
    drawn = plots.free_energies(found.lines, names[: len(found.lines)])
    pictures.append(Picture(save(drawn, folder / "density" / "pcs.png"),
                            "Free energy along each component, all others averaged over, with one standard error.", 820))
    return pictures


def vouched_sections(found: Vouched, apix: float, folder: Path) -> list[Section]:
    """What the particles say of clusters and of z: ``leakage.png``, ``orientations.png``, ``NAME/half_maps.png``."""
    warned = found.leakage.warnings()
    said = ("; ".join(warned) + ". That may be no motion: look at the maps along that component before you believe it."
            if warned else "Too few particles to tell." if np.isnan(found.leakage.explained).any() else
            "No principal component of z follows pose, shift or defocus.")
    drawn = save(plots.leaks(found.leakage), folder / "leakage.png")
    sections = [_real(name, maps, apix, folder) for name, maps in found.maps.items() if maps]
    views = save(orientations(found.rotation), folder / "orientations.png")
    return [*sections, Section("Does z follow what it should not?", said[0].upper() + said[1:], [
        Picture(drawn, LEAKAGE, 480), Picture(views, "From where the particles were seen, and angles in the plane.", 640)])]


def _real(name: str, maps: dict[int, ClusterMap], apix: float, folder: Path) -> Section:
    what = "states" if name.startswith("gmm") else "clusters"
    rows = [(str(i + 1), f"{one.images:,}", _angstrom(one.resolved(one.fsc, apix)),
             _angstrom(one.resolved(one.difference, apix)),
             "" if np.isnan(one.decoder).any() else f"{one.share():.2f}") for i, one in maps.items()]
    save(plots.cluster_fsc(maps, apix), folder / name / "half_maps.png")
    lines = Curves("Half maps' differences from all particles",
                   {str(i + 1): (one.frequency / apix, one.difference) for i, one in maps.items()})
    return Section(f"Are the {what} real?", REAL.format(what=what), markup=curves_markup(lines),
                   tables=[Table((what[:-1], "images", "half maps agree to", "differences agree to", "decoder shows"), rows,
                                 series="" if len(maps) <= max(maps) else name if what == "states" else "clusters")])


def _angstrom(value: float) -> str:
    return f"{value:.1f} Å" if np.isfinite(value) else "nowhere"
