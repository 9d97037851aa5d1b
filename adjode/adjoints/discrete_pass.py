"""One backward pass of the discrete adjoint, from Python: its buffers, its run, the work it counts, its errors."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from adjode import frame as slots
from adjode.adjoints import products
from adjode.adjoints.discrete import N_PRODUCT, STEP, STEPS, make_discrete
from adjode.adjoints.result import PullbackStats, SweepResult, find_cause
from adjode.frame import Frame
from adjode.jacobian import products_for, put_jacobian
from adjode.linalg.structure import Structure
from adjode.loops.loop import put_method, put_partner
from adjode.loops.quadrature import GAUSS
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.solution import Solution
from adjode.status import CALLBACK_RAISED, SUCCESS, SolveError, solve_error
from adjode.steppers.families import EXPLICIT, TRANSPOSES, Solver
from adjode.steppers.frozen import put_frozen
from adjode.steppers.transposed import put_transposed
from adjode.tableaus import Tableau


class DiscretePass:
    """The buffers of one backward pass.

    Parameters
    ----------
    start : (n,) array
        The cotangent of u(T).
    times, jumps : (k,), (k, n) arrays
        Observations along the mesh and their cotangents; what was observed at t0 itself is left out.
    recorded : bool
        Whether the forward solve records its stages.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        tableau: Tableau,
        structure: Structure | None,
        theta: np.ndarray,
        start: np.ndarray,
        times: np.ndarray,
        jumps: np.ndarray,
        *,
        wants_theta: bool,
        wants_lam: bool = True,
        cost: tuple[Callback, Callback] | None = None,
        recorded: bool = False,
    ):
        if tableau.implicit and tableau.family not in TRANSPOSES:
            raise ValueError(
                f"adjoint='discrete' with {tableau.name} would need second derivatives of f, because the Jacobian is part of the "
                f"method: choose adjoint='interpolating', or method='Radau'."
            )
        n, m, rows = start.size, theta.size, len(tableau.A)
        wants_theta = wants_theta and m > 0
        self.short = dynamics.vjp_u is not None and not wants_theta
        self.calls, self.recorded = dynamics.calls, recorded or structure is not None
        self.solver = EXPLICIT if structure is None else Solver(tableau.family, structure.kind, dynamics.mass is not None)
        frame = self.frame = Frame()
        put_method(frame, tableau, GAUSS)  # whose weights are the rule of the running cost
        wants = {"wants_theta": wants_theta, "wants_lam": wants_lam}
        products.put_products(frame, dynamics, theta, n, **wants, running_cost=cost, short=self.short)
        frame[slots.SETTING] = np.array([tableau.stages, rows - 1, 0, 0, 0, GAUSS, 0, 0], dtype=np.int64)
        frame[slots.START], frame[slots.TIMES], frame[slots.JUMPS] = start, times, jumps
        frame[slots.COUNT] = self.count = np.zeros(slots.COUNTERS, dtype=np.int64)
        frame[slots.CLOCK] = np.zeros(slots.CLOCKS)
        frame[slots.PLACE] = self.place = np.zeros(2, dtype=np.int64)
        frame[slots.STAGES] = np.zeros((1, rows, n))
        frame.allocate(
            {
                **dict.fromkeys((slots.LAM, slots.Y, slots.U, slots.Y_BAR, slots.STAGE_BAR), (n,)),
                **dict.fromkeys((slots.K, slots.K_BAR), (rows, n)),
                slots.BASIS: (1, rows),
                slots.Q: (frame[slots.WEIGHTS].shape[1] + 1, 0),
                slots.TOTAL: ((m if wants_theta else 0) + 1,),
            }
        )
        if structure is not None:
            if tableau.partner is not None:
                put_partner(frame, tableau, GAUSS, n)
            else:
                put_frozen(frame, tableau, n)
            put_transposed(frame.partner or frame, tableau.partner or tableau, n)
            put_jacobian(frame, dynamics, structure, m)
        self.products = 0 if structure is None else products_for(dynamics, structure)
        self.lam, self.total = frame[slots.LAM], frame[slots.TOTAL]

    @functools.cached_property
    def entry(self) -> Callable:
        name = "discrete-recorded" if self.recorded else "discrete"
        make = functools.partial(make_discrete, recorded=self.recorded, solver=self.solver)
        return self.calls.entry(self.solver.entry_name(name), self.frame, make)


def run_discrete(
    solution: Solution,
    u_T_bar: np.ndarray,
    times: np.ndarray,
    u_bars: np.ndarray,
    cost: tuple[Callback, Callback] | None,
    stats: PullbackStats,
    *,
    wants_theta: bool,
    wants_lam: bool,
) -> SweepResult:
    """Pull back through the steps of `solution`; what was observed at t0 itself is left out."""
    mesh, steps = solution.t, solution.dense.steps
    order = np.argsort(times if mesh[-1] >= mesh[0] else -times, kind="stable")
    order = order[times[order] != mesh[0]]
    start = u_T_bar if steps else np.zeros_like(u_T_bar)
    one = DiscretePass(
        solution.dynamics,
        solution.tableau,
        solution.structure,
        solution.theta,
        start,
        times[order],
        np.ascontiguousarray(u_bars[order]),
        wants_theta=wants_theta,
        wants_lam=wants_lam,
        cost=cost,
    )
    one.frame[slots.FORWARD_T], one.frame[slots.FORWARD_U] = solution.t, solution.u
    one.frame[slots.FORWARD_C] = solution.dense.c
    if solution.stages is not None:
        one.frame[slots.FORWARD_STAGES] = solution.stages
    if solution.stiff is not None:
        one.frame[slots.FORWARD_STIFF] = solution.stiff.astype(np.int64)
    one.frame[slots.FORWARD_COUNT] = np.array([steps], dtype=np.int64)
    status = one.entry(one.frame.argument)
    stats.n_steps = int(one.place[STEPS])
    count_discrete(stats, one, cost is not None and wants_lam)
    if status != SUCCESS:
        raise discrete_error(status, one, solution, cost)
    return SweepResult(one.lam, one.total[:-1], float(one.total[-1]), None)


def count_discrete(stats: PullbackStats, one: DiscretePass, pulls_cost: bool) -> None:
    n_f, n_vjp, n_g, n_product = one.count[: N_PRODUCT + 1].tolist()
    stats.n_f += n_f
    stats.n_g += n_g
    stats.n_g_vjp += n_g if pulls_cost else 0
    stats.n_vjp_u += n_vjp if one.short else 0
    stats.n_vjp += 0 if one.short else n_vjp
    stats.n_jac, stats.n_lu, stats.n_newton = one.count[slots.JACOBIANS : slots.COUNTERS].tolist()
    n_product += stats.n_jac * one.products
    if one.frame[slots.WANTS][products.HAS_SHORT]:
        stats.n_vjp_u += n_product
    else:
        stats.n_vjp += n_product


def discrete_error(status: int, one: DiscretePass, solution: Solution, cost: tuple[Callback, Callback] | None) -> SolveError:
    component, name, cause = None, None, None
    step, lam = int(one.place[STEP]), one.lam
    if status == CALLBACK_RAISED:
        inside = np.linspace(solution.t[step], solution.t[step + 1], 9)
        cause = find_cause(solution, cost, [(float(t), lam) for t in inside])
    else:
        for where, values in (("lam", lam), ("theta_bar", one.total)):
            bad = np.flatnonzero(~np.isfinite(values))
            if bad.size:
                component, name = int(bad[0]), f"{where}[{bad[0]}]"
                break
    return solve_error(
        status,
        phase="adjoint",
        t=float(solution.t[step]),
        step_size=float(solution.t[step] - solution.t[step + 1]),
        component=component,
        name=name,
        callback="vjp (or another callback of the backward pass)",
        cause=cause,
    )
