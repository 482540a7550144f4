"""Is a cluster real? Its particles backprojected, as two half maps that have met neither each other nor the decoder.

Two maps of the same few particles agree wherever the molecule is the same; that says nothing of the cluster. What does is the
*difference* from the map of all particles: where the two halves' differences correlate, the particles of this cluster differ
from the rest in truth, and where the decoder's difference correlates with theirs, it shows what they do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cryorecon.analysis.latent import drawn
from cryorecon.data.mrc import read_volume, write_volume
from cryorecon.inference.pose.given import Given
from cryorecon.metrics.fsc import fsc_curve
from cryorecon.training.build import Problem
from cryorecon.training.closed_form import consensus
from cryorecon.training.train import State, image_poses

FEWEST = 20  # images of a cluster that is backprojected at all
MOST = 20_000  # images of a cluster that are, drawn at random: enough to tell whether it differs
WHOLE = 100_000  # images of all clusters, likewise
CROSSED = 0.143


@dataclass(frozen=True)
class ClusterMap:
    """Of one cluster: images, frequency ``(S,)`` in cycles per pixel, and ``(S,)`` each the FSC of its half maps (masked), of
    their differences from all particles' half maps, and of the decoder's difference with theirs (NaN without a decoded map).
    """

    images: int
    frequency: np.ndarray
    fsc: np.ndarray
    difference: np.ndarray
    decoder: np.ndarray

    def resolved(self, curve: np.ndarray, apix: float) -> float:
        """Å to which ``curve`` stays at 0.143 or above; infinity where it does nowhere (:func:`agreement`)."""
        shells = agreement(curve)
        return apix / self.frequency[shells.stop - 1] if shells.stop > shells.start else np.inf

    def share(self) -> float:
        """How much of the differences that half maps share the decoder shows: its mean correlation over the shells at which the
        halves agree, 0 where they agree at none."""
        shells = agreement(self.difference)
        return float(np.mean(self.decoder[shells])) if shells.stop > shells.start else 0.0


def agreement(curve: np.ndarray) -> slice:
    """The first run of shells at 0.143 or above; empty where it begins beyond the fourth shell. The first may miss it: two
    maps of one molecule hardly differ in their bulk."""
    above = curve[1:] >= CROSSED
    if not above[:4].any():
        return slice(0, 0)
    first = int(np.argmax(above))
    ends = np.flatnonzero(~above[first:])
    return slice(first + 1, first + 1 + int(ends[0])) if len(ends) else slice(first + 1, len(curve))


def cluster_maps(problem: Problem, state: State, labels: np.ndarray, folder: Path, decoded: list[Path],
                 name: str) -> Iterator[ClusterMap | None]:
    """Backproject each cluster of ``labels (particles,)``, -1 of none, by 20,000 images at most; None where there are too few.

    Writes ``half_maps/cluster_001_a.mrc``, ``_b.mrc`` into ``folder``. decoded: the decoder's map of each cluster, or none.
    name: of the progress bar.
    """
    of_image = labels[problem.stack.particle.numpy()]
    poses = image_poses(state)
    pose = Given(poses.rotation, poses.shift).to(problem.device)
    whole, mask = None, problem.mask.cpu()
    mean = _mean(decoded, np.bincount(labels[labels >= 0], minlength=len(decoded))[: len(decoded)])
    for cluster in tqdm(range(int(labels.max()) + 1), desc=name, unit="cluster", disable=None, leave=False):
        members = np.flatnonzero(of_image == cluster)
        rows = torch.from_numpy(members[drawn(len(members), MOST, cluster)])
        if len(rows) < FEWEST:
            yield None
            continue
        if whole is None:
            everyone = np.flatnonzero(of_image >= 0)
            whole = _halves(problem, state, pose, torch.from_numpy(everyone[drawn(len(everyone), WHOLE, 0)]))
        halves = _halves(problem, state, pose, rows)
        for half, letter in zip(halves, "ab", strict=True):
            path = folder / "half_maps" / f"cluster_{cluster + 1:03d}_{letter}.mrc"
            write_volume(path, half.numpy(), problem.grid.apix)
        off = halves - whole
        curve, difference = fsc_curve(halves[0], halves[1], mask), fsc_curve(off[0], off[1], mask)
        shown = np.full(len(curve.value), np.nan)
        if decoded:
            seen = torch.from_numpy(read_volume(decoded[cluster])[0]) - mean
            shown = fsc_curve(seen, off.mean(0), mask).value.numpy()
        yield ClusterMap(len(rows), curve.frequency.numpy(), curve.value.numpy(), difference.value.numpy(), shown)


def _halves(problem: Problem, state: State, pose: Given, rows: Tensor) -> Tensor:
    """Unfiltered half maps ``(2, D, D, D)``, on the CPU, of the images ``rows`` at poses of all images."""
    stack = problem.stack[rows]
    stack = replace(stack, particle=torch.unique(stack.particle, return_inverse=True)[1])
    part = replace(problem, stack=stack, half=problem.half[rows.to(problem.half.device)])
    loader = part.loader(state.noise, state.loader.windowed)
    loader.set_scale(state.scale[rows])
    where = rows.to(pose.rotation.device)
    found = consensus(loader, problem.grid, Given(pose.rotation[where], pose.shift[where]), part.half, problem.mask)
    return found.halves.cpu()


def _mean(decoded: list[Path], counts: np.ndarray) -> Tensor:
    """The mean of the decoded maps over all particles, as the backprojection of all is; one map at a time."""
    mean = torch.zeros(())
    for path, count in zip(decoded, counts, strict=True):
        mean = mean + torch.from_numpy(read_volume(path)[0]) * float(count / counts.sum())
    return mean
