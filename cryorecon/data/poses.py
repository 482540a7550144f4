"""Poses of images: rotation and shift, in the package's units."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryorecon.errors import InputError
from cryorecon.geometry import rotations

MAX_DEFECT = 1e-3
ROWS = 1 << 16  # of a long table that are turned at once into what takes less room


@dataclass(frozen=True)
class Poses:
    """Poses of N images.

    rotation: ``(N, 3, 3)`` float32, RELION's ``A``. shift: ``(N, 2)`` float32 in Å, ``(x, y)``: the centred image is
    the image moved by ``+shift``.
    """

    rotation: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.rotation)

    def __getitem__(self, index: Tensor | slice) -> "Poses":
        return Poses(self.rotation[index], self.shift[index])

    @staticmethod
    def checked(rotation: Tensor, shift: Tensor, source: str) -> "Poses":
        """Poses whose rotations are rotations and whose shifts are finite.

        ``rotation`` ``(N, 3, 3)``, ``shift`` ``(N, 2)`` in Å; ``source`` names the file in errors.
        Raises :class:`InputError`.
        """
        if rotation.ndim != 3 or rotation.shape[1:] != (3, 3) or shift.shape != (len(rotation), 2):
            raise InputError(f"{source}: expected rotations (N, 3, 3) and shifts (N, 2), found {tuple(rotation.shape)} "
                             f"and {tuple(shift.shape)}")
        good = [rotations.defect(part.double()) <= MAX_DEFECT for part in rotation.split(ROWS)]
        wrong = torch.nonzero(~torch.cat(good)).flatten()
        if len(wrong):
            row = int(wrong[0])
            raise InputError(f"{source}: expected rotation matrices, found {len(wrong)} of {len(rotation)} that are "
                             f"none (the first in row {row + 1}: {rotation[row].flatten().tolist()}); convert the "
                             "poses again")
        if not bool(torch.isfinite(shift).all()):
            row = int(torch.nonzero(~torch.isfinite(shift).all(1))[0])
            raise InputError(f"{source}: expected finite shifts, found {shift[row].tolist()} in row {row + 1}")
        return Poses(rotation.float(), shift.float())
