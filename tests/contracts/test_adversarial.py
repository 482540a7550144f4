"""The game: whose gradient goes where, when either player moves, and what the penalty penalises."""

import pytest
import torch
from torch import nn

from cryorecon.errors import InputError
from cryorecon.imaging.masks import radius_map
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.pose.prior import Prior
from cryorecon.model import Model
from cryorecon.objectives.adversarial import Adversarial, Game, gradient_norms
from cryorecon.objectives.critic import ConvCritic
from cryorecon.objectives.simulator import Simulator
from cryorecon.training.fit import fit
from cryorecon.volumes.real_space import DensityGrid


@pytest.fixture
def game(small):
    """Model, objective and a batch of the small problem."""
    torch.manual_seed(0)
    model = Model(small.grid, DensityGrid(small.grid), Prior(), Fixed())
    objective = Adversarial(Simulator(small.grid), ConvCritic(16, 4, 2), Game(critic_steps=3), 8.0, model.volume.constrain)
    return model, objective, small.loader().read(torch.arange(6))


def test_the_gradient_norm_is_that_of_a_whole_image():
    """A linear critic with weight w: the norm is |w| for every image, not that of a pixel or of the batch."""
    weight = torch.randn(8, 8)
    norms = gradient_norms(lambda images: (images * weight).sum((1, 2)), torch.randn(5, 8, 8))
    torch.testing.assert_close(norms, weight.norm().expand(5))


def test_images_do_not_share_a_gradient():
    critic = ConvCritic(8, 4, 1)
    images = torch.randn(4, 8, 8)
    torch.testing.assert_close(gradient_norms(critic, images)[2:3], gradient_norms(critic, images[2:3]))


def test_the_critic_moves_with_every_batch_and_the_generator_with_every_third(game):
    model, objective, batch = game
    groups = [step.group for _ in range(7) for step in objective.phases(model, batch)]
    assert groups == ["critic", "critic", "critic", "generator"] * 2 + ["critic"]
    objective.finish_pass(model)
    assert [step.group for _ in range(3) for step in objective.phases(model, batch)] == groups[:4]


def steps(objective, model, batch):
    found = [step for _ in range(3) for step in objective.phases(model, batch)]
    return found[0], found[-1]


def test_either_step_leaves_the_other_players_gradients_alone(game):
    """The public code's defect: the generator's step left gradients that the critic's next step added to its own."""
    model, objective, batch = game
    critics, generators = steps(objective, model, batch)
    critics.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.critic.parameters() if p.ndim > 1)
    assert all(p.grad is None for p in (*model.parameters(), *objective.simulator.parameters()))
    before = [p.grad.clone() for p in objective.critic.parameters()]
    generators.backward()
    assert all(torch.equal(p.grad, b) for p, b in zip(objective.critic.parameters(), before, strict=True))
    assert all(p.requires_grad for p in objective.critic.parameters())
    assert model.volume.voxels.grad.abs().sum() > 0
    assert objective.simulator.log_noise.grad.abs() > 0


def test_each_player_has_its_clip(game):
    model, objective, batch = game
    objective.game = Game(1, critic_clip=1e-3, generator_clip=1e-4)
    assert [(step.group, step.clip) for step in steps(objective, model, batch)] == [("critic", 1e-3), ("generator", 1e-4)]


class Linear(nn.Module):
    """A critic whose score is the image's product with a weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        return (images * self.weight).sum((1, 2))


def test_either_player_moves_in_its_own_favour(small, game):
    """A step down the generator's gradient raises the scores of simulated images; one down the critic's, the distance."""
    model, _, batch = game
    pattern = torch.exp(-radius_map(16, 2).square() / 8)
    objective = Adversarial(Simulator(small.grid), Linear(0.01 * pattern), Game(3, penalty=0.0), 8.0)
    critics, generators = steps(objective, model, batch)

    def score():
        torch.manual_seed(1)
        with torch.no_grad():
            return float(objective.critic(objective.simulator.images(objective.simulator(model, batch))).mean())

    def distance():
        torch.manual_seed(2)
        return critics.backward()["distance"]

    before, worth = score(), distance()
    generators.backward()
    with torch.no_grad():
        for player, step in ((model.volume.voxels, 10.0), (objective.critic.weight, 1e-3)):
            player.sub_(step * player.grad / player.grad.norm())
    assert score() > before
    with torch.no_grad():
        model.volume.voxels.zero_()
    assert distance() > worth


def test_the_critic_sees_the_band_and_nothing_beyond(small, game):
    model, _, batch = game
    seen = []

    class Watching(Linear):
        def forward(self, images):
            seen.append(images.detach())
            return super().forward(images)

    objective = Adversarial(Simulator(small.grid, windowed=False), Watching(torch.ones(16, 16)), Game(3), 4.0)
    for step in steps(objective, model, batch):
        step.backward()
    assert len(seen) == 3  # both kinds at once, what lies between them, simulated ones alone
    for images in seen:
        spectra = small.grid.spectra(images).abs()
        inside = small.grid.n_points(4.0)
        assert float(spectra[:, inside:].max()) < 1e-4 < float(spectra[:, :inside].mean())


def test_the_logged_loss_is_algorithm_2s(small, game):
    """With a linear critic: distance is the difference of the means of scores, the penalty (|w| - 1)^2."""
    model, _, batch = game
    weight = torch.randn(16, 16) / 20
    simulator = Simulator(small.grid)
    objective = Adversarial(simulator, Linear(weight), Game(3), 8.0)
    step, _ = steps(objective, model, batch)
    torch.manual_seed(5)
    log = step.backward()
    torch.manual_seed(5)
    with torch.no_grad():
        real, fake = simulator.images(batch), simulator.images(simulator(model, batch))
    expected = float(((real - fake) * weight).sum((1, 2)).mean())
    assert log["distance"] / log["weight"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert log["penalty"] / log["weight"] == pytest.approx((float(weight.norm()) - 1) ** 2, rel=1e-4)
    assert log["critic_slope"] / log["weight"] == pytest.approx(float(weight.norm()), rel=1e-4)


def test_fit_plays_it_and_voxels_stay_above_zero(small, game):
    model, objective, _ = game
    made = {"critic": [torch.optim.Adam(objective.critic.parameters(), 1e-3)],
            "generator": [torch.optim.Adam(model.volume.parameters(), 0.5)]}
    *_, record = fit(model, objective, small.loader(), made, range(1, 4), 4, 0, torch.device("cpu"))
    assert record.done
    assert record.means()["generator_gradient"] > 0
    voxels = model.volume.voxels.detach()
    assert float(voxels.min()) == 0
    assert float(voxels.max()) > 0


@pytest.mark.parametrize("constraint", ["positive", "radial", "none"])
def test_voxels_are_kept_where_they_may_be(small, constraint):
    """No farther moved than need be, and not again where they already are. The mask's radius is 6 px of 8."""
    volume = DensityGrid(small.grid, (radius_map(16, 3) <= 6).float(), constraint=constraint)
    before = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        volume.voxels.copy_(before)
    volume.constrain()
    radius, after = radius_map(16, 3), volume.voxels.detach().clone()
    most = before[radius <= 0.9 * 6].max()
    cap = torch.where(radius <= 0.9 * 6, most, ((6 - radius) / 0.6 * most).clamp(min=0))
    wanted = {"positive": before.clamp(min=0), "radial": torch.minimum(before.clamp(min=0), cap), "none": before}[constraint]
    torch.testing.assert_close(after, wanted)
    volume.constrain()
    torch.testing.assert_close(volume.voxels.detach(), after)


def test_r1_holds_the_slope_at_real_images_and_spectral_norms_need_no_penalty(small, game):
    """The logged penalty of R1 is half of the mean squared gradient at the batch's own images; without one there is none."""
    model, objective, batch = game
    seen = batch.select(small.grid.band(8.0))
    logs = {}
    for held in ("r1", "spectral"):
        rival = Adversarial(objective.simulator, objective.critic, Game(held=held), 8.0)
        logs[held] = next(iter(rival.phases(model, batch))).backward()
    norms = gradient_norms(objective.critic, objective.simulator.images(seen)).detach()
    assert logs["r1"]["penalty"] == pytest.approx(float(norms.square().mean()) / 2 * len(batch), rel=1e-4)
    assert not {"penalty", "critic_slope"} & set(logs["spectral"])


def test_a_critic_can_not_halve_an_image_for_ever():
    with pytest.raises(InputError, match="critic_layers"):
        ConvCritic(16, 4, 5)
    assert ConvCritic(16, 4, 4)(torch.randn(3, 16, 16)).shape == (3,)
