"""Jumps of the state at known times: doses, when they are due, and what a pass writes down of every jump.

A dose changes the state at once, or an inflow while it lasts. An inflow is an entry of theta behind those of the user, which is
constant between two jumps; f adds it to the slope of its state. Amounts follow the order of integration: backwards in time a dose
is taken out again. A switch of f at a time that depends on theta is planned among them, and leaves the state as it is.
"""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.status import DOSE_TOO_EARLY, NO_DURATION, SUCCESS

TIME, LAG, AMOUNT, FRACTION, DURATION, INTO, INFLOW = range(7)
PERIOD, REPEAT = AMOUNT, FRACTION  # of a switch


@kernel
def number_of(frame, dose, which):
    """TIME, LAG, AMOUNT, FRACTION or DURATION of a dose."""
    number, entry = slots.DOSES(frame)[dose, which], slots.DOSE_ENTRIES(frame)[7 * dose + which]
    return number * slots.THETA(frame)[entry] if entry >= 0 else number


@kernel
def rate_of(frame, dose):
    """The inflow that a dose makes while it lasts."""
    return number_of(frame, dose, AMOUNT) * number_of(frame, dose, FRACTION) / number_of(frame, dose, DURATION)


@kernel
def _due(frame, action):
    """When an action is due, since the start of the solve."""
    actions, span, start = slots.ACTIONS(frame), slots.TIME_SPAN(frame), slots.CONTROL(frame)[slots.T_START]
    dose, kind = actions[2 * action], actions[2 * action + 1]
    t = (number_of(frame, dose, TIME) - span[slots.ORIGIN]) + number_of(frame, dose, LAG)
    if kind >= slots.ENDS:
        t += number_of(frame, dose, DURATION)
    period = number_of(frame, dose, PERIOD)
    if kind == slots.SWITCH and period > 0.0:
        t = start + (t - start) % period + number_of(frame, dose, REPEAT) * period
    return t


@kernel
def begin_stops(frame):
    """STOPS as PLANNED, which has the end last."""
    stops, crossed, rows = slots.STOPS(frame), slots.CROSSED(frame), slots.JUMP_ROWS(frame)
    planned, planned_crossed, planned_rows = slots.PLANNED(frame), slots.PLANNED_CROSSED(frame), slots.PLANNED_ROWS(frame)
    given = planned.size - 1
    for k in range(stops.size):
        known = k < given
        stops[k] = planned[k] if known else planned[given]
        crossed[k] = planned_crossed[k] if known else 0
        rows[k] = planned_rows[k] if known else -1
    return given


@kernel
def insert_stop(frame, many, t, row, behind):
    """One more stop, at t, behind those up to the time `behind`; `many` are there."""
    stops, crossed, rows = slots.STOPS(frame), slots.CROSSED(frame), slots.JUMP_ROWS(frame)
    direction, k = slots.CONTROL(frame)[slots.DIRECTION], many
    while k > 0 and direction * (stops[k - 1] - behind) > 0.0:
        stops[k], crossed[k], rows[k] = stops[k - 1], crossed[k - 1], rows[k - 1]
        k -= 1
    stops[k], crossed[k], rows[k] = t, 1, row
    return many + 1


@kernel
def begin_inflows(frame):
    """At the start of a pass: no inflow."""
    entries, theta = slots.DOSE_ENTRIES(frame), slots.THETA(frame)
    for k in range(INFLOW, entries.size, 7):
        if entries[k] >= 0:
            theta[entries[k]] = 0.0
    for k in range(slots.ONGOING(frame).size):
        slots.ONGOING(frame)[k] = 0


@kernel
def plan_doses(frame):
    """At the start of a pass: no inflow, and stops where doses are due."""
    actions, control = slots.ACTIONS(frame), slots.CONTROL(frame)
    if actions.size == 0:
        return SUCCESS
    begin_inflows(frame)
    many, stops = begin_stops(frame), slots.STOPS(frame)
    end, direction = stops[stops.size - 1], control[slots.DIRECTION]
    for action in range(actions.size // 2):
        t = _due(frame, action)
        if actions[2 * action + 1] == slots.ENDS and not number_of(frame, actions[2 * action], DURATION) > 0.0:
            slots.CLOCK(frame)[slots.T_TRIED] = t
            return NO_DURATION
        if not direction * (t - control[slots.T_START]) >= 0.0:
            if actions[2 * action + 1] == slots.SWITCH:
                continue
            slots.CLOCK(frame)[slots.T_TRIED] = t
            return DOSE_TOO_EARLY
        if direction * (t - end) <= 0.0:
            many = insert_stop(frame, many, t, action, t)
    return SUCCESS


@kernel
def note_jump(frame, t, what, which, first):
    """Write down that the state is about to jump; the number of that jump."""
    count, y, states, whats = slots.COUNT(frame), slots.Y(frame), slots.JUMP_U(frame), slots.JUMP_WHAT(frame)
    k = count[slots.OCCURRED]
    slots.JUMP_T(frame)[k], slots.JUMP_INFLOW(frame)[k] = t, 0.0
    whats[3 * k], whats[3 * k + 1], whats[3 * k + 2] = what, which, first
    for i in range(y.size):
        states[2 * k, i] = y[i]
    count[slots.OCCURRED] += 1
    return k


@kernel
def note_behind(frame, k):
    """Write down where jump k has led to."""
    y, states = slots.Y(frame), slots.JUMP_U(frame)
    for i in range(y.size):
        states[2 * k + 1, i] = y[i]


@kernel
def change_inflow(frame, action, direction):
    """Begin or end an infusion; whether it begins, in this direction of time."""
    actions, theta, ongoing = slots.ACTIONS(frame), slots.THETA(frame), slots.ONGOING(frame)
    dose, kind = actions[2 * action], actions[2 * action + 1]
    inflow, begins = slots.DOSE_ENTRIES(frame)[7 * dose + INFLOW], (kind == slots.BEGINS) == (direction > 0.0)
    which = inflow - (theta.size - ongoing.size)
    theta[inflow] += rate_of(frame, dose) if begins else -rate_of(frame, dose)
    ongoing[which] += 1 if begins else -1
    if ongoing[which] == 0:  # nothing, and not what rounding leaves
        theta[inflow] = 0.0
    return begins


@kernel
def administer(frame, t, action, first):
    """Do what is due: change the state, or an inflow."""
    actions, entries, y = slots.ACTIONS(frame), slots.DOSE_ENTRIES(frame), slots.Y(frame)
    direction, dose, kind = slots.CONTROL(frame)[slots.DIRECTION], actions[2 * action], actions[2 * action + 1]
    k = note_jump(frame, t, slots.DOSE, action, first)
    if kind == slots.BOLUS:
        into = entries[7 * dose + INTO]
        y[into] += direction * number_of(frame, dose, AMOUNT) * number_of(frame, dose, FRACTION)
    elif kind != slots.SWITCH:
        slots.JUMP_INFLOW(frame)[k] = slots.THETA(frame)[entries[7 * dose + INFLOW]]
        change_inflow(frame, action, direction)
    note_behind(frame, k)
