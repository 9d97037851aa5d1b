"""Losses: scalar functions of a trajectory that know their own cotangents.

A loss is any object with `value_and_cotangents(solution) -> (value, seeds)`, where `seeds` are keyword arguments of
`Solution.pullback`: `u_T_bar` or `observations`. The losses of this module can also be prepared for many calls, which is how
`value_and_gradient` runs them without a `Solution` in between; other objects take the long way.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher

from adjode import frame as slots
from adjode.fingerprint import fingerprint
from adjode.frame import Frame, integers_at, matrix_at, opened, vector_at
from adjode.jit import DISABLED, entry, i8, kernel, linked, row
from adjode.members import MemberData
from adjode.messages import count_arguments
from adjode.options import float_vector
from adjode.solution import Solution
from adjode.status import NON_FINITE, SUCCESS, SolveError, Status


class Loss(Protocol):
    def value_and_cotangents(self, solution: Solution) -> tuple[float, dict[str, Any]]: ...


def _require_finite_loss(value: float, u_bars: np.ndarray, times: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(u_bars))
    if np.isfinite(value) and not bad.size:
        return
    k, component = (int(i) for i in bad[0]) if bad.size else (0, None)
    what = f"its cotangent of u[{component}] at t = {times[k]:g} is {u_bars[k, component]}" if bad.size else f"its value is {value}"
    raise SolveError(
        f"the loss is not finite: {what}; it overflowed, or its callback wrote NaN or left the entry out.",
        phase="loss",
        status=Status.NON_FINITE,
        t=float(times[k]) if times.size else float("nan"),
        component=component,
    )


class FinalState(MemberData):
    """`weights . u(T)`.

    Parameters
    ----------
    weights : (n,) array
        Or (N, n), a row for each member of an ensemble.
    """

    def __init__(self, weights: Any):
        if np.ndim(weights) == 2:
            weights = np.array(weights)
            self.members, self.by_member = len(weights), ("weights",)
            self.weights = float_vector("weights", weights.ravel()).reshape(weights.shape)
        else:
            self.weights = float_vector("weights", weights)

    def prepare(self, n: int, T: float) -> PreparedLoss:
        self._require_one()
        self._require_size(n)
        return PreparedLinear(self, n, np.array([T]), self.weights[None])

    def value_and_cotangents(self, solution: Solution) -> tuple[float, dict[str, Any]]:
        u_T = solution.u[-1]
        self._require_one()
        self._require_size(u_T.size)
        return float(self.weights @ u_T), {"u_T_bar": self.weights}

    def _require_size(self, n: int) -> None:
        if self.weights.size != n:
            raise ValueError(f"weights must have one entry for each of the {n} states, but it has {self.weights.size}.")


class LeastSquares(MemberData):
    """`0.5 sum(((u(t_obs) - y_obs) / sigma)**2)`, of logarithms if asked; NaN in `y_obs` is missing data and left out.

    Parameters
    ----------
    t_obs : (k,) array
        Observation times, in any order.
    y_obs : (k, c) array, or (k,) for one component
        Observations of c components of the state; (N, k, c) if each member of an ensemble has its own.
    sigma : float or array that broadcasts to y_obs
        Standard deviation of the observations (of their logarithms, with `log=True`).
    components : sequence of c ints, optional
        Which components of the state were observed; the first c by default.
    log : bool
        Compare log(u) with log(y_obs): the residuals of log-normal errors.

    Raises
    ------
    ValueError, TypeError
        For bad input.
    SolveError
        With `log=True`, if a state that is compared is not positive.
    """

    def __init__(self, t_obs: Any, y_obs: Any, *, sigma: Any = 1.0, components: Any = None, log: bool = False):
        self.t_obs = float_vector("t_obs", t_obs)
        y = np.asarray(y_obs)
        if y.dtype.kind not in "fiub":
            raise TypeError(f"y_obs must hold real numbers, but its dtype is {y.dtype}.")
        y = np.array(y[:, None] if y.ndim == 1 else y, dtype=float)
        if y.ndim not in (2, 3) or y.shape[-2] != self.t_obs.size:
            raise ValueError(
                f"y_obs must have one row for each of the {self.t_obs.size} times, but its shape is {np.shape(y_obs)}."
            )
        own_sigma = y.ndim == 3 and np.ndim(sigma) == 3 and len(sigma) == len(y)
        if y.ndim == 3:
            self.members, self.by_member = len(y), ("y_obs", "missing", *(("weights",) if own_sigma else ()))
        if np.isinf(y).any() or (log and (y <= 0).any()):
            raise ValueError(f"y_obs must be finite{' and positive (log=True)' if log else ''}, or NaN where data is missing.")
        try:
            scale = np.broadcast_to(np.asarray(sigma, dtype=float), np.shape(y_obs)).reshape(y.shape)
            if y.ndim == 3 and not own_sigma:
                scale = np.broadcast_to(np.asarray(sigma, dtype=float), y.shape[1:])
        except (ValueError, TypeError):
            raise ValueError(
                f"sigma must be a number or broadcast to the shape {np.shape(y_obs)} of y_obs, but its shape is {np.shape(sigma)}."
            ) from None
        if not (scale > 0).all():
            raise ValueError("sigma must be positive.")
        self.components = np.arange(y.shape[-1]) if components is None else np.asarray(components)
        if self.components.dtype.kind not in "iu" or self.components.shape != (y.shape[-1],):
            raise ValueError(
                f"components must be {y.shape[-1]} integers, one for each column of y_obs, but {components!r} was given."
            )
        if np.unique(self.components).size != self.components.size or (self.components < 0).any():
            raise ValueError(f"components must be different and not negative, but {components!r} was given.")
        self.missing = np.isnan(y)
        self.log = log
        self.y_obs = np.ascontiguousarray(np.log(y) if log else y)
        self.weights = np.ascontiguousarray(1.0 / scale)

    def prepare(self, n: int, T: float) -> PreparedLoss:
        self._require_one()
        self._require_size(n)
        return _PreparedLeastSquares(self, n, self.t_obs)

    def _require_size(self, n: int) -> None:
        if self.components.size and self.components.max() >= n:
            raise ValueError(f"components go up to {self.components.max()}, but the state has {n} components.")

    def value_and_cotangents(self, solution: Solution) -> tuple[float, dict[str, Any]]:
        n = solution.u.shape[1]
        self._require_one()
        self._require_size(n)
        u = solution(self.t_obs)[:, self.components]
        if self.log:
            self._require_positive(solution, u)
        compared = np.where(self.missing, 1.0, u)
        u_bars = np.zeros((self.t_obs.size, n))
        with np.errstate(over="ignore"):  # reported below
            residual = np.where(self.missing, 0.0, ((np.log(compared) if self.log else compared) - self.y_obs) * self.weights)
            u_bars[:, self.components] = residual * self.weights / (compared if self.log else 1.0)
            value = 0.5 * float(np.sum(residual**2))
        _require_finite_loss(value, u_bars, self.t_obs)
        return value, {"observations": (self.t_obs, u_bars)}

    def _require_positive(self, solution: Solution, u: np.ndarray) -> None:
        bad = ~(u > 0) & ~self.missing
        if not bad.any():
            return
        k, c = (int(i) for i in np.argwhere(bad)[0])
        raise SolveError(
            f"the loss compares logarithms, but u[{self.components[c]}] is {u[k, c]:.3g} at t = {self.t_obs[k]:g}.",
            phase="loss",
            status=Status.NON_FINITE,
            t=float(self.t_obs[k]),
            component=int(self.components[c]),
        )


class Series:
    """A sum over observation times of any function of the state there.

    Parameters
    ----------
    t_obs : (k,) array
        Observation times, in any order.
    value_and_cotangent : callable
        `value_and_cotangent(k, t, u, u_bar) -> float`, jitted or plain Python: returns what observation k adds to the loss and
        overwrites `u_bar` (n,) with its derivative by `u`. A jitted one runs in compiled code; a plain one costs a Python call for
        each observation.
    """

    def __init__(self, t_obs: Any, value_and_cotangent: Callable[[int, float, np.ndarray, np.ndarray], float]):
        self.t_obs = float_vector("t_obs", t_obs)
        count = count_arguments("value_and_cotangent", value_and_cotangent, "value_and_cotangent(k, t, u, u_bar) -> float")
        if count != 4:
            raise TypeError(
                f"value_and_cotangent takes {count} arguments, but it must be value_and_cotangent(k, t, u, u_bar) -> float."
            )
        self.value_and_cotangent = value_and_cotangent
        self._total = _total_of(value_and_cotangent)

    def prepare(self, n: int, T: float) -> PreparedLoss:
        if isinstance(self.value_and_cotangent, Dispatcher) and not DISABLED:
            return _PreparedJittedSeries(self, n, self.t_obs)
        return _PreparedSeries(self, n, self.t_obs)

    def value_and_cotangents(self, solution: Solution) -> tuple[float, dict[str, Any]]:
        states = solution(self.t_obs)
        u_bars = np.full_like(states, np.nan)  # an entry the callback forgets must not pass as zero
        value = float(self._total(self.t_obs, states, u_bars))
        _require_finite_loss(value, u_bars, self.t_obs)
        return value, {"observations": (self.t_obs, u_bars)}


def _total_of(value_and_cotangent: Callable) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    """The loop over all observations; compiled, on first use, where the callback is."""

    def total(times, states, u_bars):
        value = 0.0
        for k in range(times.size):
            value += value_and_cotangent(k, times[k], states[k], u_bars[k])
        return value

    return njit(total, error_model="numpy", nogil=True) if isinstance(value_and_cotangent, Dispatcher) else total


# --- losses made ready for many calls -----------------------------------------------------------------------------------


class PreparedLoss:
    """A loss with its buffers: reads the states at `times` from `observed` and overwrites `u_bars` with its derivatives.

    Attributes
    ----------
    times : (k,) array
        The observation times, sorted, each once.
    observed, u_bars : (k, n) arrays
    data : dict of slot -> str
        What it reads in the frame that may differ between members of an ensemble: attributes of the loss.
    ends_at_T : bool
        Whether the last of the times is T, whatever T is.
    """

    data: ClassVar[dict[int, str]] = {}
    ends_at_T: ClassVar[bool] = False

    def __init__(self, loss: Any, n: int, times: np.ndarray):
        self.loss = loss
        self.times, rows = self._order(times)
        self.rows = rows.astype(np.int64)
        self.u_bars = np.zeros((self.times.size, n))
        self.observed = np.zeros_like(self.u_bars)
        self.frame = Frame()
        self.frame[slots.ROWS], self.frame[slots.TIMES] = self.rows, np.ascontiguousarray(times)
        self.frame[slots.JUMPS] = self.u_bars
        self.frame[slots.U_BAR], self.frame[slots.VALUE] = np.zeros(n), np.zeros(1)
        self.value = self.frame[slots.VALUE]

    def _order(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The times of the rows, and the row for each of `times`."""
        distinct, rows = np.unique(times, return_inverse=True)
        return distinct, rows

    def observe(self, observed: np.ndarray) -> None:
        """Read states from here."""
        self.observed = self.frame[slots.OBSERVED] = observed

    def reverse(self) -> None:
        """For time that runs backwards."""
        self.times = self.times[::-1].copy()
        self.rows[:] = self.times.size - 1 - self.rows

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        """The compiled loss: `entry(frame.argument) -> status`, with the value in `value[0]`."""
        raise TypeError("a loss in plain Python cannot be called from compiled code: decorate its callback with @numba.njit.")

    def run(self) -> float:
        """The value; NaN if it or a cotangent is not finite."""
        return self.value[0] if self.entry(self.frame.argument) == SUCCESS else math.nan


class PreparedLinear(PreparedLoss):
    """`sum of weights[k] . u(times[k])`, weights (k, n); the times in rising order, T among them, where another may be."""

    data: ClassVar = {slots.DATA_WEIGHTS: "weights"}
    ends_at_T = True

    def __init__(self, loss: Any, n: int, times: np.ndarray, weights: np.ndarray):
        super().__init__(loss, n, times)
        self.frame[slots.DATA_WEIGHTS] = np.ascontiguousarray(weights)

    def _order(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return times, np.arange(times.size)

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return _linear_entry()


class _PreparedLeastSquares(PreparedLoss):
    data: ClassVar = {slots.DATA: "y_obs", slots.DATA_WEIGHTS: "weights"}

    def __init__(self, loss: LeastSquares, n: int, times: np.ndarray):
        super().__init__(loss, n, times)
        self.frame[slots.DATA], self.frame[slots.DATA_WEIGHTS] = loss.y_obs, loss.weights
        self.frame[slots.COMPONENTS] = loss.components.astype(np.int64)
        self.frame[slots.SETTING] = np.array([loss.log], dtype=np.int64)

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return _least_squares_entry()


class _PreparedSeries(PreparedLoss):
    def run(self) -> float:
        u_bar, total = self.frame[slots.U_BAR], 0.0
        self.u_bars[:] = 0.0
        for k, (row_k, t) in enumerate(zip(self.rows, self.loss.t_obs, strict=True)):
            u_bar[:] = np.nan
            total += float(self.loss.value_and_cotangent(k, t, self.observed[row_k].copy(), u_bar))
            self.u_bars[row_k] += u_bar
        return total if np.isfinite(self.u_bars).all() else math.nan


class _PreparedJittedSeries(PreparedLoss):
    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return _series_entry(self.loss.value_and_cotangent, fingerprint(self.loss.value_and_cotangent))


@kernel
def _finish(frame, total):
    """Write the value down; the status."""
    vector_at(frame, slots.VALUE)[0] = total
    jumps, finite = matrix_at(frame, slots.JUMPS), 0.0 * total
    for k in range(jumps.shape[0]):
        for i in range(jumps.shape[1]):
            finite += 0.0 * jumps[k, i]
    return SUCCESS if finite == 0.0 else NON_FINITE


@kernel
def _clear_jumps(frame):
    jumps = matrix_at(frame, slots.JUMPS)
    for k in range(jumps.shape[0]):
        for i in range(jumps.shape[1]):
            jumps[k, i] = 0.0


def _entry(run: Callable, name: str, key: str | None = "") -> Callable[[Any], int]:
    def run_at(address):
        return run(opened(address))

    return entry(run_at, (i8,), name, key)


@functools.cache
def make_linear() -> Callable:
    @kernel
    def linear(frame):
        weights, observed, total = matrix_at(frame, slots.DATA_WEIGHTS), matrix_at(frame, slots.OBSERVED), 0.0
        rows, jumps = integers_at(frame, slots.ROWS), matrix_at(frame, slots.JUMPS)
        for k in range(rows.size):
            for i in range(weights.shape[1]):
                total += weights[k, i] * observed[rows[k], i]
                jumps[rows[k], i] = weights[k, i]
        return _finish(frame, total)

    return linear


@functools.cache
def make_least_squares() -> Callable:
    @kernel
    def one(frame, k, c):
        """What entry c of observation k adds."""
        observed, jumps, at = matrix_at(frame, slots.OBSERVED), matrix_at(frame, slots.JUMPS), integers_at(frame, slots.ROWS)[k]
        datum, weight = matrix_at(frame, slots.DATA)[k, c], matrix_at(frame, slots.DATA_WEIGHTS)[k, c]
        if math.isnan(datum):  # missing
            return 0.0
        i = integers_at(frame, slots.COMPONENTS)[c]
        u, scale = observed[at, i], weight
        if integers_at(frame, slots.SETTING)[0] == 1:
            if not u > 0.0:
                return math.nan
            scale, u = weight / u, math.log(u)
        residual = (u - datum) * weight
        jumps[at, i] += residual * scale
        return residual * residual

    @kernel
    def least_squares(frame):
        total = 0.0
        _clear_jumps(frame)
        for k in range(integers_at(frame, slots.ROWS).size):
            for c in range(integers_at(frame, slots.COMPONENTS).size):
                total += one(frame, k, c)
        return _finish(frame, 0.5 * total)

    return least_squares


@functools.cache
def _linear_entry() -> Callable[[Any], int]:
    return _entry(make_linear(), "linear")


@functools.cache
def _least_squares_entry() -> Callable[[Any], int]:
    return _entry(make_least_squares(), "least_squares")


ENTRIES = (_linear_entry, _least_squares_entry)  # those that depend on no callback


def make_series(value_and_cotangent: Callable) -> Callable:
    @kernel
    def series(frame):
        times, observed, rows = vector_at(frame, slots.TIMES), matrix_at(frame, slots.OBSERVED), integers_at(frame, slots.ROWS)
        jumps, u_bar, total = matrix_at(frame, slots.JUMPS), vector_at(frame, slots.U_BAR), 0.0
        _clear_jumps(frame)
        for k in range(rows.size):
            for i in range(u_bar.size):
                u_bar[i] = math.nan  # an entry the callback forgets must not pass as zero
            total += value_and_cotangent(k, times[k], row(observed, rows[k]), u_bar)
            for i in range(u_bar.size):
                jumps[rows[k], i] += u_bar[i]
        return _finish(frame, total)

    return series


@functools.lru_cache(maxsize=64)
def _series_entry(value_and_cotangent: Callable, key: str | None) -> Callable[[Any], int]:
    @linked
    def guarded(k, t, u, u_bar):
        try:
            return float(value_and_cotangent(k, t, u, u_bar))
        except Exception:
            return math.nan

    return _entry(make_series(guarded), "series", key)
