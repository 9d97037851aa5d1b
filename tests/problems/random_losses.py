"""The random problems of random_problems.py with other losses: observations at random times, or a running cost; and times.

References are forward sensitivities again, of the running cost too, which is a state there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numba import njit

from adjode import Dynamics, SolveError, solve
from tests.problems.random_problems import (
    M,
    N,
    RandomProblem,
    compiled_f,
    family,
    in_turn,
    no_vjp,
    random_problem,
    sensitivities,
)

COUNT = N + N * (N + M)  # of states and their sensitivities
_LARGEST = 1e30


def cost(t, u, theta):
    return 0.7 * u[0] - 0.4 * u[1] * u[2] + 0.9 * u[2] * np.sin(theta[24] * t) + theta[0] * u[1]


def cost_vjp(t, u, theta, u_bar, theta_bar):
    s = np.sin(theta[24] * t)
    u_bar[0], u_bar[1], u_bar[2] = 0.7, -0.4 * u[2] + theta[0], -0.4 * u[1] + 0.9 * s
    theta_bar[:] = 0.0
    theta_bar[0], theta_bar[24] = u[1], 0.9 * u[2] * t * np.cos(theta[24] * t)


_compiled_sensitivities, _compiled_cost, _compiled_cost_vjp = njit(sensitivities), njit(cost), njit(cost_vjp)


def _with_cost(t, y, theta, dy):
    """y holds u and du/d(u0, theta), then the integral of the cost and its derivatives."""
    n, m = 3, theta.size
    u_bar, theta_bar, count = np.empty(n), np.empty(m), n + n * (n + m)
    _compiled_sensitivities(t, y[:count], theta, dy[:count])
    dy[count] = _compiled_cost(t, y[:n], theta)
    _compiled_cost_vjp(t, y[:n], theta, u_bar, theta_bar)
    S = y[n:count].reshape(n, n + m)
    for k in range(n + m):
        total = theta_bar[k - n] if k >= n else 0.0
        for j in range(n):
            total += u_bar[j] * S[j, k]
        dy[count + 1 + k] = total


@functools.cache
def _family_with_cost() -> Dynamics:
    return Dynamics(_with_cost, no_vjp)


@dataclass(frozen=True, eq=False)
class RandomLoss:
    """weights . u(T), or of it and of up to eleven states at random times, at the ends among them, or an integral instead."""

    problem: RandomProblem
    times: np.ndarray
    u_bars: np.ndarray
    u_T_bar: np.ndarray | None
    has_cost: bool

    def pullback(self, method: str, rtol: float, adjoint: str):
        one, options = self.problem, {"running_cost": (cost, cost_vjp)} if self.has_cost else {}
        tolerances = {"rtol": rtol, "atol": 1e-3 * rtol * one.u_size}
        solution = solve(family(), one.u0, one.theta, one.t_span, method=method, **tolerances)
        return solution.pullback(self.u_T_bar, observations=(self.times, self.u_bars), adjoint=adjoint, **options)

    def exact(self) -> tuple[np.ndarray, np.ndarray]:
        """dL/d(u0, theta), and by t0 and T; steps end at the observations, for dense output is less accurate."""
        one, (t0, T) = self.problem, self.problem.t_span
        start = np.concatenate([one.u0, np.eye(N, N + M).ravel(), np.zeros(1 + N + M)])
        inner = [t for t in self.times if t not in (t0, T)]
        options = {"method": "Vern9", "rtol": 1e-12, "atol": 1e-15, "stops": inner, "t_eval": self.times}
        solution = solve(_family_with_cost(), start, one.theta, one.t_span, **options)
        states, u_T_bar = solution.u_eval, np.zeros(N) if self.u_T_bar is None else self.u_T_bar
        gradient = u_T_bar @ _sensitivities_in(solution.u_T)
        for state, u_bar in zip(states, self.u_bars, strict=True):
            gradient = gradient + u_bar @ _sensitivities_in(state)
        seen_at_t0 = self.u_bars[self.times == t0].sum(axis=0)
        by_T = u_T_bar @ _slope(T, solution.u_T[:N], one.theta)
        by_t0 = -(gradient[:N] - seen_at_t0) @ _slope(t0, one.u0, one.theta)
        if self.has_cost:
            by_T += cost(T, solution.u_T[:N], one.theta)
            by_t0 -= solution.u_T[COUNT + 1 : COUNT + 1 + N] @ _slope(t0, one.u0, one.theta) + cost(t0, one.u0, one.theta)
            gradient = gradient + solution.u_T[COUNT + 1 :]
        return gradient, np.array([by_t0, by_T])


def _sensitivities_in(state: np.ndarray) -> np.ndarray:
    return state[N:COUNT].reshape(N, N + M)


def _slope(t: float, u: np.ndarray, theta: np.ndarray) -> np.ndarray:
    du = np.empty(N)
    compiled_f(t, u, theta, du)
    return du


def random_loss(seed: int, has_cost: bool) -> RandomLoss:
    problem, rng = random_problem(seed), np.random.default_rng([seed, 1])
    if has_cost:
        return RandomLoss(problem, np.empty(0), np.empty((0, N)), None, True)
    parts = np.sort(rng.uniform(size=int(rng.integers(1, 12))))
    if rng.uniform() < 0.3:
        parts[0] = 0.0
    if rng.uniform() < 0.3:
        parts[-1] = 1.0
    return RandomLoss(problem, problem.t_span[1] * parts, rng.normal(size=(parts.size, N)), problem.weights, False)


def outcome(seed: int, method: str, rtol: float, adjoint: str, has_cost: bool) -> tuple[str, bool]:
    """As in random_problems.py; and whether the cotangents of t0 and T are within 100 units, their sizes that of the span."""
    loss = random_loss(seed, has_cost)
    try:
        exact, of_times = loss.exact()
    except SolveError:
        return "unknown", True
    if not np.abs(exact).max() < _LARGEST:
        return "unknown", True
    try:
        bar = loss.pullback(method, rtol, adjoint)
    except SolveError:
        return "refused", True
    problem, span = loss.problem, abs(loss.problem.t_span[1])
    size = np.concatenate([problem.u_size, np.abs(problem.theta)])
    largest = max(np.abs(exact * size).max(), np.abs(of_times).max() * span)
    right = problem.error(bar.u0, bar.theta, exact) < 100.0 * rtol
    off = np.abs(np.array([bar.t0, bar.T]) - of_times).max() * span
    return "right" if right else "wrong", bool(off < 100.0 * rtol * largest)


def outcomes(seeds: range, methods: tuple[str, ...], adjoint: str, has_cost: bool) -> dict[int, tuple[str, bool]]:
    return {seed: outcome(seed, *turn, adjoint, has_cost) for seed, turn in in_turn(seeds, methods).items()}
