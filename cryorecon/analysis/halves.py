r"""Do two runs find the same landscape? Compared by their maps, so that the latents' coordinates do not matter.

Two halves of the data, two independent distributions of conformations, and the Wasserstein distance between them modulo
a change of the conformation's coordinates: what the review "Deep generative modeling for volume reconstruction in
cryo-electron microscopy" proposes in its section 3.1.2.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cryorecon.analysis.latent import fit_pca
from cryorecon.analysis.states import Decode
from cryorecon.data.arrays import write_csv
from cryorecon.data.cryodrgn_files import read_indices
from cryorecon.data.files import atomic_path
from cryorecon.geometry.fourier import resample
from cryorecon.metrics import alignment
from cryorecon.metrics.fsc import FSCCurve, Resolution, fsc_curve, pooled_curve, resolution
from cryorecon.metrics.neighbours import information_imbalance
from cryorecon.metrics.transport import optimal_plan
from cryorecon.training.trained import Trained

COMMON = 2000  # particles in common that are compared at most
FOLDS, NEAREST = 5, 10  # of the regression


@dataclass(frozen=True)
class Landscape:
    """Maps at particles drawn from a run's latents: two draws of K each, ``(2, K, d, d, d)``."""

    draws: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean map ``(d, d, d)`` of all."""
        return self.draws.flatten(0, 1).mean(0)


def drawn_particles(z: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """Two draws of ``k`` particles each of ``z (N, d)``, ``(2, k)``.

    A systematic sample: every N / 2k-th particle in the order of the first principal component, from a random one on, to the
    two draws in turn. Along the main motion it errs by 1 / k of its length, where a random one would by 1 / sqrt(k).
    """
    place = (np.arange(2 * k) + np.random.default_rng(seed).random()) / (2 * k) * len(z)
    return np.argsort(fit_pca(z).project(z)[:, 0], kind="stable")[place.astype(int)].reshape(k, 2).T


def draw(z: np.ndarray, decode: Decode, k: int, box: int, seed: int = 0) -> Landscape:
    """Two draws of ``k`` particles each (:func:`drawn_particles`) of ``z (N, d)``, decoded and Fourier-cropped to ``box``."""
    chosen = drawn_particles(z, k, seed).ravel()
    maps = [resample(decode(z[[index]])[0], box, 3) for index in
            tqdm(chosen, desc="draws", unit="map", disable=None, leave=False)]
    return Landscape(torch.stack(maps).unflatten(0, (2, k)))


def laid_on(moving: Landscape, reference: Landscape, apix: float) -> tuple[Landscape, alignment.Alignment]:
    """A landscape in the frame of another: one rotation, shift and hand, those of the mean maps, for all its maps."""
    found = alignment.align(moving.mean, reference.mean, apix)
    return moved(moving, found, apix), found


def moved(moving: Landscape, found: alignment.Alignment, apix: float) -> Landscape:
    """All maps of a landscape moved by one alignment."""
    maps = [alignment.apply(found, one, apix) for one in
            tqdm(moving.draws.flatten(0, 1), desc="alignment", unit="map", disable=None, leave=False)]
    return Landscape(torch.stack(maps).unflatten(0, moving.draws.shape[:2]))


@dataclass(frozen=True)
class HalvesAgreement:
    """Wasserstein distances (root of the mean square over voxels in the mask, in the maps' units of density).

    between: of the two runs, over all pairs of draws. self_a, self_b: of two draws of one run. spread_a, spread_b: of a
    run and its mean map. ratio: where ``between`` lies from what draws differ by (0) to no motion at all (1); NaN where the
    floor is not below the ceiling: nothing moves, or K maps are too few. mean_fsc: of the mean maps. motion_fsc: of matched
    maps' differences from their means. apix: Å/px of the maps compared. partner: ``(2, K)``, of each map of A's
    draws the map of the same draw of B that it is matched with.
    """

    between: float
    self_a: float
    self_b: float
    spread_a: float
    spread_b: float
    ratio: float
    mean_fsc: FSCCurve
    motion_fsc: FSCCurve
    apix: float
    partner: np.ndarray

    def resolutions(self) -> dict[str, dict[str, Resolution]]:
        """Where the two curves fall below 0.5 and 0.143."""
        return {name: {f"{level:g}": resolution(curve, level, self.apix) for level in (0.5, 0.143)}
                for name, curve in (("mean maps", self.mean_fsc), ("motion", self.motion_fsc))}


def compare_landscapes(a: Landscape, b: Landscape, mask: Tensor, apix: float) -> HalvesAgreement:
    """The distance between two landscapes in one frame, with its floor and ceiling.

    From each landscape its own mean map is taken, after b was scaled to a by one number, least squares of the mean maps:
    their noise says nothing of the motion. mask ``(d, d, d)``.
    """
    mean_a, mean_b = a.mean, b.mean
    scale = float((mask * mean_a * mean_b).sum() / (mask * mean_b**2).sum().clamp(min=1e-30))
    weight = mask.clamp(min=0).sqrt()
    moving_a = (a.draws - mean_a) * weight
    moving_b = (b.draws - mean_b) * weight * scale
    unit = float(mask.sum())
    pairs = [(one, other) for one in moving_a for other in moving_b]
    between, plans = zip(*[_wasserstein(one, other, unit) for one, other in pairs], strict=True)
    self_a, self_b = (_wasserstein(each[0], each[1], unit)[0] for each in (moving_a, moving_b))
    spread_a, spread_b = (float((each.double().square().sum() / each.shape[0] / each.shape[1] / unit).sqrt())
                          for each in (moving_a, moving_b))
    distance = float(np.mean(np.square(between)) ** 0.5)
    floor, ceiling = _root_mean(self_a, self_b), _root_mean(spread_a, spread_b)
    moves = ceiling > floor + 1e-6 * float((mean_a.square() * mask).sum() / unit) ** 0.5
    ratio = float(np.clip((distance - floor) / (ceiling - floor), 0, 1)) if moves else float("nan")
    once = pairs[::3]  # each draw: first with first, second with second
    partner = np.stack([plan.argmax(1) for plan in plans[::3]])
    matched = [(one, other[row]) for (one, other), row in zip(once, partner, strict=True)]
    return HalvesAgreement(distance, self_a, self_b, spread_a, spread_b, ratio, fsc_curve(mean_a, mean_b, mask),
                           pooled_curve(*(torch.cat(each) for each in zip(*matched, strict=True))), apix, partner)


def _root_mean(a: float, b: float) -> float:
    return float(np.sqrt((a**2 + b**2) / 2))


def _wasserstein(a: Tensor, b: Tensor, unit: float) -> tuple[float, np.ndarray]:
    """2-Wasserstein distance of two sets of K maps, equally weighted, and its plan."""
    rows, columns = a.flatten(1).double(), b.flatten(1).double()
    cost = (rows.square().sum(1)[:, None] + columns.square().sum(1) - 2 * rows @ columns.T).clamp(min=0).numpy() / unit
    plan = optimal_plan(cost)
    return float(np.sqrt((plan * cost).sum())), plan


def rows_in_common(a: Trained, b: Trained) -> tuple[np.ndarray, np.ndarray]:
    """Rows of either run's z that belong to the same particles of the same file; empty where there are none."""
    none = np.zeros(0, np.int64)
    if a.config.particles != b.config.particles:
        return none, none
    kept_a, kept_b = (np.arange(len(run.z)) if run.config.ind is None else read_indices(run.config.ind) for run in (a, b))
    if len(kept_a) != len(a.z) or len(kept_b) != len(b.z):
        return none, none
    _, first, second = np.intersect1d(kept_a, kept_b, assume_unique=True, return_indices=True)
    return first, second


@dataclass(frozen=True)
class ParticleAgreement:
    """Of the particles that both runs saw. particles: compared. a_to_b, b_to_a: share of one latent's variance that the other
    foretells, cross-validated (1: all; 0 or less: nothing). imbalance: a to b, b to a (0 foretells, 1 does not)."""

    particles: int
    a_to_b: float
    b_to_a: float
    imbalance: tuple[float, float]


def compare_particles(a: np.ndarray, b: np.ndarray, seed: int = 0) -> ParticleAgreement:
    """Latents ``(N, d)`` and ``(N, d')`` of the same particles; of more than 2,000 a random share.

    The regression is the mean of the ten nearest particles of four fifths of the data, foretelling the last fifth: any
    smooth change of coordinates is learned.
    """
    chosen = np.random.default_rng(seed).permutation(len(a))[:COMMON]
    a, b = a[chosen].astype(np.float64), b[chosen].astype(np.float64)
    imbalance = information_imbalance(a, b), information_imbalance(b, a)
    return ParticleAgreement(len(a), _foretold(a, b), _foretold(b, a), imbalance)


def _foretold(a: np.ndarray, b: np.ndarray) -> float:
    """Cross-validated share of the variance of ``b`` that ``a`` explains; NaN where b does not vary."""
    from sklearn.neighbors import KNeighborsRegressor

    folds = np.arange(len(a)) % FOLDS
    wrong = 0.0
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        guess = KNeighborsRegressor(min(NEAREST, int(train.sum()))).fit(a[train], b[train]).predict(a[test])
        wrong += float(np.square(b[test] - guess).sum())
    total = float(np.square(b - b.mean(0)).sum())
    return 1 - wrong / total if total > 0 else float("nan")


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in numbers.items()}


def write(folder: Path, found: HalvesAgreement, particles: ParticleAgreement | None, facts: dict[str, object]) -> None:
    """Write ``halves.json`` (``facts`` first) and ``halves_fsc.csv``."""
    numbers = {name: getattr(found, name) for name in ("between", "self_a", "self_b", "spread_a", "spread_b", "ratio")}
    resolved = {name: {level: asdict(each) for level, each in levels.items()} for name, levels in found.resolutions().items()}
    shared = {} if particles is None else asdict(particles)
    report = {**facts, **_plain(numbers), "resolution": resolved, "particles": _plain(shared) or None}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "halves.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    columns = [each.tolist() for each in (found.mean_fsc.frequency, found.mean_fsc.value, found.motion_fsc.value)]
    write_csv(folder / "halves_fsc.csv", ("frequency_per_px", "fsc_mean_maps", "fsc_motion"), zip(*columns, strict=True))
