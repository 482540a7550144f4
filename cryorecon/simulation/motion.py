"""Built-in flexible molecules: a body and two arms of helical domains, and the ways in which they move."""

import math

import torch
from torch import Tensor

from cryorecon.errors import InputError
from cryorecon.geometry.rotations import from_rotation_vector
from cryorecon.simulation import MOTIONS
from cryorecon.simulation.helices import Vector, domain
from cryorecon.simulation.molecule import Molecule, of_elements

SHOULDER, ELBOW = (22.0, 0.0, 6.0), (-22.0, 4.0, 6.0)  # Å: what the arm and the other arm turn about

# centre and radii (Å) and number of helix bundles of each domain
BODY = (((0.0, 0.0, -13.0), (37.0, 25.0, 21.0), 3), ((-15.0, -15.0, -37.0), (18.0, 16.0, 16.0), 1))
ARM = (((24.0, 0.0, 19.0), (13.0, 13.0, 17.0), 1), ((30.0, 4.0, 43.0), (18.0, 15.0, 15.0), 2))
OTHER = (((-24.0, 5.0, 17.0), (13.0, 14.0, 16.0), 1),)
TIP = (((-31.0, 11.0, 38.0), (14.0, 16.0, 14.0), 1),)

Part = tuple[Tensor, list[str]]


def _part(domains: tuple[tuple[Vector, Vector, int], ...], generator: torch.Generator) -> Part:
    """Atoms ``(A, 3)`` and their elements of several domains."""
    made = [domain(centre, radii, bundles, generator) for centre, radii, bundles in domains]
    return torch.cat([atoms for atoms, _ in made]), [name for _, names in made for name in names]


def _turn(atoms: Tensor, axis: Vector, pivot: Vector, degrees: Tensor) -> Tensor:
    """Atoms ``(A, 3)`` turned about a unit axis through ``pivot`` by each of ``(S,)`` angles: ``(S, A, 3)``."""
    rotation = from_rotation_vector(torch.tensor(axis) * torch.deg2rad(degrees)[:, None])
    return (atoms - torch.tensor(pivot)) @ rotation.transpose(-1, -2) + torch.tensor(pivot)


def _along(motion: str, n_states: int) -> Tensor:
    """Where each state lies along its motions, ``(S, q)`` from 0 to 1 (on a circle 1 is 0 again)."""
    if motion == "hinge2":
        side = torch.linspace(0, 1, max(2, round(math.sqrt(n_states))))
        return torch.cartesian_prod(side, side)
    if motion == "circle":
        return torch.arange(n_states)[:, None] / n_states
    return torch.linspace(0, 1, 1 if motion == "rigid" else n_states)[:, None]


def flexible(motion: str, n_states: int = 20, seed: int = 0) -> Molecule:
    """A molecule of about 120 Å with a body, an arm and another arm with a tip, built of helices.

    ``rigid``: one state. ``hinge``: the arm turns through 60°. ``hinge2``: both arms turn through 50°, on a square grid
    of states (``n_states`` is rounded to a square). ``circle``: the arm goes once round a cone. ``states``: the arm
    stands at ``n_states`` separate angles, and every second state lacks the other arm's tip (composition changes).

    Raises
    ------
    InputError: an unknown motion, or no states.
    """
    if motion not in MOTIONS:
        raise InputError(f"motion: expected one of {', '.join(MOTIONS)}, found {motion!r}; give one of these")
    if n_states < 1:
        raise InputError(f"states: expected a positive number, found {n_states}; give at least 1")
    generator = torch.Generator().manual_seed(seed)
    (body, b), (arm, a), (other, o), (tip, t) = (_part(p, generator) for p in (BODY, ARM, OTHER, TIP))
    names, other = b + a + o + t, torch.cat([other, tip])
    truth = _along(motion, n_states)
    swing, nod = (50 * truth).T if motion == "hinge2" else (60 * truth[:, 0], torch.zeros(len(truth)))
    if motion == "circle":
        tilted = _turn(arm, (0.0, 1.0, 0.0), SHOULDER, torch.tensor([25.0]))[0]
        arms = _turn(tilted, (0.0, 0.0, 1.0), SHOULDER, 360 * truth[:, 0])
    else:
        arms = _turn(arm, (0.0, 1.0, 0.0), SHOULDER, swing)
    others = _turn(other, (1.0, 0.0, 0.0), ELBOW, nod).expand(len(truth), -1, -1)
    atoms = torch.cat([body.expand(len(truth), -1, -1), arms, others], 1)
    occupancy = torch.ones(atoms.shape[:2])
    if motion == "states":
        occupancy[1::2, -len(tip):] = 0
    return of_elements(atoms, names, truth, occupancy).centred()
