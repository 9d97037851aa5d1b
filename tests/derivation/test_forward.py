"""Products in forward mode: their texts, what they are on rules known by hand, and compiled."""

import math

import numpy as np
import pytest
from numba import njit

import adjode
from adjode.derivation import calling, derive, library

RNG = np.random.default_rng(3)
U, THETA, LAM = RNG.uniform(0.5, 1.5, 2), RNG.uniform(0.5, 1.5, 4), RNG.normal(size=2)
U_DOT, THETA_DOT = RNG.normal(size=2), RNG.normal(size=4)


def predators(t, u, theta, du):
    du[0] = theta[0] * u[0] - theta[1] * u[0] * u[1]
    du[1] = theta[3] * u[0] * u[1] - theta[2] * u[1]


def smoothed(t, u, theta, du):
    mean = 0.0
    for i in range(u.size):
        mean = 0.5 * mean + u[i]
        du[i] = theta[0] * math.tanh(mean) + math.sin(t)


def energy(t, u, theta):
    total = 0.0
    for i in range(u.size):
        total += theta[i] * u[i] ** 2 * u[0]
    return total + theta[2] * theta[3] * max(u[0], u[1])


def test_text_of_a_jvp():
    def f(t, u, theta, du):
        rate = theta[0] * math.exp(-u[0])
        du[0] = rate * u[1]

    assert derive(f).jvp_source == (
        "def jvp(t, u, theta, u_dot, theta_dot, du_dot):\n"
        "    v = math.exp(-u[0])\n"
        "    du_dot[0] = (theta_dot[0] * v - u_dot[0] * v * theta[0]) * u[1] + u_dot[1] * theta[0] * v\n"
    )


def neighbours(t, u, theta, du):
    v = np.concatenate((u * theta[:2], theta[2:] ** 2, np.array([t * u[0]])))
    du[:] = np.diff(v)[1:3] * np.roll(v, 2)[:2] + np.roll(u, -1)


@pytest.mark.parametrize("f", [predators, smoothed, neighbours])
def test_jvp_and_vjp_are_transposes(f):
    derived, du_dot, u_bar, theta_bar = derive(f), np.full(2, np.nan), np.full(2, np.nan), np.full(4, np.nan)
    derived.jvp(0.3, U, THETA, U_DOT, THETA_DOT, du_dot)
    derived.vjp(0.3, U, THETA, LAM, u_bar, theta_bar)
    assert LAM @ du_dot == pytest.approx(u_bar @ U_DOT + theta_bar @ THETA_DOT, rel=1e-13)


def test_jvp_by_hand():
    du_dot = np.full(2, np.nan)
    derive(predators).jvp(0.0, U, THETA, U_DOT, THETA_DOT, du_dot)
    by_u = np.array([[THETA[0] - THETA[1] * U[1], -THETA[1] * U[0]], [THETA[3] * U[1], THETA[3] * U[0] - THETA[2]]])
    by_theta = np.array([[U[0], -U[0] * U[1], 0.0, 0.0], [0.0, 0.0, -U[1], U[0] * U[1]]])
    np.testing.assert_allclose(du_dot, by_u @ U_DOT + by_theta @ THETA_DOT, rtol=1e-14)


def test_derivative_by_time():
    du_dot = np.full(2, np.nan)
    derive(smoothed).df_dt(0.3, U, THETA, du_dot)
    np.testing.assert_allclose(du_dot, math.cos(0.3), rtol=1e-15)


def test_jvp_of_a_number_is_returned():
    derived, u_bar, theta_bar = derive(energy), np.full(2, np.nan), np.full(4, np.nan)
    derived.vjp(0.0, U, THETA, u_bar, theta_bar)
    assert derived.jvp(0.0, U, THETA, U_DOT, THETA_DOT) == pytest.approx(u_bar @ U_DOT + theta_bar @ THETA_DOT, rel=1e-13)


def hessian(derived):
    columns = []
    for direction in np.eye(6):
        u_bar_dot, theta_bar_dot = np.full(2, np.nan), np.full(4, np.nan)
        derived.vjp_dot(0.0, U, THETA, direction[:2].copy(), direction[2:].copy(), u_bar_dot, theta_bar_dot)
        columns.append(np.concatenate([u_bar_dot, theta_bar_dot]))
    return np.array(columns)


def test_hessian_is_symmetric():
    H = hessian(derive(energy))
    np.testing.assert_allclose(H, H.T, rtol=1e-13)
    assert H[0, 0] == pytest.approx(6.0 * THETA[0] * U[0], rel=1e-13)
    assert H[4, 5] == max(U)


def test_second_order_is_the_change_of_the_vjp():
    derived, h, lam_dot = derive(smoothed), 1e-5, RNG.normal(size=2)
    ends = []
    for s in (h, -h):
        u_bar, theta_bar = np.empty(2), np.empty(4)
        derived.vjp(0.3, U + s * U_DOT, THETA + s * THETA_DOT, LAM + s * lam_dot, u_bar, theta_bar)
        ends.append(np.concatenate([u_bar, theta_bar]))
    u_bar_dot, theta_bar_dot = np.full(2, np.nan), np.full(4, np.nan)
    derived.vjp_dot(0.3, U, THETA, LAM, U_DOT, THETA_DOT, lam_dot, u_bar_dot, theta_bar_dot)
    np.testing.assert_allclose(np.concatenate([u_bar_dot, theta_bar_dot]), (ends[0] - ends[1]) / (2.0 * h), rtol=1e-7, atol=1e-9)


@pytest.mark.jitted
def test_texts_compile():
    derived, du_dot, u_bar_dot, theta_bar_dot = derive(njit(smoothed)), np.empty(2), np.empty(2), np.empty(4)
    results = []
    for of in (lambda function: function, lambda function: function.py_func):
        of(derived.jvp)(0.3, U, THETA, U_DOT, THETA_DOT, du_dot)
        of(derived.vjp_dot)(0.3, U, THETA, LAM, U_DOT, THETA_DOT, LAM, u_bar_dot, theta_bar_dot)
        results.append(np.concatenate([du_dot, u_bar_dot, theta_bar_dot]))
    np.testing.assert_allclose(*results, rtol=1e-13)


def test_what_is_returned_counts_as_a_use():
    def g(t, u, theta):
        x = u[1]
        if u[0] > 0.0:
            x = math.tanh(theta[0])
        return (0.5 if theta[1] > 0.0 else x) + x

    expected = THETA_DOT[0] / math.cosh(THETA[0]) ** 2
    assert derive(g).jvp(0.0, U, THETA, U_DOT, THETA_DOT) == pytest.approx(expected, rel=1e-13)


def root(x, y):
    for _ in range(60):
        x = 0.5 * (x + y / x)
    return x


def root_vjp(x, y, bar):
    return 0.0, 0.5 * bar / root(x, y)


def root_jvp(x, y, x_dot, y_dot):
    return 0.5 * y_dot / root(x, y)


@pytest.mark.parametrize("rules", [{"vjp": root_vjp}, {"jvp": root_jvp}, {"vjp": root_vjp, "jvp": root_jvp}])
def test_one_taught_rule_is_enough(rules, monkeypatch):
    monkeypatch.setattr(library, "TAUGHT", {})
    monkeypatch.setattr(calling, "TAUGHT", library.TAUGHT)
    adjode.derivative(root, **rules)

    def g(t, u, theta):
        return theta[0] * root(u[0], u[1])

    derived, u_bar, theta_bar = derive(g), np.full(2, np.nan), np.full(4, np.nan)
    derived.vjp(0.0, U, THETA, u_bar, theta_bar)
    np.testing.assert_allclose(u_bar, [0.0, 0.5 * THETA[0] / math.sqrt(U[1])], rtol=1e-12)
    assert derived.jvp(0.0, U, THETA, U_DOT, THETA_DOT) == pytest.approx(u_bar @ U_DOT + theta_bar @ THETA_DOT, rel=1e-12)
