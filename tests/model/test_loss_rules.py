"""Losses of functions of state and parameters, whose derivatives are derived: against differences of tight solutions."""

import copy
import warnings

import cloudpickle
import numba
import numpy as np
import pytest

from adjode import Dynamics, Fit, SolveError, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares, Series
from tests.problems.systems import LV_THETA, LV_U0, lotka_volterra

SPAN = (0.0, 3.0)
TIMES = np.array([0.0, 2.5, 1.0, 1.0, 3.0])
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
DATA = np.array([[1.0, 0.5], [2.0, np.nan], [1.5, 0.3], [np.nan, np.nan], [2.5, 0.4]])


def quartic(k, t, u, theta):
    return np.exp(-t) * (u[0] - theta[1] * k) ** 4 + theta[2] * u[1] / theta[0]


def quartic_vjp(k, t, u, theta, u_bar, theta_bar):
    cubed, decay = (u[0] - theta[1] * k) ** 3, np.exp(-t)
    u_bar[0] = 4.0 * decay * cubed
    u_bar[1] = theta[2] / theta[0]
    theta_bar[0] = -theta[2] * u[1] / theta[0] ** 2
    theta_bar[1] = -4.0 * k * decay * cubed
    theta_bar[2] = u[1] / theta[0]
    theta_bar[3] = 0.0


def final(u, theta):
    return u[0] * u[1] + theta[3] * np.sin(u[0])


def totals(t, u, theta, y):
    y[0] = theta[0] * (u[0] + u[1])
    y[1] = u[1] / (u[0] + u[1]) + 0.1


def totals_returned(t, u, theta):
    return np.array([theta[0] * (u[0] + u[1]), u[1] / (u[0] + u[1]) + 0.1])


LOSSES = {
    "value": Series(TIMES, value=quartic),
    "jitted value": Series(TIMES, value=numba.njit(quartic)),
    "value by hand": Series(TIMES, value=(quartic, quartic_vjp)),
    "final": FinalState(value=final),
    "observe": LeastSquares(TIMES, DATA, sigma=0.2, observe=totals),
    "observe, returned, logarithms": LeastSquares(TIMES, DATA, sigma=0.2, log=True, observe=totals_returned),
}


def by_numpy(name, u0, theta):
    """The value at a tight solution, in plain NumPy."""
    solution = solve(lotka_volterra(), u0, theta, SPAN, rtol=1e-12, atol=1e-12)
    if name == "final":
        return final(solution.u[-1], theta)
    if "value" in name:
        return sum(quartic(k, t, solution(t), theta) for k, t in enumerate(TIMES))
    y, data = np.array([totals_returned(t, solution(t), theta) for t in TIMES]), DATA
    if "logarithms" in name:
        y, data = np.log(y), np.log(data)
    return 0.5 * np.nansum(((y - data) / 0.2) ** 2)


def differences(value, x, h=1e-4):
    def quotient(i, h):
        step = h * np.eye(x.size)[i]
        return (value(x + step) - value(x - step)) / (2 * h)

    return np.array([(4 * quotient(i, h) - quotient(i, 2 * h)) / 3 for i in range(x.size)])


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_agree_with_differences(name):
    u0, theta = np.array(LV_U0), np.array(LV_THETA)
    value, bar = value_and_gradient(lotka_volterra(), LOSSES[name], SPAN, **TIGHT)(u0, theta)
    assert value == pytest.approx(by_numpy(name, u0, theta), rel=1e-8)
    both = differences(lambda z: by_numpy(name, z[:2], z[2:]), np.append(u0, theta))
    np.testing.assert_allclose(np.append(bar.u0, bar.theta), both, rtol=1e-6, atol=1e-6 * np.abs(both).max())


@pytest.mark.parametrize(
    "options", [{"adjoint": "interpolating"}, {"adjoint": "backsolve"}, {"certify": True}, {"memory": "2kB"}, {"wrt": ("theta",)}]
)
@pytest.mark.parametrize("name", ["value", "final", "observe"])
def test_every_way_gives_the_same(name, options):
    expected = value_and_gradient(lotka_volterra(), LOSSES[name], SPAN, **TIGHT)(LV_U0, LV_THETA)
    value, bar = value_and_gradient(lotka_volterra(), LOSSES[name], SPAN, **TIGHT, **options)(LV_U0, LV_THETA)
    assert value == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(bar.theta, expected[1].theta, rtol=1e-7)
    if "wrt" not in options:
        np.testing.assert_allclose(bar.u0, expected[1].u0, rtol=1e-7)


def test_one_way_to_the_states_alone():
    evaluate = value_and_gradient(lotka_volterra(), LOSSES["value"], SPAN, wrt=("u0",), **TIGHT)
    both = value_and_gradient(lotka_volterra(), LOSSES["value"], SPAN, **TIGHT)
    np.testing.assert_array_equal(evaluate(LV_U0, LV_THETA)[1].u0, both(LV_U0, LV_THETA)[1].u0)


@pytest.mark.jitted
def test_in_compiled_code():
    loss = LOSSES["observe"]
    evaluate = value_and_gradient(lotka_volterra(), loss, SPAN, **TIGHT)
    u0, theta, u0_bar, theta_bar = np.array(LV_U0), np.array(LV_THETA), np.zeros(2), np.zeros(4)
    status, value = evaluate.jitted(2, 4)(u0, theta, u0_bar, theta_bar)
    expected, bar = evaluate(u0, theta)
    assert (status, value) == (0, expected)
    np.testing.assert_array_equal(np.append(u0_bar, theta_bar), np.append(bar.u0, bar.theta))


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("name", ["value", "final", "observe"])
def test_ensembles(name, adjoint):
    thetas, loss = np.array(LV_THETA) * np.linspace(0.9, 1.1, 3)[:, None], LOSSES[name]
    many = ensemble_value_and_gradient(lotka_volterra(), loss, SPAN, adjoint=adjoint, **TIGHT)
    values, bars = many(LV_U0, thetas)
    one = value_and_gradient(lotka_volterra(), loss, SPAN, adjoint=adjoint, **TIGHT)
    for theta, value, bar in zip(thetas, values, bars.theta, strict=True):
        expected, alone = one(LV_U0, theta)
        assert value == expected
        np.testing.assert_array_equal(bar, alone.theta)


def test_ensemble_with_data_of_each_member():
    data = np.stack([DATA, DATA + 1.0])
    loss = LeastSquares(TIMES, data, sigma=0.2, observe=totals)
    values, bars = ensemble_value_and_gradient(lotka_volterra(), loss, SPAN, **TIGHT)(LV_U0, np.array([LV_THETA, LV_THETA]))
    for i in range(2):
        expected, bar = value_and_gradient(lotka_volterra(), loss.member(i), SPAN, **TIGHT)(LV_U0, LV_THETA)
        assert values[i] == expected
        np.testing.assert_array_equal(bars.theta[i], bar.theta)


def test_a_scale_that_no_state_shows_is_fitted():
    times, theta = np.linspace(0.2, 3.0, 8), np.array(LV_THETA)
    solution = solve(lotka_volterra(), LV_U0, theta, SPAN, **TIGHT)

    def counted(t, u, theta, y):
        y[0] = theta[4] * (u[0] + u[1])

    data = 0.3 * solution(times).sum(axis=1)
    loss = LeastSquares(times, data, sigma=0.01, observe=counted)
    start = np.append(theta, 0.5)
    fit = Fit(lotka_volterra(), loss, SPAN, u0=LV_U0, theta=start, free={"theta": [4]}, rtol=1e-9, atol=1e-9)
    assert fit.minimize().theta[4] == pytest.approx(0.3, rel=1e-6)


def test_fields():
    def f(t, u, theta, du):
        du.prey = theta.growth * u.prey
        du.predators = -u.predators

    def share(t, u, theta, y):
        y[0] = theta.scale * u.prey / (u.prey + u.predators)

    def weighted(k, t, u, theta):
        return theta.scale * u.prey * k

    def last(u, theta):
        return u.predators * theta.growth * theta.scale

    named = Dynamics(f, states=("prey", "predators"), parameters=("growth", "scale"))
    losses = [LeastSquares([1.0], [0.4], observe=share), Series([0.5, 1.0], value=weighted), FinalState(value=last)]
    for loss in losses:
        u0, theta = {"prey": 1.0, "predators": 2.0}, {"growth": 0.3, "scale": 2.0}
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that nothing reads theta["scale"]
            value, bar = value_and_gradient(copy.copy(named), loss, (0.0, 1.0), **TIGHT)(u0, theta)
        sent = cloudpickle.loads(cloudpickle.dumps(loss))
        again, same = value_and_gradient(named, sent, (0.0, 1.0), **TIGHT)(u0, theta)
        assert again == value and same.theta == bar.theta
        by_solution, seeds = loss.value_and_cotangents(solve(named, u0, theta, (0.0, 1.0), **TIGHT))
        assert by_solution == pytest.approx(value, rel=1e-9)
        assert seeds["theta_bar"].shape == (2,)


def raises(k, t, u, theta):
    if u[0] > 0.0:
        raise ArithmeticError("no")
    return u[0]


def beyond(k, t, u, theta):
    return u[7]


def too_many(t, u, theta):
    return np.array([u[0], u[1], theta[0]])


def forgets(t, u, theta, y):
    y[0] = u[0]


def logarithm(t, u, theta, y):
    y[0] = u[0] - 100.0
    y[1] = u[1]


def refused(u, theta):
    return np.linalg.eigvals(theta.reshape(2, 2))[0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Series([1.0]), TypeError, "Series takes either"),
        (lambda: Series([1.0], quartic, value=quartic), TypeError, "Series takes either"),
        (lambda: Series([1.0], lambda k, t, u: 0.0), TypeError, "given as value="),
        (lambda: Series([1.0], value=final), TypeError, r"value takes 2 arguments, but it must be value\(k, t, u, theta\)"),
        (lambda: FinalState(), TypeError, "FinalState takes either"),
        (lambda: FinalState(value=quartic), TypeError, r"value takes 4 arguments, but it must be value\(u, theta\)"),
        (lambda: FinalState(value=3), TypeError, "value must be a function"),
        (lambda: LeastSquares([1.0], [1.0], observe=final), TypeError, "observe takes 2 arguments"),
        (lambda: LeastSquares([1.0], [1.0], observe=totals, components=[0]), ValueError, "either components or observe"),
    ],
)
def test_what_is_refused_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (Series([1.0], value=raises), ArithmeticError, "no"),
        (Series([1.0], value=beyond), ValueError, "indexes an array out of bounds at observation 0 of 1, where u has 2 entries"),
        (LeastSquares([1.0], [[1.0, 1.0]], observe=too_many), ValueError, r"of shape \(3,\), but y_obs has 2 columns"),
        (LeastSquares([1.0], [1.0], observe=totals), ValueError, "indexes an array out of bounds"),
        (LeastSquares([1.0], [[1.0, 1.0]], observe=forgets), SolveError, "the loss is not finite"),
        (LeastSquares([1.0], [[1.0, 1.0]], log=True, observe=logarithm), SolveError, r"compares logarithms, but y\[0\] is -"),
        (FinalState(value=refused), TypeError, "refused cannot be differentiated"),
    ],
)
def test_what_fails(loss, error, message):
    with pytest.raises(error, match=message):
        value_and_gradient(lotka_volterra(), loss, SPAN)(LV_U0, LV_THETA)


def wrong_vjp(u, theta, u_bar, theta_bar):
    u_bar[:] = 0.0
    theta_bar[:] = 0.0


@pytest.mark.parametrize("options", [{}, {"adjoint": "backsolve"}])
def test_what_is_derived_is_held_against_differences(options, monkeypatch):
    def own(u, theta):
        return u[0] * theta[0] + 0.5 * u[1]

    loss = FinalState(value=(own, wrong_vjp))
    loss.rule.derived = True
    with pytest.raises(ValueError, match="the derivatives of the value own do not agree with it"):
        value_and_gradient(lotka_volterra(), loss, SPAN, **options)(LV_U0, LV_THETA)


def test_cotangent_of_theta_itself():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, SPAN, **TIGHT)
    bar, more = solution.pullback([1.0, 0.0]), solution.pullback([1.0, 0.0], theta_bar=[1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(more.theta - bar.theta, [1.0, 2.0, 3.0, 4.0], rtol=1e-12)
    with pytest.raises(ValueError, match="theta_bar"):
        solution.pullback(theta_bar=[1.0])
