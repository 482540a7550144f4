"""All that is said of a run against its simulation's truth, as one table and as files."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryorecon.analysis import conformation as parts
from cryorecon.analysis.states import Decode, StateScores, score_states, state_maps
from cryorecon.analysis.truth import Truth
from cryorecon.data.files import atomic_path
from cryorecon.geometry.fourier import resample


@dataclass(frozen=True)
class ConformationScores:
    """Every part by its name; None where there were too few particles or states for it."""

    states: StateScores
    images: parts.ImageScores
    neighbours: parts.NeighbourScores | None
    cross: parts.CrossConformation
    distributions: parts.DistributionScores | None
    occupancy: parts.Occupancies | None


def judge(z: np.ndarray, truth: Truth, decode: Decode, mask: Tensor | None = None, n_images: int = 100, k: int = 80,
          seed: int = 0, submitted: Callable[[int], parts.Submission] | None = None,
          by_maps: bool = False) -> ConformationScores:
    """Every score of latents ``z (N, d)`` and of the maps that ``decode`` makes of them.

    Particles whose state has no map are left out of all. mask ``(D, D, D)``: multiplies maps; the challenge's distances take
    the voxels where it is above a half. submitted: box -> what stands for the run in the challenge (default: ``k`` cluster
    maps). by_maps: neighbours in truth are those of the true maps, not of the coordinates.
    """
    kept = truth.mapped
    z, state = z[kept], truth.state[kept]
    held = state_maps(z, state, decode, truth.density)
    place = truth.coordinate
    if by_maps:
        place = np.zeros((len(place), len(held.state)))
        place[held.state] = parts.places_of_maps(held.truths)
    distributions = occupancy = None
    if len(held.state) > 1:
        box = min(parts.SMALL_BOX, truth.box)
        small = torch.stack([resample(one, box, 3) for one in held.truths])
        inside = None if mask is None else (resample(mask, box, 3) > 0.5).float()
        submission = parts.submit(z, decode, k, box, seed) if submitted is None else submitted(box)
        distributions = parts.compare_distributions(small, held.state, held.count, truth.coordinate, submission, inside)
        occupancy = parts.occupancies(z, state, distributions, submission)
    return ConformationScores(score_states(z, state, truth.coordinate, held, mask),
                              parts.score_images(z, state, decode, truth.density, mask, n_images),
                              parts.compare_neighbours(z, place[state]), parts.cross_conformations(held, mask),
                              distributions, occupancy)


def _plain(value: Any) -> Any:
    """As JSON takes it: six digits, nothing that is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def table(scores: ConformationScores) -> dict[str, Any]:
    """The scores as ``conformation.json`` has them."""
    states, images, near = scores.states, scores.images, scores.neighbours
    made: dict[str, Any] = {
        "states": states.state, "particles": states.count, "representatives": states.particle, "auc": states.auc,
        "auc_mean": states.auc.mean(), "auc_std": states.auc.std(), "auc_median": np.median(states.auc),
        "auc_clipped_mean": np.mean([float(torch.trapezoid(c.clipped().value, c.frequency)) for c in states.curves]),
        "difference_correlation": states.difference, "spearman": states.spearman, "spearman_pc1": states.spearman[0, 0],
        "per_image": {"particles": images.particle, "auc": images.auc, "auc_mean": images.auc.mean(),
                      "auc_std": images.auc.std(), "auc_median": np.median(images.auc)},
        "fsccc_states": scores.cross.state,
    }  # fmt: skip
    if near is not None:
        imbalance = {k: {"z_to_truth": one, "truth_to_z": other, "floor": floor}
                     for k, (one, other, floor) in near.imbalance.items()}
        made["neighbours"] = {"particles": near.particles, "k": near.k, "similarity": near.similarity,
                              "deviation": near.deviation, "chance": near.chance, "information_imbalance": imbalance}
    if scores.distributions is not None:
        found = scores.distributions
        made["challenge"] = {"box": found.box, "pool": found.pool} | {
            name: {key: value if key == "windows" else {"mean": value.mean(), "std": value.std()}
                   for key, value in vars(each).items()} for name, each in found.result.items()}
    if scores.occupancy is not None:
        shares = scores.occupancy
        made["occupancy"] = vars(shares) | {"error_by_latent": shares.error(shares.by_latent, shares.truth),
                                            "error_by_map": shares.error(shares.by_map, shares.truth)}
    return _plain(made)


def summary(scores: ConformationScores) -> str:
    """The scores as they are printed."""
    states, images, near = scores.states, scores.images, scores.neighbours
    lines = [f"{'state':>5} {'particles':>10} {'FSC-AUC':>8}"]
    lines += [f"{number:>5} {count:>10,} {area:>8.4f}" for number, count, area in
              zip(states.state, states.count, states.auc, strict=True)]
    top = float(states.curves[0].frequency[-1])
    lines += [f"area under the FSC (CryoBench; at most {top:.4f}), mean (standard deviation) median:"]
    areas = {f"per conformation, {len(states.auc)} states": states.auc, f"per image, {len(images.auc)} images": images.auc}
    lines += [f"  {name:<34} {area.mean():.4f} ({area.std():.4f}) {np.median(area):.4f}" for name, area in areas.items()]
    lines += [f"difference maps, mean correlation: {states.difference:.4f}"]
    for i, row in enumerate(states.spearman):
        best = ", ".join(f"PC{j + 1} {rho:.4f}" for j, rho in enumerate(row[:3]))
        lines += [f"|Spearman| of coordinate {i + 1} with: {best}"]
    if near is None:
        lines += ["neighbours: too few particles"]
    else:
        lines += [f"neighbourhood similarity, {parts.OFFSETS} subsets of {near.particles:,} particles:"]
        shown = np.unique(np.abs(near.k - near.particles * np.array([[0.01], [0.05], [0.1]])).argmin(1))
        lines += [f"  k = {near.k[i]:<4} {near.similarity[i]:6.2f} % ({near.deviation[i]:.2f}); "
                  f"by chance {near.chance[i]:.2f} %" for i in shown]
        lines += [f"information imbalance, k = {k}: z to truth {one:.4f}, truth to z {other:.4f} (0 foretells, 1 does not; "
                  f"truth to itself {floor:.4f})" for k, (one, other, floor) in near.imbalance.items()]
    if scores.distributions is not None:
        found = scores.distributions
        lines += [f"distribution of {len(next(iter(found.distances.values()))[0])} maps of {found.box} px against "
                  f"{len(found.state)} states (Flatiron challenge, {found.pool} pooled; best: with the best populations):"]
        lines += [f"  {name:<6} EMD {each.emd.mean():9.4g} (best {each.emd_best.mean():.4g})   KL {each.kl.mean():.4f} "
                  f"(best {each.kl_best.mean():.4f})" for name, each in found.result.items()]
    if scores.occupancy is not None:
        shares = scores.occupancy
        lines += [f"occupancy, share of particles in the wrong state: by z {shares.error(shares.by_latent, shares.truth):.4f}, "
                  f"by maps {shares.error(shares.by_map, shares.truth):.4f}"]
    return "\n".join(lines)


def write(scores: ConformationScores, folder: Path, facts: dict[str, Any]) -> None:
    """Write ``conformation.json`` (``facts`` first) and ``conformation.npz`` (curves and matrices)."""
    arrays: dict[str, Any] = {
        "frequency": scores.states.curves[0].frequency.numpy(),
        "state_fsc": np.stack([curve.value.numpy() for curve in scores.states.curves]),
        "image_fsc": np.stack([curve.value.numpy() for curve in scores.images.curves]),
        "fsccc_run": scores.cross.run, "fsccc_truth": scores.cross.truth, "fsccc_both": scores.cross.both,
    }  # fmt: skip
    if scores.distributions is not None:
        arrays |= {f"distance_{name}": each for name, each in scores.distributions.distances.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "conformation.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    with atomic_path(folder / "conformation.json") as temporary:
        temporary.write_text(json.dumps(_plain(facts) | table(scores), indent=1) + "\n")
