"""Products of the Jacobians with the tangents of a state, for many directions at once: the `push` of steppers/tangents.py.

They are jvps, one for each direction or LANES of them at a time; or, where there is no jvp or there are far fewer states than
directions, products with matrices that n vjps give, and columns of df/dtheta where a direction changes one parameter or none.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.flags import kernel
from adjode.compile.fours import load, plus, side_by_side, store
from adjode.compile.kinds import LANES
from adjode.compile.views import plane, row, segment
from adjode.status import SUCCESS
from adjode.steppers.lacing import is_laced, lace, unlace
from adjode.steppers.tangents import Push


def _make_jacobian_by_lanes(calls: Calls) -> Callable:
    call_jvps = calls.jvps

    @kernel
    def jacobian_by_lanes(frame, t, u, i):
        """df/du at stage i of a block: products with unit vectors, LANES of them at a time."""
        units, out, of_u, n, status = slots.LANES_UNIT(frame), slots.LANES_OUT(frame), plane(slots.ROWS_U(frame), i), u.size, 0
        slots.COUNT(frame)[slots.PRODUCTS] += n
        for first in range(0, n, LANES):
            many = min(LANES, n - first)
            for j in range(many):
                units[(first + j) * LANES + j] = 1.0
            status |= call_jvps(frame, t, u, units, slots.NO_LANES(frame), segment(units, 0, many), segment(out, 0, n * LANES))
            for j in range(many):
                units[(first + j) * LANES + j] = 0.0
                for k in range(n):
                    of_u[k, first + j] = out[k * LANES + j]
        return status

    return jacobian_by_lanes


def _make_prepare(calls: Calls) -> Callable:
    call_vjp, jacobian_by_lanes = calls.vjp, _make_jacobian_by_lanes(calls)

    @kernel
    def prepare(frame, t, u, i):
        """Rows of df/du and df/dtheta, if products are with these: one vjp for each; of df/du alone where there is a jvps."""
        if slots.ROWS_U(frame).shape[0] == 0:
            return SUCCESS
        if slots.LANES_UNIT(frame).size > 0:
            return jacobian_by_lanes(frame, t, u, i)
        of_u, of_theta, unit, status = plane(slots.ROWS_U(frame), i), plane(slots.ROWS_THETA(frame), i), slots.UNIT(frame), 0
        slots.COUNT(frame)[slots.VJPS] += unit.size
        for k in range(unit.size):
            unit[k] = 1.0
            status |= call_vjp(frame, t, u, unit, row(of_u, k), segment(row(of_theta, k), 0, slots.THETA(frame).size))
            unit[k] = 0.0
        return status

    return prepare


@kernel
def _by_rows(frame, i, v, w, out):
    of_u, of_theta = plane(slots.ROWS_U(frame), i), plane(slots.ROWS_THETA(frame), i)
    for k in range(out.size):
        total = 0.0
        for j in range(v.size):
            total += of_u[k, j] * v[j]
        for j in range(w.size):
            total += of_theta[k, j] * w[j]
        out[k] = total


@kernel
def spread_theta(frame):
    """LANES_THETA from THETA_DOTS."""
    dots, lanes = slots.THETA_DOTS(frame), slots.LANES_THETA(frame)
    for d in range(dots.shape[0] if lanes.size > 0 else 0):
        for i in range(dots.shape[1]):
            lanes[d // LANES, i * LANES + d % LANES] = dots[d, i]


def _make_by_lanes(calls: Calls) -> Callable:
    call_jvps = calls.jvps

    @kernel
    def laced(frame, t, u, V, out):
        """out = (df/du) v + (df/dtheta) w for all directions, LANES of them at a time, of blocks that are laced."""
        k, size, status = slots.THETA_DOTS(frame).shape[0], u.size * LANES, 0
        for c in range(slots.LANES_THETA(frame).shape[0]):
            v, many = segment(V, c * size, size), min(LANES, k - c * LANES)
            w = row(slots.LANES_THETA(frame), c)
            status |= call_jvps(frame, t, u, v, w, segment(v, 0, many), segment(out, c * size, size))
        return status

    @kernel
    def by_lanes(frame, t, u, V, out):
        slots.COUNT(frame)[slots.PRODUCTS] += slots.THETA_DOTS(frame).shape[0]
        if is_laced(frame):
            return laced(frame, t, u, V, out)
        lace(frame, V, slots.LANES_U(frame), u.size, LANES)
        status = laced(frame, t, u, slots.LANES_U(frame), slots.LANES_OUT(frame))
        unlace(frame, slots.LANES_OUT(frame), out, u.size, LANES)
        return status

    return by_lanes


@kernel
def _by_columns(frame, V, out):
    """The same for all directions side by side, each of which changes one parameter or none."""
    of_u, of_theta, columns = plane(slots.ROWS_U(frame), 0), plane(slots.ROWS_THETA(frame), 0), slots.THETA_COLUMNS(frame)
    k, n = columns.size, of_u.shape[0]
    for i in range(n):
        total, found = segment(out, i * k, k), row(of_theta, i)
        for d in range(k):
            total[d] = found[columns[d]]
        for j in range(n):
            factor, v = of_u[i, j], segment(V, j * k, k)
            for d in range(k):
                total[d] += factor * v[d]


@kernel
def _by_fours(frame, V, out):
    """The same for a multiple of four directions, four at a time."""
    of_u, of_theta, columns = plane(slots.ROWS_U(frame), 0), plane(slots.ROWS_THETA(frame), 0), slots.THETA_COLUMNS(frame)
    width, n = columns.size, of_u.shape[0]
    for i in range(n):
        found = row(of_theta, i)
        for k in range(0, width, 4):
            total = side_by_side(found[columns[k]], found[columns[k + 1]], found[columns[k + 2]], found[columns[k + 3]])
            for j in range(n):
                total = plus(total, of_u[i, j], load(V, j * width + k))
            store(out, i * width + k, total)


def make_push(calls: Calls, *, in_fours: bool = False) -> Push:
    """The kernels of products; `in_fours` where there is a multiple of four directions, whose number is constant."""
    call_jvp, prepare, by_lanes = calls.jvp, _make_prepare(calls), _make_by_lanes(calls)
    by_columns = _by_fours if in_fours else _by_columns

    @kernel
    def one(frame, t, u, i, v, w, out):
        if slots.ROWS_U(frame).shape[0] > 0:
            _by_rows(frame, i, v, w, out)
            return SUCCESS
        slots.COUNT(frame)[slots.PRODUCTS] += 1
        return call_jvp(frame, t, u, v, w, out)

    @kernel
    def all_directions(frame, t, u, V, out):
        if slots.LANES_THETA(frame).shape[0] > 0:
            return by_lanes(frame, t, u, V, out)
        n, W, status = u.size, slots.THETA_DOTS(frame), prepare(frame, t, u, 0)
        if slots.THETA_COLUMNS(frame).size > 0:
            by_columns(frame, V, out)
            return status
        for d in range(W.shape[0]):
            status |= one(frame, t, u, 0, segment(V, d * n, n), row(W, d), segment(out, d * n, n))
        return status

    return Push(prepare, one, all_directions)
