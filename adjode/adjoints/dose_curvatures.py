"""lam and its tangents across doses at times that do not change: what is given is an amount a b / c, with a duration c or without.

The state, or its inflow, gains the amount, so that its cotangent is theirs, `bar`. That of a is `bar b / c`, whose tangent along
(a_dot, b_dot, c_dot) is `bar_dot b / c + bar (b_dot - b c_dot / c) / c`; and so on. Other jumps: passes/jump_curvatures.py.
"""

from __future__ import annotations

from adjode.adjoints.jump_tangents import number_dot
from adjode.adjoints.jumping import moves
from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.loops.jumps import AMOUNT, DURATION, FRACTION, INFLOW, INTO, number_of


@kernel
def are_at_rest(frame, last):
    """Whether jump `last` and those before it at the same time are all doses at times that do not change."""
    moving = 0
    for k in range(slots.JUMP_WHAT(frame)[3 * last + 2], last + 1):
        moving += 1 if moves(frame, k) else 0
    return moving == 0


@kernel
def _give_to(frame, column, dose, which, bar):
    """Add the cotangent of a number of a dose, or its tangent, to that of the entry of theta that it is."""
    entry = slots.DOSE_ENTRIES(frame)[7 * dose + which]
    if entry >= 0:
        slots.TOTALS(frame)[column, entry] += slots.DOSES(frame)[dose, which] * bar


@kernel
def _pull_dose(frame, k):
    """LAMS and TOTALS from behind jump k to ahead of it; its inflow is then what it was before."""
    actions, action = slots.ACTIONS(frame), slots.JUMP_WHAT(frame)[3 * k + 1]
    dose, kind = actions[2 * action], actions[2 * action + 1]
    mesh_t, bolus, theta_dots = slots.FORWARD_T(frame), kind == slots.BOLUS, slots.THETA_DOTS(frame)
    forwards = mesh_t[slots.FORWARD_COUNT(frame)[slots.STEPS]] >= mesh_t[0]
    sign = 1.0 if forwards == (kind != slots.ENDS) else -1.0
    a, b, c = number_of(frame, dose, AMOUNT), number_of(frame, dose, FRACTION), 1.0
    if not bolus:
        c = number_of(frame, dose, DURATION)
    place, bars = slots.DOSE_ENTRIES(frame)[7 * dose + (INTO if bolus else INFLOW)], slots.TOTALS(frame)
    if bolus:
        bars = slots.LAMS(frame)
    else:
        slots.THETA(frame)[place] = slots.JUMP_INFLOW(frame)[k]
    first = sign * bars[0, place]
    for column in range(bars.shape[0]):
        bar, a_dot, b_dot, c_dot, curved = sign * bars[column, place], 0.0, 0.0, 0.0, 0.0
        if column > 0:
            a_dot, b_dot = number_dot(frame, dose, AMOUNT, column - 1), number_dot(frame, dose, FRACTION, column - 1)
            curved = first
            if not bolus:
                c_dot = number_dot(frame, dose, DURATION, column - 1)
                theta_dots[column - 1, place] -= sign * (a_dot * b + a * b_dot - a * b * c_dot / c) / c
        _give_to(frame, column, dose, AMOUNT, (bar * b + curved * (b_dot - b * c_dot / c)) / c)
        _give_to(frame, column, dose, FRACTION, (bar * a + curved * (a_dot - a * c_dot / c)) / c)
        if not bolus:
            changed = curved * (a_dot * b + a * b_dot - 2.0 * a * b * c_dot / c)
            _give_to(frame, column, dose, DURATION, -(bar * a * b + changed) / (c * c))


@kernel
def pull_doses(frame, last):
    """The same over jump `last` and those before it at the same time."""
    for k in range(last, slots.JUMP_WHAT(frame)[3 * last + 2] - 1, -1):
        _pull_dose(frame, k)
