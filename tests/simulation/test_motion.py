"""Built-in molecules and files of atoms."""

import numpy as np
import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.simulation import MOTIONS
from cryorecon.simulation.molecule import load
from cryorecon.simulation.motion import flexible


@pytest.mark.parametrize(
    ("motion", "states", "dimensions"),
    [("rigid", 1, 1), ("hinge", 9, 1), ("hinge2", 9, 2), ("circle", 9, 1), ("states", 9, 1)],
)
def test_every_motion_has_its_states(motion, states, dimensions):
    molecule = flexible(motion, 9)
    assert molecule.coordinates.shape == (states, len(molecule.element), 3)
    assert molecule.coordinate.shape == (states, dimensions)
    assert molecule.occupancy.shape == molecule.coordinates.shape[:2]
    assert float(molecule.coordinate.min()) == 0
    assert float(molecule.coordinate.max()) <= 1
    assert 60 < molecule.radius() < 85
    assert 4000 < len(molecule.element) < 6000


@pytest.mark.parametrize("motion", MOTIONS)
def test_seeds_make_molecules(motion):
    again, other = flexible(motion, 4), flexible(motion, 4, seed=1)
    assert torch.equal(flexible(motion, 4).coordinates, again.coordinates)
    assert other.coordinates.shape != again.coordinates.shape or not torch.equal(other.coordinates, again.coordinates)


def test_parts_move_rigidly_and_the_body_stands():
    coordinates = flexible("hinge", 5).coordinates
    moved = (coordinates[-1] - coordinates[0]).norm(dim=1)
    still = moved < 1e-3
    assert 0.4 < float(still.float().mean()) < 0.9
    arm = coordinates[:, ~still]
    sample = torch.arange(0, arm.shape[1], 40)
    first, last = (torch.cdist(one[sample], one[sample]) for one in (arm[0], arm[-1]))
    torch.testing.assert_close(first, last, rtol=0, atol=1e-3)
    assert float(moved.max()) > 30


def test_a_circle_closes():
    coordinates = flexible("circle", 12).coordinates
    step = (coordinates.roll(-1, 0) - coordinates).norm(dim=-1).amax(1)
    assert float(step.max() - step.min()) < 1e-2  # the step from last to first is as long as the others


def test_states_change_composition():
    occupancy = flexible("states", 4).occupancy
    lost = occupancy.shape[1] - occupancy.sum(1)
    assert lost[0] == lost[2] == 0
    assert lost[1] == lost[3] > 100


def test_unknown_motion_and_no_states():
    with pytest.raises(InputError, match="twist"):
        flexible("twist", 5)
    with pytest.raises(InputError, match="states"):
        flexible("hinge", 0)


PDB = """\
ATOM      1  N   ALA A   1      11.104   6.134  -6.504  1.00  0.00           N
ATOM      2  CA  ALA A   1      11.639   6.071  -5.147  1.00  0.00           C
ATOM      3  HA  ALA A   1      12.639   6.071  -5.147  1.00  0.00           H
HETATM    4  O   HOH A   2      20.000   6.071  -5.147  1.00  0.00           O
END
"""


def test_load_pdb_without_hydrogen_and_water(tmp_path):
    (tmp_path / "one.pdb").write_text(PDB)
    molecule = load(tmp_path / "one.pdb")
    assert molecule.elements == ("C", "N")
    torch.testing.assert_close(molecule.coordinates.mean((0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(molecule.coordinates[0, 1] - molecule.coordinates[0, 0],
                               torch.tensor([0.535, -0.063, 1.357]), atol=1e-4, rtol=0)


def test_load_npz_of_states(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", xyz=rng.integers(-99, 99, (3, 4, 3)), scale=0.5, atom=np.array(["N", "CA", "C", "1O"]))
    molecule = load(tmp_path / "a.npz")
    assert molecule.elements == ("C", "N", "O")
    assert molecule.coordinate.flatten().tolist() == [0, 0.5, 1]
    np.savez(tmp_path / "b.npz", ca=rng.integers(-99, 99, (4, 5, 3)), scale=0.1, state=[[0, 0], [0, 9], [3, 0], [3, 9]])
    assert load(tmp_path / "b.npz").coordinate.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_bad_files_of_atoms(tmp_path):
    (tmp_path / "empty.pdb").write_text("END\n")
    (tmp_path / "text.cif").write_text("no structure\n")
    (tmp_path / "text.npz").write_text("no archive\n")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "shape.npz", ca=np.zeros((5, 3)))
    for name in ("absent.pdb", "empty.pdb", "text.cif", "text.npz", "other.npz", "shape.npz"):
        with pytest.raises(InputError, match=name):
            load(tmp_path / name)
