r"""Distribution matching: a critic tells real images from simulated ones, the generator learns to be taken for real.

The Wasserstein distance with a gradient penalty (Gulrajani et al. 2017; Multi-CryoGAN, Algorithm 2):

.. math::
    L_D = E D(\tilde y) - E D(y) + \lambda E (\|\nabla_{\hat y} D(\hat y)\|_2 - 1)^2, \qquad L_G = -E D(\tilde y),

with :math:`\hat y = \kappa y + (1 - \kappa) \tilde y`, ``kappa`` uniform, and the norm of the gradient that of a whole image.
A real image and the simulated one that it is mixed with share their CTF. Instead of this penalty the critic may be
held by ``R1``, :math:`\lambda / 2\, E \|\nabla D(y)\|_2^2` at real images (Mescheder, Geiger & Nowozin 2018), or by spectral
norms of its layers (Miyato et al. 2018), which need no penalty.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cryorecon.data.loader import Batch
from cryorecon.model import Model
from cryorecon.objectives.simulator import Simulator
from cryorecon.objectives.steps import Gradient
from cryorecon.objectives.view_likelihood import ViewLikelihood


def gradient_norms(critic: nn.Module, images: Tensor) -> Tensor:
    """Norm of the critic's gradient at each image ``(B, D, D)``: ``(B,)``, differentiable."""
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return gradient.flatten(1).norm(dim=1)


@dataclass(frozen=True)
class Game:
    """critic_steps: of the critic for one of the generator. penalty: lambda. held: what keeps the critic smooth, ``penalty``,
    ``r1`` or ``spectral``. critic_clip, generator_clip: largest norm of the parameters' gradient."""

    critic_steps: int = 1
    penalty: float = 10.0
    held: str = "penalty"
    critic_clip: float = 1e3
    generator_clip: float = 1e3


class Adversarial:
    """A critic's step for each batch, and a generator's after every ``critic_steps``-th.

    simulator, critic: as named. limit: band in Fourier pixels that the critic sees; it may grow. settle: called after each of
    the generator's steps, to bring its parameters back to where they may be. prepare: called before each batch with its number
    in the pass, to set what changes as the game goes on. likelihood: of the generator's own maps, the critic while ``settling``
    (set by ``prepare``, and so is ``states``, how many conformations it sums over); it has nothing to learn. batches: done in
    this pass.
    """

    settling = False
    states = 1

    def __init__(self, simulator: Simulator, critic: nn.Module, game: Game, limit: float,
                 settle: Callable[[], None] = lambda: None, prepare: Callable[[int], None] = lambda batch: None,
                 likelihood: ViewLikelihood | None = None):
        self.simulator, self.critic, self.game, self.settle, self.prepare = simulator, critic, game, settle, prepare
        self.limit, self.likelihood = limit, likelihood
        self.batches = 0

    def phases(self, model: Model, batch: Batch) -> Iterator[Gradient]:
        """The critic's step and, when it is due, the generator's."""
        self.prepare(self.batches)
        seen = batch.select(self.simulator.grid.band(self.limit))
        self.batches += 1
        if self.settling:
            yield Gradient("generator", lambda: self._contrast(model, seen), self.settle, self.game.generator_clip)
            return
        yield Gradient("critic", lambda: self._critic(model, seen), clip=self.game.critic_clip)
        if self.batches % self.game.critic_steps == 0:
            yield Gradient("generator", lambda: self._generator(model, seen), self.settle, self.game.generator_clip,
                           self.game.critic_steps)

    def finish_pass(self, model: Model) -> dict[str, float]:
        """The count of batches begins anew, so that a resumed run does as an undisturbed one."""
        self.batches = 0
        return {}

    def _critic(self, model: Model, batch: Batch) -> dict[str, float]:
        n = len(batch)
        with torch.no_grad():
            real, fake = self.simulator.images(batch), self.simulator.images(self.simulator(model, batch))
        scores = self.critic(torch.cat([real, fake]))
        distance = scores[:n].mean() - scores[n:].mean()
        log = {"distance": float(distance.detach()) * n, "weight": float(n)}
        loss = -distance
        if self.game.held != "spectral":
            norms = gradient_norms(self.critic, self._places(real, fake))
            penalty = (norms - 1).square().mean() if self.game.held == "penalty" else norms.square().mean() / 2
            loss = loss + self.game.penalty * penalty
            log |= {"penalty": float(penalty.detach()) * n, "critic_slope": float(norms.detach().sum())}
        loss.backward()
        return log

    def _places(self, real: Tensor, fake: Tensor) -> Tensor:
        """Images ``(n, D, D)`` at which the critic's slope is held."""
        if self.game.held == "r1":
            return real
        share = torch.rand(len(real), 1, 1).to(real.device)
        return share * real + (1 - share) * fake

    def _contrast(self, model: Model, batch: Batch) -> dict[str, float]:
        assert self.likelihood is not None
        with torch.no_grad():
            simulated = self.simulator(model, batch)
        noise = self.simulator.log_noise.exp()
        difference = self.likelihood.difference(model.volume, batch, simulated, noise, self.states)
        (-difference).backward()
        return {"contrast": float(difference.detach()) * len(batch), "weight": float(len(batch))}

    def _generator(self, model: Model, batch: Batch) -> dict[str, float]:
        self.critic.requires_grad_(False)  # its gradient is the critic's step's alone
        try:
            (-self.critic(self.simulator.images(self.simulator(model, batch))).mean()).backward()
        finally:
            self.critic.requires_grad_(True)
        return {}
