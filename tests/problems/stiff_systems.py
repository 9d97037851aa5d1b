"""Small stiff systems; compiled once for all tests."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from adjode import Dynamics

REFERENCES = Path(__file__).parents[1] / "references" / "problems.json"


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
