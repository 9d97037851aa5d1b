"""Every reference problem once, with its stored high-precision gradient; tests and benchmarks share them.

`tests/references/problems.json` holds the references and `tests/references/make.py` recomputes them without adjode.
Problems are built on first use, because a `Dynamics` compiles its callbacks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

import adjode
from adjode.losses import FinalState, LeastSquares, Loss, Series
from benchmarks.cases import HIDDEN, gradient_error, references, series_times, spiral_data, spiral_theta


@dataclass(frozen=True, eq=False)
class Problem:
    """An initial value problem, a loss of its solution, and the true gradient of that loss.

    Attributes
    ----------
    name : str
    dynamics : Dynamics
    u0, theta : (n,), (m,) arrays
    t_span : (t0, T)
    loss : Loss
    reference : mapping of arrays
        "loss" (1,), "u0" (n,), "theta" (m,), "final" (n,), the state at T; where it is known also "T" (1,).
    """

    name: str
    dynamics: adjode.Dynamics
    u0: np.ndarray
    theta: np.ndarray
    t_span: tuple[float, float]
    loss: Loss
    reference: Mapping[str, np.ndarray]

    def value_and_gradient(self, **options: Any) -> Callable[[], tuple[float, adjode.Cotangents]]:
        """A function of no arguments that solves the problem and pulls its loss back."""
        evaluate = adjode.value_and_gradient(self.dynamics, self.loss, self.t_span, **options)
        return lambda: evaluate(self.u0, self.theta)

    def solve(self, **options: Any) -> adjode.Solution:
        return adjode.solve(self.dynamics, self.u0, self.theta, self.t_span, **options)

    def gradient_error(self, bar: adjode.Cotangents) -> float:
        """The largest error among u0_bar and theta_bar, each relative to the largest entry of its reference."""
        return gradient_error(self.name, bar)


def _stored(name: str) -> dict[str, Any]:
    """What the file says of a problem, as arguments of `Problem`."""
    stored = references()[name]
    start, end = stored["t_span"]
    return {
        "name": name,
        "u0": np.array(stored["u0"], dtype=float),
        "t_span": (float(start), float(end)),
        "reference": {key: np.array(value) for key, value in stored["reference"].items()},
    }


# --- Lotka-Volterra: u1' = a u1 - b u1 u2, u2' = -c u2 + d u1 u2, theta = (a, b, c, d) -----------------------------------


def lv_f(t, u, theta, du):
    du[0] = theta[0] * u[0] - theta[1] * u[0] * u[1]
    du[1] = -theta[2] * u[1] + theta[3] * u[0] * u[1]


def lv_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = lam[0] * (theta[0] - theta[1] * u[1]) + lam[1] * theta[3] * u[1]
    u_bar[1] = -lam[0] * theta[1] * u[0] + lam[1] * (theta[3] * u[0] - theta[2])
    theta_bar[0] = lam[0] * u[0]
    theta_bar[1] = -lam[0] * u[0] * u[1]
    theta_bar[2] = -lam[1] * u[1]
    theta_bar[3] = lam[1] * u[0] * u[1]


@functools.cache
def lv_dynamics() -> adjode.Dynamics:
    return adjode.Dynamics(lv_f, lv_vjp, name="Lotka-Volterra")


@numba.njit
def _sum_of_states(k, t, u, u_bar):
    u_bar[:] = 1.0
    return u.sum()


@functools.cache
def lv_final() -> Problem:
    """Lotka-Volterra with L = u1(T) + u2(T), T = 10."""
    theta = np.array(references()["lv_final"]["theta"], dtype=float)
    return Problem(dynamics=lv_dynamics(), theta=theta, loss=FinalState([1.0, 1.0]), **_stored("lv_final"))


@functools.cache
def lv_series() -> Problem:
    """Lotka-Volterra with L = the sum of u1 + u2 at t = 0.1, 0.2, ..., 10."""
    theta = np.array(references()["lv_series"]["theta"], dtype=float)
    loss = Series(series_times(), _sum_of_states)
    return Problem(dynamics=lv_dynamics(), theta=theta, loss=loss, **_stored("lv_series"))


# --- the spiral: du/dt = W2 tanh(W1 u^3 + b1) + b2, 2-50-2, theta = (W1 (50, 2), b1, W2 (2, 50), b2), rows first ---------
# Callbacks have no scratch arrays, so one loop over the hidden units does everything for one unit at a time.

_B1 = 2 * HIDDEN  # where b1, the two rows of W2, and b2 begin in theta
_ROW_1 = 3 * HIDDEN
_ROW_2 = 4 * HIDDEN
_B2 = 5 * HIDDEN


def spiral_f(t, u, theta, du):
    x, y = u[0] * u[0] * u[0], u[1] * u[1] * u[1]
    first, second = theta[_B2], theta[_B2 + 1]
    for i in range(HIDDEN):
        a = math.tanh(theta[2 * i] * x + theta[2 * i + 1] * y + theta[_B1 + i])
        first += theta[_ROW_1 + i] * a
        second += theta[_ROW_2 + i] * a
    du[0] = first
    du[1] = second


def spiral_vjp(t, u, theta, lam, u_bar, theta_bar):
    x, y = u[0] * u[0] * u[0], u[1] * u[1] * u[1]
    x_bar, y_bar = 0.0, 0.0
    for i in range(HIDDEN):
        a = math.tanh(theta[2 * i] * x + theta[2 * i + 1] * y + theta[_B1 + i])
        theta_bar[_ROW_1 + i] = lam[0] * a
        theta_bar[_ROW_2 + i] = lam[1] * a
        z_bar = (lam[0] * theta[_ROW_1 + i] + lam[1] * theta[_ROW_2 + i]) * (1.0 - a * a)
        theta_bar[2 * i] = z_bar * x
        theta_bar[2 * i + 1] = z_bar * y
        theta_bar[_B1 + i] = z_bar
        x_bar += z_bar * theta[2 * i]
        y_bar += z_bar * theta[2 * i + 1]
    theta_bar[_B2] = lam[0]
    theta_bar[_B2 + 1] = lam[1]
    u_bar[0] = 3.0 * u[0] * u[0] * x_bar
    u_bar[1] = 3.0 * u[1] * u[1] * y_bar


def spiral_vjp_u(t, u, theta, lam, u_bar):
    x, y = u[0] * u[0] * u[0], u[1] * u[1] * u[1]
    x_bar, y_bar = 0.0, 0.0
    for i in range(HIDDEN):
        a = math.tanh(theta[2 * i] * x + theta[2 * i + 1] * y + theta[_B1 + i])
        z_bar = (lam[0] * theta[_ROW_1 + i] + lam[1] * theta[_ROW_2 + i]) * (1.0 - a * a)
        x_bar += z_bar * theta[2 * i]
        y_bar += z_bar * theta[2 * i + 1]
    u_bar[0] = 3.0 * u[0] * u[0] * x_bar
    u_bar[1] = 3.0 * u[1] * u[1] * y_bar


def _spiral(dynamics: adjode.Dynamics) -> Problem:
    times, states = spiral_data()
    # LeastSquares halves the sum of squares; sigma = 1/sqrt(2) makes it whole again
    loss = LeastSquares(times, states, sigma=math.sqrt(0.5))
    return Problem(dynamics=dynamics, theta=spiral_theta(), loss=loss, **_stored("spiral"))


@functools.cache
def spiral() -> Problem:
    """A neural ODE of 252 parameters with L = sum of squared residuals against 30 points of the cubic spiral."""
    return _spiral(adjode.Dynamics(spiral_f, spiral_vjp, name="spiral"))


@functools.cache
def spiral_with_vjp_u() -> Problem:
    """The same, with `vjp_u` as well."""
    return _spiral(adjode.Dynamics(spiral_f, spiral_vjp, vjp_u=spiral_vjp_u, name="spiral"))


PROBLEMS: dict[str, Callable[[], Problem]] = {"lv_final": lv_final, "lv_series": lv_series, "spiral": spiral}
