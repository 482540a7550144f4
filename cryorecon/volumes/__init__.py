"""Floor 2: parametrisations of a density, one file each, and closed-form backprojection."""

from cryorecon.volumes.fourier_mlp import FourierMLP
from cryorecon.volumes.voxel_grid import VoxelGrid

VOLUMES = {"mlp": FourierMLP, "voxels": VoxelGrid}
