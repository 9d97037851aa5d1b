"""`Solution`: a solved trajectory with dense output, and the door to its pullback."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from adjode.linalg.structure import Structure
from adjode.loops.trajectory import evaluate
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.options import times_in_span
from adjode.tableaus import Tableau

if TYPE_CHECKING:
    from adjode.pullback import Cotangents


@dataclass(frozen=True)
class SolveStats:
    """Work of a forward solve: evaluations of f, steps accepted and rejected; for implicit methods also Jacobians, factorisations
    (real and complex ones alike), and Newton iterations; for `method="auto"` how often it has switched.
    """

    n_f: int
    n_steps: int
    n_rejected: int
    n_jac: int = 0
    n_lu: int = 0
    n_newton: int = 0
    n_switch: int = 0


@dataclass(frozen=True, eq=False)
class DenseOutput:
    """A piecewise polynomial in time: step k runs from t[k] to t[k+1] with u(t[k] + x h) = u[k] + sum_p c[k, p] x**(p+1)."""

    t: np.ndarray
    u: np.ndarray
    c: np.ndarray

    @property
    def steps(self) -> int:
        return len(self.c)

    def __call__(self, t: Any) -> np.ndarray:
        """The state at `t`: (n,) for a scalar, (k, n) for k times, which must lie inside the span."""
        times = times_in_span("t", t, self.t[0], self.t[-1])
        out = np.empty((times.size, self.u.shape[1]))
        evaluate(self.t, self.u, self.c, self.steps, times, out)
        return out[0] if np.ndim(t) == 0 else out


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """The solution of an initial value problem.

    Attributes
    ----------
    t : (n_steps + 1,) array
        Times of the accepted steps, from t0 to T.
    u : (n_steps + 1, n) array
        States there.
    t_eval, u_eval : (k,), (k, n) arrays or None
        The times asked for and the states there.
    stats : SolveStats
        Work done: `n_f`, `n_steps`, `n_rejected`.
    theta : (m,) array
        The parameters, flat.
    dynamics : Dynamics
    method : str
    structure : Structure or None
        For implicit methods, that of the Jacobian.
    stages : (n_steps, s + 1, n) array or None
        For implicit methods, the state at the start of each step and those of its stages; after a step of Tsit5's s = 6, and after
        one of Radau's in the same array 3, the rest being of no meaning.
    stiff : (n_steps,) array of bool, or None
        For `method="auto"`, which steps are Radau's; the others are Tsit5's.
    """

    dynamics: Dynamics
    theta: np.ndarray
    dense: DenseOutput
    stats: SolveStats
    tableau: Tableau
    options: dict[str, Any] = field(default_factory=dict)
    structure: Structure | None = None
    stages: np.ndarray | None = None
    stiff: np.ndarray | None = None
    layouts: tuple[Layout, Layout] = field(kw_only=True)
    t_eval: np.ndarray | None = None
    u_eval: np.ndarray | None = None

    @property
    def t(self) -> np.ndarray:
        return self.dense.t

    @property
    def u(self) -> np.ndarray:
        return self.dense.u

    @property
    def method(self) -> str:
        return self.tableau.name

    @property
    def u_T(self) -> Any:
        """The state at T, named as u0 was."""
        flat = self.u[-1].copy()
        return self.layouts[0].unflatten(flat)

    def __call__(self, t: Any) -> np.ndarray:
        """The state at `t`: (n,) for a scalar, (k, n) for k times inside the span, by the method's dense output."""
        return self.dense(t)

    def pullback(self, u_T_bar: Any = None, **options: Any) -> Cotangents:
        """Pull cotangents of the solution back to u0, theta, t0 and T; see `adjode.pullback.pullback` for the options."""
        from adjode.pullback import pullback  # the one import upstream: a method for the user's convenience

        return pullback(self, u_T_bar, **options)

    def __repr__(self) -> str:
        n, m, stats = self.u.shape[1], self.theta.size, self.stats
        return (
            f"Solution of {self.dynamics.name} by {self.method}: t = {self.t[0]:g} .. {self.t[-1]:g}, {n} states, {m} parameters, "
            f"{stats.n_steps} steps ({stats.n_rejected} rejected), {stats.n_f} evaluations of f"
        )
