"""Densities that users write: against those that are there, differences and closed forms, beside others and by themselves."""

import math
import pickle

import numpy as np
import pytest
from scipy import stats

from adjode import Dynamics, Experiment, Fit, Parameter, SolveError, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.losses import Density, Gaussian, Likelihood, Series
from adjode.model.losses import loss_for


def chain(t, u, theta, du):
    du.first = -theta.rate * u.first
    du.second = theta.rate * u.first - theta.loss * u.second


def gumbel(y, d, theta):
    z = (d - y) / theta.sigma
    return z + math.exp(-z) + math.log(theta.sigma)


def mixed(y, d, theta):
    r = (d - y) / theta.sigma
    near = (1.0 - theta.outliers) * math.exp(-0.5 * r * r) / theta.sigma
    return 0.5 * math.log(2.0 * math.pi) - math.log(near + theta.outliers * math.exp(-0.5 * (d - y) ** 2))


def normal(y, d, theta):
    return 0.5 * ((d - y) / theta.sigma) ** 2 + math.log(theta.sigma) + 0.5 * math.log(2.0 * math.pi)


CHAIN = Dynamics(chain, states=("first", "second"), parameters=("rate", "loss", "sigma", "outliers"))
U0, THETA, SPAN, TIMES = np.array([9.0, 1.0]), np.array([0.7, 0.3, 0.4, 0.1]), (0.0, 3.0), np.array([0.5, 3.0, 1.0, 2.0])
DATA = np.array([[6.5, 2.0], [1.2, np.nan], [5.0, 4.0], [2.0, 3.5]])
TIGHT = {"rtol": 1e-11, "atol": 1e-11}


def evaluated(loss, z=None):
    value, bar = value_and_gradient(CHAIN, loss, SPAN, **TIGHT)(*((U0, THETA) if z is None else (z[:2], z[2:])))
    return value, np.concatenate([bar.u0, bar.theta])


def against_differences(loss, step=1e-3):
    z = np.concatenate([U0, THETA])
    _, gradient = evaluated(loss)
    evaluate = value_and_gradient(CHAIN, loss, SPAN, **TIGHT)

    def value(k, x):
        moved = z.copy()
        moved[k] += x * step
        return evaluate(moved[:2], moved[2:])[0]

    for k in range(z.size):
        expected = (8.0 * (value(k, 1) - value(k, -1)) - value(k, 2) + value(k, -2)) / (12.0 * step)
        assert abs(gradient[k] - expected) <= 1e-7 * np.abs(gradient).max()


def test_one_for_each_column():
    loss = Likelihood(TIMES, DATA, [Density(gumbel), Density(mixed)])
    u = solve(CHAIN, U0, THETA, SPAN, t_eval=TIMES, rtol=1e-12, atol=1e-12).u_eval
    near, far = stats.norm(u[:, 1], 0.4).pdf(DATA[:, 1]), stats.norm(u[:, 1], 1.0).pdf(DATA[:, 1])
    expected = -stats.gumbel_r(u[:, 0], 0.4).logpdf(DATA[:, 0]).sum() - np.nansum(np.log(0.9 * near + 0.1 * far))
    np.testing.assert_allclose(evaluated(loss)[0], expected, rtol=1e-9)
    against_differences(loss)


@pytest.mark.parametrize("since", [None, 0.1])
def test_beside_one_that_is_known(since):
    """The user's normal density is that of `Gaussian`, also of what has come since the time before."""
    own, known = (Likelihood(TIMES, DATA, [one, Gaussian("sigma")], since=since) for one in (Density(normal), Gaussian("sigma")))
    (value, gradient), (expected, slopes) = evaluated(own), evaluated(known)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-11)


def totals(t, u, theta, y):
    y[0] = u.first + theta.loss * u.second
    y[1] = u.first * u.second


def test_of_observables():
    against_differences(Likelihood(TIMES, DATA, Density(mixed), observe=totals))


def test_fits_copies_and_ensembles():
    loss = Likelihood(TIMES, DATA, Density(normal))
    value, gradient = evaluated(loss)
    copied, _ = evaluated(pickle.loads(pickle.dumps(loss)))
    assert copied == value
    values, bars = ensemble_value_and_gradient(CHAIN, loss, SPAN, **TIGHT)(np.tile(U0, (3, 1)), THETA)
    np.testing.assert_allclose(values, value, rtol=1e-12)
    np.testing.assert_allclose(bars.theta, 3.0 * gradient[2:], rtol=1e-10)
    parameters = {"rate": Parameter(0.5), "loss": 0.3, "sigma": Parameter(0.5, bounds=(0.01, 10.0), scale="log"), "outliers": 0.0}
    names = {name: name for name in parameters}
    found = [
        Fit(Experiment(CHAIN, Likelihood(TIMES, DATA, noise), SPAN, u0=U0, theta=names), parameters=parameters).minimize()
        for noise in (Density(normal), Gaussian("sigma"))
    ]
    np.testing.assert_allclose(*(one.x for one in found), rtol=1e-4)


def scaled_by(factor):
    def density(y, d, theta):
        return factor * abs(y - d)

    return density


def test_captured_constants_and_what_is_shared():
    one, other = (loss_for(CHAIN.fields, Likelihood(TIMES, DATA, Density(normal))) for _ in range(2))
    assert one.density_rules[0] is other.density_rules[0]
    assert len(loss_for(CHAIN.fields, Likelihood(TIMES, DATA, [Density(normal), Density(normal)])).density_rules) == 1
    values = [evaluated(Likelihood(TIMES, DATA, Density(scaled_by(factor))))[0] for factor in (1.0, 2.0)]
    np.testing.assert_allclose(values[1], 2.0 * values[0], rtol=1e-12)


def undefined(y, d, theta):
    return math.log(y - 100.0)


def raises(y, d, theta):
    if y < 100.0:
        raise ValueError("y is small")
    return y


def beyond(y, d, theta):
    return theta[9] * y


def as_array(y, d, theta):
    return np.array([y])


def unknown(y, d, theta):
    return theta.width * y


def with_file(y, d, theta):
    return y + len(open("data").read())


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (undefined, SolveError, r"the density of column 0 at t = 0.5 is nan, where y = 6.34\d+ and d = 6.5"),
        (raises, ValueError, "y is small"),
        (beyond, ValueError, "indexes an array out of bounds at observation 3 of 7, where theta has 4 entries"),
        (as_array, TypeError, "density must return a number, but it returns an array: sum it up"),
        (unknown, TypeError, "density uses theta.width, but the names that were declared for theta are rate"),
        (with_file, TypeError, "cannot be differentiated"),
    ],
)
def test_what_is_wrong_with_a_density(function, error, message):
    with pytest.raises(error, match=message):
        evaluated(Likelihood(TIMES, DATA, Density(function)))


def test_what_is_no_density():
    for given in (lambda y, d: y, 0.3, None):
        with pytest.raises(TypeError, match=r"a density must be a function negative_log\(y, d, theta\) -> float"):
            Density(given)


def test_what_is_undefined_stops_no_fit():
    """A logarithm of a negative number is NaN in compiled code, where plain Python raises."""

    def value(k, t, u, theta):
        return math.log(u.first - 100.0)

    with pytest.raises(SolveError, match="the loss is not finite"):
        evaluated(Series(TIMES, value=value))
