"""Limits to the steps of a forward pass, part by part of its span: those that a backward pass along it has asked for."""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import kernel


@kernel
def _part(frame, t):
    """The row of LIMITS that t is in."""
    rows, count, limits = slots.LIMITED(frame)[0], slots.COUNT(frame), slots.LIMITS(frame)
    direction, k = slots.CONTROL(frame)[slots.DIRECTION], count[slots.LIMIT]
    while k < rows - 1 and direction * (t - limits[k, 0]) >= 0.0:
        k += 1
    count[slots.LIMIT] = k
    return k


@kernel
def is_stiff(frame, t):
    """Whether t is in a part of the span that is to be crossed by an implicit method, if there is one."""
    return slots.LIMITED(frame)[0] > 0 and slots.LIMITS(frame)[_part(frame, t), 2] == 1.0


@kernel
def limited(frame, t, h):
    """h, or the largest step from t that no part of the span forbids."""
    rows = slots.LIMITED(frame)[0]
    if rows == 0:
        return h
    limits, direction, k = slots.LIMITS(frame), slots.CONTROL(frame)[slots.DIRECTION], _part(frame, t)
    h = min(h, limits[k, 1])
    while k < rows - 1 and direction * (limits[k, 0] - t) < h:  # into the next part no further than that allows
        h = min(h, max(limits[k + 1, 1], direction * (limits[k, 0] - t)))
        k += 1
    return h
