"""What a forward pass does at a stop: it crosses it, and where the state jumps gives what is due there."""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import plane
from adjode.loops.events import happen, mark_taken_along, renew_signs
from adjode.loops.jumps import administer
from adjode.loops.record import dense_at, observe
from adjode.loops.stops import cross_over, last_together, resumption
from adjode.status import STORE_FULL, SUCCESS

_STEPS = 2  # to cross a stop


@kernel
def _has_room(frame, k, last):
    count, events = slots.COUNT(frame), slots.GUARD_SIGNS(frame).size
    if slots.SETTING(frame)[slots.RECORD] != 0 and count[slots.STEPS] + _STEPS > slots.MESH_T(frame).size - 1:
        return False
    if slots.JUMP_WHAT(frame).size == 0:
        return True
    return count[slots.OCCURRED] + (last + 1 - k) + events <= slots.JUMP_T(frame).size


@kernel
def _give_doses(frame, t, k, last):
    """What is due at stops k .. last: (status, whether anything was)."""
    rows, first = slots.JUMP_ROWS(frame), slots.COUNT(frame)[slots.OCCURRED]
    for j in range(k, min(last + 1, rows.size)):
        if rows[j] >= 0:
            administer(frame, t, rows[j], first)
    if slots.COUNT(frame)[slots.OCCURRED] == first:
        return SUCCESS, False
    if slots.GUARD_SIGNS(frame).size == 0:
        return SUCCESS, True
    status = mark_taken_along(frame, t)
    return (happen(frame, t, first) if status == SUCCESS else status), True


@kernel
def _cross_smoothly(frame, stop, behind):
    direction = slots.CONTROL(frame)[slots.DIRECTION]
    for t_new in (stop, behind):
        if direction * (t_new - slots.CLOCK(frame)[slots.T]) > 0.0 and direction * (behind - t_new) >= 0.0:
            cross_over(frame, t_new, slots.CROSSING, True)


@kernel
def _jump_across(frame, k, last, stop, behind):
    """The same where the state jumps: who observes it there sees what it is behind the jump."""
    clock, count, kinds = slots.CLOCK(frame), slots.COUNT(frame), slots.MESH_KIND(frame)
    direction = slots.CONTROL(frame)[slots.DIRECTION]
    if direction * (stop - clock[slots.T]) > 0.0:
        cross_over(frame, stop, slots.CROSSING, False)
    status, jumped = _give_doses(frame, stop, k, last)
    kind = slots.JUMP + count[slots.OCCURRED] - 1 if jumped else slots.CROSSING
    if direction * (behind - clock[slots.T]) > 0.0:
        cross_over(frame, behind, kind, True)
        return status
    slot = count[slots.STEPS] - 1 if slots.SETTING(frame)[slots.RECORD] != 0 else 0
    if kinds.size > 0 and slot >= 0:
        kinds[slot] = kind
    observe(frame, stop, 1.0, stop, slots.Y(frame), plane(slots.MESH_C(frame), dense_at(frame, slot)))
    return status


@kernel
def cross(frame, k, y):
    """At stop k of a forward pass: across it, in two steps, so that the stop itself is in the mesh unless another is as near."""
    last = last_together(frame, k)
    if not _has_room(frame, k, last):
        return STORE_FULL
    stop, behind = slots.STOPS(frame)[k], resumption(frame, last)
    if slots.JUMP_ROWS(frame).size == 0:
        _cross_smoothly(frame, stop, behind)
        return SUCCESS
    status = _jump_across(frame, k, last, stop, behind)
    if slots.GUARD_SIGNS(frame).size > 0:
        renewed = renew_signs(frame, stop)
        return status if renewed == SUCCESS else renewed
    return status
