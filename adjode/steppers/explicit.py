"""Explicit Runge-Kutta steps: the stages, their weighted sums, the error norm and the dense output."""

from __future__ import annotations

import math

from adjode import frame as slots
from adjode.frame import integers_at, matrix_at, vector_at
from adjode.jit import exact_kernel, kernel, row

# Below this many components the sum over stages is the inner loop; above, the components are (they vectorise).
_FEW = 6


@kernel
def combine(out, base, h, W, i, K, count):
    """out = base + h sum_{j < count} W[i, j] K[j]."""
    if out.size < _FEW:
        for k in range(out.size):
            total = 0.0
            for j in range(count):
                total += W[i, j] * K[j, k]
            out[k] = base[k] + h * total
        return
    for k in range(out.size):
        out[k] = base[k]
    for j in range(count):
        weight = h * W[i, j]
        if weight != 0.0:
            for k in range(out.size):
                out[k] += weight * K[j, k]


@kernel
def interpolate(out, u, coefficients, x):
    """out = u + sum_p coefficients[p] x**(p+1), by Horner's rule."""
    degree = coefficients.shape[0]
    for k in range(out.size):
        total = 0.0
        for p in range(degree - 1, -1, -1):
            total = coefficients[p, k] + x * total
        out[k] = u[k] + x * total


@exact_kernel
def error_norm(frame, h, count, rtol, first, second, size):
    """Scaled norm of the step's error estimates; NaN if the new state is not finite.

    Root mean square of error / (atol + rtol max(|y|, |y_new|)) for a method with one estimate. With two, E. Hairer's blend
    |e5|^2 / sqrt(|e5|^2 + 0.01 |e3|^2) (Solving ODEs I, II.10). `first`, `second` and `size` are sums of squares and a number of
    components, from a quadrature, that join the norm.
    """
    E, K = matrix_at(frame, slots.E), matrix_at(frame, slots.K)
    error, zeros = vector_at(frame, slots.ERROR), vector_at(frame, slots.ZEROS)
    y, y_new, atol = vector_at(frame, slots.Y), vector_at(frame, slots.Y_NEW), vector_at(frame, slots.ATOL)
    for r in range(E.shape[0]):
        total = 0.0
        combine(error, zeros, h, E, r, K, count)
        for k in range(error.size):
            scale = atol[k] + rtol * max(abs(y[k]), abs(y_new[k]))
            if not scale < math.inf:
                return math.nan
            if error[k] != 0.0:
                total += (error[k] / scale) ** 2
        if r == 0:
            first += total
        else:
            second += total
    size += error.size
    if not first > 0.0:  # also when there are no components at all
        return first
    if E.shape[0] == 1:
        return math.sqrt(first / size)
    return first / math.sqrt((first + 0.01 * second) * size)


@kernel
def dense_output(frame, h, out):
    """out[p] = h sum_i P[i, p] K[i], the coefficient of x**(p+1)."""
    PT, K, zeros = matrix_at(frame, slots.PT), matrix_at(frame, slots.K), vector_at(frame, slots.ZEROS)
    for p in range(PT.shape[0]):
        combine(row(out, p), zeros, h, PT, p, K, PT.shape[1])


def make_stages(derivative):
    @kernel
    def stages(frame, t, h, t_last, y, y_last, stage, begin, last):
        """Evaluate stages begin..last into K; stage `last` is taken at t_last and leaves its state in y_last.

        Returns the status and the time of the last evaluation.
        """
        A, c, K = matrix_at(frame, slots.A), vector_at(frame, slots.C), matrix_at(frame, slots.K)
        q, q_rows = matrix_at(frame, slots.Q), integers_at(frame, slots.Q_ROWS)
        for i in range(begin, last + 1):
            t_i = t_last if i == last else t + c[i] * h
            target = y_last if i == last else stage
            combine(target, y, h, A, i, K, i)
            status = derivative(frame, t_i, target, row(K, i), row(q, q_rows[i]))
            if status != 0:
                return status, t_i
        return 0, t_last

    return stages


def make_transposed_stages(pull):
    """The transpose of `stages`; `pull(frame, t, u, w, u_bar) -> status` gives u_bar = (df/du)^T w and keeps (df/dtheta)^T w."""

    @kernel
    def transposed_stages(frame, t, h, t_new, y, y_new_bar, last, top):
        """Pull the cotangents of y_new and of K[0..top] back to y and K[0]: adds to Y_BAR and K_BAR[0].

        Stage i was f at y + h sum_{j<i} A[i, j] K[j], and y_new is that state for i = last. Returns the status and the time.
        """
        A, c = matrix_at(frame, slots.A), vector_at(frame, slots.C)
        K, K_bar = matrix_at(frame, slots.K), matrix_at(frame, slots.K_BAR)
        stage, stage_bar, y_bar = vector_at(frame, slots.STAGE), vector_at(frame, slots.STAGE_BAR), vector_at(frame, slots.Y_BAR)
        for i in range(top, 0, -1):
            t_i = t_new if i == last else t + c[i] * h
            combine(stage, y, h, A, i, K, i)
            status = pull(frame, t_i, stage, row(K_bar, i), stage_bar)
            if status != 0:
                return status, t_i
            if i == last:
                for k in range(y.size):
                    stage_bar[k] += y_new_bar[k]
            for k in range(y.size):
                y_bar[k] += stage_bar[k]
            for j in range(i):
                weight = h * A[i, j]
                if weight != 0.0:
                    for k in range(y.size):
                        K_bar[j, k] += weight * stage_bar[k]
        return 0, t

    return transposed_stages
