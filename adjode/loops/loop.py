"""`Loop`: the buffers of one pass, and the run that grows them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from adjode import slots
from adjode.frame import Frame
from adjode.loops.quadrature import GAUSS, NONE, rule
from adjode.slot import Group
from adjode.slots import RECORD_DENSE, RECORD_MESH, RECORD_STAGES
from adjode.status import STORE_FULL
from adjode.steppers.frozen import put_frozen
from adjode.tableaus import Tableau

_EPS = float(np.finfo(float).eps)
_FIRST_CAPACITY = 512  # steps a store holds at first
_FIRST_BYTES = 1 << 26  # ... but not more memory than this, of which the system hands out only what is written to


@functools.cache
def _method_frame(tableau: Tableau, kind: int) -> Frame:
    frame, selected = Frame(), rule(kind, tableau)
    for slot, array in zip((slots.A, slots.C, slots.E, slots.PT), tableau.for_kernels, strict=True):
        frame[slot] = array
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
    setting[[slots.LAST_STAGE, slots.TOP, slots.INTEGRAND_FREE, slots.FILTERED]] = stiff.stages, stiff.stages, 0, stiff.filtered
    partner[slots.SETTING] = setting
    partner[slots.K] = frame[slots.K][:rows]
    partner[slots.Q] = frame[slots.Q][: rule(kind, stiff).weights.shape[1] + 1]
    if frame.has(slots.CONTROL):
        partner[slots.CONTROL] = frame[slots.CONTROL].copy()
        partner[slots.CONTROL][slots.ERROR_ORDER] = stiff.error_order
        partner[slots.POWER] = np.zeros((2, n))
    if frame.has(slots.K_BAR):
        partner[slots.K_BAR] = frame[slots.K_BAR][:rows]
        partner[slots.BASIS] = np.zeros((1, rows))
    put_frozen(partner, stiff, n)


def newton_tolerance(rtol: float) -> float:
    """How far, in tolerances, Newton's iteration may stop from the stages: less the tighter they are (Hairer, Wanner II, IV.8)."""
    return max(10.0 * np.finfo(float).eps / rtol, min(0.03, math.sqrt(rtol))) if rtol > 0.0 else 0.03


class Store:
    """What is kept of each step. Step k runs from t[k] to t[k+1].

    Attributes
    ----------
    t : (capacity + 1,) array
    u, c : (capacity + 1, n), (capacity, degree, n) arrays
        The dense output, u(t[k] + x h) = u[k] + sum_p c[k, p] x**(p+1).
    stages : (capacity, rows, n) array
        The states of the stages, that at the step's start among them.

    stiff : (capacity,) array or None
        For a method that switches, whether the implicit one took the step.

    What is not kept has room for one step. `expected` is the number of steps, if it is known.
    """

    def __init__(self, n: int, degree: int, rows: int, record: int, expected: int | None, switches: bool):
        states = record & (RECORD_DENSE | RECORD_MESH) > 0
        width = n * (states + degree * (record & RECORD_DENSE > 0) + rows * (record & RECORD_STAGES > 0)) + 1
        capacity = max(8, min(expected or _FIRST_CAPACITY, _FIRST_BYTES // (8 * width))) if record else 1
        self.record = record
        dense = capacity if record & RECORD_DENSE else 1
        self.t = np.empty(capacity + 1)
        self.u = np.empty(((capacity if states else 1) + 1, n))
        self.c = np.empty((dense, degree, n))
        self.stages = np.empty((capacity, rows, n)) if record & RECORD_STAGES else np.zeros((1, rows, n))
        self.stiff = np.zeros(capacity, dtype=np.int64) if switches else None

    def grow(self) -> None:
        """Twice as many steps."""
        kept = {"t": ~0, "u": RECORD_DENSE | RECORD_MESH, "c": RECORD_DENSE, "stages": RECORD_STAGES, "stiff": ~0}
        names = [name for name, record in kept.items() if self.record & record and getattr(self, name) is not None]
        added = self.t.size - 1
        for name in names:
            old = getattr(self, name)
            new = np.empty((len(old) + added, *old.shape[1:]), dtype=old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def put(self, frame: Frame) -> None:
        frame[slots.MESH_T], frame[slots.MESH_U], frame[slots.MESH_C], frame[slots.STAGES] = self.t, self.u, self.c, self.stages
        if self.stiff is not None:
            frame[slots.MESH_STIFF] = self.stiff


class Loop:
    """One pass over `stops` in the order of integration; see `integrate` for what the arrays hold.

    Parameters
    ----------
    tableau : Tableau
    start : (n,) array
        Initial state.
    t_start : float
    stops : (k,) array
        Times the integration must meet, the last one its end.
    rtol, atol, q_rtol, q_atol : float; atol : (n,) array
        Tolerances of the state and of the quadrature.
    atol_scale : float
        If positive, `atol` and `q_atol` are set to the largest cotangent times this when the pass starts.
    quadrature : (kind, size, integrand_free)
        Kind of rule, length of the integrand, and whether the right-hand side provides the integrand at no cost.
    record : int
        What to keep of each step: a sum of RECORD_DENSE and RECORD_STAGES.
    times : (k,) array, optional
        Where to write down the state, in the order of integration.
    """

    def __init__(
        self,
        tableau: Tableau,
        start: np.ndarray,
        t_start: float,
        stops: np.ndarray,
        *,
        rtol: float,
        atol: np.ndarray,
        q_rtol: float = 0.0,
        q_atol: float = 0.0,
        atol_scale: float = 0.0,
        quadrature: tuple[int, int, bool] = (NONE, 0, False),
        first_step: float | None = None,
        max_step: float = np.inf,
        max_steps: int = 100_000,
        step: float | None = None,
        record: int = RECORD_DENSE,
        times: np.ndarray | None = None,
    ):
        n, (kind, size, integrand_free) = start.size, quadrature
        stages, degree = tableau.P.shape
        rows = rule(kind, tableau).weights.shape[1] + 1
        direction = 1.0 if stops[-1] >= t_start else -1.0
        span, first = abs(stops[-1] - t_start), step or first_step or 0.0
        expected = None if step is None else min(max_steps, math.ceil(span / step) + stops.size)
        self.store = Store(n, degree, stages, record, expected, tableau.partner is not None)
        frame = self.frame = Frame()
        put_method(frame, tableau, kind)
        dense = record & RECORD_DENSE > 0 or kind == GAUSS
        frame[slots.SETTING] = slots.SETTING.fill(
            last_stage=tableau.stages,
            top=stages - 1,
            adaptive=step is None,
            dense=dense,
            record=record,
            rule=kind,
            integrand_free=integrand_free,
            filtered=tableau.filtered,
        )
        frame[slots.CONTROL] = slots.CONTROL.fill(
            rtol=rtol,
            q_rtol=q_rtol,
            q_atol=q_atol,
            max_step=max_step,
            direction=direction,
            span=span,
            error_order=tableau.error_order,
            t_start=t_start,
            first_step=first,
            max_attempts=max_steps,
            atol_scale=atol_scale,
            newton_tol=newton_tolerance(rtol),
            eps=_EPS,
        )
        frame[slots.COUNT] = self.count = slots.COUNT.zeros()
        frame[slots.CLOCK] = self.clock = slots.CLOCK.zeros()
        frame[slots.STOPS], frame[slots.ATOL] = np.ascontiguousarray(stops, dtype=float), atol
        frame[slots.START] = start
        frame[slots.TIMES] = np.zeros(0) if times is None else times
        frame[slots.OBSERVED] = self.observed = np.empty((frame[slots.TIMES].size, n))
        frame.allocate(
            {
                **dict.fromkeys((slots.Y, slots.ERROR), (n,)),
                **dict.fromkeys((slots.TOTAL, slots.INCREMENT), (size,)),
                slots.K: (stages, n),
                slots.Q: (rows, size),
            }
        )
        if tableau.partner is not None:
            put_partner(frame, tableau, kind, n)
        elif tableau.implicit:
            put_frozen(frame, tableau, n)
        self.store.put(frame)

    def run(self, integrate: Callable) -> int:
        """Integrate to the last stop; the status code."""
        while (status := integrate(self.frame.argument)) == STORE_FULL:
            self.grow()
        return status

    def grow(self) -> None:
        self.store.grow()
        self.store.put(self.frame)

    @property
    def y(self) -> np.ndarray:
        """The state reached."""
        return self.frame[slots.Y]

    @property
    def tried(self) -> np.ndarray:
        """The states of the stages of the step tried last: where a callback may have raised."""
        stages = self.store.stages
        return stages[min(self.steps, len(stages) - 1)]

    @property
    def total(self) -> np.ndarray:
        """The quadrature's value."""
        return self.frame[slots.TOTAL]

    @property
    def steps(self) -> int:
        return int(self.count[slots.STEPS])

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
    def t_tried(self) -> float:
        return float(self.clock[slots.T_TRIED])

    @property
    def h_tried(self) -> float:
        return float(self.clock[slots.H_TRIED])

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
