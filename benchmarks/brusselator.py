"""The Brusselator on a line and on a periodic grid, with vjps and patterns; benchmarks/stiff_cases.py has the equations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.stiff_cases import disc


def brusselator_1d_f(t, u, theta, du):
    a, b, points = theta[0], theta[1], u.size // 2
    d = theta[2] * (points + 1.0) ** 2
    for i in range(points):
        x, y = u[2 * i], u[2 * i + 1]
        x_left = u[2 * i - 2] if i > 0 else 1.0
        y_left = u[2 * i - 1] if i > 0 else 3.0
        x_right = u[2 * i + 2] if i < points - 1 else 1.0
        y_right = u[2 * i + 3] if i < points - 1 else 3.0
        du[2 * i] = a + x * x * y - (b + 1.0) * x + d * (x_left - 2.0 * x + x_right)
        du[2 * i + 1] = b * x - x * x * y + d * (y_left - 2.0 * y + y_right)


def brusselator_1d_vjp_u(t, u, theta, lam, u_bar):
    b, points = theta[1], u.size // 2
    d = theta[2] * (points + 1.0) ** 2
    for i in range(points):
        x, y = u[2 * i], u[2 * i + 1]
        p, q = lam[2 * i], lam[2 * i + 1]
        x_bar, y_bar = -2.0 * p, -2.0 * q
        if i > 0:
            x_bar += lam[2 * i - 2]
            y_bar += lam[2 * i - 1]
        if i < points - 1:
            x_bar += lam[2 * i + 2]
            y_bar += lam[2 * i + 3]
        u_bar[2 * i] = d * x_bar + (p - q) * 2.0 * x * y - (b + 1.0) * p + b * q
        u_bar[2 * i + 1] = d * y_bar + (p - q) * x * x


def brusselator_1d_vjp(t, u, theta, lam, u_bar, theta_bar):
    b, points = theta[1], u.size // 2
    square = (points + 1.0) ** 2
    d = theta[2] * square
    a_bar, b_bar, d_bar = 0.0, 0.0, 0.0
    for i in range(points):
        x, y = u[2 * i], u[2 * i + 1]
        p, q = lam[2 * i], lam[2 * i + 1]
        x_bar, y_bar = -2.0 * p, -2.0 * q
        x_lap, y_lap = -2.0 * x, -2.0 * y
        if i > 0:
            x_bar += lam[2 * i - 2]
            y_bar += lam[2 * i - 1]
            x_lap += u[2 * i - 2]
            y_lap += u[2 * i - 1]
        else:
            x_lap += 1.0
            y_lap += 3.0
        if i < points - 1:
            x_bar += lam[2 * i + 2]
            y_bar += lam[2 * i + 3]
            x_lap += u[2 * i + 2]
            y_lap += u[2 * i + 3]
        else:
            x_lap += 1.0
            y_lap += 3.0
        u_bar[2 * i] = d * x_bar + (p - q) * 2.0 * x * y - (b + 1.0) * p + b * q
        u_bar[2 * i + 1] = d * y_bar + (p - q) * x * x
        a_bar += p
        b_bar += (q - p) * x
        d_bar += p * x_lap + q * y_lap
    theta_bar[0] = a_bar
    theta_bar[1] = b_bar
    theta_bar[2] = square * d_bar


def brusselator_1d_sparsity(points: int) -> Any:
    n = 2 * points
    near = sparse.diags_array([np.ones(n - 2), np.ones(n), np.ones(n - 2)], offsets=[-2, 0, 2])
    return sparse.csc_array(near + sparse.kron(sparse.eye_array(points), np.ones((2, 2))))


@functools.cache
def brusselator_2d_callbacks(points: int) -> tuple[Callable, Callable, Callable]:
    """f, vjp and vjp_u on a grid of points^2: the source inside the disc is a constant of theirs."""
    N, inside = points, disc(points)

    def f(t, u, theta, du):
        a, b, d, c = theta[0], theta[1], theta[2] * N * N, theta[3]
        for i in range(N):
            up, down = ((i - 1) % N) * N, ((i + 1) % N) * N
            for j in range(N):
                k, left, right = i * N + j, i * N + (j - 1) % N, i * N + (j + 1) % N
                x, y = u[2 * k], u[2 * k + 1]
                x_lap = u[2 * (up + j)] + u[2 * (down + j)] + u[2 * left] + u[2 * right] - 4.0 * x
                y_lap = u[2 * (up + j) + 1] + u[2 * (down + j) + 1] + u[2 * left + 1] + u[2 * right + 1] - 4.0 * y
                du[2 * k] = b + x * x * y - (a + 1.0) * x + d * x_lap + c * inside[k]
                du[2 * k + 1] = a * x - x * x * y + d * y_lap

    def vjp_u(t, u, theta, lam, u_bar):
        a, d = theta[0], theta[2] * N * N
        for i in range(N):
            up, down = ((i - 1) % N) * N, ((i + 1) % N) * N
            for j in range(N):
                k, left, right = i * N + j, i * N + (j - 1) % N, i * N + (j + 1) % N
                x, y, p, q = u[2 * k], u[2 * k + 1], lam[2 * k], lam[2 * k + 1]
                p_lap = lam[2 * (up + j)] + lam[2 * (down + j)] + lam[2 * left] + lam[2 * right] - 4.0 * p
                q_lap = lam[2 * (up + j) + 1] + lam[2 * (down + j) + 1] + lam[2 * left + 1] + lam[2 * right + 1] - 4.0 * q
                u_bar[2 * k] = d * p_lap + (p - q) * 2.0 * x * y - (a + 1.0) * p + a * q
                u_bar[2 * k + 1] = d * q_lap + (p - q) * x * x

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        a, d = theta[0], theta[2] * N * N
        a_bar, b_bar, d_bar, c_bar = 0.0, 0.0, 0.0, 0.0
        for i in range(N):
            up, down = ((i - 1) % N) * N, ((i + 1) % N) * N
            for j in range(N):
                k, left, right = i * N + j, i * N + (j - 1) % N, i * N + (j + 1) % N
                x, y, p, q = u[2 * k], u[2 * k + 1], lam[2 * k], lam[2 * k + 1]
                p_lap = lam[2 * (up + j)] + lam[2 * (down + j)] + lam[2 * left] + lam[2 * right] - 4.0 * p
                q_lap = lam[2 * (up + j) + 1] + lam[2 * (down + j) + 1] + lam[2 * left + 1] + lam[2 * right + 1] - 4.0 * q
                u_bar[2 * k] = d * p_lap + (p - q) * 2.0 * x * y - (a + 1.0) * p + a * q
                u_bar[2 * k + 1] = d * q_lap + (p - q) * x * x
                a_bar += (q - p) * x
                b_bar += p
                d_bar += p_lap * x + q_lap * y  # the Laplacian is symmetric
                c_bar += p * inside[k]
        theta_bar[0] = a_bar
        theta_bar[1] = b_bar
        theta_bar[2] = N * N * d_bar
        theta_bar[3] = c_bar

    return f, vjp, vjp_u


def brusselator_2d_sparsity(points: int) -> Any:
    ring = sparse.diags_array([1.0, 1.0, 1.0], offsets=[-1, 0, 1], shape=(points, points)).tolil()
    ring[0, -1] = ring[-1, 0] = 1.0
    one = sparse.eye_array(points)
    near = sparse.kron(ring, one) + sparse.kron(one, ring)
    return sparse.csc_array(sparse.kron(near, np.eye(2)) + sparse.kron(sparse.eye_array(points**2), np.ones((2, 2))))
