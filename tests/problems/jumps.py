"""A system whose right-hand side jumps at two known times, with its solution in closed form; compiled once for all tests.

x' = a - k theta_2 x + theta_3 y, y' = s x - theta_2 y, where a is theta_0 before the first stop and theta_1 behind it, and k, s are
1 and -1 before the second, 3 and 1 behind it: at one stop f jumps, at the other its Jacobian too. The third entry of the closed
form is the integral of g = a x, the running cost. Backwards it is the same in the time 4 - t, and as well conditioned.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from scipy.linalg import expm

from adjode import Dynamics

FIRST, SECOND, END = 1.0, 2.5, 4.0
JUMP_U0, JUMP_THETA, SEED = np.array([0.3, -0.2]), np.array([1.0, 2.0, 0.7, 0.4]), np.array([1.0, -2.0])
DIRECTIONS = {"forwards": 1.0, "backwards": -1.0}


def span_of(sign: float) -> tuple[float, float]:
    return (0.0, END) if sign > 0.0 else (END, 0.0)


def own_time(sign: float, t):
    """The time at which the problem of this direction is where that of the other is at t."""
    return t if sign > 0.0 else END - np.asarray(t)


def callbacks(sign: float, inclusive: bool, rate: float = 3.0) -> tuple[Callable, ...]:
    """f, vjp, g, g_vjp; `inclusive` says which side the stops themselves belong to, `rate` is k behind the second."""

    def f(t, u, theta, du):
        s = t if sign > 0.0 else END - t
        early, low = (s <= FIRST, s <= SECOND) if inclusive else (s < FIRST, s < SECOND)
        k, turn = (1.0, -1.0) if low else (rate, 1.0)
        du[0] = sign * ((theta[0] if early else theta[1]) - k * theta[2] * u[0] + theta[3] * u[1])
        du[1] = sign * (turn * u[0] - theta[2] * u[1])

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        s = t if sign > 0.0 else END - t
        early, low = (s <= FIRST, s <= SECOND) if inclusive else (s < FIRST, s < SECOND)
        k, turn = (1.0, -1.0) if low else (rate, 1.0)
        u_bar[0] = sign * (-k * theta[2] * lam[0] + turn * lam[1])
        u_bar[1] = sign * (theta[3] * lam[0] - theta[2] * lam[1])
        theta_bar[0] = sign * lam[0] if early else 0.0
        theta_bar[1] = 0.0 if early else sign * lam[0]
        theta_bar[2] = -sign * (k * u[0] * lam[0] + u[1] * lam[1])
        theta_bar[3] = sign * u[1] * lam[0]

    def g(t, u, theta):
        s = t if sign > 0.0 else END - t
        early = s <= FIRST if inclusive else s < FIRST
        return sign * (theta[0] if early else theta[1]) * u[0]

    def g_vjp(t, u, theta, u_bar, theta_bar):
        s = t if sign > 0.0 else END - t
        early = s <= FIRST if inclusive else s < FIRST
        u_bar[0], u_bar[1] = sign * (theta[0] if early else theta[1]), 0.0
        theta_bar[0] = sign * u[0] if early else 0.0
        theta_bar[1] = 0.0 if early else sign * u[0]
        theta_bar[2] = theta_bar[3] = 0.0

    return f, vjp, g, g_vjp


@functools.cache
def jumping(sign: float = 1.0, inclusive: bool = False, fused: bool = False, rate: float = 3.0) -> Dynamics:
    """Without breaks: those who solve it give stops, or none."""
    return Dynamics(*callbacks(sign, inclusive, rate)[:2], fused=fused, name="jumping", breaks=())


@functools.cache
def running_cost(sign: float = 1.0, inclusive: bool = False) -> tuple[Callable, Callable]:
    return callbacks(sign, inclusive)[2:]


def exact(u0, theta, t0, t, rate: float = 3.0) -> np.ndarray:
    """(x, y, integral of g) at t; forwards, complex arguments allowed."""
    start, end = np.real(t0), np.real(t)
    inside = [stop for stop in (FIRST, SECOND) if start < stop < end]
    state = np.array([*u0, 0.0, 1.0], dtype=complex)
    for a, b in zip([t0, *inside], [*inside, t], strict=True):
        middle = (np.real(a) + np.real(b)) / 2.0
        source = theta[0] if middle < FIRST else theta[1]
        k, turn = (1.0, -1.0) if middle < SECOND else (rate, 1.0)
        A = np.zeros((4, 4), dtype=complex)
        A[0] = -k * theta[2], theta[3], 0.0, source
        A[1, :2] = turn, -theta[2]
        A[2, 0] = source
        state = expm(A * (b - a)) @ state
    return state[:3]


def exact_gradient(loss: Callable, u0=JUMP_U0, theta=JUMP_THETA, t0: float = 0.0, T: float = END) -> np.ndarray:
    """That of `loss(u0, theta, t0, T)` with respect to u0, theta, t0 and T, by complex step: exact to rounding."""
    x = np.concatenate([u0, theta, [t0, T]]).astype(complex)
    bars = np.zeros(x.size)
    for i in range(x.size):
        moved = x.copy()
        moved[i] += 1e-30j
        bars[i] = np.imag(loss(moved[:2], moved[2:6], moved[6], moved[7])) / 1e-30
    return bars


def final(u0, theta, t0, T):
    return SEED @ exact(u0, theta, t0, T)[:2]
