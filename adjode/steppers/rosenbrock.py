"""Rosenbrock steps: one linear system for each stage with the Jacobian at the start of the step, and no iteration.

(1/(h gamma) - J) k_i = f(t + c_i h, y + sum_j a_ij k_j) + sum_j C_ij k_j / h + h d_i df/dt, in the form without products by J
(Hairer, Wanner, Solving ODEs II, section IV.7). Rows 1..s-1 of K hold k_i / h, row s the slope at the end of the step.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.finite import all_finite
from adjode.compile.flags import kernel
from adjode.compile.times import time_at
from adjode.compile.views import row
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS
from adjode.steppers.explicit import combine_loops
from adjode.steppers.frozen import STALE, Frozen
from adjode.steppers.implicit import ImplicitStepper

_SQRT_EPS = 1.4901161193847656e-8


def _make_evaluate(derivative: Callable) -> Callable:
    @kernel
    def evaluate(frame, t, u, slope):
        q = slots.Q(frame)
        slots.COUNT(frame)[slots.DERIVATIVES] += 1
        if derivative(frame, t, u, slope, row(q, q.shape[0] - 1)) != 0:
            slots.CLOCK(frame)[slots.T_TRIED] = t
            return CALLBACK_RAISED
        return SUCCESS

    return evaluate


def _make_time_slope(evaluate: Callable) -> Callable:
    @kernel
    def time_slope(frame, t, h, u, out):
        """df/dt by one difference, into the step: exactly zero where f does not depend on time."""
        K, now = slots.K(frame), time_at(frame, t)
        ahead = min(_SQRT_EPS * max(abs(now), abs(h)), 0.5 * abs(h))
        later = t + (ahead if h > 0.0 else -ahead)
        between = time_at(frame, later) - now
        if between == 0.0:
            for k in range(out.size):
                out[k] = 0.0
            return SUCCESS
        if evaluate(frame, later, u, out) != SUCCESS:
            return CALLBACK_RAISED
        for k in range(out.size):
            out[k] = (out[k] - K[0, k]) / between
        return SUCCESS

    return time_slope


def _make_stage(evaluate: Callable, frozen: Frozen) -> Callable:
    solve = frozen.solve

    @kernel
    def slope_at(frame, t_i, i, stage, k_i):
        """f at a stage, of which there is the first."""
        if i > 1:
            return evaluate(frame, t_i, stage, k_i)
        K = slots.K(frame)
        for k in range(k_i.size):
            k_i[k] = K[0, k]
        return SUCCESS

    @kernel
    def solve_stage(frame, t_i, h, i, stage, k_i):
        """State and slope of stage i; the last one, at the end of the step, is an evaluation alone."""
        K, f_t, sums = slots.K(frame), row(slots.Z(frame), 0), row(slots.W(frame), 0)
        combine_loops(stage, slots.Y(frame), h, slots.A(frame), i, K, i)
        if slope_at(frame, t_i, i, stage, k_i) != SUCCESS:
            return CALLBACK_RAISED
        if i < slots.SETTING(frame)[slots.LAST_STAGE]:
            slopes = slots.INVERSE(frame)
            combine_loops(sums, None, 1.0, slots.TRANSFORM(frame), i, K, i)
            for k in range(k_i.size):
                k_i[k] += sums[k] + h * slopes[0, i] * f_t[k]
            solve(frame, k_i)
            for k in range(k_i.size):
                k_i[k] = k_i[k] / h
        return SUCCESS if all_finite(k_i) else NON_FINITE

    return solve_stage


def make_stages(derivative: Callable, frozen: Frozen) -> Callable:
    evaluate = _make_evaluate(derivative)
    time_slope, solve_stage = _make_time_slope(evaluate), _make_stage(evaluate, frozen)

    @kernel
    def solve_stages(frame, t, h, t_new, V):
        c, K = slots.C(frame), slots.K(frame)
        slots.COUNT(frame)[slots.LAST_ITERATIONS] = 1
        if time_slope(frame, t, h, slots.Y(frame), row(slots.Z(frame), 0)) != SUCCESS:
            return CALLBACK_RAISED
        result = SUCCESS
        for i in range(1, slots.SETTING(frame)[slots.LAST_STAGE] + 1):
            status = solve_stage(frame, t_new if c[i] == 1.0 else t + c[i] * h, h, i, row(V, i), row(K, i))
            if status == CALLBACK_RAISED:
                return status
            result = status if status != SUCCESS else result
        return result

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
