"""Planted poses are found again, bounds bound, and how the work is cut does not matter."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from cryorecon.data.loader import Batch, Loader
from cryorecon.data.poses import Poses
from cryorecon.data.source import ArraySource
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError
from cryorecon.geometry import rotations, so3_grid
from cryorecon.geometry.rotations import angle_between
from cryorecon.geometry.shift_grid import shift_grid
from cryorecon.imaging.ctf import Optics, ctf
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.energies import shared_energies
from cryorecon.inference.pose.polish import Polish, polish
from cryorecon.inference.pose.search import Nodes, Plan, Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.volumes.raster import Raster
from cryorecon.volumes.voxel_grid import VoxelGrid

EXTENT = 8.0  # 2 px; planted shifts reach 1 px
BANDS = {16: (5, 7), 17: (5, 7), 24: (6, 10), 32: (7, 12)}


def plan_of(box: int, **changes) -> Plan:
    kmin, kmax = BANDS[box]
    return replace(Plan(EXTENT, level=2, shifts=4, subdivisions=2, kmin=kmin, kmax=kmax, survivors=12), **changes)


def everything(problem) -> Batch:
    loader = problem.loader()
    return loader.of(torch.arange(loader.n_particles))


def searched(problem, plan, batch=None, table=None, maps=None, z=None) -> tuple[Search, Hypotheses]:
    """A search of all particles in the true map's raster, and what it found."""
    batch = everything(problem) if batch is None else batch
    table = PoseTable.unknown(problem.stack.n_particles, problem.stack.tilt) if table is None else table
    search = Search(problem.grid, table, plan)
    search.look_at(Raster(problem.maps[:1] if maps is None else maps, problem.grid, problem.grid.box / 2), z=z)
    return search, search(Hypotheses.empty(len(batch), "cpu"), batch)


def polished(problem, table, base=None, maps=None, z=None) -> Hypotheses:
    """Polished poses of all particles, at known conformations ``z (n, d)``."""
    volume = VoxelGrid.from_density(problem.maps[:1] if maps is None else maps, problem.grid)
    batch = everything(problem)

    def told(hypotheses, batch, score):
        assert hypotheses.rotation.shape == (len(batch), 1, 3, 3)
        return hypotheses.with_z(z[batch.particle][:, None], torch.zeros(len(batch), 1))

    conformation = None if z is None else told
    treatment = Polish(problem.grid, table, volume, problem.grid.box / 2, 4, base, conformation)
    treatment.chunk = 7
    return treatment(Hypotheses.empty(len(batch), "cpu"), batch)


def errors(problem, table) -> tuple[torch.Tensor, torch.Tensor]:
    """Degrees and pixels, of every particle."""
    first = torch.unique(problem.stack.particle, return_inverse=True)[1].bincount().cumsum(0)
    first = torch.cat([first.new_zeros(1), first[:-1]])
    poses = problem.stack.poses
    angle = torch.rad2deg(angle_between(table.rotation.double(), poses.rotation[first].double()))
    return angle, (table.shift - poses.shift[first]).norm(dim=1) / problem.grid.apix


def final_steps(problem, plan) -> tuple[float, float]:
    """Degrees and pixels between nodes of the last level."""
    side = 2 * plan.extent / plan.shifts / 2**plan.subdivisions
    return math.degrees(so3_grid.spacing(plan.level + plan.subdivisions)), side / problem.grid.apix


def left_by_the_grid(problem, plan) -> float:
    """Median distance in degrees from the true rotations to the nearest node of the last level."""
    level, truth = plan.level + plan.subdivisions, problem.stack.poses.rotation
    near = so3_grid.rotations(level, so3_grid.neighbours(level, so3_grid.nearest(level, truth)))
    return float(torch.rad2deg(angle_between(near, truth[:, None].expand_as(near)).amin(1).median()))


@pytest.fixture(scope="module", params=BANDS)
def clean(request, planted):
    """Noise-free images of several boxes."""
    return planted(48, box=request.param)


@pytest.fixture(scope="module")
def one(planted):
    """Noise-free images of 24 px."""
    return planted(24, box=24, seed=2)


def test_planted_poses_are_found_as_well_as_the_grid_allows(clean):
    """A perfect search leaves the distance to the nearest node, .48 of a step in the median; then polishing."""
    plan = plan_of(clean.grid.box)
    search, found = searched(clean, plan)
    angle, shift = errors(clean, search.table)
    step, side = final_steps(clean, plan)
    assert angle.median() < 1.25 * left_by_the_grid(clean, plan)
    assert angle.max() < 3 * step
    assert shift.median() < side / 2
    assert torch.equal(found.rotation[:, 0], search.table.rotation)
    assert torch.equal(found.shift[:, 0], search.table.shift)
    refined = polished(clean, search.table)
    angle, shift = errors(clean, search.table)
    assert angle.median() < 0.02 * step
    assert (angle < 0.1).float().mean() > 0.95
    assert (shift < 0.02).float().mean() > 0.95
    assert torch.equal(refined.rotation[:, 0], search.table.rotation)


def test_each_level_halves_the_error(one):
    found = [errors(one, searched(one, plan_of(24, subdivisions=n))[0].table) for n in (0, 1, 2)]
    for coarse, fine in pairwise(found):
        for before, after in zip(coarse, fine, strict=True):
            assert 0.3 * before.median() < after.median() < 0.8 * before.median()


def test_polishing_on_top_of_a_search_is_both(one):
    plan = plan_of(24)
    search, _ = searched(one, plan)
    polished(one, search.table)
    table = PoseTable.unknown(24)
    base = Search(one.grid, table, plan)
    base.look_at(Raster(one.maps[:1], one.grid, 12))
    found = polished(one, table, base)
    torch.testing.assert_close(table.rotation, search.table.rotation)
    torch.testing.assert_close(found.shift[:, 0], table.shift)
    assert not found.log_weight.any()


def test_polishing_never_raises_an_energy(planted):
    """Started far away in noise, where a step may have to be taken back."""
    problem = planted(60, box=16, sigma=2.0, seed=5)
    batch, poses, own = everything(problem), problem.stack.poses, torch.arange(60)
    volume = VoxelGrid.from_density(problem.maps[:1], problem.grid)
    turn = rotations.from_rotation_vector(0.5 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0)))
    start = turn @ poses.rotation, poses.shift + 3.0
    with torch.no_grad():
        found = [polish(volume, problem.grid, *start, batch, iterations=n) for n in range(6)]
    for (_, _, before), (_, _, after) in pairwise(found):
        assert (after <= before).all()
    assert torch.equal(found[0][0], start[0])
    assert (found[-1][2] < found[0][2] - 1).all()
    table = PoseTable(*start)
    polished(problem, table)
    torch.testing.assert_close(table.rotation, found[4][0], rtol=0, atol=1e-3)
    search = Search(problem.grid, table, plan_of(16))
    search.look_at(volume)
    with torch.no_grad():
        now = search.energies(table.rotation[:, None, None], table.shift[:, None, None], batch, own, 8).flatten()
    torch.testing.assert_close(table.evidence, -now, rtol=1e-4, atol=1e-2)


# --- bounds


def grid_energies(problem, search, level, limit) -> torch.Tensor:
    """Energies ``(B, T M)`` of every pose of a level, by brute force."""
    band = problem.grid.band(limit)
    batch = everything(problem).select(band)
    slices = search.volume.component_slices(so3_grid.rotations(level), band)[..., 0]
    ramps = problem.grid.phase_ramp(shift_grid(EXTENT, 4), band)
    return shared_energies(slices, batch.data, batch.power, ramps).flatten(1)


def judged(problem, bound, level=1) -> tuple[Search, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A search that looks at its base grid only and lets all of it go on, but for the bound. Lower bounds and full energies of
    every pose ``(B, T M)``; which of them go on."""
    kmin, kmax = BANDS[problem.grid.box]
    n, size = problem.stack.n_particles, so3_grid.size(level)
    search, found = searched(problem, Plan(EXTENT, level, 4, 0, kmin, kmax, 16 * size, 16 * size, bound))
    beyond = slice(problem.grid.n_points(kmin), problem.grid.n_points(kmax))
    lower = grid_energies(problem, search, level, kmin)
    lower = lower + search.least_beyond(beyond, everything(problem), torch.arange(n), n)[:, None]
    cell = (found.shift[:, :, None] - shift_grid(EXTENT, 4)).abs().sum(-1).argmin(-1)
    place = cell * size + so3_grid.nearest(level, found.rotation)
    kept = torch.zeros_like(lower, dtype=torch.bool).scatter_(1, place, found.log_weight > -math.inf)
    return search, lower, grid_energies(problem, search, level, kmax), kept


@pytest.mark.parametrize("sigma", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("box", [16, 24])
def test_the_rigorous_bound_bounds_every_pose_and_keeps_the_best(box, sigma, planted):
    problem = planted(6, box=box, sigma=sigma)
    for level in (0, 1):
        search, lower, full, kept = judged(problem, "rigorous", level)
        assert (lower <= full + 1e-4 * full.abs().amax(1, keepdim=True)).all()
        assert kept.gather(1, full.argmin(1, keepdim=True)).all()
        assert search.survivors == [float(kept.float().sum(1).mean())]
    if sigma == 0:
        assert (~kept).float().mean() > 0.05, "it prunes"


@pytest.mark.parametrize("unit", [1.0, 1e5])
def test_the_least_that_can_come_is_a_perfect_fit(unit, one):
    """``-sum |y|^2 / sigma^2`` beyond the band: over the whole plane, the image's own constant, whatever the images' unit."""
    source = ArraySource((unit * one.stack.images()).numpy())
    loader = Loader(replace(one.stack, source=source), one.grid, unit**2 * one.noise, windowed=False)
    batch, search = loader.of(torch.arange(24)), Search(one.grid, PoseTable.unknown(24), plan_of(24, bound="rigorous"))
    found = search.least_beyond(slice(None), batch, torch.arange(24), 24)
    torch.testing.assert_close(found, -batch.norm, rtol=1e-3, atol=0)


@pytest.mark.parametrize("sigma", [0.0, 1.0, 3.0])
def test_the_probabilistic_bound_prunes_and_keeps_the_truths_neighbourhood(sigma, planted):
    problem = planted(12, box=24, sigma=sigma, seed=3)
    _, _, full, kept = judged(problem, "probabilistic")
    assert kept.float().mean() < 0.6
    assert kept.gather(1, full.argmin(1, keepdim=True)).all()
    nodes = so3_grid.rotations(1).repeat(16, 1, 1)[None].expand(12, -1, -1, -1)
    away = angle_between(nodes, problem.stack.poses.rotation[:, None].expand_as(nodes)) / so3_grid.spacing(1)
    assert torch.where(kept, away, math.inf).amin(1).max() < 0.9, "a node whose cell holds the truth goes on"
    if sigma == 3:
        sure = judged(problem, "rigorous")[-1]
        assert kept.float().sum() < 0.6 * sure.float().sum(), "in noise a perfect fit is no bound at all"


def test_the_probabilistic_bound_holds_for_true_poses_in_noise(planted):
    """What a true pose gains beyond the band is ``P`` with variance ``2 P``: almost never more than ``P + 4 sqrt(P)``."""
    problem = planted(400, box=16, sigma=3.0)
    search, _ = searched(problem, plan_of(16, bound="probabilistic", level=0, subdivisions=0))
    beyond = slice(problem.grid.n_points(3), problem.grid.n_points(7))
    least = search.least_beyond(beyond, everything(problem), torch.arange(400), 400)
    poses, batch = problem.stack.poses, everything(problem).select(beyond)
    volume = VoxelGrid.from_density(problem.maps[:1], problem.grid)
    slices = volume.slices(poses.rotation[:, None], torch.zeros(400, 1, 0), beyond).detach()[:, 0]
    slices = slices * problem.grid.phase_ramp(-poses.shift, beyond)
    power = (batch.power * slices.abs().square()).sum(1)
    gained = power - 2 * (batch.data.conj() * slices).real.sum(1)
    assert ((gained + power) / power.sqrt()).std() == pytest.approx(2**0.5, rel=0.15)
    assert (gained < least).float().mean() < 0.005


@pytest.mark.parametrize("bound", ["rigorous", "probabilistic"])
def test_bounds_change_the_work_and_not_the_poses(bound, one):
    free, _ = searched(one, plan_of(24))
    bounded, _ = searched(one, plan_of(24, bound=bound))
    assert sum(bounded.survivors) <= sum(free.survivors)
    assert bounded.survivors[0] < 12 if bound == "probabilistic" else bounded.survivors[0] <= 12
    same = (bounded.table.rotation == free.table.rotation).all(-1).all(-1)
    assert same.float().mean() > 0.9


def test_an_unknown_bound_is_refused():
    with pytest.raises(InputError, match="bound: expected one of none, rigorous, probabilistic, found 'guess'"):
        Plan(8.0, bound="guess")


# --- how the work is cut


def test_memory_does_not_change_the_result(one):
    plan, some = plan_of(24, keep=4), one.loader().read(torch.arange(8))
    results = [searched(one, replace(plan, memory=memory), some, PoseTable.unknown(8))
               for memory in (1 << 28, 1 << 21, 1 << 17)]
    (whole, found), *others = results
    for search, cut in others:
        assert torch.equal(search.table.rotation, whole.table.rotation)
        assert torch.equal(search.table.shift, whole.table.shift)
        torch.testing.assert_close(search.table.evidence, whole.table.evidence, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(cut.log_weight.exp(), found.log_weight.exp(), rtol=0, atol=0.02)
        assert search.survivors == whole.survivors


def test_a_larger_cap_finds_no_worse(one):
    """What the cap cuts off is lost: more survivors may find better poses, but hardly ever need to."""
    few, many = (searched(one, plan_of(24, survivors=n))[0].table for n in (6, 40))
    assert (many.evidence > few.evidence - 1e-3 * few.evidence.abs()).float().mean() > 0.9
    same = (few.rotation == many.rotation).all(-1).all(-1)
    assert same.float().mean() > 0.7


def test_every_image_gets_the_pose_of_its_own_particle(one):
    """Batches come in any order."""
    whole, _ = searched(one, plan_of(24))
    index = torch.tensor([7, 20, 3, 11])
    table = PoseTable.unknown(24)
    _, found = searched(one, plan_of(24), one.loader().read(index), table)
    assert torch.equal(found.rotation[:, 0], whole.table.rotation[index])
    assert torch.equal(found.shift[:, 0], whole.table.shift[index])
    assert torch.equal(table.rotation[index], whole.table.rotation[index])
    others = torch.ones(24, dtype=torch.bool).index_fill(0, index, False)
    assert (table.rotation[others] == torch.eye(3)).all()


# --- several hypotheses


def test_the_best_k_have_the_posteriors_weights_among_each_other(planted):
    problem = planted(10, box=16, sigma=2.0)
    search, found = searched(problem, plan_of(16, keep=6))
    assert found.rotation.shape == (10, 6, 3, 3)
    assert found.shift.shape == (10, 6, 2)
    torch.testing.assert_close(found.log_weight.exp().sum(1), torch.ones(10))
    assert (found.log_weight.diff(dim=1) <= 0).all()
    with torch.no_grad():
        energy = search.energies(found.rotation[:, :, None], found.shift[:, :, None], everything(problem), torch.arange(10), 7)
    torch.testing.assert_close(found.log_weight, torch.log_softmax(-energy[:, :, 0, 0], 1), atol=0.02, rtol=0.01)
    torch.testing.assert_close(search.table.evidence, torch.logsumexp(-energy[:, :, 0, 0], 1), atol=0.02, rtol=1e-3)
    pairs = torch.cat([found.rotation.flatten(2), found.shift], 2)
    assert torch.cdist(pairs, pairs).add(torch.eye(6)).amin() > 1e-3, "none twice"
    warm = searched(problem, plan_of(16, keep=6, temperature=20.0))[1]
    torch.testing.assert_close(warm.log_weight, torch.log_softmax(-energy[:, :, 0, 0] / 20, 1), atol=0.02, rtol=0.01)


@pytest.mark.parametrize("bound", ["rigorous", "probabilistic"])
def test_a_bound_leaves_k_hypotheses(bound, planted):
    """The last level is not pruned to its best: what is close to it keeps its weight."""
    problem = planted(16, box=16, sigma=2.0, seed=6)
    free, bounded = (searched(problem, plan_of(16, keep=6, bound=each))[1].log_weight.exp() for each in ("none", bound))
    torch.testing.assert_close(bounded.sum(1), torch.ones(16))
    assert (bounded > 0).float().mean() > 0.8
    assert ((bounded - free).abs().amax(1) < 0.02).float().mean() > 0.8


def test_children_of_what_was_pruned_do_not_come_back(one):
    """32 of the one node that went on; the rest of K weigh nothing."""
    plan = plan_of(24, level=1, subdivisions=1, kmin=9, survivors=64, keep=64, bound="rigorous")
    search, found = searched(one, plan, one.loader().read(torch.tensor([0])), PoseTable.unknown(24))
    assert search.survivors == [1.0, 32.0]
    weight = found.log_weight.exp()
    torch.testing.assert_close(weight.sum(1), torch.ones(1))
    assert (weight[0, 32:] == 0).all()
    assert torch.isfinite(found.shift).all()


# --- around known poses


def test_a_local_search_comes_back_from_ten_degrees_and_a_pixel(one):
    generator = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(24, 3, generator=generator), dim=1)
    away = torch.nn.functional.normalize(torch.randn(24, 2, generator=generator), dim=1) * one.grid.apix
    poses = one.stack.poses
    table = PoseTable(rotations.from_rotation_vector(math.radians(10) * axis) @ poses.rotation, poses.shift + away)
    plan = plan_of(24, local=True, level=2, extent=1.5 * one.grid.apix, shifts=3)
    search, _ = searched(one, plan, table=table)
    angle, shift = errors(one, search.table)
    assert angle.median() < 1.25 * left_by_the_grid(one, plan)
    assert angle.max() < 10
    assert shift.median() < 0.75 * final_steps(one, plan)[1]
    polished(one, search.table)
    angle, shift = errors(one, search.table)
    assert (angle < 0.1).float().mean() > 0.95
    assert (shift < 0.02).float().mean() > 0.95


def test_a_local_search_does_not_leave_the_place(one):
    """Started at poses turned over, it must not find the true ones."""
    over = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    table = PoseTable(over @ one.stack.poses.rotation, one.stack.poses.shift)
    start = table.rotation.clone()
    plan = plan_of(24, local=True, level=2, extent=one.grid.apix, shifts=3)
    searched(one, plan, table=table)
    assert torch.rad2deg(angle_between(table.rotation, start)).max() < 2.2 * 15 + 15
    assert ((table.shift - one.stack.poses.shift).abs() < one.grid.apix).all()


# --- several images of a particle, and several conformations


def tilted_pairs(problem, degrees=45.0):
    """Each particle untilted and at ``T R``, the same shift, a CTF of its own."""
    n, grid, poses = len(problem.stack), problem.grid, problem.stack.poses
    tilt = torch.stack([torch.eye(3), rotations.about_x(math.radians(degrees))]).repeat(n, 1, 1)
    rotation, shift = tilt @ poses.rotation.repeat_interleave(2, 0), poses.shift.repeat_interleave(2, 0)
    rows = problem.stack.optics.parameters.repeat_interleave(2, 0).clone()
    rows[1::2, :2] += 3000
    family = VoxelGrid.from_density(problem.maps[:1], grid)
    with torch.no_grad():
        clean = family.slices(rotation[:, None], torch.zeros(2 * n, 1, 0), slice(None))[:, 0]
    images = grid.images(clean * ctf(Optics(rows), grid.frequency) * grid.phase_ramp(-shift)).numpy()
    particle = torch.arange(n).repeat_interleave(2)
    stack = ParticleStack(ArraySource(images), grid.apix, Optics(rows), Poses(rotation, shift), particle, tilt=tilt)
    return replace(problem, stack=stack)


def test_a_tilt_pair_is_searched_jointly(one):
    problem, plan = tilted_pairs(one), plan_of(24)
    search, found = searched(problem, plan)
    assert search.table.rotation.shape == (24, 3, 3)
    angle, _ = errors(problem, search.table)
    assert angle.median() < 1.25 * left_by_the_grid(one, plan)
    assert found.rotation.shape == (48, 1, 3, 3)
    torch.testing.assert_close(found.rotation[1::2, 0], problem.stack.tilt[1] @ search.table.rotation)
    refined = polished(problem, search.table)
    angle, shift = errors(problem, search.table)
    assert (angle < 0.1).float().mean() > 0.95
    assert (shift < 0.02).float().mean() > 0.95
    right = angle < 0.1
    torch.testing.assert_close(refined.rotation[:, 0][right.repeat_interleave(2)],
                               problem.stack.poses.rotation[right.repeat_interleave(2)], atol=3e-3, rtol=0)


def test_both_images_of_a_pair_count(one):
    """Untilted images of pure noise: only the tilted ones know."""
    problem = tilted_pairs(one)
    images = problem.stack.images().clone()
    images[0::2] = 0
    deaf = replace(problem.stack, source=ArraySource(images.numpy()))
    batch = Loader(deaf, problem.grid, problem.noise, windowed=False).of(torch.arange(24))
    power = batch.power.clone()
    power[0::2] = 0  # a CTF of zero
    batch = replace(batch, power=power)
    search, _ = searched(problem, plan_of(24), batch)
    assert errors(problem, search.table)[0].median() < 1.25 * left_by_the_grid(one, plan_of(24))


def test_a_pair_of_images_is_never_parted(one):
    problem = tilted_pairs(one)
    some = problem.loader().of(torch.arange(6))
    whole, cut = (searched(problem, plan_of(24, memory=memory), some)[0].table for memory in (1 << 28, 1 << 17))
    assert torch.equal(whole.rotation, cut.rotation)


def test_particles_are_searched_at_their_own_conformation(planted):
    problem = planted(24, box=24, motion=0.5, seed=4)
    blind, _ = searched(problem, plan_of(24))
    seeing, _ = searched(problem, plan_of(24), maps=problem.maps, z=problem.z)
    assert seeing.table.evidence.mean() > blind.table.evidence.mean()
    assert errors(problem, seeing.table)[0].median() < 1.3 * left_by_the_grid(problem, plan_of(24))
    polished(problem, seeing.table, maps=problem.maps, z=problem.z)
    polished(problem, blind.table)
    assert (errors(problem, seeing.table)[0] < 0.1).float().mean() > 0.9
    assert errors(problem, blind.table)[0].median() > 0.3


def test_nodes_are_ordered_joined_and_dropped():
    nodes = Nodes(torch.tensor([[4, 7, 9]]), torch.arange(6.0).view(1, 3, 2), torch.tensor([[3.0, 1.0, 2.0]]))
    best = nodes.best(2)
    assert best.node.tolist() == [[7, 9]]
    assert best.shift.tolist() == [[[2.0, 3.0], [4.0, 5.0]]]
    both = best.joined(replace(nodes, energy=nodes.energy - 9)).best(9)
    assert both.energy.tolist() == [[-8, -7, -6, 1, 2]]
    left = both.without(torch.tensor([[True, True, False, False, True]]))
    assert left.energy.isinf().tolist() == [[False, True, False, False, True]]


@pytest.mark.cuda
def test_cpu_and_gpu_agree(one):
    plan = plan_of(24, keep=3, bound="probabilistic")
    search, found = searched(one, plan)
    grid, batch = one.grid.to("cuda"), everything(one).to("cuda")
    table = PoseTable.unknown(24, device="cuda")
    there = Search(grid, table, plan)
    there.look_at(Raster(one.maps[:1].cuda(), grid, 12))
    other = there(Hypotheses.empty(24, "cuda"), batch)
    same = angle_between(table.rotation.cpu(), search.table.rotation) < 1e-3
    same &= (table.shift.cpu() - search.table.shift).norm(dim=1) < 1e-3
    assert same.float().mean() > 0.9, "ties may fall otherwise"
    torch.testing.assert_close(table.evidence.cpu()[same], search.table.evidence[same], rtol=1e-3, atol=0.1)
    torch.testing.assert_close(other.log_weight.exp().sum(1).cpu(), found.log_weight.exp().sum(1))
    volume = VoxelGrid.from_density(one.maps[:1].cuda(), grid)
    Polish(grid, table, volume, 12)(other, batch)
    table.to("cpu")
    angle, shift = errors(one, table)
    assert (angle < 0.1).float().mean() > 0.9
    assert (shift < 0.02).float().mean() > 0.9


def test_parts_of_a_batch_hold_whole_particles(one):
    batch = one.loader().read(torch.arange(7))
    batch = replace(batch, particle=torch.tensor([4, 4, 4, 1, 7, 7, 2]))
    assert batch.particle_starts().tolist() == [0, 3, 4, 6]
    assert [part.image.tolist() for part in batch.split_particles(2)] == [[0, 1, 2, 3], [4, 5, 6]]
    assert [part.image.tolist() for part in batch.split_particles(9)] == [list(range(7))]
    assert torch.equal(torch.cat([part.data for part in batch.split_particles(1)]), batch.data)
