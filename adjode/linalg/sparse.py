"""Sparse LU: pivots on the diagonal, in an order and with fill-in found once; SuperLU where such a pivot is too small.

The systems of implicit steps, c I - J, differ in their numbers and not in their pattern, and their diagonals are large. So
`symbolic.analyse` orders the matrix and finds the fill-in of its symmetrised pattern, and the kernels only compute numbers.
Neighbouring columns of L with the same rows below them form a supernode: a dense panel. So do the same rows of U, which is kept
transposed. What a supernode contributes to a later one is a product of parts of its panels, by BLAS where it is large. A pivot
less than 1/1000 of an entry below it is not accepted. SciPy's SuperLU, which exchanges rows, then does the work, called through
the address of a Python function, with the GIL.

Storage, real or complex: the entries of the matrix by columns; for each supernode the panel of L, with the triangle of U at its
top, and that of U^T below this; a scratch vector of length n; one for a contribution. What else the kernels need is in the slot
SYMBOLIC, see symbolic.py. pivots[0] is 1 if SuperLU has the factors, of which it keeps one real and one complex set for each frame.

Sources: J. Demmel, S. Eisenstat, J. Gilbert, X. Li, J. Liu, SIAM J. Matrix Anal. Appl. 20 (1999) 720 (supernodes); T. Davis, E.
Palamadai Natarajan, ACM Trans. Math. Softw. 37 (2010) 36 (KLU, factorising again in the same order).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import flat, segment
from adjode.linalg.dense import size_of
from adjode.linalg.lapack import PLAIN, TRANSPOSED, call_fortran
from adjode.linalg.superlu import DONE, FACTOR, SOLVE, SOLVE_TRANSPOSED, call_solver
from adjode.linalg.symbolic import (
    FIRST,
    FROM,
    FROM_STARTS,
    PANELS,
    PLACES,
    ROW_STARTS,
    ROWS,
    SCRATCH,
    SIZE,
    SUPERNODES,
    TARGETS,
    WIDEST,
    WORK,
    N,
)

_LEAST_PIVOT = 1e-3  # relative to the entries below it; UMFPACK's tolerance for pivots on the diagonal
_BLAS = 2000  # multiplications from which a product by BLAS is worth the call


@kernel
def _block_of(S, s):
    """Of supernode s: its first column, its width, the number of its rows, where these are listed.

    And where the rows of its L and of its U^T are in x: row p of L at lower + p, row p of U^T, for p from `width` on, at
    upper + p. Their columns are as far apart as L has rows, or U^T.
    """
    first, start, lower = S[S[FIRST] + s], S[S[ROW_STARTS] + s], S[S[PANELS] + s]
    width, rows = S[S[FIRST] + s + 1] - first, S[S[ROW_STARTS] + s + 1] - start
    return first, width, rows, S[ROWS] + start, lower, lower + (rows - 1) * width


@kernel
def _subtract_product(out, x, start, apart, factors):
    """out -= X factors, where the columns of X begin at `start`"""
    k, width = 0, factors.size
    while k + 3 < width:  # four columns at a time: out is read and written less often
        a, b, c, d = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        first = segment(x, start + k * apart, out.size)
        second = segment(x, start + (k + 1) * apart, out.size)
        third = segment(x, start + (k + 2) * apart, out.size)
        fourth = segment(x, start + (k + 3) * apart, out.size)
        for p in range(out.size):
            out[p] -= first[p] * a + second[p] * b + third[p] * c + fourth[p] * d
        k += 4
    for j in range(k, width):
        a, column = factors[j], segment(x, start + j * apart, out.size)
        for p in range(out.size):
            out[p] -= column[p] * a


@kernel
def _solve_block(x, panel, rows, values):
    """values = L^-1 values, for the unit lower triangle at the top of a panel"""
    for k in range(values.size):
        value, column = values[k], segment(x, panel + k * rows, values.size)
        for i in range(k + 1, values.size):
            values[i] -= column[i] * value


@kernel
def _product(x, scratch, blas, height, width, inner, left, left_apart, right, right_apart):
    """The product X Y^T into the scratch vector, by columns."""
    product, factors = segment(scratch, WIDEST + 2, height * width), segment(scratch, 2, inner)
    if blas != 0 and height * width * inner >= _BLAS:
        scratch[0], scratch[1] = 1.0, 0.0
        one, none = segment(scratch, 0, 1), segment(scratch, 1, 1)
        X, Y = segment(x, left, 1), segment(x, right, 1)
        call_fortran(blas, (PLAIN, TRANSPOSED, height, width, inner, one, X, left_apart, Y, right_apart, none, product, height))
        return
    for p in range(product.size):
        product[p] = 0.0
    for c in range(width):
        for k in range(inner):
            factors[k] = -x[right + k * right_apart + c]
        _subtract_product(segment(product, c * height, height), x, left, left_apart, factors)


@kernel
def _scatter(scratch, x, height, rows, width, columns, target, apart):
    """Subtract the product in the scratch vector from a panel, where its rows and columns are the given ones."""
    for c in range(width):
        product, start = segment(scratch, WIDEST + 2 + c * height, height), target + columns[c] * apart
        for p in range(height):
            x[start + rows[p]] -= product[p]


@kernel
def _contribute(S, x, scratch, where, blas, s, source, a, b):
    """Subtract from the panels of s what follows from rows a to b of the source, which are columns of s."""
    _, width, rows, _, lower, upper = _block_of(S, s)
    _, inner, length, listed, left, right = _block_of(S, source)
    below, count, height = length - inner, b - a, length - a
    places = segment(where, S[N], height)
    for p in range(height):
        places[p] = where[S[listed + a + p]]
    if inner == 1:  # most of them, and small: without the detour
        for c in range(count):
            to_lower, to_upper = x[right + a + c], x[left + a + c]
            start, start_upper = lower + places[c] * rows, upper + places[c] * (rows - width)
            for p in range(height):
                x[start + places[p]] -= x[left + a + p] * to_lower
            for p in range(count, height):
                x[start_upper + places[p]] -= x[right + a + p] * to_upper
        return
    _product(x, scratch, blas, height, count, inner, left + a, length, right + a, below)
    _scatter(scratch, x, height, places, count, places, lower, rows)
    _product(x, scratch, blas, length - b, count, inner, right + b, below, left + a, length)
    _scatter(scratch, x, length - b, segment(places, count, length - b), count, places, upper, rows - width)


@kernel
def _eliminate(S, x, scratch, s):
    """The columns of L and U^T within the panels of s; the first whose pivot is not fit, or -1."""
    _, width, rows, _, lower, upper = _block_of(S, s)
    for c in range(width):
        column, factors, below = segment(x, lower + c * rows, rows), segment(scratch, 2, c), rows - width
        for k in range(c):
            factors[k] = x[lower + k * rows + c]
        _subtract_product(segment(x, upper + width + c * below, below), x, upper + width, below, factors)
        _solve_block(x, lower, rows, segment(column, 0, c))
        _subtract_product(segment(column, c, rows - c), x, lower + c, rows, segment(column, 0, c))
        pivot, largest = column[c], 0.0
        for p in range(c + 1, rows):
            largest = max(largest, size_of(column[p]))
        if not (_LEAST_PIVOT * largest < size_of(pivot) < math.inf):  # before the division: Numba's complex one raises for zero
            return c
        inverse = 1.0 / pivot
        for p in range(c + 1, rows):
            column[p] *= inverse
    return -1


@kernel
def factor(S, x, where, blas):
    """L and U behind the entries of A in x; 0, or k + 1 where the pivot of step k is zero, not finite or too small.

    `where` (2 n,) is overwritten: where rows are in the panels of a supernode, and those of a contribution. `blas` is the
    address of gemm, or 0.
    """
    scratch, entries = segment(x, S[SCRATCH], S[SIZE] - S[SCRATCH]), S[FIRST] - S[TARGETS]
    for k in range(entries, S[WORK]):
        x[k] = 0.0
    for k in range(entries):
        x[S[S[TARGETS] + k]] = x[k]
    for s in range(S[SUPERNODES]):
        first, _, rows, listed, _, _ = _block_of(S, s)
        for p in range(rows):
            where[S[listed + p]] = p
        for q in range(S[S[FROM_STARTS] + s], S[S[FROM_STARTS] + s + 1]):
            origin = S[FROM] + 3 * q
            _contribute(S, x, scratch, where, blas, s, S[origin], S[origin + 1], S[origin + 2])
        failed = _eliminate(S, x, scratch, s)
        if failed >= 0:
            return first + failed + 1
    return 0


@kernel
def _place(S, work, b):
    for i in range(S[N]):
        work[S[S[PLACES] + i]] = b[i]


@kernel
def _put_back(S, work, b):
    for i in range(S[N]):
        b[i] = work[S[S[PLACES] + i]]


@kernel
def _spread(S, x, work, scratch, s, start, apart, values):
    """Subtract from the rows below supernode s what its values make of them, by its L or its U^T."""
    _, width, rows, listed, _, _ = _block_of(S, s)
    below = segment(scratch, 0, rows - width)
    for p in range(below.size):
        below[p] = 0.0
    _subtract_product(below, x, start, apart, values)
    for p in range(below.size):
        work[S[listed + width + p]] += below[p]


@kernel
def _collect(S, x, work, scratch, s, start, apart, values):
    """Subtract from the values of supernode s what the rows below it make of them, by its L or its U^T transposed."""
    _, width, rows, listed, _, _ = _block_of(S, s)
    below = segment(scratch, 0, rows - width)
    for p in range(below.size):
        below[p] = work[S[listed + width + p]]
    for c in range(width):
        column, value = segment(x, start + c * apart, below.size), values[c]
        for p in range(below.size):
            value -= column[p] * below[p]
        values[c] = value


@kernel
def solve(S, x, b):
    """b = A^-1 b"""
    work, scratch = segment(x, S[WORK], S[N]), segment(x, S[SCRATCH], S[N])
    _place(S, work, b)
    for s in range(S[SUPERNODES]):
        first, width, rows, _, lower, _ = _block_of(S, s)
        values = segment(work, first, width)
        _solve_block(x, lower, rows, values)
        _spread(S, x, work, scratch, s, lower + width, rows, values)
    for s in range(S[SUPERNODES] - 1, -1, -1):
        first, width, rows, _, lower, upper = _block_of(S, s)
        values = segment(work, first, width)
        _collect(S, x, work, scratch, s, upper + width, rows - width, values)
        for c in range(width - 1, -1, -1):
            column = segment(x, lower + c * rows, width)
            value = values[c] / column[c]
            values[c] = value
            for k in range(c):
                values[k] -= column[k] * value
    _put_back(S, work, b)


@kernel
def solve_transposed(S, x, b):
    """b = A^-T b; transposed, not conjugated"""
    work, scratch = segment(x, S[WORK], S[N]), segment(x, S[SCRATCH], S[N])
    _place(S, work, b)
    for s in range(S[SUPERNODES]):
        first, width, rows, _, lower, upper = _block_of(S, s)
        values = segment(work, first, width)
        for c in range(width):
            column, value = segment(x, lower + c * rows, width), values[c]
            for k in range(c):
                value -= column[k] * values[k]
            values[c] = value / column[c]
        _spread(S, x, work, scratch, s, upper + width, rows - width, values)
    for s in range(S[SUPERNODES] - 1, -1, -1):
        first, width, rows, _, lower, _ = _block_of(S, s)
        values = segment(work, first, width)
        _collect(S, x, work, scratch, s, lower + width, rows, values)
        for c in range(width - 1, -1, -1):
            column, value = segment(x, lower + c * rows, width), values[c]
            for p in range(c + 1, width):
                value -= column[p] * values[p]
            values[c] = value
    _put_back(S, work, b)


def make_verbs(is_complex: bool) -> tuple[Callable, Callable, Callable]:
    """factor, solve, solve_transposed as `make_linear` has them."""

    @kernel
    def factor_or_call(frame, A, pivots):
        x, routines = flat(A), slots.ROUTINES(frame)
        if pivots.size == 0:
            return 0
        failed = factor(slots.SYMBOLIC(frame), x, pivots, routines[2 if is_complex else 1])
        pivots[0] = 0
        if failed == 0:
            return 0
        pivots[0] = 1
        return 0 if call_solver(routines[0], FACTOR, is_complex, x, x) == DONE else 1

    def solve_by(loops, verb):
        @kernel
        def solve_or_call(frame, LU, pivots, b):
            x = flat(LU)
            if pivots.size == 0 or pivots[0] == 0:
                loops(slots.SYMBOLIC(frame), x, b)
                return 0
            if call_solver(slots.ROUTINES(frame)[0], verb, is_complex, x, b) == DONE:
                return 0
            for k in range(b.size):  # Ctrl-C, say, has come in between
                b[k] = math.nan
            return 1

        return solve_or_call

    return factor_or_call, solve_by(solve, SOLVE), solve_by(solve_transposed, SOLVE_TRANSPOSED)
