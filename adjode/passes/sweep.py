"""The backward pass of a continuous adjoint: lam integrated back, with the quadratures of theta_bar and of a running cost."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from adjode.adjoints.backward import Backward
from adjode.adjoints.interpolating import FIRST_JUMP, PAUSE
from adjode.adjoints.products import put_products
from adjode.compile import slots
from adjode.compile.slots import RECORD_DENSE
from adjode.jacobian import products_for, put_jacobian
from adjode.loops.quadrature import AUGMENTED_ALL, AUGMENTED_LAM, GAUSS, NONE
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.passes.base import Integration, Quadrature
from adjode.passes.costs import Costs
from adjode.passes.jumps import NO_JUMPS, Jumps, put_jumps_back
from adjode.passes.options import SweepOptions
from adjode.passes.result import PullbackStats, estimate_of, find_cause
from adjode.passes.segmented import SegmentedOutput
from adjode.passes.span import Span
from adjode.passes.trajectory import DenseOutput, Trajectory
from adjode.status import CALLBACK_RAISED, MAX_STEPS, STEP_TOO_SMALL, TIMED_OUT, SolveError, solve_error
from adjode.steppers.family import EXPLICIT, Solver, family_of

Stops = tuple[np.ndarray, np.ndarray, np.ndarray]  # what is in the slots STOPS, CROSSED and JUMP_ROWS


class Sweep(Integration):
    """The pass of `backward` along a trajectory, which `follow` names.

    Parameters
    ----------
    dynamics : Dynamics
    span : Span
        Of the forward pass.
    theta : (m,) array
        Which the pass reads whenever it runs.
    backward : Backward
    options : SweepOptions
    wants_theta : bool
    cost : pair of Callbacks, optional
        A running cost and its derivatives.
    jumps : Jumps
        Of the forward pass.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        span: Span,
        theta: np.ndarray,
        backward: Backward,
        options: SweepOptions,
        *,
        wants_theta: bool,
        cost: tuple[Callback, Callback] | None = None,
        jumps: Jumps = NO_JUMPS,
    ):
        self.theta, self.cost, self.options = theta, cost, options
        self.lam_from, self.wants_theta = backward.lam_from, wants_theta and theta.size > 0
        kind = self._quadrature_kind()
        # vjp_u serves the stages if nothing needs the integrand there
        self.short = dynamics.vjp_u is not None and kind in (NONE, GAUSS)
        method = options.method
        if not family_of(method).has_stage_quadrature and kind in (AUGMENTED_LAM, AUGMENTED_ALL):
            raise ValueError(f"the stages of {method.name} are not quadrature nodes: choose quadrature='gauss'.")
        explicit = not method.implicit or method.partner is not None
        free = not self.short and explicit  # Newton's last iterate is not the stage itself
        super().__init__(
            dynamics,
            method,
            span,
            backward.y,
            backward.t_start,
            backward.stops,
            backward.crossed,
            options.tolerances(backward.atol),
            options.limits,
            quadrature=Quadrature(kind, theta.size * self.wants_theta, free),
            record=RECORD_DENSE if options.asked.dense_adjoint else 0,
        )
        self._fill(backward)
        self.trust = self.frame[slots.TRUST] = slots.TRUST.zeros()
        self._judged, rtol = options.judged, self.frame[slots.CONTROL][slots.RTOL]
        if self._judged:
            for frame in filter(None, (self.frame, self.frame.partner)):
                frame[slots.SETTING][slots.JUDGED] = 1
            self.trust[[slots.STATE_ERROR, slots.LOG_RTOL]] = options.state_error, math.log(rtol)
        put_jumps_back(self.frame, jumps, backward.y.size, dynamics)
        self.jumps = jumps
        self.frame[slots.U0_BAR] = self.lam
        self._stops = self._stops_at_hand

    def _fill(self, backward: Backward) -> None:
        frame, dynamics, structure = self.frame, self.dynamics, self.options.structure
        for slot, array in backward.arrays.items():
            frame[slot] = array
        n = backward.y.size - backward.lam_from
        frame[slots.U_FLOOR], frame[slots.U_LARGEST], frame[slots.U_SCALES] = self.options.u_floor, np.zeros(n), np.zeros(n)
        put_products(frame, dynamics, self.theta, n, wants_theta=self.wants_theta, running_cost=self.cost, short=self.short)
        solver = EXPLICIT
        if structure is not None:
            put_jacobian(frame, dynamics, structure, self.theta.size)
            solver = Solver(family_of(self.options.method), structure.kind)
        self.entry_name = solver.entry_name(backward.name)
        self.make = functools.partial(backward.make, solver=solver) if structure is not None else backward.make

    @property
    def estimate(self) -> dict[str, float] | None:
        """See `Cotangents.error`."""
        return estimate_of(self.trust) if self._judged else None

    def _quadrature_kind(self) -> int:
        if not self.wants_theta:
            return NONE
        if self.options.asked.quadrature == "gauss":
            return GAUSS
        return AUGMENTED_ALL if self.options.asked.error_norm == "all" else AUGMENTED_LAM

    def _rows_of(self, stops: int) -> np.ndarray:
        return np.append(np.arange(stops - 1)[::-1], -1)

    def follow(self, trajectory: Trajectory, count: np.ndarray) -> None:
        """See `Replay`."""
        frame, sign, stops = self.frame, self.frame[slots.CONTROL][slots.DIRECTION], self._stops
        trajectory.put_forward(frame)
        frame[slots.FORWARD_COUNT], frame[slots.PLANNED] = count, np.zeros(0)
        if count[slots.EARLIER]:
            t = trajectory.t[0]
            before = 0 if sign * (t - self.t_start) < 0.0 else int(np.count_nonzero(sign * stops[0] <= sign * t))
            stops = self._paused(stops, t, before)
        frame[slots.STOPS], frame[slots.CROSSED], frame[slots.JUMP_ROWS] = stops
        if trajectory.jumps.t.size:
            self._plan(trajectory.jumps.t.size)

    def follow_on(self, trajectory: Trajectory, count: np.ndarray) -> None:
        """See `Replay`: it stands at the stop where those it has asked for end."""
        frame, sign, at = self.frame, self.frame[slots.CONTROL][slots.DIRECTION], int(self.count[slots.STOP])
        trajectory.put_forward(frame)
        frame[slots.FORWARD_COUNT] = count
        times, crossed, rows = (np.delete(array, at) if array.size else array for array in self._stops_at_hand)
        stops = times, crossed, rows
        if count[slots.EARLIER]:
            t, jumps = trajectory.t[0], np.append(rows, -1)[: times.size] <= FIRST_JUMP  # the end may have no row
            behind = times + sign * self.span.clearance * jumps
            comes_later = (sign * behind > sign * t) | (jumps & (behind == t))  # as `_begin` of the adjoint has them
            stops = self._paused(stops, t, at + int(np.argmax(comes_later[at:])))
        frame[slots.STOPS], frame[slots.CROSSED], frame[slots.JUMP_ROWS] = stops

    def drive_by(self, costs: Costs) -> None:
        """Take no longer steps than the running cost allows that drives lam, and tolerances for what it makes of lam."""
        self.frame[slots.LIMITS], self.frame[slots.LIMITED] = costs.frame[slots.DRIVEN], costs.frame[slots.LIMITED]
        self.frame[slots.CONTROL][slots.COST_SIZE] = costs.size

    @property
    def _stops_at_hand(self) -> Stops:
        return self.frame[slots.STOPS], self.frame[slots.CROSSED], self.frame[slots.JUMP_ROWS]

    def _paused(self, stops: Stops, t: float, k: int) -> Stops:
        """The same with one more, before number k, where the steps at hand begin."""
        times, crossed, rows = stops
        rows = rows if rows.size else self._rows_of(times.size)
        crossed = np.insert(crossed, k, 0) if crossed.size else crossed
        return np.insert(times, k, t), crossed, np.insert(rows, k, PAUSE)

    def help_itself(self) -> bool:
        """Make room for what it records of its own steps, if there is none."""
        is_full = self.trajectory.record != 0 and self.steps == self.trajectory.t.size - 1
        if is_full:
            self.trajectory.grow()
            self.trajectory.put_recorded(self.frame)
        return is_full

    @property
    def lam(self) -> np.ndarray:
        return self.y[self.lam_from :]

    @property
    def theta_bar(self) -> np.ndarray:
        return self.total

    @property
    def dense_adjoint(self) -> DenseOutput:
        kept = self.trajectory.trimmed(self.steps)
        t = kept.t.copy()
        t[0] = self.t_start  # which may be a stop, behind which the first step began
        u, c = (np.ascontiguousarray(part[..., self.lam_from :]) for part in (kept.u, kept.c))
        return DenseOutput(t, u, c, self.span)

    def add_work(self, stats: PullbackStats) -> None:
        """Count the work of the last run."""
        count = self.count.tolist()
        stats.n_steps, stats.n_rejected = count[slots.EARLIER] + count[slots.STEPS], count[slots.REJECTED]
        along, nodes = count[slots.DERIVATIVES], count[slots.INTEGRANDS]
        stats.n_f += along if self.lam_from else 0  # the state runs along
        stats.n_vjp_u += along if self.short else 0
        stats.n_vjp += (0 if self.short else along) + nodes
        stats.n_g_vjp += along if self.cost is not None else 0
        if self.options.structure is not None:
            stats.n_jac, stats.n_lu, stats.n_newton = self.implicit_work
            rows = stats.n_jac * products_for(self.dynamics, self.options.structure)
            stats.n_vjp_u += rows if self.dynamics.vjp_u is not None else 0
            stats.n_vjp += 0 if self.dynamics.vjp_u is not None else rows

    def error(self, status: int, state: DenseOutput | SegmentedOutput) -> SolveError:
        """What a run that ended with this status is called; `state` is the forward solution."""
        hint = "Backsolve is unstable where the flow contracts: try adjoint='interpolating'" if self.lam_from else ""
        if self.options.structure is not None and status == STEP_TOO_SMALL:
            hint = "After an observation lam has a transient as fast as the stiffest part: adjoint='discrete' need not resolve it"
        cause = None
        if status == CALLBACK_RAISED:
            places = [(self.place[0], y[self.lam_from :]) for y in self.tried]
            cause = find_cause(self.dynamics, self.theta, state, self.cost, places)
        return solve_error(
            status,
            phase="adjoint",
            t=self.place[0],
            step_size=self.place[1],
            **self._blamed(status),
            max_steps=self.max_steps,
            max_seconds=self.max_seconds,
            callback="vjp (or another callback of the backward pass)",
            hint=hint,
            cause=cause,
            event=self.jumps.event_at(self.frame),
        )

    def _blamed(self, status: int) -> dict[str, Any]:
        """The component to blame, and what it is called."""
        blamed = self.blame() if status not in (CALLBACK_RAISED, MAX_STEPS, TIMED_OUT) else None
        if blamed is None:
            return {}
        where, component = blamed
        if where == "quadrature":
            return self.dynamics.entry("theta_bar", component)
        if component < self.lam_from:
            return self.dynamics.entry("u", component)
        return self.dynamics.entry("lam", component - self.lam_from)
