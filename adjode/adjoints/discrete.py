"""The discrete adjoint: the exact transpose of the accepted steps, of their dense output and of the running cost's quadrature.

"The gradient of the numbers I computed" (discretise, then optimise): it has no tolerance of its own and no error but rounding, and
tends to the continuous gradient with the tolerance of the forward solve (Hager 2000, Numer. Math. 87, 247-282). The mesh, and so
every step size, is held fixed. Stages are evaluated again from the stored states, by the arithmetic of the forward solve.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from adjode import frame as slots
from adjode.adjoints import products
from adjode.adjoints.result import PullbackStats, SweepResult, find_cause
from adjode.callbacks import Callback
from adjode.calls import Calls
from adjode.frame import Frame, frame_type, integers_at, matrix_at, vector_at
from adjode.jit import entry, kernel, row
from adjode.loops.loop import put_method
from adjode.loops.quadrature import GAUSS
from adjode.solution import Solution
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS, SolveError, solve_error
from adjode.steppers.explicit import combine, make_stages, make_transposed_stages

# In the frame: Y is lam; TOTAL the sum of (df/dtheta)^T w so far, then the running cost; JUMPS the cotangents observed at TIMES;
# row 0 of WEIGHTS, with NODES, the running cost's rule; BASIS (1, r) the weights of the dense output at one place.
_N_F, _N_VJP, _N_G, _STEP = range(4)  # indices into COUNT


@kernel
def _cost_at(frame, t, u, weight):
    """Add `weight` times g to the running cost and of dg/dtheta to theta_bar; leave dg/du in G_U."""
    wants, total = integers_at(frame, slots.WANTS), vector_at(frame, slots.TOTAL)
    status = products.cost(frame, t, u)
    total[total.size - 1] += weight * vector_at(frame, slots.VALUE)[0]
    if wants[products.LAM] == 0:
        return status
    status |= products.pull_cost(frame, t, u)
    if wants[products.THETA] == 1:
        theta_bar = vector_at(frame, slots.THETA_BAR)
        for i in range(theta_bar.size):
            total[i] += weight * theta_bar[i]
    return status


@kernel
def _place_in_step(frame, x):
    """BASIS[0, i] = b_i(x), the weights of the dense output."""
    PT, basis = matrix_at(frame, slots.PT), matrix_at(frame, slots.BASIS)
    for i in range(PT.shape[1]):
        total = 0.0
        for p in range(PT.shape[0] - 1, -1, -1):
            total = PT[p, i] + x * total
        basis[0, i] = x * total


@kernel
def _seed_inside(frame, h, weight, u_bar):
    """Transpose of u = y + h sum_i b_i(x) K[i], for the cotangent weight * u_bar."""
    basis, y_bar, K_bar = matrix_at(frame, slots.BASIS), vector_at(frame, slots.Y_BAR), matrix_at(frame, slots.K_BAR)
    for k in range(y_bar.size):
        y_bar[k] += weight * u_bar[k]
    for i in range(K_bar.shape[0]):
        w = h * basis[0, i] * weight
        if w != 0.0:
            for k in range(y_bar.size):
                K_bar[i, k] += w * u_bar[k]


@kernel
def _seed_cost(frame, t, h, t_new, y, lam):
    """The running cost of one step: its value, and its cotangents into the step."""
    weights, nodes, g_u = matrix_at(frame, slots.WEIGHTS), vector_at(frame, slots.NODES), vector_at(frame, slots.G_U)
    y_bar, stage, K = vector_at(frame, slots.Y_BAR), vector_at(frame, slots.STAGE), matrix_at(frame, slots.K)
    status = _cost_at(frame, t, y, h * weights[0, 0])
    for k in range(y.size):
        y_bar[k] += h * weights[0, 0] * g_u[k]
    for i in range(nodes.size):
        _place_in_step(frame, nodes[i])
        combine(stage, y, h, matrix_at(frame, slots.BASIS), 0, K, K.shape[0])
        status |= _cost_at(frame, t + nodes[i] * h, stage, h * weights[0, i + 1])
        _seed_inside(frame, h, h * weights[0, i + 1], g_u)
    end = nodes.size + 1
    status |= _cost_at(frame, t_new, vector_at(frame, slots.Y_NEW), h * weights[0, end])
    for k in range(y.size):
        lam[k] += h * weights[0, end] * g_u[k]
    integers_at(frame, slots.COUNT)[_N_G] += weights.shape[1]
    return status


@kernel
def _begin_step(frame, last):
    """Clear the cotangents of the step; the first stage of the step after it is its last."""
    K_bar, y_bar = matrix_at(frame, slots.K_BAR), vector_at(frame, slots.Y_BAR)
    for k in range(y_bar.size):
        y_bar[k] = 0.0
        K_bar[last, k] = K_bar[0, k]
    for i in range(K_bar.shape[0]):
        if i != last:
            for k in range(y_bar.size):
                K_bar[i, k] = 0.0


@kernel
def _seed_observations(frame, j, step, t, h, t_new, lam):
    """Add the cotangents of the observations in this step, from number j down; the number of the next."""
    times, step_of, u_bars = vector_at(frame, slots.TIMES), integers_at(frame, slots.STEP_OF), matrix_at(frame, slots.JUMPS)
    while j >= 0 and step_of[j] == step:
        if times[j] == t_new:
            for k in range(lam.size):
                lam[k] += u_bars[j, k]
        else:
            _place_in_step(frame, (times[j] - t) / h)
            _seed_inside(frame, h, 1.0, row(u_bars, j))
        j -= 1
    return j


@functools.cache
def _entry(calls: Calls) -> Callable:
    call_f, pull_state = calls.f, products.make_pull_state(calls)

    @kernel
    def stage_slope(frame, t, u, slope, q):
        return call_f(frame, t, u, slope)

    @kernel
    def pull(frame, t, u, w, u_bar):
        """u_bar = (df/du)^T w; adds (df/dtheta)^T w to the total."""
        wants = integers_at(frame, slots.WANTS)
        if wants[products.LAM] == 0:
            return 0
        theta_bar = vector_at(frame, slots.THETA_BAR)
        status = pull_state(frame, t, u, w, u_bar, theta_bar)
        if wants[products.THETA] == 1:
            total = vector_at(frame, slots.TOTAL)
            for i in range(theta_bar.size):
                total[i] += theta_bar[i]
        return status

    stages, transposed_stages = make_stages(stage_slope), make_transposed_stages(pull)

    @kernel
    def stages_again(frame, t, h, t_new, y, last, dense):
        """K of the step as in the forward solve, as far as its transpose needs it: (status, index of the last stage)."""
        count, c, K = integers_at(frame, slots.COUNT), vector_at(frame, slots.C), matrix_at(frame, slots.K)
        stage, scratch = vector_at(frame, slots.STAGE), vector_at(frame, slots.STAGE_BAR)
        status = stage_slope(frame, t, y, row(K, 0), row(matrix_at(frame, slots.Q), 0))
        if not dense:
            made, t_made = stages(frame, t, h, t + c[last - 1] * h, y, stage, scratch, 1, last - 1)
            count[_N_F] += last
            return status | made, last
        top = c.size - 1
        made, t_made = stages(frame, t, h, t_new, y, vector_at(frame, slots.Y_NEW), scratch, 1, last)
        extra, t_made = stages(frame, t, h, t + c[top] * h, y, stage, scratch, last + 1, top)
        count[_N_F] += 1 + top
        return status | made | extra, top

    @kernel
    def first_stage(frame):
        """The transpose of K[0] = f(t0, u0), which no step before has taken over."""
        lam, u_bar = vector_at(frame, slots.Y), vector_at(frame, slots.Y_BAR)
        u0, w = row(matrix_at(frame, slots.FORWARD_U), 0), row(matrix_at(frame, slots.K_BAR), 0)
        for k in range(u_bar.size):
            u_bar[k] = 0.0
        integers_at(frame, slots.COUNT)[_N_VJP] += 1
        if pull(frame, vector_at(frame, slots.FORWARD_T)[0], u0, w, u_bar) != 0:
            return CALLBACK_RAISED
        for k in range(lam.size):
            lam[k] += u_bar[k]
        return SUCCESS

    def discrete(frame):
        """Pull lam = u_T_bar back to t0, over all steps."""
        mesh_t, mesh_u, lam = vector_at(frame, slots.FORWARD_T), matrix_at(frame, slots.FORWARD_U), vector_at(frame, slots.Y)
        count, step_of, y_bar = integers_at(frame, slots.COUNT), integers_at(frame, slots.STEP_OF), vector_at(frame, slots.Y_BAR)
        has_cost, last = integers_at(frame, slots.WANTS)[products.COST] == 1, integers_at(frame, slots.SETTING)[0]
        j = step_of.size - 1
        for step in range(mesh_t.size - 2, -1, -1):
            count[_STEP] = step
            t, t_new, y = mesh_t[step], mesh_t[step + 1], row(mesh_u, step)
            h = t_new - t
            _begin_step(frame, last)
            dense = has_cost or (j >= 0 and step_of[j] == step)
            status, top = stages_again(frame, t, h, t_new, y, last, dense)
            if dense:
                j = _seed_observations(frame, j, step, t, h, t_new, lam)
                if has_cost:
                    status |= _seed_cost(frame, t, h, t_new, y, lam)
            pulled, t_pulled = transposed_stages(frame, t, h, t_new, y, lam, last, top)
            count[_N_VJP] += top
            if status | pulled != 0:
                return CALLBACK_RAISED
            finite = 0.0
            for k in range(lam.size):
                lam[k] = y_bar[k]
                finite += 0.0 * lam[k]
            if finite != 0.0:
                return NON_FINITE
        return first_stage(frame) if mesh_t.size > 1 else SUCCESS

    return entry(discrete, (frame_type,), "discrete", calls.entry_key())


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
    times, steps, u_bars = _by_step(solution.t, times, u_bars)
    used = solution.dense.steps  # steps after the last cotangent have no part in the gradient
    if cost is None and not u_T_bar.any():
        kept = np.flatnonzero(u_bars.any(axis=1))
        used = int(steps[kept[-1]]) + 1 if kept.size else 0
        times, steps, u_bars = (array[steps < used] for array in (times, steps, u_bars))
    frame, rows = Frame(), len(tableau.A)
    put_method(frame, tableau, GAUSS)  # whose weights are the rule of the running cost
    wants = {"wants_theta": wants_theta, "wants_lam": wants_lam}
    products.put_products(frame, solution.dynamics, solution.theta, n, **wants, running_cost=cost, short=short)
    frame[slots.SETTING] = np.array([tableau.stages], dtype=np.int64)
    frame[slots.FORWARD_T], frame[slots.FORWARD_U] = solution.t[: used + 1], solution.u[: used + 1]
    frame[slots.TIMES], frame[slots.STEP_OF], frame[slots.JUMPS] = times, steps, u_bars
    frame[slots.COUNT] = count = np.zeros(4, dtype=np.int64)
    frame[slots.Y] = lam = u_T_bar.copy() if used else np.zeros(n)
    frame[slots.TOTAL] = total = np.zeros((m if wants_theta else 0) + 1)
    frame.allocate(
        {
            **dict.fromkeys((slots.Y_BAR, slots.Y_NEW, slots.STAGE, slots.STAGE_BAR), (n,)),
            **dict.fromkeys((slots.K, slots.K_BAR), (rows, n)),
            slots.BASIS: (1, rows),
            slots.Q: (frame[slots.WEIGHTS].shape[1] + 1, 0),
        }
    )
    status = _entry(solution.dynamics.calls)(frame.argument)
    stats.n_steps = used
    stats.n_f += int(count[_N_F])
    stats.n_g += int(count[_N_G])
    if wants_lam:
        stats.n_g_vjp += int(count[_N_G])
        stats.n_vjp_u += int(count[_N_VJP]) if short else 0
        stats.n_vjp += 0 if short else int(count[_N_VJP])
    if status == SUCCESS and not np.isfinite(total).all():
        status = NON_FINITE
    if status != SUCCESS:
        raise _discrete_error(status, solution, cost, int(count[_STEP]), lam, total)
    return SweepResult(lam, total[:-1], float(total[-1]), None)


def _by_step(mesh: np.ndarray, times: np.ndarray, u_bars: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations sorted along the mesh, with the step k of each, t[k] < time <= t[k+1]; those at t[0] left out."""
    sign = 1.0 if mesh[-1] >= mesh[0] else -1.0
    order = np.argsort(sign * times, kind="stable")
    order = order[times[order] != mesh[0]]
    steps = np.searchsorted(sign * mesh, sign * times[order], side="left") - 1
    return times[order], steps.astype(np.int64), np.ascontiguousarray(u_bars[order])


def _discrete_error(
    status: int, solution: Solution, cost: tuple[Callback, Callback] | None, step: int, lam: np.ndarray, total: np.ndarray
) -> SolveError:
    component, name, cause = None, None, None
    if status == CALLBACK_RAISED:
        inside = np.linspace(solution.t[step], solution.t[step + 1], 9)
        cause = find_cause(solution, cost, [(float(t), lam) for t in inside])
    else:
        where, values = ("lam", lam) if not np.isfinite(lam).all() else ("theta_bar", total)
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
