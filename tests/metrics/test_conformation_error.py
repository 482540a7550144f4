"""Latent agreement and the 2-means split."""

import numpy as np
import pytest

from cryorecon.errors import InputError
from cryorecon.metrics.conformation_error import latent_agreement, two_means, two_means_accuracy


def test_a_line_in_latent_space_agrees_with_its_state() -> None:
    rng = np.random.default_rng(0)
    state = np.repeat(np.arange(20), 50)
    z = np.outer(-np.tanh(state / 10), [3.0, -1.0, 2.0]) + 0.05 * rng.normal(size=(1000, 3))
    assert latent_agreement(z, state) > 0.98
    assert latent_agreement(rng.normal(size=(1000, 3)), state) < 0.15


def test_two_clouds_are_split() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=2000)
    z = rng.normal(size=(2000, 4)) + 4.0 * labels[:, None] * np.array([0.0, 1.0, 0.0, 1.0])
    assert two_means_accuracy(z, labels) > 0.98
    assert abs(two_means_accuracy(rng.normal(size=(2000, 4)), labels) - 0.5) < 0.06
    assert not two_means(np.ones((5, 2))).any()


def test_wrong_input_is_named() -> None:
    with pytest.raises(InputError, match="two kinds"):
        two_means_accuracy(np.zeros((3, 1)), np.array([0, 1, 2]))
    with pytest.raises(InputError, match="expected"):
        latent_agreement(np.zeros((3, 1)), np.zeros(4))
