"""The tangents of implicit stages, for many directions at once: the exact equations of a block of stages, factored once.

Directions are columns then, side by side: right-hand sides are products of matrices, and so are solves.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import plane, row
from adjode.linalg import dense
from adjode.status import CALLBACK_RAISED, STAGES_UNSOLVED, SUCCESS
from adjode.steppers.explicit import combine_loops
from adjode.steppers.lacing import place_of
from adjode.steppers.stepper import stage_time


@kernel
def _add_mass(frame, S, i):
    """Add M to diagonal block i."""
    starts, columns, values = slots.MASS_STARTS(frame), slots.MASS_COLUMNS(frame), slots.MASS(frame)
    n = starts.size - 1
    for r in range(n):
        for p in range(starts[r], starts[r + 1]):
            S[i * n + r, i * n + columns[p]] += values[p]


@kernel
def _add_identity(frame, S, i):
    n = slots.U_SIZE(frame).size
    for r in range(n):
        S[i * n + r, i * n + r] += 1.0


def _make_assemble(massed: bool) -> Callable:
    add_mass = _add_mass if massed else _add_identity

    @kernel
    def assemble(frame, h, first):
        """M x_i - h J_i sum_j A_ij x_j as a matrix, its rows in units of the states, by which pivots are chosen."""
        S, A, sizes, rows = slots.STAGE_MATRIX(frame), slots.A(frame), slots.U_SIZE(frame), slots.ROWS_U(frame)
        b, n = rows.shape[0], rows.shape[1]
        for i in range(b):
            for j in range(b):
                weight = -h * A[first + i, first + j]
                for r in range(n):
                    for c in range(n):
                        S[i * n + r, j * n + c] = weight * rows[i, r, c]
            add_mass(frame, S, i)
        for r in range(S.shape[0]):
            for c in range(S.shape[1]):
                S[r, c] *= sizes[r % n]

    return assemble


def _make_factor(massed: bool) -> Callable:
    assemble = _make_assemble(massed)

    @kernel
    def factor(frame, h, first):
        """Factor the exact equations of a block of stages."""
        assemble(frame, h, first)
        slots.COUNT(frame)[slots.FACTORISATIONS] += 1
        failed = dense.factor(slots.STAGE_MATRIX(frame), slots.STAGE_PIVOTS(frame)) != 0  # as small as it is
        return STAGES_UNSOLVED if failed else SUCCESS

    return factor


@kernel
def _put_columns(frame, h, stage, first):
    """DOT_COLUMNS: what the tangents of the state of a stage have from before the block, directions side by side."""
    A, columns, dots, stage_dots = slots.A(frame), slots.DOT_COLUMNS(frame), slots.DOTS(frame), slots.STAGE_DOTS(frame)
    n = columns.shape[0]
    for d in range(columns.shape[1]):
        for k in range(n):
            total = dots[d * n + k]
            for j in range(first):
                if A[stage, j] != 0.0:
                    total += h * A[stage, j] * stage_dots[j, d * n + k]
            columns[k, d] = total


@kernel
def _add_multiple(out, multiple, x):
    for k in range(out.size):
        out[k] += multiple * x[k]


@kernel
def _add_of_theta(frame, i):
    """The part of theta in the rows of RIGHTS that are those of stage i of the block; many a direction changes few entries."""
    rights, of_theta, theta_dots = slots.RIGHTS(frame), plane(slots.ROWS_THETA(frame), i), slots.THETA_DOTS(frame)
    n = of_theta.shape[0]
    for d in range(theta_dots.shape[0]):
        w, begin = row(theta_dots, d), 0
        end = w.size
        while begin < end and w[begin] == 0.0:
            begin += 1
        while end > begin and w[end - 1] == 0.0:
            end -= 1
        for k in range(n if end > begin else 0):
            total = 0.0
            for j in range(begin, end):
                total += of_theta[k, j] * w[j]
            rights[i * n + k, d] += total


def _make_put_rights_by_lanes(push_all: Callable) -> Callable:
    @kernel
    def put_rights_by_lanes(frame, t, h, t_new, V, first):
        """RIGHTS of `_put_rights` by products with all directions at once; the status."""
        rights, sizes, base, stage_dots = slots.RIGHTS(frame), slots.U_SIZE(frame), slots.STATE_DOTS(frame), slots.STAGE_DOTS(frame)
        n, width, status = sizes.size, slots.WIDTH(frame)[0], 0
        for i in range(slots.ROWS_U(frame).shape[0]):
            found = row(stage_dots, first + i)
            combine_loops(base, slots.DOTS(frame), h, slots.A(frame), first + i, stage_dots, first)
            status |= push_all(frame, stage_time(frame, t, h, t_new, first + i), row(V, first + i), base, found)
            for d in range(rights.shape[1]):
                at = place_of(d, n, width)
                for k in range(n):
                    rights[i * n + k, d] = found[at + k * width] * sizes[k]
        return status

    return put_rights_by_lanes


@kernel
def _put_rights(frame, h, first):
    """RIGHTS: what K_dot of the stages is without what they have from each other, in units of the states, for all directions."""
    rights, sizes, rows, columns = slots.RIGHTS(frame), slots.U_SIZE(frame), slots.ROWS_U(frame), slots.DOT_COLUMNS(frame)
    n = sizes.size
    for i in range(rows.shape[0]):
        _put_columns(frame, h, first + i, first)
        for k in range(n):
            right = row(rights, i * n + k)
            for d in range(right.size):
                right[d] = 0.0
            for c in range(n):
                _add_multiple(right, rows[i, k, c], row(columns, c))
        _add_of_theta(frame, i)
        for k in range(n):
            right = row(rights, i * n + k)
            for d in range(right.size):
                right[d] *= sizes[k]


def make_solve_directly(push_all: Callable, massed: bool) -> Callable:
    """`solve(frame, t, h, t_new, V, first) -> status` of all directions at once, behind `prepare`, with exact factors."""
    factor, put_rights_by_lanes = _make_factor(massed), _make_put_rights_by_lanes(push_all)

    @kernel
    def solve_directly(frame, t, h, t_new, V, first):
        rights, stage_dots, n, width = slots.RIGHTS(frame), slots.STAGE_DOTS(frame), slots.U_SIZE(frame).size, slots.WIDTH(frame)[0]
        if factor(frame, h, first) != SUCCESS:
            return STAGES_UNSOLVED
        if slots.LANES_UNIT(frame).size == 0:
            _put_rights(frame, h, first)
        elif put_rights_by_lanes(frame, t, h, t_new, V, first) != 0:
            return CALLBACK_RAISED
        dense.solve_columns(slots.STAGE_MATRIX(frame), slots.STAGE_PIVOTS(frame), rights)
        for i in range(slots.ROWS_U(frame).shape[0]):
            slopes = row(stage_dots, first + i)
            for d in range(rights.shape[1]):
                at = place_of(d, n, width)
                for k in range(n):
                    slopes[at + k * width] = rights[i * n + k, d]
        return SUCCESS

    return solve_directly
