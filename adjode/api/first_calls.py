"""Trial calls of a problem's callbacks, once for each pair of sizes: where a solve starts, ahead of it, and along the first one.

What is noticed where a solve starts, or on its way, is an error. Ahead of it only rough states are known, at which even a right
callback may leave a table of its own. So there the verdict is left to a solve that checks the bounds of every access.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.compile.adapters import CHANGED
from adjode.derivatives.proof import is_proven, require_derived, require_derived_rule
from adjode.jacobian import source_of
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.events import Guards, guards_of
from adjode.model.trial import PLACES, SMALL, Slip, Trial, walk
from adjode.passes.options import SolveOptions
from adjode.status import SolveError, describe_error


@dataclass(frozen=True, eq=False)
class Part:
    """A callback, which of its outputs nobody reads, and what it is the derivative of."""

    callback: Callback
    ignored: tuple[str, ...] = ()
    of: Callback | None = None


_NO_THETA = ("theta_bar",)


def forward_parts(dynamics: Dynamics, options: SolveOptions) -> list[Part]:
    """What a forward solve calls."""
    return [Part(dynamics.f), *([Part(source_of(dynamics), _NO_THETA)] if options.tableau.implicit else [])]


def backward_parts(dynamics: Dynamics, *, wants_theta: bool) -> list[Part]:
    """What a backward pass calls besides."""
    vjp_u = [] if dynamics.vjp_u is None else [Part(dynamics.vjp_u)]
    return [Part(dynamics.vjp, () if wants_theta else _NO_THETA, dynamics.f), *vjp_u]


def cost_parts(cost: tuple[Callback, Callback], *, wants_theta: bool) -> list[Part]:
    """What a running cost calls."""
    g, g_vjp = cost
    return [Part(g), Part(g_vjp, () if wants_theta else _NO_THETA, g)]


def try_at_start(
    dynamics: Dynamics, parts: Sequence[Part], t: float, u: np.ndarray, theta: np.ndarray, *, compiled: bool = True
) -> None:
    """Raise a ValueError if something is wrong with a call here; `compiled` says whether kernels of the CPU make such calls."""
    if dynamics.mass is not None:
        dynamics.mass.require_size(u.size)
    untried = _untried("start", dynamics, parts, u.size, theta.size, compiled)
    if untried and _are_finite(u, theta):
        for trial in _begin(untried):
            _require_none(trial, t, trial.slip(t, u, theta))


def try_ahead(
    dynamics: Dynamics,
    parts: Sequence[Part],
    t_span: tuple[float, float],
    u: np.ndarray,
    theta: np.ndarray,
    solve_checked: Callable[[Dynamics], Any],
) -> None:
    """The same along the span, for callbacks that read or write where they must not: compiled code would spoil what lies there.

    `solve_checked` solves the problem with other dynamics.
    """
    untried = _untried("ahead", dynamics, parts, u.size, theta.size)
    if not untried or dynamics.debug or not _are_finite(u, theta):
        return
    trials = _begin(untried)
    f = Trial(dynamics.f, compiled=_by_handle(dynamics, dynamics.f, u.size + theta.size))
    for t, v in walk(f, *t_span, u, theta):
        slips = [trial.slip(t, v, theta, wholly=False) for trial in trials]
        if any(slip is not None and slip.trespasses for slip in slips):
            return _judge(dynamics, trials, theta, solve_checked)
        if any(trial.is_late for trial in trials):
            return None
    return None


def try_behind(
    dynamics: Dynamics,
    parts: Sequence[Part],
    times: np.ndarray,
    states: np.ndarray,
    theta: np.ndarray,
    guards: Guards | None = None,
) -> None:
    """Raise a ValueError if something is wrong with calls along a trajectory: times (k,), states (k, n), the end left out.

    Not every method calls a callback there. What has been derived, from guards and resets too, is held against differences.
    """
    _try_along(_begin(_untried("behind", dynamics, parts, states.shape[1], theta.size)), times, states, theta)
    if _has_derived(dynamics, parts):
        require_derived(dynamics, times, states, theta)
    for what, callback, rule in [] if guards is None else guards.derived:
        require_derived_rule(what, (callback, rule), times, states, theta)


def try_events(dynamics: Dynamics, options: SolveOptions, t: float, u: np.ndarray, theta: np.ndarray) -> None:
    """Raise a ValueError if something is wrong with a call of a guard or a reset here."""
    if options.events:
        guards = guards_of(options.events, dynamics.fields, dynamics.debug)
        sizes = u.size, theta.size
        if sizes not in guards.tried and _are_finite(u, theta):
            try_at_start(dynamics, [Part(callback) for callback in guards.callbacks], t, u, theta)
            guards.tried.add(sizes)


def prove_ahead(
    dynamics: Dynamics,
    parts: Sequence[Part],
    t_span: tuple[float, float],
    u: np.ndarray,
    theta: np.ndarray,
    *,
    compiled: bool = True,
) -> None:
    """Hold what has been derived against f where no trajectory will be seen: at rough states ahead."""
    if not _has_derived(dynamics, parts) or is_proven(dynamics, u.size, theta.size):
        return
    f = Trial(dynamics.f, compiled=compiled and _by_handle(dynamics, dynamics.f, u.size + theta.size))
    places = list(walk(f, *t_span, u, theta))
    if places:
        times, states = zip(*places, strict=True)
        require_derived(dynamics, np.array(times), np.array(states), theta)


def _has_derived(dynamics: Dynamics, parts: Sequence[Part]) -> bool:
    """Whether what has been derived from f is among what is called."""
    return any(part.callback.name in dynamics.derived for part in parts)


def _are_finite(u: np.ndarray, theta: np.ndarray) -> bool:
    """Else it is a failure of one trajectory, of which an ensemble may have others."""
    return bool(np.isfinite(u).all() and np.isfinite(theta).all())


_Untried = list[tuple[Part, bool, tuple]]  # with whether the compiled function is to be tried, and what it is known by then


def _untried(stage: str, dynamics: Dynamics, parts: Sequence[Part], n: int, m: int, compiled: bool = True) -> _Untried:
    """The trials that have not been made; in most calls there are none."""
    untried = []
    for part in parts:
        by_handle = compiled and _by_handle(dynamics, part.callback, n + m)
        key = stage, n, m, part.ignored, by_handle
        if key not in part.callback.tried and not (part.callback.is_slow and stage != "start"):
            untried.append((part, by_handle, key))
    return untried


def _begin(untried: _Untried) -> list[Trial]:
    trials = []
    for part, by_handle, key in untried:
        trials.append(Trial(part.callback, compiled=by_handle, ignored=part.ignored, of=part.of))
        part.callback.tried.add(key)
    return trials


def _by_handle(dynamics: Dynamics, callback: Callback, size: int) -> bool:
    """Whether its compiled function is tried: fused kernels need none, but plain Python is slow where arrays are long."""
    return size > SMALL or not (callback.kind.of_dynamics and dynamics.calls.fused)


def _try_along(trials: Sequence[Trial], times: np.ndarray, states: np.ndarray, theta: np.ndarray) -> None:
    if not trials or not times.size:
        return
    for k in np.unique(np.linspace(0, times.size - 1, PLACES).round().astype(int)):
        if np.isfinite(states[k]).all():
            for trial in trials:
                _require_none(trial, float(times[k]), trial.slip(float(times[k]), states[k].copy(), theta))


def _require_none(trial: Trial, t: float, slip: Slip | None) -> None:
    if slip is not None:
        trial.callback.tried.clear()
        raise ValueError(f"{trial.callback.name} {slip.text} (seen at t = {t:g}).")


def _judge(dynamics: Dynamics, trials: Sequence[Trial], theta: np.ndarray, solve_checked: Callable[[Dynamics], Any]) -> None:
    try:
        solution = solve_checked(dynamics.checked())
    except SolveError as error:
        cause = error.__cause__
        if not isinstance(cause, Exception) or not (isinstance(cause, IndexError) or str(cause) == CHANGED):
            return  # the solve itself will say what is wrong
        for trial in trials:
            trial.callback.tried.clear()
        if str(cause) == CHANGED:
            raise ValueError(f"a callback changes one of its inputs at t = {error.t:g}: it must not change them.") from cause
        raise ValueError(
            f"a callback indexes an array out of bounds at t = {error.t:g} ({describe_error(cause)}): check the lengths of u0 and "
            "theta, and of arrays that it captures."
        ) from cause
    _try_along(trials, solution.t[:-1], solution.u[:-1], theta)
