"""`Pass`: one run of one entry on one frame, from Python; `Integration`: a pass of the loop over steps."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.compile.frame import Frame
from adjode.compile.slot import Group
from adjode.compile.slots import RECORD_DENSE, WHERE_OBSERVED
from adjode.compile.watch import new_watch
from adjode.loops.quadrature import GAUSS, NONE, rule
from adjode.model.dynamics import Dynamics
from adjode.passes.jumps import NO_JUMPS, Jumps, JumpStore, put_jumps
from adjode.passes.span import Span
from adjode.passes.trajectory import Trajectory
from adjode.steppers.frozen import put_frozen
from adjode.tableaus import Tableau

_EPS = float(np.finfo(float).eps)
_LOOSE = 1e-2  # tolerances from which on steps are held to less, see `Tolerances.of_steps`


@functools.cache
def _method_frame(tableau: Tableau, kind: int) -> Frame:
    frame, selected = Frame(), rule(kind, tableau)
    for slot, array in zip((slots.A, slots.C, slots.E, slots.PT), tableau.for_kernels, strict=True):
        frame[slot] = array
    of_lam, of_rule = tableau.adjoint_error, tableau.quadrature_error
    frame[slots.QUADRATURE_WEIGHTS], frame[slots.QUADRATURE_SLOPES], frame[slots.QUADRATURE_FACTORS] = of_rule.for_kernels
    frame[slots.LAM_WEIGHTS], frame[slots.STEP_WEIGHTS] = of_lam.weights, of_lam.step
    frame[slots.LAM_POWERS] = np.array([of_lam.halves, of_lam.raised, tableau.order, tableau.dense_order])
    frame[slots.LAM_FACTORS] = np.array([of_lam.order, of_lam.factor, of_lam.by_lam])
    frame[slots.ERROR_FACTORS] = np.array(tableau.step_error) if tableau.adaptive else np.zeros(2)
    frame[slots.WEIGHTS], frame[slots.NODES], frame[slots.Q_ROWS] = selected.weights, selected.nodes, selected.stage_rows
    return frame


def put_method(frame: Frame, tableau: Tableau, kind: int) -> None:
    """Fill the slots of the tableau and of the quadrature rule."""
    frame.adopt(_method_frame(tableau, kind), Group.METHOD)


def put_partner(frame: Frame, tableau: Tableau, kind: int, n: int) -> None:
    """Give a frame that is filled for the explicit method of `tableau` a partner for the implicit one."""
    stiff = tableau.partner
    assert stiff is not None
    partner, rows = frame.pair(), stiff.stages + 1
    put_method(partner, stiff, kind)
    setting = frame[slots.SETTING].copy()
    setting[[slots.LAST_STAGE, slots.TOP, slots.INTEGRAND_FREE]] = stiff.stages, stiff.stages, 0
    setting[[slots.FILTERED, slots.CENTRED]] = stiff.filtered, stiff.centred
    partner[slots.SETTING] = setting
    partner[slots.K] = frame[slots.K][:rows]
    partner[slots.Q] = frame[slots.Q][: rule(kind, stiff).weights.shape[1] + 1]
    if frame.has(slots.CONTROL):
        partner[slots.CONTROL] = frame[slots.CONTROL].copy()
        partner[slots.CONTROL][[slots.ERROR_ORDER, slots.REACH]] = stiff.error_order, stiff.reach
        partner[slots.POWER] = np.zeros((2, n))
    if frame.has(slots.K_BAR):
        partner[slots.K_BAR] = frame[slots.K_BAR][:rows]
        partner[slots.BASIS] = np.zeros((1, rows))
    put_frozen(partner, stiff, n)


def newton_tolerance(rtol: float) -> float:
    """How far, in tolerances, Newton's iteration may stop from the stages: less the tighter they are (Hairer, Wanner II, IV.8)."""
    return max(10.0 * np.finfo(float).eps / rtol, min(0.03, math.sqrt(rtol))) if rtol > 0.0 else 0.03


@dataclass(frozen=True, eq=False)
class Tolerances:
    """Of the state, `rtol` and `atol` (n,), and of the quadrature; see `slots.CONTROL`. The last two are for `of_steps` to say."""

    rtol: float
    atol: np.ndarray
    q_rtol: float = 0.0
    q_atol: float = 0.0
    atol_scale: float = 0.0
    q_atol_scale: float = 0.0
    part: float = 1.0
    asked_rtol: float | None = None

    def of_steps(self, tableau: Tableau) -> Tolerances:
        """What single steps are held to, so that the error of a whole solve is in proportion to what is asked for.

        Where the error that is estimated is of the order h**(q + 1), a solve's error of order p is proportional to the tolerance
        of a step to the power of p / (q + 1). Methods that go on with the better of two solutions have p = q + 1, TRBDF2 has not.
        (D. J. Higham 1991, SIAM J. Numer. Anal. 28, 1175-1194; RADAU5 changes its tolerances likewise.)
        """
        asked = self.rtol or float(np.max(self.atol, initial=0.0))
        part = min(1.0, asked / _LOOSE) ** ((tableau.error_order + 1) / tableau.order - 1.0)
        if not tableau.adaptive or part >= 1.0:
            return self
        changed = {"rtol": self.rtol * part, "atol": self.atol * part, "atol_scale": self.atol_scale * part}
        return dataclasses.replace(self, **changed, part=part, asked_rtol=self.rtol)


@dataclass(frozen=True)
class Limits:
    """What bounds the steps of a pass, its time and what it keeps: see `adjode.solve`."""

    max_step: float
    max_steps: int
    step: float | None
    first_step: float | None = None
    max_seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True, eq=False)
class Quadrature:
    """The kind of rule, the length of the integrand, and whether the right-hand side provides the integrand at no cost."""

    kind: int = NONE
    size: int = 0
    integrand_free: bool = False


def _control(
    tolerances: Tolerances, limits: Limits, tableau: Tableau, t_start: float, direction: float, length: float
) -> np.ndarray:
    return slots.CONTROL.fill(
        rtol=tolerances.rtol,
        q_rtol=tolerances.q_rtol,
        q_atol=tolerances.q_atol,
        max_step=limits.max_step,
        direction=direction,
        span=length,
        error_order=tableau.error_order,
        t_start=t_start,
        first_step=limits.step or limits.first_step or 0.0,
        max_attempts=limits.max_steps,
        atol_scale=tolerances.atol_scale,
        q_atol_scale=tolerances.q_atol_scale,
        cost_size=0.0,
        newton_tol=newton_tolerance(tolerances.rtol),
        eps=_EPS,
        reach=tableau.reach,
        asked_rtol=tolerances.rtol if tolerances.asked_rtol is None else tolerances.asked_rtol,
        part_of_asked=tolerances.part,
    )


class Pass:
    """One entry on one frame; a `Program` runs it.

    Attributes
    ----------
    frame : Frame
    entry_name, make : str, callable
        The entry, as `Calls.entry` has it.
    jumps : Jumps
        Of the state on the way.
    watch : array
        See compile/watch.py.
    max_seconds : float or None
        How long a run may take.
    """

    entry_name: str
    make: Callable
    jumps: Jumps = NO_JUMPS

    def __init__(self, dynamics: Dynamics, max_seconds: float | None = None):
        self.dynamics, self.frame, self.max_seconds = dynamics, Frame(), max_seconds
        self.share_watch(new_watch())

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        """`entry(frame.argument) -> status`, compiled for the frame as it is when this is first asked for."""
        calls = self.dynamics.calls.jumping if self.jumps else self.dynamics.calls
        return calls.entry(self.entry_name, self.frame, self.make)

    @property
    def estimate(self) -> dict[str, float] | None:
        """See `Cotangents.error`; None of a pass that does not judge itself."""
        return None

    def warn_if_inaccurate(self, stacklevel: int) -> None:
        """Warn of what `on_inaccurate="warn"` lets pass; where nothing is judged, of nothing."""

    def help_itself(self) -> bool:
        """Do what the pass has stopped for, where that is its own matter; whether it was."""
        return False

    def share_watch(self, watch: np.ndarray) -> None:
        self.watch = self.frame[slots.WATCH] = watch


class Integration(Pass):
    """A pass over `stops` in the order of integration. It is told times as users know them, and counts from the start of the solve.

    Parameters
    ----------
    dynamics : Dynamics
    tableau : Tableau
    span : Span
        Of the solve.
    start : (n,) array
        Initial state.
    t_start : float
    stops : (k,) array
        Times the integration must meet, the last one its end.
    crossed : (k,) array of int or None
        1 for stops at which f may jump, and else 0.
    tolerances : Tolerances
    limits : Limits
    quadrature : Quadrature
    record : int
        What to keep of each step: a sum of RECORD_DENSE, RECORD_STAGES and others.
    times : (k,) array, optional
        Where to write down the state, in the order of integration.
    jumps : Jumps
        Of the state, in a forward pass.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        tableau: Tableau,
        span: Span,
        start: np.ndarray,
        t_start: float,
        stops: np.ndarray,
        crossed: np.ndarray | None,
        tolerances: Tolerances,
        limits: Limits,
        *,
        quadrature: Quadrature = Quadrature(),
        record: int,
        times: np.ndarray | None = None,
        jumps: Jumps = NO_JUMPS,
    ):
        super().__init__(dynamics, limits.max_seconds)
        self.span, self.times, self.stops = span, np.zeros(0) if times is None else times, stops
        n, kind, frame = start.size, quadrature.kind, self.frame
        ends, first = span.elapsed(stops), float(span.elapsed(t_start))
        length, direction = abs(ends[-1] - first), 1.0 if ends[-1] >= first else -1.0
        stages, degree = tableau.P.shape
        put_method(frame, tableau, kind)
        crossings = 0 if crossed is None else 2 * int(crossed.sum())
        expected = None if limits.step is None else min(limits.max_steps, math.ceil(length / limits.step) + stops.size) + crossings
        expected = expected if limits.memory is None else 1  # Segments make room
        kinds = tableau.partner is not None or crossed is not None or bool(jumps)
        self.trajectory = Trajectory.empty(n, degree, stages, record, expected, kinds)
        self.trajectory.jumps = JumpStore.empty(jumps, n)
        frame[slots.SETTING] = slots.SETTING.fill(
            last_stage=tableau.stages,
            top=stages - 1,
            adaptive=limits.step is None,
            dense=record & (RECORD_DENSE | WHERE_OBSERVED) == RECORD_DENSE or kind == GAUSS,
            record=record,
            rule=kind,
            integrand_free=quadrature.integrand_free,
            filtered=tableau.filtered,
            centred=tableau.centred,
            judged=False,
        )
        tolerances = tolerances.of_steps(tableau)
        frame[slots.CONTROL] = _control(tolerances, limits, tableau, first, direction, length)
        frame[slots.TIME_SPAN] = span.numbers
        frame[slots.COUNT] = self.count = slots.COUNT.zeros()
        frame[slots.CLOCK] = self.clock = slots.CLOCK.zeros()
        frame[slots.STOPS], frame[slots.ATOL] = np.ascontiguousarray(ends), tolerances.atol
        frame[slots.JUMP_ROWS] = none = np.zeros(0, dtype=np.int64)
        frame[slots.CROSSED] = none if crossed is None else crossed
        frame[slots.PLANNED], frame[slots.PLANNED_CROSSED], frame[slots.PLANNED_ROWS] = np.zeros(0), none, none
        put_jumps(frame, jumps, n)
        self.jumps = jumps
        if jumps.doses is not None:
            self._plan(jumps.actions)
        frame[slots.LIMITS], frame[slots.LIMITED] = np.zeros((0, 3)), np.zeros(2, dtype=np.int64)
        frame[slots.START], frame[slots.TIMES] = start, np.ascontiguousarray(span.elapsed(self.times))
        frame[slots.OBSERVED] = self.observed = np.empty((frame[slots.TIMES].size, n))
        self._allocate(tableau, n, quadrature)
        self.trajectory.put_recorded(frame)

    def _plan(self, further: int) -> None:
        """Have the pass begin by putting so many further stops among those that are known."""
        frame = self.frame
        if not frame[slots.PLANNED].size:
            stops, crossed, rows = (frame[slot] for slot in (slots.STOPS, slots.CROSSED, slots.JUMP_ROWS))
            frame[slots.PLANNED] = stops
            frame[slots.PLANNED_CROSSED] = crossed if crossed.size else np.zeros(stops.size, dtype=np.int64)
            frame[slots.PLANNED_ROWS] = rows if rows.size else self._rows_of(stops.size)
        room = frame[slots.PLANNED].size + further
        frame[slots.STOPS] = np.zeros(room)
        frame[slots.CROSSED], frame[slots.JUMP_ROWS] = np.zeros(room, dtype=np.int64), np.zeros(room, dtype=np.int64)

    @property
    def planned(self) -> np.ndarray:
        """The stops that are known before the pass begins."""
        planned = self.frame[slots.PLANNED]
        return planned if planned.size else self.frame[slots.STOPS]

    def _rows_of(self, stops: int) -> np.ndarray:
        """What JUMP_ROWS stand for that are empty."""
        return np.full(stops, -1, dtype=np.int64)

    def _allocate(self, tableau: Tableau, n: int, quadrature: Quadrature) -> None:
        kind, size = quadrature.kind, quadrature.size
        self.frame.allocate(
            {
                **dict.fromkeys((slots.Y, slots.ERROR), (n,)),
                **dict.fromkeys((slots.TOTAL, slots.INCREMENT), (size,)),
                slots.K: (len(tableau.P), n),
                slots.Q: (rule(kind, tableau).weights.shape[1] + 1, size),
            }
        )
        if tableau.partner is not None:
            put_partner(self.frame, tableau, kind, n)
        elif tableau.implicit:
            put_frozen(self.frame, tableau, n)

    @property
    def y(self) -> np.ndarray:
        """The state reached."""
        return self.frame[slots.Y]

    @property
    def tried(self) -> np.ndarray:
        """The states of the stages of the step tried last: where a callback may have raised."""
        stages = self.trajectory.stages
        return stages[min(self.count[slots.STEPS], len(stages) - 1)]

    @property
    def total(self) -> np.ndarray:
        """The quadrature's value."""
        return self.frame[slots.TOTAL]

    @property
    def steps(self) -> int:
        return int(self.count[slots.EARLIER] + self.count[slots.STEPS])

    @property
    def crossings(self) -> int:
        return int(self.count[slots.CROSSINGS])

    @property
    def rejected(self) -> int:
        return int(self.count[slots.REJECTED])

    @property
    def switches(self) -> int:
        return int(self.count[slots.SWITCHES])

    @property
    def derivatives(self) -> int:
        return int(self.count[slots.DERIVATIVES])

    @property
    def integrands(self) -> int:
        return int(self.count[slots.INTEGRANDS])

    @property
    def implicit_work(self) -> tuple[int, int, int]:
        """Jacobians, factorisations and Newton iterations."""
        jacobians, factorisations, iterations = self.count[slots.JACOBIANS : slots.ITERATIONS + 1].tolist()
        return jacobians, factorisations, iterations

    @property
    def t_start(self) -> float:
        """Where the pass starts, since the start of the solve."""
        return float(self.frame[slots.CONTROL][slots.T_START])

    @property
    def place(self) -> tuple[float, float]:
        """The time reached, and the step that was tried last."""
        return float(self.span.time(self.clock[slots.T_TRIED])), float(self.clock[slots.H_TRIED])

    @property
    def max_steps(self) -> int:
        return int(self.frame[slots.CONTROL][slots.MAX_ATTEMPTS])

    def blame(self) -> tuple[str, int] | None:
        """Whom to name after a failure: ("state", i) or ("quadrature", i) with a non-finite value, else the largest error."""
        partner, stiff = self.frame.partner, self.count[slots.STIFF] == 1
        frame = partner if partner is not None and stiff else self.frame
        y_new = self.tried[frame[slots.SETTING][slots.LAST_STAGE]]
        state = np.vstack([self.y, frame[slots.K], y_new])
        for where, values in (("state", state), ("quadrature", frame[slots.Q])):
            bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
            if bad.size:
                return where, int(bad[0])
        scale = frame[slots.ATOL] + frame[slots.CONTROL][slots.RTOL] * np.maximum(abs(self.y), abs(y_new))
        with np.errstate(all="ignore"):
            scaled = np.abs(frame[slots.ERROR]) / scale
        return ("state", int(np.nanargmax(scaled))) if np.isfinite(scaled).any() else None
