"""The state at which a regimen that has always been given repeats itself, and its derivatives.

One period leads from u to P(u, theta), and the state is that with P(u, theta) = u. Newton's method finds it, with dP/du from
pullbacks over one period. A cotangent u_bar of it is `P_theta^T (I - P_u^T)^-1 u_bar` of theta, by the implicit function theorem.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adjode.model.doses import Doses
from adjode.model.fields import Fields, entry_of
from adjode.passes.options import SolveOptions
from adjode.status import NEWTON_FAILED, SolveError, Status
from adjode.steppers.family import family_of

_MOST = 30  # iterations
_PART = 0.1  # of the tolerances, for the last correction
_SINGULAR = 1e-12  # of I - P_u


@dataclass(frozen=True, eq=False)
class SteadyState:
    """
    Attributes
    ----------
    u : (n,) array
        The state at t0, before what is given there.
    period : Solution
        Over one period from there.
    P_u : (n, n) array
        The derivative of its end by its start.
    adjoint : str
        How to pull back along it.
    """

    u: np.ndarray
    period: Any
    P_u: np.ndarray
    adjoint: str

    def pull_back(self, u_bar: np.ndarray) -> np.ndarray:
        """The cotangent of theta that a cotangent of the state is."""
        mu = np.linalg.solve(np.eye(u_bar.size) - self.P_u.T, u_bar)
        return np.asarray(self.period.pullback(mu, wrt=("theta",), adjoint=self.adjoint).theta)

    def push_forward(self, theta_dots: np.ndarray) -> np.ndarray:
        """The tangents (k, n) of the state that tangents (k, m) of theta make: `(I - P_u)^-1 P_theta theta_dot`."""
        moved = self.period.pushforward(None, theta_dots.T).u_T
        return np.ascontiguousarray(np.linalg.solve(np.eye(self.u.size) - self.P_u, moved).T)


def is_steady(options: SolveOptions) -> bool:
    """Whether a solve starts in the steady state of its doses.

    Raises
    ------
    ValueError
        If not all doses go together in that.
    """
    steady = [one.steady_state for one in options.doses]
    if not any(steady):
        return False
    if not all(steady) or len({one.every for one in options.doses}) > 1:
        raise ValueError("doses in steady state go together: give steady_state=True and the same every= to all of them.")
    if options.events:
        raise ValueError("doses in steady state and events do not go together: leave one of them out.")
    return True


def find_steady_state(
    solve: Callable[..., Any], options: SolveOptions, guess: np.ndarray, theta: np.ndarray, t0: float, parameters: Fields | None
) -> SteadyState:
    """The state in which a solve from t0 starts; `solve(u, t_span, options)` solves.

    Raises
    ------
    ValueError
        If a dose does not end within a period.
    SolveError
        If there is no such state, or Newton's method does not find it.
    """
    every = options.doses[0].every
    assert every is not None
    once = tuple(_in_one_period(one, theta, t0, parameters) for one in options.doses)
    options, u = replace(options, doses=once), guess
    adjoint = "discrete" if family_of(options.tableau).transposable else "interpolating"
    for _ in range(_MOST):
        period = solve(u, (t0, t0 + every), options)
        unit = np.eye(u.size)
        P_u = np.array([period.pullback(unit[i], wrt=("u0",), adjoint=adjoint).u0 for i in range(u.size)]).reshape(u.size, u.size)
        residual, matrix = period.u[-1] - u, unit - P_u
        if not np.linalg.cond(matrix) < 1.0 / _SINGULAR:
            raise _failure(t0, "a period does not tell its states apart: something is conserved, so u0 says how much there is")
        step = np.linalg.solve(matrix, residual)
        u = u + step
        scale = options.absolute_tolerances(u.size) + (options.rtol or 1e-8) * np.abs(u)
        if np.all(np.abs(step) <= _PART * scale):
            return SteadyState(u, period, P_u, adjoint)
    raise _failure(t0, f"Newton's method has not found it in {_MOST} iterations: give a u0 that is closer")


def _failure(t0: float, why: str) -> SolveError:
    message = f"there is no steady state of the doses: {why}."
    return SolveError(message, phase="forward", status=Status(NEWTON_FAILED), t=t0)


def _in_one_period(doses: Doses, theta: np.ndarray, t0: float, parameters: Fields | None) -> Doses:
    """What is given within one period from t0."""

    def value(given: Any, what: str) -> float:
        return float(theta[entry_of(given, f"{what} of doses", parameters, theta.size)]) if isinstance(given, str) else given

    quantities, every = doses.quantities, doses.every
    assert every is not None
    lags = [value(lag, "lag") for lag in quantities.get("lag", [0.0] * doses.count)]
    durations = [value(one, "duration") for one in quantities.get("duration", [0.0] * doses.count)]
    times = []
    for time, lag, duration in zip(quantities["times"], lags, durations, strict=True):
        times.append(time + math.ceil((t0 - time - lag) / every - 1e-12) * every)
        if times[-1] + lag + duration > (t0 + every) * (1.0 + 1e-14):
            raise ValueError(
                f"a dose that lasts from {times[-1] + lag:g} to {times[-1] + lag + duration:g} goes on beyond the first period, "
                f"which ends at {t0 + every:g}: start the span when a dose begins, and let it end within a period."
            )
    given: dict[str, Any] = {name: quantities.get(name) for name in ("lag", "fraction", "duration")}
    return Doses(times, quantities["amounts"], doses.into, **given)
