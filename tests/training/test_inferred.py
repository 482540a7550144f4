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
from cryorecon.training.inferred import inferred, latents, remember
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
