"""Stops: where steps towards one end, and go on behind it. Where f may jump is a gap, so that no stage is behind it."""

from __future__ import annotations

from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import plane, row
from adjode.loops.record import dense_at, observe, record, stages_at
from adjode.status import STORE_FULL, SUCCESS

_SPACINGS = 4.0  # see `_half_width`


@kernel
def _half_width(frame, k):
    """How far before stop k steps end, and how far behind it they go on, signed.

    Where f may jump, a few times the spacing of numbers in the span, so that rounding takes no stage to the other side.
    """
    crossed, stops, control = slots.CROSSED(frame), slots.STOPS(frame), slots.CONTROL(frame)
    if crossed.size == 0 or crossed[k] == 0:
        return 0.0
    largest = max(abs(stops[k]), abs(stops[stops.size - 1]), abs(control[slots.T_START]))
    return control[slots.DIRECTION] * _SPACINGS * control[slots.EPS] * largest


@kernel
def landing(frame, k):
    """Where steps towards stop k end."""
    return slots.STOPS(frame)[k] - _half_width(frame, k)


@kernel
def resumption(frame, k):
    """Where steps from stop k begin: behind it, but not behind the end."""
    direction, stops = slots.CONTROL(frame)[slots.DIRECTION], slots.STOPS(frame)
    t, end = stops[k] + _half_width(frame, k), stops[stops.size - 1]
    return end if direction * (t - end) > 0.0 else t


@kernel
def find_stop(frame, k, t):
    """The first stop from k on that is before the end and, if it is to be crossed, not behind t; or the last one, the end."""
    direction, stops = slots.CONTROL(frame)[slots.DIRECTION], slots.STOPS(frame)
    last = stops.size - 1
    while k < last:
        crossed = _half_width(frame, k) != 0.0 and direction * (resumption(frame, k) - t) < 0.0
        if not crossed and direction * (landing(frame, k) - stops[last]) < 0.0:
            return k
        k += 1
    return last


@kernel
def _cross(frame, slot, t, t_new, y):
    """Record a step from t to t_new in which the state stays as it is."""
    count, coefficients = slots.COUNT(frame), plane(slots.MESH_C(frame), dense_at(frame, slot))
    stage = row(plane(slots.STAGES(frame), stages_at(frame, slot)), 0)
    for k in range(y.size):
        stage[k] = y[k]
        for p in range(coefficients.shape[0]):
            coefficients[p, k] = 0.0
    observe(frame, t, t_new - t, t_new, y, coefficients)
    record(frame, slot, t)
    slots.MESH_KIND(frame)[slot] = slots.CROSSING
    count[slots.STEPS] += 1
    count[slots.CROSSINGS] += 1
    slots.CLOCK(frame)[slots.T] = t_new


@kernel
def cross(frame, k, y):
    """At a stop of a forward pass: across it, in two steps, so that the stop itself is in the mesh."""
    stop, behind = slots.STOPS(frame)[k], resumption(frame, k)
    count, recorded = slots.COUNT(frame), slots.SETTING(frame)[slots.RECORD] != 0
    if recorded and count[slots.STEPS] + 2 > slots.MESH_T(frame).size - 1:
        return STORE_FULL
    for t_new in (stop, behind):
        t = slots.CLOCK(frame)[slots.T]
        if t != t_new:
            _cross(frame, count[slots.STEPS] if recorded else 0, t, t_new, y)
    return SUCCESS


def make_meet_stop(at_stop: Callable) -> Callable:
    @kernel
    def meet_stop(frame, t, k):
        """Do what is to be done at stop k, and go on behind it."""
        count, clock = slots.COUNT(frame), slots.CLOCK(frame)
        clock[slots.T_REST] = 0.0  # two stops are never closer than that
        status = at_stop(frame, k, slots.Y(frame))
        if status == SUCCESS:
            behind = resumption(frame, k)
            if slots.CONTROL(frame)[slots.DIRECTION] * (behind - t) > 0.0:
                clock[slots.T] = behind
            count[slots.STOP] = find_stop(frame, k + 1, clock[slots.T])
            count[slots.FRESH] = 0
        return status

    return meet_stop
