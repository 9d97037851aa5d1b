"""`solve`: the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from adjode.api.first_calls import Part, forward_parts, try_ahead, try_at_start, try_behind, try_events
from adjode.api.solution import Solution, SolveStats
from adjode.api.steady import SteadyState, find_steady_state, is_steady
from adjode.checks import time_span, times_in_span
from adjode.compile import slots
from adjode.compile.slots import RECORD_DENSE, RECORD_STAGES
from adjode.linalg.structure import Structure
from adjode.model.doses import Doses
from adjode.model.dynamics import Dynamics
from adjode.model.events import Event
from adjode.model.inflows import with_inflows
from adjode.model.layout import Layout
from adjode.passes.forward import Forward, jumps_of, structure_for
from adjode.passes.options import SolveOptions
from adjode.passes.program import run_and_keep
from adjode.steppers.family import family_of


def solve(
    dynamics: Dynamics,
    u0: Any,
    theta: Any,
    t_span: tuple[float, float],
    *,
    method: str = SolveOptions.method,
    rtol: float = SolveOptions.rtol,
    atol: Any = SolveOptions.atol,
    t_eval: Any = None,
    first_step: float | None = SolveOptions.first_step,
    max_step: float = SolveOptions.max_step,
    max_steps: int = SolveOptions.max_steps,
    step: float | None = SolveOptions.step,
    max_seconds: float | None = SolveOptions.max_seconds,
    linear_solver: str = SolveOptions.linear_solver,
    stops: Any = SolveOptions.stops,
    memory: float | str | None = SolveOptions.memory,
    doses: Doses | Sequence[Doses] | None = SolveOptions.doses,
    events: Event | Callable | Sequence[Event | Callable] | None = SolveOptions.events,
) -> Solution:
    """Solve `du/dt = f(t, u, theta)`, or `M du/dt = f(t, u, theta)` if the dynamics have a mass matrix, from `u(t0) = u0` to T.

    Parameters
    ----------
    dynamics : Dynamics
    u0 : (n,) array, dict of named scalars or arrays, or structured scalar
        Initial state. With a singular mass matrix it must satisfy the algebraic equations; see `consistent_initial`.
    theta : (m,) array, dict or structured scalar
        Parameters; an empty sequence for none.
    t_span : (t0, T)
        Time may run backwards, T < t0.
    method : str
        "Tsit5", "RK45", "DOP853", "Vern7", "Vern9", "BS3" (or "RK23"); for stiff problems "Radau", "Kvaerno5", "TRBDF2", "Rodas5P".
        "auto" takes the steps of Tsit5, and those of Radau where the problem is stiff. "RK4", "Midpoint" and "Euler" take fixed
        steps and need `step`.
    rtol, atol : float; atol may be an (n,) array
        The local error is kept below atol + rtol |u|, as in `scipy.integrate.solve_ivp`. By default atol is 1e-9, or less for small
        states: at most 1e-3 rtol |u0|, unless that is zero (or zero up to rounding, compared with the largest |u0|). If a loss
        compares a state with data, as in `value_and_gradient`, it is also at most 1e-3 rtol times the smallest nonzero datum.
    t_eval : (k,) array, optional
        Times in the span at which `u_eval` is wanted.
    first_step, max_step : float
        The first step (chosen automatically by default) and the largest.
    max_steps : int
        Limit on the number of steps, accepted and rejected.
    step : float, optional
        Take steps of this size, without error control. The last one is shortened to meet T; for Kvaerno5, the last few. The
        tolerances then only determine how far the Newton iteration of a stiff method goes.
    max_seconds : float, optional
        Limit on the wall-clock time of the call, checked between steps.
    linear_solver : {"auto", "dense", "banded", "sparse"}
        How stiff methods solve their linear systems; "auto" chooses by the size and the pattern of the Jacobian.
    stops : (k,) array
        Times at which f may jump. A step ends at each of them, f is evaluated separately on either side, and both adjoints respect
        that. The state is continuous. Times outside the span are ignored. Breaks of the dynamics are stops, too.
    memory : int or str, optional
        A budget for the stored steps: bytes, or "512MB", "2 GiB". If the steps do not fit, the solution keeps snapshots from which
        it solves them again whenever it is called, `u` is accessed or it is pulled back. Times are always kept.
    doses : Doses or list of them, optional
        Amounts that enter states at known times, at once or over a while.
    events : Event, function or list of them, optional
        What happens where a guard passes through zero: the state is reset, the solution ends, or the time is just recorded.
        Functions are as in SciPy: `event(t, u)`, with attributes `terminal` and `direction`.

    Returns
    -------
    Solution
        With dense output.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, before anything is computed.
    SolveError
        If the solve cannot be completed.
    """
    if not isinstance(dynamics, Dynamics):
        raise TypeError(f"dynamics must be an adjode.Dynamics(f, vjp), but a {type(dynamics).__name__} was given.")
    layouts = dynamics.layouts(u0, theta)
    u, parameters = layouts[0].flatten("u0", u0), layouts[1].flatten("theta", theta)
    dynamics.require_order(*layouts, readers=None if doses or events else ())
    t0, T = time_span(t_span)
    evaluation_times = None if t_eval is None else times_in_span("t_eval", t_eval, t0, T)
    limits = method, rtol, atol, first_step, max_step, max_steps, step, max_seconds, linear_solver, stops, memory
    options = SolveOptions.of(dynamics, (t0, T), *limits, doses, events)
    dynamics.switches.warn(stacklevel=2)
    options.absolute_tolerances(u.size)
    parts = forward_parts(dynamics, options)
    try_before(dynamics, options.at(u), parts, (t0, T), u, parameters)
    structure = structure_for(options.tableau, dynamics, linear_solver, t0, u, parameters)
    steady = _steady_state(dynamics, options, u, parameters, t0) if is_steady(options, (t0, T)) else None
    start = u if steady is None else steady.u
    given = options if steady is None else replace(options, doses=steady.doses)
    solution = _solved(dynamics, given.at(start), structure, layouts, (t0, T), start, parameters)
    if solution.segments is None:
        try_behind(dynamics, parts, solution.trajectory.t[:-1], solution.trajectory.u[:-1], parameters)
    if steady is None and evaluation_times is None:
        return solution
    seen = None if evaluation_times is None else solution(evaluation_times)
    return replace(solution, steady=steady, t_eval=evaluation_times, u_eval=seen)


def _solved(
    dynamics: Dynamics,
    options: SolveOptions,
    structure: Structure | None,
    layouts: tuple[Layout, Layout],
    t_span: tuple[float, float],
    u: np.ndarray,
    theta: np.ndarray,
) -> Solution:
    """The solution from a flat initial state."""
    record = RECORD_DENSE + (RECORD_STAGES if family_of(options.tableau).records_stages else 0)
    jumps = jumps_of(dynamics, options, u.size, theta.size, t_span)
    extended, theta_T = with_inflows(dynamics, jumps.inflows, theta.size), jumps.extended(theta)
    forward = Forward(extended, options, structure, u, theta_T, t_span, record=record, lasting=True, jumps=jumps)
    trajectory, segments = run_and_keep(forward, layouts[0])
    return Solution(
        dynamics=dynamics,
        theta=theta,
        trajectory=trajectory,
        span=forward.span,
        stats=_stats(forward),
        options=options,
        structure=structure,
        layouts=layouts,
        segments=segments,
        u0=u,
        jumps=jumps,
        extended=extended,
        theta_T=theta_T if segments is None else theta_T.copy(),  # steps that are solved again change it
        ended=int(forward.count[slots.ENDED]),
    )


def try_before(
    dynamics: Dynamics, options: SolveOptions, parts: list[Part], t_span: tuple[float, float], u: np.ndarray, theta: np.ndarray
) -> None:
    """Notice slips of callbacks before a first solve from here; see `first_calls`."""
    try_at_start(dynamics, parts, t_span[0], u, theta)
    try_events(dynamics, options, t_span[0], u, theta)
    try_ahead(dynamics, parts, t_span, u, theta, lambda checked: solve(checked, u, theta, t_span, **options.given))


def _steady_state(dynamics: Dynamics, options: SolveOptions, u: np.ndarray, theta: np.ndarray, t0: float) -> SteadyState:
    """Where doses that have always been given make a solve start."""

    def solve_period(start: np.ndarray, t_span: tuple[float, float], of_period: SolveOptions) -> Solution:
        return solve(dynamics, start, theta, t_span, **of_period.given)

    return find_steady_state(solve_period, options, u, theta, t0, dynamics.parameters)


def _stats(forward: Forward) -> SolveStats:
    steps = forward.steps - forward.crossings
    return SolveStats(forward.derivatives, steps, forward.rejected, *forward.implicit_work, forward.switches)
