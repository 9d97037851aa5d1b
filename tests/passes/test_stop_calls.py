"""Known times at which f jumps: no callback is called on the other side."""

import functools

import numba
import numpy as np
import pytest

from adjode import Dynamics, solve
from adjode.tableaus import METHODS, tableau
from tests.problems.jumps import DIRECTIONS, END, FIRST, JUMP_THETA, JUMP_U0, SECOND, SEED, callbacks, own_time, span_of

UP, DOWN = np.nextafter(FIRST, 2.0), np.nextafter(FIRST, 0.0)
TIMES = np.array([0.0, 0.4, DOWN, FIRST, UP, 1.7, SECOND, 3.1, END])
_PARAMETERS, _ROOM = 4, 20_000


@functools.cache
def logging(sign):
    """The same, with the times of all calls written behind the parameters: their number first."""
    f, vjp, g, g_vjp = callbacks(sign, False)
    plain = [numba.njit(function) for function in (f, vjp, g, g_vjp)]
    f_, vjp_, g_, g_vjp_ = plain

    @numba.njit
    def note(t, theta):
        theta[_PARAMETERS] += 1.0
        place = _PARAMETERS + int(theta[_PARAMETERS])
        if place < theta.size:
            theta[place] = t

    def logged_f(t, u, theta, du):
        note(t, theta)
        f_(t, u, theta, du)

    def logged_vjp(t, u, theta, lam, u_bar, theta_bar):
        note(t, theta)
        vjp_(t, u, theta, lam, u_bar, theta_bar)

    def logged_g(t, u, theta):
        note(t, theta)
        return g_(t, u, theta)

    def logged_g_vjp(t, u, theta, u_bar, theta_bar):
        note(t, theta)
        g_vjp_(t, u, theta, u_bar, theta_bar)

    return Dynamics(logged_f, logged_vjp), (logged_g, logged_g_vjp)


def take_log(theta):
    """The times noted since the last look."""
    count = int(theta[_PARAMETERS])
    assert count < _ROOM
    times = theta[_PARAMETERS + 1 : _PARAMETERS + 1 + count].copy()
    theta[_PARAMETERS:] = 0.0
    return times


def assert_in_order(times, stops, sign, passes=1):
    """No call at a stop, and none back on the side that a pass has left, of which there are so many one after the other."""
    assert times.size > 0 and not np.isin(times, stops).any()
    side = np.searchsorted(np.sort(stops), times)
    assert np.count_nonzero(sign * np.diff(side) < 0) < passes


LOGGED_STOPS = {
    "inside": [FIRST, SECOND],
    "near the start": [1e-9, FIRST, SECOND],
    "near the end": [FIRST, SECOND, END - 1e-9],
    "at both ends": [0.0, FIRST, SECOND, END],
    "a spacing apart": [DOWN, FIRST, UP, SECOND],
    "many": [*np.linspace(0.1, 3.9, 39)],
}


METHOD_NAMES = [name for name in METHODS if tableau(name).adaptive and tableau(name).name == name]
# each method, and more places for one of each family, and for the one with a stage behind the end of a step
CASES = [(method, places) for method in METHOD_NAMES for places in ("inside", "a spacing apart")] + [
    (method, places)
    for method in ("Tsit5", "Radau", "Kvaerno5", "Rodas5P")
    for places in ("near the start", "near the end", "at both ends", "many")
]


@pytest.mark.jitted
@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")  # of one run alone the calls are looked at
@pytest.mark.parametrize("sign", DIRECTIONS.values(), ids=DIRECTIONS.keys())
@pytest.mark.parametrize(("method", "places"), CASES)
def test_every_call_is_on_its_side(method, places, sign):
    stops = own_time(sign, np.array(LOGGED_STOPS[places]))
    dynamics, cost = logging(sign)
    theta = np.concatenate([JUMP_THETA, np.zeros(_ROOM)])
    options = {"rtol": 1e-4, "atol": 1e-4, "method": method}
    solution = solve(dynamics, JUMP_U0, theta, span_of(sign), stops=stops, **options)
    assert_in_order(take_log(solution.theta), stops, sign)
    times = own_time(sign, TIMES)
    observations = times, np.ones((times.size, 2))
    for adjoint in ("discrete", "interpolating"):
        if adjoint == "discrete" and method == "Rodas5P":
            continue
        how = {"adjoint": adjoint} | ({"on_inaccurate": "warn"} if adjoint == "discrete" else {})
        for u_T_bar in (SEED, None):
            for extra in ({}, {"running_cost": cost}):
                solution.pullback(u_T_bar, observations=observations, wrt=("u0", "theta"), **how, **extra)
                # the interpolating adjoint integrates the cost before it does lam
                assert_in_order(take_log(solution.theta), stops, -sign, passes=2 if extra and adjoint == "interpolating" else 1)
