"""The running cost: the integrals of g, dg/du and dg/dtheta over the steps of the forward solve, to a tolerance of their own.

Between the ends of a step the state is known, a polynomial. So where a cost varies faster than the state does, the step is divided
for its quadrature alone, and the solve stays as it is. Each piece has the Gauss-Lobatto rule of loops/quadrature.py and its error
estimate; one with too large an error is halved (see W. Gander, W. Gautschi 2000, BIT 40, 84-101).

- Errors are parts of what has been integrated so far: of the integral of g or, where it cancels, of a thousandth of that of |g|.
  dg/du and dg/dtheta are measured together, as logarithmic derivatives (see adjoints/trust.py).
- A piece may use its share of the tolerance by length, so that many err no more than few, but at least a thousandth: what is next
  to a jump of g ends somewhere.
- A short pulse may be between all nodes. Where these are far apart g alone is looked at, `LOOKS` times in the span, and a piece is
  halved too if it is not what the polynomial through the nodes has there. So it is looked at between the times at which the source
  of g shows that it jumps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from adjode.adjoints import products
from adjode.adjoints.cost_looks import go_to, look_between
from adjode.adjoints.seeds import place_in_step, seed_inside
from adjode.adjoints.shifting import shift_cost
from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.finite import is_finite
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import plane, row, segment
from adjode.compile.watch import begin_watch, keep_watch
from adjode.status import CALLBACK_RAISED, MAX_STEPS, NON_FINITE, STEP_TOO_SMALL, STORE_FULL, SUCCESS
from adjode.steppers.explicit import interpolate

MOST_PARTS = 512  # of the span, with a largest step for lam each
_CANCELS = 1e-3
_LEAST_SHARE = 1e-3
_ROUNDING = 1e-15
_SMALLEST = 2.0**-50  # of a step
_SPACINGS = 8.0 * float(np.finfo(float).eps)  # of numbers, at the least, for a piece
_STEP_OF_LAM = 2.0  # how much longer than a piece it may be

# Rows of COST_SUMS and of COST_GROUPS.
_TOTAL, ABSOLUTE, _PIECE, _PIECE_ABSOLUTE, _PIECE_ERROR = range(5)
_ERRORS, _SCALES, _UNRESOLVED = range(3)

# A step is passed on as (t, h, t_new, start, end, coefficients): with the states at its ends, and its dense output.


@kernel
def begin_costs(frame):
    cost, sums, groups = slots.COST(frame), slots.COST_SUMS(frame), slots.COST_GROUPS(frame)
    for k in range(slots.PIECES, cost.size):
        cost[k] = 0.0
    for j in range(sums.shape[1]):
        sums[_TOTAL, j] = sums[ABSOLUTE, j] = 0.0
    for k in range(groups.shape[1]):
        groups[_UNRESOLVED, k] = 0.0


@kernel
def _node(frame, left, width, i):
    """The place of node i of a piece in its step."""
    nodes = slots.NODES(frame)
    if i == 0:
        return left
    return left + width * nodes[i - 1] if i <= nodes.size else left + width


@kernel
def _evaluate(frame, step, x, i):
    """Row i of Q = g, dg/du and dg/dtheta at place x of a step, as far as they are wanted."""
    q, u = row(slots.Q(frame), i), slots.U(frame)
    t = go_to(frame, step, x)
    slots.COUNT(frame)[slots.COSTS] += 1
    status = products.cost(frame, t, u)
    q[0] = slots.VALUE(frame)[0]
    if q.size > 1:
        status |= products.pull_cost(frame, t, u)
        g_u, theta_bar = slots.G_U(frame), slots.THETA_BAR(frame)
        for k in range(u.size):
            q[1 + k] = g_u[k]
        for k in range(q.size - 1 - u.size):
            q[1 + u.size + k] = theta_bar[k]
    return status


@kernel
def _unit_of(frame, u, j):
    """What makes a logarithmic derivative of column j of Q, and its group: g, derivatives, those by parameters that are zero."""
    if j == 0:
        return 1.0, 0
    if j <= u.size:
        return abs(u[j - 1]) + slots.U_FLOOR(frame)[j - 1], 1
    theta = abs(slots.THETA(frame)[j - 1 - u.size])
    return (theta, 1) if theta > 0.0 else (1.0, 2)


@exact_kernel
def _integrate(frame, start, size):
    """Integrals and errors of the piece of this size whose integrands are in Q, by group too; whether all is finite."""
    q, weights, sums, groups = slots.Q(frame), slots.WEIGHTS(frame), slots.COST_SUMS(frame), slots.COST_GROUPS(frame)
    finite = True
    for k in range(groups.shape[1]):
        groups[_ERRORS, k] = groups[_SCALES, k] = 0.0
    for j in range(sums.shape[1]):
        value, absolute, fine, coarse = 0.0, 0.0, 0.0, 0.0
        for i in range(weights.shape[1]):
            value += weights[0, i] * q[i, j]
            absolute += weights[0, i] * abs(q[i, j])
            fine += weights[1, i] * q[i, j]
            coarse += weights[2, i] * q[i, j]
        unit, k = _unit_of(frame, start, j)
        unit *= size
        finite &= is_finite(unit * absolute)
        fine, coarse = abs(fine), abs(coarse)
        ratio = fine / coarse if fine < coarse else 1.0
        error = fine * ratio * ratio if fine > _ROUNDING * absolute else 0.0
        sums[_PIECE, j], sums[_PIECE_ABSOLUTE, j], sums[_PIECE_ERROR, j] = unit * value, unit * absolute, unit * error
        scale = max(abs(sums[_TOTAL, j] + unit * value), _CANCELS * (sums[ABSOLUTE, j] + unit * absolute))
        groups[_ERRORS, k] = max(groups[_ERRORS, k], unit * error)
        groups[_SCALES, k] = max(groups[_SCALES, k], scale)
    return finite


@exact_kernel
def _are_within(frame, errors, tolerance):
    groups, within = slots.COST_GROUPS(frame), True
    for k in range(groups.shape[1]):
        within &= groups[errors, k] <= tolerance * groups[_SCALES, k]
    return within


@kernel
def _judge(frame, step, left, width):
    """What to make of a piece: (status, whether it is to be halved)."""
    t, h, _, start, _, _ = step
    cost, size = slots.COST(frame), width * abs(h)
    cost[slots.PIECE_T], cost[slots.PIECE_H] = t + left * h, width * h
    finite = _integrate(frame, start, size)
    unit = cost[slots.COST_UNIT]
    if unit == 0.0:
        return SUCCESS, False
    tolerance = unit * max(size / cost[slots.COST_SPAN], _LEAST_SHARE)
    if finite and _are_within(frame, _ERRORS, tolerance):
        allowed = tolerance * slots.COST_GROUPS(frame)[_SCALES, 0] / cost[slots.SPACING]
        rounding = 100.0 * _ROUNDING * slots.COST_SUMS(frame)[_PIECE_ABSOLUTE, 0] / size
        return look_between(frame, step, left, width, size, allowed, rounding)
    if width > _SMALLEST and size > _SPACINGS * abs(t):
        cost[slots.PIECES] += 1
        return (SUCCESS if cost[slots.PIECES] <= cost[slots.MOST_PIECES] else MAX_STEPS), True
    groups = slots.COST_GROUPS(frame)
    for k in range(groups.shape[1]):
        groups[_UNRESOLVED, k] += groups[_ERRORS, k]
    return (SUCCESS if finite else NON_FINITE), False


@kernel
def _try_piece(frame, step, left, width):
    """The piece of this width, whose last node is in Q already: (status, whether it is to be halved)."""
    for i in range(slots.WEIGHTS(frame).shape[1] - 1):
        if _evaluate(frame, step, _node(frame, left, width, i), i) != 0:
            return CALLBACK_RAISED, False
    return _judge(frame, step, left, width)


@kernel
def _add(frame, h):
    """The piece that is in Q, to the running cost and to theta_bar; h is its length, signed."""
    q, weights, sums = slots.Q(frame), slots.WEIGHTS(frame), slots.COST_SUMS(frame)
    total, n = slots.TOTAL(frame), slots.U(frame).size
    for i in range(weights.shape[1]):
        weight = h * weights[0, i]
        total[total.size - 1] += weight * q[i, 0]
        for k in range(q.shape[1] - 1 - n):
            total[k] += weight * q[i, 1 + n + k]
    for j in range(sums.shape[1]):
        sums[_TOTAL, j] += sums[_PIECE, j]
        sums[ABSOLUTE, j] += sums[_PIECE_ABSOLUTE, j]


@kernel
def seed(frame, t, h, left, width):
    """The cotangents of the piece that is in Q into the step of h which the discrete adjoint pulls back."""
    q, weights, y_bar, lam = slots.Q(frame), slots.WEIGHTS(frame), slots.Y_BAR(frame), slots.LAM(frame)
    for i in range(weights.shape[1]):
        x, weight, g_u = _node(frame, left, width, i), width * h * weights[0, i], segment(row(q, i), 1, lam.size)
        if x == 0.0 or x == 1.0:
            at_end = y_bar if x == 0.0 else lam
            for k in range(lam.size):
                at_end[k] += weight * g_u[k]
        else:
            place_in_step(frame, x)
            seed_inside(frame, h, x, weight, g_u)
    return SUCCESS


@kernel
def seed_moving(frame, t, h, left, width):
    """The same of a step that may move."""
    weights, step = slots.WEIGHTS(frame), slots.PLACE(frame)[slots.STEP]
    status = seed(frame, t, h, left, width)
    for i in range(weights.shape[1]):
        x, weight = _node(frame, left, width, i), width * h * weights[0, i]
        if status == SUCCESS:
            status = shift_cost(frame, step, t, h, x, weight, slots.Q(frame)[i, 0])
    return status


@kernel
def drive(frame, t, h, left, width):
    """Limit the steps of a pass over lam by this piece: in a part of the span like that before it, or in another."""
    parts, limited = slots.DRIVEN(frame), slots.LIMITED(frame)
    if parts.shape[0] == 0:
        return SUCCESS
    rows, most = limited[0], max(_STEP_OF_LAM * width * abs(h), slots.COST(frame)[slots.SPACING])
    most = 2.0 ** math.floor(math.log2(most))
    if rows == 0 or (parts[rows - 1, 1] != most and rows < parts.shape[0]):
        rows += 1
        parts[rows - 1, 1], parts[rows - 1, 2] = most, 0.0
    parts[rows - 1, 0], parts[rows - 1, 1] = t + left * h, min(most, parts[rows - 1, 1])
    limited[0] = rows
    return SUCCESS


@kernel
def note(frame, t, h, left, width):
    """Write a piece down as far as there is room, and count it in any case."""
    pieces, noted = slots.COST_PIECES(frame), slots.LIMITED(frame)
    if noted[0] < pieces.shape[0]:
        pieces[noted[0], 0], pieces[noted[0], 1] = left, width
    noted[0] += 1
    return SUCCESS


def make_integrate_cost(accept: Callable) -> Callable:
    """The kernel for the cost of one step; `accept(frame, t, h, left, width) -> status` is told of each, which is then in Q."""

    @kernel
    def integrate_cost(frame, step):
        """Value and theta_bar of the running cost of one step; the status.

        Pieces come in the order of a backward pass: piece k of those of this width, counted from the end.
        """
        t, h, _, start, _, _ = step
        q, k, width, last = slots.Q(frame), 0, 1.0, slots.WEIGHTS(frame).shape[1] - 1
        if _evaluate(frame, step, 1.0, last) != 0:
            return CALLBACK_RAISED
        while True:
            left = 1.0 - (k + 1) * width
            status, halve = _try_piece(frame, step, left, width)
            if status != SUCCESS:
                return status
            if halve:
                k, width = 2 * k, 0.5 * width
                continue
            _add(frame, width * h)
            status = accept(frame, t, h, left, width)
            if left == 0.0 or status != SUCCESS:
                return status
            for j in range(q.shape[1]):
                q[last, j] = q[0, j]
            k += 1
            while k % 2 == 0:
                k, width = k // 2, 2.0 * width

    return integrate_cost


@kernel
def judge_costs(frame, status):
    """STEP_TOO_SMALL for SUCCESS, where pieces that cannot be halved have left too large an error."""
    start, q = slots.U(frame), slots.Q(frame)
    for i in range(q.shape[0]):
        for j in range(q.shape[1]):
            q[i, j] = 0.0
    _integrate(frame, start, 0.0)
    if status != SUCCESS or _are_within(frame, _UNRESOLVED, slots.COST(frame)[slots.COST_UNIT]):
        return status
    return STEP_TOO_SMALL


# --- the integral alone -----------------------------------------------------------------------------------------------------------


@kernel
def _begin(frame):
    count, total = slots.COUNT(frame), slots.TOTAL(frame)
    for k in range(count.size):
        count[k] = 0
    for k in range(total.size):
        total[k] = 0.0
    count[slots.ENTERED], slots.LIMITED(frame)[0] = 1, 0
    begin_costs(frame)


def _make_integrate_step(accept: Callable) -> Callable:
    integrate_cost = make_integrate_cost(accept)

    @kernel
    def integrate_step(frame, k):
        """The cost of step k along the dense output."""
        mesh_t, kinds, end = slots.FORWARD_T(frame), slots.FORWARD_KIND(frame), slots.Y(frame)
        start, coefficients = row(slots.FORWARD_U(frame), k), plane(slots.FORWARD_C(frame), k)
        if kinds.size > 0 and kinds[k] >= slots.CROSSING:
            return SUCCESS
        interpolate(end, start, coefficients, 1.0)
        return integrate_cost(frame, (mesh_t[k], mesh_t[k + 1] - mesh_t[k], mesh_t[k + 1], start, end, coefficients))

    return integrate_step


def make_costs(calls: Calls, stages: tuple[int, int] | None, accept: Callable = drive) -> Callable:
    """The kernel of the pass that integrates the cost along a trajectory; it calls nothing of the dynamics. For `accept` see
    `make_integrate_cost`."""
    integrate_step = _make_integrate_step(accept)

    @kernel
    def costs(frame):
        """STORE_FULL after the steps at hand, if there are others before them."""
        count, forward, status = slots.COUNT(frame), slots.FORWARD_COUNT(frame), SUCCESS
        if count[slots.ENTERED] == 0:
            _begin(frame)
        begin_watch(frame)
        steps = forward[slots.STEPS]
        for k in range(steps - 1, -1, -1):
            status = keep_watch(frame, steps - 1 - k)
            if status == SUCCESS:
                status = integrate_step(frame, k)
            if status != SUCCESS:
                return status
        if forward[slots.EARLIER] > 0:
            return STORE_FULL
        return judge_costs(frame, status)

    return costs
