"""More functions of NumPy, written out: those that make larger arrays of given ones, and those of grids."""

from __future__ import annotations

import numpy as np


def rolled_rows(A, shift):
    """`np.roll` of a matrix along its first axis: loops compile in a fraction of the time that slices take."""
    n, moved = A.shape[0], shift % A.shape[0]
    B = np.empty(A.shape)
    for i in range(n - moved):
        for j in range(A.shape[1]):
            B[moved + i, j] = A[i, j]
    for i in range(moved):
        for j in range(A.shape[1]):
            B[i, j] = A[n - moved + i, j]
    return B


def rolled_columns(A, shift):
    """The same along the second axis."""
    n, moved = A.shape[1], shift % A.shape[1]
    B = np.empty(A.shape)
    for i in range(A.shape[0]):
        for j in range(n - moved):
            B[i, moved + j] = A[i, j]
        for j in range(moved):
            B[i, j] = A[i, n - moved + j]
    return B


def tiled(x, count):
    """`np.tile` of a vector."""
    y = np.empty(count * x.size)
    for k in range(count):
        for i in range(x.size):
            y[k * x.size + i] = x[i]
    return y


def repeated(x, count):
    """`np.repeat` of a vector."""
    y = np.empty(count * x.size)
    for i in range(x.size):
        for k in range(count):
            y[i * count + k] = x[i]
    return y


def kronecker(A, B):
    """`np.kron` of matrices."""
    rows, columns = B.shape[0], B.shape[1]
    C = np.empty((A.shape[0] * rows, A.shape[1] * columns))
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            for k in range(rows):
                for m in range(columns):
                    C[i * rows + k, j * columns + m] = A[i, j] * B[k, m]
    return C


def crosswise(x, y, indexing="xy"):
    """`np.meshgrid` of two vectors."""
    if indexing == "ij":
        return np.zeros((x.size, y.size)) + x[:, None], np.zeros((x.size, y.size)) + y[None, :]
    return np.zeros((y.size, x.size)) + x[None, :], np.zeros((y.size, x.size)) + y[:, None]


def lower(A, k=0):
    """`np.tril`."""
    L = np.zeros(A.shape)
    for i in range(A.shape[0]):
        for j in range(min(A.shape[1], max(i + k + 1, 0))):
            L[i, j] = A[i, j]
    return L


def upper(A, k=0):
    """`np.triu`."""
    U = np.zeros(A.shape)
    for i in range(A.shape[0]):
        for j in range(min(A.shape[1], max(i + k, 0)), A.shape[1]):
            U[i, j] = A[i, j]
    return U


def put_on_diagonal(A, value):
    """`np.fill_diagonal`."""
    for i in range(min(A.shape[0], A.shape[1])):
        A[i, i] = value


def inverse(A):
    """`np.linalg.inv`."""
    return np.linalg.solve(A, np.eye(A.shape[0]))


def polynomial(p, x):
    """`np.polyval`."""
    y = 0.0 * x
    for k in range(p.size):
        y = y * x + p[k]
    return y


def padded(x, before, after, mode="constant", value=0.0):
    """`np.pad` of a vector."""
    n = x.size
    y = np.full(before + n + after, value)
    y[before : before + n] = x
    if mode != "constant":
        for k in range(before):
            y[k] = x[0] if mode == "edge" else x[n - before + k] if mode == "wrap" else x[before - k]
        for k in range(after):
            y[before + n + k] = x[n - 1] if mode == "edge" else x[k] if mode == "wrap" else x[n - 2 - k]
    return y


def padded_columns(A, before, after, mode, value):
    """The same of the columns of a matrix."""
    Y = np.empty((before + A.shape[0] + after, A.shape[1]))
    for j in range(A.shape[1]):
        Y[:, j] = padded(A[:, j], before, after, mode, value)
    return Y


def padded_matrix(A, rows, columns, mode, value):
    B = padded_columns(A, rows[0], rows[1], mode, value)
    return padded_columns(B.T, columns[0], columns[1], mode, value).T


def convolved(a, v, mode="full"):
    """`np.convolve`."""
    if mode == "full":
        y = np.zeros(a.size + v.size - 1)
        for i in range(a.size):
            for j in range(v.size):
                y[i + j] += a[i] * v[j]
        return y
    shorter = min(a.size, v.size)
    whole = convolved(a, v)
    if mode == "same":
        start = (shorter - 1) // 2
        return whole[start : start + max(a.size, v.size)]
    return whole[shorter - 1 : max(a.size, v.size)]


def slopes(f, h=1.0):
    """`np.gradient` of a vector, with equal distances."""
    n = f.size
    y = np.empty(n)
    y[0] = (f[1] - f[0]) / h
    for i in range(1, n - 1):
        y[i] = (f[i + 1] - f[i - 1]) / (2.0 * h)
    y[n - 1] = (f[n - 1] - f[n - 2]) / h
    return y


def under_trapezoids(y, x=None, dx=1.0):
    """`np.trapezoid` of a vector."""
    total = 0.0
    if x is None:
        for i in range(y.size - 1):
            total += 0.5 * (y[i] + y[i + 1]) * dx
    else:
        for i in range(y.size - 1):
            total += 0.5 * (y[i] + y[i + 1]) * (x[i + 1] - x[i])
    return total


def two_by_two(A):
    """The determinant."""
    return A[0, 0] * A[1, 1] - A[0, 1] * A[1, 0]


def three_by_three(A):
    """The determinant."""
    return (
        A[0, 0] * (A[1, 1] * A[2, 2] - A[1, 2] * A[2, 1])
        - A[0, 1] * (A[1, 0] * A[2, 2] - A[1, 2] * A[2, 0])
        + A[0, 2] * (A[1, 0] * A[2, 1] - A[1, 1] * A[2, 0])
    )


def logistic(x):
    """`scipy.special.expit`."""
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x):
    """`scipy.special.softmax` of a vector."""
    e = np.exp(x - np.max(x))
    return e / np.sum(e)


def log_of_sum(x):
    """`scipy.special.logsumexp` of a vector."""
    largest = np.max(x)
    return largest + np.log(np.sum(np.exp(x - largest)))
