"""Rosenbrock steps: one linear system for each stage with the Jacobian at the start of the step, and no iteration.

(1/(h gamma) - J) k_i = f(t + c_i h, y + sum_j a_ij k_j) + sum_j C_ij k_j / h + h d_i df/dt, in the form without products by J
(Hairer, Wanner, Solving ODEs II, section IV.7). Rows 1..s-1 of K hold k_i / h, row s the slope at the end of the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import row
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS
from adjode.steppers.explicit import combine_loops
from adjode.steppers.frozen import STALE, Frozen
from adjode.steppers.implicit import ImplicitStepper

_SQRT_EPS = 1.4901161193847656e-8


def make_stages(derivative: Callable, frozen: Frozen) -> Callable:
    solve = frozen.solve

    @kernel
    def evaluate(frame, t, u, slope):
        q = slots.Q(frame)
        slots.COUNT(frame)[slots.DERIVATIVES] += 1
        if derivative(frame, t, u, slope, row(q, q.shape[0] - 1)) != 0:
            slots.CLOCK(frame)[slots.T_TRIED] = t
            return CALLBACK_RAISED
        return SUCCESS

    @kernel
    def time_slope(frame, t, h, u, out):
        """df/dt by one difference, into the step: exactly zero where f does not depend on time."""
        K, size = slots.K(frame), abs(t) if abs(t) > abs(h) else abs(h)
        ahead = _SQRT_EPS * size
        ahead = ahead if ahead < 0.5 * abs(h) else 0.5 * abs(h)
        later = t + (ahead if h > 0.0 else -ahead)
        if later == t:
            for k in range(out.size):
                out[k] = 0.0
            return SUCCESS
        if evaluate(frame, later, u, out) != SUCCESS:
            return CALLBACK_RAISED
        for k in range(out.size):
            out[k] = (out[k] - K[0, k]) / (later - t)
        return SUCCESS

    @kernel
    def solve_stages(frame, t, h, t_new, V):
        y, c, A, K = slots.Y(frame), slots.C(frame), slots.A(frame), slots.K(frame)
        C, slopes, f_t = slots.TRANSFORM(frame), slots.INVERSE(frame), row(slots.Z(frame), 0)
        last, sums, total = slots.SETTING(frame)[slots.LAST_STAGE], row(slots.W(frame), 0), 0.0
        slots.COUNT(frame)[slots.LAST_ITERATIONS] = 1
        if time_slope(frame, t, h, y, f_t) != SUCCESS:
            return CALLBACK_RAISED
        for i in range(1, last + 1):
            stage, k_i = row(V, i), row(K, i)
            combine_loops(stage, y, h, A, i, K, i)
            if i == 1:
                for k in range(y.size):
                    k_i[k] = K[0, k]
            elif evaluate(frame, t_new if c[i] == 1.0 else t + c[i] * h, stage, k_i) != SUCCESS:
                return CALLBACK_RAISED
            if i < last:
                combine_loops(sums, None, 1.0, C, i, K, i)
                for k in range(y.size):
                    k_i[k] += sums[k] + h * slopes[0, i] * f_t[k]
                solve(frame, k_i)
            for k in range(y.size):
                k_i[k] = k_i[k] / h if i < last else k_i[k]
                total += 0.0 * k_i[k]
        return NON_FINITE if math.isnan(total) else SUCCESS

    return solve_stages


class RosenbrockStepper(ImplicitStepper):
    """See `ImplicitStepper`; the Jacobian belongs to the method, so it is always that of the step's start."""

    keeps_steps = False

    def __init__(self, derivative: Callable, frozen: Frozen):
        super().__init__(derivative, frozen, make_stages(derivative, frozen))

        @kernel
        def accept(frame, h):
            slots.COUNT(frame)[slots.FRESHNESS] = STALE

        self.accept = accept
