"""What the discrete adjoint sums up in a step of what a shift of the step would do: the cotangents of its size and of its time.

A step of h from t has u_new = y + h sum_i b_i K_i with K_i = f(t + c_i h, y + h sum_j a_ij K_j). The cotangent w_i of K_i has the
factor h, so that of h is `sum_i w_i . (K_i / h + c_i f_t)`, with f_t at stage i, and that of t is `sum_i w_i . f_t`. This holds for
all Runge-Kutta methods; with a mass matrix, M K_i = f, where w_i is the cotangent of f. A state observed inside at a fixed time, at
the place x of the step, has the cotangents `-x u' . u_bar` and `-u' . u_bar` besides, with the slope u' of the dense output there.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.adjoints.products import dot
from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.flags import kernel
from adjode.compile.outside import invoke_f, invoke_f_dt, invoke_g_dt
from adjode.compile.tiers import unrolled
from adjode.compile.views import plane, row, unlikely
from adjode.status import CALLBACK_RAISED, SUCCESS
from adjode.steppers.explicit import interpolate

# rows of JUMP_WORK: slopes behind a jump and before it, R_u^T lam, e_u, R_t; the slope of a stage; and lam, what the guard's
# derivative has been pulled back to, and the cotangent of the first slope in that; a right-hand side
BEHIND, BEFORE, MU, E_U, R_T, SLOPE, LAM, OF_GUARD, FIRST_OF_GUARD, RIGHT = range(10)


@kernel
def begin_shift(frame, h, takes_size, takes_time, end_is_free):
    """The cotangents of a step of this size are zero so far."""
    shift = slots.SHIFT(frame)
    shift[slots.STEP_SIZE], shift[slots.OF_SIZE], shift[slots.OF_TIME] = h, 0.0, 0.0
    shift[slots.TAKES_SIZE], shift[slots.TAKES_TIME] = 1.0 if takes_size else 0.0, 1.0 if takes_time else 0.0
    shift[slots.END_IS_FREE] = 1.0 if end_is_free else 0.0


@kernel
def end_shift(frame):
    """What is pulled back from now on is no part of the step."""
    shift = slots.SHIFT(frame)
    shift[slots.TAKES_SIZE] = shift[slots.TAKES_TIME] = shift[slots.END_IS_FREE] = 0.0


@kernel
def takes(frame):
    shift = slots.SHIFT(frame)
    return shift[slots.TAKES_SIZE] == 1.0 or shift[slots.TAKES_TIME] == 1.0


@kernel
def end_is_fixed(frame):
    return slots.SHIFT(frame)[slots.END_IS_FREE] == 0.0


@kernel
def f_outside(frame, t, u, slope):
    """f through its address, in the fused tier too: a copy would be inlined for each call."""
    return invoke_f(frame, t, (u, slots.THETA(frame), slope))


@kernel
def _f_dt(frame, t, u, rate):
    return invoke_f_dt(frame, t, (u, slots.THETA(frame), rate))


@kernel
def _shift_stage(frame, t, u, w, stage):
    """A stage's part: w is the cotangent of f there, at the state u."""
    shift, slope = slots.SHIFT(frame), row(slots.JUMP_WORK(frame), SLOPE)
    if not takes(frame):
        return SUCCESS
    if shift[slots.TAKES_SIZE] == 1.0:
        slots.COUNT(frame)[slots.DERIVATIVES] += 1
        if f_outside(frame, t, u, slope) != 0:
            return CALLBACK_RAISED
        shift[slots.OF_SIZE] += dot(w, slope) / shift[slots.STEP_SIZE]
    if shift[slots.TIMED] == 1.0:
        if _f_dt(frame, t, u, slope) != 0:
            return CALLBACK_RAISED
        rate, node = dot(w, slope), slots.C(frame)[stage]
        if slots.COUNT(frame)[slots.BEFORE_GAP] == 1:
            node = min(node, 1.0)  # see `stage_time`
        shift[slots.OF_TIME] += rate
        shift[slots.OF_SIZE] += node * rate
    return SUCCESS


@kernel
def _shift_stage_at(frame, t, h, t_new, V, i):
    t_i = t_new if i == slots.SETTING(frame)[slots.LAST_STAGE] else t + slots.C(frame)[i] * h
    return _shift_stage(frame, t_i, row(V, i), row(slots.JUMP_K_BAR(frame), i), i)


_shift_each = unrolled(_shift_stage_at, None, down=True)


@kernel
def _shift_stages(frame, t, h, t_new, V, dense):
    setting, K_bar, seen = slots.SETTING(frame), slots.K_BAR(frame), slots.JUMP_K_BAR(frame)
    if not unlikely(takes(frame)):
        return SUCCESS
    for i in range(K_bar.shape[0]):
        for k in range(K_bar.shape[1]):
            seen[i, k] = K_bar[i, k]
    return _shift_each(frame, t, h, t_new, V, setting[slots.TOP] if dense else setting[slots.LAST_STAGE], 1)


@kernel
def _shift_none(frame, t, u, w, stage):
    return SUCCESS


@kernel
def _shift_no_stages(frame, t, h, t_new, V, dense):
    return SUCCESS


@kernel
def _end_none(frame):
    pass


def shift_hooks(calls: Calls) -> tuple[Callable, Callable]:
    """`shift_stage(frame, t, u, w, stage) -> status` for each stage that is pulled back, and `end_shift(frame)` behind the last."""
    return (_shift_stage, end_shift) if calls.may_jump else (_shift_none, _end_none)


def shift_explicit(calls: Calls) -> Callable:
    """`shift_stages(frame, t, h, t_new, V, dense) -> status` behind the stages of an explicit step, whose K_BAR are there still.

    Calls among the stages, even of what is not called, would keep the compiler from making fast code of these.
    """
    return _shift_stages if calls.may_jump else _shift_no_stages


@kernel
def shift_observed(frame, step, x, u_bar):
    """The part of a state observed at place x of the step."""
    shift, coefficients = slots.SHIFT(frame), slots.FORWARD_C(frame)
    if not takes(frame):
        return
    along = 0.0
    for k in range(u_bar.size):
        slope = 0.0
        for p in range(coefficients.shape[1] - 1, -1, -1):
            slope = (p + 1) * coefficients[step, p, k] + x * slope
        along += slope * u_bar[k]
    along /= shift[slots.STEP_SIZE]
    shift[slots.OF_SIZE] -= x * along
    shift[slots.OF_TIME] -= along


@kernel
def _cost_rate(frame, step, t, h, x):
    """(status, derivative of g by time) at place x of the step."""
    u = slots.U(frame)
    interpolate(u, row(slots.FORWARD_U(frame), step), plane(slots.FORWARD_C(frame), step), x)
    value = slots.VALUE(frame)
    status = invoke_g_dt(frame, t + x * h, (u, slots.THETA(frame), value))
    return status, value[0]


@kernel
def shift_cost(frame, step, t, h, x, weight, g):
    """The part of g at a node of the running cost, with a weight that has the factor h; the status."""
    shift = slots.SHIFT(frame)
    if not takes(frame):
        return SUCCESS
    shift[slots.OF_SIZE] += weight / h * g
    if shift[slots.COST_TIMED] == 1.0:
        status, rate = _cost_rate(frame, step, t, h, x)
        if status != 0:
            return CALLBACK_RAISED
        shift[slots.OF_SIZE] += weight * x * rate
        shift[slots.OF_TIME] += weight * rate
    return SUCCESS
