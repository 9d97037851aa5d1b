"""What a pullback is given: cotangents of states, and a running cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.api.solved import Solved
from adjode.checks import require_finite, require_unmasked, times_in_span
from adjode.model.callbacks import Callback, callback
from adjode.model.fields import Pair
from adjode.model.layout import Layout
from adjode.model.switches import switches_of_cost


@dataclass(frozen=True, eq=False)
class Seeds:
    """The cotangents that enter: of u(T), of the states at the observation times, what u0_bar and theta_bar have besides, and of
    the times of jumps (None for none).
    """

    u_T_bar: np.ndarray
    times: np.ndarray
    u_bars: np.ndarray
    theta_bar: np.ndarray
    u0_bar: Any = 0.0
    jump_bars: np.ndarray | None = None


def read_seeds(
    layouts: Sequence[Layout], t: np.ndarray, u_T_bar: Any, observations: tuple[Any, Any] | None, theta_bar: Any
) -> Seeds:
    layout, n = layouts[0], layouts[0].size
    at_T = np.zeros(n) if u_T_bar is None else layout.flatten("u_T_bar", u_T_bar)
    direct = np.zeros(layouts[1].size) if theta_bar is None else layouts[1].flatten("theta_bar", theta_bar)
    if observations is None:
        return Seeds(at_T, np.zeros(0), np.zeros((0, n)), direct)
    try:
        times, u_bars = observations
    except (TypeError, ValueError):
        raise ValueError("observations must be a pair (times, u_bars).") from None
    times = times_in_span("observation times", times, float(t[0]), float(t[-1]))
    require_unmasked("u_bars", u_bars)
    u_bars = np.asarray(u_bars)
    if u_bars.dtype.kind not in "fiub":
        raise TypeError(f"u_bars must hold real numbers, but its dtype is {u_bars.dtype}.")
    if u_bars.size == 0 and times.size == 0:
        u_bars = u_bars.reshape(0, n)
    if n == 1 and u_bars.ndim == 1:
        u_bars = u_bars[:, None]
    if u_bars.shape != (times.size, n):
        raise ValueError(
            f"u_bars must have shape ({times.size}, {n}), one row for each observation time, but its shape is {u_bars.shape}."
        )
    require_finite("u_bars", u_bars)
    return Seeds(at_T, times, np.array(u_bars, dtype=float, order="C"), direct)


def curvature_of_cost(cost: Callback) -> Callback:
    """How the derivatives of a running cost change.

    Raises
    ------
    TypeError
        If it cannot be derived.
    """
    from adjode.model.derived import derived

    try:
        found = derived(cost.function, cost.kind.arguments(cost.takes_in_place)).vjp_dot
    except TypeError as error:
        raise TypeError(
            f"second derivatives of the running cost are needed, but cannot be derived from it ({str(error).rstrip('.')}): write "
            f"it in a form that can be differentiated."
        ) from None
    return callback("g_vjp_dot", found, fields=cost.fields)


def read_cost(running_cost: Callable | tuple[Callable, Callable], fields: Pair) -> tuple[Callback, Callback]:
    """g and its derivatives, which are derived from the source of g where it is given alone."""
    from adjode.model.derived import with_derivative  # here: who has no running cost does not pay for it

    return with_derivative("running_cost", "g", running_cost, fields)


def cost_along(solution: Solved, running_cost: Callable | tuple[Callable, Callable]) -> tuple[Callback, Callback]:
    """The same for this solution; a ValueError if g jumps within its span at times that depend on theta."""
    cost = read_cost(running_cost, solution.dynamics.fields)
    require_fixed_jumps(cost, solution.theta, solution.span.ends)
    return cost


def require_fixed_jumps(cost: tuple[Callback, Callback], theta: np.ndarray | None = None, t_span: Any = None) -> None:
    """Refuse a running cost that jumps at times that depend on theta; where that is known, if they are within the span."""
    why = "its gradient would lack the contribution of these jumps: make the cost an additional state, with g in f"
    switches_of_cost(cost[0]).refuse(why, "the running cost", theta, t_span)
