"""The forward pass: the loop over the steps of u, and what its failures are called."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.checks import choose
from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.flags import kernel
from adjode.compile.frame import Frame
from adjode.compile.slots import RECORD_DENSE, RECORD_STAGES, WHERE_OBSERVED
from adjode.jacobian import make_jacobian, put_jacobian, source_of, structure_of
from adjode.linalg.mass import Mass
from adjode.linalg.structure import KINDS, Structure
from adjode.loops.crossing import cross, cross_smoothly
from adjode.loops.events import begin_guards
from adjode.loops.guards import SIGNS
from adjode.loops.jumps import plan_doses
from adjode.loops.run import make_integrate
from adjode.model.doses import dose_table
from adjode.model.dynamics import Dynamics
from adjode.model.events import guards_of
from adjode.model.inflows import with_inflows
from adjode.model.layout import Layout
from adjode.model.losses import PreparedLoss
from adjode.passes.base import Integration
from adjode.passes.jumps import NO_JUMPS, Jumps
from adjode.passes.options import SolveOptions
from adjode.passes.span import Span
from adjode.status import (
    AMBIGUOUS,
    CALLBACK_RAISED,
    DOSE_TOO_EARLY,
    HIGH_INDEX,
    INCONSISTENT,
    MAX_STEPS,
    NEWTON_FAILED,
    NO_DURATION,
    NON_FINITE,
    SUCCESS,
    TIMED_OUT,
    ZENO,
    SolveError,
    solve_error,
)
from adjode.steppers.family import EXPLICIT, Solver, family_of
from adjode.tableaus import Tableau

_ROUNDING_HINT = "Tolerances of algebraic components, atol above all, may also be tighter than rounding allows"
_REFINED_HINT = "The solve had succeeded: this is its repetition with the shorter steps that the gradient needs"


@kernel
def _begin_jumps(frame):
    status = plan_doses(frame)
    return begin_guards(frame) if status == SUCCESS else status


def make_forward(calls: Calls, stages: tuple[int, int] | None, solver: Solver = EXPLICIT) -> Callable:
    """The kernel of the forward pass."""
    call_f = calls.f

    @kernel
    def forward_rhs(frame, t, u, du, q):
        return call_f(frame, t, u, du)

    stepper = solver.stepper(forward_rhs, make_jacobian(calls))
    how: dict[str, Any] = {"stages": stages, "stepper": stepper, "switches": solver.switches}
    if not calls.may_jump:
        return make_integrate(forward_rhs, cross_smoothly, **how)
    return make_integrate(forward_rhs, cross, **how, begin=_begin_jumps, guarded=True)


class Forward(Integration):
    """The forward pass from u0 over `t_span`.

    Parameters
    ----------
    dynamics : Dynamics
    options : SolveOptions
    structure : Structure or None
        Of the Jacobian, for an implicit method.
    u0, theta : (n,), (m,) arrays
        Which the pass reads whenever it runs.
    t_span : (t0, T)
    record : int
        What to keep of each step.
    times : (k,) array, optional
        Where to write down the state, in the order of integration.
    jumps : Jumps
        Doses and events.
    lasting : bool
        Whether what is kept is to be read more than once.

    Attributes
    ----------
    memory : int or None
        The budget in bytes that a `Program` is to keep its steps to, if there is one.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Structure | None,
        u0: np.ndarray,
        theta: np.ndarray,
        t_span: tuple[float, float],
        *,
        record: int,
        times: np.ndarray | None = None,
        lasting: bool = False,
        jumps: Jumps = NO_JUMPS,
    ):
        method, stops = options.tableau, options.stops if t_span[1] >= t_span[0] else options.stops[::-1]
        tolerances = options.tolerances(u0.size)
        super().__init__(
            dynamics,
            method,
            Span(*t_span),
            u0,
            t_span[0],
            np.append(stops, t_span[1]),
            np.append(np.ones_like(stops, dtype=np.int64), 0) if stops.size else None,
            tolerances,
            options.limits,
            record=record,
            times=times,
            jumps=jumps,
        )
        self.frame[slots.THETA], self.frame[slots.FLOOR_BEHIND] = theta, np.zeros(0)
        self.frame[slots.ATOL_AT_MOST] = tolerances.atol.copy() if options.follows_start else np.zeros(0)
        if not dynamics.calls.fused:
            self.frame[slots.F] = dynamics.f.handle
        solver = EXPLICIT if structure is None else Solver(family_of(method), structure.kind, dynamics.mass is not None)
        if structure is not None:
            put_jacobian(self.frame, dynamics, structure, theta.size)
        self.entry_name = solver.entry_name("solve")
        self.make = functools.partial(make_forward, solver=solver)
        self.memory, self.lasting = options.limits.memory, lasting

    def limit_by(self, backward: Frame) -> None:
        """Keep to the limits of steps that the pass on this frame sets."""
        self.frame[slots.LIMITS], self.frame[slots.LIMITED] = backward[slots.LIMITS], backward[slots.LIMITED]

    def measure_for(self, *behind: Frame) -> None:
        """Have the least sizes of states in the passes on these frames follow the start, where absolute tolerances do."""
        if self.frame[slots.ATOL_AT_MOST].size:
            if not self.frame[slots.FLOOR_BEHIND].size:
                self.frame[slots.FLOOR_BEHIND] = behind[0][slots.U_FLOOR]
            for frame in behind:
                frame[slots.U_FLOOR] = self.frame[slots.FLOOR_BEHIND]

    @property
    def problem(self) -> tuple[Dynamics, Span, np.ndarray, Jumps]:
        """What passes along its steps are about: dynamics and theta are those with inflows, if there are any."""
        return self.dynamics, self.span, self.frame[slots.THETA], self.jumps

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """The times (k,) and states (k, n) at the starts of the steps that were taken, as far as they are kept."""
        kept, steps = self.trajectory, self.steps
        states = kept.stages[:, 0] if kept.record & RECORD_STAGES else kept.u
        return self.span.time(kept.t[:steps]), states[:steps]

    def error(self, status: int, layout: Layout) -> SolveError:
        """What a run that ended with this status is called; `layout` is that of u0."""
        dynamics = self.dynamics
        component, cause, culprit = None, None, dynamics.f.name
        details: dict[str, Any] = {}
        if status == CALLBACK_RAISED:
            culprit, cause = self._find_cause()
        elif status == INCONSISTENT and dynamics.mass is not None:
            component, details = self._inconsistency(dynamics.mass)
        elif status in (ZENO, AMBIGUOUS):
            details["event"] = self._named_events(status)
        elif status == NON_FINITE and (guard := self._undefined_guard()) is not None:
            culprit = f"the guard of {guard}"
        elif status not in (MAX_STEPS, HIGH_INDEX, TIMED_OUT, DOSE_TOO_EARLY, NO_DURATION) and (blamed := self.blame()) is not None:
            component, culprit = blamed[1], self._last_reset() or culprit
        return solve_error(
            status,
            phase="forward",
            t=self.place[0],
            step_size=self.place[1],
            **({} if component is None else self.dynamics.entry("u", component) | {"name": layout.entry_name("u", component)}),
            cause=cause,
            max_steps=self.max_steps,
            max_seconds=self.max_seconds,
            callback=culprit,
            hint=self._hint(status),
            **details,
        )

    def _hint(self, status: int) -> str:
        """What else may be behind a failure, or helps to understand it."""
        if status == NEWTON_FAILED and self.dynamics.mass is not None and self.dynamics.mass.singular:
            return _ROUNDING_HINT
        return _REFINED_HINT if status in (MAX_STEPS, TIMED_OUT) and self.frame[slots.LIMITED].any() else ""

    def _named_events(self, status: int) -> str:
        """The events of a failure: those that happen together, or the last ones."""
        guards, count = self.jumps.guards, self.count[slots.OCCURRED]
        assert guards is not None
        many, what = len(guards.events), self.trajectory.jumps.what.reshape(-1, 3)[:count]
        pending = np.flatnonzero(self.frame[slots.GUARD_HITS][many:] > 1)
        which = pending if status == AMBIGUOUS else np.unique(what[-4:, 1])
        return " and ".join(guards.events[i].name for i in which)

    def _undefined_guard(self) -> str | None:
        """The event whose guard is not finite where the state and its slopes are."""
        guards = self.jumps.guards
        if guards is None or not all(np.isfinite(part).all() for part in (self.y, self.frame[slots.K], self.tried)):
            return None
        undefined = np.flatnonzero(~np.isfinite(self.frame[slots.GUARD_VALUES][:SIGNS]).all(axis=0))
        return guards.events[undefined[0]].name if undefined.size else None

    def _last_reset(self) -> str | None:
        """What has made the state that steps were to go on from not finite, if that is a reset."""
        what = self.trajectory.jumps.what.reshape(-1, 3)[: self.count[slots.OCCURRED]]
        if np.isfinite(self.y).all() or not len(what) or what[-1, 0] == slots.DOSE:
            return None
        assert self.jumps.guards is not None
        return f"the reset of {self.jumps.guards.events[what[-1, 1]].name}"

    def _find_cause(self) -> tuple[str, Exception | None]:
        """The callback that raises at one of the states tried: f; or, for an implicit method, what the Jacobian comes from."""
        dynamics, theta = self.dynamics, self.frame[slots.THETA]
        guards = [] if self.jumps.guards is None else self.jumps.guards.callbacks
        for u, callback in itertools.product(self.tried, (dynamics.f, source_of(dynamics), *guards)):
            inputs = {"u": u, "theta": theta, "lam": np.ones_like(u)}
            cause = callback.reproduce_error(self.place[0], *callback.arguments(inputs))
            if cause is not None:
                return callback.name, cause
        return dynamics.f.name, None

    def _inconsistency(self, mass: Mass) -> tuple[int, dict[str, Any]]:
        """The component furthest off, in tolerances, and what the message about it says."""
        frame = self.frame
        scale, change = frame[slots.ATOL] + frame[slots.CONTROL][slots.RTOL] * abs(self.y), frame[slots.ERROR]
        residual = mass.algebraic_part(frame[slots.K][0])
        with np.errstate(all="ignore"):
            component = int(np.nanargmax(np.abs(change) / scale))
        equation = int(np.argmax(np.abs(residual)))
        return component, {"residual": float(residual[equation]), "equation": equation, "change": float(change[component])}


def jumps_of(dynamics: Dynamics, options: SolveOptions, n: int, m: int, t_span: tuple[float, float]) -> Jumps:
    """The doses and events of a solve, for n states and m parameters.

    Raises
    ------
    ValueError, TypeError
        For what is not there, or does not go together.
    """
    singular = dynamics.mass is not None and dynamics.mass.singular
    switches = dynamics.switches.actions(m, t_span, kinks=not singular)
    if not (options.doses or options.events or switches):
        return NO_JUMPS
    if singular:
        dynamics.switches.refuse("that goes with no singular mass matrix")
        raise ValueError(
            "doses and events may leave algebraic equations unsatisfied: give dynamics without a singular mass matrix."
        )
    doses = dose_table(options.doses, dynamics.fields, n, m, t_span, switches) if options.doses or switches else None
    return Jumps(doses, guards_of(options.events, dynamics.fields, dynamics.debug) if options.events else None)


def observing(
    dynamics: Dynamics,
    options: SolveOptions,
    structure: Structure | None,
    loss: PreparedLoss,
    t_span: tuple[float, float],
    sizes: tuple[int, int],
    record: Callable[[Jumps], int],
) -> tuple[Forward, np.ndarray, np.ndarray]:
    """A forward pass to be run again and again, that writes down what the loss observes; and its inputs (n,), (m,), to write to.

    `sizes` are n and m; `record(jumps)` is what to keep of each step.
    """
    if t_span[1] < t_span[0]:
        loss.reverse()
    u0, m = np.zeros(sizes[0]), sizes[1]
    jumps = jumps_of(dynamics, options, *sizes, t_span)
    extended, theta = with_inflows(dynamics, jumps.inflows, m), jumps.extended(np.zeros(m))
    kept = record(jumps)
    forward = Forward(extended, options, structure, u0, theta, t_span, record=kept, times=loss.times, jumps=jumps)
    loss.observe(forward.observed, theta[:m])
    return forward, u0, theta[:m]


def record_to_transpose(jumps: Jumps) -> int:
    """What is kept of each step for the discrete adjoint: for slopes where times are observed on steps that move, dense output."""
    return RECORD_STAGES | (RECORD_DENSE | WHERE_OBSERVED if jumps.move else 0)


def structure_for(
    method: Tableau, dynamics: Dynamics, linear_solver: str, t: float, u: np.ndarray, theta: np.ndarray
) -> Structure | None:
    """The structure of the Jacobian for an implicit method; None for an explicit one, which needs none.

    Raises
    ------
    ValueError
        If the method does not take the problem: its linear solver, its pattern or its mass matrix.
    """
    if dynamics.mass is not None:
        _check_mass(dynamics.mass, method, u.size)
    if not method.implicit:
        choose("linear_solver", linear_solver, ("auto", *KINDS))
        return None
    return structure_of(dynamics, linear_solver, t, u, theta)


def _check_mass(mass: Mass, method: Tableau, n: int) -> None:
    if not family_of(method).takes_mass_matrix:
        inverse = "" if mass.singular else ", or multiply f and vjp by the inverse of M and leave mass out"
        raise ValueError(f"method={method.name!r} takes no mass matrix: choose method='Radau'{inverse}.")
    mass.require_size(n)
