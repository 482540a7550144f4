"""The simulator: with equal hypotheses it makes the forward model's images; with the truth, the data's mean and spectrum."""

from dataclasses import replace

import pytest
import torch

from cryorecon.imaging import noise as noises
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.given import Given
from cryorecon.inference.pose.prior import Prior
from cryorecon.model import Model
from cryorecon.objectives.simulator import DAMPED, Simulator, natural_unit, signal_to_noise
from cryorecon.volumes.real_space import DensityGrid
from cryorecon.volumes.voxel_grid import VoxelGrid


def true_model(problem, pose):
    return Model(problem.grid, VoxelGrid.from_density(problem.maps[:1], problem.grid), pose, Fixed())


def test_with_equal_hypotheses_it_is_the_forward_models_image(small):
    """The image of ``c S v``, brought through the loader, is what the simulator makes; and its energy is zero."""
    batch = small.loader().read(torch.tensor([7, 2, 3]))
    poses = small.stack.poses
    model = true_model(small, Given(poses.rotation, poses.shift))
    simulator = Simulator(small.grid, windowed=False)
    with torch.no_grad():
        found = model.infer(batch)
        clean = simulator.clean(model, found, batch)
        transfer = small.stack.transfer(batch.image, small.grid.frequency)
        images = small.grid.images(transfer * model.predict(found)[:, 0])
        whitened = small.grid.spectra(images) * transfer / small.noise[small.grid.shell]
        assert float((clean.data - whitened).abs().max() / whitened.abs().max()) < 1e-5
        assert float((model.energy(found, clean)[:, 0] / clean.norm).abs().max()) < 1e-5
        # what the critic sees: the same image with the CTF's sign taken off, in units of the noise
        power = transfer.square() / small.noise[small.grid.shell]
        seen = small.grid.spectra(simulator.images(clean))
        expected = (transfer.sign() * small.grid.spectra(images) / small.noise[small.grid.shell].sqrt()
                    * (power / (power + DAMPED * power.mean(1, keepdim=True))).sqrt())
        assert float((seen - expected).abs().max() / expected.abs().max()) < 1e-5


def test_noise_has_the_measured_spectrum(small):
    """Of an empty box the simulator makes what the loader makes of noise images drawn from a coloured spectrum."""
    grid, n = small.grid, 3000
    power = torch.linspace(3, 0.5, grid.n_shells)
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    batch = small.loader().read(torch.zeros(n, dtype=torch.int64))
    transfer = small.stack.transfer(torch.tensor([0]), grid.frequency)
    scaled = type(batch)(batch.data, (transfer.square() / power[grid.shell]).expand(n, -1), batch.norm, batch.image,
                         batch.particle)
    model = Model(grid, DensityGrid(grid), Prior(), Fixed())
    with torch.no_grad():
        made = Simulator(grid)(model, scaled).data
    drawn = grid.spectra(noises.draw(power, grid, n, generator)) * transfer / power[grid.shell]
    ratio = grid.shell_mean(made.abs().square().mean(0))[1:] / grid.shell_mean(drawn.abs().square().mean(0))[1:]
    assert float((ratio - 1).abs().max()) < 0.05


def test_with_the_truth_mean_and_spectrum_are_the_datas(planted):
    """True map, true priors: mean image and radial spectrum of simulated images equal those of the data; of a wrong map they
    do not."""
    problem = planted(3000, sigma=1.0)
    loader = problem.loader()
    batch = loader.read(torch.arange(3000))
    simulator = Simulator(problem.grid)
    torch.manual_seed(3)
    empty = Model(problem.grid, DensityGrid(problem.grid), Prior(4.0), Fixed())
    models = {"true": true_model(problem, Prior(4.0)), "empty": empty}
    with torch.no_grad():
        real = simulator.images(batch)
        fake = {name: simulator.images(simulator(model, batch)) for name, model in models.items()}

    def misfit(images):
        """Largest deviation of the mean image in standard errors, and of the spectrum as a ratio."""
        error = ((real.var(0) + images.var(0)) / len(real)).sqrt().clamp(min=1e-3)
        mean = float(((real.mean(0) - images.mean(0)) / error).square().mean().sqrt())
        spectra = [problem.grid.shell_mean(problem.grid.spectra(x).abs().square().mean(0))[1:] for x in (real, images)]
        return mean, float((spectra[0] / spectra[1] - 1).abs().max())

    mean, spectrum = misfit(fake["true"])
    assert mean < 1.3
    assert spectrum < 0.06
    mean, spectrum = misfit(fake["empty"])
    assert mean > 2
    assert spectrum > 0.2


def test_a_ball_of_the_natural_unit_has_the_signal_of_the_data(planted):
    problem = planted(600, sigma=2.0)
    ball = soft_sphere(16, 4, 1)
    batch = problem.loader().read(torch.arange(600))
    model = true_model(problem, Prior())
    unit = natural_unit(model, batch, ball)
    signal = float(problem.clean.abs().square().sum(1).mean())
    assert float(problem.grid.spectra(unit * ball.sum(0)).abs().square().sum()) == pytest.approx(signal, rel=0.35)


def test_a_critic_sees_bands_and_nothing_less(small):
    simulator = Simulator(small.grid)
    batch = small.loader().read(torch.arange(3))
    assert simulator.images(batch.select(small.grid.band(4))).shape == (3, 16, 16)
    with pytest.raises(TypeError, match="band"):
        simulator.images(batch.select(torch.tensor([0, 5])))


def test_the_prior_reaches_the_images(small):
    """Two simulations of one batch differ by their poses, noise left out."""
    batch = small.loader().read(torch.arange(4))
    model = true_model(small, Prior(5.0))
    simulator = Simulator(small.grid)
    with torch.no_grad():
        first, second = (simulator.clean(model, model.infer(batch), batch).data for _ in (1, 2))
    assert float((first - second).abs().max()) > 0.1 * float(first.abs().max())
    assert isinstance(model.infer(batch), Hypotheses)


def test_shells_weigh_as_their_signal_and_noise_keeps_its_variance(planted):
    """The ratio of powers is that of the true map's slices; the view's weights don't change the critic's noise in all."""
    problem = planted(1000, sigma=1.0)
    grid, poses = problem.grid, problem.stack.poses
    batch = problem.loader().read(torch.arange(1000))
    model = true_model(problem, Given(poses.rotation, poses.shift))
    with torch.no_grad():
        power = batch.power * model.predict(model.infer(batch))[:, 0].abs().square()
        clear = batch.power > 0.1 * batch.power.mean(1, keepdim=True)
        true = grid.shell_mean(((power * clear).sum(0) / clear.sum(0).clamp(min=1))[None])[0]
        found = signal_to_noise(batch, grid)
        strong = true > 0.1
        assert int(strong.sum()) >= 3
        torch.testing.assert_close(found[strong], true[strong], rtol=0.2, atol=0.1)
        simulator = Simulator(grid, windowed=False)
        empty = replace(batch, data=batch.power.sqrt() * torch.randn_like(batch.data))
        before = simulator.images(empty).var()
        simulator.look(batch)
        assert float(simulator.view.max() / simulator.view.min()) > 2
        assert float(simulator.images(empty).var() / before) == pytest.approx(1, abs=0.1)
