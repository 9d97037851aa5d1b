"""Small problems M du/dt = f; compiled once for all tests."""

from __future__ import annotations

import functools

import numba
import numpy as np

from adjode import Dynamics
from tests.problems.stiff_systems import robertson_f, robertson_vjp


# --- Robertson's problem with the conservation of mass as an algebraic equation ---------------------------------------------
def conserved_f(t, u, theta, du):
    slow, fast, back = theta[0] * u[0], theta[1] * u[1] * u[1], theta[2] * u[1] * u[2]
    du[0] = -slow + back
    du[1] = slow - back - fast
    du[2] = u[0] + u[1] + u[2] - 1.0


def conserved_vjp(t, u, theta, lam, u_bar, theta_bar):
    a, b = lam[1] - lam[0], -lam[1]
    u_bar[0] = theta[0] * a + lam[2]
    u_bar[1] = -theta[2] * u[2] * a + 2.0 * theta[1] * u[1] * b + lam[2]
    u_bar[2] = -theta[2] * u[1] * a + lam[2]
    theta_bar[0] = u[0] * a
    theta_bar[1] = u[1] * u[1] * b
    theta_bar[2] = -u[1] * u[2] * a


@functools.cache
def conserved(fused: bool = False) -> Dynamics:
    return Dynamics(conserved_f, conserved_vjp, mass=[1.0, 1.0, 0.0], name="Robertson, conserved", fused=fused)


@functools.cache
def robertson_with(diagonal: tuple[float, ...]) -> Dynamics:
    return Dynamics(robertson_f, robertson_vjp, mass=np.diag(diagonal))


# --- linear, index 1, a constraint that varies in time: x' = z - theta_0 x, 0 = theta_1 x + theta_2 t - z ----------------------
def linear_f(t, u, theta, du):
    du[0] = u[1] - theta[0] * u[0]
    du[1] = theta[1] * u[0] + theta[2] * t - u[1]


def linear_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0] + theta[1] * lam[1]
    u_bar[1] = lam[0] - lam[1]
    theta_bar[0] = -u[0] * lam[0]
    theta_bar[1] = u[0] * lam[1]
    theta_bar[2] = t * lam[1]


LINEAR_THETA = np.array([2.0, 0.5, 0.7])
LINEAR_U0 = np.array([1.5, 0.75])


def linear_solution(x0, theta, t):
    """From x(0) = x0: (x, z)."""
    rate, slope = theta[1] - theta[0], theta[2]
    x = (x0 + slope / rate**2) * np.exp(rate * t) - slope * (t / rate + 1.0 / rate**2)
    return np.array([x, theta[1] * x + slope * t])


@functools.cache
def linear() -> Dynamics:
    return Dynamics(linear_f, linear_vjp, mass=[1.0, 0.0], name="linear")


# --- the same with other unknowns u = Q^-1 (x, z) and mixed equations: no row and no column of M is zero ------------------------
MIX, UNMIX = np.array([[2.0, 1.0], [-1.0, 1.5]]), np.array([[1.0, 0.5], [-0.3, 1.2]])


def mixed_f(t, u, theta, du):
    x, z = UNMIX[0, 0] * u[0] + UNMIX[0, 1] * u[1], UNMIX[1, 0] * u[0] + UNMIX[1, 1] * u[1]
    dx, rest = z - theta[0] * x, theta[1] * x + theta[2] * t - z
    for i in range(2):
        du[i] = MIX[i, 0] * dx + MIX[i, 1] * rest


def mixed_vjp(t, u, theta, lam, u_bar, theta_bar):
    x = UNMIX[0, 0] * u[0] + UNMIX[0, 1] * u[1]
    a, b = MIX[0, 0] * lam[0] + MIX[1, 0] * lam[1], MIX[0, 1] * lam[0] + MIX[1, 1] * lam[1]
    x_bar, z_bar = -theta[0] * a + theta[1] * b, a - b
    for i in range(2):
        u_bar[i] = UNMIX[0, i] * x_bar + UNMIX[1, i] * z_bar
    theta_bar[0], theta_bar[1], theta_bar[2] = -x * a, x * b, t * b


@functools.cache
def mixed() -> Dynamics:
    return Dynamics(mixed_f, mixed_vjp, mass=np.outer(MIX[:, 0], UNMIX[0]), name="mixed")


# --- nonlinear, index 1: x' = -z + theta_1 cos t, 0 = x - theta_0 z - z^3 -------------------------------------------------------
def cubic_f(t, u, theta, du):
    du[0] = -u[1] + theta[1] * np.cos(t)
    du[1] = u[0] - theta[0] * u[1] - u[1] ** 3


def cubic_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = lam[1]
    u_bar[1] = -lam[0] - (theta[0] + 3.0 * u[1] ** 2) * lam[1]
    theta_bar[0] = -u[1] * lam[1]
    theta_bar[1] = np.cos(t) * lam[0]


CUBIC_U0, CUBIC_THETA = np.array([2.0, 1.0]), np.array([1.0, 0.6])  # 2 = 1 + 1


@functools.cache
def cubic() -> Dynamics:
    return Dynamics(cubic_f, cubic_vjp, mass=[1.0, 0.0], name="cubic")


# --- four states with a full matrix, and the same multiplied by its inverse ------------------------------------------------------
FULL = np.array([[4.0, 1.0, 0.0, 0.5], [0.0, 3.0, -1.0, 0.0], [0.3, 0.0, 2.0, 0.0], [0.0, -0.4, 0.0, 5.0]])
INVERSE = np.linalg.inv(FULL)


def chain_f(t, u, theta, du):
    for i in range(4):
        left = u[i - 1] if i > 0 else np.sin(t)
        du[i] = theta[i] * (left - u[i]) - 0.1 * u[i] ** 3


def chain_vjp(t, u, theta, lam, u_bar, theta_bar):
    for i in range(4):
        left = u[i - 1] if i > 0 else np.sin(t)
        u_bar[i] = -(theta[i] + 0.3 * u[i] ** 2) * lam[i] + (theta[i + 1] * lam[i + 1] if i < 3 else 0.0)
        theta_bar[i] = (left - u[i]) * lam[i]


def solved_f(t, u, theta):
    du = np.zeros(4)
    for i in range(4):
        left = u[i - 1] if i > 0 else np.sin(t)
        du[i] = theta[i] * (left - u[i]) - 0.1 * u[i] ** 3
    return INVERSE @ du


def solved_vjp(t, u, theta, lam):
    u_bar, theta_bar, mu = np.zeros(4), np.zeros(4), INVERSE.T @ lam
    for i in range(4):
        left = u[i - 1] if i > 0 else np.sin(t)
        u_bar[i] = -(theta[i] + 0.3 * u[i] ** 2) * mu[i] + (theta[i + 1] * mu[i + 1] if i < 3 else 0.0)
        theta_bar[i] = (left - u[i]) * mu[i]
    return u_bar, theta_bar


CHAIN_U0, CHAIN_THETA = np.array([1.0, -0.5, 0.3, 0.8]), np.array([0.5, 30.0, 2.0, 1e3])


@functools.cache
def chain(with_mass: bool) -> Dynamics:
    return Dynamics(chain_f, chain_vjp, mass=FULL) if with_mass else Dynamics(solved_f, solved_vjp)


# --- heat in a rod by linear finite elements, with a temperature prescribed at one end and none lost at the other -----------------
def rod_f(t, u, theta, du):
    n = u.size
    du[0] = np.sin(theta[1] * t) - u[0]
    for i in range(1, n):
        right = u[i + 1] if i < n - 1 else u[i - 1]
        du[i] = theta[0] * n * n * (u[i - 1] - 2.0 * u[i] + right)


def rod_vjp(t, u, theta, lam, u_bar, theta_bar):
    n = u.size
    for i in range(n):
        u_bar[i] = 0.0
    u_bar[0] = -lam[0]
    theta_bar[0], theta_bar[1] = 0.0, t * np.cos(theta[1] * t) * lam[0]
    for i in range(1, n):
        j, rate = i + 1 if i < n - 1 else i - 1, theta[0] * n * n * lam[i]
        u_bar[i - 1] += rate
        u_bar[i] -= 2.0 * rate
        u_bar[j] += rate
        theta_bar[0] += n * n * (u[i - 1] - 2.0 * u[i] + u[j]) * lam[i]


def rod_mass(n):
    M = (4.0 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)) / 6.0
    M[0] = 0.0
    M[-1, -2] *= 2.0
    return M


@functools.cache
def rod(n: int, sparse: bool) -> Dynamics:
    from scipy.sparse import csr_array

    given = csr_array(rod_mass(n)) if sparse else rod_mass(n)
    return Dynamics(rod_f, rod_vjp, mass=given, jac_sparsity=np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1))


# --- the transistor amplifier: M, of capacitances, is singular without a row of zeros. theta scales the amplitude of the input
# Source: F. Mazzia, C. Magherini, Test Set for Initial Value Problem Solvers, release 2.4 (2008), II-2, with its solution at 0.2.
AMPLIFIER_U0 = np.array([0.0, 3.0, 3.0, 6.0, 3.0, 3.0, 6.0, 0.0])
AMPLIFIER_U_T = np.array(
    [
        -0.5562145012262709e-2,
        0.3006522471903042e1,
        0.2849958788608128e1,
        0.2926422536206241e1,
        0.2704617865010554e1,
        0.2761837778393145e1,
        0.4770927631616772e1,
        0.1236995868091548e1,
    ]
)


def amplifier_f(t, u, theta, du):
    a, b = 1e-6 * (np.exp((u[1] - u[2]) / 0.026) - 1.0), 1e-6 * (np.exp((u[4] - u[5]) / 0.026) - 1.0)
    du[0] = (theta[0] * 0.1 * np.sin(200.0 * np.pi * t) - u[0]) / 1000.0
    du[1] = (6.0 - 2.0 * u[1]) / 9000.0 - 0.01 * a
    du[2] = a - u[2] / 9000.0
    du[3] = (6.0 - u[3]) / 9000.0 - 0.99 * a
    du[4] = (6.0 - 2.0 * u[4]) / 9000.0 - 0.01 * b
    du[5] = b - u[5] / 9000.0
    du[6] = (6.0 - u[6]) / 9000.0 - 0.99 * b
    du[7] = -u[7] / 9000.0


def amplifier_vjp(t, u, theta, lam, u_bar, theta_bar):
    a = 1e-6 * np.exp((u[1] - u[2]) / 0.026) / 0.026 * (-0.01 * lam[1] + lam[2] - 0.99 * lam[3])
    b = 1e-6 * np.exp((u[4] - u[5]) / 0.026) / 0.026 * (-0.01 * lam[4] + lam[5] - 0.99 * lam[6])
    u_bar[0] = -lam[0] / 1000.0
    u_bar[1], u_bar[2], u_bar[3] = -2.0 * lam[1] / 9000.0 + a, -lam[2] / 9000.0 - a, -lam[3] / 9000.0
    u_bar[4], u_bar[5], u_bar[6] = -2.0 * lam[4] / 9000.0 + b, -lam[5] / 9000.0 - b, -lam[6] / 9000.0
    u_bar[7] = -lam[7] / 9000.0
    theta_bar[0] = 0.1 * np.sin(200.0 * np.pi * t) * lam[0] / 1000.0


@functools.cache
def amplifier() -> Dynamics:
    M = np.zeros((8, 8))
    for (i, j), c in (((0, 1), 1e-6), ((3, 4), 3e-6), ((6, 7), 5e-6)):
        M[i, i] = M[j, j] = c
        M[i, j] = M[j, i] = -c
    M[2, 2], M[5, 5] = 2e-6, 4e-6
    return Dynamics(amplifier_f, amplifier_vjp, mass=M, name="transistor amplifier")


# --- any matrices: M u' = A u + b cos t - b tanh(u) / 10, theta = (A, b)
def dense_f(t, u, theta, du):
    n = u.size
    for i in range(n):
        b = theta[n * n + i]
        du[i] = b * np.cos(t) - 0.1 * b * np.tanh(u[i])
        for j in range(n):
            du[i] += theta[n * i + j] * u[j]


def dense_vjp(t, u, theta, lam, u_bar, theta_bar):
    n = u.size
    for j in range(n):
        u_bar[j] = -0.1 * theta[n * n + j] * (1.0 - np.tanh(u[j]) ** 2) * lam[j]
    for i in range(n):
        theta_bar[n * n + i] = (np.cos(t) - 0.1 * np.tanh(u[i])) * lam[i]
        for j in range(n):
            u_bar[j] += theta[n * i + j] * lam[i]
            theta_bar[n * i + j] = u[j] * lam[i]


@functools.cache
def dense_callbacks():
    return numba.njit(dense_f), numba.njit(dense_vjp)


def random_mass(rng, n: int, kind: str):
    """Of a random rank from 1 to n - 1: a diagonal over six decades, a full matrix, or a block whose rows are shuffled."""
    r = rng.integers(1, n)
    if kind == "diagonal":
        return np.diag(np.append(np.ones(r), np.zeros(n - r)) * 10.0 ** rng.uniform(-3, 3, n))
    if kind == "full":
        return rng.normal(size=(n, r)) @ rng.normal(size=(r, n))
    M = np.zeros((n, n))
    M[:r, :r] = rng.normal(size=(r, r))
    return M[rng.permutation(n)]
