"""`pullback`: cotangents of a solved trajectory back to u0, theta, t0 and T."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.adjoints.discrete_pass import run_discrete
from adjode.adjoints.jumps import plan_sweep
from adjode.adjoints.result import EnsembleStats, PullbackStats, SweepResult
from adjode.adjoints.sweep import ADJOINTS, SweepOptions, run_sweep
from adjode.linalg.structure import Structure
from adjode.loops.trajectory import slopes
from adjode.model.callbacks import Callback, callback
from adjode.model.dynamics import Dynamics
from adjode.options import choose, positive, relative_tolerance, require_finite, times_in_span
from adjode.solution import DenseOutput, Solution
from adjode.solve import structure_for
from adjode.status import CALLBACK_RAISED, NON_FINITE, solve_error
from adjode.tableaus import Tableau, tableau

WRT = ("u0", "theta", "t0", "T", "observation_times")


@dataclass(frozen=True, eq=False)
class Cotangents:
    """What a pullback returns; an entry that was not asked for is None.

    Attributes
    ----------
    u0, theta : array, dict or structured scalar
        Cotangents of the initial state and the parameters, in the form these were given in.
    t0, T : float
        Cotangents of the initial and the final time.
    observation_times : (k,) array
        Cotangents of the observation times, in the order given.
    running_cost : float
        The value of the running cost's integral.
    stats : PullbackStats
    adjoint : DenseOutput
        lam(t), if `dense_adjoint` was asked for.
    """

    u0: Any = None
    theta: Any = None
    t0: float | None = None
    T: float | None = None
    observation_times: np.ndarray | None = None
    running_cost: float | None = None
    stats: PullbackStats | EnsembleStats | None = None
    adjoint: DenseOutput | None = None


def pullback(
    solution: Solution,
    u_T_bar: Any = None,
    *,
    observations: tuple[Any, Any] | None = None,
    running_cost: tuple[Callable, Callable] | None = None,
    wrt: Sequence[str] = ("u0", "theta", "t0", "T"),
    adjoint: str = "interpolating",
    quadrature: str = "gauss",
    rtol: float | None = None,
    atol: float | None = None,
    quadrature_rtol: float | None = None,
    quadrature_atol: float | None = None,
    error_norm: str = "all",
    method: str | None = None,
    max_steps: int | None = None,
    reanchor: bool = False,
    on_drift: str = "raise",
    dense_adjoint: bool = False,
) -> Cotangents:
    """Pull cotangents of a solution back to its inputs, by the adjoint equation.

    Parameters
    ----------
    solution : Solution
    u_T_bar : (n,) array, dict or structured scalar, optional
        Cotangent of u(T): dL/du(T).
    observations : (times, u_bars), optional
        Times (k,) in the span, in any order, repeated or at the ends, and the cotangents (k, n) of the states there.
    running_cost : (g, g_vjp), optional
        Adds `integral of g(t, u, theta) dt` to the loss. `g(t, u, theta)` returns a float and
        `g_vjp(t, u, theta, u_bar, theta_bar)` overwrites `dg/du` and `dg/dtheta` (or `g_vjp(t, u, theta)` returns the two).
    wrt : subset of ("u0", "theta", "t0", "T", "observation_times")
        What to compute. What is left out is None and costs nothing.
    adjoint : {"interpolating", "backsolve", "discrete"}
        Take u(t) from the forward solve's dense output; integrate it back beside lam; or transpose the accepted steps, their dense
        output and the quadrature of the running cost, with the mesh held fixed: the exact gradient of the numbers computed. The
        last is the default of `value_and_gradient`; here it evaluates the stages again, and takes no tolerances, method,
        `max_steps` or `dense_adjoint`.
    quadrature : {"gauss", "augmented"}
        Integrate theta_bar at Gauss-Lobatto nodes inside each accepted step, or with the stages of the method (what theta_bar as
        further ODE states amounts to).
    rtol, atol : float, optional
        Tolerances of lam: by default rtol of the forward solve, and its atol times the largest cotangent.
    quadrature_rtol, quadrature_atol : float, optional
        Tolerances of theta_bar: by default those of lam.
    error_norm : {"all", "lam"}
        Whether theta_bar takes part in the error control of quadrature="augmented".
    method : str, optional
        Method of the backward pass: by default that of the forward solve.
    max_steps : int, optional
        Cap on steps of the backward pass: by default that of the forward solve.
    reanchor : bool
        With adjoint="backsolve": put the state back onto the stored trajectory at every stored step and observation.
    on_drift : {"raise", "warn"}
        With adjoint="backsolve": what to do if the state does not arrive at the true initial state.
    dense_adjoint : bool
        Keep lam(t) as a dense output on the result.

    Returns
    -------
    Cotangents

    Raises
    ------
    ValueError, TypeError
        For bad input, before anything is computed.
    SolveError
        If the backward pass cannot be completed, or a backsolve drifts. A partial gradient is never returned.

    Notes
    -----
    `lam' = -(df/du)^T lam - dg/du`, `lam(T) = u_T_bar`, jumps `lam(t_k-) = lam(t_k+) + u_bar_k`; then `u0_bar = lam(t0)`,
    `theta_bar = integral of (df/dtheta)^T lam + dg/dtheta dt`, `T_bar = u_T_bar . f(T) + g(T)` and
    `t0_bar = -lam(t0) . f(t0) - g(t0)`. An observation at t0 enters u0_bar alone; observation times are held fixed as T and t0
    move. With fixed steps the backward pass takes the same fixed steps. The discrete adjoint gives u0_bar and theta_bar to
    rounding; its T_bar, t0_bar and observation times follow the same formulas. With a mass matrix it is the only adjoint; u0_bar
    lies in the range of M^T but for what is observed at t0 or inside the first step, and a singular M leaves `wrt` no more than u0
    and theta.
    """
    wanted = check_wrt(wrt)
    seeds = _read_seeds(solution, u_T_bar, observations)
    cost = None if running_cost is None else _read_cost(running_cost)
    stats = PullbackStats()
    choose("adjoint", adjoint, ("discrete", *ADJOINTS))
    choose("quadrature", quadrature, ("gauss", "augmented"))
    choose("error_norm", error_norm, ("all", "lam"))
    choose("on_drift", on_drift, ("raise", "warn"))
    refuse_with_mass(solution.dynamics, adjoint, wanted)
    if reanchor and adjoint != "backsolve":
        raise ValueError("reanchor=True belongs to adjoint='backsolve'.")
    tolerances = {"rtol": rtol, "atol": atol, "quadrature_rtol": quadrature_rtol, "quadrature_atol": quadrature_atol}
    wants = {"wants_theta": "theta" in wanted, "wants_lam": bool(wanted & {"u0", "theta", "t0"})}
    if adjoint == "discrete":
        refuse_continuous_options({**tolerances, "method": method, "max_steps": max_steps, "dense_adjoint": dense_adjoint or None})
    else:
        chosen = check_method(method, solution.method, solution.options)
        if adjoint == "backsolve":
            refuse_backsolve(solution.tableau, chosen)
        options = SweepOptions(
            adjoint=adjoint,
            quadrature=quadrature,
            error_norm=error_norm,
            method=chosen.name,
            structure=_structure(solution, chosen),
            max_steps=solution.options["max_steps"] if max_steps is None else int(positive("max_steps", max_steps)),
            reanchor=reanchor,
            on_drift=on_drift,
            dense_adjoint=dense_adjoint,
            **read_tolerances(solution.options, lambda: _cotangent_size(solution, seeds, cost, stats), **tolerances),
        )

    if wants["wants_lam"]:
        for product in (solution.dynamics.vjp, solution.dynamics.vjp_u):
            if product is not None:
                product.require_inside(float(solution.t[0]), solution.u[0], solution.theta)

    swept = None
    if (wants["wants_lam"] or cost is not None) and adjoint == "discrete":
        swept = run_discrete(solution, seeds.u_T_bar, seeds.times, seeds.u_bars, cost, stats, **wants)
    elif wants["wants_lam"] or cost is not None:
        plan = plan_sweep(solution.t[0], solution.t[-1], seeds.u_T_bar, seeds.times, seeds.u_bars, from_T=cost is not None)
        swept = run_sweep(solution, plan, cost, options, stats, **wants)
    return _assemble(solution, wanted, seeds, cost, swept, stats)


def _assemble(
    solution: Solution,
    wanted: frozenset[str],
    seeds: _Seeds,
    cost: tuple[Callback, Callback] | None,
    swept: SweepResult | None,
    stats: PullbackStats,
) -> Cotangents:
    """The cotangents from lam at t0 and the integrals, in the form of u0 and theta."""
    t0, T = float(solution.t[0]), float(solution.t[-1])
    result: dict[str, Any] = {"stats": stats}
    if swept is not None:
        result["adjoint"] = swept.adjoint
        if cost is not None:
            result["running_cost"] = swept.running_cost
        if "u0" in wanted:
            at_t0 = seeds.u_bars[seeds.times == t0].sum(axis=0) + (seeds.u_T_bar if T == t0 else 0.0)
            result["u0"] = solution.layouts[0].unflatten(swept.lam + at_t0)
        if "theta" in wanted:
            result["theta"] = solution.layouts[1].unflatten(swept.theta_bar)
        if "t0" in wanted:
            result["t0"] = -_rate(solution, t0, solution.u[0], swept.lam, cost, stats)
    if "T" in wanted:
        result["T"] = _rate(solution, T, solution.u[-1], seeds.u_T_bar, cost, stats)
    if "observation_times" in wanted:
        result["observation_times"] = _along_f(solution, seeds.times, solution(seeds.times), seeds.u_bars, stats)
    return Cotangents(**result)


def refuse_continuous_options(given: dict[str, Any]) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} belongs to the continuous adjoints, and the discrete one transposes the steps that were taken: "
                f"leave it out, or choose adjoint='interpolating'."
            )


@dataclass(frozen=True, eq=False)
class _Seeds:
    """The cotangents that enter: of u(T), and of the states at the observation times."""

    u_T_bar: np.ndarray
    times: np.ndarray
    u_bars: np.ndarray


def _read_seeds(solution: Solution, u_T_bar: Any, observations: tuple[Any, Any] | None) -> _Seeds:
    if not isinstance(solution, Solution):
        raise TypeError(f"solution must be an adjode.Solution, but a {type(solution).__name__} was given.")
    n = solution.u.shape[1]
    at_T = np.zeros(n) if u_T_bar is None else solution.layouts[0].flatten("u_T_bar", u_T_bar)
    if observations is None:
        return _Seeds(at_T, np.zeros(0), np.zeros((0, n)))
    try:
        times, u_bars = observations
    except (TypeError, ValueError):
        raise ValueError("observations must be a pair (times, u_bars).") from None
    times = times_in_span("observation times", times, float(solution.t[0]), float(solution.t[-1]))
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
    return _Seeds(at_T, times, np.array(u_bars, dtype=float, order="C"))


def _read_cost(running_cost: tuple[Callable, Callable]) -> tuple[Callback, Callback]:
    try:
        g, g_vjp = running_cost
    except (TypeError, ValueError):
        raise TypeError("running_cost must be a pair of functions (g, g_vjp).") from None
    return callback("g", g), callback("g_vjp", g_vjp)


def check_wrt(wrt: Sequence[str]) -> frozenset[str]:
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in names:
        if name not in WRT:
            raise ValueError(f"wrt may hold {', '.join(map(repr, WRT))}, but {name!r} was given.")
    return frozenset(names)


def check_method(method: str | None, forward_method: str, forward: dict[str, Any]) -> Tableau:
    """The method of the backward pass; `forward` holds the options of the forward solve."""
    name = method or forward_method
    if forward["step"] is None and not tableau(name).adaptive:
        raise ValueError(f"{name} has no error estimate, so it cannot pull back a solution with error control.")
    chosen = tableau(name)
    if forward["step"] is not None and chosen.partner is not None:
        raise ValueError(f"method={name!r} switches where error control tells it to: it cannot pull back fixed steps.")
    return chosen


def _structure(solution: Solution, method: Tableau) -> Structure | None:
    """That of the Jacobian for the backward pass."""
    if method.implicit and solution.structure is not None:
        return solution.structure
    return structure_for(method, solution.dynamics, "auto", float(solution.t[0]), solution.u[0], solution.theta)


def refuse_backsolve(*methods: Tableau) -> None:
    for method in methods:
        if method.implicit:
            raise ValueError(
                f"adjoint='backsolve' with {method.name} would integrate the state of a stiff problem back in time, where all that "
                f"the flow has contracted grows again: choose adjoint='discrete' or 'interpolating'."
            )


def refuse_with_mass(dynamics: Dynamics, adjoint: str, wanted: frozenset[str]) -> None:
    """Refuse what problems with a mass matrix do not have."""
    if dynamics.mass is None:
        return
    times = sorted(wanted - {"u0", "theta"}) if dynamics.mass.singular else []
    if times:
        raise ValueError(
            f"with a singular mass matrix f does not say how fast the algebraic components change, which the cotangents of "
            f"{', '.join(times)} need: choose wrt=('u0', 'theta') or less, with adjoint='discrete'."
        )
    if adjoint != "discrete":
        raise ValueError(f"adjoint={adjoint!r} is not available with a mass matrix: choose adjoint='discrete'.")


def read_tolerances(
    forward: dict[str, Any], cotangent_size: Callable[[], float], *, rtol, atol, quadrature_rtol, quadrature_atol
) -> dict[str, float]:
    """Tolerances of lam, by default rtol of the solve and its atol times the size of the cotangents, and of the quadrature."""
    given = {"rtol": rtol, "atol": atol, "quadrature_rtol": quadrature_rtol, "quadrature_atol": quadrature_atol}
    if forward["step"] is not None and any(value is not None for value in given.values()):
        raise ValueError("the solution has fixed steps, and so has its pullback: leave the tolerances out.")
    for name, value in given.items():
        if value is not None:
            given[name] = relative_tolerance(name, value) if "rtol" in name else positive(name, value, allow_zero=True)
    if rtol is None:
        given["rtol"] = forward["rtol"]
    if atol is None:
        given["atol"] = float(np.min(forward["atol"], initial=np.inf)) * cotangent_size()
    if quadrature_rtol is None:
        given["quadrature_rtol"] = given["rtol"]
    if quadrature_atol is None:
        given["quadrature_atol"] = given["atol"]
    return given


def _cotangent_size(solution: Solution, seeds: _Seeds, cost: tuple[Callback, Callback] | None, stats: PullbackStats) -> float:
    """The largest entry among the cotangents that enter lam; for a running cost, of dg/du times the span at three times."""
    size = max(np.max(np.abs(seeds.u_T_bar), initial=0.0), np.max(np.abs(seeds.u_bars), initial=0.0))
    if cost is not None:
        steps = len(solution.t)
        for k in {0, steps // 2, steps - 1}:
            arguments = cost[1].arguments({"u": solution.u[k], "theta": solution.theta})
            cost[1](float(solution.t[k]), *arguments)
            stats.n_g_vjp += 1
            slope = np.max(np.abs(arguments[-2]), initial=0.0) * abs(solution.t[-1] - solution.t[0])
            size = max(size, slope if np.isfinite(slope) else 0.0)
    return float(size)


def _rate(solution: Solution, t: float, u: np.ndarray, lam: np.ndarray, cost, stats: PullbackStats) -> float:
    """lam . f(t, u, theta) + g(t, u, theta)."""
    rate = float(_along_f(solution, np.array([t]), u[None], lam[None], stats)[0])
    if cost is None:
        return rate
    value = np.zeros(1)
    cost[0](t, u.copy(), solution.theta, value)
    stats.n_g += 1
    return rate + float(value[0])


def _along_f(solution: Solution, times: np.ndarray, states: np.ndarray, u_bars: np.ndarray, stats: PullbackStats) -> np.ndarray:
    """u_bar . du/dt at each time, which is u_bar . f(t, u, theta) or, with a mass matrix, M^-T u_bar . f."""
    out = np.empty_like(states)
    failed = slopes(solution.dynamics.f.handle, solution.theta, times, np.ascontiguousarray(states), out)
    stats.n_f += times.size
    mass = solution.dynamics.mass
    rates = np.einsum("kn,kn->k", u_bars if mass is None else mass.solve_transposed(u_bars), out)
    if failed >= 0:
        cause = solution.dynamics.f.reproduce_error(
            times[failed], *solution.dynamics.f.arguments({"u": states[failed], "theta": solution.theta})
        )
        raise solve_error(CALLBACK_RAISED, phase="adjoint", t=times[failed], callback="f", cause=cause)
    if not np.isfinite(rates).all():
        raise solve_error(NON_FINITE, phase="adjoint", t=times[~np.isfinite(rates)][0], callback="f")
    return rates
