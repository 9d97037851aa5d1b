"""The two functional forms: `vjp`, and `value_and_gradient` of a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from adjode.dynamics import Dynamics
from adjode.losses import Loss
from adjode.pullback import Cotangents, pullback
from adjode.solve import solve


def vjp(
    dynamics: Dynamics, u0: Any, theta: Any, t_span: tuple[float, float], **options: Any
) -> tuple[Any, Callable[..., Cotangents]]:
    """The map `(u0, theta, t0, T) -> u(T)` and its pullback.

    Parameters
    ----------
    dynamics, u0, theta, t_span
        As for `solve`.
    **options
        Options of `solve`.

    Returns
    -------
    u_T : (n,) array, or in the form of u0
    pullback : callable
        `pullback(u_T_bar, **options) -> Cotangents`, as `Solution.pullback`.
    """
    solution = solve(dynamics, u0, theta, t_span, **options)
    return solution.u_T, solution.pullback


_SOLVE_OPTIONS = frozenset(inspect.signature(solve).parameters) - {"dynamics", "u0", "theta", "t_span", "t_eval"}
_PULLBACK_OPTIONS = frozenset(inspect.signature(pullback).parameters) - {
    "solution",
    "u_T_bar",
    "observations",
    "wrt",
    "rtol",
    "atol",
    "method",
    "max_steps",
}
_RENAMED = {"adjoint_rtol": "rtol", "adjoint_atol": "atol", "adjoint_method": "method", "adjoint_max_steps": "max_steps"}


def value_and_gradient(
    dynamics: Dynamics,
    loss: Loss,
    t_span: tuple[float, float],
    *,
    wrt: Sequence[str] = ("u0", "theta"),
    **options: Any,
) -> Callable[[Any, Any], tuple[float, Cotangents]]:
    """The value and the gradient of a loss, as a function of (u0, theta).

    Parameters
    ----------
    dynamics : Dynamics
    loss : FinalState, LeastSquares, Series, or any object with `value_and_cotangents(solution)`
    t_span : (t0, T)
    wrt : subset of ("u0", "theta", "t0", "T", "observation_times")
    **options
        Options of `solve` (`method`, `rtol`, `atol`, ...) and of `Solution.pullback` (`adjoint`, `quadrature`, ...). Where the two
        share a name, the pullback's is `adjoint_rtol`, `adjoint_atol`, `adjoint_method` or `adjoint_max_steps`. The value of a
        `running_cost` is added to that of the loss.

    Returns
    -------
    callable
        `(u0, theta) -> (value, Cotangents)`.

    Raises
    ------
    TypeError
        For an option that neither takes.
    """
    solve_options, pullback_options = _split(options)

    def evaluate(u0: Any, theta: Any) -> tuple[float, Cotangents]:
        solution = solve(dynamics, u0, theta, t_span, **solve_options)
        value, seeds = loss.value_and_cotangents(solution)
        bar = pullback(solution, wrt=wrt, **seeds, **pullback_options)
        return value + (bar.running_cost or 0.0), bar

    return evaluate


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    forward, backward = {}, {}
    for name, value in options.items():
        if name in _SOLVE_OPTIONS:
            forward[name] = value
        elif name in _RENAMED:
            backward[_RENAMED[name]] = value
        elif name in _PULLBACK_OPTIONS:
            backward[name] = value
        else:
            known = sorted(_SOLVE_OPTIONS | _PULLBACK_OPTIONS | set(_RENAMED))
            raise TypeError(f"option {name!r} is unknown; the options are {', '.join(known)}.")
    return forward, backward
