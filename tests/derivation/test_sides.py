"""On which sides of its comparisons with the state f is."""

import numba
import numpy as np
import pytest

from adjode.derivation.sides import sides_of

THETA = np.array([1.0, 2.0])
IN_PLACE, RETURNED = ("t", "u", "theta", "du"), ("t", "u", "theta")


def by_if(t, u, theta, du):
    if u[0] > theta[0] and t < 3.0:
        du[0] = 1.0
    elif u[0] < -theta[0]:
        du[0] = -1.0
    else:
        du[0] = 0.0


def by_choice(t, u, theta, du):
    du[0] = max(0.0, u[0] - theta[0]) + min(-1.0 * theta[0], u[0])


def by_clip(t, u, theta, du):
    du[:] = np.clip(u, -1.0, 1.0)


def by_where(t, u, theta, du):
    du[:] = np.where(np.abs(u) > theta[0], u, 0.0)


def by_sign(t, u, theta, du):
    du[0] = np.sign(u[0] + 1.0) + np.floor(0.5 * (u[0] + 1.0))


@numba.njit
def _above(x, least=1.0):
    return x if x > least else 0.0


def _below(x, most):
    for _ in range(2):
        if x < most:
            return x
    return 0.0


_below = numba.njit(_below)


def by_helpers(t, u, theta, du):
    du[0] = _above(u[0]) + _below(u[0], -theta[0])


def returned(t, u, theta):
    return np.array([abs(u[0] + 1.0) * abs(u[0] - 1.0), u[1]])


def in_a_loop(t, u, theta, du):
    total = 0.0
    for k in range(u.size):
        total += 1.0 if u[k] * u[k] > theta[0] else 0.0
    du[:] = total + (0.0 if u[0] > 0.0 else 1.0)


WHOLE = [pytest.param(f, marks=pytest.mark.slow) for f in (by_clip, by_where)]


@pytest.mark.parametrize("f", [by_if, by_choice, by_sign, by_helpers, returned, in_a_loop, *WHOLE])
def test_three_sides(f):
    """Each of these f has kinks or jumps at u[0] = -1 and 1."""
    sides, value = numba.njit(sides_of(f, RETURNED if f is returned else IN_PLACE)), np.zeros(1)

    def side(x):
        sides(1.0, np.array([x, 0.5]), THETA, np.zeros(2), value)
        return value[0]

    states = (-1.2, -2.5), (-0.9, -0.3), (1.1, 2.4) if f is not by_sign else (1.1, 2.9)
    found = [{side(x) for x in pair} for pair in states]
    assert [len(one) for one in found] == [1, 1, 1]
    assert len(set.union(*found)) == 3


def smooth(t, u, theta, du):
    du[0] = -theta[0] * u[0] + np.sin(t)


def by_time(t, u, theta, du):
    du[0] = -u[0] if t < theta[0] else -max(t, 2.0) * u[0]


def by_theta(t, u, theta, du):
    du[0] = -u[0] if theta[0] > 0.0 else u[0]


@pytest.mark.parametrize("f", [smooth, by_time, by_theta, numba.njit(smooth)])
def test_what_does_not_compare_the_state_has_no_sides(f):
    assert sides_of(f, IN_PLACE) is None


def test_a_lambda_has_none_as_nothing_can_be_put_down_in_it():
    assert sides_of(lambda t, u, theta: -np.maximum(u, 0.0), RETURNED) is None
