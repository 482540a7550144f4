"""Image sources and stacks: order, repeats, many files, bounded memory."""

import threading

import numpy as np
import pytest
import torch

from cryorecon.data import source as source_module
from cryorecon.data.mrc import write_stack
from cryorecon.data.source import ArraySource, FileSource
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(9, 5, 8, 8)).astype("f4")
    for i, stack in enumerate(images):
        write_stack(tmp_path / f"{i}.mrcs", stack, 1.0)
    return [tmp_path / f"{i}.mrcs" for i in range(9)], images


def test_images_come_in_the_order_asked_for_from_any_files(files, monkeypatch):
    monkeypatch.setattr(source_module, "MAX_OPEN", 2)
    paths, images = files
    rng = np.random.default_rng(1)
    which, frame = rng.integers(0, 9, 300), rng.integers(0, 5, 300)
    source = FileSource.open(paths, which, frame)
    asked = rng.integers(0, 300, 500)
    np.testing.assert_array_equal(source.read(asked), images[which[asked], frame[asked]])
    assert len(source._files) <= 2
    np.testing.assert_array_equal(source.select(asked).read(np.arange(500)), images[which[asked], frame[asked]])
    assert source.read(np.zeros(0, int)).shape == (0, 8, 8)


def test_threads_may_read_at_once(files, monkeypatch):
    monkeypatch.setattr(source_module, "MAX_OPEN", 1)
    paths, images = files
    source, flat, wrong = FileSource.open(paths), images.reshape(-1, 8, 8), []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            asked = rng.integers(0, 45, 10)
            if not np.array_equal(source.read(asked), flat[asked]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_file_that_shrinks_while_open_is_an_error_not_garbage(files):
    paths, _ = files
    source = FileSource.open(paths[:1])
    with paths[0].open("r+b") as file:
        file.truncate(1024 + 2 * 8 * 8 * 4)
    with pytest.raises(InputError, match="has shrunk"):
        source.read(np.arange(5))


def test_a_stack_indexed_is_a_stack(make_data):
    data = make_data(7)
    mask = torch.tensor([True, False, True, False, False, True, False])
    for index, where in (
        (slice(1, 6, 2), [1, 3, 5]),
        ([4, 2], [4, 2]),
        (np.array([6]), [6]),
        (mask, [0, 2, 5]),
        (3, [3]),
    ):
        part = data.stack[index]
        np.testing.assert_array_equal(part.images().numpy(), data.images[where])
        assert torch.equal(part.poses.rotation, data.stack.poses.rotation[where])
        assert torch.equal(part.optics.parameters, data.stack.optics.parameters[where])
        assert part.particle.tolist() == where
        np.testing.assert_array_equal(data.stack.images(index).numpy(), data.images[where])
    assert data.stack.box == 16
    np.testing.assert_array_equal(data.stack.uninverted().images([1]).numpy(), -data.images[[1]])


def test_counts_that_differ_are_refused():
    images = np.zeros((3, 4, 4))
    with pytest.raises(InputError, match="expected 3 particle ids for 3 images, found 2"):
        ParticleStack(ArraySource(images), 1.0, None, None, torch.arange(2))


def test_reading_does_not_change_images_in_memory():
    images = np.ones((2, 4, 4), np.float32)
    stack = ParticleStack.from_images(images, 1.0).uninverted()
    assert float(stack.images().sum()) == -32
    assert images.sum() == 32
