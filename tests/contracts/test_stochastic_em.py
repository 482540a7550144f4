"""From nothing to the basin, and the insertion of weighted hypotheses that this and the closed-form passes share."""

from dataclasses import replace

import pytest
import torch

from cryorecon.data.loader import Batch, Loader
from cryorecon.data.source import ArraySource
from cryorecon.geometry import rotations
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.given import Given
from cryorecon.inference.pose.search import Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.metrics.pose_error import pose_error
from cryorecon.model import Model
from cryorecon.objectives.em import LinearEM, insert
from cryorecon.objectives.stochastic_em import Annealing, StochasticEM, random_poses
from cryorecon.volumes.backprojection import Accumulator
from cryorecon.volumes.lattice import Lattice
from cryorecon.volumes.voxel_grid import VoxelGrid

ANNEALING = Annealing(8.0, steps=40, first=3.0, last=6.0, coarse=1.0, batch=80, start=200, keep=8, shifts=4)


def started(grid, table, seed=0) -> tuple[StochasticEM, Model]:
    """Stochastic EM that has not seen anything, and the model whose poses it searches."""
    mask = soft_sphere(grid.box, 0.4 * grid.box, 2.0)
    em = StochasticEM(grid, ANNEALING, mask, torch.Generator().manual_seed(seed))
    return em, Model(grid, VoxelGrid(grid, 0, 2.0), Search(grid, table, ANNEALING.plan(0)), Fixed())


def advance(em, model, loader, steps, seed=0) -> None:
    """``steps`` batches, the first of them ``start`` images."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        size = ANNEALING.start if em.step < 0 else ANNEALING.batch
        chosen = torch.randperm(loader.n_particles, generator=generator)[:size]
        for step in em.phases(model, loader.of(chosen)):
            told = step.accumulate()
            assert told["weight"] == len(chosen)
            assert 0 < told["certainty"] < len(chosen) + 1e-3


def judge(em, model, loader, step) -> float:
    """Poses of all particles under the present map into the table; their mean log-likelihood."""
    em.show(model.pose, ANNEALING.plan(step))
    everything = loader.of(torch.arange(loader.n_particles))
    model.pose(Hypotheses.empty(len(everything), "cpu"), everything)
    return float(model.pose.table.evidence.mean())


def test_the_likelier_of_two_starts_anneals_into_the_basin(planted):
    """Random poses come within 25 degrees, less than a step of the grid on which they are searched. Not from every start, but
    the likelihood tells."""
    problem = planted(300, sigma=0.7)
    loader, poses, found = problem.loader(), problem.stack.poses, []
    for seed in (1, 6):
        table = PoseTable.unknown(300)
        em, model = started(problem.grid, table, seed)
        advance(em, model, loader, 2, seed)
        at_first = judge(em, model, loader, ANNEALING.steps)
        assert pose_error(table.rotation, poses.rotation).angle.median() > 60
        advance(em, model, loader, ANNEALING.steps - 1, seed)
        evidence = judge(em, model, loader, ANNEALING.steps)
        assert evidence > at_first + 10
        found.append((evidence, pose_error(table.rotation, poses.rotation, table.shift, poses.shift)))
    error = max(found, key=lambda start: start[0])[1]
    assert error.angle.median() < 25
    assert error.shift.median() < 0.6 * problem.grid.apix


def test_the_images_units_do_not_matter(planted):
    """Images in electrons or in anything else: the same map in their units."""
    problem = planted(200, sigma=0.7)
    maps = []
    for factor in (1.0, 1e4, 1e-4):
        source = ArraySource((factor * problem.stack.images()).numpy())
        loader = Loader(replace(problem.stack, source=source), problem.grid, factor**2 * problem.noise, windowed=False)
        em, model = started(problem.grid, PoseTable.unknown(200))
        advance(em, model, loader, 3)
        maps.append(em.density / factor)
    assert maps[0].abs().max() > 0
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0], rtol=1e-3, atol=1e-3 * float(maps[0].abs().max()))


def test_the_same_seed_gives_the_same_map(planted):
    problem = planted(200, sigma=0.7)
    maps = []
    for seed in (0, 0, 1):
        em, model = started(problem.grid, PoseTable.unknown(200), seed)
        advance(em, model, problem.loader(), 2)
        maps.append(em.density)
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2], atol=0.1 * float(maps[0].abs().max()))


def test_images_of_a_particle_share_its_pose_from_the_first(planted):
    problem = planted(60, sigma=0.7)
    batch = problem.loader().read(torch.arange(60))
    particle = torch.arange(30).repeat_interleave(2)
    tilt = torch.stack([torch.eye(3), rotations.about_x(0.8)]).repeat(30, 1, 1)
    pairs = Batch(batch.data, batch.power, batch.norm, batch.image, particle)
    found = random_poses(pairs, PoseTable.unknown(30, tilt), torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotations.about_x(0.8) @ found.rotation[0::2], found.rotation[1::2])  # the stage's turn
    assert (found.rotation[0::2, 0].unsqueeze(1) - found.rotation[0::2, 0]).abs().amax((-1, -2)).add(torch.eye(30)).min() > 0
    em, model = started(problem.grid, PoseTable.unknown(30, tilt))
    for _ in range(3):
        for step in em.phases(model, pairs):
            step.accumulate()
    assert torch.isfinite(em.density).all()
    assert em.density.abs().max() > 0


def test_the_plan_grows_colder_wider_and_finer():
    annealing = Annealing(10.0, steps=10)
    plans = [annealing.plan(step) for step in range(11)]
    assert [plan.kmin == plan.kmax for plan in plans] == [True] * 11
    assert [plan.kmax for plan in plans] == sorted(plan.kmax for plan in plans)
    assert (plans[0].kmax, plans[10].kmax) == (annealing.first, annealing.last)
    assert plans[0].temperature == pytest.approx(1 / annealing.cold)
    assert plans[10].temperature == pytest.approx(1)
    assert [plan.temperature for plan in plans] == sorted((plan.temperature for plan in plans), reverse=True)
    assert [plan.level for plan in plans] == [1] * 7 + [2] * 4
    assert {plan.subdivisions for plan in plans} == {0}


def test_poses_must_be_searched(small):
    em, model = started(small.grid, PoseTable.unknown(12))
    model.pose = Given(small.stack.poses.rotation, small.stack.poses.shift)
    with pytest.raises(TypeError, match="needs a Search for poses, found Given"):
        list(em.phases(model, small.loader().read(torch.arange(3))))


# --- insertion


@pytest.fixture
def several(small):
    """Three hypotheses of five images, with z and its covariance; the images."""
    generator = torch.Generator().manual_seed(0)
    batch = small.loader().read(torch.arange(5)).select(small.grid.band(5))
    rotation = rotations.random(15, generator).view(5, 3, 3, 3)
    shift, z = 4 * torch.randn(5, 3, 2, generator=generator), torch.randn(5, 3, 1, generator=generator)
    weight = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8], [0.34, 0.33, 0.33]])
    cov = 0.1 + torch.rand(5, 3, 1, 1, generator=generator)
    return Hypotheses(rotation, shift, z, weight.log(), torch.zeros(5, 3), cov), batch


def inserted(problem, found, batch) -> tuple[Accumulator, tuple]:
    lattice = Lattice(problem.grid.box, 5)
    sums = Accumulator(lattice, problem.grid.points[problem.grid.band(5)], 1 + found.z.shape[2])
    told = insert(sums, problem.grid, found, batch)
    sums.finish()
    return sums, told


def alone(found, k) -> Hypotheses:
    """The k-th hypothesis, certain."""
    one = slice(k, k + 1)
    return Hypotheses(found.rotation[:, one], found.shift[:, one], found.z[:, one], torch.zeros(5, 1), torch.zeros(5, 1),
                      found.z_cov[:, one])


def test_hypotheses_are_inserted_by_their_weight(small, several):
    """The weighted sum of the insertions of each hypothesis alone."""
    found, batch = several
    together, (share, mean, second) = inserted(small, found, batch)
    weight = found.log_weight.exp()
    numerator, gram = torch.zeros_like(together.numerator), torch.zeros_like(together.gram)
    for k in range(3):
        for image in range(5):
            if weight[image, k] > 0:
                sums, _ = inserted(small, alone(found, k).at(slice(image, image + 1)), batch.at(slice(image, image + 1)))
                numerator += weight[image, k] * sums.numerator
                gram += weight[image, k] * sums.gram
    torch.testing.assert_close(together.numerator, numerator, rtol=1e-3, atol=1e-5 * float(numerator.abs().max()))
    torch.testing.assert_close(together.gram, gram, rtol=1e-3, atol=1e-5 * float(gram.abs().max()))
    assert len(share) == len(mean) == len(second) == int((weight > 0).sum())
    torch.testing.assert_close(share.sum(), torch.tensor(5.0))
    torch.testing.assert_close((share[:, None] * mean).sum(0)[1], (weight * found.z[..., 0]).sum())
    squares = weight * (found.z[..., 0].square() + found.z_cov[..., 0, 0])
    torch.testing.assert_close((share[:, None, None] * second).sum(0)[1, 1], squares.sum())


def test_what_hardly_weighs_is_left_out_and_its_weight_goes_to_the_others(small, several):
    found, batch = several
    weight = torch.tensor([[0.66, 0.33, 0.01]]).expand(5, -1)
    doubtful = replace(found, log_weight=weight.log())
    clear = replace(found, log_weight=torch.tensor([[2 / 3, 1 / 3, 0.0]]).expand(5, -1).log())
    first, (share, _, _) = inserted(small, doubtful, batch)
    second, _ = inserted(small, clear, batch)
    assert len(share) == 10
    torch.testing.assert_close(share.view(5, 2).sum(1), torch.ones(5))
    torch.testing.assert_close(first.numerator, second.numerator, rtol=1e-3, atol=1e-4)


def test_hypotheses_shared_by_all_images_are_inserted_for_each(small, several):
    found, batch = several
    shared = replace(found, rotation=found.rotation[:1], shift=found.shift[:1])
    own = replace(found, rotation=found.rotation[:1].expand(5, -1, -1, -1), shift=found.shift[:1].expand(5, -1, -1))
    assert torch.equal(inserted(small, shared, batch)[0].numerator, inserted(small, own, batch)[0].numerator)


def test_each_half_set_may_have_its_own_treatment_of_poses(planted):
    """``poses=``: the first half's map follows its own inference and not the other half's."""
    problem = planted(100, sigma=0.5)
    fold, mask, poses = torch.arange(100) % 2, soft_sphere(16, 6.4, 1.5), problem.stack.poses
    right = Given(poses.rotation, poses.shift)
    wrong = Given(rotations.random(100, torch.Generator().manual_seed(9)), poses.shift)
    batch = problem.loader().read(torch.arange(100))

    def half_maps(pose, **more):
        volumes = tuple(VoxelGrid(problem.grid, 0, 6.0) for _ in (1, 2))
        em = LinearEM(problem.grid, fold, 6.0, mask, volumes, (Fixed(), Fixed()), **more)
        model = Model(problem.grid, VoxelGrid(problem.grid, 0, 6.0), pose, Fixed())
        for step in em.phases(model, batch):
            step.accumulate()
        em.finish_pass(model)
        return em.half_maps

    true, false = half_maps(right), half_maps(wrong)
    mixed = half_maps(wrong, poses=(right, wrong))
    torch.testing.assert_close(mixed[0], true[0])
    torch.testing.assert_close(mixed[1], false[1])
    assert not torch.allclose(mixed[1], true[1], atol=0.1 * float(true[1].abs().max()))


def test_a_folds_volume_is_made_of_all_other_images(planted):
    """Only the first fold's poses are wrong: its own volume does not know, those of the others do."""
    problem = planted(200, sigma=0.5)
    fold, mask, poses = torch.arange(200) % 4, soft_sphere(16, 6.4, 1.5), problem.stack.poses
    right = Given(poses.rotation, poses.shift)
    wrong = Given(rotations.random(200, torch.Generator().manual_seed(9)), poses.shift)
    volumes = [VoxelGrid(problem.grid, 0, 6.0) for _ in range(4)]
    em = LinearEM(problem.grid, fold, 6.0, mask, volumes, [Fixed()] * 4, poses=(wrong, right, right, right))
    model = Model(problem.grid, VoxelGrid(problem.grid, 0, 6.0), right, Fixed())
    for step in em.phases(model, problem.loader().read(torch.arange(200))):
        step.accumulate()
    em.finish_pass(model)
    with torch.no_grad():
        maps = torch.cat([volume.density(torch.zeros(1, 0)) for volume in volumes]).flatten(1)
    truth = (problem.maps[0] * mask).flatten()
    likeness = torch.nn.functional.cosine_similarity(maps, truth[None])
    assert likeness[0] > likeness[1:].max() + 0.02
