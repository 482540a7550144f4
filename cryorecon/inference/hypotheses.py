"""The one currency of inference: K weighted hypotheses of pose and conformation per image."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hypotheses:
    """K hypotheses for each of B images; a leading 1 means shared by all images.

    rotation: ``(B|1, K, 3, 3)``. shift: ``(B|1, K, 2)`` in Å. z: ``(B, K, d)`` (d = 0: homogeneous).
    log_weight: ``(B, K)``, normalised over K. z_cov: ``(B, K, d, d)`` where the posterior of z is Gaussian, else None.
    kl: ``(B, K)``, divergence from the prior in nats; zero where nothing is inferred.
    """

    rotation: Tensor
    shift: Tensor
    z: Tensor
    log_weight: Tensor
    kl: Tensor
    z_cov: Tensor | None = None

    @staticmethod
    def empty(batch_size: int, device: torch.device | str) -> "Hypotheses":
        """One hypothesis an image that knows nothing yet: no rotation, no shift, no z."""
        eye = torch.eye(3, device=device).expand(1, 1, 3, 3)
        zero = torch.zeros(batch_size, 1, device=device)
        return Hypotheses(eye, torch.zeros(1, 1, 2, device=device), zero[:, :, None][..., :0], zero, zero)

    def at(self, index: slice) -> "Hypotheses":
        """Some images' hypotheses; what all images share stays shared."""
        def cut(x: Tensor) -> Tensor:
            return x[index] if len(x) > 1 else x

        cov = None if self.z_cov is None else self.z_cov[index]
        return Hypotheses(cut(self.rotation), cut(self.shift), self.z[index], self.log_weight[index], self.kl[index], cov)

    def only(self, which: int) -> "Hypotheses":
        """One of the K hypotheses of every image, its weight 1."""
        one = slice(which, which + 1)

        def cut(x: Tensor) -> Tensor:
            return x[:, one] if x.shape[1] > 1 else x

        cov = None if self.z_cov is None else cut(self.z_cov)
        return Hypotheses(cut(self.rotation), cut(self.shift), cut(self.z), torch.zeros_like(self.log_weight[:, :1]),
                          cut(self.kl), cov)

    def with_pose(self, rotation: Tensor, shift: Tensor) -> "Hypotheses":
        """The same with one other pose an image: rotation ``(B, 3, 3)``, shift ``(B, 2)``."""
        return replace(self, rotation=rotation[:, None], shift=shift[:, None])

    def with_z(self, z: Tensor, kl: Tensor, z_cov: Tensor | None = None) -> "Hypotheses":
        """The same with conformations ``z (B, K, d)``, their divergence ``kl (B, K)`` added."""
        return replace(self, z=z, kl=self.kl + kl, z_cov=z_cov)
