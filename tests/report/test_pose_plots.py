"""Pictures of poses: what they count is what they were given."""

import numpy as np
import pytest
from matplotlib.colors import LogNorm

from cryorecon.geometry.rotations import random
from cryorecon.report.pose_plots import orientation_plot, pose_errors
from cryorecon.report.style import save


def test_every_image_is_counted_and_both_spheres_share_a_scale(tmp_path) -> None:
    rng = np.random.default_rng(0)
    angle, shift = rng.lognormal(0, 1, 300), np.r_[0.0, rng.lognormal(0, 2, 299)]
    rotation = random(300).numpy()
    drawn = pose_errors(angle, rotation, rotation[:50].repeat(6, 0), shift, "px", rng.uniform(8e3, 2e4, 300))
    above, below = drawn.subfigs
    rotations, shifts, defocus = above.axes
    for axes in (rotations, shifts):
        assert sum(patch.get_height() for patch in axes.patches) == 300
        assert axes.get_xscale() == "log"
    assert shifts.get_xlabel() == "shift error (px)"
    assert isinstance(defocus.collections[0].norm, LogNorm)
    scales = [axes.collections[0].get_clim() for axes in below.axes if axes.name == "mollweide"]
    assert len(scales) == 2
    assert scales[0] == scales[1]
    assert save(drawn, tmp_path / "p.png", 40).stat().st_size > 5000


@pytest.mark.parametrize("n", [1, 40])
def test_perfect_poses_and_unknown_shifts(tmp_path, n) -> None:
    rotation = random(n).numpy()
    assert save(pose_errors(np.zeros(n, np.float32), rotation, rotation), tmp_path / "a.png", 40).is_file()
    perfect = pose_errors(np.zeros(n, np.float32), rotation, rotation, np.zeros(n, np.float32), "Å", np.full(n, 1e4))
    assert [sum(patch.get_height() for patch in axes.patches) for axes in perfect.subfigs[0].axes[:2]] == [n, n]
    assert save(perfect, tmp_path / "b.png", 40).is_file()


def test_orientation_plot_takes_tensors(tmp_path) -> None:
    assert orientation_plot(random(500), tmp_path / "views.png").stat().st_size > 5000
