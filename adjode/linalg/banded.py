"""Banded LU by columns with partial pivoting, real and complex, in LAPACK's band storage.

Entry (i, j) of the matrix is in row j of A at `lower + upper + i - j`; A is (n, 2 lower + upper + 1), and `lower` entries at the
start of each row are room for fill-in. `factor` overwrites A by the multipliers of L (below the diagonal, each column as it was
when it was eliminated) and U; at step k row k was exchanged with row pivots[k]. Complex matrices have two floats for each entry,
complex vectors are (2n,), real and imaginary parts side by side.

Source: G. H. Golub, C. F. Van Loan, Matrix Computations, 4.3.
"""

from __future__ import annotations

import math

from adjode.jit import kernel
from adjode.linalg.dense import divide_pair, exchange_pair, inverse_of


@kernel
def factor(A, pivots, lower, upper):
    """Factor A in place; 0, or k + 1 where no finite pivot other than zero is left at step k."""
    n, middle, last = A.shape[0], lower + upper, 0
    for k in range(n):
        below = min(lower, n - 1 - k)
        chosen, largest = 0, 0.0
        for i in range(below + 1):
            size = abs(A[k, middle + i])
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
        for i in range(1, below + 1):
            A[k, middle + i] *= inverse
        for j in range(k + 1, last + 1):
            here = middle + k - j  # row k in column j
            value = A[j, here + chosen]
            A[j, here + chosen] = A[j, here]
            A[j, here] = value
            if value != 0.0:
                for i in range(1, below + 1):
                    A[j, here + i] -= A[k, middle + i] * value
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
    """b = A^-T b"""
    n, middle = LU.shape[0], lower + upper
    for j in range(n):
        total = 0.0
        for i in range(max(0, j - middle), j):
            total += LU[j, middle + i - j] * b[i]
        b[j] = (b[j] - total) / LU[j, middle]
    for k in range(n - 1, -1, -1):
        total = 0.0
        for i in range(1, min(lower, n - 1 - k) + 1):
            total += LU[k, middle + i] * b[k + i]
        value = b[k] - total
        b[k] = b[pivots[k]]
        b[pivots[k]] = value
    return 0


@kernel
def _subtract(A, j, first, B, k, start, count, re, im):
    """A[j, first + i] -= B[k, start + i] (re + i im) for 0 <= i < count, in complex entries"""
    for i in range(count):
        x, y = B[k, 2 * (start + i)], B[k, 2 * (start + i) + 1]
        A[j, 2 * (first + i)] -= x * re - y * im
        A[j, 2 * (first + i) + 1] -= x * im + y * re


@kernel
def factor_complex(A, pivots, lower, upper):
    """As `factor`; the largest |re| + |im| is chosen, as LAPACK does."""
    n, middle, last = A.shape[0], lower + upper, 0
    for k in range(n):
        below = min(lower, n - 1 - k)
        chosen, largest = 0, 0.0
        for i in range(below + 1):
            size = abs(A[k, 2 * (middle + i)]) + abs(A[k, 2 * (middle + i) + 1])
            if size > largest:
                chosen, largest = i, size
        if not (0.0 < largest < math.inf):
            return k + 1
        pivots[k] = k + chosen
        last = max(last, min(k + upper + chosen, n - 1))
        for j in range(k, last + 1):
            here = 2 * (middle + k - j)
            for part in range(2):
                value = A[j, here + 2 * chosen + part]
                A[j, here + 2 * chosen + part] = A[j, here + part]
                A[j, here + part] = value
        x, y = inverse_of(A[k, 2 * middle], A[k, 2 * middle + 1])
        for i in range(middle + 1, middle + below + 1):
            re, im = A[k, 2 * i], A[k, 2 * i + 1]
            A[k, 2 * i], A[k, 2 * i + 1] = re * x - im * y, re * y + im * x
        for j in range(k + 1, last + 1):
            here = middle + k - j
            _subtract(A, j, here + 1, A, k, middle + 1, below, A[j, 2 * here], A[j, 2 * here + 1])
    return 0


@kernel
def _spread(b, first, LU, k, start, count, re, im):
    """b[first + i] -= LU[k, start + i] (re + i im) for 0 <= i < count"""
    for i in range(count):
        x, y = LU[k, 2 * (start + i)], LU[k, 2 * (start + i) + 1]
        b[2 * (first + i)] -= x * re - y * im
        b[2 * (first + i) + 1] -= x * im + y * re


@kernel
def _gather(b, first, LU, k, start, count):
    """The sum of LU[k, start + i] b[first + i] over 0 <= i < count"""
    re, im = 0.0, 0.0
    for i in range(count):
        x, y = LU[k, 2 * (start + i)], LU[k, 2 * (start + i) + 1]
        re += x * b[2 * (first + i)] - y * b[2 * (first + i) + 1]
        im += x * b[2 * (first + i) + 1] + y * b[2 * (first + i)]
    return re, im


@kernel
def solve_complex(LU, pivots, b, lower, upper):
    """b = A^-1 b"""
    n, middle = LU.shape[0], lower + upper
    for k in range(n):
        exchange_pair(b, k, pivots[k])
        _spread(b, k + 1, LU, k, middle + 1, min(lower, n - 1 - k), b[2 * k], b[2 * k + 1])
    for j in range(n - 1, -1, -1):
        divide_pair(b, j, LU[j, 2 * middle], LU[j, 2 * middle + 1])
        above = min(middle, j)
        _spread(b, j - above, LU, j, middle - above, above, b[2 * j], b[2 * j + 1])
    return 0


@kernel
def solve_transposed_complex(LU, pivots, b, lower, upper):
    """b = A^-T b; transposed, not conjugated"""
    n, middle = LU.shape[0], lower + upper
    for j in range(n):
        above = min(middle, j)
        re, im = _gather(b, j - above, LU, j, middle - above, above)
        b[2 * j] -= re
        b[2 * j + 1] -= im
        divide_pair(b, j, LU[j, 2 * middle], LU[j, 2 * middle + 1])
    for k in range(n - 1, -1, -1):
        re, im = _gather(b, k + 1, LU, k, middle + 1, min(lower, n - 1 - k))
        b[2 * k] -= re
        b[2 * k + 1] -= im
        exchange_pair(b, k, pivots[k])
    return 0
