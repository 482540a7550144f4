"""Tasks side by side: results in order, errors passed on, threads as they were."""

import threading

import pytest
import torch

from cryorecon.geometry.grid import Grid
from cryorecon.objectives.cores import all_cores, one_core_a_task, side_by_side


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def numbered(count):
    return [lambda number=number: (number, threading.get_ident()) for number in range(count)]


def test_in_order_and_in_turn_by_default():
    assert side_by_side(numbered(4)) == [(number, threading.get_ident()) for number in range(4)]


def test_at_once_where_the_cores_are_free(two_threads):
    meet = threading.Barrier(2, timeout=20)  # passed only if both run at the same time
    with one_core_a_task(Grid(16, 1.0)):
        assert torch.get_num_threads() == 1
        found = side_by_side([lambda: meet.wait() >= 0 and torch.get_num_threads()] * 2)
        assert [number for number, _ in side_by_side(numbered(5))] == list(range(5))
    assert found == [1, 1]
    assert torch.get_num_threads() == 2


def test_large_boxes_keep_their_threads(two_threads):
    with one_core_a_task(Grid(256, 1.0)):
        assert torch.get_num_threads() == 2
        assert side_by_side(numbered(2)) == [(number, threading.get_ident()) for number in range(2)]


def test_errors_are_raised(two_threads):
    def broken():
        raise KeyError("here")

    with one_core_a_task(Grid(16, 1.0)), pytest.raises(KeyError, match="here"):
        side_by_side([broken, *numbered(1)])
    assert torch.get_num_threads() == 2


def test_a_single_task_may_have_all_cores(two_threads):
    with one_core_a_task(Grid(16, 1.0)):
        with all_cores():
            assert torch.get_num_threads() == 2
            assert {thread for _, thread in side_by_side(numbered(3))} == {threading.get_ident()}
        assert torch.get_num_threads() == 1
        meet = threading.Barrier(2, timeout=20)
        side_by_side([meet.wait] * 2)
