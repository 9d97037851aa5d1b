"""Likelihoods: each density against SciPy's, derivatives against differences and closed forms, data in every form."""

import math
import pickle
from dataclasses import dataclass, field

import mpmath
import numpy as np
import pytest
from scipy import stats

from adjode import (
    Dynamics,
    SolveError,
    ensemble_value_and_gradient,
    residuals_and_jacobian,
    solve,
    value_and_gradient,
)
from adjode.losses import (
    Gaussian,
    Laplace,
    LeastSquares,
    Likelihood,
    LogLaplace,
    LogNormal,
    NegativeBinomial,
    Observables,
    Poisson,
    StudentT,
)
from adjode.model.losses import loss_for


def chain(t, u, theta, du):
    du.first = -theta.rate * u.first
    du.second = theta.rate * u.first - theta.loss * u.second


def totals(t, u, theta, y):
    y[0] = u.first + u.second
    y[1] = u.first / (1.0 + u.second)
    y[2] = theta.loss * u.first * (1.0 + t)


def spread(t, u, theta, s):
    s[0] = theta.sigma + 0.1 * u.first
    s[1] = theta.sigma
    s[2] = 0.2 * theta.sigma * (1.0 + u.second)


CHAIN = Dynamics(chain, states=("first", "second"), parameters=("rate", "loss", "sigma", "degrees"))
U0, THETA, SPAN, TIMES = np.array([9.0, 1.0]), np.array([0.7, 0.3, 0.4, 3.0]), (0.0, 3.0), np.array([0.5, 3.0, 1.0, 2.0])
TIGHT = {"rtol": 1e-11, "atol": 1e-11}
NAMES = ("sum", "ratio", "loss")


def states(times=TIMES):
    return solve(CHAIN, U0, THETA, SPAN, t_eval=times, rtol=1e-12, atol=1e-12).u_eval


DATA = np.array([[6.5, 2.0], [1.2, np.nan], [5.0, 4.0], [2.0, 3.5]])
COUNTS = np.array([[6.0, 3.0], [0.0, 3.0], [np.nan, 4.0], [3.0, 2.0]])

# the noise, its data, and minus the logarithm of the density of d around y for sigma = 0.4
DENSITIES = {
    "gaussian": (Gaussian("sigma"), DATA, lambda y, d: -stats.norm(y, 0.4).logpdf(d)),
    "gaussian, number": (Gaussian(0.3), DATA, lambda y, d: -stats.norm(y, 0.3).logpdf(d)),
    "gaussian, by place": (Gaussian("theta[2]"), DATA, lambda y, d: -stats.norm(y, 0.4).logpdf(d)),
    "laplace": (Laplace("sigma"), DATA, lambda y, d: -stats.laplace(y, 0.4).logpdf(d)),
    "log-normal": (LogNormal("sigma"), DATA, lambda y, d: -stats.lognorm(0.4, scale=y).logpdf(d)),
    "log10-normal": (LogNormal("sigma", base=10.0), DATA, lambda y, d: -stats.lognorm(0.4 * math.log(10.0), scale=y).logpdf(d)),
    "log-laplace": (LogLaplace("sigma"), DATA, lambda y, d: -stats.laplace(np.log(y), 0.4).logpdf(np.log(d)) + np.log(d)),
    "poisson": (Poisson(), COUNTS, lambda y, d: -stats.poisson(y).logpmf(d)),
    "negative binomial": (NegativeBinomial("sigma"), COUNTS, lambda y, d: -stats.nbinom(2.5, 2.5 / (2.5 + y)).logpmf(d)),
    "student's t": (StudentT("sigma", degrees="degrees"), DATA, lambda y, d: -stats.t(3.0, y, 0.4).logpdf(d)),
}


def against_differences(loss, step=1e-5, bound=1e-8):
    evaluate, z = value_and_gradient(CHAIN, loss, SPAN, **TIGHT), np.concatenate([U0, THETA])
    _, bar = evaluate(U0, THETA)
    gradient, h = np.concatenate([bar.u0, bar.theta]), step * np.eye(z.size)

    def value(z):
        return evaluate(z[:2], z[2:])[0]

    expected = [(8.0 * (value(z + e) - value(z - e)) - value(z + 2 * e) + value(z - 2 * e)) / (12.0 * step) for e in h]
    np.testing.assert_allclose(gradient, expected, rtol=0.0, atol=bound * np.abs(gradient).max())


@pytest.mark.parametrize("name", DENSITIES)
def test_densities(name):
    noise, data, density = DENSITIES[name]
    loss = Likelihood(TIMES, data, noise)
    value, bar = value_and_gradient(CHAIN, loss, SPAN, **TIGHT)(U0, THETA)
    there = ~np.isnan(data)
    np.testing.assert_allclose(value, np.sum(density(states(), data)[there]), rtol=1e-9)
    against_differences(loss, step=1e-3)
    long_way = value_and_gradient(CHAIN, loss, SPAN, adjoint="backsolve", **TIGHT)(U0, THETA)
    np.testing.assert_allclose(long_way[0], value, rtol=1e-9)
    np.testing.assert_allclose(long_way[1].theta, bar.theta, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DENSITIES)
def test_constants_may_be_left_out(name):
    noise, data, _ = DENSITIES[name]
    values = [value_and_gradient(CHAIN, Likelihood(TIMES, data, noise, constants=c), SPAN)(U0, THETA)[0] for c in (True, False)]
    there = ~np.isnan(data)
    np.testing.assert_allclose(values[0] - values[1], np.sum(noise.constant(data[there])), rtol=1e-12)
    if name == "gaussian, number":
        squares, _ = value_and_gradient(CHAIN, LeastSquares(TIMES, DATA, sigma=0.3), SPAN)(U0, THETA)
        np.testing.assert_allclose(values[1], squares + there.sum() * math.log(0.3), rtol=1e-13)


@dataclass
class Fixed:
    """A solution that stays where it is."""

    u: np.ndarray
    theta: np.ndarray
    t: np.ndarray = field(default_factory=lambda: np.array([0.0, 1.0]))

    def __call__(self, t):
        return np.tile(self.u[-1], (np.size(t), 1))


@pytest.mark.parametrize("dispersion", [1e-8, 1e-5, 0.3, 40.0])
@pytest.mark.parametrize(("mean", "count"), [(0.3, 0), (2.0, 5), (1e4, 9.7e3), (3e-5, 1)])
def test_negative_binomial_to_rounding(dispersion, mean, count):
    """Where the gamma functions are huge and cancel, too."""
    solution = Fixed(np.array([[mean]] * 2), np.array([dispersion]))
    value, seeds = Likelihood([0.5], [float(count)], NegativeBinomial("theta[0]")).value_and_cotangents(solution)
    with mpmath.workdps(60):

        def exact(y, s):
            k, d = 1 / mpmath.mpf(s), mpmath.mpf(count)
            rising = mpmath.loggamma(k + d) - mpmath.loggamma(k) - mpmath.loggamma(d + 1)
            return -(rising + k * mpmath.log(k / (k + y)) + d * mpmath.log(y / (k + y)))

        expected = exact(mpmath.mpf(mean), dispersion)
        by_y = mpmath.diff(lambda y: exact(y, dispersion), mean)
        by_s = mpmath.diff(lambda s: exact(mpmath.mpf(mean), s), dispersion)
    size = count * abs(math.log(mean)) + abs(math.lgamma(count + 1.0)) + mean
    assert abs(value - expected) <= 1e-14 * max(size, count * abs(math.log(dispersion)))
    np.testing.assert_allclose(seeds["observations"][1][0, 0], float(by_y), rtol=1e-12)
    slack = 1e-14 * max(mean, count) / dispersion  # of terms that cancel
    np.testing.assert_allclose(seeds["theta_bar"][0], float(by_s), rtol=1e-10, atol=slack)


@pytest.mark.parametrize("degrees", [0.7, 5.0, 1e6])
@pytest.mark.parametrize("residual", [0.0, -1.3, 400.0])
def test_students_t_to_rounding(degrees, residual):
    solution = Fixed(np.array([[1.0]] * 2), np.array([0.2, degrees]))
    loss = Likelihood([0.5], [1.0 - 0.2 * residual], StudentT("theta[0]", degrees="theta[1]"))
    value, seeds = loss.value_and_cotangents(solution)
    with mpmath.workdps(50):
        r = mpmath.mpf(1.0) - mpmath.mpf(1.0 - 0.2 * residual)

        def exact(s, q):
            rising = mpmath.loggamma((q + 1) / 2) - mpmath.loggamma(q / 2)
            return -rising + mpmath.log(s) + mpmath.log(q * mpmath.pi) / 2 + (q + 1) / 2 * mpmath.log1p((r / s) ** 2 / q)

        s, q = mpmath.mpf(0.2), mpmath.mpf(degrees)
        expected, slopes = exact(s, q), [mpmath.diff(lambda s: exact(s, q), s), mpmath.diff(lambda q: exact(s, q), q)]
    np.testing.assert_allclose(value, float(expected), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(seeds["theta_bar"], [float(one) for one in slopes], rtol=1e-9, atol=1e-15)


def mixed(**options):
    data = {"sum": DATA[:, 0], "loss": DATA[:, 1]}
    noise = {"sum": Gaussian(spread), "ratio": LogNormal(spread), "loss": StudentT(spread, degrees=4.0)}
    return Likelihood(TIMES, data, noise, observe=Observables(totals, NAMES), **options)


def test_observables_and_scales_that_are_functions():
    value, _ = value_and_gradient(CHAIN, mixed(), SPAN, **TIGHT)(U0, THETA)
    expected = 0.0
    for k, (t, u) in enumerate(zip(TIMES, states(), strict=True)):
        expected -= stats.norm(u[0] + u[1], 0.4 + 0.1 * u[0]).logpdf(DATA[k, 0])
        if k != 1:
            expected -= stats.t(4.0, 0.3 * u[0] * (1.0 + t), 0.08 * (1.0 + u[1])).logpdf(DATA[k, 1])
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    against_differences(mixed(), step=1e-3)


def returned(t, u, theta):
    return np.array([u[0] + u[1], u[0] * u[1], theta[1] * u[0]])


def test_more_observables_than_states_that_are_returned():
    loss = Likelihood(TIMES, np.column_stack([DATA, DATA[:, 0]]), Gaussian("sigma"), observe=returned)
    against_differences(loss, step=1e-3)


@pytest.mark.parametrize("since", [None, 0.1])
def test_residuals_where_it_is_a_sum_of_squares(since):
    noise = {"sum": Gaussian(0.3), "ratio": LogNormal([0.1, 0.2, 0.3, 0.4], base=10.0), "loss": Gaussian(0.2)}
    data = {"sum": DATA[:, 0], "ratio": np.array([0.5, np.nan, 0.1, 0.2]), "loss": DATA[:, 1]}
    if since is not None:
        noise["ratio"] = Gaussian([0.1, 0.2, 0.3, 0.4])
    ones = [Likelihood(TIMES, data, noise, observe=Observables(totals, NAMES), since=since)]
    ones.append(Likelihood(TIMES, {"second": DATA[:, 1]}, Gaussian(0.3), since=since))
    for loss in ones:
        value, bar = value_and_gradient(CHAIN, loss, SPAN, **TIGHT)(U0, THETA)
        r, J = residuals_and_jacobian(CHAIN, loss, SPAN, **TIGHT)(U0, THETA)
        gradient = np.concatenate([bar.u0, bar.theta])
        np.testing.assert_allclose(J.T @ r, gradient, rtol=0.0, atol=1e-11 * np.abs(gradient).max())
        constant = loss.constant + np.log(loss.scales[~loss.missing]).sum()
        np.testing.assert_allclose(0.5 * r @ r + constant, value, rtol=1e-12)


def test_what_is_no_sum_of_squares_has_no_residuals():
    for noise in (Gaussian("sigma"), Laplace(0.3)):
        with pytest.raises(TypeError, match="residuals need"):
            residuals_and_jacobian(CHAIN, Likelihood(TIMES, DATA, noise), SPAN)


def test_tolerances_that_hide_what_is_compared():
    with pytest.warns(RuntimeWarning, match=r"the loss compares u\['second'\] at t = 0.5, where atol = 0.01 allows errors of"):
        value_and_gradient(CHAIN, Likelihood(TIMES, {"second": DATA[:, 1]}, Gaussian(0.01)), SPAN, atol=1e-2)(U0, THETA)


def test_counts_since_the_time_before():
    weeks = np.array([1.0, 2.0, 3.0])
    counts, noise = np.array([3.0, np.nan, 1.0]), NegativeBinomial("sigma")
    loss = Likelihood(weeks[[2, 0, 1]], counts[[2, 0, 1]], noise, components=["second"], since=0.0)
    value, _ = value_and_gradient(CHAIN, loss, SPAN, **TIGHT)(np.array([9.0, 0.0]), np.array([0.7, 0.01, 0.4, 3.0]))
    u = solve(CHAIN, [9.0, 0.0], [0.7, 0.01, 0.4, 3.0], SPAN, t_eval=[0.0, *weeks], rtol=1e-12, atol=1e-12).u_eval[:, 1]
    new = np.diff(u)[[0, 2]]
    np.testing.assert_allclose(value, -stats.nbinom(2.5, 2.5 / (2.5 + new)).logpmf([3.0, 1.0]).sum(), rtol=1e-8)
    against_differences(mixed(since=0.1), step=1e-3)


def test_data_as_a_table():
    rows = [(t, name, DATA[k, c], 0.1 + k) for k, t in enumerate(TIMES) for c, name in enumerate(("second", "first"))]
    rows.append((TIMES[0], "first", 7.0, 0.5))  # a second datum at the same time
    table = {name: [row[i] for row in rows] for i, name in enumerate(("time", "observable", "value", "sigma"))}
    value, _ = value_and_gradient(CHAIN, Likelihood.from_table(table, Gaussian()), SPAN, **TIGHT)(U0, THETA)
    u, there = states()[:, ::-1], ~np.isnan(DATA)
    scale = np.broadcast_to(0.1 + np.arange(4.0)[:, None], (4, 2))
    expected = -stats.norm(u, scale).logpdf(DATA)[there].sum() - stats.norm(u[0, 1], 0.5).logpdf(7.0)
    np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_tables_of_pandas_with_experiments():
    pandas = pytest.importorskip("pandas")
    rows = {"time": [1.0, 2.0, 1.0], "observable": ["first"] * 3, "value": [3.0, 2.0, 5.0], "experiment": ["a", "a", "b"]}
    table = pandas.DataFrame(rows)
    loss = Likelihood.from_table(table, Gaussian(0.5), experiment="a")
    np.testing.assert_array_equal(loss.t_obs, [1.0, 2.0])
    np.testing.assert_array_equal(loss.data, [[3.0], [2.0]])
    with pytest.raises(ValueError, match="has the experiments 'a', 'b': say which"):
        Likelihood.from_table(table, Gaussian(0.5))
    with pytest.raises(ValueError, match="no experiment 'c'"):
        Likelihood.from_table(table, Gaussian(0.5), experiment="c")


def test_copies_ensembles_and_what_is_jitted():
    loss = mixed()
    value, bar = value_and_gradient(CHAIN, loss, SPAN, **TIGHT)(U0, THETA)
    copied, _ = value_and_gradient(CHAIN, pickle.loads(pickle.dumps(loss)), SPAN, **TIGHT)(U0, THETA)
    assert copied == value
    values, bars = ensemble_value_and_gradient(CHAIN, loss, SPAN, **TIGHT)(np.tile(U0, (3, 1)), THETA)
    np.testing.assert_allclose(values, value, rtol=1e-12)
    np.testing.assert_allclose(bars.theta, 3.0 * bar.theta, rtol=1e-10)


def test_losses_of_the_same_function_share_what_is_compiled():
    one, other = (loss_for(CHAIN.fields, mixed()) for _ in range(2))
    assert one.rule is other.rule and one.scale_rule is other.scale_rule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0.0), "sigma must be positive, but 0.0 was given"),
        (lambda: Gaussian([0.1, -1.0]), "sigma must be positive"),
        (lambda: NegativeBinomial(-2.0), "dispersion must be positive"),
        (lambda: StudentT(1.0, degrees=0.0), "degrees must be positive"),
        (lambda: LogNormal(0.1, base=1.0), "base must be the base of a logarithm"),
        (lambda: Likelihood(TIMES, DATA, Gaussian()), "the noise of column 0 needs its sigma"),
        (lambda: Likelihood(TIMES, DATA, [Gaussian(1.0)]), "an entry for each of the 2 columns"),
        (lambda: Likelihood(TIMES, DATA, Gaussian(np.ones(3))), r"sigma must broadcast to data of shape \(4, 2\)"),
        (lambda: Likelihood(TIMES, DATA, Poisson()), "the data of column 0 must be counts"),
        (lambda: Likelihood(TIMES, -DATA, LogNormal(1.0)), "must be finite and positive"),
        (lambda: Likelihood(TIMES, DATA[:3], Gaussian(1.0)), "one row for each of the 4 times"),
        (lambda: Likelihood(TIMES, {"x": DATA[:, 0]}, Gaussian(1.0), observe=totals), "need the names of what observe makes"),
        (
            lambda: Likelihood(TIMES, {"x": DATA[:, 0]}, Gaussian(1.0), observe=Observables(totals, NAMES)),
            "observable 'x', but they",
        ),
        (lambda: Likelihood(TIMES, DATA, {"a": Gaussian(1.0)}), "noise names the observable 'a'"),
        (lambda: Likelihood([1.0, 1.0], [1.0, 2.0], Poisson(), since=0.0), "need distinct times"),
        (lambda: Likelihood([1.0, 2.0], [1.0, 2.0], Poisson(), since=1.0), "later than since = 1.0"),
        (lambda: Likelihood.from_table({"time": [1.0], "value": [1.0]}, Gaussian(1.0)), "lacks observable"),
    ],
)
def test_what_is_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (
            Likelihood(TIMES, DATA, Gaussian("scale")),
            ValueError,
            "the noise of column 0 names 'scale', which is not among the parameters",
        ),
        (Likelihood(TIMES, {"third": DATA[:, 0]}, Gaussian(1.0)), ValueError, "the state 'third' is observed, but the states are"),
        (Likelihood([4.0], [1.0], Gaussian(1.0)), ValueError, "t_obs must lie in the span"),
        (Likelihood(TIMES, DATA, Gaussian(1.0), components=[0, 5]), ValueError, "the state has 2 components"),
    ],
)
def test_what_does_not_fit(loss, error, message):
    with pytest.raises(error, match=message):
        value_and_gradient(CHAIN, loss, SPAN)(U0, THETA)


def test_scales_and_means_that_are_not_positive():
    evaluate = value_and_gradient(CHAIN, Likelihood(TIMES, DATA, Gaussian("sigma")), SPAN)
    with pytest.raises(SolveError, match="needs a positive number, but the sigma of column 0 is -0.1 at t = 0.5"):
        evaluate(U0, np.array([0.7, 0.3, -0.1, 3.0]))
    evaluate = value_and_gradient(CHAIN, Likelihood(TIMES, COUNTS, Poisson()), SPAN)
    with pytest.raises(SolveError, match="Poisson noise needs a positive number, but the prediction of column 0 is -6"):
        evaluate(-U0, THETA)
