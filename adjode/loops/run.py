"""The loop that serves every pass: step, estimate, accept or reject, store, observe, stop.

It knows no method (tableaus are data) and no meaning (`make_integrate` closes over three kernels):

- `derivative(frame, t, y, dy, q) -> status`: the right-hand side; may leave the integrand of the quadrature in `q`.
- `integrand(frame, t, y, q) -> status`: the integrand of the quadrature alone; None for a pass without one.
- `at_stop(frame, k, y) -> status`: what happens to the state at stop k, a jump for instance.

Everything it works on is in a frame, which an `Integration` (passes/base.py) fills from Python. The kernel starts from START; it
can be left and entered again when a store is full, which is how its stores grow, or how it goes on at their beginning.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.finite import all_finite
from adjode.compile.flags import kernel
from adjode.compile.views import plane, unlikely
from adjode.compile.watch import begin_watch, keep_watch
from adjode.loops import tolerances
from adjode.loops.attempt import make_steps
from adjode.loops.record import dense_at, observe, record
from adjode.loops.stops import find_stop, forget_landing, landing, make_meet_stop
from adjode.loops.switch import make_switching
from adjode.status import ENDED, MAX_STEPS, NON_FINITE, STORE_FULL, SUCCESS
from adjode.steppers.explicit import ExplicitStepper
from adjode.steppers.stepper import Stepper


@kernel
def _begin(frame):
    """Everything to its start; NON_FINITE if what is given is not."""
    clock, count, control = slots.CLOCK(frame), slots.COUNT(frame), slots.CONTROL(frame)
    y, start, total = slots.Y(frame), slots.START(frame), slots.TOTAL(frame)
    for k in range(clock.size):
        clock[k] = 0.0
    clock[slots.T], clock[slots.H], clock[slots.REMAINS] = control[slots.T_START], control[slots.FIRST_STEP], 1.0
    clock[slots.T_FROM] = clock[slots.T]
    forget_landing(frame)
    for k in range(count.size):
        count[k] = 0
    for k in range(y.size):
        y[k] = start[k]
    for k in range(total.size):
        total[k] = 0.0
    begin_watch(frame)
    return SUCCESS if all_finite(start) and all_finite(slots.THETA(frame)) else NON_FINITE


@kernel
def _tolerances_as_given(frame):
    pass


@kernel
def _begins_as_planned(frame):
    return SUCCESS


@kernel
def _has_room_for_events(frame):
    """Whether all events may happen behind the next step."""
    many, count, recorded = slots.GUARD_SIGNS(frame).size, slots.COUNT(frame), slots.SETTING(frame)[slots.RECORD] != 0
    if many == 0:
        return True
    if recorded and count[slots.STEPS] + 2 > slots.MESH_T(frame).size - 1:
        return False
    return count[slots.OCCURRED] + many <= slots.JUMP_T(frame).size


@kernel
def _has_room_for_none(frame):
    return True


@kernel
def _may_go_on(frame):
    """SUCCESS, or why there may be no further attempt."""
    count = slots.COUNT(frame)
    if slots.SETTING(frame)[slots.RECORD] != 0 and count[slots.STEPS] == slots.MESH_T(frame).size - 1:
        return STORE_FULL
    attempts = count[slots.EARLIER] + count[slots.STEPS] - count[slots.CROSSINGS] + count[slots.REJECTED]
    return MAX_STEPS if attempts >= slots.CONTROL(frame)[slots.MAX_ATTEMPTS] else keep_watch(frame, attempts)


@kernel
def _end_here(frame):
    """The end of a pass before the last of STOPS: who observes the state there gets that reached, and who does later, none."""
    count, clock, times, observed = slots.COUNT(frame), slots.CLOCK(frame), slots.TIMES(frame), slots.OBSERVED(frame)
    stops, y = slots.STOPS(frame), slots.Y(frame)
    for j in range(count[slots.SEEN], times.size):
        at_end = times[j] == stops[stops.size - 1]
        for k in range(y.size):
            observed[j, k] = y[k] if at_end else math.nan
    record(frame, count[slots.STEPS], clock[slots.T])
    return SUCCESS


@kernel
def _never_ends_here(frame):
    return SUCCESS


@kernel
def _observe_rest(frame):
    """At the end: who observes the state so near before it that an event was waited for, which has changed nothing."""
    count, observed, y = slots.COUNT(frame), slots.OBSERVED(frame), slots.Y(frame)
    for j in range(count[slots.SEEN], observed.shape[0]):
        for k in range(y.size):
            observed[j, k] = y[k]
    count[slots.SEEN] = observed.shape[0]


@kernel
def _observe_no_more(frame):
    pass


def _make_run(enter: Callable, step_on: Callable, meet_stop: Callable, guarded: bool) -> Callable:
    has_room, end_here = (_has_room_for_events, _end_here) if guarded else (_has_room_for_none, _never_ends_here)
    observe_rest = _observe_rest if guarded else _observe_no_more

    @kernel
    def run(frame):
        """From where the pass is, as far as it goes."""
        count, clock, last = slots.COUNT(frame), slots.CLOCK(frame), slots.STOPS(frame).size - 1
        direction, status = slots.CONTROL(frame)[slots.DIRECTION], SUCCESS
        while status == SUCCESS:
            t, stop = clock[slots.T], count[slots.STOP]
            end = landing(frame, stop)
            if unlikely(direction * (t - end) >= 0.0):
                if stop == last:
                    observe_rest(frame)
                    record(frame, count[slots.STEPS], t)
                    return SUCCESS
                status = meet_stop(frame, t, stop)
                continue
            status = _may_go_on(frame) if has_room(frame) else STORE_FULL
            if status == SUCCESS and count[slots.FRESH] == 0:
                status = enter(frame, t)
            if status == SUCCESS:
                status = step_on(frame, t, end)
        return end_here(frame) if status == ENDED else status

    return run


@kernel
def _jumps_at(frame, t, stop):
    """Whether the state jumps at t, where this stop is the next."""
    rows = slots.JUMP_ROWS(frame)
    return rows.size > 0 and rows[stop] >= 0 and slots.CONTROL(frame)[slots.DIRECTION] * (t - landing(frame, stop)) >= 0.0


def make_integrate(
    derivative: Callable,
    at_stop: Callable,
    integrand: Callable | None = None,
    stages: tuple[int, int] | None = None,
    stepper: Stepper | None = None,
    switches: bool = False,
    begin: Callable = _begins_as_planned,
    guarded: bool = False,
) -> Callable:
    """The loop, with `stepper`, or explicit steps if there is none; or with both, if it switches.

    `begin(frame) -> status` may change the stops at the start of a pass; a `guarded` one may have events.
    """
    enter, step_on = make_steps(derivative, integrand, stepper or ExplicitStepper(derivative, stages), guarded)
    if switches:
        explicit = make_steps(derivative, integrand, ExplicitStepper(derivative, stages), guarded)
        enter, step_on = make_switching(explicit, (enter, step_on))
    run = _make_run(enter, step_on, make_meet_stop(at_stop, together=integrand is None), guarded)
    begin_tolerances = _tolerances_as_given if integrand is None else tolerances.begin_tolerances  # in a pass over lam

    @kernel
    def integrate(frame):
        """From START to the last of STOPS; the status."""
        count = slots.COUNT(frame)
        begins = count[slots.ENTERED] == 0
        if begins:
            if _begin(frame) != SUCCESS:
                return NON_FINITE
            begin_tolerances(frame)
            status = begin(frame)
            if status != SUCCESS:
                return status
        t, count[slots.STOP] = slots.CLOCK(frame)[slots.T], find_stop(frame, count[slots.STOP])  # on the way others may be ahead
        if begins and not _jumps_at(frame, t, count[slots.STOP]):
            observe(frame, t, 1.0, t, slots.Y(frame), plane(slots.MESH_C(frame), dense_at(frame, 0)))
        status = run(frame)
        count[slots.ENTERED] = 1 if status == STORE_FULL else 0
        return status

    return integrate
