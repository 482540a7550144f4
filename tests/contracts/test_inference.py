"""What every treatment of pose and conformation must do, over the registries."""

import pytest
import torch

from cryorecon.data.loader import Batch
from cryorecon.inference.conformation import CONFORMATIONS
from cryorecon.inference.conformation.posterior import DiscretePrior, Posterior
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose import POSES
from cryorecon.volumes.voxel_grid import VoxelGrid

VARIANTS = [*CONFORMATIONS, "posterior, discrete"]


@pytest.fixture
def batch(small) -> Batch:
    """Images 7, 2, 3, 9 of the small problem."""
    return small.loader().read(torch.tensor([7, 2, 3, 9]))


def make_conformation(name, problem):
    torch.manual_seed(0)
    linear = VoxelGrid.from_density(problem.maps, problem.grid)
    made = {
        "fixed": lambda kind: kind(),
        "encoder": lambda kind: kind(problem.grid, 1, 16, 2),
        "table": lambda kind: kind(len(problem.stack), 1),
        "posterior": lambda kind: kind(linear, problem.grid),
    }
    if name == "posterior, discrete":
        prior = DiscretePrior(torch.linspace(-2, 2, 9)[:, None], torch.full((9,), 1 / 9).log())
        return Posterior(linear, problem.grid, prior=prior)
    assert set(made) == set(CONFORMATIONS), "a newcomer: say how it is built"
    return made[name](CONFORMATIONS[name])


def make_pose(name, problem):
    poses = problem.stack.poses
    made = {"given": lambda kind: kind(poses.rotation, poses.shift),
            "refine": lambda kind: kind(poses.rotation, poses.shift, problem.grid.apix, problem.grid.box)}
    assert set(made) == set(POSES), "a newcomer: say how it is built"
    return made[name](POSES[name])


def no_score(hypotheses, batch):
    raise AssertionError("only a search asks for scores")


def posed(problem, batch, name="given"):
    return make_pose(name, problem)(Hypotheses.empty(len(batch), "cpu"), batch, no_score)


@pytest.mark.parametrize("name", POSES)
def test_poses_are_those_of_the_batchs_images(name, small, batch):
    pose = make_pose(name, small)
    found = pose(Hypotheses.empty(4, "cpu"), batch, no_score)
    assert found.rotation.shape == (4, 1, 3, 3)
    assert found.shift.shape == (4, 1, 2)
    torch.testing.assert_close(found.rotation[:, 0], small.stack.poses.rotation[[7, 2, 3, 9]])
    torch.testing.assert_close(found.shift[:, 0], small.stack.poses.shift[[7, 2, 3, 9]])
    assert not found.log_weight.any()
    assert not found.kl.any()
    torch.testing.assert_close(pose.poses()[0], small.stack.poses.rotation)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("training", [True, False])
def test_conformations_have_shapes_and_a_finite_divergence(name, training, small, batch):
    conformation = make_conformation(name, small).train(training)
    before = posed(small, batch)
    after = conformation(before, batch, no_score)
    d = 0 if name == "fixed" else 1
    assert after.z.shape == (4, 1, d)
    assert torch.isfinite(after.z).all()
    assert after.kl.shape == after.log_weight.shape == (4, 1)
    assert torch.isfinite(after.kl).all()
    assert (after.kl >= 0).all()
    assert after.rotation is before.rotation
    assert after.shift is before.shift
    torch.testing.assert_close(after.log_weight.exp().sum(1), torch.ones(4))
    if after.z_cov is not None:
        assert after.z_cov.shape == (4, 1, d, d)
        assert (torch.linalg.eigvalsh(after.z_cov) >= 0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_particle_of_several_images_has_one_z_and_its_divergence_once(name, small, batch):
    conformation = make_conformation(name, small).eval()
    tilts = Batch(batch.data, batch.power, batch.norm, batch.image, torch.tensor([5, 5, 2, 2]))
    found = conformation(posed(small, tilts), tilts, no_score)
    torch.testing.assert_close(found.z[0], found.z[1])
    torch.testing.assert_close(found.z[2], found.z[3])
    torch.testing.assert_close(found.kl[0], found.kl[1])
    swapped = tilts.at(torch.tensor([2, 3, 0, 1]))
    again = conformation(posed(small, swapped), swapped, no_score)
    torch.testing.assert_close(again.z[[2, 3, 0, 1]], found.z)
    torch.testing.assert_close(again.kl[[2, 3, 0, 1]], found.kl)


@pytest.mark.parametrize("name", [name for name in VARIANTS if "posterior" in name])
def test_the_exact_posterior_finds_planted_conformations(name, planted):
    problem = planted(40, sigma=0.3, motion=0.5)
    conformation = make_conformation(name, problem)
    batch = problem.loader().read(torch.arange(40))
    found = conformation(posed(problem, batch), batch, no_score)
    assert float((found.z[:, 0] - problem.z).abs().median()) < 0.2
    inside = (found.z[:, 0] - problem.z).square() < 9 * found.z_cov[:, 0, 0] + 0.1
    assert inside.float().mean() > 0.9


def test_the_gaussian_posterior_is_that_of_the_whole_energy(small, batch):
    """Mean and variance from energies on a fine grid of z, no formula: exp(-energy) times the prior, normalised."""
    from cryorecon.inference.conformation.fixed import Fixed
    from cryorecon.model import Model

    linear = VoxelGrid.from_density(small.maps, small.grid)
    model = Model(small.grid, linear, make_pose("given", small), Fixed())
    z = torch.linspace(-6, 6, 4001)[:, None].expand(4, -1, 1)
    pose = posed(small, batch)
    with torch.no_grad():
        many = pose.with_z(z, torch.zeros(4, 4001))
        energy = model.energy(many, batch).double()
    weight = torch.softmax(-energy - 0.5 * z[..., 0].double().square(), 1)
    mean = (weight * z[..., 0]).sum(1)
    variance = (weight * (z[..., 0] - mean[:, None]).square()).sum(1)
    found = Posterior(linear, small.grid)(pose, batch, no_score)
    torch.testing.assert_close(found.z[:, 0, 0].double(), mean, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(found.z_cov[:, 0, 0, 0].double(), variance, atol=1e-4, rtol=1e-2)
    grid_kl = (weight * (weight.clamp(min=1e-300).log() - torch.log_softmax(-0.5 * z[..., 0].double().square(), 1))).sum(1)
    torch.testing.assert_close(found.kl[:, 0].double(), grid_kl, atol=2e-3, rtol=1e-2)
