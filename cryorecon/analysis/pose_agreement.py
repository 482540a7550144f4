"""Estimated poses of a file against those of another, with errors in every unit that is known."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cryorecon.analysis.pose_files import UNITS, ImageSize, PoseTable
from cryorecon.errors import InputError
from cryorecon.metrics.pose_error import PoseError, best_frame, pose_error

HELP = "the images' box and pixel size: no file says both; give -D and --apix, or --ctf"


@dataclass(frozen=True)
class PoseAgreement:
    """Of N images. error: rotations, and shifts in the first unit of ``shift``. shift: their errors ``(N,)`` by unit, as
    far as units are known. missing: what can't be said, and why. other: median degrees if the hand were the other one.
    rotation: the estimated ones in the true frame, ``(N, 3, 3)``. defocus: ``(N,)`` Å, None where unknown."""

    error: PoseError
    shift: dict[str, Tensor]
    missing: str | None
    other: float
    rotation: Tensor
    defocus: np.ndarray | None

    @property
    def unit(self) -> str | None:
        """The best unit that the shift errors are known in; None where there are none."""
        return next(iter(self.shift), None)


def pose_agreement(estimated: PoseTable, truth: PoseTable, size: ImageSize, group: Tensor | None = None) -> PoseAgreement:
    """Compare poses of the same images, up to rotation, hand and offset of the map.

    size: of the images, as far as known. group: the truth's symmetry ``(G, 3, 3)``.

    Raises
    ------
    InputError: numbers of images differ.
    """
    if len(estimated) != len(truth):
        raise InputError(f"{estimated.path}: expected poses of the {len(truth)} images of {truth.path}, found "
                         f"{len(estimated)}; give by --ind which of the reference's images were used")
    shift = true_shift = unit = None
    for unit in UNITS:
        shift, true_shift = estimated.shift_in(unit, size), truth.shift_in(unit, size)
        if shift is not None and true_shift is not None:
            break
    error = pose_error(estimated.rotation, truth.rotation, shift, true_shift, group=group)
    mirrored = best_frame(estimated.rotation, truth.rotation, hands=(-error.frame.hand,), group=group)
    other = pose_error(estimated.rotation, truth.rotation, frame=mirrored, group=group)
    errors = {}
    if error.shift is not None and unit is not None:
        factors = {name: size.factor(unit, name) for name in UNITS}
        errors = {name: error.shift * factor for name, factor in factors.items() if factor is not None}
    return PoseAgreement(error, errors, _missing(estimated, truth, errors), float(other.angle.median()),
                         error.frame.into_truth(estimated.rotation),
                         estimated.defocus if truth.defocus is None else truth.defocus)


def _missing(estimated: PoseTable, truth: PoseTable, errors: dict[str, Tensor]) -> str | None:
    """What can't be said of the shifts, why, and what would help."""
    alone = [str(table.path) for table in (estimated, truth) if table.shift is None]
    if alone:
        return f"no shift error: rotations alone in {' and '.join(alone)}"
    if not errors:
        return (f"no shift error: shifts are in {estimated.unit} in {estimated.path}, in {truth.unit} in {truth.path}, which "
                f"takes {HELP}")
    lacking = [unit for unit in UNITS[:2] if unit not in errors]
    if not lacking:
        return None
    return f"no shift error in {' and '.join(lacking)}, which takes {HELP}"
