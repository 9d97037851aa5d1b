"""What a forward pass does at a stop: it crosses it, and where the state jumps gives what is due there."""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import plane
from adjode.loops.events import happen, is_pending, mark_passing, mark_taken_along, renew_signs
from adjode.loops.jumps import administer
from adjode.loops.record import dense_at, observe
from adjode.loops.stops import cross_over, last_together, resumption
from adjode.status import ENDED, STORE_FULL, SUCCESS

_STEPS = 2  # to cross a stop


@kernel
def _has_room(frame):
    return slots.SETTING(frame)[slots.RECORD] == 0 or slots.COUNT(frame)[slots.STEPS] + _STEPS <= slots.MESH_T(frame).size - 1


@kernel
def _has_room_for_jumps(frame, k, last):
    rows, jumps = slots.JUMP_ROWS(frame), slots.GUARD_SIGNS(frame).size
    for j in range(k, min(last + 1, rows.size)):
        jumps += 1 if rows[j] >= 0 else 0
    return _has_room(frame) and slots.COUNT(frame)[slots.OCCURRED] + jumps <= slots.JUMP_T(frame).size


@kernel
def cross_smoothly(frame, k, y):
    """At stop k of a forward pass: across it, in two steps, so that the stop itself is in the mesh unless another is as near."""
    if not _has_room(frame):
        return STORE_FULL
    direction, behind = slots.CONTROL(frame)[slots.DIRECTION], resumption(frame, k)
    for t_new in (slots.STOPS(frame)[k], behind):
        if direction * (t_new - slots.CLOCK(frame)[slots.T]) > 0.0 and direction * (behind - t_new) >= 0.0:
            cross_over(frame, t_new, slots.CROSSING, True)
    return SUCCESS


@kernel
def _give_doses(frame, k, last, t_behind):
    """What is due at stops k .. last, and the events of that time: (status, whether the state has jumped)."""
    rows, first, t = slots.JUMP_ROWS(frame), slots.COUNT(frame)[slots.OCCURRED], slots.STOPS(frame)[k]
    for j in range(k, min(last + 1, rows.size)):
        if rows[j] >= 0:
            administer(frame, t, rows[j], first)
    given, status = slots.COUNT(frame)[slots.OCCURRED] > first, SUCCESS
    if slots.GUARD_SIGNS(frame).size == 0:
        return SUCCESS, given
    if given:
        status = mark_taken_along(frame, t_behind)
    if status == SUCCESS and is_pending(frame):
        return happen(frame, t, t_behind, first), True
    return status, given


@kernel
def _is_fixed(frame, k, last):
    """Whether there is one among stops k .. last at which f may jump, and the state does not."""
    rows, many = slots.JUMP_ROWS(frame), 0
    for j in range(k, min(last + 1, rows.size)):
        many += 1 if rows[j] < 0 else 0
    return many > 0 or rows.size == 0


@kernel
def _jump_across(frame, k, last, stop, behind):
    """The same where the state jumps: who observes it there sees what it is behind the jump."""
    clock, count, kinds = slots.CLOCK(frame), slots.COUNT(frame), slots.MESH_KIND(frame)
    direction = slots.CONTROL(frame)[slots.DIRECTION]
    if direction * (stop - clock[slots.T]) > 0.0:
        cross_over(frame, stop, slots.TO_JUMP_AT_STOP if _is_fixed(frame, k, last) else slots.CROSSING, False)
    status, jumped = _give_doses(frame, k, last, behind)
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
    """The same where the state may jump."""
    last, status, guarded = last_together(frame, k), SUCCESS, slots.GUARD_SIGNS(frame).size > 0
    stop, behind = slots.STOPS(frame)[k], resumption(frame, last)
    if not _has_room_for_jumps(frame, k, last):
        return STORE_FULL
    if guarded:
        status = mark_passing(frame, stop, behind)
    if status != SUCCESS:
        return status
    if slots.JUMP_ROWS(frame).size == 0 and not (guarded and is_pending(frame)):
        status = cross_smoothly(frame, k, y)
    else:
        status = _jump_across(frame, k, last, stop, behind)
    if guarded and status in (SUCCESS, ENDED):
        renewed = renew_signs(frame, slots.CLOCK(frame)[slots.T])
        return status if renewed == SUCCESS else renewed
    return status
