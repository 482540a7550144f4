r"""How far estimated poses are from the true ones, once the free choice of frame is taken out.

An ab initio map may be turned by a global rotation Q, moved by an offset d and be of the other hand. Poses that
describe it equally well are ``R_estimated = J R_true Q^T``, where ``J`` is 1, or ``diag(-1, -1, 1)`` for the inverted
map, and ``shift_estimated = shift_true + (R_true d)_xy`` in either hand (the images are the same).

A map of point group G looks the same from ``R`` and ``R S`` for every S of G. Each particle is then held against that one
of the truth's equivalents ``R_true S`` which is nearest to its estimate; G's axes are those of the truth's frame (RELION's).
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
    shifts were given. frame: what was taken out first. offset: the map's, ``(3,)`` Å in the true frame, taken out of the
    shifts."""

    angle: Tensor
    squared: Tensor
    shift: Tensor | None
    frame: Frame
    offset: Tensor | None = None

    def within(self, degrees: float) -> float:
        """Share of the particles whose rotation is off by at most so many degrees."""
        return float((self.angle <= degrees).double().mean())

    def summary(self) -> dict[str, float]:
        """Medians and means: degrees, squared Frobenius distance, Å."""
        out = {"angle_median": float(self.angle.median()), "angle_mean": float(self.angle.mean()),
               "squared_frobenius_median": float(self.squared.median()),
               "squared_frobenius_mean": float(self.squared.mean()), "hand": float(self.frame.hand)}
        if self.shift is not None:
            out["shift_median"], out["shift_mean"] = float(self.shift.median()), float(self.shift.mean())
        return out


def squared_frobenius(first: Tensor, second: Tensor) -> Tensor:
    """``|R - R'|_F^2``, ``(...)``: ``8 sin^2(angle / 2)``; CryoBench's and the CryoDRGN papers' pose error."""
    return (first - second).square().sum((-1, -2))


def best_frame(estimated: Tensor, truth: Tensor, n_candidates: int = 30, hands: tuple[int, ...] = (1, -1),
               group: Tensor | None = None) -> Frame:
    """The frame of least *median* squared Frobenius distance, as CryoBench chooses it.

    Candidates are the frames in which one particle (evenly strided over the set) is perfect, for each hand. The best of
    them is polished: the mean frame of the particles within twice the median angle, five times. ``group``: the map's
    symmetry ``(G, 3, 3)``, whose operators are all held to be right.
    """
    operators = _operators(group)
    best: tuple[float, Frame] = (float("inf"), IDENTITY)
    stride = max(1, len(truth) // n_candidates)
    for hand in hands:
        relative = _relative(estimated, truth, hand)
        for rotation in relative[::stride]:
            median = float(_nearest_operator(relative, rotation, operators)[0].median())
            if median < best[0]:
                best = (median, Frame(rotation.to(truth), hand))
    relative = _relative(estimated, truth, best[1].hand)
    rotation = best[1].rotation.to(relative)
    for _ in range(5):
        errors, which = _nearest_operator(relative, rotation, operators)
        right = errors <= 4 * errors.median()
        rotation = nearest((relative[right] @ operators[which[right]].transpose(-1, -2)).mean(0))
    polished = float(_nearest_operator(relative, rotation, operators)[0].median())
    return Frame(rotation.to(truth), best[1].hand) if polished < best[0] else best[1]


def _operators(group: Tensor | None) -> Tensor:
    return (torch.eye(3)[None] if group is None else group).double().cpu()


def _relative(estimated: Tensor, truth: Tensor, hand: int) -> Tensor:
    """``(N, 3, 3)`` float64: what Q would be, were this particle right."""
    return (Frame(torch.eye(3), hand).into_truth(estimated).transpose(-1, -2) @ truth).double().cpu()


def _nearest_operator(relative: Tensor, rotation: Tensor, operators: Tensor) -> tuple[Tensor, Tensor]:
    """Least ``|R Q S - R'|_F^2`` over the operators S ``(G, 3, 3)``, ``(N,)``, and the number of that S, ``(N,)``."""
    overlap = relative.flatten(1) @ (rotation @ operators).flatten(1).T  # tr (R Q S)^T R' for all pairs at once
    closest, which = overlap.max(1)
    return (6 - 2 * closest).clamp(min=0), which


def pose_error(estimated: Tensor, truth: Tensor, shift: Tensor | None = None, true_shift: Tensor | None = None,
               frame: Frame | None = None, group: Tensor | None = None) -> PoseError:
    """Errors of rotations ``(N, 3, 3)`` and, where given, of shifts ``(N, 2)`` in Å.

    ``frame``: how the two frames lie (``IDENTITY`` for poses in the truth's own frame); by default the best one is
    searched for. ``group``: the map's symmetry ``(G, 3, 3)`` in the true frame; a particle's error is then the least over
    its operators. The shift error is what remains after one 3-D offset of the map is fitted (median-robust: the fit is
    repeated five times on what lies within twice its median).

    Raises
    ------
    InputError: numbers of poses differ.
    """
    if estimated.shape != truth.shape or estimated.shape[-2:] != (3, 3):
        raise InputError(f"pose error: expected two equal shapes (N, 3, 3), found {tuple(estimated.shape)} and "
                         f"{tuple(truth.shape)}")
    frame = best_frame(estimated, truth, group=group) if frame is None else frame
    turned = frame.into_truth(estimated)
    if group is not None:
        relative = _relative(estimated, truth, frame.hand)
        which = _nearest_operator(relative, frame.rotation.to(relative), _operators(group))[1]
        truth = truth @ group.to(truth)[which.to(group.device)].transpose(-1, -2)
    residual, offset = None, None
    if shift is not None and true_shift is not None:
        residual, offset = _shift_residual(shift - true_shift, truth)
    angle = torch.rad2deg(angle_between(turned, truth))
    return PoseError(angle, squared_frobenius(turned, truth), residual, frame, offset)


def _shift_residual(difference: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths ``(N,)`` of shift differences ``(N, 2)`` less the best common 3-D offset's projections; that offset."""
    target, rows = difference.double(), rotation[:, :2].double()
    keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    length, offset = target.norm(dim=1), target.new_zeros(3)
    for _ in range(6):
        offset = torch.linalg.lstsq(rows[keep].reshape(-1, 3), target[keep].reshape(-1, 1)).solution[:, 0]
        length = (target - rows @ offset).norm(dim=1)
        keep = length <= 2 * length.median()
    return length.to(difference), offset.to(difference)
