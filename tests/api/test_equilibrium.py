"""States of rest: closed forms, what is conserved, derivatives by the implicit function theorem, and where there is none."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from adjode import Dynamics, SolveError, steady_state


def enzyme(t, u, theta, du):
    bound = theta.on * u.enzyme * u.substrate - theta.off * u.complex_
    made = theta.made * u.complex_
    du.enzyme = made - bound
    du.complex_ = bound - made
    du.substrate = theta.feed - bound - theta.loss * u.substrate
    du.product = made - theta.loss * u.product


ENZYME = Dynamics(enzyme, states=("enzyme", "complex_", "substrate", "product"), parameters=("on", "off", "made", "feed", "loss"))
U0, THETA = np.array([1.0, 0.2, 0.0, 0.0]), np.array([2.0, 1.0, 0.5, 0.6, 0.1])


def exchange(t, u, theta, du):
    """Two pools, and one that drains: what is in the two together is conserved."""
    flow = theta[0] * u[0] - theta[1] * u[1]
    du[0] = -flow
    du[1] = flow
    du[2] = theta[2] - theta[1] * u[2]


EXCHANGE = Dynamics(exchange)


@pytest.mark.parametrize("options", [{}, {"method": "Radau"}, {"rtol": 1e-9, "atol": 1e-9}])
def test_closed_form(options):
    """u = (theta1, theta0) (u0 + u1) / (theta0 + theta1), theta2 / theta1; to rounding, whatever the tolerances."""
    u0, theta = np.array([2.0, 1.0, 5.0]), np.array([0.3, 0.7, 0.2])
    found = steady_state(EXCHANGE, u0, theta, **options)
    np.testing.assert_allclose(found.u, [2.1, 0.9, 2.0 / 7.0], rtol=1e-13)
    np.testing.assert_allclose(np.abs(found.conserved), [[math.sqrt(0.5), math.sqrt(0.5), 0.0]], atol=1e-13)
    u0_bar, theta_bar = found.pull_back([1.0, 10.0, 100.0])
    np.testing.assert_allclose(u0_bar, [3.7, 3.7, 0.0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(theta_bar, [18.9, -8.1 - 400.0 / 9.8, 1000.0 / 7.0], rtol=1e-12)


def test_derivatives_against_differences():
    found, weights, step = steady_state(ENZYME, U0, THETA), np.array([0.3, -1.0, 2.0, 0.5]), 1e-5
    u0_bar, theta_bar = found.pull_back(weights)

    def value(u0, theta):
        return weights @ steady_state(ENZYME, u0, theta).u

    by_u0 = [(value(U0 + e, THETA) - value(U0 - e, THETA)) / (2 * step) for e in step * np.eye(4)]
    by_theta = [(value(U0, THETA + e) - value(U0, THETA - e)) / (2 * step) for e in step * np.eye(5)]
    size = np.abs(by_theta).max()
    np.testing.assert_allclose(u0_bar, by_u0, rtol=0.0, atol=1e-8 * size)
    np.testing.assert_allclose(theta_bar, by_theta, rtol=0.0, atol=1e-8 * size)
    rng = np.random.default_rng(1)
    u0_dot, theta_dot = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    np.testing.assert_allclose(weights @ found.push_forward(u0_dot, theta_dot), u0_bar @ u0_dot + theta_bar @ theta_dot, rtol=1e-11)


def cascade(t, u, theta, du):
    du[0] = theta[0] - u[0]
    for i in range(1, u.size):
        du[i] = theta[i] * u[i - 1] - u[i]


def test_threads_share_a_steady_state():
    """As experiments from one state of rest do. SciPy's `lu_solve` corrupts the heap where threads share pivots."""
    n = 20
    rest = steady_state(Dynamics(cascade), np.zeros(n), np.linspace(1.0, 2.0, n))
    bar = np.linspace(-1.0, 1.0, n)
    right = [part.tobytes() for part in rest.pull_back(bar)]

    def always_right(_):
        return all([part.tobytes() for part in rest.pull_back(bar)] == right for _ in range(5000))

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(always_right, range(2)))


def test_named_states_come_back_by_name():
    start = {"enzyme": 1.0, "complex_": 0.2, "substrate": 0.0, "product": 0.0}
    found = steady_state(ENZYME, start, THETA)
    assert list(found.u) == list(start)
    np.testing.assert_allclose(found.u["enzyme"] + found.u["complex_"], 1.2, rtol=1e-14)


def test_what_is_at_rest_stays():
    found = steady_state(EXCHANGE, [0.7, 0.3, 2.0 / 7.0], [0.3, 0.7, 0.2])
    np.testing.assert_allclose(found.u, [0.7, 0.3, 2.0 / 7.0], rtol=1e-13)


def pairs(t, u, theta, du):
    """An inhibitor that is not there, free and bound, beside two forms of what it binds, which change into each other fast."""
    bind = theta[0] * u[0] * u[2] - theta[1] * u[1]
    flip = theta[2] * u[2] - theta[3] * u[3]
    du[0], du[1], du[2], du[3] = -bind, bind, -flip - bind, flip


def test_what_is_zero_may_be_rounding_at_rest():
    """Newton's method cannot keep zeros to within an absolute tolerance that is below rounding: it is not to wait for that."""
    found = steady_state(Dynamics(pairs), [0.0, 0.0, 0.7, 0.1], [3e-5, 0.07, 110.0, 13.0], method="Radau", atol=1e-20)
    assert found.t < 1.0
    np.testing.assert_allclose(found.u, [0.0, 0.0, 0.8 * 13.0 / 123.0, 0.8 * 110.0 / 123.0], rtol=1e-12, atol=1e-12)


def inhibited(t, u, theta, du):
    """What is made and lost, an inhibitor of it whose supply is theta[2], and the complex of both, which piles up."""
    bind = theta[3] * u[0] * u[1]
    du[0] = theta[0] - theta[1] * u[0] - bind
    du[1] = theta[2] - theta[1] * u[1] - bind
    du[2] = bind
    du[3] = theta[1] * (u[0] + u[2] - u[3])


def test_what_stays_zero_is_taken_out_where_there_is_no_rest_with_it():
    """Without the inhibitor the complex is as it was: u = (theta0 / theta1, 0, u2, theta0 / theta1 + u2)."""
    found = steady_state(Dynamics(inhibited), [0.5, 0.0, 0.3, 0.1], [0.6, 0.2, 0.0, 1.5], method="auto")
    np.testing.assert_allclose(found.u, [3.0, 0.0, 0.3, 3.3], rtol=1e-13)
    u0_bar, theta_bar = found.pull_back([1.0, 0.0, 10.0, 100.0])
    np.testing.assert_allclose(u0_bar, [0.0, math.nan, 110.0, 0.0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(theta_bar, [505.0, -1515.0, math.nan, 0.0], rtol=1e-12, atol=1e-12)
    u0_dot, theta_dot = np.eye(4)[:, [1, 2]], np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 5.0]])
    dots = found.push_forward(u0_dot, theta_dot)
    assert np.isnan(dots[:, 0]).all()
    np.testing.assert_allclose(dots[:, 1], [5.0, 0.0, 1.0, 6.0], rtol=1e-12, atol=1e-12)


def slow(t, u, theta, du):
    """A fast state that follows one which is ten million times slower: long at rest, it seems."""
    du[0] = 1e3 * (u[1] - u[0])
    du[1] = 1e-4 * (theta[0] - u[1])


def test_slow_states_are_waited_for():
    np.testing.assert_allclose(steady_state(Dynamics(slow), [0.0, 1.0], [3.0], method="Radau").u, [3.0, 3.0], rtol=1e-12)


def grows(t, u, theta, du):
    du[0] = theta[0] * u[0]


def swings(t, u, theta, du):
    du[0] = u[0] * (1.5 - u[1])
    du[1] = u[1] * (u[0] - theta[0])


def follows(t, u, theta, du):
    du[0] = theta[0] * (math.exp(-((t - 40.0) ** 2)) - u[0])


def dies_slowly(t, u, theta, du):
    du[0] = -theta[0] * u[0] ** 3


@pytest.mark.parametrize(
    ("f", "u0", "message"),
    [
        (grows, [1.0], "grows does not come to rest: after a time of .* it still changes: the forward solve stopped"),
        (swings, [1.0, 1.0], "swings does not come to rest: after a time of .* it still changes"),
        (inhibited, [0.5, 1.0, 0.3, 0.1], "inhibited does not come to rest: .* not isolated"),
        (dies_slowly, [1.0], "dies_slowly does not come to rest: after a time of "),
    ],
)
def test_where_there_is_none(f, u0, message):
    with pytest.raises(SolveError, match=message):
        steady_state(Dynamics(f), u0, [1.0, 1.0, 0.0, 1.0], max_steps=5000)


def test_what_is_refused():
    with pytest.raises(ValueError, match="does not support a mass matrix"):
        steady_state(Dynamics(grows, mass=[2.0]), [1.0], [1.0])
    with pytest.raises(ValueError, match="with doses or events"):
        steady_state(EXCHANGE, [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], events=lambda t, u: u[0])
