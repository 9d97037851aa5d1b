"""Functions of NumPy, written out in what can be read: a call of one is read as one of these."""

from __future__ import annotations

import numpy as np


def interpolated(x, xp, fp):
    """`np.interp` of a number: linear between the points (xp, fp), constant beyond them."""
    if x <= xp[0]:
        return fp[0]
    if x >= xp[xp.size - 1]:
        return fp[xp.size - 1]
    low, high = 0, xp.size - 1
    while high - low > 1:
        middle = (low + high) // 2
        if x < xp[middle]:
            high = middle
        else:
            low = middle
    return (fp[low + 1] - fp[low]) / (xp[low + 1] - xp[low]) * (x - xp[low]) + fp[low]


def interpolated_at(x, xp, fp):
    """`np.interp` of a vector."""
    y = np.empty(x.size)
    for i in range(x.size):
        y[i] = interpolated(x[i], xp, fp)
    return y


# --- of all entries of an array -----------------------------------------------------------------------------------------------


def product(x):
    result = 1.0
    for i in range(x.size):
        result *= x[i]
    return result


def largest(x):
    result = x[0]
    for i in range(1, x.size):
        result = max(result, x[i])
    return result


def smallest(x):
    result = x[0]
    for i in range(1, x.size):
        result = min(result, x[i])
    return result


def place_of_largest(x):
    found = 0
    for i in range(1, x.size):
        if x[i] > x[found]:
            found = i
    return found


def place_of_smallest(x):
    found = 0
    for i in range(1, x.size):
        if x[i] < x[found]:
            found = i
    return found


def variance(x):
    away = x - np.mean(x)
    return np.mean(away * away)


def deviation(x):
    return np.sqrt(variance(x))


def length(x):
    return np.sqrt(np.sum(x * x))


# --- of vectors and matrices --------------------------------------------------------------------------------------------------


def running_sum(x):
    y, total = np.empty(x.size), 0.0
    for i in range(x.size):
        total += x[i]
        y[i] = total
    return y


def running_product(x):
    y, result = np.empty(x.size), 1.0
    for i in range(x.size):
        result *= x[i]
        y[i] = result
    return y


def crossed(a, b):
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def trace(A):
    result = 0.0
    for i in range(A.shape[0]):
        result += A[i, i]
    return result


def diagonal(A):
    y = np.empty(A.shape[0])
    for i in range(A.shape[0]):
        y[i] = A[i, i]
    return y


def diagonal_matrix(x):
    A = np.zeros((x.size, x.size))
    for i in range(x.size):
        A[i, i] = x[i]
    return A


def identity(n):
    A = np.zeros((n, n))
    for i in range(n):
        A[i, i] = 1.0
    return A


def equally_spaced(start, stop, num=50):
    y, step = np.empty(num), (stop - start) / (num - 1) if num > 1 else 0.0
    for i in range(num):
        y[i] = start + i * step
    return y


def counted(start, stop=None):
    """`np.arange` of integers."""
    if stop is None:
        return counted(0, start)
    y = np.empty(stop - start, np.int64)
    for i in range(stop - start):
        y[i] = start + i
    return y


def reversed_entries(x):
    return x[::-1]


def below_and_above(a, a_min=None, a_max=None):
    """`np.clip`."""
    if a_min is not None:
        a = np.maximum(a, a_min)
    if a_max is not None:
        a = np.minimum(a, a_max)
    return a


# --- entries by an array of indices -------------------------------------------------------------------------------------------


def taken(x, places):
    """`x[places]`."""
    y = np.empty(places.size)
    for k in range(places.size):
        y[k] = x[places[k]]
    return y


def taken_rows(A, places):
    y = np.empty((places.size, A.shape[1]))
    for k in range(places.size):
        y[k] = A[places[k]]
    return y


def put(x, places, values):
    """`x[places] = values`, of a vector."""
    for k in range(places.size):
        x[places[k]] = values[k]


def put_one(x, places, value):
    for k in range(places.size):
        x[places[k]] = value


def put_where(x, mask, value):
    """`x[mask] = value`."""
    for i in range(x.size):
        if mask[i]:
            x[i] = value


# --- along the axes of matrices -----------------------------------------------------------------------------------------------


def of_rows(A, rule):
    y = np.empty(A.shape[0])
    for i in range(A.shape[0]):
        y[i] = rule(A[i])
    return y


def of_columns(A, rule):
    y = np.empty(A.shape[1])
    for j in range(A.shape[1]):
        y[j] = rule(A[:, j])
    return y


def rows_of(A, rule):
    Y = np.empty(A.shape)
    for i in range(A.shape[0]):
        Y[i] = rule(A[i])
    return Y


def columns_of(A, rule):
    Y = np.empty(A.shape)
    for j in range(A.shape[1]):
        Y[:, j] = rule(A[:, j])
    return Y
