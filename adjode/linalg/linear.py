"""Linear systems behind three verbs: factor, solve, solve transposed.

A stepper knows no storage. It takes a `Structure` (dense, banded or sparse, made once for a problem), whose `put` fills the frame,
and the kernels of `make_linear(kind)`:

    shift(frame, J, A, c, s)                A = c I + s J
    factor(frame, A, pivots)                in place; 0, or another number if A is singular or not finite
    solve(frame, A, pivots, b)              b = A^-1 b; 0, or 1 if that failed
    solve_transposed(frame, A, pivots, b)   b = A^-T b; likewise

and the same four with `_complex` for complex c, given as `shift_complex(frame, J, A, re, im, s)`: then A has two floats for each
entry, b is (2n,), real and imaginary parts side by side, and "transposed" does not mean "conjugated".

The adjoint's Jacobian is -J^T. Its matrix c I + J^T is the transpose of what `shift` makes with s = 1, so its systems are solved by
`solve_transposed`, and J is kept as it is.

All storages are matrices, which `flat` makes vectors, so that whatever does not mind where entries lie treats them alike. A dense J
is (n, n). A banded one is LAPACK's band storage with room for fill-in, transposed: (n, 2 lower + upper + 1), entry (i, j) in row j
at lower + upper + i - j. A sparse one is (1, nnz), by columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from adjode import frame as slots
from adjode.frame import integers_at
from adjode.jit import flat, kernel
from adjode.linalg import banded, dense
from adjode.linalg.lapack import FACTOR, FACTOR_COMPLEX, PLAIN, SOLVE, SOLVE_COMPLEX, TRANSPOSED, call_fortran

_LOOPS = 32  # the largest dense matrix, and the largest number of subdiagonals, that loops factor sooner than LAPACK does


@kernel
def shift(frame, J, A, c, s):
    """A = c I + s J"""
    diagonal, entries, shifted = integers_at(frame, slots.DIAGONAL), flat(J), flat(A)
    for k in range(entries.size):
        shifted[k] = s * entries[k]
    for i in range(diagonal.size):
        shifted[diagonal[i]] += c


@kernel
def shift_complex(frame, J, A, re, im, s):
    """A = (re + i im) I + s J"""
    diagonal, entries, shifted = integers_at(frame, slots.DIAGONAL), flat(J), flat(A)
    for k in range(entries.size):
        shifted[2 * k] = s * entries[k]
        shifted[2 * k + 1] = 0.0
    for i in range(diagonal.size):
        shifted[2 * diagonal[i]] += re
        shifted[2 * diagonal[i] + 1] += im


@kernel
def _infinite_pivot(frame, LU):
    """1 if LAPACK has left an infinite or NaN pivot, which it does not mind, or 0."""
    diagonal, entries, total = integers_at(frame, slots.DIAGONAL), flat(LU), 0.0
    for i in range(diagonal.size):
        total += 0.0 * entries[diagonal[i]]
    return 0 if total == 0.0 else 1


@kernel
def _infinite_pivot_complex(frame, LU):
    diagonal, entries, total = integers_at(frame, slots.DIAGONAL), flat(LU), 0.0
    for i in range(diagonal.size):
        total += 0.0 * entries[2 * diagonal[i]] + 0.0 * entries[2 * diagonal[i] + 1]
    return 0 if total == 0.0 else 1


@dataclass(frozen=True, eq=False)
class Linear:
    """The kernels of one kind of storage; see the top of this file."""

    factor: Callable
    solve: Callable
    solve_transposed: Callable
    factor_complex: Callable
    solve_complex: Callable
    solve_transposed_complex: Callable
    shift: Callable = shift
    shift_complex: Callable = shift_complex


@functools.cache
def make_linear(kind: str) -> Linear:
    """The kernels for "dense", "banded" or "sparse"."""
    return {"dense": _dense, "banded": _banded}[kind]()


def _dense() -> Linear:
    def factor_with(loops, routine):
        diagonal_check = _infinite_pivot if routine == FACTOR else _infinite_pivot_complex

        @kernel
        def factor(frame, A, pivots):
            n, address = A.shape[0], integers_at(frame, slots.ROUTINES)[routine]
            if n <= _LOOPS or address == 0:
                return loops(A, pivots)
            return call_fortran(address, (n, n, A, n, pivots)) or diagonal_check(frame, A)

        return factor

    def solve_with(loops, routine, direction):
        @kernel
        def solve(frame, LU, pivots, b):
            n, address = LU.shape[0], integers_at(frame, slots.ROUTINES)[routine]
            if n <= _LOOPS or address == 0:
                return loops(LU, pivots, b)
            return call_fortran(address, (direction, n, 1, LU, n, pivots, b, n))

        return solve

    # LAPACK takes a matrix in C order for its transpose
    return Linear(
        factor_with(dense.factor, FACTOR),
        solve_with(dense.solve, SOLVE, TRANSPOSED),
        solve_with(dense.solve_transposed, SOLVE, PLAIN),
        factor_with(dense.factor_complex, FACTOR_COMPLEX),
        solve_with(dense.solve_complex, SOLVE_COMPLEX, TRANSPOSED),
        solve_with(dense.solve_transposed_complex, SOLVE_COMPLEX, PLAIN),
    )


def _banded() -> Linear:
    def factor_with(loops, routine):
        diagonal_check = _infinite_pivot if routine == FACTOR else _infinite_pivot_complex

        @kernel
        def factor(frame, A, pivots):
            widths, n, address = integers_at(frame, slots.WIDTHS), A.shape[0], integers_at(frame, slots.ROUTINES)[routine]
            lower, upper = widths[0], widths[1]
            if lower <= _LOOPS or address == 0:
                return loops(A, pivots, lower, upper)
            return call_fortran(address, (n, n, lower, upper, A, 2 * lower + upper + 1, pivots)) or diagonal_check(frame, A)

        return factor

    def solve_with(loops, routine, direction):
        @kernel
        def solve(frame, LU, pivots, b):
            widths, n, address = integers_at(frame, slots.WIDTHS), LU.shape[0], integers_at(frame, slots.ROUTINES)[routine]
            lower, upper = widths[0], widths[1]
            if lower <= _LOOPS or address == 0:
                return loops(LU, pivots, b, lower, upper)
            return call_fortran(address, (direction, n, lower, upper, 1, LU, 2 * lower + upper + 1, pivots, b, n))

        return solve

    return Linear(
        factor_with(banded.factor, FACTOR),
        solve_with(banded.solve, SOLVE, PLAIN),
        solve_with(banded.solve_transposed, SOLVE, TRANSPOSED),
        factor_with(banded.factor_complex, FACTOR_COMPLEX),
        solve_with(banded.solve_complex, SOLVE_COMPLEX, PLAIN),
        solve_with(banded.solve_transposed_complex, SOLVE_COMPLEX, TRANSPOSED),
    )
