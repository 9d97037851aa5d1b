"""Functions that `scipy.integrate.solve_ivp` takes as events, unchanged, beside it."""

import functools

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from adjode import Dynamics, solve

RTOL = 1e-9
THETA = np.array([0.1, 2.0])


def _swings_f(t, u, theta, du):
    du[0] = u[1]
    du[1] = -theta[0] * u[1] - theta[1] * np.sin(u[0]) + 0.3 * np.cos(1.7 * t)


@functools.cache
def swings():
    return Dynamics(_swings_f, name="swings")


def slope(t, u):
    du = np.zeros(2)
    _swings_f(t, u, THETA, du)
    return du


def as_event(function, terminal=None, direction=None):
    """The function with the attributes that SciPy reads."""

    def event(t, y):
        return function(t, y)

    if terminal is not None:
        event.terminal = terminal
    if direction is not None:
        event.direction = direction
    return event


def lowest(t, y):
    return y[0]


def turns(t, y):
    return y[1]


def fast(t, y):
    return y[1] - 1.0


def energy(t, y):
    return 0.5 * y[1] ** 2 + 2.0 * (1.0 - np.cos(y[0])) - 1.2


def late(t, y):
    return t - 4.2


def never(t, y):
    return y[0] + 50.0


def waves(t, y):
    return np.sin(3.0 * t + 0.4) - 0.3 * y[0]


FORWARDS, BACKWARDS = (0.0, 9.0), (9.0, 0.5)
EXAMPLES = {
    "a function as it is": (FORWARDS, [(lowest,)]),
    "two": (FORWARDS, [(lowest,), (turns,)]),
    "rising": (FORWARDS, [(lowest, None, 1)]),
    "falling": (FORWARDS, [(lowest, None, -1)]),
    "a direction of any size": (FORWARDS, [(turns, None, 2.5), (turns, None, -0.1)]),
    "no direction": (FORWARDS, [(fast, None, 0)]),
    "the first ends it": (FORWARDS, [(lowest, True)]),
    "not the first": (FORWARDS, [(lowest, False)]),
    "the second ends it": (FORWARDS, [(lowest, 2)]),
    "the third falling one ends it": (FORWARDS, [(turns, 3, -1)]),
    "as often as it does not happen": (FORWARDS, [(lowest, 40)]),
    "one ends what others see": (FORWARDS, [(turns,), (lowest, 2), (energy, None, 1)]),
    "the earlier of two ends it": (FORWARDS, [(late, True), (turns, 2)]),
    "by time alone": (FORWARDS, [(late,)]),
    "never": (FORWARDS, [(never,)]),
    "never, beside one that does": (FORWARDS, [(never, True), (energy,)]),
    "nonlinear": (FORWARDS, [(energy, None, -1)]),
    "often": (FORWARDS, [(waves,), (waves, 4, 1)]),
    "backwards": (BACKWARDS, [(lowest,), (turns, None, 1)]),
    "backwards, to the second falling one": (BACKWARDS, [(fast,), (turns, 2, -1)]),
}


@pytest.mark.slow  # guards are compiled for each
@pytest.mark.parametrize("name", EXAMPLES)
def test_as_solve_ivp(name):
    span, described = EXAMPLES[name]
    events = [as_event(*one) for one in described]
    given = events[0] if len(events) == 1 else events
    u0 = np.array([1.0, 0.2])
    theirs = solve_ivp(slope, span, u0, method="DOP853", events=given, rtol=1e-11, atol=1e-12)
    mine = solve(swings(), u0, THETA, span, events=given, rtol=RTOL, atol=RTOL)
    assert len(mine.t_events) == len(theirs.t_events) == len(events)
    assert sum(map(len, theirs.t_events)) > 0 or name == "never"
    for times, states, wanted, wanted_states in zip(mine.t_events, mine.u_events, theirs.t_events, theirs.y_events, strict=True):
        assert times.shape == wanted.shape
        np.testing.assert_allclose(times, wanted, rtol=0.0, atol=100.0 * RTOL)
        assert states.shape == (wanted_states.shape if wanted.size else (0, 2))  # where SciPy has an array without entries
        np.testing.assert_allclose(states, wanted_states.reshape(-1, 2), rtol=0.0, atol=100.0 * RTOL)
    np.testing.assert_allclose([mine.t[-1], *mine.u_T], [theirs.t[-1], *theirs.y[:, -1]], rtol=0.0, atol=100.0 * RTOL)
