"""Linear systems behind three verbs: factor, solve, solve transposed.

A stepper knows no storage. It takes a `Structure` (dense, banded or sparse, made once for a problem), whose `put` fills the frame,
and the kernels of `make_linear(kind)`:

    shift(frame, J, A, c, s)                A = c I + s J; or, with a mass matrix M, c M + s J
    factor(frame, A, pivots)                in place; 0, or another number if A is singular or not finite
    solve(frame, A, pivots, b)              b = A^-1 b; 0, or 1 if that failed
    solve_transposed(frame, A, pivots, b)   b = A^-T b; likewise

and the same four with `_complex` for complex c, given as `shift_complex(frame, J, A, re, im, s)`: then A has two floats for each
entry, b is (2n,), real and imaginary parts side by side, and "transposed" does not mean "conjugated".

The adjoint's Jacobian is -J^T. Its matrix c I + J^T is the transpose of what `shift` makes with s = 1, so its systems are solved by
`solve_transposed`, and J is kept as it is.

All storages are matrices, which `flat` makes vectors, so that whatever does not mind where entries lie treats them alike. A dense J
is (n, n). A banded one is LAPACK's band storage with room for fill-in, transposed: (n, 2 lower + upper + 1), entry (i, j) in row j
at lower + upper + i - j. A sparse one is (1, nnz), by columns; `A` then has room for fill-in behind the entries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from adjode.compile import slots
from adjode.compile.finite import is_finite
from adjode.compile.flags import kernel
from adjode.compile.views import as_complex, flat
from adjode.linalg import banded, dense, mass, sparse
from adjode.linalg.dense import size_of
from adjode.linalg.lapack import FACTOR, FACTOR_COMPLEX, PLAIN, SOLVE, SOLVE_COMPLEX, TRANSPOSED, call_fortran

_LOOPS = 32  # the largest dense matrix, and the largest number of subdiagonals, that loops factor sooner than LAPACK does


@kernel
def shift(frame, J, A, c, s):
    """A = c I + s J"""
    diagonal, entries, shifted = slots.DIAGONAL(frame), flat(J), flat(A)
    for k in range(entries.size):
        shifted[k] = s * entries[k]
    for i in range(diagonal.size):
        shifted[diagonal[i]] += c


@kernel
def shift_complex(frame, J, A, re, im, s):
    """A = (re + i im) I + s J"""
    diagonal, entries, shifted = slots.DIAGONAL(frame), flat(J), flat(A)
    for k in range(entries.size):
        shifted[2 * k] = s * entries[k]
        shifted[2 * k + 1] = 0.0
    for i in range(diagonal.size):
        shifted[2 * diagonal[i]] += re
        shifted[2 * diagonal[i] + 1] += im


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
    massed: bool = False


@functools.cache
def make_linear(kind: str, massed: bool = False) -> Linear:
    """The kernels for "dense", "banded" or "sparse", without a mass matrix or with one."""
    if massed:
        return replace(make_linear(kind), shift=mass.shift, shift_complex=mass.shift_complex, massed=True)
    make = {"dense": _dense, "banded": _banded, "sparse": sparse.make_verbs}[kind]
    verbs = make(False)
    factor, solve, solve_transposed = (_on_pairs(verb, k == 0) for k, verb in enumerate(make(True)))
    return Linear(*verbs, factor, solve, solve_transposed)


def _on_pairs(verb: Callable, factors: bool) -> Callable:
    """A verb for complex numbers as one for pairs of floats."""
    if factors:

        @kernel
        def factor(frame, A, pivots):
            return verb(frame, as_complex(A), pivots)

        return factor

    @kernel
    def solve(frame, LU, pivots, b):
        return verb(frame, as_complex(LU), pivots, as_complex(b))

    return solve


@kernel
def _infinite_pivot(frame, LU):
    """1 if LAPACK has left an infinite or NaN pivot, which it does not mind, or 0."""
    n, diagonal = LU.shape[1], slots.DIAGONAL(frame)
    for i in range(diagonal.size):
        if not is_finite(size_of(LU[diagonal[i] // n, diagonal[i] % n])):
            return 1
    return 0


def _dense(is_complex: bool) -> tuple[Callable, Callable, Callable]:
    factors, solves = (FACTOR_COMPLEX, SOLVE_COMPLEX) if is_complex else (FACTOR, SOLVE)

    @kernel
    def factor(frame, A, pivots):
        n, address = A.shape[0], slots.ROUTINES(frame)[factors]
        if n <= _LOOPS or address == 0:
            return dense.factor(A, pivots)
        return call_fortran(address, (n, n, A, n, pivots)) or _infinite_pivot(frame, A)

    def solve_by(loops, direction):
        @kernel
        def solve(frame, LU, pivots, b):
            n, address = LU.shape[0], slots.ROUTINES(frame)[solves]
            if n <= _LOOPS or address == 0:
                return loops(LU, pivots, b)
            return call_fortran(address, (direction, n, 1, LU, n, pivots, b, n))

        return solve

    # LAPACK takes a matrix in C order for its transpose
    return factor, solve_by(dense.solve, TRANSPOSED), solve_by(dense.solve_transposed, PLAIN)


def _banded(is_complex: bool) -> tuple[Callable, Callable, Callable]:
    factors, solves = (FACTOR_COMPLEX, SOLVE_COMPLEX) if is_complex else (FACTOR, SOLVE)

    @kernel
    def factor(frame, A, pivots):
        widths, n, address = slots.WIDTHS(frame), A.shape[0], slots.ROUTINES(frame)[factors]
        lower, upper = widths[0], widths[1]
        if lower <= _LOOPS or address == 0:
            return banded.factor(A, pivots, lower, upper)
        return call_fortran(address, (n, n, lower, upper, A, A.shape[1], pivots)) or _infinite_pivot(frame, A)

    def solve_by(loops, direction):
        @kernel
        def solve(frame, LU, pivots, b):
            widths, n, address = slots.WIDTHS(frame), LU.shape[0], slots.ROUTINES(frame)[solves]
            lower, upper = widths[0], widths[1]
            if lower <= _LOOPS or address == 0:
                return loops(LU, pivots, b, lower, upper)
            return call_fortran(address, (direction, n, lower, upper, 1, LU, LU.shape[1], pivots, b, n))

        return solve

    return factor, solve_by(banded.solve, PLAIN), solve_by(banded.solve_transposed, TRANSPOSED)
