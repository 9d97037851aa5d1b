"""Cotangents of the times of events, and states on the side before a jump.

With a guard e that passes through zero at tau at the rate gamma = e_t + e_u f-, tau changes by -(e_u du + e_theta dtheta) / gamma.
So a cotangent of tau is one of the state before the event, and a part of theta_bar. The discrete adjoint has it in rho, see
adjoints/jumping.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from adjode.adjoints.jumping import GRAZES, SLOW
from adjode.api.seeds import Seeds
from adjode.api.solved import Solved
from adjode.checks import choose, float_vector
from adjode.compile import slots
from adjode.passes import trajectory
from adjode.passes.discrete import jumps_at_start
from adjode.passes.options import PullbackOptions
from adjode.status import GRAZING, solve_error


def before_jumps(solution: Solved, times: np.ndarray) -> np.ndarray:
    """`times`, but for those of jumps: just before these, in the order of integration."""
    return trajectory.before_jumps(solution.span, solution.trajectory.jumps.t, times)


def check_side(side: str) -> str:
    choose("side", side, ("left", "right"))
    return side


def _read_event_times(solution: Solved, given: Any) -> list[np.ndarray]:
    """Cotangents of the times of each event, of as many as have happened."""
    events = solution.options.events
    counts = [solution.trajectory.jumps.of_event(i).size for i in range(len(events))]
    if not events:
        raise ValueError("event_times was given, but the solution has no events.")
    listed = [given] if len(events) == 1 and not (isinstance(given, Sequence) and np.ndim(given[0])) else list(given)
    if len(listed) != len(events):
        raise ValueError(f"event_times must have an array for each of the {len(events)} events, but {len(listed)} were given.")
    return [
        float_vector(f"event_times of {event.name}", one, count) for event, one, count in zip(events, listed, counts, strict=True)
    ]


def _in_mesh(solution: Solved) -> np.ndarray:
    """The jumps across which steps have been taken: all but those in which nothing changes."""
    kinds, what = solution.kinds, solution.trajectory.jumps.what
    lasts = kinds[kinds >= slots.JUMP] - slots.JUMP
    return np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(what[3 * last + 2], last + 1) for last in lasts)])


def _pull_event_time(solution: Solved, i: int, k: int, bar: float) -> tuple[float, np.ndarray, np.ndarray]:
    """What a cotangent of the time of event i, which is jump k, is: a time, a cotangent of the state before, a part of theta_bar.

    Raises
    ------
    SolveError
        If a guard only touches zero.
    """
    jumps, guards, theta = solution.trajectory.jumps, solution.jumps.guards, solution.theta
    assert guards is not None
    n, m = solution.layouts[0].size, theta.size
    if jumps.what[3 * k] != slots.EVENT:
        raise ValueError(
            f"{guards.events[i].name} was triggered by another event at t = {solution.span.time(jumps.t[k]):g}, and "
            f"has no time of its own: give the cotangent to that event."
        )
    t, u = float(solution.span.time(jumps.t[k])), jumps.u[2 * k].copy()
    e_u, e_theta, rate, slope, which = np.zeros(n), np.zeros(m), np.zeros(1), np.zeros(n), np.array([float(i)])
    guards.guards_vjp(t, u, theta, which, e_u, e_theta)
    guards.guards_dt(t, u, theta, which, rate)
    solution.problem[0].f(t, u, next(extended for extended, at in solution.by_inflows(jumps.t[k : k + 1]) if at[0]), slope)
    slope = slope if solution.dynamics.mass is None else solution.dynamics.mass.inverse @ slope
    gamma, size = rate[0] + e_u @ slope, abs(rate[0]) + np.abs(e_u * slope).sum()
    if not (abs(gamma) > GRAZES * size and jumps.inflow[k] > SLOW):
        raise solve_error(GRAZING, phase="adjoint", t=t, event=guards.events[i].name)
    return t, -bar / gamma * e_u, -bar / gamma * e_theta


def observed_before(solution: Solved, seeds: Seeds) -> Seeds:
    """The same cotangents, of the states before jumps."""
    at_start = seeds.times == solution.t[0] if jumps_at_start(solution.kinds) else np.zeros(seeds.times.size, dtype=bool)
    times = before_jumps(solution, seeds.times[~at_start])
    return replace(seeds, times=times, u_bars=seeds.u_bars[~at_start], u0_bar=seeds.u0_bar + seeds.u_bars[at_start].sum(axis=0))


def with_event_times(solution: Solved, seeds: Seeds, given: Any, wanted: frozenset[str], options: PullbackOptions) -> Seeds:
    """The same cotangents, and those of the times of events.

    The discrete adjoint takes those of jumps as they are; others are cotangents of states before them.
    """
    if options.certify:
        raise ValueError("certify=True solves again, and its events have different times: leave event_times out.")
    jumps, theta_bar = solution.trajectory.jumps, seeds.theta_bar
    in_mesh, jump_bars = _in_mesh(solution) if options.discrete else np.zeros(0), np.zeros(jumps.t.size)
    times, u_bars = [], []
    for i, bars in enumerate(_read_event_times(solution, given)):
        for k, bar in zip(jumps.of_event(i), bars, strict=True):
            if k in in_mesh:
                jump_bars[k] = bar
            elif bar != 0.0:
                time, u_bar, of_theta = _pull_event_time(solution, i, int(k), bar)
                times.append(time)
                u_bars.append(u_bar)
                theta_bar = theta_bar + of_theta
    if times and wanted & {"observation_times"}:
        raise ValueError(
            "event_times of events without a reset, or with an adjoint other than 'discrete', cannot be combined with "
            "wrt='observation_times'."
        )
    before = before_jumps(solution, np.array(times))
    return replace(
        seeds,
        times=np.concatenate([seeds.times, before]),
        u_bars=np.vstack([seeds.u_bars, *u_bars]),
        theta_bar=theta_bar,
        jump_bars=jump_bars if jump_bars.any() else None,
    )
