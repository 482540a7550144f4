"""Two runs of one landscape, of two, and of one that moves and one that does not."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryorecon.analysis.halves import Landscape, compare_landscapes, compare_particles, draw, laid_on, rows_in_common, write
from cryorecon.data.cryodrgn_files import write_indices
from cryorecon.imaging.masks import soft_sphere

BOX = 16
MASK = soft_sphere(BOX, 6, 1)


def ball(x, y=0.0, z=0.0, width=5.0):
    axis = torch.arange(BOX, dtype=torch.float32) - BOX // 2
    zz, yy, xx = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.exp(-((xx - x).square() + (yy - y).square() + (zz - z).square()) / width)


def along_x(z):
    """z (n, d): the first runs along x from -3 to 3."""
    return torch.stack([ball(float(row[0])) for row in z])


def latents(seed, n=500):
    return np.random.default_rng(seed).uniform(-3, 3, size=(n, 1))


def test_one_landscape_in_other_coordinates_is_as_two_draws_of_one_run():
    """The second run's latent is a bent, mirrored one of two numbers."""
    a, b = latents(0, 5000), latents(1, 5000)
    bent = np.concatenate([-np.sinh(b), 0 * b], 1)
    second = draw(bent, lambda z: along_x(np.arcsinh(-z[:, :1])), 60, BOX, 1)
    found = compare_landscapes(draw(a, along_x, 60, BOX), second, MASK, 3.0)
    assert found.ratio < 0.1
    assert found.between < 0.25 * found.spread_a
    assert float(found.motion_fsc.value[1:4].min()) > 0.95


def test_the_same_draws_are_no_distance_apart():
    same = draw(latents(0), along_x, 20, BOX)
    same = type(same)(same.draws[:1].expand(2, -1, -1, -1, -1))
    found = compare_landscapes(same, same, MASK, 3.0)
    assert found.between == pytest.approx(0, abs=1e-4)
    assert found.ratio == pytest.approx(0, abs=1e-3)
    assert found.motion_fsc.value[1:].numpy() == pytest.approx(np.ones(BOX // 2), abs=1e-5)


def test_a_scale_of_density_is_taken_out():
    a = draw(latents(0), along_x, 30, BOX)
    b = type(a)(7 * a.draws)
    assert compare_landscapes(a, b, MASK, 3.0).between == pytest.approx(compare_landscapes(a, a, MASK, 3.0).between, rel=1e-3)


def test_no_motion_and_another_motion_are_no_agreement():
    a = draw(latents(0), along_x, 40, BOX)
    still = draw(latents(1), lambda z: ball(0.0)[None].expand(len(z), -1, -1, -1), 40, BOX)
    found = compare_landscapes(a, still, MASK, 3.0)
    assert found.between == pytest.approx(found.spread_a, rel=1e-4)
    assert found.spread_b == pytest.approx(0, abs=1e-6)
    assert found.ratio == 1
    other = draw(latents(1), lambda z: torch.stack([ball(0.0, 0.0, float(row[0])) for row in z]), 40, BOX)
    assert compare_landscapes(a, other, MASK, 3.0).ratio == 1


def test_unrelated_motions_are_not_flattered_by_their_matching():
    generator = torch.Generator().manual_seed(0)

    def noise():
        basis, place = torch.randn(4, BOX, BOX, BOX, generator=generator), torch.randn(2, 40, 4, generator=generator)
        return Landscape(torch.einsum("akr,rzyx->akzyx", place, basis) + 5 * ball(0.0))

    found = compare_landscapes(noise(), noise(), MASK, 3.0)
    assert found.ratio == 1
    assert float(found.motion_fsc.value[3:].abs().max()) < 0.2


def test_nothing_that_moves_has_no_ratio():
    still = draw(latents(1), lambda z: ball(0.0)[None].expand(len(z), -1, -1, -1), 5, BOX)
    assert np.isnan(compare_landscapes(still, still, MASK, 3.0).ratio)


@pytest.mark.slow
def test_a_turned_landscape_is_laid_back():
    def shape(z, turned=False):
        maps = []
        for (x,) in z:
            one = ball(float(x)) + ball(-2.0, 4.0, 1.0) + 0.7 * ball(1.0, -1.0, 4.0, 8.0)
            maps.append(one.transpose(1, 2).flip(2).roll(1, 2) if turned else one)  # a quarter turn about z
        return torch.stack(maps)

    a, b = draw(latents(0), shape, 10, BOX), draw(latents(1), lambda z: shape(z, True), 10, BOX, 1)
    apart = compare_landscapes(a, b, MASK, 3.0)
    moved, found = laid_on(b, a, 3.0)
    together = compare_landscapes(a, moved, MASK, 3.0)
    assert found.correlation > 0.97
    assert together.between < 0.5 * apart.between


def test_particles_foretell_each_other_through_any_smooth_change():
    rng = np.random.default_rng(4)
    a = rng.normal(size=(1500, 2))
    b = np.stack([np.sinh(a[:, 1]), -a[:, 0], a[:, 0] + a[:, 1]], 1)
    found = compare_particles(a, b)
    assert found.a_to_b > 0.95
    assert found.b_to_a > 0.95
    assert max(found.imbalance) < 0.02
    nothing = compare_particles(a, rng.normal(size=(1500, 2)))
    assert nothing.a_to_b == pytest.approx(-0.1, abs=0.1)  # the mean of ten has a tenth of their variance
    assert nothing.imbalance == pytest.approx((1, 1), abs=0.05)


def test_rows_in_common_go_by_the_particles_of_the_file(tmp_path):
    write_indices(tmp_path / "a.pkl", np.array([7, 1, 3]))
    write_indices(tmp_path / "b.pkl", np.array([3, 5, 7]))

    def run(name, particles="x.star", n=3):
        ind = None if name is None else str(tmp_path / name)
        return SimpleNamespace(config=SimpleNamespace(particles=particles, ind=ind), z=np.zeros((n, 1)))

    first, second = rows_in_common(run("a.pkl"), run("b.pkl"))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(2, 0), (0, 2)]
    assert rows_in_common(run("a.pkl"), run(None, n=9))[1].tolist() == [1, 3, 7]
    assert len(rows_in_common(run("a.pkl"), run("b.pkl", "other.star"))[0]) == 0


def test_what_is_written_can_be_read(tmp_path):
    a = draw(latents(0), along_x, 10, BOX)
    found = compare_landscapes(a, a, MASK, 3.0)
    write(tmp_path, found, None, {"run_a": "a"})
    held = json.loads((tmp_path / "halves.json").read_text())
    assert held["ratio"] == found.ratio
    assert held["particles"] is None
    assert set(held["resolution"]["motion"]) == {"0.5", "0.143"}
    assert len((tmp_path / "halves_fsc.csv").read_text().splitlines()) == BOX // 2 + 2
