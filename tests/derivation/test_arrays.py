"""Arrays that are written over as wholes, tables that are interpolated, and lists: the derived products are right."""

import numpy as np
import pytest

from adjode import Dynamics, check_vjp, derive

XP, FP = np.array([0.0, 0.5, 1.1, 2.0]), np.array([1.0, -0.5, 0.7, 0.2])


def square(t, u, theta, du):
    v = np.empty(2)
    v[:] = u
    v *= v
    du[:] = v * v


def of_a_calculated_one(t, u, theta, du):
    v = u * theta[:2]
    w = v.copy()
    v *= v
    v += u
    v *= np.sin(v)
    du[:] = v * w


def in_a_loop(t, u, theta, du):
    v = np.zeros(u.size)
    for j in range(3):
        v += u * theta[j]
        v *= v
        v -= 0.1 * v * v
    du[:] = v


def in_branches(t, u, theta, du):
    v = u.copy()
    if u[0] > 0.0:
        v *= v
        v /= 1.0 + v
    else:
        v *= theta[:2]
        v *= v
    du[:] = v * v


def of_a_loop(t, u, theta, du):
    for k in range(2):
        v = u * theta[k]
        v *= v
        du[k] = v.sum() + (v * v).sum()


def in_nested_loops(t, u, theta, du):
    v = u * 2.0
    for i in range(2):
        for j in range(i + 1):
            v *= np.cos(v) + theta[j]
        v **= 2
    du[:] = v


def of_the_result(t, u, theta, du):
    du[:] = u
    du *= du
    du *= theta[:2]
    du /= 1.0 + du


def of_a_matrix(t, u, theta, du):
    A = np.zeros((2, 2))
    for i in range(2):
        for j in range(2):
            A[i, j] = theta[2 * i + j] * u[j]
    for k in range(2):
        A *= A
        A += 1.0
        A[k] *= u
        A[:, k] *= A[:, k]
    du[:] = A @ u


def by_a_function(t, u, theta, du):
    v = np.tanh(u)
    np.exp(v, v)
    np.dot(theta.reshape(2, 2), v, du)


def table(t, u, theta, du):
    du[0] = np.interp(u[0], XP, FP) * theta[0]
    du[1] = np.interp(t + u[1], XP, theta)


def table_of_a_vector(t, u, theta, du):
    du[:] = np.interp(u * u, XP, FP) * theta[1]


def table_in_loops(t, u, theta, du):
    for i in range(u.size):
        s = 0.0
        for j in range(3):
            s += np.interp(u[i] * (j + 1.0) * 0.3, XP, theta)
        du[i] = s * u[i]


def lists(t, u, theta, du):
    x = [theta[i] * u[i] ** 2 for i in range(2)]
    v = np.array([u[i] + theta[j] for i, j in ((0, 1), (1, 2))])
    v *= v
    du[0] = sum(x) + v[0]
    du[1] = x[0] * x[1] * v[1]


PROGRAMS = [
    square,
    of_a_calculated_one,
    in_a_loop,
    in_branches,
    of_a_loop,
    in_nested_loops,
    of_the_result,
    of_a_matrix,
    by_a_function,
    table,
    table_of_a_vector,
    table_in_loops,
    lists,
]
STATES = [np.array([0.7, 0.4]), np.array([-0.7, 2.3]), np.array([1.2, -0.4])]
THETA = np.array([0.5, 0.8, -0.3, 0.6])


def differences(f, u, theta, u_dot, theta_dot, h=1e-5):
    """The derivative along a direction, by extrapolated central differences."""

    def quotient(h):
        sides = np.zeros((2, 2))
        for side, sign in zip(sides, (1.0, -1.0), strict=True):
            f(0.0, u + sign * h * u_dot, theta + sign * h * theta_dot, side)
        return (sides[0] - sides[1]) / (2.0 * h)

    return (4.0 * quotient(h) - quotient(2.0 * h)) / 3.0


@pytest.mark.parametrize("f", PROGRAMS, ids=lambda f: f.__name__)
def test_products_agree_with_differences_and_each_other(f):
    derived, rng = derive(f), np.random.default_rng(1)
    for u in STATES:
        u_dot, theta_dot, lam = rng.normal(size=2), rng.normal(size=4), rng.normal(size=2)
        du_dot, u_bar, u_bar_alone, theta_bar = np.full(2, np.nan), np.full(2, np.nan), np.full(2, np.nan), np.full(4, np.nan)
        derived.jvp(0.0, u, THETA, u_dot, theta_dot, du_dot)
        derived.vjp(0.0, u, THETA, lam, u_bar, theta_bar)
        derived.vjp_u(0.0, u, THETA, lam, u_bar_alone)
        np.testing.assert_allclose(du_dot, differences(f, u, THETA, u_dot, theta_dot), rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(u_bar @ u_dot + theta_bar @ theta_dot, lam @ du_dot, rtol=1e-12)
        np.testing.assert_allclose(u_bar_alone, u_bar, rtol=1e-13)


@pytest.mark.parametrize("f", PROGRAMS, ids=lambda f: f.__name__)
def test_change_of_the_vjp_agrees_with_differences(f):
    derived, rng, u, h = derive(f), np.random.default_rng(2), STATES[0], 1e-5
    u_dot, theta_dot, lam, lam_dot = rng.normal(size=2), rng.normal(size=4), rng.normal(size=2), rng.normal(size=2)

    def bars(step):
        u_bar, theta_bar = np.empty(2), np.empty(4)
        derived.vjp(0.0, u + step * u_dot, THETA + step * theta_dot, lam + step * lam_dot, u_bar, theta_bar)
        return np.append(u_bar, theta_bar)

    u_bar_dot, theta_bar_dot = np.full(2, np.nan), np.full(4, np.nan)
    derived.vjp_dot(0.0, u, THETA, lam, u_dot, theta_dot, lam_dot, u_bar_dot, theta_bar_dot)
    expected = (4.0 * (bars(h) - bars(-h)) / (2.0 * h) - (bars(2.0 * h) - bars(-2.0 * h)) / (4.0 * h)) / 3.0
    np.testing.assert_allclose(np.append(u_bar_dot, theta_bar_dot), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.jitted
@pytest.mark.parametrize("f", [in_nested_loops, table], ids=lambda f: f.__name__)
def test_they_compile(f):
    check_vjp(Dynamics(f), STATES[0], THETA).raise_if_wrong()


def test_slopes_at_the_points_of_a_table():
    """Those behind them; none beyond the ends."""
    slopes = np.append(np.diff(FP) / np.diff(XP), 0.0)
    slopes[0] = 0.0  # at the first point, and before it
    vjp = derive(table).vjp
    for x, slope in zip(XP, slopes, strict=True):
        u_bar, theta_bar = np.empty(2), np.empty(4)
        vjp(0.0, np.array([x, 0.0]), np.ones(4), np.array([1.0, 0.0]), u_bar, theta_bar)
        assert u_bar[0] == pytest.approx(slope)


def more(t, u, theta):
    return np.array([u[0] * theta[1], theta[0], u[0] ** 2])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_functions_with_more_or_fewer_results_than_states(n):
    """Only a right-hand side sets as many entries as u has, so that what others set says nothing of u_bar."""
    vjp = derive(more, ("t", "u", "theta")).vjp
    u_bar, theta_bar = np.full(n, np.nan), np.full(2, np.nan)
    vjp(0.0, np.full(n, 3.0), np.array([1.0, 2.0]), np.array([1.0, 10.0, 100.0]), u_bar, theta_bar)
    np.testing.assert_array_equal(u_bar, [602.0, *[0.0] * (n - 1)])
    np.testing.assert_array_equal(theta_bar, [10.0, 3.0])
