"""Sparse LU: pivots on the diagonal, in an order and with fill-in found once; SuperLU where such a pivot is too small.

The systems of implicit steps, c I - J, differ in their numbers and not in their pattern, and their diagonals are large. So
`analyse` orders the matrix and finds the fill-in of its symmetrised pattern, and the kernels only compute numbers, column by
column. Neighbouring columns of L with the same rows below them form a supernode: a dense panel, whose contribution to a later
column is a product of contiguous numbers. A pivot less than 1/1000 of an entry below it is not accepted. SciPy's SuperLU, which
exchanges rows, then does the work, called through the address of a Python function, with the GIL.

Storage, real or complex: the entries of the matrix by columns; the panels; U outside of them; two scratch vectors of length n.
What else the kernels need is in the slot SYMBOLIC, see `analyse`. pivots[0] is 1 if SuperLU has the factors, of which it keeps
one real and one complex set for each frame.

Sources: J. Demmel, S. Eisenstat, J. Gilbert, X. Li, J. Liu, SIAM J. Matrix Anal. Appl. 20 (1999) 720 (supernodes); T. Davis, E.
Palamadai Natarajan, ACM Trans. Math. Softw. 37 (2010) 36 (KLU, factorising again in the same order); T. Davis, Direct Methods for
Sparse Linear Systems, 4 (the fill-in).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode import frame as slots
from adjode.frame import integers_at
from adjode.jit import flat, kernel, segment
from adjode.linalg.dense import size_of
from adjode.linalg.superlu import FACTOR, SOLVE, SOLVE_TRANSPOSED, call_solver

_LEAST_PIVOT = 1e-3  # relative to the entries below it; UMFPACK's tolerance for pivots on the diagonal
# Entries of SYMBOLIC: sizes, then where its parts start. Columns of A: starts, rows and places of their entries. Supernodes: first
# columns, starts of their rows, rows, starts of their panels. Columns of U: starts, supernodes that contribute, where their
# numbers are. The new places of the unknowns. fmt: off
(
    N,
    SUPERNODES,
    WORK,
    A_STARTS,
    A_ROWS,
    A_PLACES,
    FIRST,
    ROW_STARTS,
    ROWS,
    PANELS,
    U_STARTS,
    U_FROM,
    U_VALUES,
    PLACES,
    HEADER,
) = range(15)
# fmt: on


# --- once for a pattern ---------------------------------------------------------------------------------------------------


def analyse(pattern: Any) -> np.ndarray:
    """What the kernels need to know of a pattern (n, n) by columns, as one vector of integers; see above."""
    n, place = pattern.shape[0], _order(pattern)
    columns = np.repeat(np.arange(n), np.diff(pattern.indptr))
    place = _postorder(_fill_in(n, place[pattern.indices], place[columns]))[place]
    rows, columns = place[pattern.indices], place[columns]
    below = _fill_in(n, rows, columns)
    first = [j for j in range(n) if j == 0 or not (below[j - 1].size == below[j].size + 1 and below[j - 1][0] == j)]
    last = [*first[1:], n] if n else []
    row_lists = [np.concatenate([np.arange(a, b), below[b - 1]]) for a, b in zip(first, last, strict=True)]
    sizes = [one.size * (b - a) for one, a, b in zip(row_lists, first, last, strict=True)]
    panels = rows.size + np.concatenate([[0], np.cumsum(sizes)])
    sources = np.repeat(np.arange(len(first)), [one.size - (b - a) for one, a, b in zip(row_lists, first, last, strict=True)])
    targets = np.concatenate([np.zeros(0, dtype=int), *(one[b - a :] for one, a, b in zip(row_lists, first, last, strict=True))])
    by_target = np.argsort(targets, kind="stable")  # the supernodes of a column in rising order
    sources, targets = sources[by_target], targets[by_target]
    widths = np.subtract(last, first)[sources] if n else sources
    values = panels[-1] + np.concatenate([[0], np.cumsum(widths)])
    order = np.lexsort((rows, columns))
    parts = [
        np.searchsorted(columns[order], np.arange(n + 1)),
        rows[order],
        order,
        [*first, n],
        np.concatenate([[0], np.cumsum([one.size for one in row_lists])]),
        np.concatenate([np.zeros(0, dtype=int), *row_lists]),
        panels,
        np.searchsorted(targets, np.arange(n + 1)),
        sources,
        values,
        place,
    ]
    starts = HEADER + np.concatenate([[0], np.cumsum([len(one) for one in parts])])[:-1]
    return np.concatenate([[n, len(first), values[-1]], starts, *parts]).astype(np.int64)


def multiplications(symbolic: np.ndarray) -> float:
    """Of one factorisation."""
    count = symbolic[SUPERNODES] + 1
    widths, rows = (np.diff(symbolic[start : start + count]) for start in (symbolic[FIRST], symbolic[ROW_STARTS]))
    total = 0.0
    for width, length in zip(widths.tolist(), rows.tolist(), strict=True):
        below = length - width
        total += width * below * below + width * width * below + width**3 / 3
    return total


def _order(pattern: Any) -> np.ndarray:
    """The new place of each unknown: SuperLU's minimum degree ordering of the symmetrised pattern."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    n = pattern.shape[0]
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    numbers = (pattern.astype(float) + 2.0 * n * sparse.eye_array(n)).tocsc()  # diagonally dominant
    options = {"SymmetricMode": True}
    return splu(numbers, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).perm_c.astype(np.int64)


def _fill_in(n: int, rows: np.ndarray, columns: np.ndarray) -> list[np.ndarray]:
    """The rows below the diagonal of each column of L, for the symmetrised pattern; each rising."""
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    order = np.argsort(low, kind="stable")
    starts, high = np.searchsorted(low[order], np.arange(n + 1)), high[order]
    below: list[np.ndarray] = []
    children: list[list[int]] = [[] for _ in range(n)]
    for j in range(n):
        own = high[starts[j] : starts[j + 1]]
        found = np.unique(np.concatenate([own, *(below[child] for child in children[j])]))
        below.append(found[found > j])
        if below[j].size:
            children[below[j][0]].append(j)
    return below


def _postorder(below: list[np.ndarray]) -> np.ndarray:
    """New places in the order of a walk through the tree of elimination: the fill-in stays, and columns alike become neighbours."""
    n = len(below)
    children: list[list[int]] = [[] for _ in range(n)]
    roots: list[int] = []
    for j in range(n):
        (children[below[j][0]] if below[j].size else roots).append(j)
    place, count, waiting = np.zeros(n, dtype=np.int64), n, roots
    while waiting:  # from the roots down, numbered from the last
        j = waiting.pop()
        count -= 1
        place[j] = count
        waiting += children[j]
    return place


# --- the kernels ------------------------------------------------------------------------------------------------------------


@kernel
def _block_of(S, s):
    """Of supernode s: its first column, its width, the number of its rows, where these are listed, where its panel starts."""
    first, start = S[S[FIRST] + s], S[S[ROW_STARTS] + s]
    return first, S[S[FIRST] + s + 1] - first, S[S[ROW_STARTS] + s + 1] - start, S[ROWS] + start, S[S[PANELS] + s]


@kernel
def _subtract_product(out, x, panel, rows, skipped, factors):
    """out -= (the panel's rows from `skipped` on) times factors"""
    k, width = 0, factors.size
    while k + 3 < width:  # four columns at a time: out is read and written less often
        a, b, c, d = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        first = segment(x, panel + k * rows + skipped, out.size)
        second = segment(x, panel + (k + 1) * rows + skipped, out.size)
        third = segment(x, panel + (k + 2) * rows + skipped, out.size)
        fourth = segment(x, panel + (k + 3) * rows + skipped, out.size)
        for p in range(out.size):
            out[p] -= first[p] * a + second[p] * b + third[p] * c + fourth[p] * d
        k += 4
    for j in range(k, width):
        a, column = factors[j], segment(x, panel + j * rows + skipped, out.size)
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
def _spread(S, x, s, work, scratch):
    """Solve with the block of supernode s of L in `work`, and subtract what follows from it from the rows below."""
    first, width, rows, listed, panel = _block_of(S, s)
    values, below = segment(work, first, width), segment(scratch, 0, rows - width)
    _solve_block(x, panel, rows, values)
    for p in range(below.size):
        below[p] = 0.0
    _subtract_product(below, x, panel, rows, width, values)
    for p in range(below.size):
        work[S[listed + width + p]] += below[p]


@kernel
def _eliminate(S, x, j, c, rows, panel):
    """Column j, number c of its panel: subtract the columns to the left in the panel, divide by the pivot; whether that is fit."""
    column = segment(x, panel + c * rows, rows)
    _solve_block(x, panel, rows, segment(column, 0, c))
    _subtract_product(segment(column, c, rows - c), x, panel, rows, c, segment(column, 0, c))
    pivot, largest = column[c], 0.0
    for p in range(c + 1, rows):
        largest = max(largest, size_of(column[p]))
    if not (_LEAST_PIVOT * largest < size_of(pivot) < math.inf):  # before the division: Numba's complex one raises for zero
        return False
    inverse = 1.0 / pivot
    for p in range(c + 1, rows):
        column[p] *= inverse
    return True


@kernel
def factor(S, x):
    """L and U behind the entries of A in x; 0, or k + 1 where the pivot of step k is zero, not finite or too small."""
    n, work, scratch = S[N], segment(x, S[WORK], S[N]), segment(x, S[WORK] + S[N], S[N])
    for i in range(n):
        work[i] = 0.0
    for s in range(S[SUPERNODES]):
        first, width, rows, listed, panel = _block_of(S, s)
        for c in range(width):
            j, column = first + c, segment(x, panel + c * rows, rows)
            for p in range(S[S[A_STARTS] + j], S[S[A_STARTS] + j + 1]):
                work[S[S[A_ROWS] + p]] = x[S[S[A_PLACES] + p]]
            for q in range(S[S[U_STARTS] + j], S[S[U_STARTS] + j + 1]):
                source = S[S[U_FROM] + q]
                _spread(S, x, source, work, scratch)
                start, values = S[S[FIRST] + source], segment(x, S[S[U_VALUES] + q], S[S[U_VALUES] + q + 1] - S[S[U_VALUES] + q])
                for k in range(values.size):
                    values[k] = work[start + k]
                    work[start + k] = 0.0
            for p in range(rows):
                column[p] = work[S[listed + p]]
                work[S[listed + p]] = 0.0
            if not _eliminate(S, x, j, c, rows, panel):
                return j + 1
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
def solve(S, x, b):
    """b = A^-1 b"""
    work, scratch = segment(x, S[WORK], S[N]), segment(x, S[WORK] + S[N], S[N])
    _place(S, work, b)
    for s in range(S[SUPERNODES]):
        _spread(S, x, s, work, scratch)
    for s in range(S[SUPERNODES] - 1, -1, -1):
        first, width, rows, _, panel = _block_of(S, s)
        for c in range(width - 1, -1, -1):
            column, j = segment(x, panel + c * rows, rows), first + c
            value = work[j] / column[c]
            work[j] = value
            for k in range(c):
                work[first + k] -= column[k] * value
            for q in range(S[S[U_STARTS] + j], S[S[U_STARTS] + j + 1]):
                values = segment(x, S[S[U_VALUES] + q], S[S[U_VALUES] + q + 1] - S[S[U_VALUES] + q])
                target = segment(work, S[S[FIRST] + S[S[U_FROM] + q]], values.size)
                for k in range(values.size):
                    target[k] -= values[k] * value
    _put_back(S, work, b)


@kernel
def solve_transposed(S, x, b):
    """b = A^-T b; transposed, not conjugated"""
    work, scratch = segment(x, S[WORK], S[N]), segment(x, S[WORK] + S[N], S[N])
    _place(S, work, b)
    for s in range(S[SUPERNODES]):
        first, width, rows, _, panel = _block_of(S, s)
        for c in range(width):
            column, j = segment(x, panel + c * rows, rows), first + c
            value = work[j]
            for q in range(S[S[U_STARTS] + j], S[S[U_STARTS] + j + 1]):
                values = segment(x, S[S[U_VALUES] + q], S[S[U_VALUES] + q + 1] - S[S[U_VALUES] + q])
                source = segment(work, S[S[FIRST] + S[S[U_FROM] + q]], values.size)
                for k in range(values.size):
                    value -= values[k] * source[k]
            for k in range(c):
                value -= column[k] * work[first + k]
            work[j] = value / column[c]
    for s in range(S[SUPERNODES] - 1, -1, -1):
        first, width, rows, listed, panel = _block_of(S, s)
        gathered = segment(scratch, 0, rows)
        for p in range(rows):
            gathered[p] = work[S[listed + p]]
        for c in range(width - 1, -1, -1):
            column, value = segment(x, panel + c * rows, rows), gathered[c]
            for p in range(c + 1, rows):
                value -= column[p] * gathered[p]
            gathered[c] = value
            work[first + c] = value
    _put_back(S, work, b)


def make_verbs(is_complex: bool) -> tuple[Callable, Callable, Callable]:
    """factor, solve, solve_transposed as `make_linear` has them."""

    @kernel
    def factor_or_call(frame, A, pivots):
        x = flat(A)
        if pivots.size == 0:
            return 0
        pivots[0] = 0
        if factor(integers_at(frame, slots.SYMBOLIC), x) == 0:
            return 0
        pivots[0] = 1
        return call_solver(integers_at(frame, slots.ROUTINES)[0], FACTOR, is_complex, x, x)

    def solve_by(loops, verb):
        @kernel
        def solve_or_call(frame, LU, pivots, b):
            x = flat(LU)
            if pivots.size > 0 and pivots[0] == 1:
                return call_solver(integers_at(frame, slots.ROUTINES)[0], verb, is_complex, x, b)
            loops(integers_at(frame, slots.SYMBOLIC), x, b)
            return 0

        return solve_or_call

    return factor_or_call, solve_by(solve, SOLVE), solve_by(solve_transposed, SOLVE_TRANSPOSED)
