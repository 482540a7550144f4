"""The VAE's encoder: a Gaussian posterior of z from a particle's images by an amortised network."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryorecon.data.loader import Batch
from cryorecon.geometry.grid import Grid
from cryorecon.inference.hypotheses import Hypotheses


class Encoder(nn.Module):
    r"""Residual MLP on centred, phase-flipped, whitened Hartley images.

    A tilt series is encoded jointly (Zhong et al. 2020, appendix D.2): the first network reads each image, a second one the
    images of a particle together, and all of them receive one z. The second is given the mean of the first's features,

    .. math:: (\mu, \log\sigma^2) = \rho\Bigl(\frac1m \sum_{i=1}^m \varphi(y_i, T_i)\Bigr),

    where the paper concatenates those of a pair. Concatenation fixes the number of tilts and gives each its place; the mean
    serves pairs and whole series, and series with tilts missing, by one rule: functions of sets have this form (Zaheer et
    al. 2017), and what the place would tell is told by ``T_i``, which ``phi`` sees beside the image.

    Parameters
    ----------
    grid: the images' grid. z_dim: size of z. width, layers: of the residual MLP.
    limit: band in Fourier pixels that the encoder sees (default: all of the grid).
    tilt: ``(N, 3, 3)``, the stack's fixed rotations, for joint encoding; None (one image a particle): no second network.
    joint_layers: of the second network.
    """

    turn: Tensor | None

    def __init__(self, grid: Grid, z_dim: int, width: int = 1024, layers: int = 3, limit: float | None = None,
                 tilt: Tensor | None = None, joint_layers: int = 2):
        super().__init__()
        self.grid, self.z_dim = grid, z_dim
        self.n_points = grid.n_points(limit or grid.box / 2)
        self.first = nn.Linear(2 * self.n_points, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.head = nn.Linear(width, 2 * z_dim)
        self.joint = nn.ModuleList(nn.Linear(width, width) for _ in range(joint_layers if tilt is not None else 0))
        if tilt is not None:
            self.stage = nn.Linear(9, width, bias=False)
        turn = None if tilt is None else (tilt - torch.eye(3, device=tilt.device)).flatten(1)  # 0 where untilted
        self.register_buffer("turn", turn, persistent=False)  # the data's, not learned

    def images(self, hypotheses: Hypotheses, batch: Batch) -> Tensor:
        """What the network sees, ``(B, 2 P)``: unit noise variance, sign of the CTF removed, zeros of the CTF
        damped."""
        band = slice(0, self.n_points)
        power = batch.power[:, band]
        floor = 0.02 * power.mean(1, keepdim=True)
        flipped = batch.data[:, band] / torch.sqrt(power + floor)
        return self.grid.hartley(flipped * self.grid.phase_ramp(hypotheses.shift[:, 0], band)).flatten(1)

    def posterior(self, hypotheses: Hypotheses, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and log-variance ``(particles, d)``, each image's particle row ``(B,)`` and images per particle."""
        x = self.first(self.images(hypotheses, batch))
        if self.turn is not None:
            x = x + self.stage(self.turn[batch.image])
        x = _residual(F.relu(x), self.hidden)
        _, owner, counts = torch.unique(batch.particle, return_inverse=True, return_counts=True)
        if len(counts) < len(x):
            x = x.new_zeros(len(counts), x.shape[1]).index_add_(0, owner, x) / counts[:, None]
        else:
            x = x[torch.argsort(owner)]
        x = _residual(x, self.joint)
        mean, log_variance = self.head(x).chunk(2, -1)
        return mean, log_variance, owner, counts

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable) -> Hypotheses:
        """One reparametrised draw of z a particle while training, the mean otherwise; ``kl`` as in CryoDRGN eq. 9."""
        mean, log_variance, owner, counts = self.posterior(hypotheses, batch)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        cov = torch.diag_embed(log_variance.exp())
        return hypotheses.with_z(z[owner][:, None], (kl / counts)[owner][:, None], cov[owner][:, None])


def _residual(x: Tensor, layers: nn.ModuleList) -> Tensor:
    for layer in layers:
        x = F.relu(x + layer(x))
    return x
