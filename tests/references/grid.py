"""The reference of the Brusselator on a periodic grid: collocation of order 9 with sparse factorisations, and its exact adjoint.

Stage equations, and the transposed ones of the adjoint, are solved to rounding by iteration with the factors of each step's first
Jacobian. The complex step through the forward solve, which needs no derivative of f to be right, checks the gradient along a
direction.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from benchmarks.stiff_cases import disc
from tests.references.collocation import STEP, extrapolate, radau

METHOD = radau(5)


class Grid:
    def __init__(self, points):
        self.points, self.source = points, disc(points)
        ring = sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(points, points)).tolil()
        ring[0, -1] = ring[-1, 0] = 1.0
        one = sparse.eye_array(points)
        lap = points**2 * (sparse.kron(ring, one) + sparse.kron(one, ring))
        self.lap = sparse.kron(lap, sparse.eye_array(2)).tocsr()

    def f(self, u, theta):
        """For states (..., n)."""
        a, b, d, c = theta
        x, y = u[..., ::2], u[..., 1::2]
        du = d * (self.lap @ u.reshape(-1, u.shape[-1]).T).T.reshape(u.shape)
        du[..., ::2] += b + x * x * y - (a + 1) * x + c * self.source
        du[..., 1::2] += a * x - x * x * y
        return du

    def jacobian(self, u, theta):
        a, _, d, _ = theta
        x, y = u[::2], u[1::2]
        blocks = np.array([[2 * x * y - (a + 1), x * x], [a - 2 * x * y, -x * x]])
        i = np.arange(x.size)
        rows = np.array([[2 * i, 2 * i], [2 * i + 1, 2 * i + 1]]).ravel()
        columns = np.array([[2 * i, 2 * i + 1], [2 * i, 2 * i + 1]]).ravel()
        return (d * self.lap + sparse.coo_array((blocks.ravel(), (rows, columns)), shape=self.lap.shape)).tocsc()

    def theta_bar(self, u, lam):
        x = u[::2]
        return np.array([x @ (lam[1::2] - lam[::2]), lam[::2].sum(), lam @ (self.lap @ u), self.source @ lam[::2]])


class Factors:
    """The inverse of I - h A x J for one J, and its transpose, for (s, n) arrays."""

    def __init__(self, J, h):
        inverse = np.linalg.inv(METHOD.A)
        values, self.T = np.linalg.eig(inverse)
        self.inverse, self.back = inverse, np.linalg.inv(self.T)
        one = sparse.eye_array(J.shape[0])
        self.kept = [k for k in range(values.size) if values[k].imag >= 0.0]
        self.twin = [int(np.argmin(np.abs(values - value.conj()))) for value in values]
        self.factors = {k: splu((values[k] * one - h * J).tocsc().astype(complex)) for k in self.kept}

    def _diagonal(self, z, how):
        out = np.empty_like(z)
        for k in self.kept:
            out[k] = self.factors[k].solve(z[k], how)
            out[self.twin[k]] = out[k].conj() if self.twin[k] != k else out[k]
        return out

    def solve(self, right):
        if np.iscomplexobj(right):
            return self.solve(right.real) + 1j * self.solve(right.imag)
        return (self.T @ self._diagonal((self.back @ self.inverse @ right).astype(complex), "N")).real

    def solve_transposed(self, right):
        z = (self.T.T @ right).astype(complex)
        return self.inverse.T @ (self.back.T @ self._diagonal(z, "T")).real


def _iterate(residual_of, correct, start):
    """x with residual_of(x) = 0 to rounding, or None."""
    x, previous = start, np.inf
    for _ in range(25):
        step = correct(residual_of(x))
        x = x - step
        size = np.max(np.abs(step)) / np.max(np.abs(x))
        if not size < 1e3:
            return None
        if size < 1e-14 or (size < 1e-10 and size > 0.5 * previous):
            return x
        previous = size
    return None


def forward(grid, u0, theta, T, tol):
    """The steps: (h, u at the start, stages)."""
    steps, u, t, h, guess = [], u0, 0.0, 1e-4, None
    real_theta = np.real(theta)
    while t < T:
        lands = 1.001 * h >= T - t
        step = T - t if lands else h
        factors = Factors(grid.jacobian(np.real(u), real_theta), step)
        start = np.tile(u, (5, 1)) if guess is None else guess(step)
        Y = _iterate(lambda Y, u=u, h=step: Y - u - h * METHOD.A @ grid.f(Y, theta), factors.solve, start)
        if Y is None:
            h, guess = 0.3 * step, None
            continue
        error = np.max(np.abs(METHOD.highest[0] * u + METHOD.highest[1:] @ Y)) / np.max(np.abs(Y))
        factor = 0.8 * (tol / max(error, 1e-300)) ** 0.2
        if error > 3.0 * tol:
            h = step * max(0.2, factor)
            continue
        steps.append((step, u, Y))
        values = np.vstack([u, Y])
        guess = lambda new, v=values, d=step: extrapolate(METHOD.nodes, v, 1.0 + METHOD.c * new / d)  # noqa: E731
        u, t, h = Y[-1], T if lands else t + step, step * min(3.0, factor)
    return steps


def gradient(case, tol=1e-9):
    grid = Grid(round((case.u0.size / 2) ** 0.5))
    steps = forward(grid, case.u0, case.theta, case.t_span[1], tol)
    lam, theta_bar = case.weights.copy(), np.zeros(case.theta.size)
    for h, u, Y in reversed(steps):
        factors = Factors(grid.jacobian(u, case.theta), h)
        along = [grid.jacobian(y, case.theta) for y in Y]
        right = np.zeros_like(Y)
        right[-1] = lam

        def residual(w, h=h, along=along, right=right):
            mixed = METHOD.A.T @ w
            return w - h * np.array([J.T @ row for J, row in zip(along, mixed, strict=True)]) - right

        w = _iterate(residual, factors.solve_transposed, factors.solve_transposed(right))
        theta_bar += h * sum(grid.theta_bar(y, row) for y, row in zip(Y, METHOD.A.T @ w, strict=True))
        lam = w.sum(axis=0)
    final = steps[-1][2][-1]
    return {"loss": np.array([case.weights @ final]), "u0": lam, "theta": theta_bar, "final": final}, len(steps)


def slope(case, direction, tol):
    """The loss's derivative along a direction of (u0, theta), by the complex step through the forward solve."""
    n = case.u0.size
    grid = Grid(round((n / 2) ** 0.5))
    moved = case.u0 + 1j * STEP * direction[:n], case.theta + 1j * STEP * direction[n:]
    final = forward(grid, *moved, case.t_span[1], tol)[-1][2][-1]
    return (case.weights @ final).imag / STEP
