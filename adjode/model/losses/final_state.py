"""`FinalState`: a weighted sum of the final state, or any function of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.checks import float_vector
from adjode.model.losses.linear import PreparedLinear
from adjode.model.losses.loss import States, loss_at
from adjode.model.losses.members import MemberData
from adjode.model.losses.observed import PreparedObserved
from adjode.model.losses.prepared import PreparedLoss
from adjode.model.losses.rule import WithRule


class FinalState(WithRule, MemberData):
    """`weights . u(T)`, or `value(u(T), theta)`.

    Parameters
    ----------
    weights : (n,) array, optional
        For an ensemble also (N, n), a row for each member.
    value : callable or pair of callables, optional
        Instead of weights, `value(u, theta) -> float`, which is compiled. Its derivatives are derived from its source, as those of
        f are, and compared with differences. Or give them, as `(value, value_vjp)`, where `value_vjp(u, theta, u_bar, theta_bar)`
        overwrites both.
    """

    option, kind = "value", "final_value"

    def __init__(self, weights: Any = None, *, value: Callable | tuple[Callable, Callable] | None = None):
        if (value is None) == (weights is None):
            raise TypeError("FinalState takes either weights, a vector, or value=..., a function (u, theta).")
        if value is not None:
            self._take(value)
        elif np.ndim(weights) == 2:
            weights = np.array(weights)
            self.members, self.by_member = len(weights), ("weights",)
            self.weights = float_vector("weights", weights.ravel()).reshape(weights.shape)
        else:
            if callable(weights):
                raise TypeError("FinalState takes weights (n,), or a function (u, theta) by its name: FinalState(value=...).")
            self.weights = float_vector("weights", weights)

    def prepare(self, n: int, T: float) -> PreparedLoss:
        if self.of is not None:
            return _PreparedFinal(self, n, np.array([T]))
        self._require_one()
        self._require_size(n)
        return PreparedLinear(self, n, np.array([T]), self.weights[None])

    def value_and_cotangents(self, solution: States) -> tuple[float, dict[str, Any]]:
        u_T = solution.u[-1]
        if self.of is not None:
            return _PreparedFinal(loss_at(solution, self), u_T.size, solution.t[-1:]).evaluate(solution)
        self._require_one()
        self._require_size(u_T.size)
        return float(self.weights @ u_T), {"u_T_bar": self.weights.copy()}

    def _require_size(self, n: int) -> None:
        if self.weights.size != n:
            raise ValueError(f"weights must have one entry for each of the {n} states, but it has {self.weights.size}.")


class _PreparedFinal(PreparedObserved):
    ends_at_T = True

    def seeds(self) -> dict[str, Any]:
        seeds = super().seeds()
        return {"u_T_bar": seeds.pop("observations")[1][0], **seeds}
