"""Floor 2: parametrisations of a density, one file each, and closed-form backprojection."""

from cryorecon.volumes.archetypes import Archetypes
from cryorecon.volumes.conv_generator import ConvGenerator
from cryorecon.volumes.fourier_mlp import FourierMLP
from cryorecon.volumes.real_space import DensityGrid
from cryorecon.volumes.voxel_grid import VoxelGrid

VOLUMES = {"mlp": FourierMLP, "voxels": VoxelGrid, "density": DensityGrid, "archetypes": Archetypes,
           "conv": ConvGenerator}
