"""Poses of files: rows and images, units, who says how large the images are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon.analysis.pose_files import ImageSize, PoseTable, common_size
from cryorecon.errors import InputError
from cryorecon.geometry.rotations import random


def test_rows_of_a_tilt_series_are_all_its_images() -> None:
    rotation, shift = random(6), torch.arange(12.0).reshape(6, 2)
    table = PoseTable(ImageSize(Path("a")), rotation, shift, "px", np.array([0, 0, 1, 1, 1, 2]), np.arange(6.0))
    assert (len(table), table.n_rows) == (6, 3)
    chosen = table.select(np.array([2, 0]))
    images = torch.tensor([5, 0, 1])
    assert torch.equal(chosen.rotation, rotation[images])
    assert chosen.shift is not None
    assert torch.equal(chosen.shift, shift[images])
    assert chosen.defocus is not None
    np.testing.assert_array_equal(chosen.defocus, images)


def test_units() -> None:
    size = ImageSize(Path("a"), 64, 3.0)
    assert size.factor("box", "Å") == pytest.approx(192)
    assert size.factor("Å", "px") == pytest.approx(1 / 3)
    assert size.factor("px", "box") == pytest.approx(1 / 64)
    blank = ImageSize(Path("a"))
    assert blank.factor("box", "box") == 1
    assert [blank.factor("box", "px"), blank.factor("px", "Å"), blank.factor("Å", "box")] == [None, None, None]
    assert ImageSize(Path("a"), box=64).factor("box", "px") == 64


def test_who_says_how_large_the_images_are() -> None:
    nobody, half = ImageSize(Path("none")), ImageSize(Path("half"), apix=1.5)
    whole, other = ImageSize(Path("whole"), 64, 3.0), ImageSize(Path("other"), 128, 1.5)

    def said(*arguments) -> tuple:
        found = common_size(*arguments)
        return found.box, found.apix

    assert said([nobody, whole, other], None, None) == (64, 3.0)
    assert said([half, whole], None, None) == (64, 3.0)  # never the pixel size of one with the box of another
    assert said([nobody, half], None, None) == (None, 1.5)
    assert said([nobody, half], 128, None) == (128, 1.5)
    assert said([whole], 32, 6.0) == (32, 6.0)
    with pytest.raises(InputError, match="expected images of 192 Å"):
        common_size([whole], 32, None)
    with pytest.raises(InputError, match="--apix: expected more than 0"):
        common_size([nobody], None, -1.0)
