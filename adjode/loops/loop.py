"""`Loop`: the buffers of one pass, and the run that grows them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from adjode import frame as slots
from adjode.calls import Calls
from adjode.frame import Frame, frame_type
from adjode.jit import entry
from adjode.loops import integrate as kernel_names
from adjode.loops.quadrature import GAUSS, NONE, rule
from adjode.status import STORE_FULL
from adjode.tableaus import Tableau

_FIRST_CAPACITY = 512  # steps a store holds at first
_FIRST_BYTES = 1 << 22  # ... but not more memory than this


def compile_integrate(name: str, calls: Calls, derivative, integrand=None, at_stop=None) -> Callable:
    """The loop's entry for one right-hand side."""
    return entry(kernel_names.make_integrate(derivative, integrand, at_stop), (frame_type,), name, calls.entry_key())


@functools.cache
def _method_frame(tableau: Tableau, kind: int) -> Frame:
    frame, selected = Frame(), rule(kind, tableau)
    for slot, array in zip((slots.A, slots.C, slots.E, slots.PT), tableau.for_kernels, strict=True):
        frame[slot] = array
    frame[slots.WEIGHTS], frame[slots.NODES], frame[slots.Q_ROWS] = selected.weights, selected.nodes, selected.stage_rows
    return frame


def put_method(frame: Frame, tableau: Tableau, kind: int) -> None:
    """Fill the slots of the tableau and of the quadrature rule."""
    frame.adopt(_method_frame(tableau, kind), slots.A, slots.SETTING)


class Mesh:
    """Stored dense output: step k runs from t[k] to t[k+1] with u(t[k] + x h) = u[k] + sum_p c[k, p] x**(p+1)."""

    def __init__(self, n: int, degree: int, capacity: int):
        self.t = np.empty(capacity + 1)
        self.u = np.empty((capacity + 1, n))
        self.c = np.empty((capacity, degree, n))

    def grow(self) -> None:
        capacity = 2 * len(self.c)
        for name, length in (("t", capacity + 1), ("u", capacity + 1), ("c", capacity)):
            old = getattr(self, name)
            new = np.empty((length, *old.shape[1:]))
            new[: len(old)] = old
            setattr(self, name, new)


class Loop:
    """One pass over `stops` in the order of integration; see `integrate` for what the arrays hold.

    Parameters
    ----------
    tableau : Tableau
    y : (n,) array
        Initial state; updated in place.
    start : float
    stops : (k,) array
        Times the integration must meet, the last one its end.
    rtol, atol, q_rtol, q_atol : float; atol : (n,) array
        Tolerances of the state and of the quadrature.
    quadrature : (kind, size, integrand_free)
        Kind of rule, length of the integrand, and whether the right-hand side provides the integrand at no cost.
    """

    def __init__(
        self,
        tableau: Tableau,
        y: np.ndarray,
        start: float,
        stops: np.ndarray,
        *,
        rtol: float,
        atol: np.ndarray,
        q_rtol: float = 0.0,
        q_atol: float = 0.0,
        quadrature: tuple[int, int, bool] = (NONE, 0, False),
        first_step: float | None = None,
        max_step: float = np.inf,
        max_steps: int = 100_000,
        step: float | None = None,
        record: bool = True,
    ):
        n, (kind, size, integrand_free) = y.size, quadrature
        stages, degree = tableau.P.shape
        rows = rule(kind, tableau).weights.shape[1] + 1
        span = abs(stops[-1] - start)
        direction = 1.0 if stops[-1] >= start else -1.0
        capacity = max(8, min(_FIRST_CAPACITY, _FIRST_BYTES // (8 * (degree + 1) * max(1, n)))) if record else 1
        self.mesh = Mesh(n, degree, capacity)
        frame = self.frame = Frame()
        put_method(frame, tableau, kind)
        dense = record or kind == GAUSS
        frame[slots.SETTING] = np.array(
            [tableau.stages, step is None, dense, record, kind, max_steps, integrand_free], dtype=np.int64
        )
        frame[slots.CONTROL] = np.array([rtol, q_rtol, q_atol, max_step, direction, span, tableau.error_order], dtype=float)
        frame[slots.COUNT] = self.count = np.zeros(7, dtype=np.int64)
        frame[slots.CLOCK] = self.clock = np.array([start, step or first_step or 0.0, 1.0, start, 0.0])
        frame[slots.STOPS], frame[slots.ATOL] = np.ascontiguousarray(stops, dtype=float), atol
        frame[slots.Y] = self.y = y
        frame.allocate(
            {
                **dict.fromkeys((slots.Y_NEW, slots.STAGE, slots.ERROR, slots.ZEROS), (n,)),
                **dict.fromkeys((slots.TOTAL, slots.INCREMENT, slots.Q_ZEROS), (size,)),
                slots.K: (stages, n),
                slots.Q: (rows, size),
            }
        )

    def run(self, integrate: Callable) -> int:
        """Integrate to the last stop; the status code."""
        while True:
            self.frame[slots.MESH_T], self.frame[slots.MESH_U], self.frame[slots.MESH_C] = self.mesh.t, self.mesh.u, self.mesh.c
            status = integrate(self.frame.argument)
            if status != STORE_FULL:
                return status
            self.mesh.grow()

    @property
    def tried(self) -> tuple[np.ndarray, np.ndarray]:
        """The states at which a callback may have raised: that of a stage, and that at the step's end."""
        return self.frame[slots.STAGE], self.frame[slots.Y_NEW]

    @property
    def total(self) -> np.ndarray:
        """The quadrature's value."""
        return self.frame[slots.TOTAL]

    @property
    def steps(self) -> int:
        return int(self.count[kernel_names.STEPS])

    @property
    def rejected(self) -> int:
        return int(self.count[kernel_names.REJECTED])

    @property
    def derivatives(self) -> int:
        return int(self.count[kernel_names.DERIVATIVES])

    @property
    def integrands(self) -> int:
        return int(self.count[kernel_names.INTEGRANDS])

    @property
    def t_tried(self) -> float:
        return float(self.clock[kernel_names.T_TRIED])

    @property
    def h_tried(self) -> float:
        return float(self.clock[kernel_names.H_TRIED])

    def blame(self) -> tuple[str, int] | None:
        """Whom to name after a failure: ("state", i) or ("quadrature", i) with a non-finite value, else the largest error."""
        frame = self.frame
        state = np.vstack([self.y, frame[slots.K], frame[slots.Y_NEW]])
        for where, values in (("state", state), ("quadrature", frame[slots.Q])):
            bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
            if bad.size:
                return where, int(bad[0])
        scale = frame[slots.ATOL] + frame[slots.CONTROL][kernel_names.RTOL] * np.maximum(abs(self.y), abs(frame[slots.Y_NEW]))
        with np.errstate(all="ignore"):
            scaled = np.abs(frame[slots.ERROR]) / scale
        return ("state", int(np.nanargmax(scaled))) if np.isfinite(scaled).any() else None
