"""FSC against its analytic value, CryoBench's formula and closed forms."""

import numpy as np
import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.metrics.fsc import (
    FSCCurve,
    auc,
    cross_conformation,
    cryobench_curve,
    difference_map_correlation,
    fsc_curve,
    per_conformation_auc,
    resolution,
)


def noise(seed: int, box: int, n: int = 1) -> torch.Tensor:
    return torch.randn(n, box, box, box, generator=torch.Generator().manual_seed(seed)).squeeze(0)


@pytest.mark.parametrize("box", [31, 32])
def test_noise_of_known_ratio_gives_the_analytic_curve(box: int) -> None:
    signal = noise(0, box)
    for snr in (0.25, 1.0, 4.0):
        a, b = signal + noise(1, box) / snr**0.5, signal + noise(2, box) / snr**0.5
        value = fsc_curve(a, b).value[6:]
        assert float((value.mean() - snr / (1 + snr)).abs()) < 0.02


def test_shells_count_every_coefficient_of_the_whole_transform() -> None:
    """The half transform with weights equals the plain sum over the whole one, in both conventions."""
    box = 16
    a, b = noise(3, box), noise(4, box)
    whole = np.fft.fftfreq(box, 1 / box)
    radius = np.sqrt(sum(k**2 for k in np.meshgrid(whole, whole, whole, indexing="ij")))
    fa, fb = np.fft.fftn(a.double().numpy()), np.fft.fftn(b.double().numpy())

    def plain(inside: np.ndarray) -> float:
        x, y = fa[inside], fb[inside]
        return float((x * y.conj()).sum().real / np.sqrt((abs(x) ** 2).sum() * (abs(y) ** 2).sum()))

    rounded, bench = fsc_curve(a, b), cryobench_curve(a, b)
    assert len(rounded.value) == box // 2 + 1
    assert len(bench.value) == box // 2
    for s in range(1, box // 2 + 1):
        assert abs(float(rounded.value[s]) - plain(np.round(radius) == s)) < 1e-5
    for i in range(1, box // 2):
        assert abs(float(bench.value[i]) - plain((radius >= i - 1) & (radius < i))) < 1e-5
    assert float(rounded.value[0]) == float(bench.value[0]) == 1.0
    assert float(bench.frequency[1]) == 1 / box


def test_equal_maps_reach_the_ceiling() -> None:
    a = noise(5, 32)
    assert abs(auc(cryobench_curve(a, a)) - 15 / 32) < 1e-7
    assert abs(auc(fsc_curve(a, 3 * a)) - 0.5) < 1e-6


def test_mask_multiplies_both_maps_and_is_named() -> None:
    a = noise(6, 24)
    b = a.clone()
    b[:, :, 12:] = noise(7, 24)[:, :, 12:]
    mask = torch.zeros(24, 24, 24)
    mask[:, :, :12] = 1
    curve = fsc_curve(a, b, mask, "left half")
    assert float(curve.value.min()) > 1 - 1e-6
    assert curve.mask == "left half"
    assert float(fsc_curve(a, b).value[3:].max()) < 0.9


def test_resolution_is_the_first_crossing() -> None:
    frequency = torch.arange(6, dtype=torch.float64) / 10
    curve = FSCCurve(frequency, torch.tensor([1, 0.9, 0.7, 0.3, 0.6, 0.2]).double(), "rounded", "none")
    found = resolution(curve, 0.5, 2.0)
    assert abs(found.frequency - 0.25) < 1e-7
    assert abs(found.angstrom - 8) < 1e-5
    assert abs(found.pixels - 4) < 1e-5
    assert found.crossed
    assert "first crossing" in str(found)
    assert "0.5" in str(found)
    assert "mask none" in str(found)
    never = resolution(curve, 0.143, 2.0)
    assert not never.crossed
    assert abs(never.angstrom - 4) < 1e-6
    assert "≤" in str(never)


@pytest.mark.parametrize("box", [16, 33])
def test_a_curve_below_the_threshold_from_the_first_shell_on_resolves_nothing(box: int) -> None:
    """Entry 0 is 1 by definition: a crossing between it and the first shell would lie beyond the box."""
    frequency = torch.arange(box // 2 + 1, dtype=torch.float64) / box
    values = torch.full((box // 2 + 1,), 0.2).double()
    values[0] = 1
    curve = FSCCurve(frequency, values, "rounded", "none")
    found = resolution(curve, 0.5, 2.0)
    assert not found.resolved
    assert found.pixels == pytest.approx(box)
    assert found.angstrom == pytest.approx(2 * box)
    assert str(found).startswith(f"≥ {2 * box:.2f} Å")
    assert "nothing resolved" in str(found)
    assert resolution(curve, 0.143, 2.0).resolved
    curve.value[1] = 0.5
    just = resolution(curve, 0.5, 2.0)
    assert just.resolved
    assert just.pixels <= box + 1e-9


def test_clipping_and_empty_shells() -> None:
    curve = fsc_curve(noise(8, 16), -noise(8, 16))
    assert abs(float(curve.value[4]) + 1) < 1e-6
    assert float(curve.clipped().value[4]) == 0.0
    assert torch.isfinite(fsc_curve(torch.zeros(16, 16, 16), noise(8, 16)).value).all()


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError, match="one box"):
        fsc_curve(noise(0, 16), noise(0, 18))
    with pytest.raises(InputError, match="cubic"):
        fsc_curve(torch.zeros(4, 8, 8), torch.zeros(4, 8, 8))
    with pytest.raises(ValueError):
        per_conformation_auc([noise(0, 16)], [noise(0, 16)] * 2)


def test_cross_conformation_is_the_table_of_areas() -> None:
    maps = noise(9, 16, 3) + 2 * noise(10, 16)
    others = noise(11, 16, 2)
    mask = (noise(12, 16) > -1).float()
    table = cross_conformation(maps, others, mask)
    plain = torch.stack([per_conformation_auc([m] * 2, others, mask) for m in maps])
    torch.testing.assert_close(table, plain, atol=1e-6, rtol=0)
    own = cross_conformation(maps)
    torch.testing.assert_close(own.diagonal(), torch.full((3,), 7 / 16).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(own, own.T)


def test_difference_maps_see_the_motion_alone() -> None:
    still = 10 * noise(13, 16)
    motion = noise(14, 16, 4)
    truth = still + motion
    assert difference_map_correlation(truth, truth) > 1 - 1e-6
    assert difference_map_correlation(0.2 * motion + noise(15, 16), truth) > 1 - 1e-4
    assert difference_map_correlation(truth.flip(0), truth) < 0.2
    assert difference_map_correlation(still.expand(4, -1, -1, -1), truth) == 0.0
    with pytest.raises(InputError):
        difference_map_correlation(truth[:1], truth[:1])
