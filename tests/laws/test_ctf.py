"""The contrast transfer function against formulas written a second time, in float64 and in other words."""

import math

import numpy as np
import pytest
import torch

from cryorecon.geometry.grid import Grid
from cryorecon.imaging.ctf import COLUMNS, Optics, ctf, wavelength

H, MASS, CHARGE, LIGHT = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0


def relativistic_wavelength(volts: float) -> float:
    """de Broglie's wavelength in Å, from the constants of nature."""
    momentum = math.sqrt(2 * MASS * CHARGE * volts * (1 + CHARGE * volts / (2 * MASS * LIGHT**2)))
    return H / momentum * 1e10


def reference(row: dict, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
    """-sin(chi) with the aberration phase chi and amplitude contrast as an extra phase, defocus as a quadratic form."""
    lam = relativistic_wavelength(row["voltage"] * 1e3)
    c, s = math.cos(row["astigmatism"]), math.sin(row["astigmatism"])
    along, across = kx * c + ky * s, -kx * s + ky * c
    form = row["defocus_u"] * along**2 + row["defocus_v"] * across**2  # defocus times k^2
    k4 = (kx**2 + ky**2) ** 2
    chi = -math.pi * lam * form + math.pi / 2 * row["cs"] * 1e7 * lam**3 * k4
    w = row["amplitude_contrast"]
    phase = math.atan2(w, math.sqrt(1 - w**2)) + row["phase_shift"]
    return row["scale"] * np.exp(-row["b_factor"] * (kx**2 + ky**2) / 4) * -np.sin(chi - phase)


def random_rows(n: int, seed: int = 0) -> list[dict]:
    random = np.random.default_rng(seed)
    return [{
        "defocus_u": random.uniform(5e3, 3e4), "defocus_v": random.uniform(5e3, 3e4),
        "astigmatism": random.uniform(-math.pi, math.pi), "voltage": random.choice([100.0, 200.0, 300.0]),
        "cs": random.choice([0.0, 0.01, 2.7]), "amplitude_contrast": random.uniform(0, 0.3),
        "phase_shift": random.choice([0.0, math.pi / 2, random.uniform(0, 3)]), "b_factor": random.uniform(0, 80),
        "scale": random.uniform(0.5, 2),
    } for _ in range(n)]


def optics_of(rows: list[dict]) -> Optics:
    return Optics.from_columns(len(rows), **{name: [row[name] for row in rows] for name in COLUMNS})


@pytest.mark.parametrize(("box", "apix"), [(64, 3.0), (65, 2.0)])
def test_against_an_independent_float64_formula(box, apix):
    rows = random_rows(40)
    grid = Grid(box, apix)
    found = ctf(optics_of(rows), grid.frequency)
    kx, ky = grid.frequency.double().numpy().T
    expected = np.stack([reference(row, kx, ky) for row in rows])
    assert found.shape == (40, grid.n)
    np.testing.assert_allclose(found.numpy(), expected, atol=4e-3)


def test_frequencies_may_differ_from_image_to_image():
    optics = optics_of(random_rows(3))
    frequency = Grid(32, 2.0).frequency
    each = torch.stack([frequency, 0.5 * frequency, 2 * frequency])
    together = ctf(optics, each)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], ctf(optics[[i]], each[i]))


def test_positive_at_low_frequency():
    """White protein stays white (RELION)."""
    optics = Optics.from_columns(1, defocus_u=15000, defocus_v=15000, voltage=300, cs=2.7, amplitude_contrast=0.1)
    radius = torch.linspace(0, 0.02, 30)
    values = ctf(optics, torch.stack([radius, torch.zeros_like(radius)], 1))[0]
    assert (values > 0).all()
    assert values[0] == pytest.approx(0.1, abs=1e-6)


def test_cryodrgns_is_the_negative():
    """cryoDRGN: sqrt(1-w^2) sin g - w cos g, g = 2 pi (-dz lam k^2 / 2 + Cs lam^3 k^4 / 4) - phase shift."""
    rows = random_rows(20, seed=1)
    for row in rows:
        row["b_factor"], row["scale"] = 0.0, 1.0
    grid = Grid(64, 2.5)
    kx, ky = grid.frequency.double().numpy().T
    squared, angle = kx**2 + ky**2, np.arctan2(ky, kx)
    theirs = []
    for row in rows:
        lam = relativistic_wavelength(row["voltage"] * 1e3)
        turn = np.cos(2 * (angle - row["astigmatism"]))
        dz = 0.5 * (row["defocus_u"] + row["defocus_v"] + (row["defocus_u"] - row["defocus_v"]) * turn)
        gamma = 2 * np.pi * (-0.5 * dz * lam * squared + 0.25 * row["cs"] * 1e7 * lam**3 * squared**2)
        gamma = gamma - row["phase_shift"]
        w = row["amplitude_contrast"]
        theirs.append(np.sqrt(1 - w**2) * np.sin(gamma) - w * np.cos(gamma))
    np.testing.assert_allclose(ctf(optics_of(rows), grid.frequency).numpy(), -np.stack(theirs), atol=4e-3)


def test_astigmatism_angle_runs_from_x_towards_y():
    """Along the direction of the angle, the CTF is that of defocus_u; across it, of defocus_v."""
    angle = math.radians(25)
    both = {"voltage": 300, "cs": 2.7, "amplitude_contrast": 0.07}
    astigmatic = Optics.from_columns(1, defocus_u=20000, defocus_v=12000, astigmatism=angle, **both)
    radius = torch.linspace(0.01, 0.1, 20)
    along = radius[:, None] * torch.tensor([math.cos(angle), math.sin(angle)])
    across = radius[:, None] * torch.tensor([-math.sin(angle), math.cos(angle)])
    for points, defocus in ((along, 20000), (across, 12000)):
        round_one = Optics.from_columns(1, defocus_u=defocus, defocus_v=defocus, **both)
        torch.testing.assert_close(ctf(astigmatic, points), ctf(round_one, points), atol=2e-3, rtol=0)


def test_friedel_the_ctf_is_even():
    grid = Grid(32, 2.0)
    optics = optics_of(random_rows(5))
    torch.testing.assert_close(ctf(optics, grid.frequency), ctf(optics, -grid.frequency), atol=1e-3, rtol=0)


def test_no_optics_is_one_everywhere():
    """Amplitude contrast 1, no defocus: what a simulation without CTF uses."""
    optics = Optics.from_columns(2, amplitude_contrast=1.0, voltage=300.0)
    grid = Grid(32, 2.0)
    torch.testing.assert_close(ctf(optics, grid.frequency), torch.ones(2, grid.n))


@pytest.mark.parametrize("kilovolts", [100.0, 200.0, 300.0])
def test_wavelength(kilovolts):
    found = float(wavelength(torch.tensor(kilovolts)))
    assert found == pytest.approx(relativistic_wavelength(kilovolts * 1e3), rel=2e-5)


def test_optics_are_a_table():
    optics = Optics.from_columns(4, defocus_u=torch.arange(4), voltage=300)
    assert len(optics) == 4
    assert len(optics[1:3]) == 2
    torch.testing.assert_close(optics[torch.tensor([3, 0])].column("defocus_u"), torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(optics.column("scale"), torch.ones(4))
    assert optics.parameters.dtype == torch.float32
