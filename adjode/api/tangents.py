"""`pushforward`: tangents of u0 and theta along a solved trajectory, for many directions at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.api.event_times import before_jumps, check_side
from adjode.api.first_calls import Part, try_at_start, try_behind
from adjode.api.rates import rates_along
from adjode.api.refined import run_refined
from adjode.api.solved import Solved, state_at_step
from adjode.checks import choose, positive, require_finite, require_unmasked, times_in_span
from adjode.compile import slots
from adjode.derivatives.proof import require_jvp, require_jvps
from adjode.model.inflows import with_inflows
from adjode.model.layout import Layout
from adjode.passes.discrete import Discrete, jumps_at_start, observed_after_t0
from adjode.passes.program import Program
from adjode.passes.result import PullbackStats, TangentOutput, Tangents
from adjode.passes.rows import probe
from adjode.passes.tangents import TangentPass
from adjode.passes.trajectory import DenseOutput, Trajectory, beside_stops
from adjode.status import REFINE, SUCCESS


def pushforward(
    solution: Solved,
    u0_dot: Any = None,
    theta_dot: Any = None,
    times: Any = None,
    *,
    side: str = "right",
    t0_dot: Any = None,
    T_dot: Any = None,
    dense: bool = False,
    max_seconds: float | None = None,
    on_inaccurate: str = "refine",
) -> Tangents:
    """Push tangents of u0 and theta forward to the states: the exact derivatives of the steps that were taken.

    Parameters
    ----------
    solution : Solution
    u0_dot : (n,) array, dict or structured scalar, or (n, k) array, optional
        The direction in which u0 changes, or k directions in columns; zero by default.
    theta_dot : (m,) array, dict or structured scalar, or (m, k) array, optional
        The direction in which theta changes, with as many columns.
    times : (c,) array, optional
        Times in the span, in any order, at which derivatives of the states are wanted as well.
    side : {"right", "left"}
        Whether a derivative where the state jumps is the one after the jump, in the order of integration, or the one before it.
    t0_dot, T_dot : float, or (k,) array, optional
        How t0 and T change, in each direction; `times` are held fixed meanwhile.
    dense : bool
        Whether to keep the derivatives at all times of the span, which are then in `Tangents.dense`: (1 + degree) n k numbers for
        each step, with the degree of the method's dense output.
    max_seconds : float, optional
        Limit on the wall-clock time; by default that of the solve.
    on_inaccurate : {"refine", "raise", "warn"}
        What to do if steps that were chosen for the states are too long for the tangents, so that the requested ones may be off by
        more than 100 times rtol, relative to the largest logarithmic derivative. Solve again with shorter steps, and raise if that
        does not help; or raise, or warn, at once.

    Returns
    -------
    Tangents

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, or the method or the dynamics have no tangents.
    SolveError
        If the pass cannot be completed, or the tangents are not accurate enough.

    Notes
    -----
    `du_dot/dt = (df/du) u_dot + (df/dtheta) theta_dot`, discretised like the solve: the dual of `pullback` with adjoint="discrete",
    on the same mesh, which is held fixed. Directions share the states of the stages, the Jacobians and the factorisations. Steps
    are chosen for the states. Whether they are short enough for tangents too is judged by that adjoint, pulled back once from T and
    `times`. Fixed steps are not judged. Where the state jumps at a time that changes with u0 and theta, the mesh is held fixed and
    the state at that time is not: the dual of what `pullback` does.
    """
    if solution.segments is not None:
        raise ValueError("tangents need all steps of a solution: solve with more memory=, or without a budget.")
    moved = [None if dot is None else _time_dots(name, dot) for name, dot in (("t0_dot", t0_dot), ("T_dot", T_dot))]
    u_dots, theta_dots, many = _read_all(solution.layouts, u0_dot, theta_dot, moved)
    if solution.steady is not None:
        u_dots = solution.steady.push_forward(theta_dots, moved[0])
    asked = np.zeros(0) if times is None else times_in_span("times", times, float(solution.t[0]), float(solution.t[-1]))
    seen = before_jumps(solution, asked) if check_side(side) == "left" else asked
    unique, where = np.unique(seen, return_inverse=True)
    if solution.t[-1] < solution.t[0]:
        unique, where = unique[::-1], unique.size - 1 - where
    start_dots = u_dots if moved[0] is None else u_dots - np.outer(moved[0], _rate(solution, 0))
    made = _pass_along(solution, start_dots, theta_dots, unique, max_seconds)
    try_tangents(made, solution.t[:-1], solution.u[:-1])
    choose("on_inaccurate", on_inaccurate, ("refine", "raise", "warn"))
    trajectory, count = _steps_that_serve(solution, unique, dense, on_inaccurate, made.max_seconds)
    if dense:
        made.keep_dense(count[slots.STEPS], trajectory.c.shape[1])
    made.follow(trajectory, count)
    status = Program(backward=made).run()
    if status != SUCCESS:
        raise made.error(status, solution.dense)
    u_T = made.dots.T.copy()
    if moved[1] is not None and not solution.ended:
        u_T += np.outer(_rate(solution, -1), moved[1])
    observed = made.observed.transpose(0, 2, 1)[where]
    if side == "left" or not jumps_at_start(solution.kinds):
        observed[asked == solution.t[0]] = u_dots.T  # whatever t0 is
    u = None if times is None else np.ascontiguousarray(observed)
    if not many:
        u_T, u = u_T[:, 0].copy(), None if u is None else u[:, :, 0].copy()
    at_all_times = _output_of(made, trajectory, u_dots if many else u_dots[0]) if dense else None
    return Tangents(u_T, None if times is None else asked, u, made.stats, at_all_times)


def _output_of(made: TangentPass, trajectory: Trajectory, start_dots: np.ndarray) -> TangentOutput:
    """The tangents at all times along a trajectory, which a pass has kept, from `start_dots` (n,) or (k, n) at t0."""
    (dots, c), (steps, _, jumped) = made.dense, made.frame[slots.FORWARD_COUNT][: slots.OCCURRED + 1]
    dots = dots.swapaxes(-1, -2).reshape(len(dots), start_dots.size)
    c = c.swapaxes(-1, -2).reshape(*c.shape[:2], start_dots.size)
    output = DenseOutput(trajectory.t[: steps + 1].copy(), dots, c, made.span, trajectory.jumps.t[:jumped].copy())
    return TangentOutput(output, np.ascontiguousarray(start_dots.T))


def _time_dots(name: str, value: Any) -> np.ndarray:
    dots = np.asarray(value, dtype=float)
    if dots.ndim > 1 or not np.isfinite(dots).all():
        raise ValueError(f"{name} must be a finite number, or a vector with one for each direction, but {value!r} was given.")
    return dots


def _read_all(
    layouts: tuple[Layout, Layout], u0_dot: Any, theta_dot: Any, moved: list[np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """What `read_directions` gives, where t0 and T change too."""
    times = [dots for dots in moved if dots is not None]
    if u0_dot is None and theta_dot is None and times:
        u0_dot = np.zeros((layouts[0].size, *times[0].shape))
    u_dots, theta_dots, many = read_directions(layouts, u0_dot, theta_dot)
    for dots in times:
        if dots.shape != (len(u_dots),) * many:
            what = f"vectors of {len(u_dots)} numbers, one for each direction" if many else "numbers"
            raise ValueError(f"t0_dot and T_dot must be {what}, but one has the shape {dots.shape}.")
    return u_dots, theta_dots, many


def _rate(solution: Solved, step: int) -> np.ndarray:
    """How fast the state changes at the start (0) or the end (-1) of a solution."""
    mass, mesh, n = solution.dynamics.mass, solution.trajectory, solution.layouts[0].size
    if mass is not None and mass.singular:
        raise ValueError(
            "with a singular mass matrix f does not say how fast the algebraic components change: leave t0_dot and T_dot out."
        )
    u, theta = state_at_step(solution, step), solution.jumps.extended(solution.theta) if step == 0 else solution.problem[1]
    elapsed = beside_stops(solution.span, mesh.t, mesh.kinds, np.full(n, solution.t[step]))
    return rates_along(solution, theta, elapsed, np.tile(solution.u0 if step == 0 else u, (n, 1)), np.eye(n), PullbackStats())


def _pass_along(
    solution: Solved, u_dots: np.ndarray, theta_dots: np.ndarray, times: np.ndarray, max_seconds: float | None
) -> TangentPass:
    """The pass along a solution, for tangents (k, n) of the initial state and (k, m) of the parameters."""
    jumps = solution.jumps
    return TangentPass(
        with_inflows(solution.dynamics, jumps.inflows, solution.theta.size, tangents=True),
        solution.options,
        solution.structure,
        solution.span,
        solution.problem[1],
        u_dots,
        np.pad(theta_dots, ((0, 0), (0, len(jumps.inflows)))),
        solution.span.elapsed(times),
        max_seconds=solution.options.max_seconds if max_seconds is None else positive("max_seconds", max_seconds),
        jumps=jumps,
    )


def _steps_that_serve(
    solution: Solved, times: np.ndarray, dense: bool, on_inaccurate: str, max_seconds: float | None
) -> tuple[Trajectory, np.ndarray]:
    """The steps of the solution, or shorter ones where tangents at these times and T, or at all of them, need these; the count."""
    if dense:
        times = solution.t[1:]
    n, (dynamics, theta), steps = solution.layouts[0].size, solution.problem, (solution.trajectory, solution.counts)
    if not solution.dense.steps or not solution.options.unit_error(n):
        return steps
    if on_inaccurate == "refine" and solution.jumps.move and not np.array_equal(before_jumps(solution, times), times):
        on_inaccurate = "raise"  # along other steps events are at times that are a little different, on whichever side of these
    sizes = np.abs(solution.u).max(axis=0) + solution.options.least_sizes(n)
    cotangents = probe(times.size + 1, n) / sizes
    seeds = observed_after_t0(solution.t, solution.kinds, times, cotangents[:-1])
    how: Any = {"wants_theta": True, "max_seconds": max_seconds, "on_inaccurate": on_inaccurate, "jumps": solution.jumps}
    judge = Discrete(dynamics, solution.options, solution.structure, solution.span, theta, cotangents[-1], *seeds, **how)
    judge.follow(*steps)
    status = Program(backward=judge).run()
    if status == REFINE:
        status, forward = run_refined(solution, judge)
        steps = forward.trajectory, forward.count
    if status != SUCCESS:
        raise judge.error(status, solution.dense)
    judge.warn_if_inaccurate(stacklevel=4)
    return steps


def try_tangents(made: TangentPass, times: np.ndarray, states: np.ndarray) -> None:
    """Notice slips of what a pass calls where a trajectory has been, and hold it against differences of f: once for each size."""
    dynamics, theta = made.dynamics, made.theta
    parts = [Part(made.jvp or dynamics.vjp, (), dynamics.f)]
    if len(times):
        try_at_start(dynamics, parts, float(times[0]), states[0], theta)
        try_behind(dynamics, parts, times, states, theta, made.jumps.guards)
    if made.jvp is not None:
        require_jvp(dynamics, times, states, theta)
    if made.jvps is not None:
        require_jvps(dynamics, made.jvps, times, states, theta)


def read_directions(layouts: tuple[Layout, Layout], u0_dot: Any, theta_dot: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    """Tangents of u0 (k, n) and theta (k, m) by rows, and whether they were given as columns of a matrix."""
    given = [
        None if value is None else _rows(layout, name, value)
        for layout, name, value in zip(layouts, ("u0_dot", "theta_dot"), (u0_dot, theta_dot), strict=True)
    ]
    forms = {(rows.shape[0], many) for rows, many in filter(None, given)}
    if not forms:
        raise ValueError("give u0_dot, theta_dot, or both: the directions in which u0 and theta change.")
    if len(forms) > 1:
        raise ValueError(
            f"u0_dot and theta_dot must have the same number of columns, but their shapes are {np.shape(u0_dot)} and "
            f"{np.shape(theta_dot)}."
        )
    (count, many) = forms.pop()
    rows = [np.zeros((count, layout.size)) if one is None else one[0] for layout, one in zip(layouts, given, strict=True)]
    return rows[0], rows[1], many


def _rows(layout: Layout, name: str, value: Any) -> tuple[np.ndarray, bool]:
    if np.ndim(value) != 2:
        return layout.flatten(name, value)[None], False
    require_unmasked(name, value)
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, but its dtype is {array.dtype}.")
    if array.shape[0] != layout.size or array.shape[1] == 0:
        raise ValueError(f"{name} must have {layout.size} rows and a column for each direction, but its shape is {array.shape}.")
    require_finite(name, array)
    return np.ascontiguousarray(array.T, dtype=float), True
