r"""Closed-form volumes from slices: weighted normal equations of a linear family ``V = V_0 + sum_c z_c V_c``.

With matched data ``y_1 = c y / sigma^2`` and power ``p = c^2 / sigma^2`` at known or weighted poses, minimising
``sum_n sum_k (p |a_n . V|^2 - 2 Re(conj(y_1) a_n . V)) + sum_q |V_q|^2 / tau_q^2`` over lattice values, where
``a_n = (1, z_n)``, couples components but (diagonal approximation of trilinear insertion) not lattice points. Each
point is a ``(Q, Q)`` system. ``Q = 1`` is weighted backprojection with a Wiener filter (Grigorieff 2007; Scheres
2012, eq. 5).
"""

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from cryorecon.geometry.rotations import symmetry_group
from cryorecon.volumes.lattice import Lattice

SOLVED = 1 << 17  # lattice points solved at once


class Accumulator:
    """Running sums of the normal equations on a lattice for ``Q`` linear components.

    numerator: ``(V, 2 Q)``, real and imaginary parts. gram: ``(V, Q (Q + 1) / 2)``, the upper triangle.
    symmetry: point group by which every slice is repeated. points: ``(P, 2)`` of the band, from ``Grid.points``.
    """

    def __init__(self, lattice: Lattice, points: Tensor, n_components: int = 1, symmetry: str = "C1"):
        self.lattice, self.points, self.q = lattice, points, n_components
        self.group = symmetry_group(symmetry).to(lattice.device)
        upper = torch.triu_indices(n_components, n_components, device=lattice.device)
        self._row, self._column = upper[0], upper[1]
        self.numerator = torch.zeros(lattice.n, 2 * n_components, device=lattice.device)
        self.gram = torch.zeros(lattice.n, len(self._row), device=lattice.device)

    def add(self, data: Tensor, power: Tensor, rotation: Tensor, mean: Tensor, second: Tensor) -> None:
        """Insert N slices.

        data ``(N, P)`` complex: matched, centred data; power ``(N, P)``; rotation ``(N, 3, 3)``; mean ``(N, Q)``: E[a];
        second ``(N, Q, Q)``: E[a a^T]. Weights of hypotheses are multiplied into data and power.
        """
        weights = second[:, self._row, self._column]
        for operator in self.group:
            index, weight, sign = self.lattice.corners(rotation @ operator, self.points)
            value = torch.view_as_real(data).reshape(-1, 2).clone()
            value[:, 1] *= sign
            rows = (value.view(len(data), -1, 1, 2) * mean[:, None, :, None]).reshape(len(value), -1)
            self.lattice.scatter(rows, index, weight, self.numerator)
            self.lattice.scatter((power[:, :, None] * weights[:, None]).reshape(len(value), -1), index, weight, self.gram)

    def solve(self, precision: Tensor) -> Tensor:
        """Lattice values ``(Q, V)`` complex; ``precision (Q, V)`` is the prior's ``1 / tau^2``, in nats."""
        self.finish()
        numerator = torch.view_as_complex(self.numerator.view(-1, self.q, 2))
        if self.q == 1:
            return (numerator[:, 0] / (self.gram[:, 0] + precision[0]).clamp(min=1e-12))[None]
        inside = torch.nonzero(self.lattice.radius <= self.lattice.limit + 1 / self.lattice.pad)[:, 0]
        out = numerator.new_zeros(self.lattice.n, self.q)
        for part in inside.split(SOLVED):
            matrix = self.gram.new_zeros(len(part), self.q, self.q)
            matrix[:, self._row, self._column] = self.gram[part]
            matrix[:, self._column, self._row] = self.gram[part]
            matrix.diagonal(dim1=1, dim2=2).add_(precision[:, part].T.clamp(min=1e-12))
            rhs = torch.view_as_real(numerator[part])
            out[part] = torch.view_as_complex(torch.linalg.solve(matrix, rhs).contiguous())
        return out.T.contiguous()

    def finish(self) -> None:
        """Fold the plane ``kz = 0`` onto itself; done once, before reading the sums."""
        if not getattr(self, "_finished", False):
            odd = torch.arange(2 * self.q, device=self.lattice.device) % 2 == 1
            self.lattice.symmetrise(self.numerator, odd)
            self.lattice.symmetrise(self.gram)
            self._finished = True

    @staticmethod
    def joined(parts: "Sequence[Accumulator]") -> "Accumulator":
        """The sums of all parts, which have one lattice, band, number of components and symmetry."""
        if len(parts) == 1:
            return parts[0]
        for part in parts:
            part.finish()
        whole = copy(parts[0])
        whole.numerator = torch.stack([part.numerator for part in parts]).sum(0)
        whole.gram = torch.stack([part.gram for part in parts]).sum(0)
        return whole

    @property
    def weight(self) -> Tensor:
        """Data's own precision of the first component at each lattice point, ``(V,)``."""
        return self.gram[:, 0]
