"""Small stiff systems; compiled once for all tests."""

from __future__ import annotations

import functools
import json

import numpy as np
from scipy.integrate import solve_ivp

from adjode import Dynamics, solve
from tests import ROOT
from tests.problems.numerics import jacobian, slope


# --- Robertson (1966): theta = (k1, k2, k3) ------------------------------------------------------------------------------
def robertson_f(t, u, theta, du):
    slow, fast, back = theta[0] * u[0], theta[1] * u[1] * u[1], theta[2] * u[1] * u[2]
    du[0] = -slow + back
    du[1] = slow - back - fast
    du[2] = fast


def robertson_vjp(t, u, theta, lam, u_bar, theta_bar):
    a, b = lam[1] - lam[0], lam[2] - lam[1]
    u_bar[0] = theta[0] * a
    u_bar[1] = -theta[2] * u[2] * a + 2.0 * theta[1] * u[1] * b
    u_bar[2] = -theta[2] * u[1] * a
    theta_bar[0] = u[0] * a
    theta_bar[1] = u[1] * u[1] * b
    theta_bar[2] = -u[1] * u[2] * a


ROBERTSON_U0, ROBERTSON_THETA = np.array([1.0, 0.0, 0.0]), np.array([0.04, 3e7, 1e4])


@functools.cache
def robertson(fused: bool = False) -> Dynamics:
    return Dynamics(robertson_f, robertson_vjp, name="Robertson", fused=fused)


def rober_weighted(k, t, u, u_bar):
    """A series that weighs the components by their size; the loss of the stored reference."""
    u_bar[0] = 0.0
    u_bar[1] = 1e4
    u_bar[2] = 1.0
    return 1e4 * u[1] + u[2]


@functools.cache
def rober_reference() -> dict[str, np.ndarray]:
    text = (ROOT / "tests" / "references" / "problems.json").read_text()
    return {key: np.array(value) for key, value in json.loads(text)["rober"]["reference"].items()}


# --- van der Pol: theta = (mu,) --------------------------------------------------------------------------------------------
def van_der_pol_f(t, u, theta, du):
    du[0] = u[1]
    du[1] = theta[0] * ((1.0 - u[0] * u[0]) * u[1]) - u[0]


def van_der_pol_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = lam[1] * (-2.0 * theta[0] * u[0] * u[1] - 1.0)
    u_bar[1] = lam[0] + lam[1] * theta[0] * (1.0 - u[0] * u[0])
    theta_bar[0] = lam[1] * (1.0 - u[0] * u[0]) * u[1]


@functools.cache
def van_der_pol() -> Dynamics:
    return Dynamics(van_der_pol_f, van_der_pol_vjp, name="van der Pol")


@functools.cache
def pushed_van_der_pol(u0: tuple[float, float], mu: float, T: float) -> np.ndarray:
    """du(T) for unit perturbations of u0 and mu, (2, 3): the variational equation, along by SciPy's Radau."""

    def rhs(t, y):
        u, D = y[:2], y[2:].reshape(2, 3)
        forced = jacobian(van_der_pol_vjp, t, u, np.array([mu])).real @ D
        forced[1, 2] += (1.0 - u[0] ** 2) * u[1]
        return np.concatenate([slope(van_der_pol_f, t, u, np.array([mu])).real, forced.ravel()])

    start = np.concatenate([u0, np.eye(2, 3).ravel()])
    return solve_ivp(rhs, (0.0, T), start, method="Radau", rtol=1e-9, atol=1e-12).y[2:, -1].reshape(2, 3)


# its cycle with mu = 50, by method="auto": explicit, stiff, and to and fro twice more
CYCLE_U0, CYCLE_THETA, CYCLE = np.array([2.0, -0.6]), np.array([50.0]), (0.0, 150.0)


@functools.cache
def cycle(rtol: float = 1e-6, atol: float = 1e-9):
    return solve(van_der_pol(), CYCLE_U0, CYCLE_THETA, CYCLE, method="auto", rtol=rtol, atol=atol)


# --- linear, with eigenvalues theta: u = S v, v_i' = -theta_i v_i, S a reflection --------------------------------------------


def reflected_f(t, u, theta, du):
    total, back = 0.0, 0.0
    for i in range(u.size):
        total += u[i]
    for i in range(u.size):
        du[i] = -theta[i] * (u[i] - 2.0 * total / u.size)
        back += du[i]
    for i in range(u.size):
        du[i] -= 2.0 * back / u.size


def reflected_vjp(t, u, theta, lam, u_bar, theta_bar):
    n = u.size
    total, lam_total, back = 0.0, 0.0, 0.0
    for i in range(n):
        total += u[i]
        lam_total += lam[i]
    for i in range(n):
        reflected = lam[i] - 2.0 * lam_total / n
        theta_bar[i] = -reflected * (u[i] - 2.0 * total / n)
        u_bar[i] = -theta[i] * reflected
        back += u_bar[i]
    for i in range(n):
        u_bar[i] -= 2.0 * back / n


REFLECTED_U0, REFLECTED_RATES = np.array([1.0, 2.0, -1.0, 0.5]), np.array([0.3, 1e3, 1e6, 1e8])


def reflected_solution(u0, theta, t):
    v = u0 - 2.0 * u0.sum() / u0.size
    v = v * np.exp(-theta * t)
    return v - 2.0 * v.sum() / v.size


@functools.cache
def reflected() -> Dynamics:
    return Dynamics(reflected_f, reflected_vjp, name="reflected")


# --- a fast state fed by a slow one: u_0' = -theta_0 u_0, u_1' = theta_2 u_0 - theta_1 u_1 ------------------------------------


def fed_f(t, u, theta, du):
    du[0] = -theta[0] * u[0]
    du[1] = theta[2] * u[0] - theta[1] * u[1]


def fed_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0] + theta[2] * lam[1]
    u_bar[1] = -theta[1] * lam[1]
    theta_bar[0] = -lam[0] * u[0]
    theta_bar[1] = -lam[1] * u[1]
    theta_bar[2] = lam[1] * u[0]


def fed_solution(u0, theta, t):
    slow, fast = np.exp(-theta[0] * t), np.exp(-theta[1] * t)
    return np.array([u0[0] * slow, u0[1] * fast + u0[0] * theta[2] * (slow - fast) / (theta[1] - theta[0])])


@functools.cache
def fed() -> Dynamics:
    return Dynamics(fed_f, fed_vjp, name="fed")


# --- Prothero, Robinson (1974): u' = -theta_0 (u - phi(t)) + phi'(t), phi = sin(theta_1 t + 1) ---------------------------------
def prothero_f(t, u, theta, du):
    du[0] = -theta[0] * (u[0] - np.sin(theta[1] * t + 1.0)) + theta[1] * np.cos(theta[1] * t + 1.0)


def prothero_vjp(t, u, theta, lam, u_bar, theta_bar):
    s, c = np.sin(theta[1] * t + 1.0), np.cos(theta[1] * t + 1.0)
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0] = -(u[0] - s) * lam[0]
    theta_bar[1] = (theta[0] * t * c + c - theta[1] * t * s) * lam[0]


@functools.cache
def prothero() -> Dynamics:
    return Dynamics(prothero_f, prothero_vjp, name="Prothero and Robinson")
