"""Small systems with solutions in closed form, and the one everybody knows; compiled once for all tests.

Each closed form is written so that it takes complex numbers: its derivatives by complex step are exact to rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adjode import Dynamics
from benchmarks.problems import lv_f, lv_vjp


# --- Lotka-Volterra ---------------------------------------------------------------------------------------------------
def lv_vjp_u(t, u, theta, lam, u_bar):
    x, y = u[0], u[1]
    u_bar[0] = lam[0] * (theta[0] - theta[1] * y) + lam[1] * theta[3] * y
    u_bar[1] = -lam[0] * theta[1] * x + lam[1] * (theta[3] * x - theta[2])


LV_U0, LV_THETA, LV_SPAN = np.array([1.0, 1.0]), np.array([1.5, 1.0, 3.0, 1.0]), (0.0, 10.0)


@functools.cache
def lotka_volterra(with_vjp_u: bool = False) -> Dynamics:
    return Dynamics(lv_f, lv_vjp, vjp_u=lv_vjp_u if with_vjp_u else None, name="Lotka-Volterra")


# --- closed forms -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class ClosedForm:
    """`final(u0, theta, t0, T)` is the exact u(T)."""

    name: str
    build: Callable[[], Dynamics]
    final: Callable
    u0: np.ndarray
    theta: np.ndarray
    t_span: tuple[float, float]

    @property
    def dynamics(self) -> Dynamics:
        return self.build()

    def cotangents(self, u_T_bar, t_span=None, final=None):
        """Exact cotangents of u0, theta, t0 and T by complex step."""
        t0, T = t_span or self.t_span
        final = final or self.final
        inputs = [self.u0.astype(complex), self.theta.astype(complex), np.array([t0 + 0j]), np.array([T + 0j])]
        result = []
        for block in inputs:
            bars = np.zeros(block.size)
            for i in range(block.size):
                kept = block[i]
                block[i] = kept + 1e-30j
                bars[i] = np.dot(u_T_bar, np.atleast_1d(final(inputs[0], inputs[1], inputs[2][0], inputs[3][0])).imag) / 1e-30
                block[i] = kept
            result.append(bars)
        return result[0], result[1], float(result[2][0]), float(result[3][0])


def _logistic_f(t, u, theta, du):
    du[0] = theta[0] * u[0] * (1.0 - u[0] / theta[1])


def _logistic_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = lam[0] * theta[0] * (1.0 - 2.0 * u[0] / theta[1])
    theta_bar[0] = lam[0] * u[0] * (1.0 - u[0] / theta[1])
    theta_bar[1] = lam[0] * theta[0] * u[0] ** 2 / theta[1] ** 2


def _logistic(u0, theta, t0, T):
    growth = np.exp(theta[0] * (T - t0))
    return theta[1] * u0 * growth / (theta[1] + u0 * (growth - 1.0))


def _oscillator_f(t, u, theta, du):
    du[0] = u[1]
    du[1] = -(theta[0] ** 2) * u[0] + theta[1] * np.cos(theta[2] * t)


def _oscillator_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -(theta[0] ** 2) * lam[1]
    u_bar[1] = lam[0]
    theta_bar[0] = -2.0 * theta[0] * u[0] * lam[1]
    theta_bar[1] = np.cos(theta[2] * t) * lam[1]
    theta_bar[2] = -theta[1] * t * np.sin(theta[2] * t) * lam[1]


def _oscillator(u0, theta, t0, T):
    w0, force, w = theta
    size = force / (w0**2 - w**2)
    a, b = u0[0] - size * np.cos(w * t0), (u0[1] + size * w * np.sin(w * t0)) / w0
    s = w0 * (T - t0)
    return np.array(
        [
            size * np.cos(w * T) + a * np.cos(s) + b * np.sin(s),
            -size * w * np.sin(w * T) - w0 * a * np.sin(s) + w0 * b * np.cos(s),
        ]
    )


def _rotation_f(t, u, theta, du):  # m = 0
    du[0] = u[1]
    du[1] = -u[0]


def _rotation_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -lam[1]
    u_bar[1] = lam[0]


def _rotation(u0, theta, t0, T):
    c, s = np.cos(T - t0), np.sin(T - t0)
    return np.array([c * u0[0] + s * u0[1], -s * u0[0] + c * u0[1]])


def _decay_f(t, u, theta, du):  # any n, u_i' = -theta_i u_i
    for i in range(u.size):
        du[i] = -theta[i] * u[i]


def _decay_vjp(t, u, theta, lam, u_bar, theta_bar):
    for i in range(u.size):
        u_bar[i] = -theta[i] * lam[i]
        theta_bar[i] = -u[i] * lam[i]


def _decay(u0, theta, t0, T):
    return u0 * np.exp(-theta * (T - t0))


@functools.cache
def _logistic_dynamics():
    return Dynamics(_logistic_f, _logistic_vjp, name="logistic")


@functools.cache
def _oscillator_dynamics():
    return Dynamics(_oscillator_f, _oscillator_vjp, name="oscillator")


@functools.cache
def _rotation_dynamics():
    return Dynamics(_rotation_f, _rotation_vjp, name="rotation")


@functools.cache
def _decay_dynamics():
    return Dynamics(_decay_f, _decay_vjp, name="decay")


LOGISTIC = ClosedForm("logistic", _logistic_dynamics, _logistic, np.array([0.3]), np.array([1.2, 2.0]), (0.0, 3.0))
OSCILLATOR = ClosedForm(
    "oscillator", _oscillator_dynamics, _oscillator, np.array([1.0, 0.5]), np.array([2.0, 0.7, 1.3]), (0.5, 4.0)
)
ROTATION = ClosedForm("rotation", _rotation_dynamics, _rotation, np.array([1.0, -0.5]), np.zeros(0), (0.0, 5.0))
DECAY = ClosedForm("decay", _decay_dynamics, _decay, np.linspace(1.0, 2.0, 7), np.linspace(0.2, 1.5, 7), (-1.0, 1.0))
CLOSED_FORMS = [LOGISTIC, OSCILLATOR, ROTATION, DECAY]


# --- a running cost, t theta_0 u_0^2 ----------------------------------------------------------------------------------------
def cost_g(t, u, theta):
    return t * theta[0] * u[0] ** 2


def cost_g_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[:] = 0.0
    theta_bar[:] = 0.0
    u_bar[0] = 2.0 * t * theta[0] * u[0]
    theta_bar[0] = t * u[0] ** 2


GROWTH = Dynamics(lambda t, u, theta: theta[0] * u, lambda t, u, theta, lam: (theta[0] * lam, u * lam))
