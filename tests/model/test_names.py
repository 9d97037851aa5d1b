"""Named entries lie where f looks for them, or are refused."""

import warnings

import numpy as np
import pytest

from adjode import Dynamics, Fit, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares


def f(t, u, theta, du):
    growth, hunting, death = theta
    prey, predator = u[0], u[1]
    du[0] = growth * prey - hunting * prey * predator
    du[1] = hunting * prey * predator - death * predator


def vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = (theta[0] - theta[1] * u[1]) * lam[0] + theta[1] * u[1] * lam[1]
    u_bar[1] = -theta[1] * u[0] * lam[0] + (theta[1] * u[0] - theta[2]) * lam[1]
    theta_bar[0], theta_bar[1], theta_bar[2] = u[0] * lam[0], u[0] * u[1] * (lam[1] - lam[0]), -u[1] * lam[1]


U0, THETA, SPAN = {"prey": 1.2, "predator": 0.4}, {"growth": 0.9, "hunting": 0.5, "death": 0.7}, (0.0, 1.0)


def backwards(named):
    return dict(reversed(named.items()))


class Series:
    """As much of a pandas Series as is read here."""

    def __init__(self, named):
        self.named, self.index = named, list(named)

    def to_dict(self):
        return self.named

    def __array__(self, dtype=None, copy=None):
        return np.array(list(self.named.values()), dtype=dtype)


@pytest.mark.parametrize("form", [dict, Series])
def test_names_that_f_finds_elsewhere(form):
    flat = solve(Dynamics(f, vjp), list(U0.values()), list(THETA.values()), SPAN)
    assert solve(Dynamics(f, vjp), form(U0), form(THETA), SPAN).u_T == dict(zip(U0, flat.u_T, strict=True))
    with pytest.raises(ValueError, match=r"theta\['death'\] is entry 0, but f takes death from entry 2"):
        solve(Dynamics(f, vjp), form(U0), form(backwards(THETA)), SPAN)
    with pytest.raises(ValueError, match=r"u0\['predator'\] is entry 0, but f takes predator from entry 1"):
        value_and_gradient(Dynamics(f, vjp), FinalState([1.0, 0.0]), SPAN)(form(backwards(U0)), form(THETA))


def test_the_same_names_in_another_order():
    def g(t, u, theta, du):
        du[0] = -theta[0] * u[0] + theta[1]

    def g_vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0], theta_bar[0], theta_bar[1] = -theta[0] * lam[0], -u[0] * lam[0], lam[0]

    dynamics = Dynamics(g, g_vjp)
    evaluate = value_and_gradient(dynamics, FinalState([1.0]), SPAN)
    evaluate([1.0], {"rate": 2.0, "source": 0.5})
    for call in (
        lambda named: evaluate([1.0], named),
        lambda named: solve(dynamics, [1.0], named, SPAN),
        lambda named: Fit(dynamics, FinalState([1.0]), SPAN, u0=[1.0], theta=named),
    ):
        with pytest.raises(ValueError, match=r"has the entries \['source', 'rate'\], which came in the order \['rate', 'source'\]"):
            call({"source": 0.5, "rate": 2.0})
    record = np.array([(0.5, 2.0)] * 2, dtype=[("source", float), ("rate", float)])
    with pytest.raises(ValueError, match="came in the order"):
        ensemble_value_and_gradient(dynamics, FinalState([1.0]), SPAN)([1.0], record)
    assert solve(dynamics, [1.0], {"other": 2.0, "rate": 0.5}, SPAN).u_T[0] == pytest.approx(
        0.25 + 0.75 * np.exp(-2.0), rel=1e-5
    )  # other names


def test_entries_that_no_callback_reads():
    def g(t, u, theta, du):
        du[0] = -theta[0] * u[0]

    def g_vjp(t, u, theta, lam, u_bar, theta_bar):
        theta_bar[:] = 0.0
        u_bar[0], theta_bar[0] = -theta[0] * lam[0], -u[0] * lam[0]

    def of_all(t, u, theta, lam, u_bar, theta_bar):
        theta_bar[:] = 0.0 * theta
        u_bar[0], theta_bar[0] = -theta[0] * lam[0], -u[0] * lam[0]

    dynamics, theta = Dynamics(g, g_vjp), {"rate": 1.0, "ratio": [2.0, 3.0]}
    with pytest.warns(UserWarning, match=r"no callback reads theta\['ratio'\]\[0\], theta\['ratio'\]\[1\]: is theta longer"):
        solve(dynamics, [1.0], theta, SPAN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(dynamics, [1.0], theta, SPAN)  # said once
        solve(dynamics, [1.0], [1.0, 2.0], SPAN)
        solve(Dynamics(g, of_all), [1.0], theta, SPAN)
        solve(Dynamics(f, vjp), U0, THETA, SPAN)


def test_atol_that_hides_what_is_compared():
    """A state of 1e-11 compared on a log scale, beside an atol of 1e-9."""

    def g(t, u, theta, du):
        du[0], du[1] = -theta[0] * u[0], -theta[0] * u[1]

    def g_vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0], u_bar[1], theta_bar[0] = -theta[0] * lam[0], -theta[0] * lam[1], -u[0] * lam[0] - u[1] * lam[1]

    u0, data = {"many": 1.0, "few": 1e-11}, np.exp(-np.array([[0.5], [1.0]])) * [1.0, 1e-11]
    dynamics, times = Dynamics(g, g_vjp), [0.5, 1.0]
    evaluate = value_and_gradient(dynamics, LeastSquares(times, data, log=True, sigma=0.1), SPAN, atol=1e-9)
    with pytest.warns(RuntimeWarning, match=r"compares the logarithm of u\['few'\] at t = 1, where atol = 1e-09 allows errors of"):
        evaluate(u0, [1.0])
    evaluate(u0, [1.0])  # warnings are errors here, so it warns once
    loss = LeastSquares(times, data, sigma=0.2 * data)
    with pytest.warns(RuntimeWarning, match=r"the loss compares u\['few'\].*1\.4e\+03 standard deviations.*at most 7e-14"):
        value_and_gradient(dynamics, loss, SPAN, atol=1e-9, adjoint="backsolve")(u0, [1.0])
    for quiet in ({}, {"atol": 1e-14}, {"atol": [1e-9, 1e-14]}, {"step": 0.1}):
        value_and_gradient(dynamics, loss, SPAN, **quiet)(u0, [1.0])
    first = LeastSquares([0.0, 1.0], [[1.0, 1e-11], [np.exp(-1.0), np.nan]], log=True)  # exact at t0, missing later
    value_and_gradient(dynamics, first, SPAN)(u0, [1.0])
