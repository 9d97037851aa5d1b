"""Every reference problem once, with its stored high-precision gradient; tests and benchmarks share them.

`tests/references/problems.json` holds the references, `batch_network.npz` the one that is too long for it, and
`tests/references/make.py` recomputes them without adjode.
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
from adjode.functions import as_matrix, tanh
from adjode.losses import FinalState, LeastSquares, Loss, Series
from benchmarks.cases import HIDDEN, REFERENCES, largest_error, references, series_times, spiral_data, spiral_theta


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
        "loss" (1,), "u0" (n,), "theta" (m,), "final" (n,), the state at T; where it is known also "T" (1,). Empty for problems
        of no fixed size.
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
        return largest_error(self.reference, bar)


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
def lv_dynamics(fused: bool = False) -> adjode.Dynamics:
    return adjode.Dynamics(lv_f, lv_vjp, name="Lotka-Volterra", fused=fused)


@numba.njit
def _sum_of_states(k, t, u, u_bar):
    u_bar[:] = 1.0
    return u.sum()


@functools.cache
def lv_final(fused: bool = False) -> Problem:
    """Lotka-Volterra with L = u1(T) + u2(T), T = 10."""
    theta = np.array(references()["lv_final"]["theta"], dtype=float)
    return Problem(dynamics=lv_dynamics(fused), theta=theta, loss=FinalState([1.0, 1.0]), **_stored("lv_final"))


@functools.cache
def lv_series() -> Problem:
    """Lotka-Volterra with L = the sum of u1 + u2 at t = 0.1, 0.2, ..., 10."""
    theta = np.array(references()["lv_series"]["theta"], dtype=float)
    loss = Series(series_times(), _sum_of_states)
    return Problem(dynamics=lv_dynamics(), theta=theta, loss=loss, **_stored("lv_series"))


# --- the spiral: du/dt = W2 tanh(W1 u^3 + b1) + b2, 2-50-2, theta = (W1 (50, 2), b1, W2 (2, 50), b2), rows first ---------
# Callbacks have no scratch arrays, so one loop over the hidden units does everything for one unit at a time. The sums in it
# vectorise only if the compiler may change their order.

_reordered = numba.njit(error_model="numpy", nogil=True, fastmath={"contract", "reassoc", "nsz", "arcp"})

_B1 = 2 * HIDDEN  # where b1, the two rows of W2, and b2 begin in theta
_ROW_1 = 3 * HIDDEN
_ROW_2 = 4 * HIDDEN
_B2 = 5 * HIDDEN


@_reordered
def spiral_f(t, u, theta, du):
    x, y = u[0] * u[0] * u[0], u[1] * u[1] * u[1]
    first, second = theta[_B2], theta[_B2 + 1]
    for i in range(HIDDEN):
        a = tanh(theta[2 * i] * x + theta[2 * i + 1] * y + theta[_B1 + i])
        first += theta[_ROW_1 + i] * a
        second += theta[_ROW_2 + i] * a
    du[0] = first
    du[1] = second


@_reordered
def spiral_vjp(t, u, theta, lam, u_bar, theta_bar):
    x, y = u[0] * u[0] * u[0], u[1] * u[1] * u[1]
    x_bar, y_bar = 0.0, 0.0
    for i in range(HIDDEN):
        a = tanh(theta[2 * i] * x + theta[2 * i + 1] * y + theta[_B1 + i])
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


@_reordered
def spiral_vjp_u(t, u, theta, lam, u_bar):
    x, y = u[0] * u[0] * u[0], u[1] * u[1] * u[1]
    x_bar, y_bar = 0.0, 0.0
    for i in range(HIDDEN):
        a = tanh(theta[2 * i] * x + theta[2 * i + 1] * y + theta[_B1 + i])
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
def spiral(fused: bool = False) -> Problem:
    """A neural ODE of 252 parameters with L = sum of squared residuals against 30 points of the cubic spiral."""
    return _spiral(adjode.Dynamics(spiral_f, spiral_vjp, name="spiral", fused=fused))


@functools.cache
def spiral_with_vjp_u() -> Problem:
    """The same, with `vjp_u` as well."""
    return _spiral(adjode.Dynamics(spiral_f, spiral_vjp, vjp_u=spiral_vjp_u, name="spiral"))


# --- Pleiades: seven bodies in the plane; Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, II.10 ------
# u = (x, y, x', y'), seven entries each; theta = the masses. x_i'' = sum_j m_j (x_j - x_i) / r_ij^3, and so for y.

BODIES = 7


def pleiades_f(t, u, theta, du):
    for i in range(2 * BODIES):
        du[i] = u[2 * BODIES + i]
        du[2 * BODIES + i] = 0.0
    for i in range(BODIES):
        for j in range(i + 1, BODIES):
            x, y = u[j] - u[i], u[BODIES + j] - u[BODIES + i]
            squared = x * x + y * y
            near = 1.0 / (squared * math.sqrt(squared))
            du[2 * BODIES + i] += theta[j] * near * x
            du[3 * BODIES + i] += theta[j] * near * y
            du[2 * BODIES + j] -= theta[i] * near * x
            du[3 * BODIES + j] -= theta[i] * near * y


def pleiades_vjp(t, u, theta, lam, u_bar, theta_bar):
    for i in range(2 * BODIES):
        u_bar[i] = 0.0
        u_bar[2 * BODIES + i] = lam[i]
    for i in range(BODIES):
        theta_bar[i] = 0.0
    for i in range(BODIES):
        for j in range(i + 1, BODIES):
            x, y = u[j] - u[i], u[BODIES + j] - u[BODIES + i]
            squared = x * x + y * y
            inverse = 1.0 / squared
            near = inverse * math.sqrt(inverse)
            # the pair pulls i by m_j near (x, y) and j by -m_i near (x, y)
            along_i = near * (lam[2 * BODIES + i] * x + lam[3 * BODIES + i] * y)
            along_j = near * (lam[2 * BODIES + j] * x + lam[3 * BODIES + j] * y)
            theta_bar[j] += along_i
            theta_bar[i] -= along_j
            stretch = 3.0 * inverse * (theta[j] * along_i - theta[i] * along_j)
            x_bar = near * (theta[j] * lam[2 * BODIES + i] - theta[i] * lam[2 * BODIES + j]) - stretch * x
            y_bar = near * (theta[j] * lam[3 * BODIES + i] - theta[i] * lam[3 * BODIES + j]) - stretch * y
            u_bar[j] += x_bar
            u_bar[i] -= x_bar
            u_bar[BODIES + j] += y_bar
            u_bar[BODIES + i] -= y_bar


def pleiades_weights() -> np.ndarray:
    """Of the final positions in the loss; velocities do not enter."""
    return np.concatenate([np.cos(np.arange(2 * BODIES)), np.zeros(2 * BODIES)])


@functools.cache
def pleiades(fused: bool = False) -> Problem:
    """The celestial mechanics problem "Pleiades" with L = sum of cos(k) times position k at T = 3."""
    theta = np.array(references()["pleiades"]["theta"], dtype=float)
    dynamics = adjode.Dynamics(pleiades_f, pleiades_vjp, name="Pleiades", fused=fused)
    return Problem(dynamics=dynamics, theta=theta, loss=FinalState(pleiades_weights()), **_stored("pleiades"))


# --- a batch of states through one network: U' = tanh(tanh(U W1^T + b1) W2^T + b2) W3^T + b3, 2-64-64-2 -----------------
# U is u as a matrix with a row for each state of the batch, of any size. theta = (W1 (64, 2), b1, W2 (64, 64), b2,
# W3 (2, 64), b3), rows first. Scratch memory is taken in one piece: docs/networks.md says why.

BATCH, WIDTH = 256, 64
_N_B1 = 2 * WIDTH  # where b1, W2, b2, W3 and b3 begin in theta
_N_W2 = _N_B1 + WIDTH
_N_B2 = _N_W2 + WIDTH * WIDTH
_N_W3 = _N_B2 + WIDTH
_N_B3 = _N_W3 + 2 * WIDTH


@numba.njit(error_model="numpy", nogil=True)
def _tanh_layer(x, W, b, a):
    """a = tanh(x W^T + b)"""
    np.dot(x, W.T, a)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            a[i, j] = tanh(a[i, j] + b[j])


@numba.njit(error_model="numpy", nogil=True)
def _hidden_layers(U, theta, a1, a2):
    _tanh_layer(U, as_matrix(theta, 0, WIDTH, 2), theta[_N_B1:_N_W2], a1)
    _tanh_layer(a1, as_matrix(theta, _N_W2, WIDTH, WIDTH), theta[_N_B2:_N_W3], a2)


@numba.njit(error_model="numpy", nogil=True)
def _through_tanh(a, bar):
    """The cotangent of a = tanh(z) becomes that of z."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            bar[i, j] *= 1.0 - a[i, j] * a[i, j]


@numba.njit(error_model="numpy", nogil=True)
def _sum_rows(x, total):
    total[:] = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total[j] += x[i, j]


def network_f(t, u, theta, du):
    batch = u.size // 2
    scratch = np.empty((2, batch, WIDTH))
    a1, a2 = scratch[0], scratch[1]
    _hidden_layers(as_matrix(u, 0, batch, 2), theta, a1, a2)
    np.dot(a2, as_matrix(theta, _N_W3, 2, WIDTH).T, as_matrix(du, 0, batch, 2))
    for i in range(u.size):
        du[i] += theta[_N_B3 + i % 2]


def network_vjp(t, u, theta, lam, u_bar, theta_bar):
    batch = u.size // 2
    U, L = as_matrix(u, 0, batch, 2), as_matrix(lam, 0, batch, 2)
    scratch = np.empty((3, batch, WIDTH))
    a1, a2, bar = scratch[0], scratch[1], scratch[2]
    _hidden_layers(U, theta, a1, a2)
    np.dot(L.T, a2, as_matrix(theta_bar, _N_W3, 2, WIDTH))
    _sum_rows(L, theta_bar[_N_B3:])
    np.dot(L, as_matrix(theta, _N_W3, 2, WIDTH), bar)
    _through_tanh(a2, bar)
    np.dot(bar.T, a1, as_matrix(theta_bar, _N_W2, WIDTH, WIDTH))
    _sum_rows(bar, theta_bar[_N_B2:_N_W3])
    np.dot(bar, as_matrix(theta, _N_W2, WIDTH, WIDTH), a2)  # a2 is done with: it takes the cotangent of a1
    _through_tanh(a1, a2)
    np.dot(a2.T, U, as_matrix(theta_bar, 0, WIDTH, 2))
    _sum_rows(a2, theta_bar[_N_B1:_N_W2])
    np.dot(a2, as_matrix(theta, 0, WIDTH, 2), as_matrix(u_bar, 0, batch, 2))


def network_vjp_u(t, u, theta, lam, u_bar):
    batch = u.size // 2
    scratch = np.empty((3, batch, WIDTH))
    a1, a2, bar = scratch[0], scratch[1], scratch[2]
    _hidden_layers(as_matrix(u, 0, batch, 2), theta, a1, a2)
    np.dot(as_matrix(lam, 0, batch, 2), as_matrix(theta, _N_W3, 2, WIDTH), bar)
    _through_tanh(a2, bar)
    np.dot(bar, as_matrix(theta, _N_W2, WIDTH, WIDTH), a2)
    _through_tanh(a1, a2)
    np.dot(a2, as_matrix(theta, 0, WIDTH, 2), as_matrix(u_bar, 0, batch, 2))


def network_input(batch: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """u0 (2 batch,) and theta (4482,); weights have the variance 1 / inputs, biases are zero."""
    rng = np.random.default_rng(0)
    w1 = rng.normal(size=(WIDTH, 2)) / math.sqrt(2)
    w2 = rng.normal(size=(WIDTH, WIDTH)) / math.sqrt(WIDTH)
    w3 = rng.normal(size=(2, WIDTH)) / math.sqrt(WIDTH)
    theta = np.concatenate([w1.ravel(), np.zeros(WIDTH), w2.ravel(), np.zeros(WIDTH), w3.ravel(), np.zeros(2)])
    return rng.normal(size=2 * batch), theta


def sum_of_squares(T: float, n: int) -> Loss:
    """The sum of squares of u(T); LeastSquares halves it, sigma = 1/sqrt(2) makes it whole again."""
    return LeastSquares([T], np.zeros((1, n)), sigma=math.sqrt(0.5))


@functools.cache
def network_dynamics(fused: bool = False) -> adjode.Dynamics:
    return adjode.Dynamics(network_f, network_vjp, vjp_u=network_vjp_u, name="batch network", fused=fused)


@functools.cache
def batch_network(fused: bool = False) -> Problem:
    """256 states of dimension 2 through one network of 4482 parameters, over [0, 1], with L = sum of squares of u(1)."""
    u0, theta = network_input()
    with np.load(REFERENCES / "batch_network.npz") as stored:
        reference = dict(stored)
    loss = sum_of_squares(1.0, u0.size)
    return Problem("batch_network", network_dynamics(fused), u0, theta, (0.0, 1.0), loss, reference)


# --- a wide layer: u' = tanh(W u + b) - u, theta = (W (n, n), b), n^2 + n parameters --------------------------------------


def wide_f(t, u, theta, du):
    n = u.size
    np.dot(as_matrix(theta, 0, n, n), u, du)
    for i in range(n):
        du[i] = tanh(du[i] + theta[n * n + i]) - u[i]


@numba.njit(error_model="numpy", nogil=True)
def _pull_layer(u, W, theta, lam, z_bar, u_bar):
    """The cotangents of z = W u + b, which is b's, and of u."""
    n = u.size
    np.dot(W, u, z_bar)
    for i in range(n):
        a = tanh(z_bar[i] + theta[n * n + i])
        z_bar[i] = lam[i] * (1.0 - a * a)
    np.dot(W.T, z_bar, u_bar)
    for i in range(n):
        u_bar[i] -= lam[i]


def wide_vjp(t, u, theta, lam, u_bar, theta_bar):
    n = u.size
    W, W_bar, z_bar = as_matrix(theta, 0, n, n), as_matrix(theta_bar, 0, n, n), theta_bar[n * n :]
    _pull_layer(u, W, theta, lam, z_bar, u_bar)
    for i in range(n):
        for j in range(n):
            W_bar[i, j] = z_bar[i] * u[j]


def wide_vjp_u(t, u, theta, lam, u_bar):
    n = u.size
    W, z_bar = as_matrix(theta, 0, n, n), np.empty(n)
    _pull_layer(u, W, theta, lam, z_bar, u_bar)


@functools.cache
def wide_dynamics(fused: bool = False) -> adjode.Dynamics:
    return adjode.Dynamics(wide_f, wide_vjp, vjp_u=wide_vjp_u, name="wide layer", fused=fused)


@functools.cache
def wide_layer(n: int = 1000, fused: bool = False) -> Problem:
    """One layer of n states and n^2 + n parameters over [0, 1], with L = sum of squares of u(1)."""
    rng = np.random.default_rng(0)
    theta = np.concatenate([rng.normal(size=n * n) / math.sqrt(n), 0.1 * rng.normal(size=n)])
    return Problem("wide_layer", wide_dynamics(fused), rng.normal(size=n), theta, (0.0, 1.0), sum_of_squares(1.0, n), {})


# --- Lorenz: x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z, theta = (sigma, rho, beta) ----------------------


def lorenz_f(t, u, theta, du):
    x, y, z = u[0], u[1], u[2]
    du[0] = theta[0] * (y - x)
    du[1] = x * (theta[1] - z) - y
    du[2] = x * y - theta[2] * z


def lorenz_vjp(t, u, theta, lam, u_bar, theta_bar):
    x, y, z = u[0], u[1], u[2]
    u_bar[0] = -theta[0] * lam[0] + (theta[1] - z) * lam[1] + y * lam[2]
    u_bar[1] = theta[0] * lam[0] - lam[1] + x * lam[2]
    u_bar[2] = -x * lam[1] - theta[2] * lam[2]
    theta_bar[0] = (y - x) * lam[0]
    theta_bar[1] = x * lam[1]
    theta_bar[2] = -z * lam[2]


@functools.cache
def lorenz_dynamics(fused: bool = False) -> adjode.Dynamics:
    return adjode.Dynamics(lorenz_f, lorenz_vjp, name="Lorenz", fused=fused)


LORENZ_SPAN, LORENZ_LOSS = (0.0, 1.0), FinalState([1.0, 0.0, 0.0])


def lorenz_ensemble(N: int) -> tuple[np.ndarray, np.ndarray]:
    """u0 (N, 3) and theta (N, 3): sigma = 10, beta = 8/3, and rho spread over [0, 21]; the cotangent is that of x(1)."""
    theta = np.column_stack([np.full(N, 10.0), np.linspace(0.0, 21.0, N), np.full(N, 8.0 / 3.0)])
    return np.tile([1.0, 0.0, 0.0], (N, 1)), theta


# Neither Pleiades nor the networks are among them: what holds of these at any tolerance and with any adjoint does not hold where
# bodies nearly collide, and large problems take long.
PROBLEMS: dict[str, Callable[[], Problem]] = {"lv_final": lv_final, "lv_series": lv_series, "spiral": spiral}
