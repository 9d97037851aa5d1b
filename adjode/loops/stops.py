"""Stops: where steps towards one end, and go on behind it. Where f may jump is a gap, so that no stage is behind it."""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import plane, row
from adjode.loops.record import dense_at, observe, record, stages_at
from adjode.status import SUCCESS
from adjode.steppers.frozen import STALE

SPACINGS, _EPS = 4.0, 2.0**-52  # see `clearance`
_SNAP = 1e-6  # a step that would leave less than this fraction of itself before a stop is stretched to the stop
_LANDS = 0.01  # of the distance of the first step that might
_LANDS_FIXED = 1e-3  # of a fixed step


@kernel
def _crosses(frame, k):
    """Whether f may jump at stop k."""
    crossed = slots.CROSSED(frame)
    return crossed.size > 0 and crossed[k] == 1


@kernel
def _spacings(frame, eps):
    span = slots.TIME_SPAN(frame)
    return SPACINGS * eps * max(abs(span[slots.EARLIEST]), abs(span[slots.LATEST]))


@kernel
def clearance(frame):
    """How near steps may come to where f may jump, signed: a few spacings of numbers, so that rounding takes no stage across."""
    control = slots.CONTROL(frame)
    return control[slots.DIRECTION] * _spacings(frame, control[slots.EPS])


@kernel
def is_behind_jump(frame, time, k, direction):
    """Whether who observes at this time sees the state behind jump k: at its time, which rounding may have moved, or later."""
    return direction * (time - (slots.JUMP_T(frame)[k] - direction * _spacings(frame, _EPS))) > 0.0


@kernel
def _half_width(frame, k):
    """How far before stop k steps end, and how far behind it they go on, signed."""
    return clearance(frame) if _crosses(frame, k) else 0.0


@kernel
def landing(frame, k):
    """Where steps towards stop k end: at a jump of lam not within reach of where f may jump."""
    stops, direction = slots.STOPS(frame), slots.CONTROL(frame)[slots.DIRECTION]
    if _crosses(frame, k):
        return stops[k] - clearance(frame)
    for j in range(k + 1, slots.CROSSED(frame).size):
        end = stops[j] - clearance(frame)
        if direction * (end - stops[k]) >= 0.0:
            return stops[k]
        if _crosses(frame, j):
            return end
    return stops[k]


@kernel
def _within(frame, t):
    """t, but not behind the end."""
    stops = slots.STOPS(frame)
    end = stops[stops.size - 1]
    return end if slots.CONTROL(frame)[slots.DIRECTION] * (t - end) > 0.0 else t


@kernel
def resumption(frame, k):
    """Where steps from stop k begin: behind it, but not behind the end."""
    return _within(frame, slots.STOPS(frame)[k] + _half_width(frame, k))


@kernel
def behind(frame, t):
    """Where steps begin behind a jump at t."""
    return _within(frame, t + clearance(frame))


@kernel
def find_stop(frame, k):
    """The first stop from k on that is before the end or, where f may jump, within reach of the span; or the last one, the end."""
    control, stops = slots.CONTROL(frame), slots.STOPS(frame)
    direction, last = control[slots.DIRECTION], stops.size - 1
    while k < last:
        width = _half_width(frame, k)
        if direction * (stops[last] - (stops[k] - width)) > 0.0:
            if width == 0.0 or direction * (stops[k] + width - control[slots.T_START]) > 0.0:
                return k
        k += 1
    return last


@kernel
def room(frame, t):
    """How far from t on f is there and does not jump, as far as that is known."""
    stops = slots.STOPS(frame)
    for k in range(slots.COUNT(frame)[slots.STOP], slots.CROSSED(frame).size):
        if _crosses(frame, k):
            return abs(landing(frame, k) - t)
        if stops[k] == stops[stops.size - 1]:
            break
    return abs(stops[stops.size - 1] - t)


@kernel
def _shortened(frame, t, h):
    """h, or so much less that no stage of the step is where f may have jumped or has ended."""
    reach = slots.CONTROL(frame)[slots.REACH]
    return h if reach == 1.0 else min(h, room(frame, t) / reach)


@kernel
def _looks_across(frame, t, h):
    """Whether a stage of the step would be where f may have jumped or has ended."""
    reach = slots.CONTROL(frame)[slots.REACH]
    return reach > 1.0 and reach * abs(h) > room(frame, t)


@kernel
def next_end(frame, t, h, distance):
    """(the step to take where h is wanted, whether it lands on the stop at this distance, and whether it then has a stage behind).

    The time of such a stage is that of the stop, an error of h^2, which the dense output has where the state may not. So a step
    lands with one only from nearby, nearer still where it has failed for it, and those before it have their stages where they
    should be.
    """
    clock = slots.CLOCK(frame)
    if h * (1.0 + _SNAP) < distance:
        return _shortened(frame, t, h), False, False
    if not _looks_across(frame, t, distance):
        return h, True, False
    if not clock[slots.LANDS_WITHIN] < math.inf:
        clock[slots.LANDS_WITHIN] = _LANDS * distance
    if distance > clock[slots.LANDS_WITHIN]:
        return distance / slots.CONTROL(frame)[slots.REACH], False, False
    return h, True, True


@kernel
def keep_off(frame, h, norm):
    """After a step with a stage behind its end has failed with this error norm: the factor for the next one."""
    part = 0.7 / math.sqrt(norm) if 2.0 < norm < math.inf else 0.5
    slots.CLOCK(frame)[slots.LANDS_WITHIN] = abs(h) * part
    return 1.0 / slots.CONTROL(frame)[slots.REACH]


@kernel
def forget_landing(frame):
    """What is known of steps that land does not hold for another stop; fixed steps have no error that would tell."""
    fixed = _LANDS_FIXED * slots.CONTROL(frame)[slots.FIRST_STEP]
    slots.CLOCK(frame)[slots.LANDS_WITHIN] = math.inf if slots.SETTING(frame)[slots.ADAPTIVE] == 1 else fixed


@kernel
def cross_over(frame, t_new, kind, observes):
    """Record a step of no length to speak of to t_new, in which the state stays as it is."""
    count, y, recorded = slots.COUNT(frame), slots.Y(frame), slots.SETTING(frame)[slots.RECORD] != 0
    slot, t = count[slots.STEPS] if recorded else 0, slots.CLOCK(frame)[slots.T]
    coefficients = plane(slots.MESH_C(frame), dense_at(frame, slot))
    stage = row(plane(slots.STAGES(frame), stages_at(frame, slot)), 0)
    for k in range(y.size):
        stage[k] = y[k]
        for p in range(coefficients.shape[0]):
            coefficients[p, k] = 0.0
    if observes:
        observe(frame, t, t_new - t, t_new, y, coefficients)
    record(frame, slot, t)
    kinds = slots.MESH_KIND(frame)
    if kinds.size > 0:
        kinds[slot] = kind
    count[slots.STEPS] += 1
    count[slots.CROSSINGS] += 1
    slots.CLOCK(frame)[slots.T] = t_new


@kernel
def start_anew(frame):
    """At a place where f, its Jacobian and how fast Newton converges are others."""
    count, clock = slots.COUNT(frame), slots.CLOCK(frame)
    count[slots.FRESHNESS], clock[slots.H_FACTORED], clock[slots.REMAINS] = STALE, 0.0, 1.0
    clock[slots.T_REST], clock[slots.T_FROM], count[slots.FRESH] = 0.0, clock[slots.T], 0
    forget_landing(frame)


@kernel
def last_together(frame, k):
    """The last of the stops from k on that are crossed together with it, since the state jumps there."""
    stops, near, last = slots.STOPS(frame), 2.0 * abs(clearance(frame)), k
    for j in range(k + 1, slots.JUMP_ROWS(frame).size - 1):
        if not _crosses(frame, j) or abs(stops[j] - stops[k]) > near:
            break
        last = j
    return last


def make_meet_stop(at_stop: Callable, together: bool) -> Callable:
    @kernel
    def meet_stop(frame, t, k):
        """Do what is to be done at stop k and, where they are met `together`, at others so near to it; go on behind it."""
        count, clock = slots.COUNT(frame), slots.CLOCK(frame)
        clock[slots.T_REST] = 0.0  # two stops are never closer than that
        last = last_together(frame, k) if together else k
        status = at_stop(frame, k, slots.Y(frame))
        if status == SUCCESS:
            behind = resumption(frame, last)
            if slots.CONTROL(frame)[slots.DIRECTION] * (behind - t) > 0.0:
                clock[slots.T] = behind
            if _crosses(frame, k):
                start_anew(frame)
            clock[slots.T_FROM] = clock[slots.T]
            forget_landing(frame)
            count[slots.STOP] = find_stop(frame, last + 1)
            count[slots.FRESH] = 0
        return status

    return meet_stop
