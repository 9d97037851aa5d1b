"""Globals that change between two `Dynamics`: the new one has the new value, also where Numba has compiled the old one in."""

import math
import sys

import numba
import numpy as np
import pytest

import adjode
from adjode.model.constants import with_current_constants

RATE = 1.0


@numba.njit
def slope(u):
    return -RATE * u


@numba.njit
def jitted(t, u, theta, du):
    du[0] = -RATE * u[0]


def calls_jitted(t, u, theta, du):
    du[0] = slope(u[0])


def calls_jitted_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = slope(lam[0])


@numba.njit
def weighted(k, t, u, u_bar):
    u_bar[0] = RATE
    return RATE * u[0]


@numba.njit
def countdown(k):
    return 0.0 if k == 0 else RATE + countdown(k - 1)


@pytest.fixture
def set_rate(monkeypatch):
    return lambda value: monkeypatch.setattr(sys.modules[__name__], "RATE", value)


@pytest.mark.parametrize(
    "given", [(jitted,), (calls_jitted,), (calls_jitted, calls_jitted_vjp)], ids=["jitted", "calls", "by hand"]
)
def test_a_new_dynamics_takes_the_new_value(given, set_rate):
    for rate in (1.0, 3.0, 1.0):
        set_rate(rate)
        solution = adjode.solve(adjode.Dynamics(*given), [1.0], [], (0.0, 1.0), rtol=1e-8, atol=1e-8)
        assert solution.u_T[0] == pytest.approx(math.exp(-rate), rel=1e-6)
        assert solution.pullback([1.0]).u0[0] == pytest.approx(math.exp(-rate), rel=1e-6)


def test_an_old_dynamics_keeps_its_value(set_rate):
    set_rate(1.0)
    old = adjode.Dynamics(calls_jitted)
    before = adjode.solve(old, [1.0], [], (0.0, 1.0)).u_T
    set_rate(3.0)
    assert np.array_equal(adjode.solve(old, [1.0], [], (0.0, 1.0)).u_T, before)


def test_losses_too(set_rate):
    values = []
    for rate in (1.0, 3.0):
        set_rate(rate)
        loss = adjode.losses.Series([0.5], weighted)
        values.append(adjode.value_and_gradient(adjode.Dynamics(jitted), loss, (0.0, 1.0))([1.0], [])[0])
    assert values == pytest.approx([math.exp(-0.5), 3.0 * math.exp(-1.5)], rel=1e-5)


@pytest.mark.jitted
def test_what_has_not_changed_is_left_alone(set_rate):
    set_rate(1.0)
    assert with_current_constants(jitted) is jitted and with_current_constants(calls_jitted) is calls_jitted
    assert with_current_constants(countdown) is countdown and countdown(2) == 2.0
    set_rate(2.0)
    assert with_current_constants(countdown)(2) == 4.0 and countdown(2) == 2.0
