"""`np.interp`, written out in what can be read: a call of it is read as one of these."""

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
