"""Closed-form stages with known poses: a consensus by backprojection, then low-rank conformations.

Seconds of work that give the network its noise spectrum, its amplitude, a base to stand on and latents to start from.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryorecon import ranks
from cryorecon.data.loader import Loader
from cryorecon.geometry.fourier import resample
from cryorecon.geometry.grid import Grid
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.conformation.posterior import DiscretePrior, Posterior
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.polish import Polish
from cryorecon.inference.pose.rescore import Rescore
from cryorecon.inference.pose.search import Plan, Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.model import Model
from cryorecon.objectives.em import LinearEM, coarsen
from cryorecon.objectives.filters import filter_by_shell
from cryorecon.training.fit import fit, stream
from cryorecon.training.inferred import inferred
from cryorecon.training.memory import require_room
from cryorecon.volumes.raster import Raster
from cryorecon.volumes.voxel_grid import VoxelGrid

Report = Callable[[str, dict[str, float]], None]
IMAGES = 500  # in a closed-form batch
ON_GPU = 16  # times as many images at once as on a CPU, for steps that launch many kernels each
POINTS_ON_GPU = 1 << 25  # but no more Fourier points than these, some 30 bytes each
SCHEDULE = ((0.25, 5), (0.4, 4), (0.6, 2), (1.0, 1))  # (fraction of the resolved band, passes)
POLISHED = 2  # more passes at the last band, in which poses that were found follow the conformations
SEARCHED = 16.0  # Fourier pixels: what finds a pose lies below; polishing uses the rest
DARK = -0.3  # :func:`contrast` below which a map is inverted
RESTARTS = 2  # from other random components, where half sets agree on none: two may lose a motion that one start found apart
PRIOR_FROM = 4  # passes before the latent prior is learned: components must have settled


@dataclass(frozen=True)
class Consensus:
    """model: its ``volume`` holds the map, Wiener-filtered and masked. density ``(D, D, D)``: that map. halves ``(2, D,
    D, D)``: unfiltered. fsc ``(n_shells,)`` of the masked half maps. resolved: first Fourier pixel at which it falls
    below 0.143."""

    model: Model
    volume: VoxelGrid
    density: Tensor
    halves: Tensor
    fsc: Tensor
    resolved: float


def consensus(loader: Loader, grid: Grid, pose: torch.nn.Module, half: Tensor, mask: Tensor, symmetry: str = "C1",
              limit: float | None = None) -> Consensus:
    """Weighted backprojection of all images at their poses, as two half maps."""
    volume, others = VoxelGrid(grid), (VoxelGrid(grid), VoxelGrid(grid))
    model = Model(grid, volume, pose, Fixed())
    em = LinearEM(grid, half - 1, limit or grid.box / 2, mask, others, (Fixed(), Fixed()), symmetry)
    for _ in fit(model, em, loader, {}, range(1), loader.particles_for(images_at_once(grid)), 0, grid.device):
        pass
    with torch.no_grad():
        density = volume.density(torch.zeros(1, 0, device=grid.device))[0]
    resolved = min(resolved_shell(em.fsc[0], grid), limit or grid.box / 2)
    return Consensus(model, volume, density, em.half_maps, em.fsc[0], resolved)


def images_at_once(grid: Grid, images: int = IMAGES) -> int:
    """Images of a closed-form batch: what a core's cache likes, or enough to keep a GPU busy."""
    return images if grid.device.type == "cpu" else max(1, min(images * ON_GPU, POINTS_ON_GPU // grid.n))


def resolved_shell(fsc: Tensor, grid: Grid) -> float:
    """First shell at which an FSC ``(n_shells,)`` falls below 0.143, in Fourier pixels."""
    below = torch.nonzero(fsc[1 : grid.n_shells] < 0.143)
    return float(below[0, 0] + 1) if len(below) else float(grid.n_shells - 1)


@dataclass(frozen=True)
class LowRank:
    """volume: mean and components of equal norm, so that distances in z are distances between maps. prior: learned
    distribution of z, None for a Gaussian. variance ``(d,)``: of z. fsc ``(Q, n_shells)``."""

    volume: VoxelGrid
    prior: DiscretePrior | None
    variance: Tensor
    fsc: Tensor


def low_rank(loader: Loader, half: Tensor, mask: Tensor, start: Consensus, z_dim: int, atoms: int, seed: int,
             report: Report, plan: Plan | None = None) -> LowRank:
    """Frequency-marched passes of cross-fitted probabilistic PCA with a learned latent prior; poses that were found, which
    have met the consensus alone, are polished on each particle's own conformation in passes at the end.

    plan: of a search before the first of these, whose best poses are weighed with z integrated out; None: no search.

    Raises
    ------
    InputError: the memory does not hold ``z_dim`` components to the consensus's resolution.
    """
    grid, pose = start.model.grid, start.model.pose
    top = min(start.resolved, grid.box / 2 - 1)
    require_room(grid, top, z_dim)
    generator = stream(seed, -1)
    bands = [max(fraction * top, min(6.0, top)) for fraction, passes in SCHEDULE for _ in range(passes)]
    volume, *two = (VoxelGrid(grid, z_dim, bands[0]) for _ in range(3))
    others = (two[0], two[1])  # of the images outside each half set
    begin_anew((volume, *others), bands[0], start.density, mask, generator)
    prior: DiscretePrior | None = None
    model = Model(grid, volume, pose, Fixed())
    marched = len(bands)
    if isinstance(pose, PoseTable):
        bands += [top] * POLISHED
    number, restarts = 0, RESTARTS
    while number < len(bands):
        band, limit = bands[number], volume.lattice.limit
        crossed = [Posterior(other, grid, limit, prior) for other in others]
        poses = None
        if isinstance(pose, PoseTable) and number >= marched:
            again = plan if number == marched else None
            poses = [Polish(grid, pose, judge.volume, limit, 2, rescored(grid, pose, judge, again), judge) for judge in crossed]
        em = LinearEM(grid, half - 1, band, mask, others, crossed, poses=poses)
        for _ in fit(model, em, loader, {}, range(number, number + 1), loader.particles_for(images_at_once(grid)), seed,
                     grid.device):
            pass
        if restarts and number < marched and not bool((em.fsc[1:, 1:] > 0).any()):
            begin_anew((volume, *others), bands[0], start.density, mask, generator)
            number, restarts, prior = 0, restarts - 1, None
            continue
        if atoms and number >= PRIOR_FROM:
            prior = learn_prior(loader, model, others, half, atoms, generator)
        extent = grid.box * grid.apix
        shells = em.fsc[:, 1 : int(band) + 1].gt(0.143).float().cumprod(1).sum(1).clamp(min=1)
        report(f"low rank {number + 1}/{len(bands)}", {
            "band_A": extent / band, "mean_A": extent / float(shells[0]), "first_component_A": extent / float(shells[1])})
        number += 1
    return readable(volume, prior, em.fsc)


def rescored(grid: Grid, pose: PoseTable, judge: Posterior, plan: Plan | None) -> Rescore | None:
    """The poses of a search of the mean of a linear family, and those at hand, weighed by the whole family; None: no plan."""
    if plan is None:
        return None
    volume = judge.volume
    top = min(SEARCHED, volume.lattice.limit)
    search = Search(grid, pose, replace(plan, kmin=min(plan.kmin, top), kmax=top, keep=plan.survivors))
    with torch.no_grad():
        mean = volume.density(torch.zeros(1, volume.z_dim, device=grid.device))
    search.look_at(Raster(mean, grid, top))
    return Rescore(pose, search, Posterior(volume, grid, top, judge.prior))


def readable(volume: VoxelGrid, prior: DiscretePrior | None, fsc: Tensor) -> LowRank:
    """Gives all components the first one's norm and moves the difference into z: its axes then carry each motion's
    share of the maps' variance, and the first principal component of z is the largest motion."""
    values = volume.values.detach()
    norms = values[1:].abs().square().sum(1).sqrt().clamp(min=1e-12)
    share = norms / norms[0]
    volume.set_values(torch.cat([values[:1], values[1:] / share[:, None]]))
    if prior is not None:
        prior = DiscretePrior(prior.atoms * share, prior.log_weight)
    return LowRank(volume, prior, share.square(), fsc)


def begin_anew(volumes: tuple[VoxelGrid, ...], band: float, density: Tensor, mask: Tensor, generator: torch.Generator) -> None:
    """The mean and random components in all volumes, which are cut to ``band``."""
    for each in volumes:
        each.restrict(band)
    maps = random_components(density, coarsen(mask, volumes[0].lattice.coarse_box()), volumes[0].z_dim, generator)
    for each in volumes:
        each.set_values(each.lattice.from_density(maps))


def random_components(density: Tensor, mask: Tensor, z_dim: int, generator: torch.Generator) -> Tensor:
    """The mean and ``z_dim`` smooth random maps within the mask, three tenths of its power: ``(Q, D', D', D')``."""
    box = mask.shape[-1]
    mean = resample(density, box, 3)
    noise = torch.randn(z_dim, box, box, box, generator=generator).to(density.device)
    decay = torch.exp(-torch.arange(box, device=density.device) ** 2 / (2 * 4.0**2)).expand(z_dim, -1)
    smooth = filter_by_shell(noise, decay) * mask
    norms = smooth.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
    return torch.cat([mean[None], smooth / norms * (0.3 * mean.norm())])


def learn_prior(loader: Loader, model: Model, others: tuple[VoxelGrid, VoxelGrid], half: Tensor, atoms: int,
                generator: torch.Generator, iterations: int = 15, most: int = 20_000) -> DiscretePrior:
    """The latent's distribution from at most ``most`` particles, each judged by the other half's volume."""
    grid = model.grid
    judges = [Posterior(volume, grid, volume.lattice.limit) for volume in others]
    grams, vectors, places = [], [], []
    chosen = torch.randperm(loader.n_particles, generator=generator)[:most].sort().values
    for particles in chosen.split(loader.particles_for(images_at_once(grid))):
        own = ranks.mine(particles)
        if not len(own):
            continue
        batch = loader.of(own).to(grid.device)
        for number, judge in enumerate(judges, 1):
            part = batch.at(torch.nonzero(half[batch.image] == number)[:, 0])
            if not len(part):
                continue
            with torch.no_grad():
                posed = model.pose(Hypotheses.empty(len(part), grid.device), part, model.energy)
                gram, vector, _, _ = judge.particle_moments(posed, part)
            grams.append(gram)
            vectors.append(vector)
            places.append(loader.places(part).to(grid.device))
    gram, vector, place = (ranks.gathered(torch.cat(parts)) for parts in (grams, vectors, places))
    order = torch.argsort(place)  # whoever saw them, and when
    gram, vector = gram[order], vector[order]
    prior = DiscretePrior.fit(gram, vector, atoms, iterations, generator)
    ranks.agree(prior)
    return prior


def contrast(halves: Tensor, mask: Tensor) -> float:
    """Skewness, about the level outside, of what half maps ``(2, D, D, D)`` hold inside the mask: of the one nearer to 0, and 0
    where the two differ in sign. A molecule is sparse: above 0 where it is white; of noise within 0.2 or so."""
    inside = mask > 0.5
    found = []
    for half in halves:
        value = half[inside].double() - (half[~inside].double().mean() if bool((~inside).any()) else 0)
        found.append(float(value.pow(3).mean() / value.square().mean().clamp(min=1e-300).pow(1.5)))
    return min(found, key=abs) if found[0] * found[1] > 0 else 0.0


def image_scales(loader: Loader, model: Model) -> Tensor:
    r"""Contrast of every image ``(N,)`` against the model's one volume: the posterior mean of a factor ``N(1, tau^2)``.

    The least-squares factor of ``y = a c v`` is ``sum Re(conj(d) v) / sum p |v|^2``, with half the inverse of the lower sum
    as its variance: matched data ``d`` and power ``p`` say all, whether images were multiplied by their CTF before or not.

    ``tau`` is what the scatter of the least-squares factors holds beyond their own errors; where that is nothing,
    all are 1.
    """
    factor, variance = torch.ones(len(loader.stack)), torch.ones(len(loader.stack))
    images = []
    for batch, found in inferred(model, loader):
        images.append(batch.image.cpu())
        with torch.no_grad():
            seen = model.predict(found)[:, 0]
            power = (batch.power * seen.abs().square()).sum(1).clamp(min=1e-12)
            factor[batch.image.cpu()] = ((batch.data.conj() * seen).real.sum(1) / power).cpu()
            variance[batch.image.cpu()] = (0.5 / power).cpu()
    ranks.share_rows(torch.cat(images), factor, variance)
    middle = factor.median()
    weight = 1 / variance
    excess = (weight * ((factor - middle).square() - variance)).sum() / weight.sum()
    spread = float(excess.clamp(min=0))
    if spread < 1e-4:
        return torch.ones_like(factor)
    shrunk = middle + (factor - middle) * spread / (spread + variance)
    return (shrunk / middle).clamp(0.2, 5.0)
