"""Radau IIA collocation of high order, with derivatives: how the references of the stiff problems are made, without adjode.

Every step solves its stage equations by Newton's method until rounding stops it, with Jacobians of the right-hand side by the
complex step, so that nothing but f itself has to be right. Source: E. Hairer, G. Wanner, Solving Ordinary Differential Equations
II, IV.5.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import mpmath
import numpy as np

STEP = 1e-30  # of the complex step


class Method(NamedTuple):
    c: np.ndarray  # (s,), the last is 1
    A: np.ndarray  # (s, s)
    highest: np.ndarray  # (s + 1,): the coefficient of x^s of the polynomial through values at 0, c
    nodes: np.ndarray  # (s + 1,): 0, c


@functools.cache
def radau(s: int, dtype: type = np.float64) -> Method:
    """The method of s stages, order 2s - 1, computed to 50 digits and rounded."""
    with mpmath.workdps(50):
        near = np.polynomial.legendre.legroots([0.0] * (s - 1) + [-1.0, 1.0])
        c = [_node(s, (1.0 + x) / 2.0) for x in sorted(near)[:-1]] + [mpmath.mpf(1)]
        powers = mpmath.matrix(s, s)
        integrals = mpmath.matrix(s, s)
        for i in range(s):
            for k in range(s):
                powers[i, k] = c[i] ** k
                integrals[i, k] = c[i] ** (k + 1) / (k + 1)
        A = integrals * powers**-1
        nodes = [mpmath.mpf(0), *c]
        highest = [1 / mpmath.fprod(x - y for y in nodes if y != x) for x in nodes]
        table = [[A[i, j] for j in range(s)] for i in range(s)]
        return Method(*(_rounded(numbers, dtype) for numbers in (c, table, highest, nodes)))


def _node(s, near):
    """The zero of the difference of two Legendre polynomials that Radau's nodes are."""
    return mpmath.findroot(lambda x: mpmath.legendre(s, 2 * x - 1) - mpmath.legendre(s - 1, 2 * x - 1), near)


def _rounded(numbers, dtype):
    texts = np.vectorize(lambda x: mpmath.nstr(x, 30), otypes=[object])(np.array(numbers, dtype=object))
    return texts.astype(str).astype(dtype)


def solve_linear(matrix, right):
    """NumPy's solve, and the same for long doubles by elimination."""
    if matrix.dtype not in (np.longdouble, np.clongdouble):
        return np.linalg.solve(matrix, right)
    size = len(matrix)
    rows = np.hstack([matrix, right.reshape(size, -1)])
    for k in range(size):
        chosen = k + np.argmax(np.abs(rows[k:, k]))
        rows[[k, chosen]] = rows[[chosen, k]]
        rows[k + 1 :] -= np.outer(rows[k + 1 :, k] / rows[k, k], rows[k])
    for k in range(size - 1, -1, -1):
        rows[k] /= rows[k, k]
        rows[:k] -= np.outer(rows[:k, k], rows[k])
    return rows[:, size:].reshape(right.shape)


def derivatives(f, u, theta):
    """df/du (n, n) and df/dtheta (n, m) by the complex step."""
    step = np.array(STEP * 1j, dtype=np.result_type(u.dtype, np.complex64))
    by_u = f(u + step * np.eye(u.size), theta).imag.T / step.imag
    by_theta = f(u, theta + step * np.eye(theta.size)).imag.T / step.imag
    return by_u, by_theta


def extrapolate(nodes, values, x):
    """The polynomial through the values (s + 1, n) at the nodes, at x (k,)."""
    weights = np.array([1.0 / np.prod([a - b for b in nodes if b != a]) for a in nodes])
    apart = x[:, None] - nodes
    factors = weights / np.where(apart == 0.0, 1e-200, apart)
    return (factors @ values) / factors.sum(axis=1)[:, None]


def stage_states(f, method, u, theta, h, guess, jacobians):
    """The states of the stages (s, n), and the factor's matrix at the solution; None where Newton's method does not converge."""
    s, n = method.A.shape[0], u.size
    Y, previous = guess.copy(), np.inf
    for _ in range(12):
        matrix = np.eye(s * n, dtype=u.dtype)
        for j in range(s):
            matrix[:, j * n : (j + 1) * n] -= h * np.kron(method.A[:, j : j + 1], jacobians(Y[j]))
        residual = Y - u - h * method.A @ f(Y, theta)
        step = solve_linear(matrix, residual.ravel()).reshape(s, n)
        Y = Y - step
        size = np.max(np.abs(step) / (np.abs(Y).max(axis=0) + 1e-30))
        if not np.isfinite(size):
            return None
        if size < 4 * np.finfo(Y.dtype).eps or (size < 1e-10 and size >= 0.3 * previous):
            return Y, matrix
        previous = size
    return None


def solve(f, u0, theta, t_span, times, *, stages=7, tol=1e-9, sensitivities=True, floor=1e-12):
    """States (k, n) at the times and, if asked, their derivatives (k, n, n + m) by (u0, theta); the number of steps.

    `tol` bounds the highest coefficient of each step's polynomial, relative to the size of the component or `floor`; the error at
    the ends of the steps is about its square. Complex u0 or theta are carried through.
    """
    method = radau(stages, u0.real.dtype.type)
    n, m = u0.size, theta.size
    first = min(time for time in times if time > t_span[0])
    u, S, t, h, steps = u0.copy(), np.eye(n, n + m, dtype=u0.dtype), t_span[0], 1e-4 * min(1.0, first - t_span[0]), 0
    states, tangents = [], []
    guess, length = None, 0.0

    def jacobians(y):
        return derivatives(f, y.real.copy(), theta.real)[0] if np.iscomplexobj(u) else derivatives(f, y, theta)[0]

    for stop in times:
        while t < stop:
            lands = h * 1.001 >= stop - t
            step = stop - t if lands else h
            start = np.tile(u, (stages, 1)) if guess is None or step > 4.0 * length else guess(step)
            found = stage_states(f, method, u, theta, step, start, jacobians)
            if found is None:
                h, guess = 0.25 * step, None
                continue
            Y, matrix = found
            scale = np.maximum(np.abs(Y).max(axis=0), floor)
            error = np.max(np.abs(method.highest[0] * u + method.highest[1:] @ Y) / scale)
            factor = 0.8 * (tol / max(error, 1e-300)) ** (1.0 / stages)
            if error > 3.0 * tol:
                h = step * max(0.2, factor)
                continue
            if sensitivities:
                S = _tangents(f, method, theta, step, Y, matrix, S)
            values, length, u = np.vstack([u, Y]), step, Y[-1].copy()
            guess = lambda new, v=values, d=length: extrapolate(method.nodes, v, 1.0 + method.c * new / d)  # noqa: E731
            t = stop if lands else t + step
            h = max(h, step * min(3.0, factor)) if lands else step * min(3.0, factor)
            steps += 1
        states.append(u)
        tangents.append(S)
    return np.array(states), np.array(tangents), steps


def _tangents(f, method, theta, h, Y, matrix, S):
    """The derivative of the step's end by (u0, theta)."""
    s, n = Y.shape
    m = theta.size
    fixed = np.zeros((s, n, S.shape[1]), dtype=S.dtype)
    by_theta = np.array([derivatives(f, y, theta)[1] for y in Y])
    fixed[:, :, S.shape[1] - m :] = h * np.einsum("ij,jnk->ink", method.A, by_theta)
    fixed += S
    return solve_linear(matrix, fixed.reshape(s * n, -1))[-n:]


def gradient(case, f, dtype=np.float64, **options):
    """Loss, and its gradients by u0 and theta, by forward sensitivities; the number of steps."""
    states, tangents, steps = solve(f, case.u0.astype(dtype), case.theta.astype(dtype), case.t_span, case.times, **options)
    total = np.einsum("n,knj->j", case.weights, tangents)
    n = case.u0.size
    return {
        "loss": np.array([(states @ case.weights).sum()]),
        "u0": total[:n],
        "theta": total[n:],
        "final": states[-1],
    }, steps


def slope(case, f, direction, dtype=np.float64, **options):
    """The loss's derivative along a direction of (u0, theta), by the complex step through the whole solve."""
    step, n = 1j * np.array(STEP, dtype=dtype), case.u0.size
    u0, theta = case.u0 + step * direction[:n], case.theta + step * direction[n:]
    states, _, _ = solve(f, u0, theta, case.t_span, case.times, sensitivities=False, **options)
    return (states @ case.weights).sum().imag / STEP
