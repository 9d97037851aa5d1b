"""Guards of events along a step: whether one passes through zero, and where.

A step is looked at cheaply first, at its ends and along a cubic between (its states and slopes are there). Where a guard changes
sign, or a parabola through three of its values comes near to zero, the dense output is searched at more places. So two zeros inside
of one step are found as well. A sign of 0 means that the guard was zero where the step begins: which sign it takes on from there is
found out from the first values that rounding does not blur.
"""

from __future__ import annotations

import math

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.outside import invoke_glance, invoke_guards
from adjode.compile.times import time_at
from adjode.compile.views import flat, row
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS
from adjode.steppers.explicit import interpolate

START, END, PLACE, TRIED, EARLIER, BEFORE, SIGNS, SPEED = range(8)  # rows of GUARD_VALUES; SPEED is how fast an event's
# guard passes through zero: the change over the step to there, at that rate, as a part of what it was at the start of the step
BLUR = PLACE  # from an event to the next step: up to where a guard's value behind it may be rounding
DIRECTION, UNTIL, PRIORITY, FIRST, RESETS = range(5)  # of GUARD_RULES
MIDDLE, U_NEW, SLOPE, SEEN = range(4)  # rows of EVENT_WORK
_PARTS = 16  # that a step is searched in
_NEAR = 0.25  # of a guard's range within a step
_NEAREST = 40  # halvings of a step towards its start
_CLEAR, _GROWS = 1e3, 2.0  # how much larger than at the start, and than before, a value is
_HALVINGS = 60
_APART = 1e-4  # of a step: how far apart guards are compared for their slopes


@kernel
def guards_at(frame, t, u, which):
    """Evaluate the guards into a row of GUARD_VALUES."""
    values = row(slots.GUARD_VALUES(frame), which)
    if invoke_guards(frame, t, (u, slots.THETA(frame), values)) != 0:
        return CALLBACK_RAISED
    for i in range(values.size):
        if not abs(values[i]) < math.inf:
            return NON_FINITE
    return SUCCESS


@kernel
def show_state(frame):
    """A copy of the state for callbacks, in SEEN: what they see lies in memory, and Y is to stay in registers."""
    y, seen = slots.Y(frame), row(slots.EVENT_WORK(frame), SEEN)
    for k in range(y.size):
        seen[k] = y[k]


@kernel
def guards_here(frame, t, which):
    """The same for the state where the pass is."""
    show_state(frame)
    return guards_at(frame, t, row(slots.EVENT_WORK(frame), SEEN), which)


@kernel
def rule_of(frame, i, which):
    """DIRECTION, UNTIL, PRIORITY, FIRST or RESETS of event i."""
    return slots.GUARD_RULES(frame)[5 * i + which]


@kernel
def sign_of(x):
    return 1.0 if x > 0.0 else (-1.0 if x < 0.0 else 0.0)


@kernel
def directed(frame, i, sign):
    """Whether event i happens where its guard leaves this sign."""
    return rule_of(frame, i, DIRECTION) * sign <= 0.0


@exact_kernel
def _vertex(x0, e0, x1, e1, x2, e2):
    """Where the parabola through three points turns; NaN if it does not."""
    first, second = (e1 - e0) / (x1 - x0), (e2 - e1) / (x2 - x1)
    bend = (second - first) / (x2 - x0)
    return 0.5 * (x0 + x1) - 0.5 * first / bend if bend != 0.0 else math.nan


@exact_kernel
def _on_parabola(x0, e0, x1, e1, x2, e2, x):
    first, second = (e1 - e0) / (x1 - x0), (e2 - e1) / (x2 - x1)
    return e0 + (x - x0) * (first + (x - x1) * (second - first) / (x2 - x0))


@kernel
def _is_suspicious(sign, e0, e1, e2):
    """Whether a guard with these values at the start, the middle and the end of a step may have a zero inside of it."""
    if sign == 0.0 or sign * e1 <= 0.0 or sign * e2 <= 0.0 or sign * e0 < 0.0:
        return True
    least, largest = min(sign * e0, sign * e1, sign * e2), max(sign * e0, sign * e1, sign * e2)
    x = _vertex(0.0, e0, 0.5, e1, 1.0, e2)
    if 0.0 < x < 1.0:
        least = min(least, sign * _on_parabola(0.0, e0, 0.5, e1, 1.0, e2, x))
    return least <= _NEAR * (largest - least)


@exact_kernel
def settles(signs, places, many):
    """Whether none of so many guards comes near zero in a step, whose end then is where they begin the next one.

    `places` are the GUARD_VALUES, those in the middle in TRIED. If so, none is suspicious: the parabola through three values passes
    the least of them by an eighth of their second difference at most, which takes no division to find. Not where one is NaN.
    """
    clear = True
    for i in range(many):
        e0, e1, e2 = signs[i] * places[START * many + i], signs[i] * places[TRIED * many + i], signs[i] * places[END * many + i]
        beyond = 0.125 * abs((e2 - e1) - (e1 - e0))
        least, largest = min(e0, e1, e2) - beyond, max(e0, e1, e2) + beyond
        clear = clear and least > _NEAR * (largest - least)
    if clear:
        for i in range(many):
            places[START * many + i] = places[END * many + i]
    return clear


@kernel
def put_middle(frame, h, y_new, last):
    """The state in the middle of the step, by a cubic, to EVENT_WORK."""
    y, K, middle = slots.Y(frame), slots.K(frame), row(slots.EVENT_WORK(frame), MIDDLE)
    for k in range(y.size):
        middle[k] = 0.5 * (y[k] + y_new[k]) + 0.125 * h * (K[0, k] - K[last, k])


@kernel
def put_slope(frame, h, coefficients, x):
    """The slope of the dense output, at a part x of the step, to EVENT_WORK."""
    slope = row(slots.EVENT_WORK(frame), SLOPE)
    for k in range(slope.size):
        total = 0.0
        for p in range(coefficients.shape[0] - 1, -1, -1):
            total = (p + 1) * coefficients[p, k] + x * total
        slope[k] = total / h


@kernel
def is_clear(frame, t, h, y_new):
    """Whether a glance shows that no guard has a zero in the step to y_new, with the middle at hand; START is its end then.

    It takes one call for guards at both places and the decision. What it leaves open `suspects` decides, and finds what has failed.
    """
    middle = slots.MIDDLE_T(frame)
    middle[0] = time_at(frame, t + 0.5 * h)
    given = (y_new, slots.THETA(frame), row(slots.EVENT_WORK(frame), MIDDLE), middle, slots.GUARD_SIGNS(frame))
    return invoke_glance(frame, t + h, (*given, flat(slots.GUARD_VALUES(frame)))) == 0


@kernel
def suspects(frame, t, h, y_new):
    """(status, whether any guard may have a zero in the step to y_new); their values at its end are in END."""
    values, signs = slots.GUARD_VALUES(frame), slots.GUARD_SIGNS(frame)
    status = guards_at(frame, t + h, y_new, END)
    if status != SUCCESS:
        return status, False
    status = guards_at(frame, t + 0.5 * h, row(slots.EVENT_WORK(frame), MIDDLE), TRIED)
    if status != SUCCESS:
        return status, False
    for i in range(signs.size):
        if _is_suspicious(signs[i], values[START, i], values[TRIED, i], values[END, i]):
            return SUCCESS, True
    return SUCCESS, False


@kernel
def _along(frame, t, h, coefficients, x, which):
    """The guards at a part x of the step."""
    state = row(slots.EVENT_WORK(frame), MIDDLE)
    interpolate(state, slots.Y(frame), coefficients, x)
    return guards_at(frame, t + x * h, state, which)


@kernel
def _along_tangent(frame, t, h, x, which):
    """The same along the slope at its start."""
    y, slope, state = slots.Y(frame), row(slots.EVENT_WORK(frame), SLOPE), row(slots.EVENT_WORK(frame), MIDDLE)
    for k in range(y.size):
        state[k] = y[k] + x * h * slope[k]
    return guards_at(frame, t + x * h, state, which)


@kernel
def _leaving(frame, t, h, coefficients, along):
    """Find out signs that are 0, from values near the start of the step, `along` it, that grow and are not rounding."""
    values, signs = slots.GUARD_VALUES(frame), slots.GUARD_SIGNS(frame)
    unknown, x = 0, 0.5**_NEAREST
    for i in range(signs.size):
        values[EARLIER, i] = 0.0
        unknown += 1 if values[SIGNS, i] == 0.0 else 0
    while unknown > 0 and x < 0.5 / _PARTS:
        status = _along(frame, t, h, coefficients, x, TRIED) if along else _along_tangent(frame, t, h, x, TRIED)
        if status != SUCCESS:
            return status
        for i in range(signs.size):
            e, earlier = values[TRIED, i], values[EARLIER, i]
            if values[SIGNS, i] == 0.0 and e * earlier > 0.0:
                if abs(e) > _GROWS * abs(earlier) and abs(earlier) > _CLEAR * abs(values[START, i]):
                    values[SIGNS, i] = sign_of(e)
                    unknown -= 1
            values[EARLIER, i] = e
        x *= 4.0
    return SUCCESS


@kernel
def _root(frame, t, h, coefficients, i, low, high, sign):
    """(status, x): where guard i leaves its sign between `low`, where it has that, and `high`, where it has not."""
    values, status = slots.GUARD_VALUES(frame), SUCCESS
    for _ in range(_HALVINGS):
        x = 0.5 * (low + high)
        if not low < x < high:
            break
        status = _along(frame, t, h, coefficients, x, TRIED)
        if status != SUCCESS:
            break
        if sign * values[TRIED, i] > 0.0:
            low = x
        else:
            high = x
    return status, high


@kernel
def _dip(frame, t, h, coefficients, i, j, sign):
    """(status, x): a place in the last two parts searched where guard i has lost its sign; 0 if there is none."""
    values, d = slots.GUARD_VALUES(frame), 1.0 / _PARTS
    x0, x1, x2 = (j - 2) * d, (j - 1) * d, j * d
    e0, e1, e2 = values[BEFORE, i], values[EARLIER, i], values[PLACE, i]
    for _ in range(8):
        x = _vertex(x0, e0, x1, e1, x2, e2)
        if not x0 < x < x2 or x == x1:
            break
        if sign * _on_parabola(x0, e0, x1, e1, x2, e2, x) > _NEAR * min(abs(e0), abs(e1), abs(e2)):
            break
        status = _along(frame, t, h, coefficients, x, TRIED)
        if status != SUCCESS:
            return status, 0.0
        e = values[TRIED, i]
        if sign * e <= 0.0:
            return SUCCESS, x
        if x < x1:
            x2, e2, x1, e1 = x1, e1, x, e
        else:
            x0, e0, x1, e1 = x1, e1, x, e
    return SUCCESS, 0.0


@kernel
def _bracket(frame, t, h, coefficients, i, j):
    """(status, low, high, sign): between which places in part j event i happens, and the sign that its guard leaves; 0 for none."""
    values, d = slots.GUARD_VALUES(frame), 1.0 / _PARTS
    sign, e = values[SIGNS, i], values[PLACE, i]
    if sign == 0.0:
        return SUCCESS, 0.0, 0.0, 0.0
    if sign * e <= 0.0:
        return SUCCESS, (j - 1) * d, j * d, sign if directed(frame, i, sign) else 0.0
    if j == 1 or sign * values[BEFORE, i] <= 0.0:
        return SUCCESS, 0.0, 0.0, 0.0
    status, x = _dip(frame, t, h, coefficients, i, j, sign)
    if not x > 0.0:
        return status, 0.0, 0.0, 0.0
    if directed(frame, i, sign):
        return status, (j - 2) * d, x, sign
    return status, x, j * d, -sign  # where it comes back


@kernel
def _search_part(frame, t, h, coefficients, j):
    """(status, event, x): the first event in part j; -1 if there is none."""
    best, found = 2.0, -1
    for i in range(slots.GUARD_SIGNS(frame).size):
        status, low, high, sign = _bracket(frame, t, h, coefficients, i, j)
        x = 2.0
        if status == SUCCESS and sign != 0.0:
            status, x = _root(frame, t, h, coefficients, i, low, high, sign)
        if status != SUCCESS:
            return status, -1, 2.0
        if x < best:
            best, found = x, i
    return SUCCESS, found, best


@kernel
def first_event(frame, t, h, coefficients):
    """(status, event, x): the first event in the step, at a part x of it; -1 if there is none."""
    values, signs = slots.GUARD_VALUES(frame), slots.GUARD_SIGNS(frame)
    for i in range(signs.size):
        values[SIGNS, i] = signs[i]
    status = _leaving(frame, t, h, coefficients, False)  # however soon it comes back; but a guard at rest has no slope
    if status == SUCCESS:
        status = _leaving(frame, t, h, coefficients, True)
    for i in range(signs.size):
        values[EARLIER, i] = values[START, i] if signs[i] != 0.0 else 0.0
    for j in range(1, _PARTS + 1):
        if status == SUCCESS:
            status = _along(frame, t, h, coefficients, j / _PARTS, PLACE)
        if status != SUCCESS:
            break
        status, found, x = _search_part(frame, t, h, coefficients, j)
        if status != SUCCESS or found >= 0:
            return status, found, x
        for i in range(values.shape[1]):
            values[BEFORE, i], values[EARLIER, i] = values[EARLIER, i], values[PLACE, i]
            if values[PLACE, i] != 0.0:
                values[SIGNS, i] = sign_of(values[PLACE, i])
    return status, -1, 2.0


@kernel
def slope_along(frame, t, h, coefficients, x, i):
    """(status, slope in time) of guard i at a part x of the step."""
    values, d = slots.GUARD_VALUES(frame), _APART
    status = _along(frame, t, h, coefficients, x - d, TRIED)
    before = values[TRIED, i]
    if status == SUCCESS:
        status = _along(frame, t, h, coefficients, x + d, TRIED)
    return status, (values[TRIED, i] - before) / (2.0 * d * h)
