"""ESDIRK steps: an explicit first stage, then implicit ones, one after the other, with one diagonal coefficient; transposes."""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import row
from adjode.status import CALLBACK_RAISED, SUCCESS
from adjode.steppers.explicit import combine_loops
from adjode.steppers.frozen import Frozen
from adjode.steppers.implicit import CONTINUE, ImplicitStepper, judge, scaled_change
from adjode.steppers.stepper import stage_time
from adjode.steppers.tangents import Push, make_implicit_tangent, make_tangent_block
from adjode.steppers.transposed import make_transposed_block


@kernel
def _first_guess(frame, h, i, base, z):
    """What stage i takes from those before it: the state without its own slope, and a first guess of what that adds."""
    K, mu = slots.K(frame), slots.EIGENVALUES(frame)[0]
    combine_loops(base, slots.Y(frame), h, slots.A(frame), i, K, i)
    combine_loops(z, None, h / mu, slots.TRANSFORM(frame), i, K, i)


def _make_stage(derivative: Callable, frozen: Frozen) -> Callable:
    solve = frozen.solve

    @kernel
    def solve_stage(frame, t_i, h, i, Y):
        """State and slope of stage i: z = h gamma f(t_i, base + z), K[i] = z / (h gamma); (status, iterations)."""
        base, z, right = row(slots.W(frame), 0), row(slots.Z(frame), 0), slots.RIGHT(frame)
        change = row(right, 0)
        K, q, mu = slots.K(frame), slots.Q(frame), slots.EIGENVALUES(frame)[0]
        _first_guess(frame, h, i, base, z)
        norm, status, iteration = 0.0, CONTINUE, 0
        while status == CONTINUE:
            for k in range(z.size):
                Y[k] = base[k] + z[k]
            slots.COUNT(frame)[slots.DERIVATIVES] += 1
            if derivative(frame, t_i, Y, change, row(q, q.shape[0] - 1)) != 0:
                slots.CLOCK(frame)[slots.T_TRIED] = t_i
                return CALLBACK_RAISED, iteration
            for k in range(z.size):
                change[k] -= mu / h * z[k]
            solve(frame, change)
            for k in range(z.size):
                z[k] += change[k]
            before, norm = norm, math.sqrt(scaled_change(frame, right) / z.size) if z.size > 0 else 0.0
            status = judge(frame, iteration, norm, before)
            iteration += 1
        for k in range(z.size):
            Y[k] = base[k] + z[k]
            K[i, k] = mu / h * z[k]
        return status, iteration

    return solve_stage


def make_stages(derivative: Callable, frozen: Frozen) -> Callable:
    solve_stage = _make_stage(derivative, frozen)

    @kernel
    def solve_stages(frame, t, h, t_new, V):
        count, most = slots.COUNT(frame), 0
        last, status = slots.SETTING(frame)[slots.LAST_STAGE], SUCCESS
        for i in range(1, last + 1):
            if status == SUCCESS:
                status, iterations = solve_stage(frame, stage_time(frame, t, h, t_new, i), h, i, row(V, i))
                count[slots.ITERATIONS] += iterations
                most = iterations if iterations > most else most
        count[slots.LAST_ITERATIONS] = most
        return status

    return solve_stages


def _make_preconditioner(solve: Callable) -> Callable:
    @kernel
    def precondition(frame, x):
        """x = (I - h gamma J)^-1 x, or with J^T, as `solve` has it."""
        mu, h, only = slots.EIGENVALUES(frame)[0], slots.CLOCK(frame)[slots.H_FACTORED], row(x, 0)
        for k in range(only.size):
            only[k] *= mu / h
        solve(frame, only)

    return precondition


def make_transposed_esdirk(pull: Callable, product: Callable, frozen: Frozen) -> Callable:
    """`(frame, t, h, t_new, V) -> status`: pull LAM and the seeds in K_BAR back over a step; adds to Y_BAR and K_BAR[0]."""
    block = make_transposed_block(pull, product, frozen, _make_preconditioner(frozen.solve_transposed))

    @kernel
    def transposed_step(frame, t, h, t_new, V):
        status = SUCCESS
        for i in range(slots.SETTING(frame)[slots.LAST_STAGE], 0, -1):
            if status == SUCCESS:
                status = block(frame, t, h, t_new, V, i)
        return status

    return transposed_step


def make_tangent_esdirk(push: Push, frozen: Frozen) -> Callable:
    """`(frame, t, h, t_new, V) -> status`: NEXT_DOTS and STAGE_DOTS of a step."""
    block = make_tangent_block(push, frozen, _make_preconditioner(frozen.solve))

    @kernel
    def stages(frame, t, h, t_new, V):
        status = SUCCESS
        for i in range(1, slots.SETTING(frame)[slots.LAST_STAGE] + 1):
            if status == SUCCESS:
                status = block(frame, t, h, t_new, V, i)
        return status

    return make_implicit_tangent(stages)


class EsdirkStepper(ImplicitStepper):
    def __init__(self, derivative: Callable, frozen: Frozen):
        super().__init__(derivative, frozen, make_stages(derivative, frozen))
