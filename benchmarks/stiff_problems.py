"""The stiff reference problems with their vjps, as `Problem`s; tests and benchmarks share them.

benchmarks/stiff_cases.py has their numbers, benchmarks/chemistry.py the callbacks of the chemical ones,
tests/references/stiff.npz the gradients, which tests/references/make_stiff.py recomputes without adjode.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from scipy import sparse

import adjode
from adjode.losses import FinalState, Loss, Series
from benchmarks import chemistry
from benchmarks.cases import stiff_references
from benchmarks.problems import Problem
from benchmarks.stiff_cases import StiffCase, brusselator_1d, brusselator_2d, disc, stiff_case, van_der_pol

# --- OREGO and van der Pol's oscillator -------------------------------------------------------------------------------


def orego_f(t, u, theta, du):
    du[0] = theta[0] * (u[1] + u[0] * (1.0 - theta[1] * u[0] - u[1]))
    du[1] = (u[2] - (1.0 + u[0]) * u[1]) / theta[0]
    du[2] = theta[2] * (u[0] - u[2])


def orego_vjp(t, u, theta, lam, u_bar, theta_bar):
    s, q, w = theta[0], theta[1], theta[2]
    u_bar[0] = lam[0] * s * (1.0 - 2.0 * q * u[0] - u[1]) - lam[1] * u[1] / s + lam[2] * w
    u_bar[1] = lam[0] * s * (1.0 - u[0]) - lam[1] * (1.0 + u[0]) / s
    u_bar[2] = lam[1] / s - lam[2] * w
    theta_bar[0] = lam[0] * (u[1] + u[0] * (1.0 - q * u[0] - u[1])) - lam[1] * (u[2] - (1.0 + u[0]) * u[1]) / (s * s)
    theta_bar[1] = -lam[0] * s * u[0] * u[0]
    theta_bar[2] = lam[2] * (u[0] - u[2])


def van_der_pol_f(t, u, theta, du):
    du[0] = u[1]
    du[1] = theta[0] * (1.0 - u[0] * u[0]) * u[1] - theta[1] * u[0]


def van_der_pol_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -lam[1] * (2.0 * theta[0] * u[0] * u[1] + theta[1])
    u_bar[1] = lam[0] + lam[1] * theta[0] * (1.0 - u[0] * u[0])
    theta_bar[0] = lam[1] * (1.0 - u[0] * u[0]) * u[1]
    theta_bar[1] = -lam[1] * u[0]


# --- a linear system in closed form: u' = -Q diag(theta) Q^T u + Q 1 cos(t), Q a reflection ---------------------------
# In v = Q^T u: v_i' = -theta_i v_i + cos(t). Q = I - 2 w w^T / (w . w) with w = (1, 2, ..., n) is its own transpose.


@numba.njit(error_model="numpy", nogil=True)
def _reflect(x, out):
    n, along, squares = x.size, 0.0, 0.0
    for i in range(n):
        along += (i + 1.0) * x[i]
        squares += (i + 1.0) * (i + 1.0)
    for i in range(n):
        out[i] = x[i] - 2.0 * (i + 1.0) * along / squares


def linear_f(t, u, theta, du):
    v = np.empty(u.size)
    _reflect(u, v)
    for i in range(u.size):
        v[i] = math.cos(t) - theta[i] * v[i]
    _reflect(v, du)


def linear_vjp(t, u, theta, lam, u_bar, theta_bar):
    v, w = np.empty(u.size), np.empty(u.size)
    _reflect(u, v)
    _reflect(lam, w)
    for i in range(u.size):
        theta_bar[i] = -w[i] * v[i]
        w[i] = -theta[i] * w[i]
    _reflect(w, u_bar)


def linear_final(u0, theta, T):
    """The exact u(T), for complex numbers too."""
    w = np.arange(1.0, u0.size + 1.0)
    Q = np.eye(u0.size) - 2.0 * np.outer(w, w) / (w @ w)
    forced = theta / (theta**2 + 1.0)
    v = np.exp(-theta * T) * (Q @ u0 - forced) + (theta * np.cos(T) + np.sin(T)) / (theta**2 + 1.0)
    return Q @ v


# --- the Brusselator on a line and on a periodic grid ------------------------------------------------------------------


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


# --- the problems ------------------------------------------------------------------------------------------------------


def loss_of(case: StiffCase) -> Loss:
    """The sum of weights . u over the observation times."""
    if case.times.size == 1:
        return FinalState(case.weights)
    weights = case.weights

    @numba.njit
    def weighted(k, t, u, u_bar):
        total = 0.0
        for i in range(u.size):
            u_bar[i] = weights[i]
            total += weights[i] * u[i]
        return total

    return Series(case.times, weighted)


@functools.cache
def chemical_dynamics(name: str, fused: bool) -> adjode.Dynamics:
    f, vjp, vjp_u = (getattr(chemistry, f"{name}_{part}") for part in ("f", "vjp", "vjp_u"))
    return adjode.Dynamics(f, vjp, vjp_u=vjp_u, name=name, fused=fused)


def _problem(case: StiffCase, dynamics: adjode.Dynamics) -> Problem:
    return Problem(case.name, dynamics, case.u0, case.theta, case.t_span, loss_of(case), stiff_references().get(case.name, {}))


@functools.cache
def rober(fused: bool = False) -> Problem:
    """Robertson's three reactions, eleven observations over ten decades of time."""
    return _problem(stiff_case("rober"), chemical_dynamics("rober", fused))


@functools.cache
def hires(fused: bool = False) -> Problem:
    return _problem(stiff_case("hires"), chemical_dynamics("hires", fused))


@functools.cache
def pollu(fused: bool = False) -> Problem:
    return _problem(stiff_case("pollu"), chemical_dynamics("pollu", fused))


@functools.cache
def orego(fused: bool = False) -> Problem:
    return _problem(stiff_case("orego"), adjode.Dynamics(orego_f, orego_vjp, name="OREGO", fused=fused))


@functools.cache
def van_der_pol_dynamics(fused: bool = False) -> adjode.Dynamics:
    return adjode.Dynamics(van_der_pol_f, van_der_pol_vjp, name="van der Pol", fused=fused)


@functools.cache
def oscillator(mu: float, fused: bool = False) -> Problem:
    """Van der Pol's; references exist for mu = 1, 1e3, 1e6."""
    return _problem(van_der_pol(mu), van_der_pol_dynamics(fused))


@functools.cache
def linear(fused: bool = False, T: float = 2.0) -> Problem:
    """Five rates from 1 to 1e8, a forcing, a closed form."""
    theta = np.array([1.0, 1e2, 1e4, 1e6, 1e8])
    u0, weights = np.linspace(1.0, 2.0, 5), np.cos(np.arange(5.0))
    bars, given = [], (u0.astype(complex), theta.astype(complex))
    for block in given:
        bar = np.zeros(5)
        for i in range(5):
            kept = block[i]
            block[i] = kept + 1e-30j
            bar[i] = (weights @ linear_final(*given, T)).imag / 1e-30
            block[i] = kept
        bars.append(bar)
    final = linear_final(u0, theta, T)
    reference = {"loss": np.array([weights @ final]), "u0": bars[0], "theta": bars[1], "final": final}
    dynamics = adjode.Dynamics(linear_f, linear_vjp, name="linear", fused=fused)
    return Problem("linear", dynamics, u0, theta, (0.0, T), FinalState(weights), reference)


@functools.cache
def brusselator_line(points: int = 50) -> Problem:
    """2 N states in a band of five; the reference is that of N = 50."""
    dynamics = adjode.Dynamics(
        brusselator_1d_f,
        brusselator_1d_vjp,
        vjp_u=brusselator_1d_vjp_u,
        jac_sparsity=brusselator_1d_sparsity(points),
        name="Brusselator on a line",
    )
    case = brusselator_1d(points)
    reference = stiff_references().get(case.name, {}) if points == 50 else {}
    return Problem(case.name, dynamics, case.u0, case.theta, case.t_span, loss_of(case), reference)


@functools.cache
def brusselator_grid(points: int = 32) -> Problem:
    """2 N^2 states, sparse; the reference is that of N = 32."""
    f, vjp, vjp_u = brusselator_2d_callbacks(points)
    sparsity = brusselator_2d_sparsity(points)
    dynamics = adjode.Dynamics(f, vjp, vjp_u=vjp_u, jac_sparsity=sparsity, name="Brusselator on a grid")
    case = brusselator_2d(points)
    reference = stiff_references().get(case.name, {}) if points == 32 else {}
    return Problem(case.name, dynamics, case.u0, case.theta, case.t_span, loss_of(case), reference)


STIFF_PROBLEMS: dict[str, Callable[..., Problem]] = {
    "rober": rober,
    "hires": hires,
    "pollu": pollu,
    "orego": orego,
    "van_der_pol_1e+00": functools.partial(oscillator, 1.0),
    "van_der_pol_1e+03": functools.partial(oscillator, 1e3),
    "van_der_pol_1e+06": functools.partial(oscillator, 1e6),
    "linear": linear,
    "brusselator_1d": brusselator_line,
    "brusselator_2d": brusselator_grid,
}
