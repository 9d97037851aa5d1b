"""The running cost between the nodes of its quadrature: where a short pulse may be that no node has met."""

from __future__ import annotations

import math

import numpy as np

from adjode.adjoints import products
from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.loops.quadrature import LOBATTO_NODES
from adjode.status import CALLBACK_RAISED, SUCCESS
from adjode.steppers.explicit import interpolate

LOOKS = 2048  # in the span
_LOOSE = 10.0  # where g is smooth, a polynomial of degree 4 is off by less than so many times the error of Simpson's rule
_QUARTIC = np.linalg.inv(np.vander(np.concatenate(([0.0], LOBATTO_NODES, [1.0])), increasing=True))


@kernel
def go_to(frame, step, x):
    """U = the state at place x of a step; its time."""
    t, h, t_new, start, end, coefficients = step
    u = slots.U(frame)
    if x == 1.0:
        for k in range(u.size):
            u[k] = end[k]
        return t_new
    interpolate(u, start, coefficients, x)
    return t + x * h


@kernel
def _is_different(frame, step, left, width, x, allowed):
    """Whether g is something else at place x of a piece than the polynomial through its nodes: (status, answer)."""
    q, nodes, value = slots.Q(frame), slots.WEIGHTS(frame).shape[1], 0.0
    for p in range(nodes - 1, -1, -1):
        value *= x
        for i in range(nodes):
            value += _QUARTIC[p, i] * q[i, 0]
    t = go_to(frame, step, left + width * x)
    slots.COST(frame)[slots.LOOKS] += 1
    if products.cost(frame, t, slots.U(frame)) != 0:
        return CALLBACK_RAISED, False
    return SUCCESS, not abs(slots.VALUE(frame)[0] - value) <= allowed


@kernel
def _index_of(breaks, t):
    """How many breaks are before t."""
    low, high = 0, breaks.size
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if breaks[middle] < t else (low, middle)
    return low


@kernel
def _look_between_breaks(frame, step, left, width, allowed):
    """The same halfway from each break in a piece to the next, and to the ends of the piece."""
    breaks, t, h = slots.COST_BREAKS(frame), step[0] + left * step[1], width * step[1]
    earliest, latest = min(t, t + h), max(t, t + h)
    first, last = _index_of(breaks, earliest), _index_of(breaks, latest)
    for k in range(first, last + 1 if first < last else first):
        begin, end = earliest if k == first else breaks[k - 1], latest if k == last else breaks[k]
        status, different = _is_different(frame, step, left, width, (0.5 * (begin + end) - t) / h, allowed)
        if status != SUCCESS or different:
            return status, different
    return SUCCESS, False


@kernel
def look_between(frame, step, left, width, size, allowed, rounding):
    """Whether g is something else between the nodes of a piece than the polynomial through them: (status, answer)."""
    q, weights, fine = slots.Q(frame), slots.WEIGHTS(frame), 0.0
    for i in range(weights.shape[1]):
        fine += weights[1, i] * q[i, 0]
    allowed = max(_LOOSE * abs(fine), allowed) + rounding
    looks = math.ceil(size / slots.COST(frame)[slots.SPACING])
    if looks > weights.shape[1] - 2:  # than the nodes are
        for look in range(looks):
            status, different = _is_different(frame, step, left, width, (look + 0.5) / looks, allowed)
            if status != SUCCESS or different:
                return status, different
    return _look_between_breaks(frame, step, left, width, allowed)
