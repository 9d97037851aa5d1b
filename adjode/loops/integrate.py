"""The loop that serves every pass: step, estimate, accept or reject, store, stop.

It knows no method (tableaus are data) and no meaning (`make_integrate` closes over three kernels):

- `derivative(system, t, y, dy, q) -> status`: the right-hand side; may leave the integrand of the quadrature in `q`.
- `integrand(system, t, y, q) -> status`: the integrand of the quadrature alone; None for a pass without one.
- `at_stop(system, k, y)`: what happens to the state at stop k (a jump, for instance); None for a pass with no stop but its end.

A `Loop` (loop.py) fills the buffers from Python. The kernel can be left and entered again, which is how its store grows.
Indices into the arrays `clock`, `count`, `setting` and `control` are named below.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.jit import kernel, plane, row
from adjode.loops.control import make_initial_step, step_factor
from adjode.loops.quadrature import AUGMENTED_ALL, GAUSS, GAUSS_ORDER, gauss_estimate, quadrature_step
from adjode.status import CALLBACK_RAISED, MAX_STEPS, NON_FINITE, STEP_TOO_SMALL, STORE_FULL, SUCCESS
from adjode.steppers.explicit import combine, error_norm, interpolate, make_stages

# clock: floats that change. T_TRIED and H_TRIED describe the last evaluation or step tried, for error messages.
T, H, PREVIOUS_ERROR, T_TRIED, H_TRIED = range(5)
# count: integers that change.
STEPS, REJECTED, DERIVATIVES, INTEGRANDS, STOP, FRESH, RETRY = range(7)
# setting: integers that do not. LAST_STAGE is s; INTEGRAND_FREE: the derivative writes the whole integrand into q.
LAST_STAGE, ADAPTIVE, DENSE, RECORD, RULE, MAX_ATTEMPTS, INTEGRAND_FREE = range(7)
# control: floats that do not.
RTOL, Q_RTOL, Q_ATOL, MAX_STEP, DIRECTION, SPAN, ERROR_ORDER = range(7)

_SNAP = 1e-6  # a step that would leave less than this fraction of itself before a stop is stretched to the stop
_EPS = 2.220446049250313e-16


@kernel
def _all_finite(x):
    total = 0.0
    for k in range(x.size):
        total += 0.0 * x[k]
    return total == 0.0


def make_integrate(derivative: Callable, integrand: Callable | None = None, at_stop: Callable | None = None) -> Callable:
    stages = make_stages(derivative)
    initial_step = make_initial_step(derivative)
    integrates, stops_inside = integrand is not None, at_stop is not None

    @kernel
    def enter(system, t, clock, count, setting, control, y, stage, K, q, q_rows, atol):
        """Evaluate K[0] (and the integrand) at a new place; choose the first step."""
        clock[T_TRIED], clock[H_TRIED] = t, 0.0
        count[DERIVATIVES] += 1
        for k in range(y.size):
            stage[k] = y[k]  # where an exception came from
        if derivative(system, t, stage, row(K, 0), row(q, 0)) != 0:
            return CALLBACK_RAISED
        if not _all_finite(row(K, 0)):
            return NON_FINITE
        if integrates:
            if setting[RULE] == GAUSS and not setting[INTEGRAND_FREE]:
                count[INTEGRANDS] += 1
                if integrand(system, t, stage, row(q, 0)) != 0:
                    return CALLBACK_RAISED
        count[FRESH] = 1
        if clock[H] == 0.0:
            count[DERIVATIVES] += 1
            status, h = initial_step(
                system, t, control[DIRECTION], control[SPAN], y, stage, K, q, q_rows, atol, control[RTOL], control[ERROR_ORDER]
            )
            if status != 0:
                return CALLBACK_RAISED
            clock[H] = h
        return SUCCESS

    @kernel
    def gauss_nodes(system, t, h, t_new, setting, count, nodes, y, y_new, stage, coefficients, q):
        """Evaluate the integrand at the nodes of the step just computed."""
        for i in range(1, nodes.size + 1):
            interpolate(stage, y, coefficients, nodes[i - 1])
            count[INTEGRANDS] += 1
            if integrand(system, t + nodes[i - 1] * h, stage, row(q, i)) != 0:
                return CALLBACK_RAISED
        if not setting[INTEGRAND_FREE]:
            count[INTEGRANDS] += 1
            if integrand(system, t_new, y_new, row(q, nodes.size + 1)) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    def integrate(system, tableau, rule, setting, control, stops, atol, clock, count, vectors, K, q, mesh):
        A, c, E, PT = tableau
        weights, nodes, q_rows = rule
        y, y_new, stage, error, zeros, total, increment, q_zeros = vectors
        mesh_t, mesh_u, mesh_c = mesh
        last, final = setting[LAST_STAGE], stops.size - 1
        adaptive, dense, record = setting[ADAPTIVE] == 1, setting[DENSE] == 1, setting[RECORD] == 1
        order, rtol = control[ERROR_ORDER], control[RTOL]
        while True:
            t, k_stop = clock[T], count[STOP]
            if t == stops[k_stop]:
                if k_stop == final:
                    if record:
                        mesh_t[count[STEPS]] = t
                        for k in range(y.size):
                            mesh_u[count[STEPS], k] = y[k]
                    return SUCCESS
                if stops_inside:
                    at_stop(system, k_stop, y)
                count[STOP] += 1
                count[FRESH] = 0
                continue
            if count[FRESH] == 0:
                status = enter(system, t, clock, count, setting, control, y, stage, K, q, q_rows, atol)
                if status != SUCCESS:
                    return status
            slot = count[STEPS] if record else 0
            if slot == mesh_c.shape[0]:
                return STORE_FULL
            if count[STEPS] + count[REJECTED] >= setting[MAX_ATTEMPTS]:
                return MAX_STEPS

            h_free = min(clock[H], control[MAX_STEP])
            left = abs(stops[k_stop] - t)
            lands = h_free * (1.0 + _SNAP) >= left
            h = control[DIRECTION] * (left if lands else h_free)
            t_new = stops[k_stop] if lands else t + h
            h = t_new - t  # what the mesh will say, to the last bit: the discrete adjoint takes the step again
            clock[T_TRIED], clock[H_TRIED] = t, h

            status, t_last = stages(system, A, c, t, h, t_new, y, y_new, stage, K, q, q_rows, 1, last)
            count[DERIVATIVES] += last
            if status != 0:
                clock[T_TRIED] = t_last
                return CALLBACK_RAISED
            first, second, size = 0.0, 0.0, 0
            if integrates:
                if setting[RULE] > GAUSS:  # the stages have provided the integrand
                    first, second = quadrature_step(h, weights, q, total, increment, q_zeros, control[Q_ATOL], control[Q_RTOL])
                    if math.isnan(first) or setting[RULE] == AUGMENTED_ALL:
                        size = total.size
                    else:
                        first, second = 0.0, 0.0
            if adaptive:
                norm = error_norm(h, E, K, last + 1, y, y_new, zeros, error, atol, rtol, first, second, size)
            else:
                norm = 0.0 if _all_finite(y_new) and not math.isnan(first) else math.nan
            factor = step_factor(norm, clock[PREVIOUS_ERROR], order)

            if norm <= 1.0 and dense:
                if c.size - 1 > last:
                    status, t_last = stages(
                        system, A, c, t, h, t + c[c.size - 1] * h, y, stage, error, K, q, q_rows, last + 1, c.size - 1
                    )
                    count[DERIVATIVES] += c.size - 1 - last
                    if status != 0:
                        clock[T_TRIED] = t_last
                        return CALLBACK_RAISED
                for p in range(PT.shape[0]):
                    combine(row(plane(mesh_c, slot), p), zeros, h, PT, p, K, c.size)
            if integrates:
                if norm <= 1.0 and setting[RULE] == GAUSS:
                    if gauss_nodes(system, t, h, t_new, setting, count, nodes, y, y_new, stage, plane(mesh_c, slot), q) != 0:
                        return CALLBACK_RAISED
                    first, second = quadrature_step(h, weights, q, total, increment, q_zeros, control[Q_ATOL], control[Q_RTOL])
                    estimate = gauss_estimate(first, second, total.size)
                    if adaptive or math.isnan(estimate):
                        factor = min(factor, step_factor(estimate, 1.0, GAUSS_ORDER))
                        norm = estimate if not estimate <= norm else norm

            if not norm <= 1.0:
                count[REJECTED] += 1
                count[RETRY] = 1
                clock[H] = abs(h) * factor
                if not adaptive or clock[H] <= 10.0 * _EPS * max(abs(t), 1e-100 * control[SPAN]):
                    return STEP_TOO_SMALL if norm < math.inf else NON_FINITE
                continue

            if record:
                mesh_t[slot] = t
                for k in range(y.size):
                    mesh_u[slot, k] = y[k]
            for k in range(y.size):
                y[k] = y_new[k]
                K[0, k] = K[last, k]
            if integrates:
                for k in range(total.size):
                    total[k] += increment[k]
                    q[0, k] = q[weights.shape[1] - 1, k]
            count[STEPS] += 1
            clock[T] = t_new
            if adaptive:
                if count[RETRY] == 1:
                    factor = min(factor, 1.0)
                    count[RETRY] = 0
                clock[H] = abs(h) * factor
                if not lands:
                    clock[PREVIOUS_ERROR] = norm
                elif factor >= 1.0:  # the stop cut this step short: go on with the step that was wanted
                    clock[H] = max(clock[H], h_free)

    return integrate
