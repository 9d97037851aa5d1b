"""`solve`: the forward pass."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode import frame as slots
from adjode.calls import Calls
from adjode.frame import RECORD_DENSE, RECORD_STAGES
from adjode.jacobian import make_jacobian, put_jacobian, source_of, structure_of
from adjode.jit import kernel
from adjode.linalg.mass import Mass
from adjode.linalg.structure import KINDS, Structure
from adjode.loops.integrate import make_integrate
from adjode.loops.loop import Loop
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.options import choose, positive, relative_tolerance, time_span, times_in_span, tolerance_vector
from adjode.solution import DenseOutput, Solution, SolveStats
from adjode.status import CALLBACK_RAISED, HIGH_INDEX, INCONSISTENT, MAX_STEPS, NEWTON_FAILED, SUCCESS, SolveError, solve_error
from adjode.steppers.families import EXPLICIT, TRANSPOSES, Solver
from adjode.tableaus import METHODS, Tableau, tableau

_ROUNDING_HINT = "Tolerances of algebraic components, atol above all, may also be tighter than rounding allows"


def make_forward(calls: Calls, stages: tuple[int, int] | None, solver: Solver = EXPLICIT) -> Callable:
    """The kernel of the forward pass."""
    call_f = calls.f

    @kernel
    def forward_rhs(frame, t, u, du, q):
        return call_f(frame, t, u, du)

    stepper = solver.stepper(forward_rhs, make_jacobian(calls))
    return make_integrate(forward_rhs, stages=stages, stepper=stepper, switches=solver.switches)


def solve(
    dynamics: Dynamics,
    u0: Any,
    theta: Any,
    t_span: tuple[float, float],
    *,
    method: str = "Tsit5",
    rtol: float = 1e-6,
    atol: Any = 1e-9,
    t_eval: Any = None,
    first_step: float | None = None,
    max_step: float = math.inf,
    max_steps: int = 100_000,
    step: float | None = None,
    linear_solver: str = "auto",
) -> Solution:
    """Solve `du/dt = f(t, u, theta)`, or `M du/dt = f(t, u, theta)` where the dynamics have a mass matrix, from `u(t0) = u0` to T.

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
        "Tsit5", "RK45", "DOP853", "BS3" (or "RK23"); for stiff problems "Radau", "Kvaerno5", "TRBDF2", "Rodas5P"; "auto" takes
        the steps of Tsit5, and those of Radau where the problem is stiff; "RK4", "Midpoint", "Euler" take fixed steps and need
        `step`.
    rtol, atol : float; atol may be an (n,) array
        The local error is kept below atol + rtol |u|, as in `scipy.integrate.solve_ivp`.
    t_eval : (k,) array, optional
        Times in the span at which `u_eval` is wanted.
    first_step, max_step : float
        The first step (chosen by default) and the largest.
    max_steps : int
        Cap on steps, accepted and rejected.
    step : float, optional
        Take steps of this size, without error control; the last one is shortened to meet T. The tolerances then only say how far
        the Newton iteration of a stiff method goes.
    linear_solver : {"auto", "dense", "banded", "sparse"}
        How stiff methods solve their linear systems; "auto" chooses by the size and the pattern of the Jacobian.

    Returns
    -------
    Solution
        With dense output.

    Raises
    ------
    ValueError, TypeError
        For bad input, before anything is computed.
    SolveError
        If the solve cannot be completed.
    """
    if not isinstance(dynamics, Dynamics):
        raise TypeError(f"dynamics must be an adjode.Dynamics(f, vjp), but a {type(dynamics).__name__} was given.")
    layouts = Layout("u0", u0), Layout("theta", theta)
    u, parameters = layouts[0].flatten("u0", u0), layouts[1].flatten("theta", theta)
    t0, T = time_span(t_span)
    evaluation_times = None if t_eval is None else times_in_span("t_eval", t_eval, t0, T)
    chosen, controls = check_options(
        u.size, method=method, rtol=rtol, atol=atol, first_step=first_step, max_step=max_step, max_steps=max_steps, step=step
    )
    dynamics.f.require_inside(t0, u, parameters)
    structure = structure_for(chosen, dynamics, linear_solver, t0, u, parameters)
    keeps = chosen.family in TRANSPOSES  # the states of the stages, which would have to be solved for again
    record = RECORD_DENSE + (RECORD_STAGES if keeps else 0)
    loop, integrate = forward_pass(dynamics, chosen, structure, u, parameters, (t0, T), controls, record=record)
    status = loop.run(integrate)
    if status != SUCCESS:
        raise _forward_error(status, loop, dynamics, parameters, layouts[0], max_steps)
    mesh, steps = loop.store, loop.steps
    dense = DenseOutput(mesh.t[: steps + 1], mesh.u[: steps + 1], mesh.c[:steps])
    return Solution(
        dynamics=dynamics,
        theta=parameters,
        dense=dense,
        stats=SolveStats(loop.derivatives, steps, loop.rejected, *loop.implicit_work, loop.switches),
        tableau=chosen,
        options=controls,
        structure=structure,
        stages=mesh.stages[:steps] if keeps else None,
        stiff=None if mesh.stiff is None else mesh.stiff[:steps] == 1,
        layouts=layouts,
        t_eval=evaluation_times,
        u_eval=None if evaluation_times is None else dense(evaluation_times),
    )


def _tableau_for(method: str, step: float | None) -> Tableau:
    chosen = tableau(method)
    if step is None and not chosen.adaptive:
        adaptive = ", ".join(name for name in METHODS if tableau(name).adaptive)
        raise ValueError(f"{method} has no error estimate: give step=, or choose one of {adaptive}.")
    if step is not None and chosen.partner is not None:
        raise ValueError(f"method={method!r} switches where error control tells it to: leave step= out, or name one method.")
    return chosen


def forward_pass(
    dynamics: Dynamics,
    method: Tableau,
    structure: Structure | None,
    u0: np.ndarray,
    theta: np.ndarray,
    t_span: tuple[float, float],
    controls: dict,
    **keep: Any,
) -> tuple[Loop, Callable]:
    """The buffers of a forward pass and the entry that runs on them; `keep` says what is recorded and observed, as for `Loop`."""
    loop = Loop(method, u0, t_span[0], np.array([t_span[1]]), **controls, **keep)
    loop.frame[slots.THETA] = theta
    if not dynamics.calls.fused:
        loop.frame[slots.F] = dynamics.f.handle
    if structure is None:
        return loop, dynamics.calls.entry("solve", loop.frame, make_forward)
    put_jacobian(loop.frame, dynamics, structure, theta.size)
    solver = Solver(method.family, structure.kind, dynamics.mass is not None)
    return loop, dynamics.calls.entry(solver.entry_name("solve"), loop.frame, functools.partial(make_forward, solver=solver))


def structure_for(
    method: Tableau, dynamics: Dynamics, linear_solver: str, t: float, u: np.ndarray, theta: np.ndarray
) -> Structure | None:
    """The structure of the Jacobian for an implicit method; None for an explicit one, which needs none.

    Raises
    ------
    ValueError
        If the method does not take the problem: its linear solver, its pattern or its mass matrix.
    """
    if dynamics.mass is not None:
        _check_mass(dynamics.mass, method, u.size)
    if not method.implicit:
        choose("linear_solver", linear_solver, ("auto", *KINDS))
        return None
    return structure_of(dynamics, linear_solver, t, u, theta)


def _check_mass(mass: Mass, method: Tableau, n: int) -> None:
    if method.family != "radau":
        inverse = "" if mass.singular else ", or multiply f and vjp by the inverse of M and leave mass out"
        raise ValueError(f"method={method.name!r} takes no mass matrix: choose method='Radau'{inverse}.")
    mass.require_size(n)


def check_options(n: int, *, method, rtol, atol, first_step, max_step, max_steps, step) -> tuple[Tableau, dict[str, Any]]:
    """The method, and the options that control its steps, as `Loop` takes them."""
    chosen = _tableau_for(method, step)
    controls: dict[str, Any] = {"rtol": relative_tolerance("rtol", rtol), "atol": tolerance_vector("atol", atol, n)}
    controls |= step_limits(first_step=first_step, max_step=max_step, max_steps=max_steps, step=step)
    if step is None and controls["rtol"] == 0.0 and (controls["atol"] == 0.0).any():
        raise ValueError("rtol and atol must not both be zero: no step could be accepted.")
    return chosen, controls


def step_limits(*, first_step, max_step, max_steps, step) -> dict[str, Any]:
    """Check the options that bound steps."""
    if not isinstance(max_steps, (int, np.integer)) or max_steps < 1:
        raise ValueError(f"max_steps must be a positive integer, but {max_steps!r} was given.")
    if step is not None and first_step is not None:
        raise ValueError("first_step has no meaning with fixed steps: give step or first_step, not both.")
    return {
        "first_step": None if first_step is None else positive("first_step", first_step),
        "max_step": positive("max_step", max_step),
        "max_steps": int(max_steps),
        "step": None if step is None else positive("step", step),
    }


def _forward_error(status: int, loop: Loop, dynamics: Dynamics, theta: np.ndarray, layout: Layout, max_steps: int) -> SolveError:
    component, cause, raised = None, None, dynamics.f
    details: dict[str, Any] = {}
    if status == CALLBACK_RAISED:
        # f; or, for an implicit method, what the Jacobian comes from
        for u, callback in itertools.product(loop.tried, (dynamics.f, source_of(dynamics))):
            inputs = {"u": u, "theta": theta, "lam": np.ones_like(u)}
            cause = callback.reproduce_error(loop.t_tried, *callback.arguments(inputs))
            if cause is not None:
                raised = callback
                break
    elif status == INCONSISTENT and dynamics.mass is not None:
        component, details = _inconsistency(loop, dynamics.mass)
    elif status not in (MAX_STEPS, HIGH_INDEX) and (blamed := loop.blame()) is not None:
        component = blamed[1]
    return solve_error(
        status,
        phase="forward",
        t=loop.t_tried,
        step_size=loop.h_tried,
        component=component,
        name=None if component is None else layout.entry_names()[component].replace("u0", "u", 1),
        cause=cause,
        max_steps=max_steps,
        callback=raised.name,
        hint=_ROUNDING_HINT if status == NEWTON_FAILED and dynamics.mass is not None and dynamics.mass.singular else "",
        **details,
    )


def _inconsistency(loop: Loop, mass: Mass) -> tuple[int, dict[str, float]]:
    """The component furthest off, in tolerances, and what the message about it says."""
    frame = loop.frame
    scale, change = frame[slots.ATOL] + frame[slots.CONTROL][slots.RTOL] * abs(loop.y), frame[slots.ERROR]
    residual = mass.algebraic_part(frame[slots.K][0])
    with np.errstate(all="ignore"):
        component = int(np.nanargmax(np.abs(change) / scale))
    equation = int(np.argmax(np.abs(residual)))
    return component, {"residual": float(residual[equation]), "equation": equation, "change": float(change[component])}
