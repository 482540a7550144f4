"""Poses that are found: what is known of every particle's, while it is being searched and polished and afterwards."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from cryorecon import ranks
from cryorecon.data.loader import Batch
from cryorecon.inference.hypotheses import Hypotheses


class PoseTable(nn.Module):
    """rotation ``(n, 3, 3)``, shift ``(n, 2)`` in Å: of every particle, as last found. evidence: ``(n,)`` nats, log of the
    likelihood under the kept hypotheses, without the images' own constants.

    tilt: ``(N, 3, 3)`` fixed rotation of each image of a tilt series (image = ``T R``, the same shift), or None.
    """

    rotation: Tensor
    shift: Tensor
    evidence: Tensor
    tilts: Tensor
    tilt_of: Tensor

    def __init__(self, rotation: Tensor, shift: Tensor, tilt: Tensor | None = None):
        super().__init__()
        self.register_buffer("rotation", rotation.clone())
        self.register_buffer("shift", shift.clone())
        self.register_buffer("evidence", shift.new_zeros(len(shift)))
        self._news: list[Tensor] = []  # particles
        tilts = torch.eye(3)[None] if tilt is None else tilt
        for name, part in zip(("tilts", "tilt_of"), torch.unique(tilts, dim=0, return_inverse=True), strict=True):
            self.register_buffer(name, part.to(shift.device), persistent=False)  # the data's, not found

    @staticmethod
    def unknown(n_particles: int, tilt: Tensor | None = None, device: torch.device | str = "cpu") -> "PoseTable":
        """No rotation and no shift for any particle."""
        eye = torch.eye(3, device=device).repeat(n_particles, 1, 1)
        return PoseTable(eye, torch.zeros(n_particles, 2, device=device), tilt)

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable | None = None) -> Hypotheses:
        """The batch's poses as they stand."""
        return hypotheses.with_pose(self.of_images(self.rotation[batch.particle], batch), self.shift[batch.particle])

    def poses(self) -> tuple[Tensor, Tensor]:
        """All poses of particles: rotation ``(n, 3, 3)``, shift ``(n, 2)`` in Å."""
        return self.rotation, self.shift

    def store(self, particles: Tensor, rotation: Tensor, shift: Tensor, evidence: Tensor) -> None:
        """Remember what was found for ``particles (p,)``."""
        self.rotation[particles], self.shift[particles], self.evidence[particles] = rotation, shift, evidence
        if ranks.count() > 1:
            self._news.append(particles)

    def meet(self) -> None:
        """Exchange what several processes have found since they last met, each for its own particles."""
        if ranks.count() > 1:
            news = torch.unique(torch.cat([self.tilt_of.new_zeros(0), *self._news]))
            ranks.share_rows(news, self.rotation, self.shift, self.evidence)
            self._news.clear()

    def of_images(self, rotation: Tensor, batch: Batch) -> Tensor:
        """Rotations ``(B, ..., 3, 3)`` of images from those of their particles: ``T R``."""
        if len(self.tilt_of) == 1:
            return rotation
        tilt = self.tilts[self.tilt_of[batch.image]]
        return tilt.view(len(tilt), *[1] * (rotation.ndim - 3), 3, 3) @ rotation

    def by_tilt(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Each tilt ``(3, 3)`` of the batch, and the rows of its images that have it."""
        if len(self.tilt_of) == 1:
            yield self.tilts[0], torch.arange(len(batch), device=batch.image.device)
            return
        tilt_of = self.tilt_of[batch.image]
        for number in torch.unique(tilt_of).tolist():
            yield self.tilts[number], torch.nonzero(tilt_of == number)[:, 0]


def meet(*parts: object) -> None:
    """Tables within these modules exchange what several processes have found."""
    for part in parts:
        for table in part.modules() if isinstance(part, nn.Module) else ():
            if isinstance(table, PoseTable):
                table.meet()
