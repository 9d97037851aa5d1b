"""How fast a solution changes along cotangents, u_bar . du/dt: the cotangents of times."""

from __future__ import annotations

import numpy as np

from adjode.api.solved import Solved
from adjode.compile import slots
from adjode.passes.rates import implicit_rates
from adjode.passes.result import PullbackStats
from adjode.passes.trajectory import slopes, step_before
from adjode.status import CALLBACK_RAISED, NON_FINITE, solve_error


def rates_observed(
    solution: Solved, elapsed: np.ndarray, states: np.ndarray, u_bars: np.ndarray, stats: PullbackStats
) -> np.ndarray:
    """`rates_along` with the inflows that there have been at these times."""
    out = np.zeros(elapsed.size)
    for theta, at in solution.by_inflows(elapsed):
        out[at] = rates_along(solution, theta, elapsed[at], states[at], u_bars[at], stats)
    return out


def rates_along(
    solution: Solved, theta: np.ndarray, elapsed: np.ndarray, states: np.ndarray, u_bars: np.ndarray, stats: PullbackStats
) -> np.ndarray:
    """u_bar . du/dt (k,) at `elapsed` (k,) since the start, where the `states` are, along `u_bars` (k, n); `stats` counts the work.

    By f or, behind the start of an implicit step, by what that knows better. `theta` has the inflows of doses at these times.

    Raises
    ------
    SolveError
        If a callback raises, or what it returns is not finite.
    """
    t = (solution.segments or solution.trajectory).t
    out, step, wanted = np.zeros(elapsed.size), step_before(t, elapsed), u_bars.any(axis=1)
    implicit = wanted & _is_implicit(solution, step) & (elapsed != t[0])
    by_f = wanted & ~implicit
    out[by_f] = _along_f(solution, theta, solution.span.time(elapsed[by_f]), states[by_f], u_bars[by_f], stats)
    if not implicit.any():
        return out
    elapsed, states, u_bars, step = elapsed[implicit], states[implicit], u_bars[implicit], step[implicit]
    assert solution.structure is not None
    step = _regular(solution, step)
    problem, sizes = (solution.problem[0], solution.structure, solution.span, theta), np.diff(t)[step]
    places = elapsed, sizes, (elapsed - t[step]) / sizes, states, _derivatives(solution, elapsed, t[step + 1]), u_bars
    out[implicit] = implicit_rates(*problem, *places, stats)
    return out


def _regular(solution: Solved, step: np.ndarray) -> np.ndarray:
    """These steps, or those before where a step lands with a stage that should be behind its end: its slopes are not those of u."""
    if solution.options.tableau.reach == 1.0:
        return step
    mesh = solution.segments or solution.trajectory
    crossing = np.arange(mesh.t.size) == mesh.t.size - 1
    crossing[: mesh.kinds.size] = mesh.kinds >= slots.CROSSING
    return np.where(crossing[step + 1] & (step > 0) & ~crossing[step - 1], step - 1, step)


def _derivatives(solution: Solved, elapsed: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """First and second ones (k, 2 n) of the dense output at `elapsed`, or from the `ends` of steps on to there."""
    known = np.where(abs(elapsed) < abs(ends), elapsed, ends)
    out = solution.dense.derivatives(known)
    first, second = np.hsplit(out, 2)
    first += (elapsed - known)[:, None] * second
    return out


def _is_implicit(solution: Solved, step: np.ndarray) -> np.ndarray:
    """Whether each of these steps is one of an implicit method."""
    method, kinds = solution.options.tableau, solution.kinds
    if not method.implicit or not kinds.size:
        return np.full(step.size, method.implicit)
    return kinds[step] == slots.IMPLICIT_STEP if method.partner is not None else kinds[step] < slots.CROSSING


def _along_f(
    solution: Solved, theta: np.ndarray, times: np.ndarray, states: np.ndarray, u_bars: np.ndarray, stats: PullbackStats
) -> np.ndarray:
    """The same by f alone: u_bar . f(t, u, theta) or, with a mass matrix, M^-T u_bar . f."""
    dynamics, out = solution.problem[0], np.empty_like(states)
    failed = slopes(dynamics.f.handle, theta, times, np.ascontiguousarray(states), out)
    stats.n_f += times.size
    mass = dynamics.mass
    rates = np.einsum("kn,kn->k", u_bars if mass is None else mass.solve_transposed(u_bars), out)
    if failed >= 0:
        cause = dynamics.f.reproduce_error(times[failed], *dynamics.f.arguments({"u": states[failed], "theta": theta}))
        raise solve_error(CALLBACK_RAISED, phase="adjoint", t=times[failed], callback="f", cause=cause)
    if not np.isfinite(rates).all():
        raise solve_error(NON_FINITE, phase="adjoint", t=times[~np.isfinite(rates)][0], callback="f")
    return rates
