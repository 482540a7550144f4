"""Laws of the nested grids of shifts."""

import pytest
import torch

from cryorecon.geometry.shift_grid import shift_children, shift_grid


@pytest.mark.parametrize("n", [1, 2, 7])
def test_cells_fill_the_square_around_zero(n):
    found = shift_grid(14.0, n)
    assert found.shape == (n * n, 2)
    torch.testing.assert_close(found.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    edge = 14.0 - 14.0 / n
    assert found.abs().max() == pytest.approx(edge)
    generator = torch.Generator().manual_seed(0)
    anywhere = (torch.rand(500, 2, generator=generator) - 0.5) * 28
    assert (anywhere[:, None] - found).abs().amax(-1).amin(1).max() <= 14.0 / n + 1e-4, "every shift lies in a cell"


def test_x_runs_first():
    torch.testing.assert_close(shift_grid(2.0, 2), torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]]))


@pytest.mark.parametrize("n", [1, 3, 4])
def test_children_of_a_grid_are_the_grid_of_half_the_step(n):
    found = shift_children(shift_grid(6.0, n), 12.0 / n)
    assert found.shape == (n * n, 4, 2)
    finer = shift_grid(6.0, 2 * n)
    distance = torch.cdist(found.flatten(0, 1), finer)
    assert torch.equal(distance.argmin(1).sort().values, torch.arange(4 * n * n))
    assert distance.amin(1).max() < 1e-5


def test_children_lie_in_the_middles_of_the_quarters():
    around = torch.tensor([[[3.0, -1.0]]])
    found = shift_children(around, 4.0)
    assert found.shape == (1, 1, 4, 2)
    torch.testing.assert_close((found - around[..., None, :]).abs(), torch.ones(1, 1, 4, 2))
    torch.testing.assert_close(found.mean(-2), around)
