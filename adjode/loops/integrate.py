"""The loop that serves every pass: step, estimate, accept or reject, store, stop.

It knows no method (tableaus are data) and no meaning (`make_integrate` closes over three kernels):

- `derivative(frame, t, y, dy, q) -> status`: the right-hand side; may leave the integrand of the quadrature in `q`.
- `integrand(frame, t, y, q) -> status`: the integrand of the quadrature alone; None for a pass without one.
- `at_stop(frame, k, y)`: what happens to the state at stop k (a jump, for instance); None for a pass with no stop but its end.

Everything it works on is in a frame (frame.py), which a `Loop` (loop.py) fills from Python. The kernel can be left and entered
again, which is how its store grows. Indices into the arrays `clock`, `count`, `setting` and `control` are named below.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode import frame as slots
from adjode.frame import cube_at, integers_at, matrix_at, vector_at
from adjode.jit import kernel, plane, row
from adjode.loops.control import make_initial_step, step_factor
from adjode.loops.quadrature import AUGMENTED_ALL, GAUSS, GAUSS_ORDER, gauss_estimate, quadrature_step
from adjode.status import CALLBACK_RAISED, MAX_STEPS, NON_FINITE, STEP_TOO_SMALL, STORE_FULL, SUCCESS
from adjode.steppers.explicit import dense_output, error_norm, interpolate, make_stages

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
    def enter(frame, t):
        """Evaluate K[0] (and the integrand) at a new place; choose the first step."""
        clock, count, setting = vector_at(frame, slots.CLOCK), integers_at(frame, slots.COUNT), integers_at(frame, slots.SETTING)
        control, K, q = vector_at(frame, slots.CONTROL), matrix_at(frame, slots.K), matrix_at(frame, slots.Q)
        y, stage = vector_at(frame, slots.Y), vector_at(frame, slots.STAGE)
        clock[T_TRIED], clock[H_TRIED] = t, 0.0
        count[DERIVATIVES] += 1
        for k in range(y.size):
            stage[k] = y[k]  # where an exception came from
        if derivative(frame, t, stage, row(K, 0), row(q, 0)) != 0:
            return CALLBACK_RAISED
        if not _all_finite(row(K, 0)):
            return NON_FINITE
        if integrates:
            if setting[RULE] == GAUSS and not setting[INTEGRAND_FREE]:
                count[INTEGRANDS] += 1
                if integrand(frame, t, stage, row(q, 0)) != 0:
                    return CALLBACK_RAISED
        count[FRESH] = 1
        if clock[H] == 0.0:
            count[DERIVATIVES] += 1
            status, h = initial_step(frame, t, control[DIRECTION], control[SPAN], control[RTOL], control[ERROR_ORDER])
            if status != 0:
                return CALLBACK_RAISED
            clock[H] = h
        return SUCCESS

    @kernel
    def gauss_nodes(frame, t, h, t_new, coefficients):
        """Evaluate the integrand at the nodes of the step just computed."""
        count, setting = integers_at(frame, slots.COUNT), integers_at(frame, slots.SETTING)
        nodes, q = vector_at(frame, slots.NODES), matrix_at(frame, slots.Q)
        y, y_new, stage = vector_at(frame, slots.Y), vector_at(frame, slots.Y_NEW), vector_at(frame, slots.STAGE)
        for i in range(1, nodes.size + 1):
            interpolate(stage, y, coefficients, nodes[i - 1])
            count[INTEGRANDS] += 1
            if integrand(frame, t + nodes[i - 1] * h, stage, row(q, i)) != 0:
                return CALLBACK_RAISED
        if not setting[INTEGRAND_FREE]:
            count[INTEGRANDS] += 1
            if integrand(frame, t_new, y_new, row(q, nodes.size + 1)) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    @kernel
    def try_step(frame, t, h, t_new, coefficients):
        """Take one step: (status, its error norm, the factor for the next step). At most 1 is an accepted step; NaN is not."""
        clock, count, setting = vector_at(frame, slots.CLOCK), integers_at(frame, slots.COUNT), integers_at(frame, slots.SETTING)
        control, c, total = vector_at(frame, slots.CONTROL), vector_at(frame, slots.C), vector_at(frame, slots.TOTAL)
        y, y_new, stage = vector_at(frame, slots.Y), vector_at(frame, slots.Y_NEW), vector_at(frame, slots.STAGE)
        last, adaptive = setting[LAST_STAGE], setting[ADAPTIVE] == 1
        status, t_last = stages(frame, t, h, t_new, y, y_new, stage, 1, last)
        count[DERIVATIVES] += last
        if status != 0:
            clock[T_TRIED] = t_last
            return CALLBACK_RAISED, 0.0, 0.0
        first, second, size = 0.0, 0.0, 0
        if integrates:
            if setting[RULE] > GAUSS:  # the stages have provided the integrand
                first, second = quadrature_step(frame, h, control[Q_ATOL], control[Q_RTOL])
                if math.isnan(first) or setting[RULE] == AUGMENTED_ALL:
                    size = total.size
                else:
                    first, second = 0.0, 0.0
        if adaptive:
            norm = error_norm(frame, h, last + 1, control[RTOL], first, second, size)
        else:
            norm = 0.0 if _all_finite(y_new) and not math.isnan(first) else math.nan
        factor = step_factor(norm, clock[PREVIOUS_ERROR], control[ERROR_ORDER])
        if not norm <= 1.0 or not setting[DENSE]:
            return SUCCESS, norm, factor
        if c.size - 1 > last:
            top = c.size - 1
            status, t_last = stages(frame, t, h, t + c[top] * h, y, stage, vector_at(frame, slots.ERROR), last + 1, top)
            count[DERIVATIVES] += top - last
            if status != 0:
                clock[T_TRIED] = t_last
                return CALLBACK_RAISED, 0.0, 0.0
        dense_output(frame, h, coefficients)
        if integrates:
            if setting[RULE] == GAUSS:
                if gauss_nodes(frame, t, h, t_new, coefficients) != SUCCESS:
                    return CALLBACK_RAISED, 0.0, 0.0
                first, second = quadrature_step(frame, h, control[Q_ATOL], control[Q_RTOL])
                estimate = gauss_estimate(first, second, total.size)
                if adaptive or math.isnan(estimate):
                    factor = min(factor, step_factor(estimate, 1.0, GAUSS_ORDER))
                    norm = estimate if not estimate <= norm else norm
        return SUCCESS, norm, factor

    @kernel
    def accept(frame, slot, t):
        """Record the step and move to its end."""
        y, y_new, K = vector_at(frame, slots.Y), vector_at(frame, slots.Y_NEW), matrix_at(frame, slots.K)
        setting = integers_at(frame, slots.SETTING)
        if setting[RECORD]:
            mesh_t, mesh_u = vector_at(frame, slots.MESH_T), matrix_at(frame, slots.MESH_U)
            mesh_t[slot] = t
            for k in range(y.size):
                mesh_u[slot, k] = y[k]
        last = setting[LAST_STAGE]
        for k in range(y.size):
            y[k] = y_new[k]
            K[0, k] = K[last, k]
        if integrates:
            total, increment, q = vector_at(frame, slots.TOTAL), vector_at(frame, slots.INCREMENT), matrix_at(frame, slots.Q)
            end = matrix_at(frame, slots.WEIGHTS).shape[1] - 1
            for k in range(total.size):
                total[k] += increment[k]
                q[0, k] = q[end, k]

    def integrate(frame):
        setting, control = integers_at(frame, slots.SETTING), vector_at(frame, slots.CONTROL)
        count, clock, stops = integers_at(frame, slots.COUNT), vector_at(frame, slots.CLOCK), vector_at(frame, slots.STOPS)
        mesh_c, y = cube_at(frame, slots.MESH_C), vector_at(frame, slots.Y)
        while True:
            t, k_stop = clock[T], count[STOP]
            if t == stops[k_stop]:
                if k_stop == stops.size - 1:
                    if setting[RECORD]:
                        mesh_t, mesh_u = vector_at(frame, slots.MESH_T), matrix_at(frame, slots.MESH_U)
                        mesh_t[count[STEPS]] = t
                        for k in range(y.size):
                            mesh_u[count[STEPS], k] = y[k]
                    return SUCCESS
                if stops_inside:
                    at_stop(frame, k_stop, y)
                count[STOP] += 1
                count[FRESH] = 0
                continue
            if count[FRESH] == 0:
                status = enter(frame, t)
                if status != SUCCESS:
                    return status
            slot = count[STEPS] if setting[RECORD] else 0
            if slot == mesh_c.shape[0]:
                return STORE_FULL
            if count[STEPS] + count[REJECTED] >= setting[MAX_ATTEMPTS]:
                return MAX_STEPS

            h_free = min(clock[H], control[MAX_STEP])
            left = abs(stops[k_stop] - t)
            lands = h_free * (1.0 + _SNAP) >= left
            t_new = stops[k_stop] if lands else t + control[DIRECTION] * h_free
            h = t_new - t  # what the mesh will say, to the last bit: the discrete adjoint takes the step again
            clock[T_TRIED], clock[H_TRIED] = t, h
            status, norm, factor = try_step(frame, t, h, t_new, plane(mesh_c, slot))
            if status != SUCCESS:
                return status

            if not norm <= 1.0:
                count[REJECTED] += 1
                count[RETRY] = 1
                clock[H] = abs(h) * factor
                if not setting[ADAPTIVE] or clock[H] <= 10.0 * _EPS * max(abs(t), 1e-100 * control[SPAN]):
                    return STEP_TOO_SMALL if norm < math.inf else NON_FINITE
                continue
            accept(frame, slot, t)
            count[STEPS] += 1
            clock[T] = t_new
            if setting[ADAPTIVE]:
                if count[RETRY] == 1:
                    factor = min(factor, 1.0)
                    count[RETRY] = 0
                clock[H] = abs(h) * factor
                if not lands:
                    clock[PREVIOUS_ERROR] = norm
                elif factor >= 1.0:  # the stop cut this step short: go on with the step that was wanted
                    clock[H] = max(clock[H], h_free)

    return integrate
