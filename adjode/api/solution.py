"""`Solution`: a solved trajectory with dense output, and the door to its pullback."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np

from adjode.api.keywords import PullbackKeywords
from adjode.api.pullback import pullback
from adjode.api.tangents import pushforward
from adjode.compile.slots import IMPLICIT_STEP, RECORD_STAGES
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.passes.options import SolveOptions
from adjode.passes.result import Cotangents, Tangents
from adjode.passes.segmented import SegmentedOutput
from adjode.passes.segments import Segments
from adjode.passes.span import Span
from adjode.passes.trajectory import DenseOutput, Trajectory


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


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """The solution of an initial value problem.

    Attributes
    ----------
    t : (n_steps + 1,) array
        Times of the accepted steps, from t0 to T; for each stop three, since nothing is evaluated next to it.
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
    segments : Segments or None
        Where not all steps have been kept, because of `memory`: what solves them again, for `u`, for a call and for a pullback,
        each time that they are asked for. There are no `stages` then.
    """

    dynamics: Dynamics
    theta: np.ndarray
    trajectory: Trajectory
    span: Span
    stats: SolveStats
    options: SolveOptions = field(default_factory=SolveOptions)
    structure: Structure | None = None
    layouts: tuple[Layout, Layout] = field(kw_only=True)
    t_eval: np.ndarray | None = None
    u_eval: np.ndarray | None = None
    segments: Segments | None = None

    @functools.cached_property
    def t(self) -> np.ndarray:
        return self.span.time((self.segments or self.trajectory).t)

    @property
    def u(self) -> np.ndarray:
        return self.trajectory.u if self.segments is None else SegmentedOutput(self.segments).u

    @property
    def dense(self) -> DenseOutput | SegmentedOutput:
        if self.segments is not None:
            return SegmentedOutput(self.segments)
        return DenseOutput(self.trajectory.t, self.trajectory.u, self.trajectory.c, self.span)

    @property
    def stages(self) -> np.ndarray | None:
        if not self.trajectory.record & RECORD_STAGES:
            return None
        if self.segments is not None:
            raise ValueError(f"memory={self.options.memory} was too little to keep the stages of all steps: give more, or none.")
        return self.trajectory.stages

    @property
    def stiff(self) -> np.ndarray | None:
        kept = self.segments or self.trajectory
        return kept.kinds == IMPLICIT_STEP if self.options.tableau.partner is not None else None

    @property
    def method(self) -> str:
        return self.options.tableau.name

    @property
    def u_T(self) -> Any:
        """The state at T, named as u0 was."""
        flat = self.u[-1].copy() if self.segments is None else self.segments.u_T.copy()
        return self.layouts[0].unflatten(flat)

    def __call__(self, t: Any) -> np.ndarray:
        """The state at `t`: (n,) for a scalar, (k, n) for k times inside the span, by the method's dense output."""
        return self.dense(t)

    def pullback(self, u_T_bar: Any = None, **options: Unpack[PullbackKeywords]) -> Cotangents:
        """Pull cotangents of the solution back to u0, theta, t0 and T; see `adjode.api.pullback.pullback` for the options."""
        return pullback(self, u_T_bar, **options)

    def pushforward(
        self, u0_dot: Any = None, theta_dot: Any = None, times: Any = None, *, max_seconds: float | None = None
    ) -> Tangents:
        """Push tangents of u0 and theta forward to the states, many at once as columns; see `adjode.api.tangents.pushforward`."""
        return pushforward(self, u0_dot, theta_dot, times, max_seconds=max_seconds)

    def __repr__(self) -> str:
        n, m, stats = self.layouts[0].size, self.theta.size, self.stats
        return (
            f"Solution of {self.dynamics.name} by {self.method}: t = {self.t[0]:g} .. {self.t[-1]:g}, {n} states, {m} parameters, "
            f"{stats.n_steps} steps ({stats.n_rejected} rejected), {stats.n_f} evaluations of f"
        )
