r"""How far estimated poses are from the true ones, once the free choice of frame is taken out.

An ab initio map may be turned by a global rotation Q, moved by an offset d and be of the other hand. Poses that
describe it equally well are ``R_estimated = J R_true Q^T``, where ``J`` is 1, or ``diag(-1, -1, 1)`` for the inverted
map, and ``shift_estimated = shift_true + (R_true d)_xy`` in either hand (the images are the same).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryorecon.errors import InputError
from cryorecon.geometry.rotations import angle_between, nearest


@dataclass(frozen=True)
class Frame:
    """How the estimated map's frame lies to the true one: rotation Q ``(3, 3)`` and hand ±1."""

    rotation: Tensor
    hand: int

    def into_truth(self, rotations: Tensor) -> Tensor:
        """Estimated rotations ``(N, 3, 3)`` expressed in the true frame: ``J R Q``."""
        turn = torch.diag(torch.tensor([float(self.hand), float(self.hand), 1.0])).to(rotations)
        return turn @ rotations @ self.rotation.to(rotations)


IDENTITY = Frame(torch.eye(3), 1)


@dataclass(frozen=True)
class PoseError:
    """angle: geodesic distance, ``(N,)`` degrees. squared: ``|R - R'|_F^2``, ``(N,)``. shift: ``(N,)`` Å, None where no
    shifts were given. frame: what was taken out first."""

    angle: Tensor
    squared: Tensor
    shift: Tensor | None
    frame: Frame

    def summary(self) -> dict[str, float]:
        """Medians and means: degrees, squared Frobenius distance, Å."""
        out = {"angle_median": float(self.angle.median()), "angle_mean": float(self.angle.mean()),
               "squared_frobenius_median": float(self.squared.median()), "hand": float(self.frame.hand)}
        if self.shift is not None:
            out["shift_median"], out["shift_mean"] = float(self.shift.median()), float(self.shift.mean())
        return out


def squared_frobenius(first: Tensor, second: Tensor) -> Tensor:
    """``|R - R'|_F^2``, ``(...)``: ``8 sin^2(angle / 2)``; CryoBench's and the CryoDRGN papers' pose error."""
    return (first - second).square().sum((-1, -2))


def best_frame(estimated: Tensor, truth: Tensor, n_candidates: int = 30, hands: tuple[int, ...] = (1, -1)) -> Frame:
    """The frame of least *median* squared Frobenius distance, as CryoBench chooses it.

    Candidates are the frames in which one particle (evenly strided over the set) is perfect, for each hand. The best of
    them is polished: the mean frame of the particles within twice the median angle, five times.
    """
    best: tuple[float, Frame] = (float("inf"), IDENTITY)
    stride = max(1, len(truth) // n_candidates)
    for hand in hands:
        turned = Frame(torch.eye(3), hand).into_truth(estimated)
        relative = turned.transpose(-1, -2) @ truth  # what Q would be, were this particle right
        for rotation in relative[::stride]:
            median = float(squared_frobenius(turned @ rotation, truth).median())
            if median < best[0]:
                best = (median, Frame(rotation, hand))
    turned = Frame(torch.eye(3), best[1].hand).into_truth(estimated)
    relative = turned.transpose(-1, -2) @ truth
    rotation = best[1].rotation
    for _ in range(5):
        errors = squared_frobenius(turned @ rotation, truth)
        rotation = nearest(relative[errors <= 4 * errors.median()].double().mean(0)).to(truth)
    polished = float(squared_frobenius(turned @ rotation, truth).median())
    return Frame(rotation, best[1].hand) if polished < best[0] else best[1]


def pose_error(estimated: Tensor, truth: Tensor, shift: Tensor | None = None, true_shift: Tensor | None = None,
               frame: Frame | None = None) -> PoseError:
    """Errors of rotations ``(N, 3, 3)`` and, where given, of shifts ``(N, 2)`` in Å.

    ``frame``: how the two frames lie (``IDENTITY`` for poses in the truth's own frame); by default the best one is
    searched for. The shift error is what remains after one 3-D offset of the map is fitted (median-robust: the fit is
    repeated on the half that it fits best).

    Raises
    ------
    InputError: numbers of poses differ.
    """
    if estimated.shape != truth.shape or estimated.shape[-2:] != (3, 3):
        raise InputError(f"pose error: expected two equal shapes (N, 3, 3), found {tuple(estimated.shape)} and "
                         f"{tuple(truth.shape)}")
    frame = best_frame(estimated, truth) if frame is None else frame
    turned = frame.into_truth(estimated)
    residual = None
    if shift is not None and true_shift is not None:
        residual = _shift_residual(shift - true_shift, truth)
    angle = torch.rad2deg(angle_between(turned, truth))
    return PoseError(angle, squared_frobenius(turned, truth), residual, frame)


def _shift_residual(difference: Tensor, rotation: Tensor) -> Tensor:
    """Lengths ``(N,)`` of shift differences ``(N, 2)`` less the best common 3-D offset's projections."""
    rows = rotation[:, :2].to(difference)
    keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    length = difference.norm(dim=1)
    for _ in range(3):
        offset = torch.linalg.lstsq(rows[keep].reshape(-1, 3), difference[keep].reshape(-1, 1)).solution[:, 0]
        length = (difference - rows @ offset).norm(dim=1)
        keep = length <= length.median()
    return length
