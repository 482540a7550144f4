"""Critics: what the templates are blind to, what reads an image on rings, and what keeps a critic smooth."""

import math

import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.geometry.rings import _Product, polar_sampling
from cryorecon.objectives.critic import ConvCritic, PolarCritic, with_spectral_norms

BOX = 32


def blobs(turn, mirror=1.0, out=0.0):
    """Images ``(1, D, D)`` of four blobs turned by ``turn`` radians about the origin at D // 2, one of them further ``out``."""
    axis = torch.arange(BOX) - BOX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    image = torch.zeros(BOX, BOX)
    for radius, angle, width in ((3.0 + out, 0.2, 2.0), (7.0, 1.9, 2.5), (9.0, 3.0, 2.0), (6.0, 4.6, 3.0)):
        centre = radius * torch.tensor([math.cos(mirror * angle + turn), math.sin(mirror * angle + turn)])
        image += torch.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
    return image[None]


def test_templates_are_blind_to_turns_and_mirrors_and_to_nothing_else():
    torch.manual_seed(0)
    critic = PolarCritic(BOX, 4)
    with torch.no_grad():
        scores = torch.cat([critic(blobs(turn, mirror)) for turn in torch.linspace(0, 6, 9) for mirror in (1.0, -1.0)])
        other = critic(blobs(0.0, out=4.0))
        plain = ConvCritic(BOX, 4)
        unlike = torch.cat([plain(blobs(turn)) for turn in torch.linspace(0, 6, 9)])
    spread = float(scores.max() - scores.min())
    assert spread < 0.2 * float((scores.mean() - other).abs())
    assert float(unlike.std() / unlike.mean().abs()) > 100 * float(scores.std() / scores.mean().abs())


def test_rings_read_a_parabola_exactly_and_keep_the_variance_of_white_noise():
    matrix, rings, angles = polar_sampling(BOX)
    axis = torch.arange(BOX).float() - BOX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    image = 2 + 0.5 * x - 0.25 * y + 0.1 * x**2 - 0.05 * x * y
    radius = torch.arange(rings)[:, None] + 0.5
    angle = 2 * math.pi * torch.arange(angles) / angles
    px, py = radius * angle.cos(), radius * angle.sin()
    expected = (2 + 0.5 * px - 0.25 * py + 0.1 * px**2 - 0.05 * px * py) * (2 * math.pi * radius / angles).sqrt()
    found = torch.sparse.mm(matrix, image.flatten()[:, None]).view(rings, angles)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    noise = torch.randn(BOX**2, 200, generator=torch.Generator().manual_seed(0))
    variance = torch.sparse.mm(matrix, noise).view(rings, angles, -1).var((1, 2))
    ratio = variance / (2 * math.pi * radius[:, 0] / angles)
    assert float(ratio.std() / ratio.mean()) < 0.15  # the same share of a pixel's on every ring


def test_the_sampling_has_derivatives_of_any_order():
    matrix = polar_sampling(8)[0].to_dense().double().to_sparse()
    x = torch.randn(64, 2, dtype=torch.float64, requires_grad=True)
    apply = lambda x: _Product.apply(x, matrix, matrix.T.coalesce()).square()  # noqa: E731
    assert torch.autograd.gradcheck(apply, x)
    assert torch.autograd.gradgradcheck(apply, x)


def test_a_critic_that_begins_has_a_slope_that_teaches():
    torch.manual_seed(0)
    critic = PolarCritic(BOX, 16)
    images = torch.randn(16, BOX, BOX, requires_grad=True)
    (slope,) = torch.autograd.grad(critic(images).sum(), images)
    assert 0.1 < float(slope.flatten(1).norm(dim=1).mean()) < 3


@pytest.mark.parametrize("critic", [lambda: ConvCritic(16, 4, 2), lambda: PolarCritic(16, 4)], ids=["conv", "polar"])
def test_spectral_norms_bound_every_layer(critic):
    torch.manual_seed(0)
    held = with_spectral_norms(critic())
    images = torch.randn(8, 16, 16)
    for _ in range(50):  # each look at a weight is a step of the power iteration
        held(images)
    for part in held.modules():
        if "weight" in getattr(part, "parametrizations", {}):
            weight = part.weight.detach()
            assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) == pytest.approx(1, abs=0.02)
            if weight.ndim == 4 and weight.shape[-1] == 2:  # templates: no order's norm is above all orders' together
                each = torch.linalg.matrix_norm(torch.view_as_complex(weight.contiguous()).transpose(0, 1), 2)
                assert float(each.max()) <= 1.02


def test_images_too_small_for_rings_are_refused():
    with pytest.raises(InputError, match="at least 8 px"):
        PolarCritic(6)
