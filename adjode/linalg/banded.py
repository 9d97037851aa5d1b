"""Banded LU by columns with partial pivoting, in LAPACK's band storage.

Entry (i, j) of the matrix is in row j of A at `lower + upper + i - j`; A is (n, 2 lower + upper + 1), real or complex, and `lower`
entries at the start of each row are room for fill-in. `factor` overwrites A by the multipliers of L (below the diagonal, each
column as it was when it was eliminated) and U; at step k row k was exchanged with row pivots[k].

Source: G. H. Golub, C. F. Van Loan, Matrix Computations, 4.3.
"""

from __future__ import annotations

import math

from adjode.compile.flags import kernel
from adjode.compile.views import part
from adjode.linalg.dense import size_of


@kernel
def factor(A, pivots, lower, upper):
    """Factor A in place; 0, or k + 1 where no finite pivot other than zero is left at step k."""
    n, middle, last = A.shape[0], lower + upper, 0
    for k in range(n):
        below = min(lower, n - 1 - k)
        chosen, largest = 0, 0.0
        for i in range(below + 1):
            size = size_of(A[k, middle + i])
            if size > largest:
                chosen, largest = i, size
        if not (0.0 < largest < math.inf):
            return k + 1
        pivots[k] = k + chosen
        last = max(last, min(k + upper + chosen, n - 1))  # the last column that row k reaches
        pivot = A[k, middle + chosen]
        inverse = 1.0 / pivot
        A[k, middle + chosen] = A[k, middle]
        A[k, middle] = pivot
        multiples = part(A, k, middle + 1, below)
        for i in range(multiples.size):
            multiples[i] *= inverse
        for j in range(k + 1, last + 1):
            here = middle + k - j  # row k in column j
            value = A[j, here + chosen]
            A[j, here + chosen] = A[j, here]
            A[j, here] = value
            column = part(A, j, here + 1, below)
            for i in range(column.size):
                column[i] -= multiples[i] * value
    return 0


@kernel
def solve(LU, pivots, b, lower, upper):
    """b = A^-1 b"""
    n, middle = LU.shape[0], lower + upper
    for k in range(n):
        value = b[pivots[k]]
        b[pivots[k]] = b[k]
        b[k] = value
        for i in range(1, min(lower, n - 1 - k) + 1):
            b[k + i] -= LU[k, middle + i] * value
    for j in range(n - 1, -1, -1):
        value = b[j] / LU[j, middle]
        b[j] = value
        for i in range(max(0, j - middle), j):
            b[i] -= LU[j, middle + i - j] * value
    return 0


@kernel
def solve_transposed(LU, pivots, b, lower, upper):
    """b = A^-T b; transposed, not conjugated"""
    n, middle = LU.shape[0], lower + upper
    for j in range(n):
        value = b[j]
        for i in range(max(0, j - middle), j):
            value -= LU[j, middle + i - j] * b[i]
        b[j] = value / LU[j, middle]
    for k in range(n - 1, -1, -1):
        value = b[k]
        for i in range(1, min(lower, n - 1 - k) + 1):
            value -= LU[k, middle + i] * b[k + i]
        b[k] = b[pivots[k]]
        b[pivots[k]] = value
    return 0
