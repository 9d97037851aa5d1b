"""Systems whose state jumps, by doses and events, with their solutions in closed form; compiled once for all tests.

Closed forms take complex numbers: their derivatives by complex step are exact to rounding. What happens is decided by real parts.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.linalg import expm

from adjode import Doses, Dynamics, Event, solve

# --- a ball that bounces: theta = gravity, restitution ---------------------------------------------------------------------------
BALL_U0, BALL_THETA = np.array([50.0, 0.0]), np.array([9.8, 0.8])


def _ball_f(t, u, theta, du):
    du[0] = u[1]
    du[1] = -theta[0]


def height(t, u):
    return u[0]


def bounce(t, u, theta, u_new):
    u_new[1] = -theta[1] * u[1]


BOUNCE = Event(height, bounce, direction=-1.0)


def late(t, u):
    return u[0] * 0.1 + t - 4.5 - 3.0


def lands(t, u):
    return u[1] - 12.0


def lift(t, u, theta, u_new):
    u_new[0] = u[0] + 0.01 * theta[0] * t


def near_top(t, u):
    return (u[0] - 49.9) * (u[0] - 49.5)


BALL_EVENTS = (  # one along with a bounce, one that takes a note of pairs inside a step, one that ends it
    Event(lands, lift, direction=1.0, priority=1.0),
    Event(near_top),
    Event(late, lift, direction=1.0, terminal=True),
)


@functools.cache
def ball(fused: bool = False, debug: bool = False) -> Dynamics:
    return Dynamics(_ball_f, name="ball", fused=fused, debug=debug)


def bounces(u0, theta, T) -> tuple[list, list]:
    """Times up to T at which the ball hits the ground, and its state behind the last of them."""
    (x, v), (g, e), t, times = u0, theta, 0.0, []
    while True:
        flight = (v + np.sqrt(v * v + 2.0 * g * x)) / g
        if np.real(t + flight) > np.real(T):
            return times, [t, x, v]
        t, x, v = t + flight, 0.0 * x, e * np.sqrt(v * v + 2.0 * g * x)
        times.append(t)


def ball_at(u0, theta, T) -> np.ndarray:
    _, (t, x, v) = bounces(u0, theta, T)
    s = T - t
    return np.array([x + v * s - 0.5 * theta[0] * s * s, v - theta[0] * s])


# --- a drug: theta = absorption, elimination, lag, fraction, two times, two amounts, what is infused and how long ------------
PK_SPAN, PK_U0, PK_INFUSED_AT = (0.0, 12.0), np.array([0.3, 0.1]), 5.0
PK_THETA = np.array([1.2, 0.3, 0.4, 0.7, 0.5, 4.0, 100.0, 60.0, 40.0, 1.5])
PK_NAMES = ("absorption", "elimination", "lag", "fraction", "first", "second", "large", "small", "infused", "duration")


def _pk_f(t, u, theta, du):
    du[0] = -theta[0] * u[0]
    du[1] = theta[0] * u[0] - theta[1] * u[1]


def _pk_names_f(t, u, theta, du):
    du[0] = -theta.absorption * u.gut
    du[1] = theta.absorption * u.gut - theta.elimination * u.blood


PK_DOSES = (
    Doses(["theta[4]", "theta[5]"], ["theta[6]", "theta[7]"], 0, lag="theta[2]", fraction="theta[3]"),
    Doses(PK_INFUSED_AT, "theta[8]", 1, duration="theta[9]"),
)
PK_NAMED_DOSES = (
    Doses(["first", "second"], ["large", "small"], "gut", lag="lag", fraction="fraction"),
    Doses(PK_INFUSED_AT, "infused", "blood", duration="duration"),
)


@functools.cache
def drug(fused: bool = False, debug: bool = False) -> Dynamics:
    return Dynamics(_pk_f, name="drug", fused=fused, debug=debug)


@functools.cache
def named_drug() -> Dynamics:
    return Dynamics(_pk_names_f, states=("gut", "blood"), parameters=PK_NAMES)


def given(A, u0, t0, T, boluses, infusions=()) -> np.ndarray:
    """u(T) of u' = A u; with boluses (time, amount, into) and infusions (time, amount, into, duration)."""
    n = len(u0)
    state, extended = expm(A * (T - t0)) @ u0, np.zeros((n + 1, n + 1), dtype=complex)
    for time, amount, into in boluses:
        if np.real(time) <= np.real(T):
            state = state + expm(A * (T - time))[:, into] * amount
    for time, amount, into, duration in infusions:
        if np.real(time) > np.real(T):
            continue
        end = time + duration if np.real(time + duration) < np.real(T) else T
        extended[:n, :n], extended[:n, n] = A, np.eye(n)[into] * amount / duration
        state = state + expm(A * (T - end)) @ expm(extended * (end - time))[:n, n]
    return state


def drug_at(u0, theta, t0, T) -> np.ndarray:
    absorption, elimination, lag, fraction, first, second, large, small, infused, duration = theta
    A = np.array([[-absorption, 0.0], [absorption, -elimination]])
    boluses = [(first + lag, fraction * large, 0), (second + lag, fraction * small, 0)]
    return given(A, u0, t0, T, boluses, [(PK_INFUSED_AT, infused, 1, duration)])


# --- two compartments: gut, blood, tissue; theta = absorption, elimination, to tissue, back, amount, fraction -------------------
TWO_THETA, TWO_SPAN = np.array([0.9, 0.25, 0.4, 0.15, 50.0, 0.6]), (0.0, 48.0)
TWO_DOSES = Doses(0.0, "theta[4]", 0, fraction="theta[5]", every=8.0, until=40.0)


def _two_f(t, u, theta, du):
    du[0] = -theta[0] * u[0]
    du[1] = theta[0] * u[0] - (theta[1] + theta[2]) * u[1] + theta[3] * u[2]
    du[2] = theta[2] * u[1] - theta[3] * u[2]


@functools.cache
def two_compartments() -> Dynamics:
    return Dynamics(_two_f, name="two compartments")


def two_at(u0, theta, t0, T) -> np.ndarray:
    ka, ke, k12, k21, amount, fraction = theta
    A = np.array([[-ka, 0.0, 0.0], [ka, -ke - k12, k21], [0.0, k12, -k21]])
    return given(A, u0, t0, T, [(time, amount * fraction, 0) for time in 8.0 * np.arange(6)])


# --- predators that are hunted: nonlinear, with all that there is; theta[4:] = threshold, what is left, and numbers of doses ---
HUNT_U0 = np.array([1.0, 1.0])
HUNT_THETA = np.array([1.5, 1.0, 3.0, 1.0, 2.2, 0.4, 1.1, 0.5, 0.3, 0.7])
HUNT_SPAN, HUNT_SEED = (0.0, 5.0), np.array([1.0, -0.7])


def _hunt_f(t, u, theta, du):
    du[0] = theta[0] * u[0] - theta[1] * u[0] * u[1]
    du[1] = -theta[2] * u[1] + theta[3] * u[0] * u[1]


def too_many(t, u, theta):
    return u[1] - theta[4]


def hunted(t, u, theta, u_new):
    u_new[1] = theta[5] * u[1] + 0.02 * t
    u_new[0] = 0.5 * u[0] + 0.1 * u[1]


HUNT = Event(too_many, hunted, direction=1.0)
HUNT_BOLUS = Doses(["theta[6]", 4.0], ["theta[7]", 0.2], 0, lag="theta[8]", fraction=0.8)
HUNT_INFUSION = Doses(2.5, 0.6, 1, duration="theta[9]")
MIXED = np.array([[2.0, 0.3], [-0.4, 1.5]])


def _mixed_hunt_f(t, u, theta, du):
    a, b = theta[0] * u[0] - theta[1] * u[0] * u[1], -theta[2] * u[1] + theta[3] * u[0] * u[1]
    du[0] = 2.0 * a + 0.3 * b
    du[1] = -0.4 * a + 1.5 * b


def _driven_f(t, u, theta, du):
    du[0] = theta[0] * u[0] * (1.0 + 0.3 * np.sin(2.0 * t)) - theta[1] * u[0] * u[1]
    du[1] = -theta[2] * u[1] + theta[3] * u[0] * u[1] + 0.1 * t


def too_many_by_then(t, u, theta):
    return u[1] - theta[4] - 0.1 * np.sin(t)


DRIVEN_THETA = np.array([1.5, 1.0, 3.0, 1.0, 2.2, 0.4, 1.137, 0.5, 0.271, 0.653])  # no time of a jump is in step with the others
DRIVEN_HUNT = Event(too_many_by_then, hunted, direction=1.0)


@functools.cache
def driven() -> Dynamics:
    """A hunt that depends on time, as does its threshold."""
    return Dynamics(_driven_f, name="driven")


def driven_jumps(terminal: int = 0) -> dict:
    event = Event(too_many_by_then, hunted, direction=1.0, terminal=terminal) if terminal else DRIVEN_HUNT
    return {"doses": [HUNT_BOLUS, Doses(2.537, 0.6, 1, duration="theta[9]")], "events": event}


@functools.cache
def hunt() -> Dynamics:
    return Dynamics(_hunt_f, name="hunt")


@functools.cache
def mixed_hunt() -> Dynamics:
    """The same with a regular mass matrix."""
    return Dynamics(_mixed_hunt_f, mass=MIXED, name="mixed hunt")


def hunt_jumps() -> dict:
    return {"doses": [HUNT_BOLUS, HUNT_INFUSION], "events": HUNT}


@functools.cache
def hunt_gradient(backwards: bool = False) -> tuple[float, np.ndarray]:
    """Value and gradient (u0, then theta) of HUNT_SEED . u(T) by differences of tight solves, of the sixth order."""

    def value(x):
        span = HUNT_SPAN[::-1] if backwards else HUNT_SPAN
        tight = {"method": "Vern9", "rtol": 1e-13, "atol": 1e-13, **hunt_jumps()}
        return HUNT_SEED @ solve(hunt(), x[:2], x[2:], span, **tight).u_T

    x = np.concatenate([HUNT_U0, HUNT_THETA])
    return value(x), differences(value, x, 1e-3)


def differences(value, x, h) -> np.ndarray:
    """Differences of the sixth order."""
    return np.array([sum(w * value(x + k * h * unit) for k, w in _SIXTH) / h for unit in np.eye(x.size)])


_SIXTH = ((-3, -1 / 60), (-2, 3 / 20), (-1, -3 / 4), (1, 3 / 4), (2, -3 / 20), (3, 1 / 60))
