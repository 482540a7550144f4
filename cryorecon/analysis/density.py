r"""How conformations are distributed along the leading coordinates, the noise of z taken out; free energies of it.

The density is piecewise constant on a grid, its weights those of largest likelihood by expectation-maximisation from a flat
start, ``w_g <- w_g mean_i L_ig / sum_g' w_g' L_ig'`` (Richardson 1972; Lucy 1974; Kiefer & Wolfowitz 1956). Iterated on, it
breaks into spikes: after each step neighbouring cells are averaged, 1:2:1 (Silverman, Jones, Wilson & Nychka 1990), and it is
stopped where the likelihood of the half of the particles that it has not seen is largest. Free
energies are ``F = -ln p`` in kT from the densest cell, per unit of the coordinate: an area, not a state, and another
coordinate stretches it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from cryorecon.analysis.latent import drawn
from cryorecon.analysis.mixture import Mixture
from cryorecon.analysis.observed import Observed, seen_through

CELLS = {1: 96, 2: 56}  # of the grid along each coordinate
PARTICLES = {1: 50_000, 2: 12_000}  # that a density is made from at most
MOST = 300  # iterations
HALVES = 8  # random half sets behind an error
CHUNK = 2000  # particles whose likelihoods are made at once
DEEPEST = 7.0  # kT below the mixture's densest place, beyond which nobody is looked for
OUTSIDE = 1e-4  # share of the mixture beyond either end of the grid


@dataclass(frozen=True)
class Density:
    """axes: which coordinates, from 0. centres: of the cells along each, ``(g,)``. share: of particles in each cell,
    ``(g,)`` or ``(g, g)``. free_energy, error: kT, the same shape; infinite where there is nobody. iterations: when it was
    stopped."""

    axes: tuple[int, ...]
    centres: tuple[np.ndarray, ...]
    share: np.ndarray
    free_energy: np.ndarray
    error: np.ndarray
    iterations: int


def deconvolve(found: Observed, mixture: Mixture, axes: tuple[int, ...], seed: int = 0) -> Density:
    """The density along one or two ``axes``; the other coordinates are integrated out under the mixture."""
    few = drawn(len(found), PARTICLES[len(axes)], seed)
    centres = tuple(cells(mixture, axis, CELLS[len(axes)]) for axis in axes)
    points = torch.from_numpy(np.stack(np.meshgrid(*centres, indexing="ij"), -1).reshape(-1, len(axes)))
    width = torch.tensor([float(at[1] - at[0]) for at in centres], dtype=torch.float64)
    return _made(seen_on(found.at(few), mixture, list(axes), points, width), axes, centres, seed)


def along(found: Observed, path: np.ndarray, seed: int = 0) -> Density:
    """The density along a path of latents ``(g, d)``, evenly spaced: every particle lies on it, where its images say. The
    coordinate is the length along the path."""
    few = drawn(len(found), PARTICLES[1], seed)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    width = torch.full((path.shape[1],), length[-1] / (len(path) - 1), dtype=torch.float64)
    return _made(over_cells(found.at(few), torch.from_numpy(path).double(), width), (0,), (length,), seed)


def _made(likelihood: Tensor, axes: tuple[int, ...], centres: tuple[np.ndarray, ...], seed: int) -> Density:
    """The density on cells, from the likelihood ``(n, G)`` of particles there."""
    n, shape = len(likelihood), tuple(len(at) for at in centres)
    generator = torch.Generator().manual_seed(seed)
    one, other = (likelihood[part] for part in torch.randperm(n, generator=generator).tensor_split(2))
    iterations = max(1, round((stop(one, other, shape) + stop(other, one, shape)) / 2))
    share = sharpened(likelihood, shape, iterations)
    chosen = [torch.randperm(n, generator=generator)[: n // 2] for _ in range(HALVES)]
    parts = [sharpened(likelihood[part], shape, iterations) for part in chosen]
    nobody = 0.5 / n
    logs = torch.stack([part.clamp(min=nobody).log() for part in parts])
    error = (logs - share.clamp(min=nobody).log()).square().mean(0).sqrt()
    energy = torch.where(share > nobody, -(share / share.max()).log(), torch.inf)
    share, energy, error = (part.reshape(shape) for part in (share, energy, error))
    return Density(axes, centres, share.numpy(), energy.numpy(), error.numpy(), iterations)


def cells(mixture: Mixture, axis: int, count: int) -> np.ndarray:
    """Centres ``(count,)`` of equal cells over all but the last ten-thousandths of the mixture along one axis."""
    mean, spread = mixture.mean[:, axis].numpy(), mixture.covariance[:, axis, axis].sqrt().numpy()
    at = np.linspace((mean - 5 * spread).min(), (mean + 5 * spread).max(), 2001)
    below = ndtr((at[:, None] - mean) / spread) @ mixture.weight.numpy()
    low, high = np.interp([OUTSIDE, 1 - OUTSIDE], below, at)
    edges = np.linspace(low, high, count + 1)
    return (edges[:-1] + edges[1:]) / 2


def seen_on(found: Observed, mixture: Mixture, axes: list[int], points: Tensor, width: Tensor) -> Tensor:
    r"""Likelihood ``(n, G)`` float32 of every particle at cells of some ``axes`` alone, each particle's largest 1.

    Under component j of the mixture a particle's posterior is ``N(m, C)`` with evidence ``e``, so that

    .. math:: p(y \mid x) = \int p(y \mid z)\, p(z \mid x)\, dz
        = \sum_j w_j e_j N(x; m_j, C_j) \Big/ \sum_j w_j N(x; \mu_j, V_j)

    where the normals are those of the axes. A cell's own extent is added to each, so that no particle falls between two cells.
    Where the mixture has next to nobody, what it says of the other axes is made up: such cells stay empty.
    """
    blur = torch.diag(width.square() / 12)
    components = list(zip(mixture.weight.log(), mixture.mean, mixture.covariance, strict=True))
    known = torch.logsumexp(torch.stack([weight + normal(points, mean[None, axes], (covariance[axes][:, axes] + blur)[None])[0]
                                         for weight, mean, covariance in components]), 0)
    nobody = known < known.max() - DEEPEST
    parts = []
    for part in (found.at(slice(start, start + CHUNK)) for start in range(0, len(found), CHUNK)):
        joint = torch.full((len(part), len(points)), -torch.inf, dtype=torch.float64)
        for weight, mean, covariance in components:
            evidence, middle, spread = seen_through(part, mean, covariance)
            at = normal(points, middle[:, axes], spread[:, axes][:, :, axes] + blur)
            joint = torch.logaddexp(joint, (weight + evidence)[:, None] + at)
        score = (joint - known).masked_fill(nobody, -torch.inf)
        parts.append(torch.exp(score - score.amax(1, keepdim=True)).float())
    return torch.cat(parts)


def normal(points: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Log of ``N(x; mean (n, c), covariance (n, c, c))`` at ``points (G, c)``, ``(n, G)``, up to a constant of c."""
    precision = torch.linalg.inv(covariance)
    outer = (points[:, :, None] * points[:, None, :]).flatten(1)
    pull = (precision @ mean[..., None])[..., 0]
    constant = (pull * mean).sum(1) + torch.logdet(covariance)
    return pull @ points.T - 0.5 * (precision.flatten(1) @ outer.T + constant[:, None])


def over_cells(seen: Observed, points: Tensor, width: Tensor) -> Tensor:
    """Likelihood ``(n, G)`` float32 of every particle at cells of centres ``(G, c)`` and ``width (c,)``, each particle's
    largest 1; a cell's own extent is added to the noise, so that no particle falls between two."""
    precision, pull = seen.double()
    blur = torch.eye(len(width), dtype=torch.float64) + precision * (width.square() / 12)
    precision = torch.linalg.solve(blur, precision)
    precision = (precision + precision.transpose(1, 2)) / 2
    pull = torch.linalg.solve(blur, pull[..., None])[..., 0]
    outer = (points[:, :, None] * points[:, None, :]).flatten(1)
    score = (pull @ points.T - 0.5 * precision.flatten(1) @ outer.T).float()
    return torch.exp(score - score.amax(1, keepdim=True))


def smooth(share: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Weights ``(G,)`` of cells in a grid of this shape, averaged with their neighbours' 1:2:1 along each axis; no weight
    leaves the grid."""
    grid = share.view(shape)
    for axis in range(len(shape)):
        first, last = grid.narrow(axis, 0, 1), grid.narrow(axis, shape[axis] - 1, 1)
        wide = torch.cat([first, grid, last], axis)
        grid = (wide.narrow(axis, 0, shape[axis]) + 2 * grid + wide.narrow(axis, 2, shape[axis])) / 4
    return grid.reshape(-1)


def step(likelihood: Tensor, share: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The next weights."""
    seen = (likelihood @ share).clamp(min=1e-30)
    return smooth(share * (likelihood.T @ (1 / seen)) / len(seen), shape)


def flat(likelihood: Tensor) -> Tensor:
    """Equal weights."""
    return likelihood.new_full((likelihood.shape[1],), 1 / likelihood.shape[1])


def stop(likelihood: Tensor, other: Tensor, shape: tuple[int, ...]) -> int:
    """Iterations after which a density made from ``likelihood`` fits ``other`` particles best."""
    share, best, after = flat(likelihood), -np.inf, 0
    for number in range(1, MOST + 1):
        share = step(likelihood, share, shape)
        fits = float((other @ share).clamp(min=1e-30).log().mean())
        if fits > best + 1e-6:
            best, after = fits, number
        elif number > after + 20:
            break
    return after


def sharpened(likelihood: Tensor, shape: tuple[int, ...], iterations: int) -> Tensor:
    """Weights ``(G,)`` after some iterations."""
    share = flat(likelihood)
    for _ in range(iterations):
        share = step(likelihood, share, shape)
    return share / share.sum()
