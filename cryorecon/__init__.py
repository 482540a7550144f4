"""cryorecon: from noisy particle images to the shapes of a molecule and how it moves.

The package is laid out in floors; imports run downwards only::

    geometry -> imaging, metrics -> data, volumes -> inference -> model
             -> objectives, simulation -> training -> analysis -> report -> cli
"""

__version__ = "0.1.0"
