"""Laws of the nested grids on SO(3). Distances are in steps between in-plane angles, so that one number serves all levels."""

import pytest
import torch

from cryorecon.geometry import rotations, so3_grid
from cryorecon.geometry.rotations import angle_between

WHOLE = [0, 1, 2]  # levels small enough to look at every node


def some(level: int, n: int = 1500) -> torch.Tensor:
    """Nodes of a level: all of them, or ``n`` drawn at random."""
    if level in WHOLE:
        return torch.arange(so3_grid.size(level))
    return torch.randint(so3_grid.size(level), (n,), generator=torch.Generator().manual_seed(level))


def steps(first, second, level):
    """Distances in the level's steps, in double precision: at level 8 a step is .2 degrees."""
    return angle_between(first.double(), second.double()) / so3_grid.spacing(level)


def closeness(level: int, n: int = 2000, seed: int = 0) -> torch.Tensor:
    """Traces of ``n`` random rotations with every node, ``(n, size)``: the larger, the closer."""
    sample = rotations.random(n, torch.Generator().manual_seed(seed))
    return sample.flatten(1) @ so3_grid.rotations(level).flatten(1).T


def to_steps(trace, level):
    return torch.acos(((trace.double() - 1) / 2).clamp(-1, 1)) / so3_grid.spacing(level)


def test_sizes_are_the_papers():
    """Yershova et al. 2010: 576 rotations 30 degrees apart, eight times as many a level, .92 degrees at level 6."""
    assert so3_grid.size(so3_grid.BASE_LEVEL) == 576
    assert [so3_grid.size(level + 1) // so3_grid.size(level) for level in range(8)] == [8] * 8
    degrees = torch.rad2deg(torch.tensor([so3_grid.spacing(1), so3_grid.spacing(6)]))
    torch.testing.assert_close(degrees, torch.tensor([30.0, 0.9375]))


@pytest.mark.parametrize("level", WHOLE)
def test_nodes_are_rotations_far_apart(level):
    found = so3_grid.rotations(level)
    assert found.dtype == torch.float32
    assert found.shape == (so3_grid.size(level), 3, 3)
    assert rotations.defect(found).max() < 1e-5
    chosen = some(level)[:: max(1, level * 16)]
    trace = found[chosen].flatten(1) @ found.flatten(1).T
    trace[torch.arange(len(chosen)), chosen] = -1
    assert to_steps(trace.amax(1), level).min() > 0.8


@pytest.mark.parametrize("level", WHOLE)
def test_children_partition_the_next_level(level):
    children = so3_grid.children(level, some(level))
    assert torch.equal(children.flatten().sort().values, torch.arange(so3_grid.size(level + 1)))


@pytest.mark.parametrize("level", [*WHOLE, 4, 5, 6, 8])
def test_a_parent_is_the_one_node_that_has_the_child(level):
    """At the finer levels symmetry puts thousands of nodes midway between two parents: rounding must not decide."""
    nodes = some(level, 20_000)
    children = so3_grid.children(level, nodes)
    assert torch.equal(so3_grid.parents(level + 1, children), nodes[:, None].expand(-1, 8))
    orphans = some(level + 1, 20_000)
    siblings = so3_grid.children(level, so3_grid.parents(level + 1, orphans))
    assert (siblings == orphans[:, None]).any(1).all()


@pytest.mark.parametrize("level", [*WHOLE, 5, 6, 8])
def test_children_lie_around_their_parent(level):
    """Half of a step along each axis at most, and a little more where pixels are long."""
    nodes = some(level)
    own = so3_grid.rotations(level, nodes)
    found = so3_grid.rotations(level + 1, so3_grid.children(level, nodes))
    distance = steps(found, own[:, None].expand_as(found), level)
    assert distance.max() < 0.72
    assert 0.4 < distance.mean() < 0.46
    middle = rotations.nearest(found.double().mean(1))
    assert steps(middle, own, level).mean() < 0.2, "the parent lies in their middle"


@pytest.mark.parametrize("level", [0, 1, 2, 5])
def test_neighbours_are_around_the_node(level):
    nodes = some(level)
    found = so3_grid.neighbours(level, nodes)
    assert found.shape == (len(nodes), 27)
    assert (found == nodes[:, None]).any(1).all()
    own = so3_grid.rotations(level, nodes)[:, None].expand(-1, 27, -1, -1)
    assert steps(so3_grid.rotations(level, found), own, level).max() < (2.2 if level < 3 else 2.5)
    distinct = torch.tensor([len(set(row)) for row in found.tolist()])
    assert distinct.min() >= 24 if level else distinct.min() == 21, "where three pixels meet, one neighbour is missing"


@pytest.mark.parametrize("level", [1, 2])
def test_neighbours_hold_all_that_is_near(level):
    """The 15 nearest nodes of any node, by brute force."""
    nodes = some(level)[:: 8 * level]
    table = so3_grid.rotations(level)
    near = (table[nodes].flatten(1) @ table.flatten(1).T).topk(16, 1).indices
    assert (near[:, :, None] == so3_grid.neighbours(level, nodes)[:, None]).any(-1).all()


@pytest.mark.parametrize("level", WHOLE)
def test_nearest_is_near(level):
    """It goes by the direction's pixel first, so that it may miss the nearest by a little; its neighbours hold that one."""
    sample = rotations.random(2000, torch.Generator().manual_seed(0))
    nearest = so3_grid.nearest(level, sample)
    assert steps(so3_grid.rotations(level, nearest), sample, level).max() < 1.1
    best = closeness(level).argmax(1)
    assert (nearest == best).float().mean() > 0.85
    assert (so3_grid.neighbours(level, nearest) == best[:, None]).any(1).all()


@pytest.mark.parametrize("level", [0, 2, 5, 8])
def test_nearest_of_a_node_is_itself(level):
    nodes = some(level)
    turn = rotations.from_rotation_vector(torch.tensor([0.0, 0.0, 0.2 * so3_grid.spacing(level)]))
    assert torch.equal(so3_grid.nearest(level, turn @ so3_grid.rotations(level, nodes)), nodes)


@pytest.mark.parametrize("level", WHOLE)
def test_no_rotation_is_far_from_the_grid(level):
    distance = to_steps(closeness(level).amax(1), level)
    assert distance.max() < (0.9 if level else 0.95), "covering radius"
    assert 0.45 < distance.median() < 0.51, "what a perfect search of the grid leaves"


@pytest.mark.parametrize("level", [0, 1])
def test_nodes_own_equal_shares_of_so3(level):
    n = so3_grid.size(level)
    drawn = 50 * n
    count = torch.zeros(n)
    for seed in range(drawn // 3600):
        count += torch.bincount(closeness(level, 3600, seed).argmax(1), minlength=n)
    share = count / count.mean()
    assert share.std() < 0.2, "14 % of it chance"
    assert 0.5 < share.min() < share.max() < 1.6
    assert so3_grid.rotations(level).mean(0).abs().max() < 1e-6


def test_a_fine_level_costs_nothing():
    """Level 8 has 1.2e9 nodes: nothing of that size may be made."""
    nodes = some(8, 10)
    assert so3_grid.size(8) > 1e9
    found = so3_grid.rotations(8, nodes)
    assert rotations.defect(found).max() < 1e-5
    distance = steps(so3_grid.rotations(8, so3_grid.neighbours(8, nodes)), found[:, None].expand(-1, 27, -1, -1), 8)
    assert distance.max() < 2.5
    assert so3_grid.parents(8, nodes).max() < so3_grid.size(7)


def test_any_shape_of_nodes():
    nodes = torch.randint(so3_grid.size(3), (2, 5), generator=torch.Generator().manual_seed(0))
    assert so3_grid.rotations(3, nodes).shape == (2, 5, 3, 3)
    assert torch.equal(so3_grid.children(3, nodes)[1, 2], so3_grid.children(3, nodes[1, 2]))
    assert torch.equal(so3_grid.neighbours(3, nodes)[1, 2], so3_grid.neighbours(3, nodes[1, 2]))
    assert so3_grid.parents(3, nodes).shape == (2, 5)
