"""The discrete adjoint: the exact transpose of the accepted steps, of their dense output and of the running cost's quadrature.

"The gradient of the numbers I computed" (discretise, then optimise): it has no tolerance of its own and no error but rounding, and
tends to the continuous gradient with the tolerance of the forward solve (Hager 2000, Numer. Math. 87, 247-282). The mesh, and so
every step size, is held fixed. Stages are evaluated again from the stored states, by the arithmetic of the forward solve.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numba import types

from adjode.adjoints import products
from adjode.adjoints.result import PullbackStats, SweepResult, find_cause
from adjode.callbacks import Callback
from adjode.jit import entry, i8, integers, invoke, kernel, matrix, row, vector
from adjode.loops.quadrature import LOBATTO, LOBATTO_NODES
from adjode.solution import Solution
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS, SolveError, solve_error
from adjode.steppers.explicit import combine, make_stages, make_transposed_stages

# system: (products, f, integral): those of `products.py`; f; and the sum of (df/dtheta)^T w so far, then the running cost
_TYPE = types.Tuple((products.TYPE, i8, vector))
_N_F, _N_VJP, _N_G, _STEP = range(4)  # indices into `count`


@kernel
def _stage_slope(system, t, u, slope, q):
    parts, f, integral = system
    return invoke(f, t, (u, parts[4], slope))


@kernel
def _pull(system, t, u, w, u_bar):
    """u_bar = (df/du)^T w; adds (df/dtheta)^T w to the integral."""
    (vjp, vjp_u, g, g_vjp, theta, wants, u_scratch, theta_bar, g_u, value), f, integral = system
    if wants[products.LAM] == 0:
        return 0
    if wants[products.SHORT] == 1:
        return invoke(vjp_u, t, (u, theta, w, u_bar))
    status = invoke(vjp, t, (u, theta, w, u_bar, theta_bar))
    if wants[products.THETA] == 1:
        for i in range(theta.size):
            integral[i] += theta_bar[i]
    return status


@kernel
def _cost_at(system, t, u, weight):
    """Add `weight` times g to the running cost and of dg/dtheta to theta_bar; leave dg/du in g_u."""
    (vjp, vjp_u, g, g_vjp, theta, wants, u_scratch, theta_bar, g_u, value), f, integral = system
    status = invoke(g, t, (u, theta, value))
    integral[integral.size - 1] += weight * value[0]
    if wants[products.LAM] == 0:
        return status
    status |= invoke(g_vjp, t, (u, theta, g_u, theta_bar))
    if wants[products.THETA] == 1:
        for i in range(theta.size):
            integral[i] += weight * theta_bar[i]
    return status


@kernel
def _basis(b, PT, x):
    """b[0, i] = b_i(x), the weights of the dense output."""
    degree = PT.shape[0]
    for i in range(PT.shape[1]):
        total = 0.0
        for p in range(degree - 1, -1, -1):
            total = PT[p, i] + x * total
        b[0, i] = x * total


@kernel
def _seed_inside(b, h, weight, u_bar, y_bar, K_bar):
    """Transpose of u = y + h sum_i b_i K_i for the cotangent weight * u_bar."""
    for k in range(y_bar.size):
        y_bar[k] += weight * u_bar[k]
    for i in range(K_bar.shape[0]):
        w = h * b[0, i] * weight
        if w != 0.0:
            for k in range(y_bar.size):
                K_bar[i, k] += w * u_bar[k]


_stages = make_stages(_stage_slope)
_transposed_stages = make_transposed_stages(_pull)


@kernel
def _seed_cost(system, t, h, t_new, nodes, weights, PT, b, y, y_new, stage, y_bar, y_new_bar, K, K_bar):
    """The running cost of one step: its value, and its cotangents into the step."""
    g_u = system[0][8]
    status = _cost_at(system, t, y, h * weights[0])
    for k in range(y.size):
        y_bar[k] += h * weights[0] * g_u[k]
    for i in range(nodes.size):
        _basis(b, PT, nodes[i])
        combine(stage, y, h, b, 0, K, K.shape[0])
        status |= _cost_at(system, t + nodes[i] * h, stage, h * weights[i + 1])
        _seed_inside(b, h, h * weights[i + 1], g_u, y_bar, K_bar)
    status |= _cost_at(system, t_new, y_new, h * weights[nodes.size + 1])
    for k in range(y.size):
        y_new_bar[k] += h * weights[nodes.size + 1] * g_u[k]
    return status


def _discrete(system, tableau, last, mesh, seeds, cost_rule, count, lam, vectors, matrices, q_rows):
    """Pull lam = u_T_bar back to t0 over all steps; observations come sorted by step, with the step of each."""
    A, c, E, PT = tableau
    mesh_t, mesh_u = mesh
    times, steps, u_bars = seeds
    K, K_bar, b, no_q = matrices
    nodes, weights = cost_rule
    y_bar, stage, stage_bar, y_new = vectors
    has_cost = weights.size > 0
    j = times.size - 1
    for step in range(mesh_t.size - 2, -1, -1):
        count[_STEP] = step
        t, t_new, y = mesh_t[step], mesh_t[step + 1], row(mesh_u, step)
        h, top = t_new - t, last
        for k in range(y.size):
            K_bar[last, k] = K_bar[0, k]  # the first stage of the step after is the last of this one
            y_bar[k] = 0.0
        for i in range(K_bar.shape[0]):
            if i != last:
                for k in range(y.size):
                    K_bar[i, k] = 0.0
        status = invoke(system[1], t, (y, system[0][4], row(K, 0)))
        if has_cost or (j >= 0 and steps[j] == step):  # the dense output takes part, with all its stages
            top = A.shape[0] - 1
            made, t_made = _stages(system, A, c, t, h, t_new, y, y_new, stage, K, no_q, q_rows, 1, last)
            status |= made
            made, t_made = _stages(system, A, c, t, h, t + c[top] * h, y, stage, stage_bar, K, no_q, q_rows, last + 1, top)
            count[_N_F] += 1 + top
        else:
            before = last - 1
            made, t_made = _stages(system, A, c, t, h, t + c[before] * h, y, stage, stage_bar, K, no_q, q_rows, 1, before)
            count[_N_F] += last
        status |= made
        while j >= 0 and steps[j] == step:
            if times[j] == t_new:
                for k in range(y.size):
                    lam[k] += u_bars[j, k]
            else:
                _basis(b, PT, (times[j] - t) / h)
                _seed_inside(b, h, 1.0, row(u_bars, j), y_bar, K_bar)
            j -= 1
        if has_cost:
            status |= _seed_cost(system, t, h, t_new, nodes, weights, PT, b, y, y_new, stage, y_bar, lam, K, K_bar)
            count[_N_G] += weights.size
        pulled, t_pulled = _transposed_stages(system, A, c, t, h, t_new, y, y_bar, lam, stage, stage_bar, K, K_bar, last, top)
        count[_N_VJP] += top
        if status | pulled != 0:
            return CALLBACK_RAISED
        finite = 0.0
        for k in range(y.size):
            lam[k] = y_bar[k]
            finite += 0.0 * lam[k]
        if finite != 0.0:
            return NON_FINITE
    if mesh_t.size > 1:
        count[_N_VJP] += 1
        if _pull(system, mesh_t[0], row(mesh_u, 0), row(K_bar, 0), stage_bar) != 0:
            return CALLBACK_RAISED
        for k in range(lam.size):
            lam[k] += stage_bar[k]
    return SUCCESS


@functools.cache
def _entry() -> Callable:
    signature = (
        _TYPE,
        types.Tuple((matrix, vector, matrix, matrix)),
        i8,
        types.Tuple((vector, matrix)),
        types.Tuple((vector, integers, matrix)),
        types.Tuple((vector, vector)),
        integers,
        vector,
        types.UniTuple(vector, 4),
        types.UniTuple(matrix, 4),
        integers,
    )
    return entry(_discrete, signature, "discrete")


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
    tableau, n, m = solution.tableau, solution.u.shape[1], solution.theta.size
    wants_theta = wants_theta and m > 0
    short = solution.dynamics.vjp_u is not None and not wants_theta
    parts = products.make_products(
        solution.dynamics, solution.theta, n, wants_theta=wants_theta, wants_lam=wants_lam, cost=cost, short=short
    )
    integral = np.zeros((m if wants_theta else 0) + 1)
    times, steps, u_bars = _by_step(solution.t, times, u_bars)
    used = solution.dense.steps  # steps after the last cotangent have no part in the gradient
    if cost is None and not u_T_bar.any():
        kept = np.flatnonzero(u_bars.any(axis=1))
        used = int(steps[kept[-1]]) + 1 if kept.size else 0
        times, steps, u_bars = (array[steps < used] for array in (times, steps, u_bars))
    rows = len(tableau.A)
    count = np.zeros(4, dtype=np.int64)
    lam = u_T_bar.copy() if used else np.zeros(n)
    status = _entry()(
        (parts, solution.dynamics.f.handle, integral),
        tableau.for_kernels,
        tableau.stages,
        (solution.t[: used + 1], solution.u[: used + 1]),
        (times, steps, u_bars),
        (LOBATTO_NODES, LOBATTO) if cost else (np.zeros(0), np.zeros(0)),
        count,
        lam,
        tuple(np.zeros(n) for _ in range(4)),
        (np.zeros((rows, n)), np.zeros((rows, n)), np.zeros((1, rows)), np.zeros((1, 0))),
        np.zeros(rows, dtype=np.int64),
    )
    stats.n_steps = used
    stats.n_f += int(count[_N_F])
    stats.n_g += int(count[_N_G])
    if wants_lam:
        stats.n_g_vjp += int(count[_N_G])
        stats.n_vjp_u += int(count[_N_VJP]) if short else 0
        stats.n_vjp += 0 if short else int(count[_N_VJP])
    if status == SUCCESS and not np.isfinite(integral).all():
        status = NON_FINITE
    if status != SUCCESS:
        raise _discrete_error(status, solution, cost, int(count[_STEP]), lam, integral)
    return SweepResult(lam, integral[:-1], float(integral[-1]), None)


def _by_step(mesh: np.ndarray, times: np.ndarray, u_bars: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations sorted along the mesh, with the step k of each, t[k] < time <= t[k+1]; those at t[0] left out."""
    sign = 1.0 if mesh[-1] >= mesh[0] else -1.0
    order = np.argsort(sign * times, kind="stable")
    order = order[times[order] != mesh[0]]
    steps = np.searchsorted(sign * mesh, sign * times[order], side="left") - 1
    return times[order], steps.astype(np.int64), np.ascontiguousarray(u_bars[order])


def _discrete_error(
    status: int, solution: Solution, cost: tuple[Callback, Callback] | None, step: int, lam: np.ndarray, integral: np.ndarray
) -> SolveError:
    component, name, cause = None, None, None
    if status == CALLBACK_RAISED:
        inside = np.linspace(*solution.t[step : step + 2], 9)
        cause = find_cause(solution, cost, [(float(t), lam) for t in inside])
    else:
        where, values = ("lam", lam) if not np.isfinite(lam).all() else ("theta_bar", integral)
        component = int(np.flatnonzero(~np.isfinite(values))[0])
        name = f"{where}[{component}]"
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
