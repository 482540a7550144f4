"""What is imaged: atoms or density maps, and the two things that a simulation asks of either."""

from collections.abc import Callable

from torch import Tensor

from cryorecon.geometry.grid import Grid
from cryorecon.simulation.map_molecule import MapMolecule, MapRenderer
from cryorecon.simulation.molecule import Molecule
from cryorecon.simulation.render import ImageRenderer, volume

Specimen = Molecule | MapMolecule  # both have n_states, coordinate, radius() and usual_b_factor
Renderer = Callable[[Tensor, Tensor], Tensor]


def renderer(specimen: Specimen, grid: Grid, b_factor: float) -> Renderer:
    """What makes spectra ``(B, P)`` on ``grid`` of conformations ``(B,)`` seen at rotations ``(B, 3, 3)``."""
    if isinstance(specimen, MapMolecule):
        return MapRenderer(specimen, grid, b_factor)
    return ImageRenderer(specimen, grid, b_factor)


def density(specimen: Specimen, state: int, box: int, apix: float, b_factor: float) -> Tensor:
    """The map ``(D, D, D)`` of one conformation, of which :func:`renderer`'s images are the projections."""
    if isinstance(specimen, MapMolecule):
        return specimen.density(state, box, apix, b_factor)
    return volume(specimen, state, box, apix, b_factor)
