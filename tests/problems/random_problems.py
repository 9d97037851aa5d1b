"""Random problems of eight kinds, all of one family, and their exact gradients by forward sensitivities.

du_i/dt = a_i + sum_j B_ij u_j + u_i sum_j C_ij u_j + g_i cos(w t) - v_i u_i / (1 + u_i^2): linear, polynomial, rational and driven
parts of three states, with 28 parameters. The sensitivities are states of a forward solve, whose step control sees them, so that
nothing of what is tested takes part in the reference.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numba import njit

from adjode import Dynamics, SolveError, solve, value_and_gradient
from adjode.losses import FinalState

N, M = 3, 28
A, B, C, DRIVE, RATE, SATURATED = slice(0, 3), slice(3, 12), slice(12, 21), slice(21, 24), 24, slice(25, 28)


def family_f(t, u, theta, du):
    c = np.cos(theta[24] * t)
    for i in range(3):
        linear, quadratic = theta[i] + theta[21 + i] * c, 0.0
        for j in range(3):
            linear += theta[3 + 3 * i + j] * u[j]
            quadratic += theta[12 + 3 * i + j] * u[j]
        du[i] = linear + u[i] * quadratic - theta[25 + i] * u[i] / (1.0 + u[i] * u[i])


def family_vjp(t, u, theta, lam, u_bar, theta_bar):
    c, s = np.cos(theta[24] * t), np.sin(theta[24] * t)
    theta_bar[24] = 0.0
    for j in range(3):
        u_bar[j] = 0.0
    for i in range(3):
        quadratic, below = 0.0, 1.0 + u[i] * u[i]
        for j in range(3):
            quadratic += theta[12 + 3 * i + j] * u[j]
            u_bar[j] += lam[i] * (theta[3 + 3 * i + j] + u[i] * theta[12 + 3 * i + j])
            theta_bar[3 + 3 * i + j] = lam[i] * u[j]
            theta_bar[12 + 3 * i + j] = lam[i] * u[i] * u[j]
        u_bar[i] += lam[i] * (quadratic - theta[25 + i] * (1.0 - u[i] * u[i]) / (below * below))
        theta_bar[i] = lam[i]
        theta_bar[21 + i] = lam[i] * c
        theta_bar[24] -= lam[i] * theta[21 + i] * t * s
        theta_bar[25 + i] = -lam[i] * u[i] / below


compiled_f, _compiled_vjp = njit(family_f), njit(family_vjp)


def sensitivities(t, y, theta, dy):
    """y holds u, then du/d(u0, theta) by rows; a row of its slope is a vjp of a unit vector times what is there, and that vjp."""
    n, m = 3, theta.size
    u, unit, u_bar, theta_bar = y[:n], np.zeros(n), np.empty(n), np.empty(m)
    compiled_f(t, u, theta, dy[:n])
    S, dS = y[n:].reshape(n, n + m), dy[n:].reshape(n, n + m)
    for i in range(n):
        unit[:] = 0.0
        unit[i] = 1.0
        _compiled_vjp(t, u, theta, unit, u_bar, theta_bar)
        for k in range(n + m):
            total = theta_bar[k - n] if k >= n else 0.0
            for j in range(n):
                total += u_bar[j] * S[j, k]
            dS[i, k] = total


def no_vjp(t, y, theta, lam, u_bar, theta_bar):
    u_bar[0] = np.nan


@functools.cache
def family() -> Dynamics:
    return Dynamics(family_f, family_vjp)


@functools.cache
def _family_of_sensitivities() -> Dynamics:
    return Dynamics(sensitivities, no_vjp)


@dataclass(frozen=True, eq=False)
class RandomProblem:
    """L = weights . u(T)."""

    seed: int
    kind: str
    u0: np.ndarray
    theta: np.ndarray
    t_span: tuple[float, float]
    weights: np.ndarray

    @property
    def u_size(self) -> np.ndarray:
        return np.where(self.u0 != 0.0, np.abs(self.u0), 1.0)

    def exact(self) -> np.ndarray:
        """dL/d(u0, theta)."""
        start = np.concatenate([self.u0, np.eye(N, N + M).ravel()])
        solution = solve(_family_of_sensitivities(), start, self.theta, self.t_span, method="DOP853", rtol=1e-11, atol=1e-14)
        return self.weights @ solution.u_T[N:].reshape(N, N + M)

    def error(self, u0_bar: np.ndarray, theta_bar: np.ndarray, exact: np.ndarray) -> float:
        """That of a gradient, relative to the largest logarithmic derivative."""
        size = np.concatenate([self.u_size, np.abs(self.theta)])
        difference = np.concatenate([u0_bar, theta_bar]) - exact
        return float(np.abs(difference * size).max() / np.abs(exact * size).max())


def random_problem(seed: int) -> RandomProblem:
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    theta, u0, T = np.zeros(M), rng.uniform(0.2, 2.0, N), float(10.0 ** rng.uniform(0.0, 1.3))
    u0, T = _MAKERS[kind](rng, theta, u0, T)
    if rng.uniform() < 0.4 and kind != "predators":
        theta[SATURATED] = rng.uniform(0.0, 0.5, N) if kind not in ("at rest", "empty") else 0.0
    backwards = rng.uniform() < 0.3
    if backwards:
        rate = theta[RATE]
        theta = -theta
        theta[RATE] = rate
    return RandomProblem(seed, kind, u0, theta, (0.0, -T if backwards else T), rng.normal(size=N))


def _stable(rng, margin):
    matrix = rng.normal(size=(N, N))
    return matrix - (np.linalg.eigvals(matrix).real.max() + margin) * np.eye(N)


def _driven(rng, theta, u0, T):
    theta[B] = _stable(rng, rng.uniform(0.05, 1.0)).ravel()
    theta[A], theta[DRIVE], theta[RATE] = rng.normal(size=N), rng.normal(size=N), rng.uniform(0.3, 3.0)
    return u0, T


def _at_rest(rng, theta, u0, T):
    rates = 10.0 ** rng.uniform(-1.0, 1.0, N)
    matrix = np.diag(-rates)
    matrix[1, 0], matrix[2, 1] = rates[:2] * rng.uniform(0.0, 1.0, 2)
    theta[B], theta[A] = matrix.ravel(), rng.uniform(0.5, 2.0, N)
    return np.linalg.solve(matrix, -theta[A]) * (1.0 + 10.0 ** rng.uniform(-12.0, -1.0)), T


def _growing(rng, theta, u0, T):
    matrix = 0.5 * rng.normal(size=(N, N))
    theta[B] = matrix.ravel()
    return u0, min(T, 15.0 / max(np.abs(np.linalg.eigvals(matrix).real).max(), 0.3))


def _predators(rng, theta, u0, T):
    linear = np.diag([rng.uniform(0.5, 2.0), -rng.uniform(0.5, 2.0), -rng.uniform(0.3, 1.0)])
    quadratic = np.zeros((N, N))
    quadratic[0, 1], quadratic[1, 0] = -rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5)
    quadratic[1, 2], quadratic[2, 1] = -rng.uniform(0.3, 1.0), rng.uniform(0.3, 1.0)
    theta[B], theta[C] = linear.ravel(), quadratic.ravel()
    return u0, min(T, 8.0)


def _competition(rng, theta, u0, T):
    theta[B] = np.diag(rng.uniform(0.5, 3.0, N)).ravel()
    theta[C] = -(rng.uniform(0.1, 1.0, (N, N)) + np.diag(rng.uniform(0.5, 1.0, N))).ravel()
    return u0 * 10.0 ** rng.uniform(-3.0, 0.0), T


def _following(rng, theta, u0, T):
    fast = 10.0 ** rng.uniform(1.0, 2.5)
    theta[B] = [-fast, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.5, -0.2]
    theta[DRIVE], theta[RATE] = [fast, 0.0, 0.0], rng.uniform(0.5, 2.0)
    return u0, min(T, 8.0)


def _empty(rng, theta, u0, T):
    theta[B] = _stable(rng, rng.uniform(-0.3, 1.0)).ravel()
    if rng.uniform() < 0.5:
        theta[A] = rng.uniform(0.0, 1.0, N)
    return np.zeros(N), T


def _oscillating(rng, theta, u0, T):
    w = rng.uniform(0.5, 4.0)
    theta[B] = [0.0, w, 0.0, -w, 0.0, 0.0, 0.0, rng.uniform(0.0, 1.0), -rng.uniform(0.0, 1.0)]
    theta[C.start + 8] = -rng.uniform(0.0, 0.5)
    return u0, T


_MAKERS = {
    "driven": _driven,
    "at rest": _at_rest,
    "growing": _growing,
    "predators": _predators,
    "competition": _competition,
    "following": _following,
    "empty": _empty,
    "oscillating": _oscillating,
}
KINDS = tuple(_MAKERS)


def outcome(seed: int, method: str, rtol: float, adjoint: str) -> str:
    """Whether a gradient is "right", within 100 units, "wrong" or "refused"; "unknown" where there is no reference."""
    problem = random_problem(seed)
    options = {"method": method, "adjoint": adjoint, "rtol": rtol, "atol": 1e-3 * rtol * problem.u_size}
    try:
        exact = problem.exact()
    except SolveError:
        return "unknown"
    if not np.abs(exact).max() < 1e30:
        return "unknown"
    try:
        _, bar = value_and_gradient(family(), FinalState(problem.weights), problem.t_span, **options)(problem.u0, problem.theta)
    except SolveError:
        return "refused"
    return "right" if problem.error(bar.u0, bar.theta, exact) < 100.0 * rtol else "wrong"


def in_turn(seeds: range, methods: tuple[str, ...]) -> dict[int, tuple[str, float]]:
    """By seed, one of these methods and of tolerances from 1e-4 to 1e-8 in turn."""
    turns = {seed: divmod(seed // len(KINDS), len(methods)) for seed in seeds}
    return {seed: (methods[at], (1e-4, 1e-6, 1e-8)[turn % 3]) for seed, (turn, at) in turns.items()}


def outcomes(seeds: range, methods: tuple[str, ...], adjoint: str) -> dict[int, str]:
    return {seed: outcome(seed, *turn, adjoint) for seed, turn in in_turn(seeds, methods).items()}
