"""Gradients where f has a kink, or jumps, at times that depend on the state."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from adjode import Doses, Dynamics, SolveError, Status, ensemble_value_and_gradient, solve, solve_ensemble, value_and_gradient
from adjode.losses import FinalState
from tests.problems.numerics import complex_step

METHODS = ("Tsit5", "RK45", "DOP853", "BS3", "Radau", "Kvaerno5")


def saturated_f(t, u, theta, du):
    du[0] = -theta[0] * min(u[0], theta[1])
    du[1] = u[0] - u[1]


def saturated_vjp(t, u, theta, lam, u_bar, theta_bar):
    low = u[0] < theta[1]
    u_bar[0] = (-theta[0] * lam[0] if low else 0.0) + lam[1]
    u_bar[1] = -lam[1]
    theta_bar[0] = -min(u[0], theta[1]) * lam[0]
    theta_bar[1] = 0.0 if low else -theta[0] * lam[0]


def spring_f(t, u, theta, du):
    """Of another stiffness on either side; the state passes through zero at its kinks."""
    du[0] = u[1]
    du[1] = -_stiffness(u[0], theta[0], theta[1]) * u[0]


def _stiffness(x, one, other):
    if x > 0.0:
        return one
    return other


SATURATED, DERIVED, SPRING = Dynamics(saturated_f, saturated_vjp), Dynamics(saturated_f), Dynamics(spring_f)


def of_saturated(x, T):
    """u[0] at T, and its derivatives by u[0], theta."""
    u0, k, c = x
    value = c * math.exp(-k * T + (u0 - c) / c)
    return value, value * np.array([1.0 / c, -T, 1.0 / c - u0 / c**2])


def units(dynamics, u0, theta, T, weights, exact, **options):
    """The error in units of rtol, in the scale of logarithmic derivatives."""
    rtol = options["rtol"]
    _, bar = value_and_gradient(dynamics, FinalState(weights), (0.0, T), atol=1e-3 * rtol, **options)(u0, theta)
    size = np.abs(np.concatenate([u0, theta]))
    difference = np.abs(np.concatenate([bar.u0, bar.theta]) - exact) * size
    return difference.max() / np.abs(exact * size).max() / rtol, bar


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dynamics", [SATURATED, DERIVED], ids=["given", "derived"])
def test_an_elimination_that_is_saturated_at_first(dynamics, method):
    """The kink is where u = theta[1], exactly at T = (u - c) / (k c)."""
    u0, theta, T = np.array([2.0, 0.3]), np.array([0.9, 0.7]), 4.0
    _, (by_u, *by_theta) = of_saturated((u0[0], *theta), T)
    exact = np.array([by_u, 0.0, *by_theta])
    for rtol in (1e-6, 1e-8) if method != "BS3" else (1e-6,):
        error, bar = units(dynamics, u0, theta, T, [1.0, 0.0], exact, method=method, rtol=rtol, adjoint="discrete")
        assert error < 100.0
        assert bar.error["theta"] < 100.0 * rtol
    assert bar.stats.n_refined > 0


def of_spring(x, T):
    """The derivatives of u[0] at T with stiffnesses a and b above and below zero, from u > 0 at rest, by differences of what is
    known in closed form.
    """

    def value(u, a, b):
        w, z, time, half = math.sqrt(a), math.sqrt(b), T, 0
        time -= 0.5 * math.pi / w
        amplitude, other = u, u * w / z
        while True:
            period = math.pi / (z if half % 2 == 0 else w)
            if time < period:
                return -other * math.sin(z * time) if half % 2 == 0 else amplitude * math.sin(w * time)
            time, half = time - period, half + 1

    steps = 1e-5 * np.eye(3) * x
    return np.array([(value(*(x + h)) - value(*(x - h))) / (2.0 * h.sum()) for h in steps])


@pytest.mark.parametrize("method", METHODS)
def test_a_spring_whose_stiffness_changes_where_it_passes_through_zero(method):
    x, T = np.array([1.3, 4.0, 1.0]), 9.0
    by_u, *by_theta = of_spring(x, T)
    size = np.array([1.3, 4.0, 1.0])
    _, bar = value_and_gradient(SPRING, FinalState([1.0, 0.0]), (0.0, T), method=method, rtol=1e-6, atol=1e-9)([1.3, 0.0], x[1:])
    difference = np.abs(np.array([bar.u0[0], *bar.theta]) - [by_u, *by_theta]) * size
    assert difference.max() < 1e-4 * np.abs(np.array([by_u, *by_theta]) * size).max()
    assert bar.stats.n_refined > 0


def with_inflow(u0, k, c, amount, T):
    """The saturated state at T with a constant inflow, at first at a constant rate."""
    rate = amount / T
    return rate / k + (c - rate / k) * np.exp(-k * (T - (u0 - c) / (k * c - rate)))


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Radau"])
def test_a_kink_during_an_infusion(method):
    x, T, rtol = np.array([2.0, 0.9, 1.0, 0.8]), 4.0, 1e-7
    (exact,) = complex_step(lambda y: with_inflow(*y, T), [x])
    infusion = Doses(0.0, "theta[2]", 0, duration=T)
    options = {"method": method, "rtol": rtol, "atol": 1e-3 * rtol, "doses": infusion}
    _, bar = value_and_gradient(DERIVED, FinalState([1.0, 0.0]), (0.0, T), **options)([x[0], 0.5], x[1:])
    difference = np.abs(np.array([bar.u0[0], *bar.theta]) - exact) * x
    assert difference.max() < 100.0 * rtol * np.abs(exact * x).max()


def jumping_f(t, u, theta, du):
    k = theta[0]
    if u[0] > theta[1]:
        k = theta[2]
    du[0] = 1.0 - k * u[0]


JUMPING = Dynamics(jumping_f)


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Radau"])
def test_a_jump_of_f_is_refused(method):
    """How its time moves is not in the steps: without an event the gradient would be wrong, however small they are."""
    evaluate = value_and_gradient(JUMPING, FinalState([1.0]), (0.0, 3.0), method=method, rtol=1e-6, atol=1e-9)
    with pytest.raises(SolveError, match="make that an Event"):
        evaluate([0.1], [0.3, 1.0, 0.6])


@pytest.mark.parametrize("method", ["Tsit5", "DOP853"])
def test_other_adjoints_warn_of_a_jump(method):
    options = {"method": method, "rtol": 1e-6, "atol": 1e-9}
    evaluate = value_and_gradient(JUMPING, FinalState([1.0]), (0.0, 3.0), adjoint="interpolating", **options)
    evaluate([0.1], [0.3, 5.0, 0.6])  # which does not come there
    for call in (
        lambda: evaluate([0.1], [0.3, 1.0, 0.6]),
        lambda: solve(JUMPING, [0.1], [0.3, 1.0, 0.6], (0.0, 3.0), **options).pullback([1.0], adjoint="interpolating"),
    ):
        with pytest.warns(RuntimeWarning, match="f jumps at t = 1.087") as caught:
            call()
        assert caught[0].filename == __file__


@pytest.mark.parametrize("method", ["Tsit5", "Radau"])
def test_what_is_never_on_the_other_side_costs_nothing(method):
    def clamped(t, u, theta, du):
        du[0] = -theta[0] * max(u[0], 0.0)
        du[1] = np.sqrt(np.maximum(u[0], 1e-12)) - u[1] if u[1] > -1.0 else 0.0

    def plain(t, u, theta, du):
        du[0] = -theta[0] * u[0]
        du[1] = np.sqrt(u[0]) - u[1]

    found = [
        value_and_gradient(Dynamics(f), FinalState([1.0, 1.0]), (0.0, 3.0), method=method, rtol=1e-6)([1.0, 0.5], [0.7])[1]
        for f in (clamped, plain)
    ]
    assert found[0].stats.n_vjp == found[1].stats.n_vjp
    np.testing.assert_array_equal(found[0].theta, found[1].theta)


def test_time_may_run_backwards():
    def f(t, u, theta, du):
        du[0] = theta[0] * min(u[0], theta[1])
        du[1] = u[1] - u[0]

    u0, theta = np.array([2.0, 0.3]), np.array([0.9, 0.7])
    _, (by_u, *by_theta) = of_saturated((u0[0], *theta), 4.0)
    evaluate = value_and_gradient(Dynamics(f), FinalState([1.0, 0.0]), (0.0, -4.0), method="Tsit5", rtol=1e-7, atol=1e-10)
    _, bar = evaluate(u0, theta)
    np.testing.assert_allclose([bar.u0[0], *bar.theta], [by_u, *by_theta], rtol=1e-5)
    assert bar.stats.n_refined > 0


def test_observations_beside_a_kink():
    """A pullback of its own mesh, with cotangents inside of steps, against differences."""
    u0, theta, times = np.array([2.0, 0.3]), np.array([0.9, 0.7]), np.array([1.9, 2.063, 2.1, 3.0])

    def value(x):
        solution = solve(SATURATED, x[:2], x[2:], (0.0, 4.0), method="DOP853", rtol=1e-12, atol=1e-13, stops=[_kink(x)])
        return solution(times)[:, 1].sum()

    x = np.concatenate([u0, theta])
    steps = 1e-5 * np.eye(4) * x
    expected = np.array([(value(x + h) - value(x - h)) / (2.0 * h.sum()) for h in steps])
    solution = solve(SATURATED, u0, theta, (0.0, 4.0), method="Tsit5", rtol=1e-7, atol=1e-10)
    bar = solution.pullback(observations=(times, np.tile([0.0, 1.0], (4, 1))), adjoint="discrete")
    np.testing.assert_allclose(np.concatenate([bar.u0, bar.theta]) * x, expected * x, atol=1e-5 * np.abs(expected * x).max())


def _kink(x):
    return (x[0] - x[3]) / (x[2] * x[3])


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor(2)], ids=["threads", "executor"])
@pytest.mark.jitted
def test_ensembles_refuse_a_jump_or_warn_of_it(executor):
    """Each as a single call does; one trajectory of the three comes to the jump."""
    theta = np.array([[0.3, 5.0, 0.6], [0.3, 1.0, 0.6], [0.3, 5.0, 0.6]])
    options = {"rtol": 1e-6, "atol": 1e-9, "executor": executor}
    discrete = ensemble_value_and_gradient(JUMPING, FinalState([1.0]), (0.0, 3.0), **options)
    with pytest.raises(SolveError, match="make that an Event"):
        discrete([0.1], theta)
    discrete = ensemble_value_and_gradient(JUMPING, FinalState([1.0]), (0.0, 3.0), on_failure="nan", **options)
    assert (discrete([0.1], theta)[1].stats.status == [0, Status.INACCURATE, 0]).all()
    continuous = ensemble_value_and_gradient(JUMPING, FinalState([1.0]), (0.0, 3.0), adjoint="interpolating", **options)
    solution = solve_ensemble(JUMPING, [0.1], theta, (0.0, 3.0), **options)
    for call in (lambda: continuous([0.1], theta), lambda: solution.pullback([1.0], adjoint="interpolating")):
        with pytest.warns(RuntimeWarning, match="trajectory 1: f jumps at t = 1.087") as caught:
            call()
        assert [one.filename for one in caught] == [__file__]
    continuous([0.1], theta[[0, 2]])
