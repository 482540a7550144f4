"""Does z follow what is no conformation: viewing direction, in-plane angle, shift, defocus?

For every principal component and every such quantity, the share of the component's variance that a small linear model of the
quantity explains on particles that it was not fitted to (five folds; 0 where it explains nothing). Motions and views may be
related in truth, and preferred views of one state look like that; more often z has learned what it should not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cryorecon.analysis.latent import drawn
from cryorecon.data.poses import Poses
from cryorecon.data.stack import ParticleStack

PARTICLES = 20_000
FEWEST = 200  # of which anything is said
FOLDS = 5
WARNED = 0.05  # share of a component's variance from which on it is told


@dataclass(frozen=True)
class Leakage:
    """names: the quantities. explained: ``(c, len(names))``, share of each principal component's variance; NaN
    for too few particles."""

    names: list[str]
    explained: np.ndarray

    def warnings(self) -> list[str]:
        """In plain words what leaks, worst first."""
        found = sorted(((self.explained[i, j], i, j) for i, j in np.argwhere(self.explained > WARNED)), reverse=True)
        return [f"principal component {i + 1} of z follows the {self.names[j]} ({100 * share:.0f} % of its variance)"
                for share, i, j in found]


def leakage(coordinates: np.ndarray, quantities: Mapping[str, np.ndarray], seed: int = 0) -> Leakage:
    """How far ``coordinates (n, c)`` can be told from each of ``quantities``, name -> features ``(n, f)``."""
    few = drawn(len(coordinates), PARTICLES, seed)
    if len(few) < FEWEST:  # as many numbers as particles explain anything
        return Leakage(list(quantities), np.full((coordinates.shape[1], len(quantities)), np.nan))
    fold = np.random.default_rng(seed).permutation(len(few)) % FOLDS
    seen = np.asarray(coordinates[few], np.float64)
    columns = [explained(np.asarray(features[few], np.float64), seen, fold) for features in quantities.values()]
    return Leakage(list(quantities), np.stack(columns, 1) if columns else np.zeros((seen.shape[1], 0)))


def quantities(stack: ParticleStack, poses: Poses) -> dict[str, np.ndarray]:
    """Features of every particle, of its first image: pose, shift, and defocus where there is a CTF. poses: of the images, as
    the run had them."""
    order = np.argsort(stack.particle.numpy(), kind="stable")
    first = order[np.unique(stack.particle.numpy()[order], return_index=True)[1]]
    rotation, shift = poses.rotation[first].numpy(), poses.shift[first].numpy()
    found = {"viewing direction": directions(rotation), "in-plane angle": inplane(rotation), "shift": powers(shift)}
    if stack.optics is not None:
        u, v = (stack.optics.column(name)[first].double().numpy() for name in ("defocus_u", "defocus_v"))
        found["defocus"] = powers(np.stack([(u + v) / 2, u - v], 1))
    return found


def explained(features: np.ndarray, values: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Share ``(c,)`` of the variance of ``values (n, c)`` that ``features (n, f)`` explain in the folds left out."""
    kept = features[:, features.std(0) > 1e-9 * np.abs(features).max(initial=1e-30)]
    if not kept.shape[1]:
        return np.zeros(values.shape[1])
    design = np.c_[(kept - kept.mean(0)) / kept.std(0), np.ones(len(kept))]
    missed = np.zeros(values.shape[1])
    for number in range(FOLDS):
        held = fold == number
        found, *_ = np.linalg.lstsq(design[~held], values[~held], rcond=None)
        missed += np.square(values[held] - design[held] @ found).sum(0)
    total = np.square(values - values.mean(0)).sum(0)
    return np.clip(1 - missed / np.maximum(total, 1e-30), 0, 1)


def directions(rotation: np.ndarray) -> np.ndarray:
    """Harmonics of degree 1 and 2 of the viewing direction of rotations ``(n, 3, 3)``: ``(n, 8)``."""
    x, y, z = rotation[:, 2].T
    return np.stack([x, y, z, x * y, y * z, x * z, x**2 - y**2, 3 * z**2 - 1], 1)


def inplane(rotation: np.ndarray) -> np.ndarray:
    """Cosine and sine of psi and of twice it, ``(n, 4)``, in RELION's angles."""
    psi = np.arctan2(rotation[:, 1, 2], -rotation[:, 0, 2])
    return np.stack([np.cos(psi), np.sin(psi), np.cos(2 * psi), np.sin(2 * psi)], 1)


def powers(values: np.ndarray) -> np.ndarray:
    """``values (n, f)`` and their squares."""
    centred = values - values.mean(0)
    return np.c_[centred, np.square(centred)]
