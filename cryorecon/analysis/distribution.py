"""How a run's conformations are distributed: states with occupancies, densities, free energies. Writes arrays and maps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryorecon.analysis.density import Density, deconvolve
from cryorecon.analysis.latent import PCA, chunks, drawn, nearest_particles
from cryorecon.analysis.mixture import Mixture, choose_mixture, occupancies
from cryorecon.analysis.observed import Observed, observed
from cryorecon.analysis.trajectories import write_latents
from cryorecon.data.arrays import write_array, write_csv
from cryorecon.data.files import atomic_path

LINES = 3  # leading components along which a density is made
SHOWN = 100_000  # particles that occupancies and their errors are counted on


@dataclass(frozen=True)
class Distribution:
    """seen: what images say, along the components that vary. mixture: the states, in the same coordinates. labels ``(n,)``:
    each particle's likeliest state. occupancy, error ``(K,)``: shares with the noise taken out. free_energy, free_energy_error
    ``(K,)``: kT from the most populated state. nearest ``(K,)``: the real particle nearest to each state's mean. log_density
    ``(n,)``: ln of the mixture at each particle's z. lines: along the leading components. plane: along the first two, or None.
    files: what was written -> what it is."""

    seen: Observed
    mixture: Mixture
    labels: np.ndarray
    occupancy: np.ndarray
    error: np.ndarray
    free_energy: np.ndarray
    free_energy_error: np.ndarray
    nearest: np.ndarray
    log_density: np.ndarray
    lines: list[Density]
    plane: Density | None
    files: dict[str, str]

    @property
    def name(self) -> str:
        """Folder of the states."""
        return f"gmm{len(self.mixture)}"


def distribution(z: np.ndarray, likelihood: np.ndarray | None, pca: PCA, folder: Path, most: int = 10,
                 seed: int = 0) -> Distribution:
    """States and densities of latents ``z (n, d)`` into ``folder``: ``gmmK/`` and ``density/``.

    likelihood: see :func:`cryorecon.analysis.observed.observed`. most: components of the mixture.
    """
    coordinates = pca.varying(z).astype(np.float32)
    seen = observed(z, likelihood, pca).leading(coordinates.shape[1])
    mixture = choose_mixture(seen, coordinates, most, seed)
    labels = mixture.responsibilities(seen).argmax(1).numpy().astype(np.int32)
    few = drawn(len(z), SHOWN, seed)
    occupancy, error = occupancies(mixture.evidence(seen.at(few)), mixture.weight, seed=seed)
    energy = np.log(occupancy.max() / occupancy.clip(min=1e-12))
    relative = error / occupancy.clip(min=1e-12)
    top = int(occupancy.argmax())
    energy_error = np.where(np.arange(len(energy)) == top, 0.0, np.hypot(relative, relative[top]))
    dimensions = min(LINES, coordinates.shape[1])
    lines = [deconvolve(seen, mixture, (axis,), seed) for axis in range(dimensions)]
    plane = deconvolve(seen, mixture, (0, 1), seed) if dimensions > 1 else None
    nearest = nearest_particles(z, pca.restore(mixture.mean.numpy()))
    log_density = np.concatenate([mixture.log_density(part) for part in chunks(coordinates)])
    found = Distribution(seen, mixture, labels, occupancy, error, energy, energy_error, nearest, log_density, lines, plane, {})
    _write(found, z, folder)
    return found


def _write(found: Distribution, z: np.ndarray, folder: Path) -> None:
    name, k = found.name, len(found.mixture)
    write_array(folder / name / "labels.npy", found.labels)
    write_latents(folder / name / "centers.txt", z[found.nearest])
    with atomic_path(folder / name / "centers_ind.txt") as temporary:
        np.savetxt(temporary, found.nearest, fmt="%d")
    counts = np.bincount(found.labels, minlength=k)
    write_csv(folder / name / "occupancies.csv", ("state", "occupancy", "error", "free_energy_kT", "free_energy_error_kT",
                                                  "particles", "particle"),
              zip(range(1, k + 1), found.occupancy, found.error, found.free_energy, found.free_energy_error, counts,
                  found.nearest, strict=True))
    write_csv(folder / name / "bic.csv", ("states", "bic"), enumerate(found.mixture.bic, 1))
    write_array(folder / "density" / "log_density.npy", found.log_density.astype(np.float32))
    for density in found.lines:
        write_density(folder / "density" / f"pc{density.axes[0] + 1}.csv", density)
    found.files.update({
        f"{name}/labels.npy": "the likeliest state of every particle (Gaussian mixture), counted from 0",
        f"{name}/occupancies.csv": "occupancy of each state with the noise of z taken out, free energy, errors from half sets",
        f"{name}/bic.csv": "Schwarz's criterion by the number of states: the smallest wins",
        f"{name}/centers.txt": "latents of the real particles nearest to the states' means",
        f"{name}/centers_ind.txt": "which particles these are, counted from 0",
        "density/log_density.npy": "ln of the states' density at every particle, for graph_traversal --log-density",
        "density/pc*.csv": "density along principal components, the noise of z taken out, and free energy",
    })
    if found.plane is not None:
        for array, what in ((found.plane.share, "density"), (found.plane.free_energy, "free_energy_kT"),
                            (found.plane.error, "error_kT")):
            write_array(folder / "density" / f"pc1_pc2_{what}.npy", array)
        for axis, at in enumerate(found.plane.centres, 1):
            write_array(folder / "density" / f"pc1_pc2_axis{axis}.npy", at)
        found.files["density/pc1_pc2_*.npy"] = "the same over the first two components, and the cells' centres along each"


def write_density(path: Path, density: Density) -> None:
    """A density along one coordinate as CSV."""
    write_csv(path, ("coordinate", "share", "free_energy_kT", "error_kT"),
              zip(density.centres[0], density.share, density.free_energy, density.error, strict=True))
