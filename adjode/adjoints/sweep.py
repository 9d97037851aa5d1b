"""One backward pass: choose the adjoint and the quadrature, run the loop, refuse what cannot be trusted."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adjode.adjoints import backsolve, interpolating
from adjode.adjoints.backward_pass import BackwardPass
from adjode.adjoints.jumps import Sweep
from adjode.adjoints.products import put_products
from adjode.adjoints.result import PullbackStats, SweepResult, find_cause
from adjode.frame import RECORD_DENSE
from adjode.jacobian import products_for, put_jacobian
from adjode.linalg.structure import Structure
from adjode.loops.loop import Loop
from adjode.loops.quadrature import AUGMENTED_ALL, AUGMENTED_LAM, GAUSS, NONE
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.solution import DenseOutput, Solution
from adjode.status import CALLBACK_RAISED, MAX_STEPS, STEP_TOO_SMALL, SUCCESS, SolveError, Status, solve_error
from adjode.steppers.families import Solver
from adjode.tableaus import tableau

ADJOINTS = {"interpolating": interpolating.prepare, "backsolve": backsolve.prepare}

# How far, in tolerances, a backsolve may end from the true initial state before its gradient is refused. Local errors of one
# tolerance a step add up along a trajectory, so some drift is no fault.
DRIFT_LIMIT = 100.0


@dataclass(frozen=True)
class SweepOptions:
    """How to run a sweep; see `adjode.pullback.pullback`."""

    adjoint: str
    quadrature: str
    error_norm: str
    method: str
    max_steps: int
    reanchor: bool
    on_drift: str
    dense_adjoint: bool
    rtol: float
    atol: float
    quadrature_rtol: float
    quadrature_atol: float
    structure: Structure | None = None


def run_sweep(
    solution: Solution,
    plan: Sweep,
    cost: tuple[Callback, Callback] | None,
    options: SweepOptions,
    stats: PullbackStats,
    *,
    wants_theta: bool,
    wants_lam: bool,
) -> SweepResult:
    """Integrate lam from `plan.start` to t0, and theta_bar and the running cost's value along it; count the work in `stats`."""
    wants_theta = wants_theta and solution.theta.size > 0
    backward = ADJOINTS[options.adjoint](solution, plan, options.atol, options.reanchor)
    loop, short = sweep_loop(
        backward,
        plan.start,
        solution.dynamics,
        solution.theta,
        options,
        cost=cost,
        wants_theta=wants_theta,
        wants_lam=wants_lam,
        max_step=solution.options["max_step"],
        step=solution.options["step"],
    )
    status = loop.run(sweep_entry(solution.dynamics, backward, loop, options))
    count_sweep(stats, loop, options.adjoint, cost is not None, wants_theta=wants_theta, wants_lam=wants_lam, short=short)
    count_jacobians(stats, loop, solution.dynamics, options)
    if status != SUCCESS:
        raise _sweep_error(status, loop, backward, solution, cost, options)
    if options.adjoint == "backsolve":
        _check_drift(solution, backward, loop, options, stats)
    return SweepResult(
        lam=loop.y[backward.lam_from :],
        theta_bar=loop.total[: solution.theta.size if wants_theta else 0],
        running_cost=float(loop.total[-1]) if cost else 0.0,
        adjoint=_dense_adjoint(loop, backward.lam_from) if options.dense_adjoint else None,
    )


def sweep_loop(
    backward: BackwardPass,
    t_start: float,
    dynamics: Dynamics,
    theta: np.ndarray,
    options: SweepOptions,
    *,
    wants_theta: bool,
    wants_lam: bool,
    cost: tuple[Callback, Callback] | None = None,
    atol_scale: float = 0.0,
    max_step: float,
    step: float | None,
) -> tuple[Loop, bool]:
    """The loop of a backward pass, and whether `vjp_u` serves its stages."""
    kind = _quadrature_kind(options, wants_theta, cost is not None, wants_lam)
    # vjp_u serves the stages if nothing needs the integrand there
    short = dynamics.vjp_u is not None and kind in (NONE, GAUSS) and wants_lam
    size = (theta.size if wants_theta else 0) + (cost is not None)
    method = tableau(options.method)
    if method.family == "rosenbrock" and kind in (AUGMENTED_LAM, AUGMENTED_ALL):
        raise ValueError(f"the stages of {method.name} are no quadrature nodes: choose quadrature='gauss'.")
    explicit = not method.implicit or method.partner is not None
    free = wants_lam and not short and explicit  # Newton's last iterate is not the stage itself
    loop = Loop(
        method,
        backward.y,
        t_start,
        backward.stops,
        rtol=options.rtol,
        atol=backward.atol,
        q_rtol=options.quadrature_rtol,
        q_atol=options.quadrature_atol,
        atol_scale=atol_scale,
        quadrature=(kind, size, free),
        max_step=max_step,
        max_steps=options.max_steps,
        step=step,
        record=RECORD_DENSE if options.dense_adjoint else 0,
    )
    for slot, array in backward.arrays.items():
        loop.frame[slot] = array
    wants = {"wants_theta": wants_theta, "wants_lam": wants_lam}
    put_products(loop.frame, dynamics, theta, backward.y.size - backward.lam_from, **wants, running_cost=cost, short=short)
    if options.structure is not None:
        put_jacobian(loop.frame, dynamics, options.structure, theta.size)
    return loop, short


def sweep_entry(dynamics: Dynamics, backward: BackwardPass, loop: Loop, options: SweepOptions) -> Callable:
    """The entry of a backward pass."""
    if options.structure is None:
        return dynamics.calls.entry(backward.name, loop.frame, backward.make)
    solver = Solver(tableau(options.method).family, options.structure.kind)
    return dynamics.calls.entry(solver.entry_name(backward.name), loop.frame, functools.partial(backward.make, solver=solver))


def _quadrature_kind(options: SweepOptions, wants_theta: bool, has_cost: bool, wants_lam: bool) -> int:
    if not wants_theta and not has_cost:
        return NONE
    if options.quadrature == "gauss" or not wants_lam:  # without lam there are no stages to sum over
        return GAUSS
    return AUGMENTED_ALL if options.error_norm == "all" else AUGMENTED_LAM


def count_sweep(stats: PullbackStats, loop: Loop, adjoint: str, has_cost: bool, *, wants_theta, wants_lam, short) -> None:
    stats.n_steps, stats.n_rejected = loop.steps, loop.rejected
    along, nodes = loop.derivatives, loop.integrands
    stats.n_f += along if adjoint == "backsolve" else 0
    stats.n_vjp_u += along if wants_lam and short else 0
    stats.n_vjp += (along if wants_lam and not short else 0) + (nodes if wants_theta else 0)
    if has_cost:
        stats.n_g += nodes + (0 if short or not wants_lam else along)
        stats.n_g_vjp += along + nodes if wants_lam else 0


def count_jacobians(stats: PullbackStats, loop: Loop, dynamics: Dynamics, options: SweepOptions) -> None:
    """The work of an implicit method."""
    if options.structure is None:
        return
    stats.n_jac, stats.n_lu, stats.n_newton = loop.implicit_work
    rows = stats.n_jac * products_for(dynamics, options.structure)
    stats.n_vjp_u += rows if dynamics.vjp_u is not None else 0
    stats.n_vjp += 0 if dynamics.vjp_u is not None else rows


def _dense_adjoint(loop: Loop, lam_from: int) -> DenseOutput:
    steps, mesh = loop.steps, loop.store
    t, u, c = mesh.t[: steps + 1], mesh.u[: steps + 1, lam_from:], mesh.c[:steps, :, lam_from:]
    return DenseOutput(*(np.ascontiguousarray(a) for a in (t, u, c)))


def _check_drift(solution, backward, loop, options, stats) -> None:
    stats.drift = backsolve.drift(solution, loop.y)
    if stats.drift <= DRIFT_LIMIT:
        return
    error = solve_error(
        Status.BACKSOLVE_DRIFT,
        phase="adjoint",
        t=float(solution.t[0]),
        step_size=loop.h_tried,
        drift=stats.drift,
        hint="Use adjoint='interpolating', or reanchor=True",
    )
    if options.on_drift == "raise":
        raise error
    warnings.warn(str(error), RuntimeWarning, stacklevel=4)


def _sweep_error(status: int, loop: Loop, backward: BackwardPass, solution: Solution, cost, options: SweepOptions) -> SolveError:
    component, name = None, None
    blamed = loop.blame() if status not in (CALLBACK_RAISED, MAX_STEPS) else None
    if blamed is not None:
        where, component = blamed
        if where == "quadrature":
            name = f"theta_bar[{component}]" if component < solution.theta.size else "running cost"
        elif component < backward.lam_from:
            name = f"u[{component}]"
        else:
            component -= backward.lam_from
            name = f"lam[{component}]"
    hint = "Backsolve is unstable where the flow contracts: try adjoint='interpolating'" if options.adjoint == "backsolve" else ""
    if options.structure is not None and status == STEP_TOO_SMALL:
        hint = "Behind an observation lam has a transient as fast as the stiffest part: adjoint='discrete' need not resolve it"
    return solve_error(
        status,
        phase="adjoint",
        t=loop.t_tried,
        step_size=loop.h_tried,
        component=component,
        name=name,
        max_steps=options.max_steps,
        callback="vjp (or another callback of the backward pass)",
        hint=hint,
        cause=_cause(loop, backward, solution, cost) if status == CALLBACK_RAISED else None,
    )


def _cause(loop: Loop, backward: BackwardPass, solution: Solution, cost) -> Exception | None:
    low, high = sorted((float(solution.t[0]), float(solution.t[-1])))
    t = min(max(loop.t_tried, low), high)
    return find_cause(solution, cost, [(t, y[backward.lam_from :]) for y in loop.tried])
