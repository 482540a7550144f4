"""z that follows the view is caught, z that doesn't is not."""

import numpy as np

import cryorecon
from cryorecon.analysis.leakage import leakage, quantities


def test_planted_leaks_are_told_and_nothing_else():
    stack, truth = cryorecon.simulate_stack(cryorecon.flexible("hinge", 2), n=600, box=16, apix=12.0, max_shift=1)
    found = quantities(stack, stack.poses)
    assert list(found) == ["viewing direction", "in-plane angle", "shift", "defocus"]
    rng = np.random.default_rng(0)
    direction = truth.rotation[:, 2].numpy()
    z = rng.normal(size=(600, 3))
    z[:, 0] = direction[:, 2] / direction[:, 2].std() + rng.normal(size=600)  # half of its variance
    z[:, 2] = stack.optics.column("defocus_u").numpy()
    told = leakage(z, found)
    assert abs(told.explained[0, 0] - 0.5) < 0.1
    assert told.explained[2, 3] > 0.98
    assert told.explained[1].max() < 0.05
    assert told.warnings() == [
        f"principal component 3 of z follows the defocus ({100 * told.explained[2, 3]:.0f} % of its variance)",
        f"principal component 1 of z follows the viewing direction ({100 * told.explained[0, 0]:.0f} % of its variance)"]


def test_quantities_that_do_not_vary_explain_nothing():
    told = leakage(np.random.default_rng(0).normal(size=(300, 1)), {"shift": np.zeros((300, 4)), "one": np.ones((300, 1))})
    np.testing.assert_array_equal(told.explained, 0)


def test_of_too_few_nothing_is_said():
    rng = np.random.default_rng(0)
    told = leakage(rng.normal(size=(20, 2)), {"view": rng.normal(size=(20, 8))})
    assert np.isnan(told.explained).all()
    assert told.warnings() == []
