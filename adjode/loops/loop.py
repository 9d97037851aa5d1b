"""`Loop`: the buffers of one pass, and the run that grows them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import types

from adjode.jit import cube, entry, integers, matrix, vector
from adjode.loops import integrate as kernel_names
from adjode.loops.quadrature import GAUSS, NONE, rule
from adjode.status import STORE_FULL
from adjode.tableaus import Tableau

_FIRST_CAPACITY = 128  # steps a store holds at first
_FIRST_BYTES = 1 << 22  # ... but not more memory than this


def compile_integrate(name: str, system_type, derivative, integrand=None, at_stop=None) -> Callable:
    """The loop's entry for one right-hand side; `system_type` is the Numba type of its `system` tuple."""
    signature = (
        system_type,
        types.Tuple((matrix, vector, matrix, matrix)),
        types.Tuple((matrix, vector, integers)),
        integers,
        vector,
        vector,
        vector,
        vector,
        integers,
        types.UniTuple(vector, 8),
        matrix,
        matrix,
        types.Tuple((vector, matrix, cube)),
    )
    return entry(kernel_names.make_integrate(derivative, integrand, at_stop), signature, name)


class Mesh:
    """Stored dense output: step k runs from t[k] to t[k+1] with u(t[k] + x h) = u[k] + sum_p c[k, p] x**(p+1)."""

    def __init__(self, n: int, degree: int, capacity: int):
        self.t = np.empty(capacity + 1)
        self.u = np.empty((capacity + 1, n))
        self.c = np.empty((capacity, degree, n))

    @property
    def arrays(self):
        return self.t, self.u, self.c

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
        selected = rule(kind, tableau)
        dense = record or kind == GAUSS
        span = abs(stops[-1] - start)
        direction = 1.0 if stops[-1] >= start else -1.0
        self.tableau = tableau.for_kernels
        self.rule = (selected.weights, selected.nodes, selected.stage_rows)
        self.setting = np.array([tableau.stages, step is None, dense, record, kind, max_steps, integrand_free], dtype=np.int64)
        self.control = np.array([rtol, q_rtol, q_atol, max_step, direction, span, tableau.error_order], dtype=float)
        self.stops = np.ascontiguousarray(stops, dtype=float)
        self.atol = atol
        self.clock = np.array([start, step or first_step or 0.0, 1.0, start, 0.0])
        self.count = np.zeros(7, dtype=np.int64)
        self.total = np.zeros(size)
        self.y, self.y_new, self.stage = y, np.zeros(n), np.zeros(n)
        self.error = np.zeros(n)
        self.vectors = (y, self.y_new, self.stage, self.error, np.zeros(n), self.total, np.zeros(size), np.zeros(size))
        self.K = np.zeros((stages, n))
        self.q = np.zeros((selected.weights.shape[1] + 1, size))
        capacity = max(8, min(_FIRST_CAPACITY, _FIRST_BYTES // (8 * (degree + 1) * max(1, n)))) if record else 1
        self.mesh = Mesh(n, degree, capacity)

    def run(self, integrate: Callable, system: tuple) -> int:
        """Integrate to the last stop; the status code."""
        while True:
            status = integrate(
                system,
                self.tableau,
                self.rule,
                self.setting,
                self.control,
                self.stops,
                self.atol,
                self.clock,
                self.count,
                self.vectors,
                self.K,
                self.q,
                self.mesh.arrays,
            )
            if status != STORE_FULL:
                return status
            self.mesh.grow()

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
        for where, values in (("state", np.vstack([self.y, self.K, self.y_new])), ("quadrature", self.q)):
            bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
            if bad.size:
                return where, int(bad[0])
        scale = self.atol + self.control[kernel_names.RTOL] * np.maximum(abs(self.y), abs(self.y_new))
        with np.errstate(all="ignore"):
            scaled = np.abs(self.error) / scale
        return ("state", int(np.nanargmax(scaled))) if np.isfinite(scaled).any() else None
