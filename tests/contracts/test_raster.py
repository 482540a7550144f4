"""The volume that a search looks at, against the trilinear lattice and the transform's own symmetry."""

import pytest
import torch

from cryorecon.geometry import rotations
from cryorecon.geometry.fourier import resample
from cryorecon.geometry.grid import Grid
from cryorecon.volumes.raster import Raster
from cryorecon.volumes.voxel_grid import VoxelGrid


def poses(n=12):
    return rotations.random(n, torch.Generator().manual_seed(0))


def lost(found, expected):
    """Share of the power of ``expected (N, P, Q)`` in the difference, worst component."""
    return float(((found - expected).abs().square().sum((0, 1)) / expected.abs().square().sum((0, 1))).max())


@pytest.mark.parametrize("box", [16, 17, 21, 24])
def test_slices_are_the_lattices_within_two_percent(box, smooth_maps):
    grid, maps = Grid(box, 3.0), smooth_maps(box, 3)
    raster = Raster(maps, grid, box / 2)
    found = raster.component_slices(poses(), slice(None))
    assert raster.z_dim == 2
    assert found.shape == (12, grid.n, 3)
    assert found.is_complex()
    for pad in (2, 4):  # the first is what a search is refined in; the second is as fine as the raster
        with torch.no_grad():
            expected = VoxelGrid.from_density(maps, grid, pad=pad).component_slices(poses(), slice(None))
        assert lost(found, expected) < 0.02


def test_what_is_lost_is_the_grain(smooth_maps):
    grid, maps = Grid(16, 3.0), smooth_maps(16, 1)
    with torch.no_grad():
        expected = VoxelGrid.from_density(maps, grid, pad=4).component_slices(poses(), slice(None))
    four, eight = (lost(Raster(maps, grid, 8, pad).component_slices(poses(), slice(None)), expected) for pad in (4, 8))
    assert 0.15 * four < eight < 0.4 * four, "it falls with the square"


@pytest.mark.parametrize("box", [16, 17])
def test_half_a_turn_in_the_plane_conjugates(box, smooth_maps):
    raster = Raster(smooth_maps(box, 2), Grid(box, 3.0), box / 2)
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    found = raster.component_slices(poses(), slice(None))
    torch.testing.assert_close(raster.component_slices(half_turn @ poses(), slice(None)), found.conj(), rtol=1e-5,
                               atol=1e-5 * float(found.abs().max()))


def test_a_family_is_its_mean_and_its_components(smooth_maps):
    grid = Grid(16, 3.0)
    raster = Raster(smooth_maps(16, 3), grid, 8)
    z = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1))
    turned = poses().view(3, 4, 3, 3)
    parts = raster.component_slices(poses(), slice(None)).view(3, 4, grid.n, 3)
    expected = parts[..., 0] + z[..., :1] * parts[..., 1] + z[..., 1:] * parts[..., 2]
    torch.testing.assert_close(raster.slices(turned, z, slice(None)), expected)
    alone = Raster(smooth_maps(16, 3)[:1], grid, 8)
    torch.testing.assert_close(alone.slices(turned, z[..., :0], slice(None)), parts[..., 0])


def test_a_limit_or_a_coarse_map_changes_nothing_within_the_band(smooth_maps):
    grid, maps = Grid(24, 3.0), smooth_maps(24, 1, sharpness=0.1)
    band = grid.band(5)
    whole = Raster(maps, grid, 12).component_slices(poses(), band)
    torch.testing.assert_close(Raster(maps, grid, 5).component_slices(poses(), band), whole)
    coarse = Raster(resample(maps[0], 16, 3)[None], grid, 5).component_slices(poses(), band)
    assert lost(coarse, whole) < 1e-4
    torch.testing.assert_close(Raster(maps, grid, 12).component_slices(poses(), torch.tensor([3, 9])), whole[:, [3, 9]])


class Asked:
    """Takes note of the index that is asked for."""

    def __getitem__(self, index):
        self.index = index
        return torch.zeros(*index.shape, 1, dtype=torch.complex64)


def test_the_index_of_a_whole_box_of_128_does_not_overflow(smooth_maps):
    grid = Grid(128, 1.5)
    raster = Raster(smooth_maps(16, 1), grid, 4.0)  # a small one, made to believe that it is large: 530 MB otherwise
    raster.reach = 64 * raster.pad - 1
    raster.side = 2 * raster.reach + 1
    raster.values = Asked()
    raster.component_slices(poses(4), slice(None))
    points = (grid.points * raster.pad) @ poses(4)[:, :2]
    x, y, z = points.round().clamp(-raster.reach, raster.reach).long().unbind(-1)
    expected = x + raster.side * y + raster.side**2 * z
    assert expected.abs().max() > 2**25
    assert torch.equal(raster.values.index, expected.abs())
    assert expected.abs().max() <= raster.side**3 // 2
