"""tanh and its like, and sums, in callbacks that loop: other forms than Numba's own, with the same results but for rounding."""

import functools
import math
from math import exp as bare_exp

import numba
import numpy as np
import pytest

from adjode import Dynamics, SolveError, check_vjp, functions, solve
from adjode.derivation import derive
from adjode.model.callbacks import callback
from adjode.model.sums import with_sums
from adjode.model.vectorised import vectorised

N = 40
U = np.random.default_rng(3).normal(size=N)
THETA = np.random.default_rng(4).normal(size=N)
ULPS = 4.0 * np.finfo(float).eps


def looped(function):
    def f(t, u, theta, du):
        for i in range(u.size):
            du[i] = function(theta[i] * u[i])

    return f


def by_module(t, u, theta, du):
    for i in range(u.size):
        du[i] = np.tanh(theta[i] * u[i])


def by_math(t, u, theta, du):
    for i in range(u.size):
        du[i] = math.tanh(theta[i] * u[i])


def bare(t, u, theta, du):
    i = 0
    while i < u.size:
        du[i] = bare_exp(theta[i] * u[i])
        i += 1


@numba.njit
def activation(x):
    return np.tanh(x)


@numba.njit("f8(f8)")
def typed_activation(x):
    return np.tanh(x)


def by_helper(t, u, theta, du):
    for i in range(u.size):
        du[i] = activation(theta[i] * u[i])


def coupled(t, u, theta, du):
    for i in range(u.size):
        s = 0.0
        for j in range(u.size):
            s += math.sin(u[j] - u[i])
        du[i] = theta[i] * np.log(1.0 + u[i] * u[i]) + s


def whole(t, u, theta, du):
    du[:] = np.tanh(theta * u)


def whole_into(t, u, theta, du):
    z = theta * u
    np.tanh(z, z)
    np.exp(z, du)


def turned(t, u, theta, du):
    z = np.exp((theta * u).reshape(2, u.size // 2).T)
    for j in range(2):
        for i in range(u.size // 2):
            du[j * (u.size // 2) + i] = z[i, j]


def straight(t, u, theta, du):
    du[0] = np.tanh(u[0]) + math.exp(u[1])


def called(function, u=U, theta=THETA):
    du = np.full_like(u, np.nan)
    callback("f", function)(0.0, u, theta, du)
    return du


@pytest.mark.jitted
@pytest.mark.parametrize("f", [by_module, by_math, by_helper, whole])
def test_forms_of_adjode_take_their_place(f):
    np.testing.assert_array_equal(called(f), called(looped(functions.tanh)))


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (by_module, np.tanh(THETA * U)),
        (bare, np.exp(THETA * U)),
        (coupled, THETA * np.log(1.0 + U * U) + np.sin(U - U[:, None]).sum(axis=1)),
        (whole_into, np.exp(np.tanh(THETA * U))),
        (turned, np.exp(THETA * U)),
        (looped(typed_activation), np.tanh(THETA * U)),
    ],
)
def test_values_are_those_of_numpy(f, expected):
    np.testing.assert_allclose(called(f), expected, rtol=ULPS, atol=ULPS)
    if f is not whole_into:  # which is not derived
        check_vjp(Dynamics(f), U, THETA).raise_if_wrong()


@pytest.mark.jitted
def test_what_is_left_alone():
    assert vectorised(straight).__globals__["math"] is math
    assert vectorised(looped(np.arctan)).__closure__[0].cell_contents is np.arctan
    assert vectorised(looped(typed_activation)).__closure__[0].cell_contents is typed_activation


@pytest.mark.jitted
def test_numbers_of_other_types():
    def f(t, u, theta, du):
        single = np.zeros(2, dtype=np.float32)
        for i in range(2):
            du[i] = np.tanh(i) + np.tanh(single).sum() + np.exp(np.float32(0.0)) + np.exp(np.arange(3))[i] + math.exp(1)

    expected = [np.tanh(i) + 1.0 + np.exp(i) + math.e for i in range(2)]
    np.testing.assert_allclose(called(f, np.zeros(2)), expected, rtol=1e-15)


# --- sums -------------------------------------------------------------------------------------------------------------------


def dots(t, u, theta, du):
    for i in range(u.size):
        s, count, rest = 0.0, 0, 1.0
        for j in range(u.size):
            s += theta[j] * u[j]
            count += j
            rest -= 0.5 * u[j]
        du[i] = s + count + rest


def compensated(t, u, theta, du):
    s, lost = 0.0, 0.0
    for i in range(u.size):
        y = u[i] - lost
        total = s + y
        lost = (total - s) - y
        s = total
    du[:] = s


def prefixes(t, u, theta, du):
    s = 0.0
    for i in range(u.size):
        s += u[i]
        du[i] = s


def in_place(t, u, theta, du):
    v = np.zeros(2)
    w = v
    for i in range(u.size):
        v += u[i]
    du[:] = w[0]


def test_sums_are_right():
    np.testing.assert_allclose(called(dots), U @ THETA + N * (N - 1) / 2 + 1.0 - 0.5 * U.sum(), rtol=1e-13)
    np.testing.assert_allclose(called(in_place), U.sum(), rtol=1e-13)
    check_vjp(Dynamics(dots), U, THETA).raise_if_wrong()


def test_what_is_no_sum_keeps_its_order():
    assert with_sums(compensated) is compensated
    assert with_sums(prefixes) is prefixes
    u = np.array([1.0, 1e-16, 1e-16, 1e-16, 1e-16])
    np.testing.assert_array_equal(called(compensated, u), 1.0 + 4e-16)
    np.testing.assert_array_equal(called(prefixes, u), np.cumsum(u))


# --- the user's own text -------------------------------------------------------------------------------------------------------


def raises(t, u, theta, du):
    s = 0.0
    for i in range(u.size):
        s += np.tanh(u[i])
        if s > -100.0:
            raise ArithmeticError("too late")
    du[:] = s


def beyond(t, u, theta, du):
    s = 0.0
    for i in range(u.size):
        s += np.tanh(u[i]) * theta[i + int(t > 0.5)]
    du[:] = s


@pytest.mark.parametrize(("f", "message"), [(raises, "raise ArithmeticError"), (beyond, r"s \+= np.tanh\(u\[i\]\)")])
def test_errors_show_it(f, message):
    dynamics = Dynamics(f, lambda t, u, theta, lam, u_bar, theta_bar: None, debug=True)
    with pytest.raises(SolveError, match=message):
        solve(dynamics, U[:2], THETA[:2], (0.0, 1.0))


def twice(f):
    @functools.wraps(f)
    def inner(t, u, theta, du):
        du[0] = 2.0 * u[0]

    return inner


@twice
def decorated(t, u, theta, du):
    du[0] = u[0]


def test_a_wrapper_is_read_and_not_what_it_wraps():
    assert "2.0" in derive(decorated).vjp_source


def test_fields_too():
    def f(t, u, theta, du):
        s = 0.0
        for i in range(2):
            s += np.tanh(theta.rates[i] * u.level)
        du.level = s

    dynamics = Dynamics(f, states=("level",), parameters=(("rates", 2),))
    np.testing.assert_allclose(called_on(dynamics, [0.3], [0.5, 2.0]), np.tanh(0.15) + np.tanh(0.6), rtol=ULPS)
    check_vjp(dynamics, [0.3], [0.5, 2.0]).raise_if_wrong()


def called_on(dynamics, u, theta):
    du = np.zeros(len(u))
    dynamics.f(0.0, np.array(u), np.array(theta), du)
    return du
