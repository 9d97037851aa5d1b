"""`Solution`: a solved trajectory with dense output, and the door to its pullback."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np

from adjode.api.event_times import before_jumps, check_side
from adjode.api.keywords import PullbackKeywords, PushforwardKeywords
from adjode.api.pullback import pullback
from adjode.api.steady import SteadyState
from adjode.compile import slots
from adjode.compile.slots import IMPLICIT_STEP, RECORD_STAGES
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.passes.jumps import NO_JUMPS, Jumps
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
        Times of the accepted steps, from t0 to T. Each stop has three, since nothing is evaluated right next to it.
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
        For implicit methods, the structure of the Jacobian.
    stages : (n_steps, s + 1, n) array or None
        For implicit methods, the state at the start of each step and those of its stages. After a step of Tsit5 s is 6; after one
        of Radau in the same array it is 3, and the other rows are meaningless.
    stiff : (n_steps,) array of bool, or None
        For `method="auto"`, which steps are Radau's; the others are Tsit5's.
    segments : Segments or None
        If `memory` did not allow all steps to be kept: what solves them again for `u`, for a call and for a pullback, each time
        they are needed. There are no `stages` then.
    u0 : (n,) array
        The initial state; `u[0]` is the state after the doses at t0.
    jumps : Jumps
        The doses and events.
    ended : int
        The event that ended the solution, counted from 1; 0 if none did, so that it ends at T.
    extended, theta_T
        The dynamics with the inflows of doses, and theta with the inflows at the end.
    steady : SteadyState or None
        Where the solution starts, if its doses have always been given.
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
    u0: np.ndarray = field(default_factory=lambda: np.zeros(0))
    jumps: Jumps = NO_JUMPS
    ended: int = 0
    extended: Dynamics | None = None
    theta_T: np.ndarray = field(default_factory=lambda: np.zeros(0))
    steady: SteadyState | None = None

    @property
    def problem(self) -> tuple[Dynamics, np.ndarray]:
        """What passes work on: dynamics, and theta that they may write to, with inflows as they are at T."""
        inflows = self.theta_T[self.theta.size :]
        return self.extended or self.dynamics, np.concatenate([self.theta, inflows]) if inflows.size else self.theta

    def by_inflows(self, elapsed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What inflows have been at times since the start: theta with them, and which of the times; behind doses due then."""
        jumps, theta, left, doses = self.trajectory.jumps, self.problem[1], np.full(elapsed.size, True), self.jumps.doses
        sign = 1.0 if self.t[-1] >= self.t[0] else -1.0
        for k in range(jumps.t.size - 1, -1, -1):
            kind, action = jumps.what[3 * k : 3 * k + 2]
            if doses is None or kind != slots.DOSE or (entry := doses.inflow_of(action)) < 0:
                continue
            at = left & (sign * elapsed >= sign * jumps.t[k])
            if at.any():
                yield theta.copy(), at
            left &= ~at
            theta[entry] = jumps.inflow[k]
        yield theta, left

    @functools.cached_property
    def t_events(self) -> list[np.ndarray]:
        """For each event, the times at which it happened, as in SciPy."""
        jumps = self.trajectory.jumps
        return [self.span.time(jumps.t[jumps.of_event(i)]) for i in range(len(self.options.events))]

    @functools.cached_property
    def u_events(self) -> list[np.ndarray]:
        """For each event, the states (k, n) at these times, before the reset."""
        jumps = self.trajectory.jumps
        return [jumps.u[2 * jumps.of_event(i)].copy() for i in range(len(self.options.events))]

    @functools.cached_property
    def events(self) -> list[tuple[float, str]]:
        """All events in order: their times and names."""
        jumps, names = self.trajectory.jumps, [event.name for event in self.options.events]
        what = jumps.what.reshape(-1, 3)
        return [
            (float(t), names[which])
            for t, (kind, which, _) in zip(self.span.time(jumps.t), what, strict=True)
            if kind != slots.DOSE
        ]

    @property
    def counts(self) -> np.ndarray:
        """The counts of the forward pass that a backward one reads."""
        counts = slots.COUNT.zeros()
        counts[[slots.STEPS, slots.OCCURRED, slots.ENDED]] = self.dense.steps, self.trajectory.jumps.t.size, self.ended
        return counts

    @property
    def kinds(self) -> np.ndarray:
        """The kinds of all steps, see `Trajectory`."""
        return (self.segments or self.trajectory).kinds

    @functools.cached_property
    def t(self) -> np.ndarray:
        return self.span.time((self.segments or self.trajectory).t)

    @property
    def u(self) -> np.ndarray:
        return self.trajectory.u if isinstance(self.dense, DenseOutput) else self.dense.u

    @property
    def dense(self) -> DenseOutput | SegmentedOutput:
        if self.segments is not None:
            return SegmentedOutput(self.segments, self.trajectory.jumps.t)
        return DenseOutput(self.trajectory.t, self.trajectory.u, self.trajectory.c, self.span, self.trajectory.jumps.t)

    @property
    def stages(self) -> np.ndarray | None:
        if not self.trajectory.record & RECORD_STAGES:
            return None
        if self.segments is not None:
            raise ValueError(f"memory={self.options.memory} was too little to keep the stages of all steps: give more, or none.")
        return self.trajectory.stages

    @property
    def stiff(self) -> np.ndarray | None:
        return self.kinds == IMPLICIT_STEP if self.options.tableau.partner is not None else None

    @property
    def method(self) -> str:
        return self.options.tableau.name

    @property
    def u_T(self) -> Any:
        """The state at T, with the names of u0."""
        flat = self.u[-1].copy() if self.segments is None else self.segments.u_T.copy()
        return self.layouts[0].unflatten(flat)

    def __call__(self, t: Any, side: str = "right") -> np.ndarray:
        """The state at `t`: (n,) for a scalar, (k, n) for k times inside the span, by the method's dense output.

        Where the state jumps, it is the one after the jump, in the order of integration, or the one before it with side="left".
        """
        if check_side(side) == "right":
            return self.dense(t)
        times = np.atleast_1d(np.asarray(t, dtype=float))
        states = self.dense(before_jumps(self, times))
        states[times == self.t[0]] = self.u0
        return states[0] if np.ndim(t) == 0 else states

    def pullback(self, u_T_bar: Any = None, **options: Unpack[PullbackKeywords]) -> Cotangents:
        """Pull cotangents of the solution back to u0, theta, t0 and T; see `adjode.api.pullback.pullback` for the options."""
        return pullback(self, u_T_bar, **options)

    def pushforward(
        self,
        u0_dot: Any = None,
        theta_dot: Any = None,
        times: Any = None,
        **options: Unpack[PushforwardKeywords],
    ) -> Tangents:
        """Push tangents of u0 and theta forward to the states, many at once as columns; see `adjode.api.tangents.pushforward`."""
        from adjode.api.tangents import pushforward  # here: a gradient needs none

        return pushforward(self, u0_dot, theta_dot, times, **options)

    def __repr__(self) -> str:
        n, m, stats = self.layouts[0].size, self.theta.size, self.stats
        return (
            f"Solution of {self.dynamics.name} by {self.method}: t = {self.t[0]:g} .. {self.t[-1]:g}, {n} states, {m} parameters, "
            f"{stats.n_steps} steps ({stats.n_rejected} rejected), {stats.n_f} evaluations of f"
        )
