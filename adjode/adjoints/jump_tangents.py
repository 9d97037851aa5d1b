"""Tangents across a jump of the state: the dual of jumping.py, for many directions at once.

With the names used there, the time of a jump changes by `tau_dot`: that of a dose as theta says, that of an event by
`tau_dot = -(e_u . u_dot- + e_theta . theta_dot) / gamma`. Behind it the tangent is
`u_dot+ = R_u (u_dot- + f- tau_dot) + R_theta theta_dot + R_t tau_dot - f+ tau_dot`; where an event ends the solution, without f+.
"""

from __future__ import annotations

from adjode.adjoints.jumping import ends, f_beside, moves, read_guard, to_slope
from adjode.adjoints.shifting import BEFORE, BEHIND, E_U, R_T, SLOPE
from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.outside import invoke_resets_dt, invoke_resets_jvp
from adjode.compile.views import row, segment
from adjode.loops.guards import RESETS, rule_of
from adjode.loops.jumps import AMOUNT, DURATION, FRACTION, INFLOW, INTO, LAG, TIME, change_inflow, number_of
from adjode.status import CALLBACK_RAISED, SUCCESS


@kernel
def number_dot(frame, dose, which, d):
    """The tangent of TIME, LAG, AMOUNT, FRACTION or DURATION of a dose, in direction d."""
    entry = slots.DOSE_ENTRIES(frame)[7 * dose + which]
    return slots.DOSES(frame)[dose, which] * slots.THETA_DOTS(frame)[d, entry] if entry >= 0 else 0.0


@kernel
def _move_dose(frame, action):
    """TIME_DOTS of a dose."""
    actions, time_dots = slots.ACTIONS(frame), slots.TIME_DOTS(frame)
    dose, lasts = actions[2 * action], actions[2 * action + 1] >= slots.ENDS
    for d in range(time_dots.size):
        time_dots[d] = number_dot(frame, dose, TIME, d) + number_dot(frame, dose, LAG, d)
        if lasts:
            time_dots[d] += number_dot(frame, dose, DURATION, d)


@kernel
def _move_event(frame, k, u):
    """TIME_DOTS of an event; the status."""
    work, time_dots, e_theta = slots.JUMP_WORK(frame), slots.TIME_DOTS(frame), slots.JUMP_THETA(frame)
    dots, theta_dots, e_u = slots.DOTS(frame), slots.THETA_DOTS(frame), row(work, E_U)
    status, gamma = read_guard(frame, k, u, row(work, BEFORE), e_u)
    if status != SUCCESS:
        return status
    for d in range(time_dots.size):
        total = 0.0
        for i in range(u.size):
            total += e_u[i] * dots[d * u.size + i]
        for i in range(e_theta.size):
            total += e_theta[i] * theta_dots[d, i]
        time_dots[d] = -total / gamma
    return SUCCESS


@kernel
def _add_times(frame, slope, factor):
    """Add a multiple of tau_dot times a slope to the tangents."""
    dots, time_dots = slots.DOTS(frame), slots.TIME_DOTS(frame)
    for d in range(time_dots.size):
        for i in range(slope.size):
            dots[d * slope.size + i] += factor * time_dots[d] * slope[i]


@kernel
def _give(frame, action):
    """What a dose gives: to tangents of a state at once, or to those of its inflow, which changes too."""
    actions, entries, mesh_t = slots.ACTIONS(frame), slots.DOSE_ENTRIES(frame), slots.FORWARD_T(frame)
    dots, theta_dots, many = slots.DOTS(frame), slots.THETA_DOTS(frame), slots.TIME_DOTS(frame).size
    dose, bolus = actions[2 * action], actions[2 * action + 1] == slots.BOLUS
    if actions[2 * action + 1] == slots.SWITCH:
        return
    amount, fraction = number_of(frame, dose, AMOUNT), number_of(frame, dose, FRACTION)
    forwards = mesh_t[slots.FORWARD_COUNT(frame)[slots.STEPS]] >= mesh_t[0]
    sign, into = 1.0 if forwards else -1.0, entries[7 * dose + INTO]
    if not bolus:
        begins, into = change_inflow(frame, action, sign), entries[7 * dose + INFLOW]
        sign = 1.0 if begins else -1.0
    for d in range(many):
        dot = amount * number_dot(frame, dose, FRACTION, d) + number_dot(frame, dose, AMOUNT, d) * fraction
        if bolus:
            dots[d * slots.JUMP_WORK(frame).shape[1] + into] += sign * dot
        else:
            duration = number_of(frame, dose, DURATION)
            rate = amount * fraction / duration
            theta_dots[d, into] += sign * (dot - rate * number_dot(frame, dose, DURATION, d)) / duration


@kernel
def _reset(frame, t, event, u):
    """The tangents behind the reset of an event, which sees its time change too."""
    dots, theta_dots, many = slots.DOTS(frame), slots.THETA_DOTS(frame), slots.TIME_DOTS(frame).size
    which, theta, n = slots.WHICH(frame), slots.THETA(frame), u.size
    ahead, rate = row(slots.JUMP_WORK(frame), SLOPE), row(slots.JUMP_WORK(frame), R_T)
    which[0] = float(event)
    for d in range(many):
        v = segment(dots, d * n, n)
        if invoke_resets_jvp(frame, t, (u, theta, which, v, row(theta_dots, d), ahead)) != 0:
            return CALLBACK_RAISED
        for i in range(n):
            v[i] = ahead[i]
    if invoke_resets_dt(frame, t, (u, theta, which, rate)) != 0:
        return CALLBACK_RAISED
    _add_times(frame, rate, 1.0)
    return SUCCESS


@kernel
def _slope(frame, k, ahead, u, slope):
    """du/dt ahead of jump k or behind it; the status."""
    slots.COUNT(frame)[slots.DERIVATIVES] += 1
    status = f_beside(frame, k, ahead, u, slope)
    to_slope(frame, slope)
    return SUCCESS if status == 0 else CALLBACK_RAISED


@kernel
def _arrive(frame, k):
    """TIME_DOTS of jump k, which one that has been taken along has from that before it; DOTS ahead of it at that time."""
    what, which, status = slots.JUMP_WHAT(frame)[3 * k], slots.JUMP_WHAT(frame)[3 * k + 1], SUCCESS
    u, before = row(slots.JUMP_U(frame), 2 * k), row(slots.JUMP_WORK(frame), BEFORE)
    if moves(frame, k):
        status = _slope(frame, k, True, u, before)
    if what == slots.DOSE:
        _move_dose(frame, which)
    elif what == slots.EVENT and status == SUCCESS:
        status = _move_event(frame, k, u)
    if status == SUCCESS and moves(frame, k):
        _add_times(frame, before, 1.0)
    return status


@kernel
def _leave(frame, k):
    """From DOTS behind jump k at its time to those with the mesh held fixed; the status."""
    if not moves(frame, k) or ends(frame, k):
        return SUCCESS
    behind = row(slots.JUMP_WORK(frame), BEHIND)
    status = _slope(frame, k, False, row(slots.JUMP_U(frame), 2 * k + 1), behind)
    if status == SUCCESS:
        _add_times(frame, behind, -1.0)
    return status


@kernel
def _jump(frame, k):
    """DOTS from ahead of jump k to behind it; the status."""
    what, which = slots.JUMP_WHAT(frame)[3 * k], slots.JUMP_WHAT(frame)[3 * k + 1]
    if what == slots.DOSE:
        _give(frame, which)
    elif rule_of(frame, which, RESETS) == 1:
        return _reset(frame, slots.JUMP_T(frame)[k], which, row(slots.JUMP_U(frame), 2 * k))
    return SUCCESS


@kernel
def push_jumps(frame, last):
    """DOTS over jump `last` and those before it at the same time; the status."""
    status = SUCCESS
    for k in range(slots.JUMP_WHAT(frame)[3 * last + 2], last + 1):
        if status == SUCCESS:
            status = _arrive(frame, k)
        if status == SUCCESS:
            status = _jump(frame, k)
        if status == SUCCESS:
            status = _leave(frame, k)
    return status
