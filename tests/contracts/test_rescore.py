"""Several poses of an image weighed against each other, its conformation integrated out."""

from dataclasses import replace

import pytest
import torch

from cryorecon.geometry.rotations import about_x, angle_between, from_rotation_vector
from cryorecon.inference.conformation.posterior import DiscretePrior, Posterior
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.rescore import Rescore
from cryorecon.inference.pose.search import Plan, Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.model import energy
from cryorecon.volumes.raster import Raster
from cryorecon.volumes.voxel_grid import VoxelGrid

PLAN = Plan(8.0, level=2, shifts=4, subdivisions=2, kmin=6, kmax=10, survivors=12, keep=6)


@pytest.fixture(scope="module")
def moving(planted):
    """Twenty-four images of 24 px of a molecule that moves."""
    return planted(24, box=24, sigma=1.0, motion=0.5)


def family(problem):
    return VoxelGrid.from_density(problem.maps, problem.grid).requires_grad_(False)


def three_poses(problem):
    """The planted pose and two near it, all shifts the planted ones."""
    poses = problem.stack.poses
    turns = from_rotation_vector(torch.tensor([[0.0, 0, 0], [0.05, 0, 0], [0, 0.08, -0.02]]))
    n = len(poses.rotation)
    zero, shift = torch.zeros(n, 3), poses.shift[:, None].expand(-1, 3, -1)
    return Hypotheses(turns @ poses.rotation[:, None], shift, zero[..., None][..., :0], zero, zero)


def everything(problem):
    loader = problem.loader()
    return loader.of(torch.arange(loader.n_particles))


@pytest.mark.parametrize("kind", ["gaussian", "discrete"])
def test_weights_are_those_of_the_integral_over_z(moving, kind):
    volume, batch, hypotheses = family(moving), everything(moving), three_poses(moving)
    z = torch.linspace(-8, 8, 1601).double()
    log_prior = -0.5 * z.square() + (z[1] - z[0]).log() - 0.5 * torch.log(torch.tensor(2 * torch.pi))
    prior = None
    if kind == "discrete":
        z = torch.tensor([-1.5, 0.2, 1.0]).double()
        log_prior = torch.tensor([0.2, 0.5, 0.3]).double().log()
        prior = DiscretePrior(z[:, None].float(), log_prior.float())
    found = Posterior(volume, moving.grid, prior=prior)(hypotheses, batch, None)
    wanted = []
    for k in range(3):
        parts = volume.component_slices(hypotheses.rotation[:, k], slice(None))
        ramp = moving.grid.phase_ramp(-hypotheses.shift[:, k])[:, None]
        seen = [(parts[..., 0] + value * parts[..., 1])[:, None] * ramp for value in z.tolist()]
        energies = torch.cat([energy(one, batch) for one in seen], 1).double()
        wanted.append(torch.logsumexp(log_prior - energies, 1))
    wanted = torch.log_softmax(torch.stack(wanted, 1), 1)
    torch.testing.assert_close(found.log_weight.double(), wanted, rtol=1e-3, atol=2e-2)
    assert found.z.shape == (24, 3, 1)
    assert found.z_cov.shape == (24, 3, 1, 1)


def test_one_pose_is_treated_as_ever(moving):
    posterior, batch, three = Posterior(family(moving), moving.grid), everything(moving), three_poses(moving)
    several = posterior(three, batch, None)
    for k in range(3):
        alone = posterior(three.only(k), batch, None)
        assert torch.equal(alone.z, several.only(k).z)
        assert torch.equal(alone.z_cov, several.only(k).z_cov)
        assert float(alone.log_weight.abs().max()) == 0


def rescored(problem, table, keep=6):
    volume, batch = family(problem), everything(problem)
    search = Search(problem.grid, table, replace(PLAN, keep=keep))
    search.look_at(Raster(problem.maps[:1], problem.grid, 10))
    return Rescore(table, search, Posterior(volume, problem.grid, 10))(Hypotheses.empty(len(batch), "cpu"), batch), batch


def test_a_good_pose_is_kept_and_a_wrong_one_left(planted):
    problem = planted(24, box=24, sigma=0.3, motion=0.4)
    poses = problem.stack.poses
    wrong = from_rotation_vector(torch.tensor([1.5, 0.4, 0.0])) @ poses.rotation
    half = torch.arange(24) < 12
    table = PoseTable(torch.where(half[:, None, None], poses.rotation, wrong), poses.shift)
    found, _ = rescored(problem, table)
    angle = torch.rad2deg(angle_between(table.rotation, poses.rotation))
    assert float(angle[half].max()) < 0.1, "the planted pose is likelier than any node of a grid"
    assert float(angle[~half].median()) < 4  # nodes lie 3.75 degrees apart
    assert torch.equal(found.rotation[:, 0], table.rotation)


def test_a_particle_of_several_images_has_one_pose(planted):
    problem = planted(12, box=24, sigma=0.3, motion=0.3)
    tilt = about_x(0.5)
    poses = problem.stack.poses
    particle = torch.arange(6).repeat_interleave(2)
    tilts = torch.stack([torch.eye(3), tilt]).repeat(6, 1, 1)
    stack = replace(problem.stack, particle=particle, tilt=tilts)
    tilted = replace(problem, stack=stack)
    table = PoseTable(poses.rotation[::2], poses.shift[::2], tilts)
    found, batch = rescored(tilted, table)
    torch.testing.assert_close(found.rotation[:, 0], table.of_images(table.rotation[batch.particle], batch), rtol=0, atol=1e-5)
    assert torch.equal(found.shift[::2], found.shift[1::2])
