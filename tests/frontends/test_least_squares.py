"""Fits by least squares, and what the data say of the estimates: closed forms, singular directions, failing solves, many starts."""

import functools
import warnings

import numpy as np
import pytest
from scipy import optimize, stats

import adjode
from adjode import Dynamics, Fit, SolveError
from adjode.frontends.uncertainty import rounded
from adjode.losses import FinalState, LeastSquares
from tests.problems.hybrid import PK_DOSES, PK_SPAN, PK_THETA, PK_U0, drug, drug_at
from tests.problems.stiff_systems import robertson
from tests.problems.systems import lotka_volterra

SPAN, TIMES = (0.0, 8.0), np.linspace(0.0, 8.0, 17)
TRUE_THETA, TRUE_U0 = np.array([0.8, 0.5, 1.1, 0.4]), np.array([2.0, 1.5])
TIGHT = {"rtol": 1e-9, "atol": 1e-11}


@functools.cache
def data():
    noise = np.random.default_rng(3).normal(size=(TIMES.size, 2))
    return adjode.solve(lotka_volterra(), TRUE_U0, TRUE_THETA, SPAN, **TIGHT)(TIMES) * np.exp(0.05 * noise)


def fit_of_data(**changes):
    given = {"u0": [1.8, 1.2], "theta": [0.7, 0.6, 1.0, 0.45], "free": ("u0", "theta"), **TIGHT, **changes}
    return Fit(lotka_volterra(), LeastSquares(TIMES, data(), sigma=0.3), SPAN, **given)


# --- a straight line: all is known in closed form -----------------------------------------------------------------------------
def line_f(t, u, theta, du):
    du[0] = theta[0]


@functools.cache
def line():
    return Dynamics(line_f)


X = np.array([0.0, 0.7, 1.1, 2.0, 3.2, 4.0])
Y = np.array([1.1, 1.4, 1.9, 2.8, 4.3, 4.8])


def fitted_line(**options):
    fit = Fit(line(), LeastSquares(X, Y, **options), (0.0, 4.0), u0={"start": 0.0}, theta={"slope": 1.0}, free=("u0", "theta"))
    fit.least_squares(xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return fit


def test_a_line_has_its_closed_forms():
    found, known = fitted_line().uncertainty(), stats.linregress(X, Y)
    np.testing.assert_allclose(found.values, [known.intercept, known.slope], rtol=1e-9)
    np.testing.assert_allclose(found.standard_errors, [known.intercept_stderr, known.stderr], rtol=1e-9)
    width = stats.t.ppf(0.95, X.size - 2) * np.array([known.intercept_stderr, known.stderr])
    np.testing.assert_allclose(found.intervals(0.9), np.column_stack([found.values - width, found.values + width]), rtol=1e-6)
    assert (found.n_data, found.degrees_of_freedom) == (6, 4)
    spread = np.sum((X - X.mean()) ** 2)
    assert found.correlation[0, 1] == pytest.approx(-X.mean() / np.sqrt(spread / X.size + X.mean() ** 2), rel=1e-9)
    assert found.residual_variance == pytest.approx(np.sum((Y - known.intercept - known.slope * X) ** 2) / 4, rel=1e-9)


def test_the_band_of_a_line():
    band, known, at = fitted_line().predict([3.0, 0.5], level=0.9), stats.linregress(X, Y), np.array([3.0, 0.5])
    variance = np.sum((Y - known.intercept - known.slope * X) ** 2) / 4
    errors = np.sqrt(variance * (1 / X.size + (at - X.mean()) ** 2 / np.sum((X - X.mean()) ** 2)))
    np.testing.assert_allclose(band.standard_errors[:, 0], errors, rtol=1e-6)
    width = stats.t.ppf(0.95, 4) * errors
    np.testing.assert_allclose(band.low[:, 0], known.intercept + known.slope * at - width, rtol=1e-6)
    np.testing.assert_allclose(band.high[:, 0], known.intercept + known.slope * at + width, rtol=1e-6)


def test_sigma_as_given():
    sigma = np.array([0.1, 0.2, 0.1, 0.3, 0.2, 0.1])
    fit = fitted_line(sigma=sigma)
    _, known = optimize.curve_fit(lambda x, a, b: a + b * x, X, Y, sigma=sigma, absolute_sigma=True)
    np.testing.assert_allclose(fit.covariance(absolute_sigma=True), known, rtol=1e-5)
    _, scaled = optimize.curve_fit(lambda x, a, b: a + b * x, X, Y, sigma=sigma)
    np.testing.assert_allclose(fit.covariance(), scaled, rtol=1e-5)
    known_sigma = fit.uncertainty(absolute_sigma=True)
    width = stats.norm.ppf(0.975) * known_sigma.standard_errors
    np.testing.assert_allclose(np.diff(known_sigma.intervals())[:, 0], 2 * width, rtol=1e-9)


def test_the_table_is_as_one_would_print_it():
    assert str(fitted_line().uncertainty()).splitlines() == [
        "entry           estimate  std. error    95% interval",
        "u0['start']         0.89        0.13    0.53 .. 1.25",
        "theta['slope']     0.998       0.056  0.842 .. 1.154",
        "6 data, 4 degrees of freedom, residual variance 0.0371",
    ]
    assert [rounded(1.23456, 0.0123), rounded(12345.6, 123.0), rounded(-3.2e-7, 1.5e-9)] == ["1.235", "1.235e+04", "-3.200e-07"]
    assert [rounded(0.0, 0.1), rounded(5.0, 0.0), rounded(0.00123, 5.0)] == ["0.00", "5", "0.0"]


# --- logarithms -------------------------------------------------------------------------------------------------------------------
def test_scales():
    plain, logs = fit_of_data(), fit_of_data(log=("u0", "theta"))
    for fit in (plain, logs):
        fit.least_squares(xtol=1e-14, ftol=1e-14, gtol=1e-14)
    np.testing.assert_allclose(logs.covariance(), plain.covariance(), rtol=1e-4)
    found = logs.uncertainty()
    np.testing.assert_allclose(found.values, np.exp(found.x))
    np.testing.assert_allclose(logs.covariance(scale="fit") * np.outer(found.values, found.values), logs.covariance(), rtol=1e-12)
    ends = found.intervals()
    np.testing.assert_allclose(np.sqrt(ends[:, 0] * ends[:, 1]), found.values, rtol=1e-12)
    np.testing.assert_allclose(found.correlation, plain.uncertainty().correlation, rtol=1e-3)
    np.testing.assert_allclose(logs.predict([1.0, 5.5]).low, plain.predict([1.0, 5.5]).low, rtol=1e-5)
    with pytest.raises(ValueError, match="scale must be"):
        logs.covariance(scale="log")


def test_jacobian_by_x_against_differences():
    fit = fit_of_data(log={"theta": [0, 2]}, free={"u0": [1], "theta": True})
    x, h = fit.x0 + 0.01, 1e-6
    _, J = fit.evaluate_residuals(x)
    for k, e in enumerate(np.eye(x.size) * h):
        difference = (fit.evaluate_residuals(x + e)[0] - fit.evaluate_residuals(x - e)[0]) / (2 * h)
        np.testing.assert_allclose(J[:, k], difference, rtol=0, atol=1e-5 * np.abs(J).max())


# --- the fits --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["trf", "dogbox", "lm"])
def test_the_minimum_is_that_of_minimize(method):
    fit = fit_of_data(log="theta")
    result = fit.least_squares(method, xtol=1e-12, ftol=1e-12)
    value, gradient = fit.value_and_gradient(result.x)
    assert result.cost == pytest.approx(value, rel=1e-12)
    assert np.abs(gradient).max() < 1e-6 * np.abs(fit.value_and_gradient(fit.x0)[1]).max()
    np.testing.assert_allclose(result.theta, TRUE_THETA, rtol=0.1)
    np.testing.assert_array_equal(np.concatenate([result.u0, np.log(result.theta)]).round(12), result.x.round(12))
    assert result.n_failed == 0 and result.nfev < 15  # where L-BFGS-B takes 40


def test_bounds_are_kept_and_named():
    fit = fit_of_data(bounds={"theta": ([None] * 3 + [0.44], [None] * 4)})
    result = fit.least_squares()
    assert result.theta[3] == pytest.approx(0.44, abs=1e-6) and result.theta[3] >= 0.44
    x = np.append(result.x[:-1], 0.44)
    assert fit.uncertainty(x).at_bounds == ["theta[3]"] and "theta[3] (at a bound)" in str(fit.uncertainty(x))
    with pytest.raises(ValueError, match="method='lm' takes no bounds"):
        fit.least_squares("lm")


def test_a_robust_loss_makes_less_of_outliers():
    wrong = data().copy()
    wrong[5, 0] += 5.0
    given = {"u0": TRUE_U0, "theta": [0.75, 0.5, 1.0, 0.42], **TIGHT}
    fit = Fit(lotka_volterra(), LeastSquares(TIMES, wrong, sigma=0.3), SPAN, **given)
    plain, robust = (np.abs(fit.least_squares(loss=loss).theta - TRUE_THETA).max() for loss in ("linear", "cauchy"))
    assert robust < 0.3 * plain
    with pytest.raises(ValueError, match="there is no theory of standard errors for loss='cauchy'"):
        fit.uncertainty()


def test_failing_solves_are_stepped_back_from():
    """A blow-up: theta above a limit has no solution over the span."""

    def f(t, u, theta, du):
        du[0] = theta[0] * u[0] * u[0]

    times = np.linspace(0.5, 4.0, 8)
    loss = LeastSquares(times, 1.0 / (1.0 - 0.24 * times))
    for method in ("trf", "dogbox", "lm"):
        fit = Fit(Dynamics(f), loss, (0.0, 4.0), u0=[1.0], theta=[-1.0], max_steps=2000)
        with pytest.warns(
            RuntimeWarning, match=r"solves of the fit failed, and the optimiser stepped back from them; the first: the forward"
        ):
            result = fit.least_squares(method, x_scale=10.0)
        assert result.n_failed == fit.n_failed > 0
        np.testing.assert_allclose(result.theta, 0.24, rtol=1e-4)
    with pytest.raises(SolveError, match="the fit cannot start, because the solve at the start fails"):
        Fit(Dynamics(f), loss, (0.0, 4.0), u0=[1.0], theta=[1.0], max_steps=2000).least_squares()


def test_many_starts_find_the_best_minimum():
    """A frequency has a local minimum for every period; starts from everywhere find the lowest, the same ones for the same seed."""

    def f(t, u, theta, du):
        du[0] = u[1]
        du[1] = -theta[0] * theta[0] * u[0]

    times = np.linspace(0.0, 6.0, 25)
    loss = LeastSquares(times, np.cos(3.0 * times))
    fit = Fit(Dynamics(f), loss, (0.0, 6.0), u0=[1.0, 0.0], theta=[1.0], bounds={"theta": (0.5, 8.0)})
    assert fit.least_squares().cost > 1.0
    result = fit.least_squares(starts=12, seed=1)
    np.testing.assert_allclose(result.theta, 3.0, rtol=1e-4)
    assert len(result.starts) == 12 and result.cost == min(one.cost for one in result.starts)
    again = fit.least_squares(starts=12, seed=1)
    assert [one.cost for one in again.starts] == [one.cost for one in result.starts]
    with pytest.raises(ValueError, match=r"starts=3 needs finite bounds .* theta\[0\] has"):
        fit_of_data(free="theta").least_squares(starts=3)
    with pytest.raises(ValueError, match="starts must be a positive integer"):
        fit.least_squares(starts=0)


# --- profiles --------------------------------------------------------------------------------------------------------------
def test_the_profile_of_a_line_is_straight():
    fit = fitted_line()
    found, intervals = fit.profile(level=0.9), fit.uncertainty().intervals(0.9)
    for k, name in enumerate(fit.names):
        np.testing.assert_allclose(found.intervals[name], intervals[k], rtol=1e-6)
        straight = (found.values[name] - found.estimates[name]) / fit.standard_errors()[k]
        np.testing.assert_allclose(found.roots[name], straight, rtol=0, atol=1e-5)
        assert np.all(np.diff(found.values[name]) > 0)
    assert str(found).splitlines()[0].split() == ["entry", "estimate", "90%", "interval"]


def test_the_profile_of_an_exponential():
    """One entry: the loss is known, and where it crosses the quantile."""

    def f(t, u, theta, du):
        du[0] = -theta[0] * u[0]

    times, amounts = np.array([0.5, 1.0, 2.0, 3.0]), np.array([0.9, 0.5, 0.5, 0.1])
    fit = Fit(Dynamics(f), LeastSquares(times, amounts, sigma=0.2), (0.0, 3.0), u0=[1.0], theta=[0.5], log="theta", **TIGHT)
    result = fit.least_squares(xtol=1e-12, ftol=1e-12)

    def excess(rate):
        loss = 0.5 * np.sum(((np.exp(-rate * times) - amounts) / 0.2) ** 2)
        return 2 * (loss - result.cost) - stats.norm.ppf(0.975) ** 2

    ends = [optimize.brentq(excess, *pair) for pair in ((0.01, result.theta[0]), (result.theta[0], 5.0))]
    found = fit.profile("theta[0]", absolute_sigma=True)
    np.testing.assert_allclose(found.intervals["theta[0]"], ends, rtol=1e-6)
    with pytest.raises(ValueError, match=r"names must be among theta\[0\], but 'rate' was given"):
        fit.profile(["rate"])


def test_a_side_that_the_data_leave_open():
    """Whether a reaction is fast or instantaneous cannot be told from data behind it."""

    def f(t, u, theta, du):
        du[0] = -theta[0] * u[0]
        du[1] = theta[0] * u[0]

    times = np.linspace(2.0, 4.0, 9)
    made = 1.0 - np.exp(-2.0 * times) + 0.02 * np.cos(9.0 * times)
    given = {"u0": [1.0, 0.0], "theta": [2.0], "log": "theta", "method": "Radau", **TIGHT}
    fit = Fit(Dynamics(f), LeastSquares(times, made, components=[1]), (0.0, 4.0), **given)
    fit.least_squares()
    low, high = fit.profile().intervals["theta[0]"]
    assert 0.5 < low < 2.0 and high == np.inf
    bounded = Fit(Dynamics(f), LeastSquares(times, made, components=[1]), (0.0, 4.0), bounds={"theta": (0.1, 50.0)}, **given)
    bounded.least_squares()
    np.testing.assert_allclose(bounded.profile().intervals["theta[0]"], [low, 50.0], rtol=1e-5)


def test_what_is_no_minimum_is_told_of():
    fit = fit_of_data()
    with pytest.warns(RuntimeWarning, match=r"this is not a minimum: a Gauss-Newton step from here is .* standard errors long"):
        fit.uncertainty(fit.x0)
    fit.least_squares()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.uncertainty()


def test_progress(capfd):
    fit_of_data().least_squares(progress=True)
    shown = capfd.readouterr().err
    assert "fit:" in shown and "loss=" in shown and "solves" in shown


# --- what cannot be told ----------------------------------------------------------------------------------------------------------
def test_unidentifiable_entries_are_named():
    def f(t, u, theta, du):
        du[0] = -theta[0] * theta[1] * u[0] + 0.0 * theta[2]

    times = np.linspace(0.0, 2.0, 9)
    loss = LeastSquares(times, np.exp(-0.6 * times) + 0.01 * np.cos(7.0 * times))
    names = {"rate": 0.5, "area": 1.0, "nothing": 1.0}
    dynamics = Dynamics(f)
    fit = Fit(dynamics, loss, (0.0, 2.0), u0={"amount": 1.0}, theta=names, free={"u0": True, "theta": ["rate", "area"]})
    fit.least_squares()
    with pytest.raises(ValueError, match=r"do not determine all entries: .* along .*theta\['rate'\].*theta\['area'\]") as raised:
        fit.covariance()
    assert "amount" not in str(raised.value)
    alone = Fit(dynamics, loss, (0.0, 2.0), u0={"amount": 1.0}, theta=names, free={"u0": True, "theta": ["rate"]})
    alone.least_squares()
    assert alone.covariance().shape == (2, 2)
    with pytest.raises(ValueError, match=r"the data do not depend on theta\['nothing'\]: leave it out of free"):
        Fit(dynamics, loss, (0.0, 2.0), u0={"amount": 1.0}, theta=names).uncertainty([0.6, 1.0, 1.0])


def test_what_there_is_no_covariance_of():
    fit = fit_of_data()
    with pytest.raises(ValueError, match="nothing has been fitted yet"):
        fit.covariance()
    with pytest.raises(TypeError, match=r"residuals need adjode\.losses\.LeastSquares, or .*, but a FinalState"):
        Fit(lotka_volterra(), FinalState([1.0, 1.0]), SPAN, u0=TRUE_U0, theta=TRUE_THETA).least_squares()
    few = Fit(line(), LeastSquares(X[:2], Y[:2]), (0.0, 4.0), u0=[0.0], theta=[1.0], free=("u0", "theta"))
    few.least_squares()
    with pytest.raises(ValueError, match="2 data for 2 entries leave no residual variance"):
        few.covariance()
    assert np.isfinite(few.covariance(absolute_sigma=True)).all()
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        few.predict([1.0], level=95, absolute_sigma=True)
    for wrong in ({"method": "newton"}, {"loss": "l1"}, {"method": "lm", "loss": "huber"}):
        with pytest.raises(ValueError, match="method|loss"):
            fit.least_squares(**wrong)


def test_the_table_of_hare_and_lynx():
    """Against differences of the residuals: another way to the same Jacobian."""
    from examples import hare_lynx

    fit = hare_lynx.build_fit()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fit.least_squares()
    steps = 1e-5 * np.eye(6)
    J = np.array([fit.evaluate_residuals(result.x + e)[0] - fit.evaluate_residuals(result.x - e)[0] for e in steps]) / 2e-5
    covariance = np.linalg.inv(J @ J.T) * 2 * result.cost / (42 - 6)
    np.testing.assert_allclose(fit.covariance(scale="fit"), covariance, rtol=1e-5, atol=1e-8 * np.abs(covariance).max())


def test_hare_and_lynx_as_published():
    """Bob Carpenter (2018), Predator-Prey Population Dynamics: the Lotka-Volterra model in Stan: posterior means of the rates,
    their 80 % intervals, and sigma = 0.25; and the fit of P. Howard (2009) that he quotes.
    """
    from examples import hare_lynx

    fit = hare_lynx.build_fit()
    fit.fit()
    found = fit.uncertainty(absolute_sigma=True)
    means, howard = np.array([0.55, 0.028, 0.80, 0.024]), np.array([0.55, 0.028, 0.84, 0.026])
    assert np.all(np.abs(found.values[2:] - means) < 0.25 * found.standard_errors[2:])
    assert np.all(np.abs(found.values[2:] - howard) < found.standard_errors[2:])
    published = np.array([[0.47, 0.63], [0.023, 0.033], [0.69, 0.91], [0.020, 0.029]])
    profiles = fit.profile(fit.names[2:], level=0.8, absolute_sigma=True)
    profiled = np.array([profiles.intervals[name] for name in fit.names[2:]])
    for ends in (found.intervals(0.8)[2:], profiled):
        assert np.all(np.abs(ends - published) < 0.12 * np.diff(published))
    assert found.residual_variance * hare_lynx.SIGMA**2 == pytest.approx(0.25**2, rel=0.2)


def test_robertson_rates_from_perturbed_starts():
    """Rates that lie nine decades apart: each start ends where the data were made, and their errors are those of the data."""
    u0, rates, times = [1.0, 0.0, 0.0], np.array([0.04, 3e7, 1e4]), np.logspace(-1.0, 4.0, 20)
    sigma, options = 0.01 * np.array([1.0, 4e-5, 1.0]), {"method": "Radau", "rtol": 1e-8, "atol": 1e-12}
    states = adjode.solve(robertson(), u0, rates, (0.0, 1e4), t_eval=times, **options).u_eval
    noisy = states + sigma * np.random.default_rng(1).normal(size=states.shape)
    loss, rng, found = LeastSquares(times, noisy, sigma=sigma), np.random.default_rng(0), []
    for _ in range(5):
        start = rates * np.exp(0.5 * rng.normal(size=3))
        fit = Fit(robertson(), loss, (0.0, 1e4), u0=u0, theta=start, log="theta", **options)
        result = fit.fit()
        assert result.method == "trf" and result.nfev < 15
        found.append(result.theta)
    np.testing.assert_allclose(found, np.tile(found[0], (5, 1)), rtol=1e-4)
    errors = fit.standard_errors(scale="fit", absolute_sigma=True)
    assert np.all(np.abs(np.log(found[0] / rates)) < 3.0 * errors) and errors.max() < 0.05


# --- doses, and what is observed ---------------------------------------------------------------------------------------------
def blood(t, u, theta, y):
    y[0] = u[1]


def test_a_drug_is_fitted_through_its_doses():
    times = np.array([0.5, 1.0, 2.0, 4.0, 5.5, 6.2, 8.0, 12.0])
    measured = [drug_at(PK_U0, PK_THETA, 0.0, t).real[1] for t in times]
    loss, free = LeastSquares(times, measured, sigma=0.1, observe=blood), [0, 1, 2, 9]  # absorption, elimination, lag, duration
    start = PK_THETA * (1.0 + 0.1 * np.isin(np.arange(PK_THETA.size), free))
    fit = Fit(drug(), loss, PK_SPAN, u0=PK_U0, theta=start, free={"theta": free}, doses=PK_DOSES, **TIGHT)
    result = fit.least_squares(xtol=1e-14, ftol=1e-14, gtol=1e-14)
    np.testing.assert_allclose(result.theta, PK_THETA, rtol=1e-5)
    found = fit.uncertainty(absolute_sigma=True)
    J, h = np.empty((times.size, len(free))), 1e-30
    for k, entry in enumerate(free):
        theta = PK_THETA.astype(complex)
        theta[entry] += 1j * h
        J[:, k] = [drug_at(PK_U0, theta, 0.0, t)[1].imag / h / 0.1 for t in times]
    np.testing.assert_allclose(found.covariance, np.linalg.inv(J.T @ J), rtol=1e-4)
    assert fit.predict([3.0, 7.0], absolute_sigma=True).u.shape == (2, 2)
