"""Losses: scalar functions of a trajectory that know their own cotangents.

A loss is any object with `value_and_cotangents(solution) -> (value, seeds)`, where `seeds` are keyword arguments of
`Solution.pullback`: `u_T_bar` or `observations`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher

from adjode.callbacks import count_arguments
from adjode.options import float_vector
from adjode.solution import Solution
from adjode.status import SolveError, Status


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


class FinalState:
    """`weights . u(T)`.

    Parameters
    ----------
    weights : (n,) array
    """

    def __init__(self, weights: Any):
        self.weights = float_vector("weights", weights)

    def value_and_cotangents(self, solution: Solution) -> tuple[float, dict[str, Any]]:
        u_T = solution.u[-1]
        if self.weights.size != u_T.size:
            raise ValueError(f"weights must have one entry for each of the {u_T.size} states, but it has {self.weights.size}.")
        return float(self.weights @ u_T), {"u_T_bar": self.weights}


class LeastSquares:
    """`0.5 sum(((u(t_obs) - y_obs) / sigma)**2)`, of logarithms if asked; NaN in `y_obs` is missing data and left out.

    Parameters
    ----------
    t_obs : (k,) array
        Observation times, in any order.
    y_obs : (k, c) array, or (k,) for one component
        Observations of c components of the state.
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
        if y.ndim != 2 or len(y) != self.t_obs.size:
            raise ValueError(
                f"y_obs must have one row for each of the {self.t_obs.size} times, but its shape is {np.shape(y_obs)}."
            )
        if np.isinf(y).any() or (log and (y <= 0).any()):
            raise ValueError(f"y_obs must be finite{' and positive (log=True)' if log else ''}, or NaN where data is missing.")
        try:
            scale = np.broadcast_to(np.asarray(sigma, dtype=float), np.shape(y_obs)).reshape(y.shape)
        except (ValueError, TypeError):
            raise ValueError(
                f"sigma must be a number or broadcast to the shape {np.shape(y_obs)} of y_obs, but its shape is {np.shape(sigma)}."
            ) from None
        if not (scale > 0).all():
            raise ValueError("sigma must be positive.")
        self.components = np.arange(y.shape[1]) if components is None else np.asarray(components)
        if self.components.dtype.kind not in "iu" or self.components.shape != (y.shape[1],):
            raise ValueError(
                f"components must be {y.shape[1]} integers, one for each column of y_obs, but {components!r} was given."
            )
        if np.unique(self.components).size != self.components.size or (self.components < 0).any():
            raise ValueError(f"components must be different and not negative, but {components!r} was given.")
        self.missing = np.isnan(y)
        self.log = log
        self.y_obs = np.log(y) if log else y
        self.weights = 1.0 / np.array(scale)

    def value_and_cotangents(self, solution: Solution) -> tuple[float, dict[str, Any]]:
        n = solution.u.shape[1]
        if self.components.size and self.components.max() >= n:
            raise ValueError(f"components go up to {self.components.max()}, but the state has {n} components.")
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
        overwrites `u_bar` (n,) with its derivative by `u`. A jitted one is called from compiled code, which pays for thousands of
        observations.
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
