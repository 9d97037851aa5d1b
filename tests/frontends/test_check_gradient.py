"""`Fit.check_gradient` says which part of a gradient is wrong: the vjp, the loss's cotangents, or what the loss leaves out."""

import numpy as np
import pytest

from adjode import Dynamics, Fit, solve
from adjode.losses import LeastSquares, Series
from benchmarks.problems import lv_f, lv_vjp

DYNAMICS, SPAN, TIMES = Dynamics(lv_f, lv_vjp), (0.0, 10.0), np.linspace(0.5, 10.0, 20)
U0, THETA = np.array([1.0, 1.0]), np.array([1.5, 1.0, 3.0, 1.0])
DATA = solve(DYNAMICS, U0, THETA, SPAN, t_eval=TIMES, rtol=1e-8).u_eval


def without_third(t, u, theta, lam, u_bar, theta_bar):
    growth, hunting, death, birth = theta
    x, y = u
    u_bar[0] = (growth - hunting * y) * lam[0] + birth * y * lam[1]
    u_bar[1] = -hunting * x * lam[0] + (birth * x - death) * lam[1]
    theta_bar[0] = x * lam[0]
    theta_bar[1] = -x * y * lam[0]
    theta_bar[2] = 0.0
    theta_bar[3] = x * y * lam[1]


class Squares:
    """The sum of squares of the states, and its cotangents times a factor."""

    def __init__(self, factor):
        self.factor = factor

    def value_and_cotangents(self, solution):
        x = solution(TIMES) - 1.0
        return np.sum(x**2), {"observations": (TIMES, self.factor * 2.0 * x)}


class ScaledFinalState:
    """theta[0] times the final state, which owes theta_bar."""

    def __init__(self, pays):
        self.pays = pays

    def value_and_cotangents(self, solution):
        owed = {"theta_bar": [solution.u_T[0], 0.0, 0.0, 0.0]} if self.pays else {}
        return solution.u_T[0] * solution.theta[0], {"u_T_bar": [solution.theta[0], 0.0], **owed}


def fit_of(loss, dynamics=DYNAMICS, **options):
    start = {"u0": U0, "theta": 1.05 * THETA, "free": ("u0", "theta"), "log": ("theta",)}
    return Fit(dynamics, loss, SPAN, **{**start, **options})


@pytest.mark.parametrize(
    "loss", [Squares(1.0), ScaledFinalState(True), LeastSquares(TIMES, DATA, sigma=0.1)], ids=["own", "owes", "data"]
)
def test_right_ones_pass(loss):
    report = fit_of(loss).check_gradient()
    assert report.ok and "is right: 6 entries" in str(report)
    report.raise_if_wrong()


def test_perfect_data_and_other_places():
    fit = fit_of(LeastSquares(TIMES, DATA), theta=THETA)
    assert fit.check_gradient().ok and fit.check_gradient(fit.x0 + 0.01).ok


def test_fixed_steps():
    assert fit_of(Squares(1.0), method="RK4", step=0.02).check_gradient().ok


def test_a_wrong_loss_is_named():
    report = fit_of(Squares(0.5)).check_gradient()
    assert report.of_vjp.ok and not any(entry.ok for entry in report.of_loss) and not report.ok
    assert "The cotangents that the loss returns are wrong" in str(report) and "u[1]: given" in str(report)
    with pytest.raises(ValueError, match="check_gradient found errors"):
        report.raise_if_wrong()


def test_a_wrong_callback_of_a_series_is_named():
    def forgets(k, t, u, u_bar):
        u_bar[0] = 2.0 * u[0]
        u_bar[1] = 0.0
        return u[0] ** 2 + u[1]

    report = fit_of(Series(TIMES, forgets)).check_gradient()
    assert [entry.ok for entry in report.of_loss] == [True, False]


def test_a_wrong_vjp_is_named():
    report = fit_of(LeastSquares(TIMES, DATA), Dynamics(lv_f, without_third)).check_gradient()
    assert report.of_vjp.ok is False and all(entry.ok for entry in report.of_loss)
    assert [entry.name for entry in report.entries if not entry.ok] == ["theta[2]"]
    assert "The derivatives of the dynamics are wrong" in str(report)


def test_what_is_owed_to_theta_is_suspected():
    report = fit_of(ScaledFinalState(False)).check_gradient()
    assert [entry.name for entry in report.entries if not entry.ok] == ["theta[0]"]
    assert "is theta_bar missing" in str(report)
