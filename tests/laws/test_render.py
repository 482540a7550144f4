"""Simulated images and volumes agree with each other, with a plain sum over atoms, and with the pose conventions."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
import torch

from cryorecon.geometry import rotations
from cryorecon.geometry.grid import Grid
from cryorecon.simulation.experiment import simulate_stack
from cryorecon.simulation.images import Truth, clean_spectra
from cryorecon.simulation.molecule import Molecule, of_elements
from cryorecon.simulation.render import ImageRenderer, volume

BOXES = (31, 32)
APIX, B = 3.0, 120.0


def molecule(n: int = 60, n_states: int = 2, seed: int = 0) -> Molecule:
    generator = torch.Generator().manual_seed(seed)
    names = [("C", "N", "O", "S")[i % 4] for i in range(n)]
    return of_elements(9 * torch.randn(n_states, n, 3, generator=generator), names).centred()


def atom(position: tuple[float, float, float]) -> Molecule:
    return of_elements(torch.tensor([[position]]), ["C"])


def spectra(of: Molecule, grid: Grid, rotation: torch.Tensor, state: int = 0) -> torch.Tensor:
    """Exact spectra of one conformation at rotations ``(B, 3, 3)``."""
    return ImageRenderer(of, grid, B)(torch.full((len(rotation),), state), rotation)


def direct_sum(of: Molecule, state: int, k3: np.ndarray, box: int) -> np.ndarray:
    """Transform of the density at points ``k3 (P, 3)`` in 1/Å by the definition, in float64; scaled like an image."""
    squared = (k3**2).sum(1)
    total = np.zeros(len(k3), complex)
    for index, position in zip(of.element.tolist(), of.coordinates[state].double().numpy(), strict=True):
        c = gemmi.Element(of.elements[index]).c4322
        factor = sum(a * np.exp(-(b + B) / 4 * squared) for a, b in zip(c.a, c.b, strict=True))
        total += factor * np.exp(-2j * np.pi * k3 @ position)
    return total / (box * APIX**3)


def close(found: torch.Tensor, expected: np.ndarray, tolerance: float):
    error = np.linalg.norm(found.numpy() - expected) / np.linalg.norm(expected)
    assert error < tolerance, error


@pytest.mark.parametrize("box", BOXES)
def test_images_are_the_sum_over_atoms_at_k3_equal_to_r_transposed_k(box):
    grid, thing = Grid(box, APIX), molecule()
    matrices = rotations.random(3, torch.Generator().manual_seed(1))
    found = spectra(thing, grid, matrices, 1)
    k3 = np.concatenate([grid.frequency.double().numpy(), np.zeros((grid.n, 1))], 1)
    for image, matrix in zip(found, matrices.double().numpy(), strict=True):
        close(image, direct_sum(thing, 1, k3 @ matrix, box), 1e-4)  # row k times R is R^T k


@pytest.mark.parametrize("box", BOXES)
def test_the_volume_projects_to_the_exact_image(box):
    grid, thing = Grid(box, APIX), molecule()
    exact = spectra(thing, grid, torch.eye(3)[None])[0]
    density = volume(thing, 0, box, APIX, B)
    close(grid.spectra(density.sum(0)), exact.numpy(), 1e-4)
    torch.testing.assert_close(grid.images(grid.spectra(density.sum(0))), grid.images(exact), atol=1e-4, rtol=0)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("matrix", "axis"), [
    ([[0, 1, 0], [0, 0, 1], [1, 0, 0]], 2),  # x' = y, y' = z, seen along x
    ([[0, 0, 1], [1, 0, 0], [0, 1, 0]], 1),  # x' = z, y' = x, seen along y
])
def test_a_rotated_particle_is_the_volume_seen_along_another_axis(box, matrix, axis):
    grid, thing = Grid(box, APIX), molecule()
    rotation = torch.tensor([matrix], dtype=torch.float32)
    assert rotations.defect(rotation).max() == 0
    density = volume(thing, 0, box, APIX, B)  # (z, y, x)
    view = density.sum(axis) if axis == 2 else density.sum(axis).T  # to (y', x')
    close(grid.spectra(view), spectra(thing, grid, rotation)[0].numpy(), 1e-4)


def test_density_is_per_voxel():
    """The sum over voxels times their volume is the number that the scattering factors have at zero."""
    found = float(volume(atom((1.0, -2.0, 0.5)), 0, 32, APIX, B).sum()) * APIX**3
    assert found == pytest.approx(sum(gemmi.Element("C").c4322.a), rel=1e-3)


@pytest.mark.parametrize("box", BOXES)
def test_an_atom_lands_where_x_y_z_say(box):
    x, y, z = 4, -6, 2  # voxels
    density = volume(atom((x * APIX, y * APIX, z * APIX)), 0, box, APIX, B)
    c = box // 2
    assert np.unravel_index(int(density.argmax()), density.shape) == (c + z, c + y, c + x)
    grid = Grid(box, APIX)
    image = grid.images(spectra(atom((x * APIX, y * APIX, z * APIX)), grid, torch.eye(3)[None]))[0]
    assert np.unravel_index(int(image.argmax()), image.shape) == (c + y, c + x)


@pytest.mark.parametrize("box", BOXES)
def test_the_particle_sits_at_minus_the_shift(box):
    """Shift t is what centres the image: the particle is at -t, and the phase ramp of +t brings it back."""
    grid = Grid(box, APIX)
    shift = torch.tensor([[3 * APIX, -2 * APIX]])
    truth = Truth(torch.zeros(1, dtype=torch.int64), torch.eye(3)[None], shift, None)
    spectrum = torch.cat(list(clean_spectra(atom((0.0, 0.0, 0.0)), truth, grid, B)))
    image = grid.images(spectrum)[0]
    assert np.unravel_index(int(image.argmax()), image.shape) == (box // 2 + 2, box // 2 - 3)
    centred = grid.images(spectrum * grid.phase_ramp(shift))[0]
    assert np.unravel_index(int(centred.argmax()), centred.shape) == (box // 2, box // 2)


@pytest.mark.parametrize("box", BOXES)
def test_a_tilted_image_shows_the_particle_turned_by_its_pose_and_then_about_x(box):
    """Atoms at T (R x), seen along z: the pose T R. The particle sits at -t as in the untilted image."""
    thing, angle = molecule(), 0.6
    stack, truth = simulate_stack(thing, 4, box, APIX, snr=0, b_factor=B, optics=None, max_shift=1.0, tilt=angle)
    grid = Grid(box, APIX)
    tilted = grid.spectra(stack.images()[1::2])
    c, s = np.cos(angle), np.sin(angle)
    stage = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    k2 = grid.frequency.double().numpy()
    k3 = np.concatenate([k2, np.zeros((grid.n, 1))], 1)
    for row in range(4):
        state, matrix = int(truth.state[row]), truth.rotation[row].double().numpy()
        turned = thing.coordinates[state].double().numpy() @ matrix.T @ stage.T
        posed = replace(thing, coordinates=torch.from_numpy(turned)[None])
        ramp = np.exp(2j * np.pi * k2 @ truth.shift[row].double().numpy())
        close(tilted[row], ramp * direct_sum(posed, 0, k3, box), 1e-4)
        close(tilted[row], ramp * direct_sum(thing, state, k3 @ stage @ matrix, box), 1e-4)
        np.testing.assert_allclose(stack.poses.rotation[2 * row + 1], stage @ matrix, atol=1e-6)


def test_euler_angles_point_the_way_relion_says():
    """An atom on the viewing direction (rot, tilt) projects to the centre whatever psi is."""
    rot, tilt = 0.8, 1.9
    direction = np.array([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)]) * 20
    grid = Grid(32, APIX)
    matrices = rotations.from_euler(torch.tensor([[rot, tilt, 0.0], [rot, tilt, 2.2]]))
    images = grid.images(spectra(atom(tuple(direction)), grid, matrices))
    assert [np.unravel_index(int(image.argmax()), image.shape) for image in images] == [(16, 16)] * 2


def test_positive_psi_turns_the_image_clockwise_as_seen_with_y_up():
    """x' = cos(psi) x + sin(psi) y: an atom on y moves towards +x."""
    grid = Grid(32, APIX)
    matrix = rotations.from_euler(torch.tensor([[0.0, 0.0, torch.pi / 2]]))
    image = grid.images(spectra(atom((0.0, 5 * APIX, 0.0)), grid, matrix))[0]
    assert np.unravel_index(int(image.argmax()), image.shape) == (16, 21)
