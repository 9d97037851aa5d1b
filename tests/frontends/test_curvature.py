"""Likelihoods without residuals: Hessians by gradients, minima beside a known one, uncertainty and profiles in closed form."""

import math

import numpy as np
import pytest
from scipy import optimize, special

from adjode import Dynamics, Fit, SolveError
from adjode.frontends.curvature import Settling, hessian_by_differences
from adjode.losses import Gaussian, Likelihood, Series


class Valley:
    """(x0 - x1^2)^2 + (x1 - 1)^2 / 10 + (x2 - x1)^2, which cannot be evaluated from x1 = 3 on."""

    def __init__(self, bounds=((-9.0, 9.0),) * 3):
        self.bounds, self.calls = list(bounds), 0

    def evaluate(self, x):
        self.calls += 1
        if x[1] > 3.0:
            raise SolveError("too far.", phase="forward", status=0, t=0.0)
        a, b, c = x[0] - x[1] ** 2, x[1] - 1.0, x[2] - x[1]
        return a**2 + b**2 / 10.0 + c**2, np.array([2.0 * a, -4.0 * a * x[1] + b / 5.0 - 2.0 * c, 2.0 * c])


def test_hessian_by_differences():
    expected = [[2.0, -4.0, 0.0], [-4.0, 8.0 + 0.2 + 2.0, -2.0], [0.0, -2.0, 2.0]]
    np.testing.assert_allclose(hessian_by_differences(Valley(), np.ones(3)), expected, rtol=1e-5, atol=1e-5)
    at_bound = Valley(((-9.0, 1.0), (-9.0, 9.0), (1.0, 9.0)))
    np.testing.assert_allclose(hessian_by_differences(at_bound, np.ones(3)), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("held", [4.0, 0.1, 1.2])
def test_the_minimum_with_an_entry_held(held):
    valley, mask = Valley(), np.array([True, False, False])
    settle = Settling(valley, hessian_by_differences(valley, np.ones(3)), mask, 1e-9)
    x, loss = settle(settle.guess(np.ones(3), np.array([held, 1.0, 1.0])))
    least = optimize.minimize_scalar(
        lambda b: (held - b**2) ** 2 + (b - 1.0) ** 2 / 10.0, bounds=(0.0, 3.0), options={"xatol": 1e-12}
    )
    assert loss == pytest.approx(least.fun, abs=1e-7) and x[0] == held
    np.testing.assert_allclose(x[1:], least.x, atol=1e-3)


def test_bounds_are_kept():
    valley = Valley(((-9.0, 9.0), (-9.0, 9.0), (1.3, 9.0)))
    x, loss = Settling(valley, np.eye(3), np.zeros(3, dtype=bool), 1e-9)(np.array([2.0, 1.5, 2.0]))
    b = (0.1 + 1.3) / 1.1  # where (b - 1)^2 / 10 + (1.3 - b)^2 is least
    np.testing.assert_allclose(x, [b**2, b, 1.3], atol=1e-3)
    assert loss == pytest.approx((b - 1.0) ** 2 / 10.0 + (1.3 - b) ** 2, abs=1e-7)


def rests(t, u, theta, du):
    du.level = theta.drift


TIMES = np.arange(1.0, 13.0)
DATA = 2.0 + 0.3 * np.sin(1.0 + 7.0 * TIMES)


@pytest.fixture(scope="module")
def fit():
    model = Dynamics(rests, states=("level",), parameters=("drift", "sd"))
    loss = Likelihood(TIMES, {"level": DATA}, Gaussian("sd"))
    start = {"u0": {"level": 1.8}, "theta": {"drift": 0.0, "sd": 0.4}}
    found = Fit(model, loss, (0.0, 12.0), **start, free={"u0": True, "theta": ["sd"]}, log={"theta": ["sd"]})
    found.minimize()
    return found


def test_standard_errors_of_a_mean_and_its_noise(fit):
    """sd / sqrt(N) of the mean, 1 / sqrt(2 N) of the logarithm of sd."""
    found, N = fit.uncertainty(), DATA.size
    sd = DATA.std()
    np.testing.assert_allclose(found.values, [DATA.mean(), sd], rtol=1e-4)
    np.testing.assert_allclose(found.standard_errors_of_x, [sd / math.sqrt(N), math.sqrt(0.5 / N)], rtol=1e-3)
    assert "12 data, by the curvature of the likelihood" in str(found)
    assert np.all(fit.predict([0.0, 6.0]).standard_errors == pytest.approx(found.standard_errors[0]))


@pytest.mark.slow
def test_the_exact_hessian_gives_the_same(fit):
    exact, found = fit.uncertainty(kind="exact"), fit.uncertainty()
    np.testing.assert_allclose(exact.covariance, found.covariance, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("workers", [1, 2])
def test_profiles_of_a_mean_and_its_noise(fit, workers):
    """Half a squared quantile is N / 2 log(1 + (mean - m)^2 / v), and N (log s + (1 / s^2 - 1) / 2) with s in units of sd."""
    found, N, v = fit.profile(workers=workers), DATA.size, DATA.var()
    q = special.ndtri(0.975)
    half = math.sqrt(v * math.expm1(q**2 / N))
    np.testing.assert_allclose(found.intervals["u0['level']"], [DATA.mean() - half, DATA.mean() + half], rtol=1e-5)

    def rise(s):
        return N * (math.log(s) + 0.5 / s**2 - 0.5) - 0.5 * q**2

    ends = [optimize.brentq(rise, 0.3, 1.0), optimize.brentq(rise, 1.0, 5.0)]
    np.testing.assert_allclose(found.intervals["theta['sd']"], math.sqrt(v) * np.array(ends), rtol=1e-5)
    assert found.is_closed == {"u0['level']": True, "theta['sd']": True}


def test_a_loss_that_is_no_likelihood_has_no_uncertainty():
    def value(k, t, u, theta):
        return u.level**2

    model = Dynamics(rests, states=("level",), parameters=("drift", "sd"))
    fit = Fit(model, Series(TIMES, value=value), (0.0, 12.0), u0={"level": 1.0}, theta={"drift": 0.1, "sd": 1.0}, free=("u0",))
    with pytest.raises(TypeError, match="residuals need"):
        fit.uncertainty([0.0])
