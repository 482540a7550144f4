"""What ``cryorecon backproject`` draws and writes of its half maps."""

import pytest
import torch

from cryorecon.cli import backproject
from cryorecon.metrics.fsc import FSCCurve
from cryorecon.report import style

FREQUENCY = torch.arange(9, dtype=torch.float64) / 16
APIX = 2.0
FALLING = [1, 0.9, 0.8, 0.7, 0.6, 0.4, 0.2, 0.086, 0]  # 0.5 half way between shells 4 and 5, 0.143 between 6 and 7


@pytest.mark.parametrize(("values", "marked"), [
    (FALLING, ["4.92 Å", "7.11 Å"]),
    ([1, 0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.3, 0.3], ["7.11 Å"]),
    ([1, 0.4, 0.4, 0.3, 0.086, 0, 0, 0, 0], ["8.57 Å"]),
    ([1, 0.1, 0, 0, 0, 0, 0, 0, 0], []),
], ids=["both crossed", "0.143 never reached", "0.5 nowhere resolved", "nothing resolved"])
def test_only_what_was_crossed_is_marked(tmp_path, monkeypatch, values, marked):
    """A resolution that is a bound, at either end of the curve, is no point of it."""
    drawn = []
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.append(figure))
    curve = FSCCurve(FREQUENCY, torch.tensor(values, dtype=torch.float64), "rounded", "none")
    backproject._write_curves(tmp_path, [curve, curve], APIX)
    assert sorted(text.get_text() for text in drawn[0].axes[0].texts if "Å" in text.get_text()) == marked
