"""The state at which a regimen that has always been given repeats itself, and its derivatives.

One period leads from u to P(u, theta), and the state is that with P(u, theta) = u. Newton's method finds it, with dP/du from
pullbacks over one period. A cotangent u_bar of it is `P_theta^T (I - P_u^T)^-1 u_bar` of theta, by the implicit function theorem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adjode.model.doses import Doses
from adjode.model.fields import Fields, entry_of
from adjode.passes.options import SolveOptions
from adjode.status import NEWTON_FAILED, SUCCESS, SolveError, Status
from adjode.steppers.family import family_of

_MOST = 30  # iterations
_PART = 0.1  # of the tolerances, for the last correction
_SINGULAR = 1e-12  # of I - P_u
_ROUNDING = 1e-14  # of times


@dataclass(frozen=True, eq=False)
class SteadyState:
    """
    Attributes
    ----------
    u : (n,) array
        The state at t0, before what is given there.
    doses : tuple of Doses
        What is given from t0 on.
    period : Solution
        Over one period from there.
    P_u : (n, n) array
        The derivative of its end by its start.
    adjoint : str
        How to pull back along it.
    """

    u: np.ndarray
    doses: tuple[Doses, ...]
    period: Any
    P_u: np.ndarray
    adjoint: str

    def pull_back(self, u_bar: np.ndarray) -> np.ndarray:
        """The cotangent of theta that a cotangent of the state is."""
        return np.asarray(self.period.pullback(self._seed(u_bar), wrt=("theta",), adjoint=self.adjoint).theta)

    def pull_back_to_t0(self, u_bar: np.ndarray) -> float:
        """The cotangent of t0, with which the period moves, at both of its ends."""
        bar = self.period.pullback(self._seed(u_bar), wrt=("t0", "T"), adjoint=self.adjoint)
        return float(bar.t0 + bar.T)

    def _seed(self, u_bar: np.ndarray) -> np.ndarray:
        return seeds_of_period(self.P_u[None], u_bar[None])[0]

    def push_forward(self, theta_dots: np.ndarray, t0_dot: np.ndarray | None) -> np.ndarray:
        """The tangents (k, n) of the state that tangents (k, m) of theta and (k,) of t0 make: `(I - P_u)^-1 P_theta theta_dot`."""
        rate = None if t0_dot is None else np.atleast_1d(t0_dot)
        moved = self.period.pushforward(None, theta_dots.T, t0_dot=rate, T_dot=rate).u_T
        return np.ascontiguousarray(np.linalg.solve(np.eye(self.u.size) - self.P_u, moved).T)


def is_steady(options: SolveOptions, t_span: tuple[float, float]) -> bool:
    """Whether a solve starts in the steady state of its doses.

    Raises
    ------
    ValueError
        If not all doses go together in that, or time runs backwards.
    """
    steady = [one.steady_state for one in options.doses]
    if not any(steady):
        return False
    if not all(steady) or len({one.every for one in options.doses}) > 1:
        raise ValueError("if one dose is in steady state, all must be: give steady_state=True and the same every= to all of them.")
    if options.events:
        raise ValueError("doses in steady state cannot be combined with events: leave one of them out.")
    if t_span[1] < t_span[0]:
        raise ValueError("doses in steady state need time to run forwards: give a t_span with t0 < T.")
    return True


def period_adjoint(options: SolveOptions) -> str:
    """The adjoint that pulls back over a period."""
    return "discrete" if family_of(options.tableau).transposable else "interpolating"


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
    periods, times = zip(*(first_period(one, theta[None], np.array([t0]), parameters) for one in options.doses), strict=True)
    for begin, end in (pair for pairs in times for pair in pairs[0]):
        if goes_on(np.array([t0 + every]), end)[0]:
            raise ValueError(
                f"a dose that lasts from {begin:g} to {end:g} goes on beyond the first period, which ends at {t0 + every:g}: start "
                f"the span when a dose begins, and let it end within a period."
            )
    pairs = list(zip(options.doses, (tuple(k[0]) for k in periods), strict=True))
    in_period = replace(options, doses=tuple(one.moved(k, repeated=False) for one, k in pairs))
    latest: list[Any] = []
    adjoint = period_adjoint(options)

    def over_period(u: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        latest[:] = [solve(u[0], (t0, t0 + every), in_period)]
        rows = [latest[0].pullback(seed, wrt=("u0",), adjoint=adjoint).u0 for seed in np.eye(guess.size)]
        return latest[0].u[-1][None], np.array(rows).reshape(1, guess.size, guess.size), np.zeros(1, dtype=np.int64)

    found = find_fixed_points(over_period, guess[None], lambda u, _: options.step_allowed(u))
    if found.singular[0]:
        raise _failure(t0, "some quantity is conserved over a period, so the state depends on how much of it u0 has")
    if found.status[0] != SUCCESS:
        raise _failure(t0, f"Newton's method has not found it in {_MOST} iterations: give a u0 that is closer")
    return SteadyState(found.u[0], tuple(one.moved(k) for one, k in pairs), latest[0], found.P_u[0], adjoint)


def _failure(t0: float, why: str) -> SolveError:
    message = f"there is no steady state of the doses: {why}."
    return SolveError(message, phase="forward", status=Status(NEWTON_FAILED), t=t0)


@dataclass(frozen=True, eq=False)
class FixedPoints:
    """The u with P(u) = u of each of N members.

    Attributes
    ----------
    u : (N, n) array
        NaN where there is none.
    before : (N, n) array
        The same before the last correction, where `P_u` (N, n, n) was taken.
    status : (N,) array of int
    singular : (N,) array of bool
        Whether that was because P leaves something as it is.
    """

    u: np.ndarray
    before: np.ndarray
    P_u: np.ndarray
    status: np.ndarray
    singular: np.ndarray


def find_fixed_points(over_period: Callable[..., Any], guess: np.ndarray, allowed: Callable[..., np.ndarray]) -> FixedPoints:
    """By Newton's method, from guesses (N, n) of which those that are not finite have none.

    `over_period(u, members)` gives P(u) (k, n), its derivative (k, n, n) and statuses (k,) for k members that are not done yet, and
    `allowed(u, members)` what tolerances allow.
    """
    N, n = guess.shape
    found = FixedPoints(
        guess.copy(), guess.copy(), np.zeros((N, n, n)), np.full(N, NEWTON_FAILED, dtype=np.int64), np.zeros(N, dtype=bool)
    )
    members = np.flatnonzero(np.isfinite(guess).all(axis=1))
    for _ in range(_MOST):
        if not members.size:
            break
        u = found.u[members]
        ends, P_u, status = over_period(u, members)
        found.before[members], found.P_u[members], found.status[members] = u, P_u, np.where(status, status, NEWTON_FAILED)
        well = status == SUCCESS
        members, matrix, residual = members[well], np.eye(n) - P_u[well], (ends - u)[well]
        told = np.linalg.cond(matrix) < 1.0 / _SINGULAR if members.size else np.zeros(0, dtype=bool)
        found.singular[members[~told]] = True
        members = members[told]
        step = np.linalg.solve(matrix[told], residual[told][..., None])[..., 0]
        found.u[members] += step
        done = (np.abs(step) <= _PART * allowed(found.u[members], members)).all(axis=1)
        found.status[members[done]] = SUCCESS
        members = members[~done]
    found.u[found.status != SUCCESS] = np.nan
    return found


def seeds_of_period(P_u: np.ndarray, u_bar: np.ndarray) -> np.ndarray:
    """The cotangents (N, n) of the ends of periods that cotangents of fixed points are: `(I - P_u^T)^-1 u_bar`."""
    return np.linalg.solve(np.eye(u_bar.shape[1]) - P_u.swapaxes(1, 2), u_bar[..., None])[..., 0]


def first_period(doses: Doses, theta: np.ndarray, t0: np.ndarray, parameters: Fields | None) -> tuple[np.ndarray, np.ndarray]:
    """For each of N members, with theta (N, m) and t0 (N,), and each of k doses: how many periods later than its time it is given
    for the first time from t0 on, (N, k) whole numbers; and when that begins and ends, (N, k, 2)."""

    def values(name: str) -> np.ndarray:
        given, shape = doses.quantities.get(name, [0.0] * doses.count), (max(len(theta), t0.size), doses.count)
        made = np.zeros(shape)
        for i, one in enumerate(given):
            made[:, i] = theta[:, entry_of(one, f"{name} of doses", parameters, theta.shape[1])] if isinstance(one, str) else one
        return made

    every = doses.every
    assert every is not None
    enters = values("times") + values("lag")
    periods = np.ceil((t0[:, None] - enters) / every - 1e-12)
    begin = enters + periods * every
    whole = np.where(np.isfinite(periods), periods, 0.0).astype(np.int64)
    return whole, np.stack([begin, begin + values("duration")], axis=-1)


def goes_on(period_end: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Whether a dose goes on behind the end of the first period."""
    return ~(end <= period_end + _ROUNDING * np.abs(period_end))
