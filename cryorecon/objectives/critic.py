"""A critic of images: a number for each, higher where it takes them for real."""

from itertools import pairwise

from torch import Tensor, nn

from cryorecon.errors import InputError

SLOPE = 0.1


class Critic(nn.Module):
    """CryoGAN's: ``layers`` times 3 x 3 convolution, 2 x 2 maximum, leaky ReLU; then two linear layers (Gupta et al. 2021).

    No normalisation layers: the gradient penalty is of one image each. Weights as He et al. 2015, biases zero.

    Parameters
    ----------
    box: side D of the images. width: K; the layers have 2 K, 4 K, ... channels. layers: m. hidden: of the linear layers.
    """

    def __init__(self, box: int, width: int = 16, layers: int = 3, hidden: int = 50):
        super().__init__()
        side = box >> layers
        if side < 1:
            raise InputError(f"critic_layers: expected at most {box.bit_length() - 1}, halvings of {box} px, found "
                             f"{layers}; give a smaller --critic-layers")
        channels = [1, *(width << (i + 1) for i in range(layers))]
        parts: list[nn.Module] = []
        for into, out in pairwise(channels):
            parts += [nn.Conv2d(into, out, 3, padding=1), nn.MaxPool2d(2), nn.LeakyReLU(SLOPE)]
        flat = channels[-1] * side * side
        self.network = nn.Sequential(*parts, nn.Flatten(), nn.Linear(flat, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, 1))
        for part in self.network:
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, a=SLOPE)
                part.get_parameter("bias").data.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """``(B,)`` for images ``(B, D, D)``."""
        return self.network(images[:, None])[:, 0]
