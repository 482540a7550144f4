"""What every treatment of pose and conformation must do, over the registries."""

import pytest
import torch

from cryorecon.data.loader import Batch
from cryorecon.geometry import rotations
from cryorecon.inference.conformation import CONFORMATIONS
from cryorecon.inference.conformation.encoder import Encoder
from cryorecon.inference.conformation.posterior import DiscretePrior, Posterior
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose import POSES
from cryorecon.volumes.voxel_grid import VoxelGrid

VARIANTS = [*CONFORMATIONS, "posterior, discrete", "encoder, joint"]


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
        "prior": lambda kind: kind(1),
    }
    if name == "posterior, discrete":
        prior = DiscretePrior(torch.linspace(-2, 2, 9)[:, None], torch.full((9,), 1 / 9).log())
        return Posterior(linear, problem.grid, prior=prior)
    if name == "encoder, joint":
        return Encoder(problem.grid, 1, 16, 2, tilt=rotations.random(len(problem.stack), torch.Generator().manual_seed(1)))
    assert set(made) == set(CONFORMATIONS), "a newcomer: say how it is built"
    return made[name](CONFORMATIONS[name])


def make_pose(name, problem):
    poses = problem.stack.poses
    made = {"given": lambda kind: kind(poses.rotation, poses.shift),
            "refine": lambda kind: kind(poses.rotation, poses.shift, problem.grid.apix, problem.grid.box),
            "search": lambda kind: kind(poses.rotation, poses.shift),
            "prior": lambda kind: kind(5.0)}
    assert set(made) == set(POSES), "a newcomer: say how it is built"
    return made[name](POSES[name])


def no_score(hypotheses, batch):
    raise AssertionError("only a search asks for scores")


def posed(problem, batch, name="given"):
    return make_pose(name, problem)(Hypotheses.empty(len(batch), "cpu"), batch, no_score)


@pytest.mark.parametrize("name", [name for name in POSES if name != "prior"])
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
    if name == "prior":
        return  # whose draws are new each time
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


def test_an_encoder_of_single_images_is_the_one_network(small, batch):
    """No second network and none of its random numbers; the joint one begins with the same first network."""
    single, joint = (make_conformation(name, small).eval() for name in ("encoder", "encoder, joint"))
    names = {"first", "hidden.0", "hidden.1", "head"}
    assert set(single.state_dict()) == {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    for name, value in single.state_dict().items():
        assert torch.equal(value, joint.state_dict()[name])
    pose = posed(small, batch)
    x = torch.relu(single.first(single.images(pose, batch)))
    for layer in single.hidden:
        x = torch.relu(x + layer(x))
    mean, _ = single.head(x).chunk(2, 1)
    torch.testing.assert_close(single(pose, batch, no_score).z[:, 0], mean, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_particles_images_are_encoded_together(small, batch):
    """Any number of images a particle; the order of their rows says nothing, which of them is tilted does."""
    encoder = make_conformation("encoder, joint", small).eval()
    tilts = Batch(batch.data, batch.power, batch.norm, batch.image, torch.tensor([1, 1, 1, 0]))
    found = encoder(posed(small, tilts), tilts, no_score)
    assert torch.equal(found.z[:3], found.z[:1].expand(3, 1, 1))
    other = tilts.at(torch.tensor([2, 0, 1, 3]))
    torch.testing.assert_close(encoder(posed(small, other), other, no_score).z, found.z)
    fewer = tilts.at(torch.tensor([0, 1, 3]))
    one_less = encoder(posed(small, fewer), fewer, no_score).z
    assert float((one_less[0] - found.z[0]).abs()) > 1e-4
    torch.testing.assert_close(one_less[2], found.z[3])
    shifts = posed(small, tilts)
    exchanged = Batch(batch.data, batch.power, batch.norm, batch.image[[1, 0, 2, 3]], tilts.particle)
    assert float((encoder(shifts, exchanged, no_score).z[0] - found.z[0]).abs()) > 1e-4
    assert found.z_cov is not None
    variance = found.z_cov[[0, 3], 0, 0, 0]
    kl = 0.5 * (found.z[[0, 3], 0, 0].square() + variance - 1 - variance.log())
    torch.testing.assert_close(found.kl.sum(), kl.sum())


def test_poses_of_the_prior_are_uniform_and_say_nothing_of_the_images(small):
    """Rotations average to none, a body axis lies anywhere on the sphere alike, shifts fill their square."""
    torch.manual_seed(0)
    n = 4000
    many = small.loader().read(torch.zeros(n, dtype=torch.int64))
    found = make_pose("prior", small)(Hypotheses.empty(n, "cpu"), many, no_score)
    rotation, shift = found.rotation[:, 0], found.shift[:, 0]
    assert float(rotation.mean(0).abs().max()) < 4 * (1 / 3 / n) ** 0.5
    heights = rotation[:, 2, 2].sort().values  # uniform on [-1, 1] (Archimedes): Kolmogorov's distance
    assert float((heights - torch.linspace(-1, 1, n)).abs().max()) / 2 < 1.63 / n**0.5
    assert float(shift.abs().max()) <= 5
    torch.testing.assert_close(shift.var(0), torch.full((2,), 25 / 3), rtol=0.08, atol=0)
    assert not torch.equal(make_pose("prior", small)(Hypotheses.empty(n, "cpu"), many, no_score).rotation, found.rotation)


@pytest.mark.parametrize("extent", [None, 5.0])
def test_the_prior_draws_views_and_shifts_of_entries(small, extent):
    """Views, that is third rows of R, are those of entries, each as often; angles in the plane are uniform. Shifts come with
    them, or with an extent fill their square."""
    torch.manual_seed(0)
    n, entries = 4000, small.stack.poses[:5]
    many = small.loader().read(torch.zeros(n, dtype=torch.int64))
    found = POSES["prior"](extent, entries)(Hypotheses.empty(n, "cpu"), many, no_score)
    rotation, shift = found.rotation[:, 0], found.shift[:, 0]
    view = (rotation[:, None, 2] - entries.rotation[:, 2]).norm(dim=-1)
    assert float(view.min(1).values.max()) < 1e-5
    entry = view.argmin(1)
    assert float((torch.bincount(entry) - n / 5).abs().max()) < 4 * (n / 5) ** 0.5
    turn = rotation @ entries.rotation[entry].mT
    angle = torch.atan2(turn[:, 1, 0], turn[:, 0, 0]).sort().values / torch.pi
    assert float((angle - torch.linspace(-1, 1, n)).abs().max()) / 2 < 1.63 / n**0.5
    if extent is None:
        torch.testing.assert_close(shift, entries.shift[entry])
    else:
        torch.testing.assert_close(shift.var(0), torch.full((2,), 25 / 3), rtol=0.08, atol=0)


def test_conformations_of_the_prior_fill_their_interval(small):
    prior = make_conformation("prior", small)  # which seeds
    many = small.loader().read(torch.arange(12))
    z = torch.cat([prior(posed(small, many), many, no_score).z for _ in range(100)]).flatten()
    assert 0 <= float(z.min()) < 0.01
    assert 0.99 < float(z.max()) <= 1
    assert abs(float(z.mean()) - 0.5) < 0.035
