"""Every image once: batches by points, what is remembered, and what is read for it."""

import numpy as np
import pytest
import torch

import cryorecon
from cryorecon.data.loader import Loader
from cryorecon.inference.conformation.posterior import Posterior
from cryorecon.inference.pose.given import Given
from cryorecon.model import Model
from cryorecon.training import inferred as module
from cryorecon.training.inferred import inferred, latent_posteriors, latents, remember
from cryorecon.volumes.voxel_grid import VoxelGrid


@pytest.fixture(scope="module")
def stack():
    """24 images of 16 px of 9 particles, in no order."""
    made, _ = cryorecon.simulate_stack(cryorecon.flexible("hinge", 2), n=24, box=16, apix=12.0, snr=1.0, max_shift=1)
    particle = torch.arange(24)[torch.randperm(24, generator=torch.Generator().manual_seed(0))] % 9
    return made.__class__(made.source, made.apix, made.optics, made.poses, particle)


@pytest.fixture
def problem(stack):
    """A model whose posterior has something to say, and the loader."""
    from cryorecon.geometry.grid import Grid

    grid = Grid(stack.box, stack.apix)
    volume = VoxelGrid.from_density(torch.randn(3, 16, 16, 16, generator=torch.Generator().manual_seed(1)), grid)
    model = Model(grid, volume, Given(stack.poses.rotation, stack.poses.shift), Posterior(volume, grid))
    return model, Loader(stack, grid, torch.full((grid.n_shells,), 50.0))


@pytest.mark.parametrize("points", [1, 500, 1 << 20])
def test_every_image_comes_once_in_batches_of_whole_particles(problem, points):
    model, loader = problem
    seen = [batch for batch, _ in inferred(model, loader, points)]
    assert sorted(torch.cat([batch.image for batch in seen]).tolist()) == list(range(24))
    owners = [set(batch.particle.tolist()) for batch in seen]
    assert sum(map(len, owners)) == 9
    assert len(seen) == {1: 9, 500: 9, 1 << 20: 1}[points]


def test_who_consumes_it_keeps_its_gradients(problem):
    model, loader = problem
    for _, found in inferred(model, loader):
        assert not found.z.requires_grad
        assert torch.is_grad_enabled()


def test_latents_from_memory_are_those_inferred(problem):
    model, loader = problem
    before = latents(model, loader)
    remember(model, model.conformation, loader)
    loader.epoch = None  # whoever reads an image now fails
    np.testing.assert_allclose(latents(model, loader), before, rtol=1e-5, atol=1e-6)
    assert before.shape == (9, 2)
    assert before.std() > 1e-3


@pytest.mark.parametrize(("options", "passes"), [({}, 1), ({"pose": "refine"}, 3)], ids=["given poses", "refined poses"])
def test_checkpoints_read_the_images_only_where_z_may_have_changed(tmp_path, monkeypatch, options, passes):
    count = []
    whole = module.inferred

    def counted(*arguments):
        count.append(1)
        return whole(*arguments)

    monkeypatch.setattr(module, "inferred", counted)
    stack, _ = cryorecon.simulate_stack(cryorecon.flexible("hinge", 2), n=24, box=16, apix=12.0, snr=1.0, max_shift=1)
    run = cryorecon.train(stack, tmp_path / "run", zdim=1, epochs=2, width=8, layers=1, atoms=0, device="cpu", **options)
    assert run.directory.epochs() == [0, 1, 2]
    assert len(count) == passes


def test_what_images_say_of_z_gives_its_posterior_with_the_prior(problem):
    """Precision and pull with the Gaussian prior are the posterior that is told; remembered or not."""
    model, loader = problem
    found = latent_posteriors(model, loader)
    whole = found.precision + torch.eye(2)
    torch.testing.assert_close(torch.linalg.solve(whole, found.pull), found.mean, rtol=1e-4, atol=1e-5)
    remember(model, model.conformation, loader)
    torch.testing.assert_close(latent_posteriors(model, loader).precision, found.precision)
    packed = found.packed()
    assert packed.shape == (9, 5)
    np.testing.assert_allclose(packed[:, 2:], found.precision.numpy()[:, [0, 0, 1], [0, 1, 1]])


def test_an_encoder_tells_what_its_weight_of_the_divergence_makes_of_it(problem):
    """N(m, S) under weight w stands for likelihood^(1/w) x prior; a table tells nothing."""
    from cryorecon.inference.conformation.encoder import Encoder
    from cryorecon.inference.conformation.table import Table

    model, loader = problem
    encoder = Encoder(model.grid, 2, 8, 1, tilt=torch.eye(3).expand(24, 3, 3))
    found = latent_posteriors(Model(model.grid, model.volume, model.pose, encoder), loader, 0.25)
    posterior = found.precision / 0.25 + torch.eye(2)
    torch.testing.assert_close(torch.linalg.solve(posterior, found.pull / 0.25), found.mean, rtol=1e-4, atol=1e-5)
    silent = latent_posteriors(Model(model.grid, model.volume, model.pose, Table(9, 2)), loader)
    assert silent.packed() is None
    assert len(silent.mean) == 9
