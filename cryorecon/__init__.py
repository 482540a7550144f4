"""cryorecon: from noisy particle images to the shapes of a molecule and how it moves.

The package is laid out in floors; imports run downwards only::

    geometry -> imaging, metrics -> data, volumes -> inference -> model
             -> objectives, simulation -> training -> analysis -> report -> cli

``import cryorecon`` costs nothing; what :mod:`cryorecon.api` offers is fetched when it is first asked for.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


# those of cryorecon.api; they stand here so that asking for another name imports nothing
__all__ = ["InputError", "ParticleStack", "RunConfig", "Trained", "backproject", "flexible", "fsc", "image_fits",
           "load_particles", "load_run", "read_volume", "resolution", "simulate_stack", "train", "write_volume"]

def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("cryorecon.api"), name)
    raise AttributeError(f"module 'cryorecon' has no attribute {name!r}")
