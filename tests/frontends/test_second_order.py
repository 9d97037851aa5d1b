"""Fits with second derivatives: products and Hessians by x, trust regions, exact covariances, and verdicts on entries."""

import functools

import numpy as np
import pytest
from scipy import stats

from adjode import Doses, Dynamics, Fit, solve
from adjode.losses import FinalState, LeastSquares, Series
from tests.problems.systems import lotka_volterra

SPAN, TIMES = (0.0, 8.0), np.linspace(0.0, 8.0, 17)
TRUE_THETA, TRUE_U0 = np.array([0.8, 0.5, 1.1, 0.4]), np.array([2.0, 1.5])
TIGHT = {"rtol": 1e-9, "atol": 1e-11}


@functools.cache
def data():
    noise = np.random.default_rng(3).normal(size=(TIMES.size, 2))
    return solve(lotka_volterra(), TRUE_U0, TRUE_THETA, SPAN, **TIGHT)(TIMES) * np.exp(0.05 * noise)


def fit_of_data(**changes):
    given = {"u0": [1.8, 1.2], "theta": [0.7, 0.6, 1.0, 0.45], "free": ("u0", "theta"), **TIGHT, **changes}
    return Fit(lotka_volterra(), LeastSquares(TIMES, data(), sigma=0.3), SPAN, **given)


@pytest.mark.parametrize("scales", [{}, {"log": {"theta": [0, 2]}, "free": {"u0": [1], "theta": True}}], ids=["plain", "log"])
def test_hessian_by_x_against_differences_of_gradients(scales):
    fit = fit_of_data(**scales)
    x, h = fit.x0 + 0.01, 1e-5
    H = fit.hessian(x)
    for e in np.eye(x.size):
        difference = (fit.value_and_gradient(x + h * e)[1] - fit.value_and_gradient(x - h * e)[1]) / (2 * h)
        np.testing.assert_allclose(H @ e, difference, rtol=0, atol=1e-5 * np.abs(H).max())
        np.testing.assert_allclose(fit.hessp(x, e), H @ e, rtol=0, atol=1e-12 * np.abs(H).max())


def test_trust_regions_find_the_minimum_in_few_solves():
    fit, loss = fit_of_data(log="theta"), fit_of_data(log="theta").least_squares(xtol=1e-12, ftol=1e-12).loss
    for method in ("trust-ncg", "trust-krylov", "Newton-CG", "trust-constr"):
        result = fit.minimize(method, options={"gtol": 1e-8} if method != "Newton-CG" else {"xtol": 1e-4})
        assert result.loss == pytest.approx(loss, rel=1e-9) and result.nfev < 30, method
    with pytest.raises(ValueError, match="trust-krylov takes no bounds"):
        fit_of_data(bounds={"theta": (0.1, 3.0)}).minimize("trust-krylov")


def effort(t, u, theta):
    return 0.02 * theta[3] * u[0] ** 2


def test_a_fit_with_doses_and_a_running_cost():
    doses = [Doses([1.0, "theta[4]"], 0.5, 0), Doses(2.0, "theta[5]", 1, duration=1.5)]
    given = {"u0": TRUE_U0, "theta": [*TRUE_THETA, 5.2, 0.8], "log": {"theta": [4, 5]}, "doses": doses, "running_cost": effort}
    fit = Fit(lotka_volterra(), LeastSquares(TIMES, data(), sigma=0.3), SPAN, **given, **TIGHT)
    x, h = fit.x0, 1e-4
    H = fit.hessian(x)
    for e in np.eye(x.size):
        difference = (fit.value_and_gradient(x + h * e)[1] - fit.value_and_gradient(x - h * e)[1]) / (2 * h)
        np.testing.assert_allclose(H @ e, difference, rtol=0, atol=1e-5 * np.abs(H).max())
    assert fit.has_second_order
    assert fit.minimize("trust-krylov", options={"maxiter": 30}).loss < 0.5 * fit.evaluate(x)[0]


def cotangent_alone(k, t, u, u_bar):
    u_bar[:] = u - 1.0
    return 0.5 * float((u - 1.0) @ (u - 1.0))


def test_without_second_derivatives():
    fit = Fit(lotka_volterra(), Series(TIMES, cotangent_alone), SPAN, u0=TRUE_U0, theta=[0.7, 0.6, 1.0, 0.45])
    with pytest.raises(TypeError, match="second derivatives of the loss are needed, and this Series has only a cotangent"):
        fit.minimize("trust-ncg")
    assert not fit.has_second_order
    assert fit.minimize("Newton-CG", options={"maxiter": 3}).loss < fit.evaluate(fit.x0)[0]


def test_fit_chooses():
    fit = fit_of_data(log="theta")
    by_residuals = fit.fit()
    assert by_residuals.method == "trf" and by_residuals.nfev < 15

    class Counted:  # in place of the problem
        def __init__(self, problem):
            self.problem, self.points = problem, []

        def __getattr__(self, name):
            return getattr(self.problem, name)

        def residuals_and_jacobian(self, z):
            self.points.append(tuple(z))
            return self.problem.residuals_and_jacobian(z)

    counted = fit._problem = Counted(fit._problem)
    assert fit.fit().loss == by_residuals.loss
    assert len(set(counted.points)) == len(counted.points)  # x0 is solved for once
    assert fit.fit("L-BFGS-B").loss == pytest.approx(by_residuals.loss, rel=1e-6)

    def square(u, theta):
        return (u[0] - 1.0) ** 2 + (u[1] - 2.0) ** 2

    final = Fit(lotka_volterra(), FinalState(value=square), SPAN, u0=TRUE_U0, theta=TRUE_THETA, free={"theta": [0, 2]})
    assert final.fit().method == "L-BFGS-B"
    many = Fit(wide(), LeastSquares([1.0], np.ones((1, 101))), (0.0, 1.0), u0=np.zeros(101), theta=np.full(101, 0.5))
    assert many.fit().method == "L-BFGS-B"


def wide():
    def f(t, u, theta, du):
        for i in range(u.size):
            du[i] = theta[i]

    return Dynamics(f)


# --- the exact Hessian as a covariance ---------------------------------------------------------------------------------------
def exponential(t, u, theta, du):
    du[0] = -theta[0] * u[0]


X, Y = np.array([0.5, 1.0, 2.0, 3.0]), np.array([0.9, 0.5, 0.5, 0.1])


def test_the_exact_covariance_has_the_curvature_of_the_model():
    """exp(-k t): the second derivative of the loss is known, with and without the term of the residuals."""
    fit = Fit(Dynamics(exponential), LeastSquares(X, Y, sigma=0.2), (0.0, 3.0), u0=[1.0], theta=[0.5], **TIGHT)
    k = fit.least_squares(xtol=1e-13, ftol=1e-13).theta[0]
    m = np.exp(-k * X)
    gauss_newton, curved = (np.sum((X * m) ** 2) / 0.04, np.sum((X * m) ** 2 + X**2 * m * (m - Y)) / 0.04)
    np.testing.assert_allclose(fit.covariance(absolute_sigma=True), 1.0 / gauss_newton, rtol=1e-6)
    np.testing.assert_allclose(fit.covariance(absolute_sigma=True, kind="exact"), 1.0 / curved, rtol=1e-6)
    variance = np.sum(((m - Y) / 0.2) ** 2) / 3
    found = fit.uncertainty(kind="exact")
    np.testing.assert_allclose(found.standard_errors, np.sqrt(variance / curved), rtol=1e-6)
    np.testing.assert_allclose(np.diff(found.intervals()), 2 * stats.t.ppf(0.975, 3) * found.standard_errors[None], rtol=1e-6)
    with pytest.raises(ValueError, match="kind must be"):
        fit.covariance(kind="hessian")


def test_what_is_no_minimum_has_no_exact_covariance():
    fit = fit_of_data()
    refused = r"along .*theta\[\d\].* the loss does not curve upwards, so this is not a minimum"
    with pytest.warns(RuntimeWarning, match="this is not a minimum"), pytest.raises(ValueError, match=refused):
        fit.uncertainty(fit.x0 + 0.8, kind="exact")


# --- verdicts -----------------------------------------------------------------------------------------------------------------
def conversion(t, u, theta, du):
    made = theta[0] * theta[1] * u[0]
    du[0] = -made
    du[1] = made - theta[2] * u[1]


def test_verdicts():
    """The product of two rates is known, neither of them is; a loss that is hardly there may be none."""
    times = np.linspace(0.25, 4.0, 16)
    slow = 1e-3
    amounts = solve(Dynamics(conversion), [1.0, 0.0], [1.0, 0.5, slow], (0.0, 4.0), t_eval=times, **TIGHT).u_eval
    noisy = amounts + 0.02 * np.random.default_rng(2).normal(size=amounts.shape)
    names = {"rate": 0.9, "area": 0.6, "loss": 2e-3}
    fit = Fit(
        Dynamics(conversion),
        LeastSquares(times, noisy, sigma=0.02),
        (0.0, 4.0),
        u0={"before": 0.9, "behind": 0.0},
        theta=names,
        free={"u0": ["before"], "theta": True},
        log="theta",
        **TIGHT,
    )
    fit.least_squares()
    found = fit.identifiability()
    assert found.verdicts == {
        "u0['before']": "identifiable",
        "theta['rate']": "structurally not",
        "theta['area']": "structurally not",
        "theta['loss']": "practically not",
    }
    assert found.directions.shape == (1, 4)
    np.testing.assert_allclose(found.directions[0, 1], -found.directions[0, 2], rtol=1e-3)
    lines = str(found).splitlines()
    assert lines[0].split() == ["entry", "identifiable?", "95%", "interval"] and lines[2].split()[-2:] == ["structurally", "not"]
    frame = found.to_frame()
    assert list(frame.index) == fit.names and frame["low"]["theta['loss']"] == 0.0 and np.isnan(frame["low"]["theta['rate']"])
    assert all(verdict == "identifiable" for verdict in well_determined().verdicts.values())


def well_determined():
    fit = fit_of_data(free=("theta",))
    fit.least_squares()
    return fit.identifiability()
