"""Dense LU by rows with partial pivoting, for matrices too small for LAPACK's overhead to pay.

Matrices are in C order, real or complex: these kernels are compiled for either. `factor` overwrites A by L (unit diagonal, below)
and U, with the rows exchanged as `pivots` says: at step k row k with row pivots[k].

Source: G. H. Golub, C. F. Van Loan, Matrix Computations, 3.4.
"""

from __future__ import annotations

import math

from adjode.compile.flags import kernel
from adjode.compile.views import row


@kernel
def size_of(x):
    """|re x| + |im x|, by which LAPACK, too, compares complex numbers."""
    return abs(x.real) + abs(x.imag)


@kernel
def factor(A, pivots):
    """Factor A in place; 0, or k + 1 where no finite pivot other than zero is left at step k.

    NaN or infinity anywhere in A ends as such a pivot: a row with NaN is never chosen before the others are used up.
    """
    n = A.shape[0]
    for k in range(n):
        chosen, largest = k, 0.0
        for i in range(k, n):
            size = size_of(A[i, k])
            if size > largest:
                chosen, largest = i, size
        if not (0.0 < largest < math.inf):
            return k + 1
        pivots[k] = chosen
        if chosen != k:
            for j in range(n):
                kept = A[k, j]
                A[k, j] = A[chosen, j]
                A[chosen, j] = kept
        inverse = 1.0 / A[k, k]
        for i in range(k + 1, n):
            multiple = A[i, k] * inverse
            A[i, k] = multiple
            for j in range(k + 1, n):
                A[i, j] -= multiple * A[k, j]
    return 0


@kernel
def solve(LU, pivots, b):
    """b = A^-1 b"""
    n = LU.shape[0]
    for k in range(n):
        value = b[pivots[k]]
        b[pivots[k]] = b[k]
        for j in range(k):
            value -= LU[k, j] * b[j]
        b[k] = value
    for k in range(n - 1, -1, -1):
        value = b[k]
        for j in range(k + 1, n):
            value -= LU[k, j] * b[j]
        b[k] = value / LU[k, k]
    return 0


@kernel
def _subtract(row, multiple, other):
    for k in range(row.size):
        row[k] -= multiple * other[k]


@kernel
def solve_columns(LU, pivots, B):
    """B = A^-1 B, for as many right-hand sides as B has columns: real factors."""
    n = LU.shape[0]
    for k in range(n):
        value, chosen = row(B, k), row(B, pivots[k])
        for c in range(value.size if pivots[k] != k else 0):
            kept = value[c]
            value[c] = chosen[c]
            chosen[c] = kept
        for j in range(k):
            _subtract(value, LU[k, j], row(B, j))
    for k in range(n - 1, -1, -1):
        value, inverse = row(B, k), 1.0 / LU[k, k]
        for j in range(k + 1, n):
            _subtract(value, LU[k, j], row(B, j))
        for c in range(value.size):
            value[c] *= inverse


@kernel
def solve_transposed(LU, pivots, b):
    """b = A^-T b; transposed, not conjugated"""
    n = LU.shape[0]
    for k in range(n):
        value = b[k] / LU[k, k]
        b[k] = value
        for j in range(k + 1, n):
            b[j] -= LU[k, j] * value
    for k in range(n - 1, -1, -1):
        value = b[k]
        for j in range(k):
            b[j] -= LU[k, j] * value
        b[k] = b[pivots[k]]
        b[pivots[k]] = value
    return 0
