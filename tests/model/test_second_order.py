"""Second derivatives of likelihoods: of densities, what is observed, and scales, against differences of the first ones."""

import math

import numpy as np
import pytest

from adjode.losses import Density, Gaussian, Laplace, Likelihood, LogLaplace, LogNormal, NegativeBinomial, Poisson, StudentT
from adjode.model.losses import densities
from adjode.model.losses.density_curvatures import curvatures
from adjode.model.losses.second_order import require_second_order, tangents_of_cotangents

TIMES, SHAPE = np.array([1.0, 2.0, 2.0, 3.0]), (4, 2)
THETA = np.array([0.3, 4.0, 0.7, 1.2])
rng = np.random.default_rng(5)
STATES = rng.uniform(1.0, 9.0, (3, 2)).cumsum(axis=0)
DATA = rng.integers(0, 12, SHAPE).astype(float) + 1.0
DATA[1, 0] = np.nan


def observe(t, u, theta, y):
    y[0] = theta[2] * u[0] * u[1]
    y[1] = u[1] ** 2 / (1.0 + theta[3] * u[0])


def sigma(t, u, theta, s):
    s[0] = 0.1 + theta[2] * u[0] ** 2
    s[1] = theta[0] + theta[3] ** 2


def gumbel(y, d, theta):
    z = (d - y) / theta[3]
    return math.log(theta[3]) + z + math.exp(-z)


LOSSES = {
    "gaussian": (Gaussian("theta[0]"), {}),
    "laplace": (Laplace("theta[0]"), {}),
    "lognormal": (LogNormal("theta[0]", base=10.0), {}),
    "loglaplace": (LogLaplace("theta[0]"), {}),
    "student": (StudentT("theta[0]", degrees="theta[1]"), {}),
    "poisson": (Poisson(), {}),
    "binomial": (NegativeBinomial("theta[0]"), {}),
    "numbers": (Gaussian(0.2), {}),
    "own": ([Density(gumbel), Gaussian("theta[0]")], {"observe": observe}),
    "observed": ([Gaussian("theta[0]"), StudentT("theta[3]", degrees=3.0)], {"observe": observe}),
    "function": (Gaussian(sigma), {"observe": observe}),
    "function of components": (Gaussian(sigma), {}),
}


def cotangents(prepared, states, theta):
    prepared.observe(states, theta)
    assert np.isfinite(prepared.run())
    return np.concatenate([prepared.u_bars.ravel(), prepared.theta_bar])


@pytest.mark.parametrize("kind", LOSSES)
def test_against_differences_of_cotangents(kind):
    noise, options = LOSSES[kind]
    prepared = Likelihood(TIMES, DATA, noise, **options).prepare(2, 3.0)
    hold(prepared, STATES)


def test_counts_since_the_time_before():
    counts = np.array([[3.0], [2.0], [5.0]])
    prepared = Likelihood([1.0, 2.0, 3.0], counts, NegativeBinomial("theta[0]"), since=0.0).prepare(2, 3.0)
    hold(prepared, np.vstack([[0.5, 1.0], STATES]))


def hold(prepared, states):
    require_second_order(prepared)
    local, h = np.random.default_rng(1), 1e-6
    dots, w = local.normal(size=states.shape), local.normal(size=THETA.size)
    sides = [cotangents(prepared, states + sign * h * dots, THETA + sign * h * w) for sign in (1.0, -1.0)]
    cotangents(prepared, states, THETA)
    found = tangents_of_cotangents(prepared, dots[:, None], w[None])
    found = np.concatenate([found[0][:, 0].ravel(), found[1][0]])
    np.testing.assert_allclose(found, (sides[0] - sides[1]) / (2.0 * h), rtol=1e-6, atol=1e-7 * np.abs(found).max())


def test_counts_that_are_zero_and_dispersions_that_are_small():
    zero, one = np.zeros(1), np.ones(1)
    for density in (densities.POISSON, densities.NEGATIVE_BINOMIAL):
        assert all(np.isfinite(x).all() for x in curvatures(density, zero, zero, one, one))
    y, d = np.array([7.0]), np.array([4.0])
    # log(1 + s y) / s = y - s y^2 / 2 + s^2 y^3 / 3 - ..., and so on: by s twice, at s = 0
    wanted = 2.0 / 3.0 * 7.0**3 - 4.0 * 7.0**2 + (0 + 1 + 4 + 9)
    assert curvatures(densities.NEGATIVE_BINOMIAL, y, d, np.array([1e-9]), one)[3][0] == pytest.approx(wanted, rel=1e-6)
