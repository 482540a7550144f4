"""The loop: what it does with a step's gradient."""

import math

import pytest
import torch
from torch import nn

from cryorecon.model import Model
from cryorecon.objectives.steps import Gradient
from cryorecon.training.fit import fit


class Pull:
    """One step a batch along a gradient of norm 5."""

    def __init__(self, parameter: nn.Parameter, clip: float):
        self.parameter, self.clip = parameter, clip

    def phases(self, model, batch):
        yield Gradient("model", lambda: self._backward(len(batch)), clip=self.clip, every=2)

    def finish_pass(self, model):
        return {}

    def _backward(self, images):
        (self.parameter * torch.tensor([3.0, 4.0])).sum().backward()
        return {"weight": float(images)}


@pytest.mark.parametrize("clip", [0.5, math.inf])
def test_a_step_is_clipped_and_its_norm_logged(small, clip):
    loader = small.loader()
    parameter = nn.Parameter(torch.zeros(2))
    optimisers = {"model": [torch.optim.SGD([parameter], 1.0)]}
    objective = Pull(parameter, clip)
    nothing = Model(loader.grid, nn.Identity(), nn.Identity(), nn.Identity())
    *_, last = fit(nothing, objective, loader, optimisers, range(1, 2), loader.n_particles // 2, 0, loader.grid.device)
    steps = 2
    assert float(parameter.detach().norm()) == pytest.approx(steps * min(clip, 5.0), rel=1e-5)
    logged = {"model_gradient": pytest.approx(2 * 5.0)} if clip < math.inf else {}
    assert last.means() == logged, "twice the norm: such a step comes with every second batch"
