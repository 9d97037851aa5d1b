"""`FinalState`: a weighted sum of the final state."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.checks import float_vector
from adjode.model.losses.linear import PreparedLinear
from adjode.model.losses.loss import States
from adjode.model.losses.members import MemberData
from adjode.model.losses.prepared import PreparedLoss


class FinalState(MemberData):
    """`weights . u(T)`.

    Parameters
    ----------
    weights : (n,) array
        Or (N, n), a row for each member of an ensemble.
    """

    def __init__(self, weights: Any):
        if np.ndim(weights) == 2:
            weights = np.array(weights)
            self.members, self.by_member = len(weights), ("weights",)
            self.weights = float_vector("weights", weights.ravel()).reshape(weights.shape)
        else:
            self.weights = float_vector("weights", weights)

    def prepare(self, n: int, T: float) -> PreparedLoss:
        self._require_one()
        self._require_size(n)
        return PreparedLinear(self, n, np.array([T]), self.weights[None])

    def value_and_cotangents(self, solution: States) -> tuple[float, dict[str, Any]]:
        u_T = solution.u[-1]
        self._require_one()
        self._require_size(u_T.size)
        return float(self.weights @ u_T), {"u_T_bar": self.weights.copy()}

    def _require_size(self, n: int) -> None:
        if self.weights.size != n:
            raise ValueError(f"weights must have one entry for each of the {n} states, but it has {self.weights.size}.")
