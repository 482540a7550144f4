"""What every volume must do, over all of them."""

import math

import pytest
import torch

from cryorecon.geometry import rotations
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.masks import soft_sphere
from cryorecon.volumes import VOLUMES
from cryorecon.volumes.archetypes import Archetypes
from cryorecon.volumes.conv_generator import ConvGenerator
from cryorecon.volumes.fourier_mlp import FourierMLP
from cryorecon.volumes.real_space import DensityGrid
from cryorecon.volumes.voxel_grid import VoxelGrid

GRID = Grid(16, 3.0)
Z_DIM = {"voxels": 0, "voxels of two components": 2, "voxels of a band": 1, "mlp": 0, "mlp with z": 3,
         "mlp, geometric": 2, "mlp on voxels": 2, "density": 0, "archetypes": 1, "conv": 1}  # fmt: skip
LATTICE = {name for name in Z_DIM if "voxels" in name} | {"density", "archetypes", "conv"}  # their slices are interpolated


def make(name: str, smooth_maps):
    torch.manual_seed(1)
    z_dim = Z_DIM[name]
    if name.startswith("voxels"):
        volume = VoxelGrid(GRID, z_dim, 5.0 if "band" in name else None)
        volume.set_values(volume.lattice.from_density(smooth_maps(16, 1 + z_dim)))
        return volume
    if name == "density":
        density = DensityGrid(GRID)
        density.voxels.data.copy_(smooth_maps(16, 1)[0])
        return density
    if name == "archetypes":
        mixed = Archetypes(GRID, n=3)
        mixed.voxels.data.copy_(smooth_maps(16, 3).clamp(min=0))
        mixed.tied.fill_(False)
        return mixed
    if name == "conv":  # masked, as any run masks it: a cube that is full to its edges has corners that slices don't see
        return ConvGenerator(GRID, soft_sphere(16, 4, 3), width=4)
    base = VoxelGrid.from_density(smooth_maps(16, 1 + z_dim), GRID) if "voxels" in name else None
    kind = "geometric" if "geometric" in name else "gaussian"
    volume = FourierMLP(GRID, z_dim, width=24, layers=2, encoding=kind, features=6, base=base)
    if base is not None:  # it begins with a silent network; let it speak
        torch.nn.init.normal_(volume.head.weight, std=0.05)
    return volume


@pytest.fixture(params=Z_DIM)
def named(request, smooth_maps):
    return request.param, make(request.param, smooth_maps)


def test_every_volume_of_the_registry_is_held_to_this(smooth_maps):
    assert {type(make(name, smooth_maps)) for name in Z_DIM} == set(VOLUMES.values()), "a newcomer: say how it is built"


def conformations(volume, b, k=1, seed=0):
    return torch.rand(b, k, volume.z_dim, generator=torch.Generator().manual_seed(seed))  # alpha of some is in [0, 1]


def poses(n, seed=0):
    return rotations.random(n, torch.Generator().manual_seed(seed))


def transform_at(density, rotation, points):
    """The transform of a density ``(D, D, D)`` at a slice's points, summed voxel by voxel in the package's scale."""
    box = len(density)
    k3 = (points.double() @ rotation.double()[:2]).to(torch.complex128)
    axis = (torch.arange(box) - box // 2).double()
    waves = [torch.exp(-2j * math.pi / box * k3[:, i, None] * axis) for i in range(3)]
    return torch.einsum("zyx,px,py,pz->p", density.to(torch.complex128), *waves) / box


def relative(found, expected):
    return float((found - expected).abs().square().sum() / expected.abs().square().sum()) ** 0.5


def cube_rotations(n, seed=0):
    """Random rotations of the cube that tip the z axis: grid points go to points of the box's own lattice."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    while len(out) < n:
        matrix = torch.eye(3)[torch.randperm(3, generator=generator)]
        matrix = matrix * (2.0 * torch.randint(0, 2, (3, 1), generator=generator) - 1)
        if torch.linalg.det(matrix) > 0 and matrix[2, 2] == 0:
            out.append(matrix)
    return torch.stack(out)


def test_slices_are_the_transform_of_the_density_where_the_box_samples_it(named):
    name, volume = named
    turned, z = cube_rotations(4), conformations(volume, 4)
    with torch.no_grad():
        slices = volume.slices(turned[:, None], z, slice(None))[:, 0]
        densities = volume.density(z[:, 0])
    for rotation, values, density in zip(turned, slices, densities, strict=True):
        expected = transform_at(density, rotation, GRID.points)
        inside = (GRID.points @ rotation[:2])[:, 2] != 0  # on that plane density() averages a network's two halves
        if "band" in name:
            inside &= GRID.radius < 4.5
        assert relative(values[inside], expected[inside]) < (0.06 if name in LATTICE else 1e-4)


@pytest.mark.parametrize("name", sorted(LATTICE - {"mlp on voxels"}))
def test_lattice_slices_are_the_transform_of_the_density_at_any_pose(name, smooth_maps):
    volume = make(name, smooth_maps)
    turned, z = poses(4), conformations(volume, 4)
    band = GRID.band(4.5 if "band" in name else 7.0)
    with torch.no_grad():
        slices = volume.slices(turned[:, None], z, band)[:, 0]
        densities = volume.density(z[:, 0])
    for rotation, values, density in zip(turned, slices, densities, strict=True):
        assert relative(values, transform_at(density, rotation, GRID.points[band])) < 0.04


def test_half_a_turn_in_the_plane_conjugates(named):
    _, volume = named
    turned, z = poses(3), conformations(volume, 3)
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    with torch.no_grad():
        slices = volume.slices(turned[:, None], z, slice(None))
        mirrored = volume.slices((half_turn @ turned)[:, None], z, slice(None))
    torch.testing.assert_close(mirrored, slices.conj(), atol=1e-4 * float(slices.abs().max()), rtol=1e-3)


def test_gradients_reach_z_and_parameters(named):
    _, volume = named
    if isinstance(volume, Archetypes):
        volume.logits.data[::2] = -30.0  # a stay at an archetype has no slope
    z = conformations(volume, 2).requires_grad_()
    volume.slices(poses(2)[:, None], z, slice(None)).abs().square().sum().backward()
    for name, parameter in volume.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    if volume.z_dim:
        assert (z.grad.abs().amax((1, 2)) > 0).all()


def test_hypotheses_are_independent_and_a_shared_rotation_is_shared(named):
    _, volume = named
    turned, z = poses(6).view(2, 3, 3, 3), conformations(volume, 2, 3)
    with torch.no_grad():
        together = volume.slices(turned, z, slice(None))
        assert together.shape == (2, 3, GRID.n)
        assert together.is_complex()
        for k in range(3):
            alone = volume.slices(turned[:, k : k + 1], z[:, k : k + 1], slice(None))[:, 0]
            torch.testing.assert_close(together[:, k], alone, atol=1e-5 * float(alone.abs().max()), rtol=1e-4)
        shared = volume.slices(turned[:1], z[:1].expand(2, -1, -1), slice(None))
        own = volume.slices(turned[:1].expand(2, -1, -1, -1), z[:1].expand(2, -1, -1), slice(None))
    torch.testing.assert_close(shared.expand_as(own), own)


def test_a_selection_is_a_selection(named):
    _, volume = named
    turned, z = poses(2)[:, None], conformations(volume, 2)
    chosen = torch.tensor([0, 5, 17, GRID.n - 1])
    with torch.no_grad():
        whole = volume.slices(turned, z, slice(None))
        close = {"atol": 1e-5 * float(whole.abs().max()), "rtol": 1e-4}
        torch.testing.assert_close(volume.slices(turned, z, GRID.band(3)), whole[..., : GRID.n_points(3)], **close)
        torch.testing.assert_close(volume.slices(turned, z, chosen), whole[..., chosen], **close)


def test_densities_are_real_maps_of_the_box(named):
    _, volume = named
    density = volume.density(conformations(volume, 2)[:, 0])
    assert density.shape == (2, 16, 16, 16)
    assert density.dtype == torch.float32
    assert torch.isfinite(density).all()
    if volume.z_dim:
        assert not torch.allclose(density[0], density[1])


def test_a_network_is_read_in_parts_where_no_gradient_flows(monkeypatch):
    from cryorecon.volumes import fourier_mlp

    grid = Grid(16, 3.0)
    torch.manual_seed(0)
    volume = fourier_mlp.FourierMLP(grid, 2, 16, 1)
    rotation = rotations.random(15, torch.Generator().manual_seed(0)).view(3, 5, 3, 3)
    z = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1))
    whole = volume.slices(rotation, z, slice(None))
    monkeypatch.setattr(fourier_mlp, "AT_ONCE", 4 * grid.n)
    with torch.no_grad():
        torch.testing.assert_close(volume.slices(rotation, z, slice(None)), whole.detach(), rtol=1e-4, atol=1e-5)
