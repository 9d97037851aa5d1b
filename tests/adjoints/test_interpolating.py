"""The continuous adjoints where one scale does not serve all of lam, and where lam is smooth and the state is not."""

import numpy as np
import pytest

from adjode import Dynamics, solve, value_and_gradient
from adjode.losses import FinalState

METHODS = ("Tsit5", "DOP853", "BS3", "Radau", "Kvaerno5", "Rodas5P", "auto")
RTOL = 1e-6


def units(bar, u0, theta, exact, rtol=RTOL):
    """The error of a gradient in units of `rtol`, in the scale of logarithmic derivatives."""
    sizes = np.concatenate([u0, theta])
    return np.abs(np.concatenate([bar.u0, bar.theta]) * sizes - exact).max() / np.abs(exact).max() / rtol


# --- units ---------------------------------------------------------------------------------------------------------------------


def tank_f(t, u, theta, du):
    du[0] = -theta[0] * u[0]
    du[1] = theta[1] * u[0] - theta[2] * u[1]


def tank_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = theta[1] * lam[1] - theta[0] * lam[0]
    u_bar[1] = -theta[2] * lam[1]
    theta_bar[0] = -u[0] * lam[0]
    theta_bar[1] = u[0] * lam[1]
    theta_bar[2] = -u[1] * lam[1]


TANK = Dynamics(tank_f, tank_vjp)


def tank(first, second):
    """u0, theta and the logarithmic derivatives of u_1(3), with states in other units."""
    u0, (k, s, d), T = np.array([first * 2.0, second * 0.3]), (1.3, 0.7 * second / first, 0.4), 3.0
    a, b = np.exp(-k * T), np.exp(-d * T)
    inflow = s * u0[0] * (a - b) / (d - k)
    by_k = s * u0[0] * (-T * a / (d - k) + (a - b) / (d - k) ** 2)
    by_d = s * u0[0] * (T * b / (d - k) - (a - b) / (d - k) ** 2) - T * b * u0[1]
    exact = np.array([inflow, u0[1] * b, k * by_k, inflow, d * by_d])
    return u0, np.array([k, s, d]), exact / second


@pytest.mark.parametrize("quadrature", ["gauss", "augmented"])
@pytest.mark.parametrize("method", METHODS)
def test_units_of_states_change_nothing(method, quadrature):
    if method == "Rodas5P" and quadrature == "augmented":
        pytest.skip("its stages are not quadrature nodes")
    found = []
    for first, second in ((1.0, 1.0), (1e-9, 1.0), (1e12, 1e-3), (1.0, 1e9)):
        u0, theta, exact = tank(first, second)
        options = {"method": method, "rtol": RTOL, "atol": 1e-3 * RTOL * u0, "quadrature": quadrature}
        bar = value_and_gradient(TANK, FinalState([0.0, 1.0]), (0.0, 3.0), adjoint="interpolating", **options)(u0, theta)[1]
        assert units(bar, u0, theta, exact * second) < 30.0
        found.append(np.concatenate([bar.u0 * u0, bar.theta * theta]) / second)
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], rtol=0, atol=30.0 * RTOL * np.abs(found[0]).max())


def test_units_of_states_change_nothing_for_backsolve():
    for first, second in ((1.0, 1.0), (1e9, 1e-6)):
        u0, theta, exact = tank(first, second)
        solution = solve(TANK, u0, theta, (0.0, 3.0), rtol=1e-8, atol=1e-11 * u0)
        assert units(solution.pullback([0.0, 1.0], adjoint="backsolve"), u0, theta, exact * second) < 1.0


def test_tolerances_that_are_given_are_absolute():
    u0, theta, _ = tank(1.0, 1.0)
    solution = solve(TANK, u0, theta, (0.0, 3.0), rtol=1e-8, atol=1e-8)
    loose, tight = (solution.pullback([0.0, 1.0], atol=atol).stats.n_steps for atol in (1e-2, 1e-12))
    assert loose < tight
    larger = solution.pullback([0.0, 1e6], atol=1e-2)  # of which 1e-2 is less
    assert larger.stats.n_steps > loose


# --- growth and decay by many powers of ten --------------------------------------------------------------------------------------


def drug_f(t, u, theta, du):
    du[0] = (theta[0] - theta[1] * u[1]) * u[0]
    du[1] = -theta[2] * u[1]


def drug_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = (theta[0] - theta[1] * u[1]) * lam[0]
    u_bar[1] = -theta[1] * u[0] * lam[0] - theta[2] * lam[1]
    theta_bar[0] = u[0] * lam[0]
    theta_bar[1] = -u[1] * u[0] * lam[0]
    theta_bar[2] = -u[1] * lam[1]


DRUG = Dynamics(drug_f, drug_vjp)


@pytest.mark.parametrize("T", [15.0, 60.0])
@pytest.mark.parametrize("method", METHODS)
def test_growth_by_many_powers_of_ten(method, T):
    u0, theta = np.array([1.0, 3.0]), np.array([1.2, 0.5, 0.3])
    taken = theta[1] * u0[1] * (1.0 - np.exp(-theta[2] * T)) / theta[2]
    value = np.exp(theta[0] * T - taken)
    by_rate = taken - theta[1] * u0[1] * T * np.exp(-theta[2] * T)
    exact = value * np.array([1.0, -taken, theta[0] * T, -taken, by_rate])
    evaluate = value_and_gradient(
        DRUG, FinalState([1.0, 0.0]), (0.0, T), method=method, adjoint="interpolating", rtol=RTOL, atol=1e-3 * RTOL * u0
    )
    # of the many steps of BS3 the errors of the state add up
    assert units(evaluate(u0, theta)[1], u0, theta, exact) < (300.0 if method == "BS3" else 100.0)


@pytest.mark.parametrize("method", METHODS)
def test_decay_of_all_that_lam_is(method):
    """An empty state, so that nothing but lam at t0 has a part in the gradient: it must be right as a part of what is left."""
    u0, theta, T = np.array([0.0, 0.0]), np.array([-2.0, 1.0, 0.1]), 10.0
    evaluate = value_and_gradient(DRUG, FinalState([1.0, 0.0]), (0.0, T), method=method, adjoint="interpolating", rtol=RTOL)
    assert abs(evaluate(u0, theta)[1].u0[0] / np.exp(theta[0] * T) - 1.0) < 100.0 * RTOL


# --- what the forward solve looked at --------------------------------------------------------------------------------------------


def pulse_f(t, u, theta, du):
    height = np.exp(-0.5 * ((t - 40.0) / theta[1]) ** 2)
    du[0] = theta[0] * height * u[1]
    du[1] = 0.0
    du[2] = 2.0 * u[3]
    du[3] = -2.0 * u[2]


def pulse_vjp(t, u, theta, lam, u_bar, theta_bar):
    x = (t - 40.0) / theta[1]
    height = np.exp(-0.5 * x * x)
    u_bar[0] = 0.0
    u_bar[1] = theta[0] * height * lam[0]
    u_bar[2] = -2.0 * lam[3]
    u_bar[3] = 2.0 * lam[2]
    theta_bar[0] = height * u[1] * lam[0]
    theta_bar[1] = theta[0] * height * x * x / theta[1] * u[1] * lam[0]


PULSE = Dynamics(pulse_f, pulse_vjp)


@pytest.mark.parametrize("adjoint", ["interpolating", "backsolve"])
@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Vern9", "Radau", "Kvaerno5", "Rodas5P", "auto"])
@pytest.mark.parametrize("width", [0.2, 0.6])
def test_a_pulse_where_lam_is_smooth(width, method, adjoint):
    """lam_0 is constant and lam_1 changes within the pulse only, in which the forward solve looked: it follows an oscillation."""
    if adjoint == "backsolve" and method not in ("Tsit5", "DOP853", "Vern9"):
        pytest.skip("backsolve is for explicit methods")
    u0, theta = np.array([0.5, 1.0, 1.0, 0.0]), np.array([1.0, width])
    solution = solve(PULSE, u0, theta, (0.0, 100.0), method=method)
    area = width * np.sqrt(2.0 * np.pi)
    assert abs(solution.u_T[0] - 0.5 - area) < 1e-4
    for wrt in (("u0", "theta"), ("u0",)):
        bar = solution.pullback([1.0, 0.0, 0.0, 0.0], adjoint=adjoint, wrt=wrt)
        assert abs(bar.u0[1] / area - 1.0) < 1e-4
        if "theta" in wrt:
            np.testing.assert_allclose(bar.theta, [area, area / width], rtol=1e-4)


def test_steps_back_are_within_reach_at_bounded_cost():
    u0, theta = np.array([0.5, 1.0, 1.0, 0.0]), np.array([1.0, 0.5])
    solution = solve(PULSE, u0, theta, (0.0, 100.0))
    steps = solution.pullback([1.0, 0.0, 0.0, 0.0]).stats.n_steps
    assert solution.stats.n_steps / 3 <= steps < solution.stats.n_steps
