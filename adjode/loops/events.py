"""Events: where a guard passes through zero the step is taken again to that time, and the state is reset.

The time is found on the dense output first, then on steps that end there, by the secant method: in the end the guard is zero, to
rounding, for the state that the step has led to. So the mesh is exact, and that time is a function of what the step starts from.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.finite import all_finite
from adjode.compile.flags import kernel
from adjode.compile.outside import invoke_resets
from adjode.compile.views import row, unlikely
from adjode.loops.guards import (
    BEFORE,
    BLUR,
    EARLIER,
    END,
    FIRST,
    MIDDLE,
    PRIORITY,
    RESETS,
    SEEN,
    SIGNS,
    SLOPE,
    SPEED,
    START,
    TRIED,
    U_NEW,
    UNTIL,
    directed,
    first_event,
    guards_at,
    guards_here,
    is_clear,
    put_middle,
    put_slope,
    rule_of,
    show_state,
    sign_of,
    slope_along,
    suspects,
)
from adjode.loops.jumps import note_behind, note_jump
from adjode.loops.record import needs_dense
from adjode.loops.stops import behind, clearance, cross_over, start_anew
from adjode.status import AMBIGUOUS, CALLBACK_RAISED, ENDED, NEWTON_FAILED, NON_FINITE, SUCCESS, ZENO
from adjode.steppers.explicit import interpolate
from adjode.steppers.stepper import Stepper

CLEAR, NOTHING, HAPPENS, RETRY = range(4)  # what a step ends with: nothing, and START is the end already; nothing; an event
_AS_IT_IS, _DONE, _PENDING, _TAKEN_ALONG = range(4)  # of GUARD_HITS, at one time
_ITERATIONS = 12
_CLOSE, _FAR = 0.5, 1e3  # in clearances: when a time is found, and how far apart two are that tell a slope
_ZENO, _ZENO_WITHIN = 3, 100.0  # so many times the same event within so many clearances has no end
_CLEAR = 1e3  # times what rounding does to a guard: a reset has left it at what is not zero
_BACK, _BACK_AT_LEAST = 1e-6, 100.0  # of a step, and in clearances: how far back guards are compared with


@kernel
def begin_guards(frame):
    """The signs of all guards at the start of a pass; none has happened."""
    signs, hits = slots.GUARD_SIGNS(frame), slots.GUARD_HITS(frame)
    if signs.size == 0:
        return SUCCESS
    for k in range(hits.size):
        hits[k] = 0
    return renew_signs(frame, slots.CLOCK(frame)[slots.T])


@kernel
def renew_signs(frame, t):
    """The signs of all guards where the next step begins; to be found out for events that have just happened and left them zero."""
    signs, hits, values = slots.GUARD_SIGNS(frame), slots.GUARD_HITS(frame), slots.GUARD_VALUES(frame)
    status = guards_here(frame, t, START)
    for i in range(signs.size):
        known = hits[signs.size + i] == _AS_IT_IS or abs(values[START, i]) > values[BLUR, i]
        signs[i] = sign_of(values[START, i]) if known else 0.0
        hits[signs.size + i] = _AS_IT_IS
    return status


@kernel
def leave_guards(frame):
    """After a step without an event: values and signs at its end, where the next one begins."""
    signs, values = slots.GUARD_SIGNS(frame), slots.GUARD_VALUES(frame)
    for i in range(signs.size):
        values[START, i] = values[END, i]
        if values[END, i] != 0.0:
            signs[i] = sign_of(values[END, i])


# --- when ------------------------------------------------------------------------------------------------------------------------


def _make_land(take: Callable) -> Callable:
    @kernel
    def land(frame, t, t_new, V, i, slope):
        """(status, end): the step from t to where guard i is zero, which is near t_new; `slope` is that of the guard.

        NON_FINITE where there is no such place, as the guard jumps.
        """
        clock, close = slots.CLOCK(frame), _CLOSE * abs(clearance(frame))
        direction, last = slots.CONTROL(frame)[slots.DIRECTION], slots.SETTING(frame)[slots.LAST_STAGE]
        t_before, e_before = t_new, 0.0
        for k in range(_ITERATIONS):
            clock[slots.T_TRIED], clock[slots.H_TRIED] = t, t_new - t
            status = take(frame, t, t_new - t, t_new, V)
            if status == SUCCESS:
                status = guards_at(frame, t_new, row(V, last), END)
            if status != SUCCESS:
                return status, t_new
            e = slots.GUARD_VALUES(frame)[END, i]
            if k > 0 and abs(t_new - t_before) > _FAR * close:
                slope = (e - e_before) / (t_new - t_before)
            change = -e / slope if slope != 0.0 else 0.0
            if not abs(change) > close or k == _ITERATIONS - 1:
                break
            t_before, e_before, t_new = t_new, e, t_new + change
            if not direction * (t_new - t) > 0.0:
                t_new = 0.5 * (t + t_before)
        return SUCCESS if abs(change) <= _FAR * close else NON_FINITE, t_new

    return land


def _make_look(stepper: Stepper) -> tuple[Callable, Callable]:
    """`look(frame, t, h, t_new, V, coefficients) -> status` puts down the middle of a step, and
    `put_slope_at(frame, h, coefficients, i)` its slope at the start (i = 0) or at the end (i = s).
    """
    dense_output = stepper.dense_output

    @kernel
    def look(frame, t, h, t_new, V, coefficients):
        last = slots.SETTING(frame)[slots.LAST_STAGE]
        put_middle(frame, h, row(V, last), last)
        return SUCCESS

    @kernel
    def put_slope_at(frame, h, coefficients, i):
        slope, K, last = row(slots.EVENT_WORK(frame), SLOPE), slots.K(frame), slots.SETTING(frame)[slots.LAST_STAGE]
        for k in range(slope.size):
            slope[k] = K[0, k] if i == 0 else K[last, k]

    @kernel
    def look_with_mass(frame, t, h, t_new, V, coefficients):
        """The same where K is no slope: by the dense output, which costs no evaluations."""
        status = dense_output(frame, t, h, t_new, V, coefficients)
        interpolate(row(slots.EVENT_WORK(frame), MIDDLE), slots.Y(frame), coefficients, 0.5)
        return status

    @kernel
    def put_slope_with_mass(frame, h, coefficients, i):
        put_slope(frame, h, coefficients, 1.0 if i > 0 else 0.0)

    return (look, put_slope_at) if stepper.to_slope is None else (look_with_mass, put_slope_with_mass)


def _make_search(stepper: Stepper) -> Callable:
    dense_output, massed = stepper.dense_output, stepper.to_slope is not None
    _, put_slope_at = _make_look(stepper)

    @kernel
    def search(frame, t, h, t_new, V, coefficients, dense):
        """(status, event, x): the first event in the step, at a part x of it; -1 if there is none. SLOPE is that at the start."""
        status, suspicious = suspects(frame, t, h, row(V, slots.SETTING(frame)[slots.LAST_STAGE]))
        if status != SUCCESS or not suspicious:
            return status, -1, 2.0
        if not (dense or massed):
            status = dense_output(frame, t, h, t_new, V, coefficients)
        if status != SUCCESS:
            return status, -1, 2.0
        put_slope_at(frame, h, coefficients, 0)
        return first_event(frame, t, h, coefficients)

    return search


def make_find_event(stepper: Stepper) -> Callable:
    """`find_event(frame, t, h, t_new, V, coefficients, dense) -> (status, what, end)`: the step ends there, and has been taken."""
    dense_output, massed = stepper.dense_output, stepper.to_slope is not None
    (look, put_slope_at), search, land = _make_look(stepper), _make_search(stepper), _make_land(stepper.take)

    @kernel
    def find_event(frame, t, h, t_new, V, coefficients, dense):
        status, found, x = look(frame, t, h, t_new, V, coefficients), -1, 2.0
        if not unlikely(status != SUCCESS or not is_clear(frame, t, h, row(V, slots.SETTING(frame)[slots.LAST_STAGE]))):
            return SUCCESS, CLEAR, t_new
        if status == SUCCESS:
            status, found, x = search(frame, t, h, t_new, V, coefficients, dense)
        if status != SUCCESS or found < 0:
            return status, NOTHING, t_new
        slots.COUNT(frame)[slots.HAPPENING] = found
        if abs(x * h) <= abs(clearance(frame)):
            return guards_here(frame, t, END), HAPPENS, t
        status, slope = slope_along(frame, t, h, coefficients, x, found)
        if status == SUCCESS:
            status, t_new = land(frame, t, t + x * h if x < 1.0 else t_new, V, found, slope)
        if status in (NON_FINITE, NEWTON_FAILED):
            return SUCCESS, RETRY, t_new
        if status == SUCCESS and (massed or dense or needs_dense(frame, t_new)):
            status = dense_output(frame, t, t_new - t, t_new, V, coefficients)
        put_slope_at(frame, t_new - t, coefficients, slots.SETTING(frame)[slots.LAST_STAGE])
        return status, HAPPENS, t_new

    return find_event


# --- what -----------------------------------------------------------------------------------------------------------------------


@kernel
def _is_ambiguous(frame):
    """Whether pending events with other guards and the same priority both reset the state."""
    hits, many = slots.GUARD_HITS(frame), slots.GUARD_SIGNS(frame).size
    for i in range(many):
        for j in range(i):
            pending = hits[many + i] == _PENDING and hits[many + j] == _PENDING
            alike = rule_of(frame, i, PRIORITY) == rule_of(frame, j, PRIORITY)
            both_reset = rule_of(frame, i, RESETS) == 1 and rule_of(frame, j, RESETS) == 1
            if pending and alike and both_reset and rule_of(frame, i, FIRST) != rule_of(frame, j, FIRST):
                return True
    return False


@kernel
def _mark_simultaneous(frame, t):
    """Mark the event found and all with guards that are zero then; AMBIGUOUS if rounding says in which order they happen."""
    signs, hits, values, found = slots.GUARD_SIGNS(frame), slots.GUARD_HITS(frame), slots.GUARD_VALUES(frame), slots.COUNT(frame)
    y, work, many = slots.Y(frame), slots.EVENT_WORK(frame), signs.size
    slope, before = row(work, SLOPE), row(work, MIDDLE)
    h, least = slots.CLOCK(frame)[slots.H_TRIED], _BACK_AT_LEAST * clearance(frame)
    back = _BACK * h if abs(_BACK * h) > abs(least) else least
    for k in range(y.size):
        before[k] = y[k] - back * slope[k]
    status = guards_at(frame, t - back, before, TRIED)
    for i in range(many):
        sign, e, rate = values[SIGNS, i], values[END, i], (values[END, i] - values[TRIED, i]) / back
        values[SPEED, i] = abs(rate * h) / abs(values[START, i]) if values[START, i] != 0.0 else 1.0
        blurred = abs(e) <= abs(rate * clearance(frame))
        near = blurred and rate * sign * slots.CONTROL(frame)[slots.DIRECTION] < 0.0
        values[BLUR, i] = _CLEAR * abs(rate * clearance(frame))
        if i == found[slots.HAPPENING] or (sign != 0.0 and (near or sign * e < 0.0) and directed(frame, i, sign)):
            hits[many + i] = _PENDING
            values[BLUR, i] = max(values[BLUR, i], _CLEAR * abs(e))
        elif sign != 0.0:  # since the step began it may have left zero, or crossed it in a direction that it does not ask for
            signs[i] = sign if blurred else sign_of(e)
    return AMBIGUOUS if _is_ambiguous(frame) else status


@kernel
def mark_passing(frame, t, t_behind):
    """Mark events whose guards pass through zero at a stop while the state stays: with time, or since they jump there, as f may.

    AMBIGUOUS if rounding says in which order they happen.
    """
    signs, hits, values = slots.GUARD_SIGNS(frame), slots.GUARD_HITS(frame), slots.GUARD_VALUES(frame)
    many, width = signs.size, clearance(frame)
    status = guards_here(frame, t - 2.0 * width, EARLIER)
    if status == SUCCESS:
        status = guards_here(frame, t - width, BEFORE)
    if status == SUCCESS:
        status = guards_here(frame, t_behind, TRIED)
    if status != SUCCESS:
        return status
    longer = abs(t_behind - (t - width)) / abs(width)
    for i in range(many):
        sign, e = signs[i], values[TRIED, i]
        values[BLUR, i] = _CLEAR * abs(values[BEFORE, i] - values[EARLIER, i])
        if not sign * e < 0.0:
            continue
        if directed(frame, i, sign):
            jumps = abs(e - values[BEFORE, i]) > 2.0 * longer * abs(values[BEFORE, i] - values[EARLIER, i])
            hits[many + i], values[SPEED, i] = _TAKEN_ALONG if jumps else _PENDING, 1.0
        else:
            signs[i] = sign_of(e)
    return AMBIGUOUS if _is_ambiguous(frame) else SUCCESS


@kernel
def is_pending(frame):
    """Whether an event has been marked."""
    return _next_pending(frame) >= 0


@kernel
def mark_taken_along(frame, t):
    """Mark events whose guards a jump has taken across zero; signs of others are those behind it."""
    signs, hits, values = slots.GUARD_SIGNS(frame), slots.GUARD_HITS(frame), slots.GUARD_VALUES(frame)
    status, many = guards_here(frame, t, TRIED), signs.size
    for i in range(many):
        e = values[TRIED, i]
        if hits[many + i] == _AS_IT_IS and e != 0.0:
            if e * signs[i] < 0.0 and directed(frame, i, signs[i]):
                hits[many + i] = _TAKEN_ALONG
            signs[i] = sign_of(e)
    return status


@kernel
def _next_pending(frame):
    """The event to happen next: that of the highest priority; -1 if there is none."""
    hits, many, best = slots.GUARD_HITS(frame), slots.GUARD_SIGNS(frame).size, -1
    for i in range(many):
        if hits[many + i] >= _PENDING and (best < 0 or rule_of(frame, i, PRIORITY) > rule_of(frame, best, PRIORITY)):
            best = i
    return best


@kernel
def _reset(frame, t, i):
    """The state behind event i."""
    y, which, u_new = slots.Y(frame), slots.WHICH(frame), row(slots.EVENT_WORK(frame), U_NEW)
    which[0] = float(i)
    for k in range(y.size):
        u_new[k] = y[k]
    show_state(frame)
    if invoke_resets(frame, t, (row(slots.EVENT_WORK(frame), SEEN), slots.THETA(frame), which, u_new)) != 0:
        return CALLBACK_RAISED
    for k in range(y.size):
        y[k] = u_new[k]
    return SUCCESS if all_finite(y) else NON_FINITE


@kernel
def happen(frame, t, t_behind, first):
    """All pending events at t, and those that they take along, as their guards are at `t_behind`; ENDED if one ends the pass."""
    hits, many, ended = slots.GUARD_HITS(frame), slots.GUARD_SIGNS(frame).size, False
    i = _next_pending(frame)
    while i >= 0:
        taken = hits[many + i] == _TAKEN_ALONG
        for j in range(many):
            if j != i and hits[many + j] == _DONE and rule_of(frame, j, FIRST) == rule_of(frame, i, FIRST):
                taken = True
        hits[many + i] = _DONE
        hits[i] += 1
        jump, status = note_jump(frame, t, slots.NESTED if taken else slots.EVENT, i, first), SUCCESS
        slots.JUMP_INFLOW(frame)[jump] = slots.GUARD_VALUES(frame)[SPEED, i]
        if rule_of(frame, i, RESETS) == 1:
            status = _reset(frame, t, i)
            if status == SUCCESS:
                status = mark_taken_along(frame, t_behind)
        note_behind(frame, jump)
        if status != SUCCESS:
            return status
        if rule_of(frame, i, UNTIL) > 0 and hits[i] >= rule_of(frame, i, UNTIL):
            ended = True
            slots.COUNT(frame)[slots.ENDED] = i + 1
        i = _next_pending(frame)
    return ENDED if ended else SUCCESS


@kernel
def _has_no_end(frame):
    """Whether the event that has happened last has done so so often in a while so short that there will be no end of it."""
    times, whats, last = slots.JUMP_T(frame), slots.JUMP_WHAT(frame), slots.COUNT(frame)[slots.OCCURRED] - 1
    many, k = 0, last
    while k >= 0 and abs(times[last] - times[k]) <= _ZENO_WITHIN * abs(clearance(frame)):
        many += 1 if whats[3 * k] != slots.DOSE and whats[3 * k + 1] == whats[3 * last + 1] else 0
        k -= 1
    return many >= _ZENO


@kernel
def changes(frame, first, last):
    """Whether any of these jumps is one, and not an event without a reset, of which nobody asks for the time."""
    whats, many = slots.JUMP_WHAT(frame), 0
    for k in range(first, last + 1):
        many += 1 if whats[3 * k] == slots.DOSE or rule_of(frame, whats[3 * k + 1], RESETS) != 0 else 0
    return many > 0


@kernel
def meet_event(frame, t):
    """At t, where a step has ended at an event: it happens, and the pass goes on behind it."""
    first = slots.COUNT(frame)[slots.OCCURRED]
    status = _mark_simultaneous(frame, t)
    if status == SUCCESS:
        status = happen(frame, t, t, first)
    if status not in (SUCCESS, ENDED):
        return status
    if _has_no_end(frame):
        return ZENO
    last = slots.COUNT(frame)[slots.OCCURRED] - 1
    if status == ENDED or changes(frame, first, last):
        cross_over(frame, t if status == ENDED else behind(frame, t), slots.JUMP + last, True)
        start_anew(frame)
    renewed = renew_signs(frame, t)
    return status if renewed == SUCCESS else renewed
