"""Dense LU by rows with partial pivoting, real and complex: for matrices too small for LAPACK's overhead to pay.

Matrices are in C order. `factor` overwrites A by L (unit diagonal, below) and U, with the rows exchanged as `pivots` says: at step
k row k with row pivots[k]. Complex matrices are (n, 2n) floats, complex vectors (2n,), real and imaginary parts side by side.

Source: G. H. Golub, C. F. Van Loan, Matrix Computations, 3.4.
"""

from __future__ import annotations

import math

from adjode.jit import kernel


@kernel
def _exchange(A, k, i):
    if i != k:
        for j in range(A.shape[1]):
            kept = A[k, j]
            A[k, j] = A[i, j]
            A[i, j] = kept


@kernel
def factor(A, pivots):
    """Factor A in place; 0, or k + 1 where no finite pivot other than zero is left at step k.

    NaN or infinity anywhere in A ends as such a pivot: a row with NaN is never chosen before the others are used up.
    """
    n = A.shape[0]
    for k in range(n):
        chosen, largest = k, 0.0
        for i in range(k, n):
            size = abs(A[i, k])
            if size > largest:
                chosen, largest = i, size
        if not (0.0 < largest < math.inf):
            return k + 1
        pivots[k] = chosen
        _exchange(A, k, chosen)
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
        i = pivots[k]
        kept = b[i]
        b[i] = b[k]
        total = 0.0
        for j in range(k):
            total += LU[k, j] * b[j]
        b[k] = kept - total
    for k in range(n - 1, -1, -1):
        total = 0.0
        for j in range(k + 1, n):
            total += LU[k, j] * b[j]
        b[k] = (b[k] - total) / LU[k, k]
    return 0


@kernel
def solve_transposed(LU, pivots, b):
    """b = A^-T b"""
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
        i = pivots[k]
        b[k] = b[i]
        b[i] = value
    return 0


@kernel
def inverse_of(x, y):
    """1 / (x + iy), without overflow in between."""
    if abs(x) >= abs(y):
        ratio = y / x
        scale = 1.0 / (x + y * ratio)
        return scale, -ratio * scale
    ratio = x / y
    scale = 1.0 / (x * ratio + y)
    return ratio * scale, -scale


@kernel
def factor_complex(A, pivots):
    """As `factor`; the largest |re| + |im| is chosen, as LAPACK does."""
    n = A.shape[0]
    for k in range(n):
        chosen, largest = k, 0.0
        for i in range(k, n):
            size = abs(A[i, 2 * k]) + abs(A[i, 2 * k + 1])
            if size > largest:
                chosen, largest = i, size
        if not (0.0 < largest < math.inf):
            return k + 1
        pivots[k] = chosen
        _exchange(A, k, chosen)
        x, y = inverse_of(A[k, 2 * k], A[k, 2 * k + 1])
        for i in range(k + 1, n):
            re = A[i, 2 * k] * x - A[i, 2 * k + 1] * y
            im = A[i, 2 * k] * y + A[i, 2 * k + 1] * x
            A[i, 2 * k], A[i, 2 * k + 1] = re, im
            for j in range(k + 1, n):
                A[i, 2 * j] -= re * A[k, 2 * j] - im * A[k, 2 * j + 1]
                A[i, 2 * j + 1] -= re * A[k, 2 * j + 1] + im * A[k, 2 * j]
    return 0


@kernel
def exchange_pair(b, k, i):
    re, im = b[2 * i], b[2 * i + 1]
    b[2 * i], b[2 * i + 1] = b[2 * k], b[2 * k + 1]
    b[2 * k], b[2 * k + 1] = re, im


@kernel
def divide_pair(b, k, x, y):
    """b[k] /= x + iy"""
    x, y = inverse_of(x, y)
    re, im = b[2 * k], b[2 * k + 1]
    b[2 * k], b[2 * k + 1] = re * x - im * y, re * y + im * x


@kernel
def _subtract_row(LU, b, k, first, last):
    """b[k] -= sum of LU[k, j] b[j] over first <= j < last"""
    re, im = 0.0, 0.0
    for j in range(first, last):
        re += LU[k, 2 * j] * b[2 * j] - LU[k, 2 * j + 1] * b[2 * j + 1]
        im += LU[k, 2 * j] * b[2 * j + 1] + LU[k, 2 * j + 1] * b[2 * j]
    b[2 * k] -= re
    b[2 * k + 1] -= im


@kernel
def _spread_row(LU, b, k, first, last):
    """b[j] -= LU[k, j] b[k] for first <= j < last"""
    re, im = b[2 * k], b[2 * k + 1]
    for j in range(first, last):
        b[2 * j] -= LU[k, 2 * j] * re - LU[k, 2 * j + 1] * im
        b[2 * j + 1] -= LU[k, 2 * j] * im + LU[k, 2 * j + 1] * re


@kernel
def solve_complex(LU, pivots, b):
    """b = A^-1 b"""
    n = LU.shape[0]
    for k in range(n):
        exchange_pair(b, k, pivots[k])
        _subtract_row(LU, b, k, 0, k)
    for k in range(n - 1, -1, -1):
        _subtract_row(LU, b, k, k + 1, n)
        divide_pair(b, k, LU[k, 2 * k], LU[k, 2 * k + 1])
    return 0


@kernel
def solve_transposed_complex(LU, pivots, b):
    """b = A^-T b; transposed, not conjugated"""
    n = LU.shape[0]
    for k in range(n):
        divide_pair(b, k, LU[k, 2 * k], LU[k, 2 * k + 1])
        _spread_row(LU, b, k, k + 1, n)
    for k in range(n - 1, -1, -1):
        _spread_row(LU, b, k, 0, k)
        exchange_pair(b, k, pivots[k])
    return 0
