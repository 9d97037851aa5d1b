"""Step size control: the starting step and the PI controller."""

from __future__ import annotations

import math

from adjode import frame as slots
from adjode.frame import matrix_at, vector_at
from adjode.jit import exact_kernel, kernel, row

SAFETY = 0.9
MIN_FACTOR = 0.2
MAX_FACTOR = 10.0
_BETA = 0.1  # weight of the previous error, in units of 1/k: half of what dopri5.f has, so that growing steps lag less
_LEAST_ERROR = 1e-4  # a lucky tiny error must not hold the next step back


@exact_kernel
def step_factor(error, previous, order):
    """What to multiply the step by after an error norm of `error`, with k = order + 1.

    PI control after an accepted step, 0.9 error^(-(1 - 3/4 beta)/k) previous^(beta/k); 0.9 error^(-1/k) after a rejected one; the
    smallest factor if the error is not finite.
    """
    if not error < math.inf:
        return MIN_FACTOR
    if error == 0.0:
        return MAX_FACTOR
    if error > 1.0:
        return max(MIN_FACTOR, SAFETY * error ** (-1.0 / (order + 1.0)))
    exponent = (0.75 * _BETA - 1.0) * math.log(error) + _BETA * math.log(max(previous, _LEAST_ERROR))
    return min(MAX_FACTOR, max(MIN_FACTOR, SAFETY * math.exp(exponent / (order + 1.0))))


@exact_kernel
def _scaled_norm(x, y, atol, rtol):
    """Root mean square of x / (atol + rtol |y|), entries with a zero scale left out."""
    total = 0.0
    for k in range(x.size):
        scale = atol[k] + rtol * abs(y[k])
        if scale > 0.0:
            total += (x[k] / scale) ** 2
    return math.sqrt(total / max(1, x.size))


def make_initial_step(derivative):
    @kernel
    def initial_step(frame, t, direction, span, rtol, order):
        """The starting step of Hairer, Norsett, Wanner I, II.4 as SciPy has it; one evaluation; (status, step).

        Overwrites STAGE and K[1].
        """
        y, stage, atol = vector_at(frame, slots.Y), vector_at(frame, slots.STAGE), vector_at(frame, slots.ATOL)
        K, q = matrix_at(frame, slots.K), matrix_at(frame, slots.Q)
        d0 = _scaled_norm(y, y, atol, rtol)
        d1 = _scaled_norm(row(K, 0), y, atol, rtol)
        h0 = min(span, 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1)
        for k in range(y.size):
            stage[k] = y[k] + direction * h0 * K[0, k]
        slope = row(K, 1)
        status = derivative(frame, t + direction * h0, stage, slope, row(q, q.shape[0] - 1))
        if status != 0:
            return status, 0.0
        for k in range(y.size):
            slope[k] -= K[0, k]
        d2 = _scaled_norm(slope, y, atol, rtol) / h0
        if d1 <= 1e-15 and d2 <= 1e-15:
            h1 = max(1e-6, h0 * 1e-3)
        else:
            h1 = (0.01 / max(d1, d2)) ** (1.0 / (order + 1.0))
        if not h1 > 0.0:  # the trial step overflowed
            h1 = h0
        return 0, min(100.0 * h0, h1, span)

    return initial_step
