"""A training step of the network alone, on random images in memory: its speed, and how many products it takes."""

import machine
import torch

from cryorecon.data.loader import Batch
from cryorecon.geometry import rotations
from cryorecon.geometry.grid import Grid
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.pose.given import Given
from cryorecon.model import Model
from cryorecon.objectives.likelihood import Likelihood, PointSampler
from cryorecon.volumes.fourier_mlp import FourierMLP

WARM_UP = 2
STEP_FLOPS = {"cpu": 2e11, "cuda": 2e13}  # about what one step should hold
MOST_IMAGES = {"cpu": 64, "cuda": 2048}


def flops_an_image(box: int, width: int, layers: int) -> float:
    """Products of a training step, multiplication and addition counted as two, over the half plane's points.

    Forward once, the gradient of the weights once, and of the inputs once except in the first layer, whose inputs, the
    encoded positions, are constants. The encoder's products (a few thousandths) are left out.
    """
    features = 2 * 3 * (box // 2)
    a_point = 2 * (2 * features * width + 3 * layers * width**2 + 3 * 2 * width)
    return float(a_point * Grid(box, 1.0).n)


def images_per_second(box: int, width: int, layers: int, device: str, bf16: bool, threads: int, seconds: float) -> float:
    """Images a second of forward, backward and Adam, over at least ``seconds``; on a CPU in processor time."""
    n = min(MOST_IMAGES[device], max(1, round(STEP_FLOPS[device] / flops_an_image(box, width, layers))))
    grid = Grid(box, 1.0, device)
    batch = random_batch(grid, n)
    generator = torch.Generator().manual_seed(0)
    pose = Given(rotations.random(n, generator).to(device), torch.zeros(n, 2, device=device))
    model = Model(grid, FourierMLP(grid, 0, width, layers, half_precision=bf16), pose, Fixed()).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    objective = Likelihood(PointSampler(grid, box / 2), generator)

    def one() -> None:
        for phase in objective.phases(model, batch):
            optimiser.zero_grad(set_to_none=True)
            phase.backward()
            optimiser.step()

    for _ in range(WARM_UP if device == "cuda" else 1):
        one()
    began, done = machine.clock(device, threads), 0
    while (used := machine.clock(device, threads) - began) < seconds or not done:
        one()
        done += n
    return done / used


def random_batch(grid: Grid, n: int) -> Batch:
    """``n`` images of noise."""
    device = grid.device
    shape = (n, grid.n)
    data = torch.complex(torch.randn(shape, device=device), torch.randn(shape, device=device))
    ids = torch.arange(n, device=device)
    return Batch(data, torch.ones(shape, device=device), data.abs().square().sum(1), ids, ids)
