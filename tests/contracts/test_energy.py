"""The one hot kernel, against its definition written out in numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryorecon.data.loader import Batch, Loader
from cryorecon.data.source import ArraySource
from cryorecon.imaging.ctf import ctf
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.given import Given
from cryorecon.model import Model, per_particle
from cryorecon.objectives.likelihood import PointSampler, reduce
from cryorecon.volumes.voxel_grid import VoxelGrid


@pytest.fixture
def model(small) -> Model:
    volume = VoxelGrid.from_density(small.maps, small.grid)
    return Model(small.grid, volume, Given(small.stack.poses.rotation, small.stack.poses.shift), Fixed())


def hypotheses(model, batch, k=3):
    """The images' poses with other shifts and random z."""
    generator = torch.Generator().manual_seed(0)
    posed = model.pose(Hypotheses.empty(len(batch), "cpu"), batch, model.energy)
    shift = posed.shift + 3 * torch.randn(len(batch), k, 2, generator=generator)
    z = torch.randn(len(batch), k, 1, generator=generator)
    weight = torch.log_softmax(torch.randn(len(batch), k, generator=generator), 1)
    return Hypotheses(posed.rotation.expand(-1, k, -1, -1), shift, z, weight, torch.zeros(len(batch), k))


def explicit_energy(small, model, found, index):
    """``sum_k |y - c S v|^2 / sigma^2`` over the half plane, image by image."""
    grid, out = small.grid, []
    points = grid.points.numpy().astype(np.float64)
    images = small.stack.images(index).numpy().astype(np.float64)
    place = np.arange(grid.box) - grid.box // 2
    sigma2 = small.noise[grid.shell].numpy().astype(np.float64)
    transfer = ctf(small.stack.optics[index], grid.frequency).numpy().astype(np.float64)
    for i, image in enumerate(images):
        wave_x = np.exp(-2j * np.pi / grid.box * points[:, :1] * place)
        wave_y = np.exp(-2j * np.pi / grid.box * points[:, 1:] * place)
        y = np.einsum("py,yx,px->p", wave_y, image, wave_x) / grid.box
        row = []
        for k in range(found.z.shape[1]):
            with torch.no_grad():
                v = model.volume.slices(found.rotation[i : i + 1, k : k + 1], found.z[i : i + 1, k : k + 1], slice(None))
            t = found.shift[i, k].numpy().astype(np.float64) / (grid.box * grid.apix)
            predicted = transfer[i] * np.exp(2j * np.pi * points @ t) * v[0, 0].numpy()  # the particle sits at -t
            row.append((np.abs(y - predicted) ** 2 / sigma2).sum())
        out.append(row)
    return np.array(out)


def test_energy_is_the_squared_distance_over_the_noise(small, model):
    index = torch.tensor([3, 0, 8])
    batch = small.loader().read(index)
    found = hypotheses(model, batch)
    with torch.no_grad():
        np.testing.assert_allclose(model.energy(found, batch), explicit_energy(small, model, found, index), rtol=2e-4)


def test_images_multiplied_by_their_ctf_differ_by_a_constant_each(small, model):
    transfer = ctf(small.stack.optics, small.grid.frequency)
    images = small.grid.images(small.grid.spectra(small.stack.images()) * transfer)
    multiplied = replace(small.stack, source=ArraySource(images.numpy()), premultiplied=True)
    index = torch.tensor([1, 4, 5, 11])
    plain = small.loader().read(index)
    batch = Loader(multiplied, small.grid, small.noise, windowed=False).read(index)
    found = hypotheses(model, plain)
    with torch.no_grad():
        difference = model.energy(found, plain) - model.energy(found, batch)
    torch.testing.assert_close(difference, plain.norm[:, None].expand(-1, 3), rtol=1e-4, atol=1e-2)


def test_scale_multiplies_the_prediction(small, model):
    """A contrast of 2 is a volume twice as strong."""
    loader = small.loader()
    doubled = VoxelGrid.from_density(2 * small.maps, small.grid)
    index = torch.arange(6)
    plain = loader.read(index)
    found = hypotheses(model, plain)
    with torch.no_grad():
        expected = Model(small.grid, doubled, model.pose, model.conformation).energy(found, plain)
        loader.set_scale(torch.full((12,), 2.0))
        torch.testing.assert_close(model.energy(found, loader.read(index)), expected, rtol=1e-4, atol=1e-2)


def test_energies_of_a_particles_images_add_before_anything_is_reduced(small, model):
    batch = small.loader().read(torch.tensor([0, 1, 2, 3]))
    tilts = Batch(batch.data, batch.power, batch.norm, batch.image, torch.tensor([4, 4, 4, 1]))
    energy = torch.arange(8.0).view(4, 2)
    torch.testing.assert_close(per_particle(energy, tilts), torch.tensor([[6.0, 9.0], [6.0, 7.0]]))
    torch.testing.assert_close(per_particle(energy, batch), energy)


def test_reductions():
    energy, weight = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.5, 0.25, 0.25]]).log()
    torch.testing.assert_close(reduce(energy, weight, "expected"), torch.tensor([2.0]))
    torch.testing.assert_close(reduce(energy, weight, "best"), torch.tensor([1.0]))
    total = 0.5 * np.exp(-1) + 0.25 * np.exp(-2) + 0.25 * np.exp(-4)
    torch.testing.assert_close(reduce(energy, weight, "marginal"), torch.tensor([-np.log(total)], dtype=torch.float32))


def test_sampled_points_give_the_energys_gradient_on_average(small, model):
    """The sampler's weights keep ``power |v|^2 - 2 Re(data* v)``, all of the energy that a model can change, unbiased."""
    batch = small.loader().read(torch.arange(4))
    found = hypotheses(model, batch, 1)
    generator = torch.Generator().manual_seed(0)
    sampler = PointSampler(small.grid, 8, 0.5)
    with torch.no_grad():
        whole = model.energy(found, batch) - batch.norm[:, None]
        drawn = torch.stack([model.energy(found, sampler(batch, generator)) - batch.norm[:, None] for _ in range(300)])
    error = drawn.std(0) / 300**0.5
    assert ((drawn.mean(0) - whole).abs() < 4 * error + 1e-3).all()
    assert (drawn.std(0) > 0).all()
