"""The stiff reference problems with their vjps, as `Problem`s; tests and benchmarks share them.

benchmarks/stiff_cases.py has their numbers, benchmarks/chemistry.py the callbacks of the chemical ones,
tests/references/stiff.npz the gradients, which tests/references/make_stiff.py recomputes without adjode.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numba
import numpy as np

import adjode
from adjode.losses import FinalState, Loss, Series
from benchmarks import chemistry
from benchmarks.brusselator import (
    brusselator_1d_f,
    brusselator_1d_sparsity,
    brusselator_1d_vjp,
    brusselator_1d_vjp_u,
    brusselator_2d_callbacks,
    brusselator_2d_sparsity,
)
from benchmarks.cases import stiff_references
from benchmarks.problems import Problem
from benchmarks.stiff_cases import StiffCase, brusselator_1d, brusselator_2d, stiff_case, van_der_pol

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
