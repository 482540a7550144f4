r"""Poses by the network that learns the map: the schedule of Zhong et al. (2020, section 3.2) and of cryoDRGN's ``abinit``.

The network first sees images at random poses (and random z), so that it has the molecule's size and power. Then come epochs
of training at the poses of a table; before every few of them all images are searched for anew in the present map, in a band
that grows from search to search. Without conformations the search looks at a raster of the network's map; with them at the
network itself, each image at its own z by the encoder, base grid at z = 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cryorecon import ranks
from cryorecon.data.loader import Batch, Loader
from cryorecon.geometry.rotations import angle_between
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.search import Plan, Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.model import Model
from cryorecon.objectives.cores import all_cores
from cryorecon.objectives.likelihood import Likelihood, PointSampler
from cryorecon.objectives.stochastic_em import random_poses
from cryorecon.training import build
from cryorecon.training.checkpoint_file import fill
from cryorecon.training.closed_form import Report, images_at_once
from cryorecon.training.config import RunConfig
from cryorecon.training.fit import fit, stream
from cryorecon.training.inferred import latents
from cryorecon.training.run_directory import RunDirectory
from cryorecon.volumes.fourier_mlp import FourierMLP
from cryorecon.volumes.raster import Raster

SAVED = "network"  # the stage's file in a run directory
RAMP = 0.8  # of the epochs, over which the band grows
STREAM = 200_000  # random streams of these epochs are their own


@dataclass(frozen=True)
class March:
    """epochs in all; a search before every ``every``-th. last: band in Fourier pixels at the end of the ramp. plan: of a
    search, its ``kmin`` the band at the beginning. pretrain: images seen at random poses before."""

    epochs: int
    every: int
    pretrain: int
    last: float
    plan: Plan

    def searches(self, epoch: int) -> bool:
        """Whether a search comes before this epoch (the first is 1)."""
        return (epoch - 1) % self.every == 0

    def at(self, epoch: int) -> Plan:
        """The search before an epoch."""
        done = min(1.0, (epoch - 1) / max(RAMP * self.epochs, 1.0))
        return replace(self.plan, kmax=max(self.plan.kmin, self.plan.kmin + done * (self.last - self.plan.kmin)))


class Drawn(nn.Module):
    """Random poses without shift, and z of a standard normal prior."""

    table: PoseTable

    def __init__(self, table: PoseTable, z_dim: int, generator: torch.Generator):
        super().__init__()
        object.__setattr__(self, "table", table)  # for the tilts; not this module's to save
        self.z_dim, self.generator = z_dim, generator

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """One hypothesis an image; a particle's images share it."""
        posed = random_poses(batch, self.table, self.generator)
        if self.z_dim == 0:
            return posed
        _, owner = torch.unique(batch.particle, return_inverse=True)
        z = torch.randn(int(owner.max()) + 1, self.z_dim, generator=self.generator).to(batch.data.device)[owner]
        return posed.with_z(z[:, None], torch.zeros(len(batch), 1, device=batch.data.device))


def march_for(config: RunConfig, plan: Plan, half_box: float) -> March:
    """The schedule that a configuration asks for."""
    last = min(config.l_end, half_box - 1)
    return March(config.search_epochs, config.ps_freq, config.pretrain, last, replace(plan, kmin=min(plan.kmin, last)))


def search_by_network(config: RunConfig, problem: build.Problem, loader: Loader, table: PoseTable, march: March,
                      directory: RunDirectory, report: Report) -> None:
    """Fill the table with poses; every epoch is saved, and a run that was stopped goes on after the last."""
    grid, device = problem.grid, problem.device
    stream(config.seed, STREAM)
    shape = {"base_limit": 0.0, "atoms": 0}
    scratch = replace(config, road="plain", volume="mlp", conformation="encoder" if config.zdim else "fixed")
    model = build.assemble(scratch, grid, table, problem.stack, shape)
    if isinstance(model.volume, FourierMLP):
        model.volume.amplitude.fill_(signal_amplitude(loader))
    optimisers = build.optimisers(model, config.lr)
    generator = torch.Generator()
    objective = Likelihood(PointSampler(grid, grid.box / 2, config.points), generator, "expected", config.kl_weight)
    saved = directory.load_stage(SAVED)
    done = 0
    if saved is not None:
        done = saved["epoch"]
        fill(model, saved["model"], "model")
        fill(optimisers["model"][0], saved["optimiser"], "optimiser")
    else:
        with all_cores():
            pretrain(model, Drawn(table, config.zdim, generator), objective, loader, optimisers, march.pretrain, config)
    for epoch in range(done + 1, march.epochs + 1):
        told: dict[str, float] = {}
        if march.searches(epoch):
            told = search_all(model, loader, table, march.at(epoch))
        generator.manual_seed(config.seed * 1_000_003 + STREAM + epoch)
        number = STREAM + epoch
        with all_cores():
            *_, last = fit(model, objective, loader, optimisers, range(number, number + 1), config.batch, config.seed, device)
        told |= last.means()
        directory.save_stage(SAVED, {"epoch": epoch, "model": model.state_dict(),
                                     "optimiser": optimisers["model"][0].state_dict()})
        report(f"poses by the network, epoch {epoch}/{march.epochs}", told)


def signal_amplitude(loader: Loader, images: int = 500) -> float:
    """Root mean square of the molecule's slices over all points, from the first images: matched data ``d`` have mean square
    ``p^2 |v|^2 + p``."""
    batch = loader.of(torch.arange(min(loader.particles_for(images), loader.n_particles)))
    excess = (batch.data.abs().square() - batch.power).sum() / batch.power.square().sum()
    return float(excess.clamp(min=1e-12).sqrt())


def pretrain(model: Model, drawn: Drawn, objective: Likelihood, loader: Loader, optimisers: dict, images: int,
             config: RunConfig) -> None:
    """Show the network so many images at random poses."""
    drawn.generator.manual_seed(ranks.own(config.seed * 1_000_003 + STREAM))
    shown = Model(model.grid, model.volume, drawn, Fixed())
    seen, number, wanted = 0, STREAM - 1, loader.particles_for(images) if images else 0
    while seen < wanted:
        for record in fit(shown, objective, loader, optimisers, range(number, number + 1), config.batch, config.seed,
                          model.grid.device):
            if seen + record.particles >= wanted or record.done:
                break
        seen, number = seen + record.particles, number - 1


def search_all(model: Model, loader: Loader, table: PoseTable, plan: Plan) -> dict[str, float]:
    """Search the poses of all particles in the network's present map; what to tell of it."""
    grid, before = model.grid, table.rotation.clone()
    search = Search(grid, table, plan)
    if model.volume.z_dim == 0:
        with torch.no_grad():
            density = model.volume.density(torch.zeros(1, 0, device=grid.device))
        search.look_at(Raster(density, grid, plan.kmax), plan)
    else:
        z: Tensor = torch.from_numpy(latents(model, loader)).to(grid.device)
        search.look_at(model.volume, plan, z)
    for batch in loader.epoch(loader.particles_for(images_at_once(grid, 200))):
        search(Hypotheses.empty(len(batch), grid.device), batch.to(grid.device))
    table.meet()
    moved = torch.rad2deg(angle_between(before, table.rotation))
    extent = grid.box * grid.apix
    levels = {f"nodes kept at level {plan.level + i}": count for i, count in enumerate(search.survivors)}
    return {"searched_to_A": extent / plan.kmax, "moved (median degrees)": float(moved.median())} | levels
