"""Gradients by parameters whose part in f varies faster than the state and lam, and so than the mesh of the solve."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from adjode import Dynamics, value_and_gradient
from adjode.adjoints.theta_error import end_rules, errors_of_rules
from adjode.compile import slots
from adjode.compile.entries import entry
from adjode.compile.flags import i8
from adjode.compile.frame import Frame, opened
from adjode.losses import FinalState, LeastSquares

METHODS = ("Tsit5", "DOP853", "RK45", "Vern7", "Radau", "Kvaerno5", "auto")


def control_f(t, u, theta, du):
    du[0] = -u[0] + (theta[0] - theta[1]) * math.sin(theta[2] * t)


def control_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -lam[0]
    theta_bar[0] = lam[0] * math.sin(theta[2] * t)
    theta_bar[1] = -theta_bar[0]
    theta_bar[2] = lam[0] * (theta[0] - theta[1]) * t * math.cos(theta[2] * t)


def power_f(t, u, theta, du):
    du[0] = t ** theta[0]


def power_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = 0.0
    theta_bar[0] = lam[0] * t ** theta[0] * math.log(t) if t > 0.0 else 0.0


CONTROL, POWER = Dynamics(control_f, control_vjp), Dynamics(power_f, power_vjp)


def controlled(method, rtol, theta, T=5.0):
    _, bar = value_and_gradient(CONTROL, FinalState([1.0]), (0.0, T), method=method, rtol=rtol, atol=1e-3 * rtol)([1.0], theta)
    exact = quad(lambda t: math.exp(t - T) * math.sin(theta[2] * t), 0.0, T, epsabs=1e-13, epsrel=1e-13, limit=500)[0]
    return abs(bar.theta[0] - exact) / max(abs(exact), math.exp(-T)), bar


@pytest.mark.parametrize("rate", [20.0, 50.0])
@pytest.mark.parametrize("method", METHODS)
def test_a_control_that_is_zero_at_the_start_of_a_fit(method, rate):
    error, bar = controlled(method, 1e-6, [0.0, 0.0, rate])
    assert error < 1e-4 and bar.stats.n_refined > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_control_that_is_not_much_faster_than_u(method):
    assert controlled(method, 1e-6, [0.0, 0.0, 5.0])[0] < 1e-3  # it is taken for a part of what the steps were chosen for


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Radau"])
def test_two_controls_that_cancel(method):
    error, bar = controlled(method, 1e-8, [1.0, 1.0, 20.0])
    assert error < 1e-6 and bar.stats.n_refined > 0


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Radau"])
def test_the_estimate_is_about_that_error(method):
    """On the mesh of the solve, which is far too coarse; a bound where nothing of the integrand is resolved."""
    options = {"method": method, "rtol": 1e-6, "atol": 1e-9, "on_inaccurate": "warn"}
    with pytest.warns(RuntimeWarning, match="may be off"):
        _, bar = value_and_gradient(CONTROL, FinalState([1.0]), (0.0, 5.0), **options)([1.0], [0.0, 0.0, 20.0])
    exact = quad(lambda t: math.exp(t - 5.0) * math.sin(20.0 * t), 0.0, 5.0, epsabs=1e-13, limit=500)[0]
    error = abs(bar.theta[0] - exact) / abs(exact)
    assert 0.1 * error < bar.error["theta"] < 300.0 * error


@pytest.mark.parametrize("method", [method for method in METHODS if method != "Vern7"])
def test_a_control_that_the_solve_has_seen_costs_nothing(method):
    _, bar = controlled(method, 1e-6, [1.0, 0.0, 20.0])
    assert bar.stats.n_refined == 0


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("method", METHODS)
def test_a_power_of_time_that_the_method_integrates_exactly(method, p):
    """q' = t^p: q(T) is exact with any steps, its derivative by p, the integral of t^p log t, is not."""
    T = 10.0
    exact = T ** (p + 1.0) * (math.log(T) / (p + 1.0) - 1.0 / (p + 1.0) ** 2)
    for rtol in (1e-6, 1e-10):
        _, bar = value_and_gradient(POWER, FinalState([1.0]), (0.0, T), method=method, rtol=rtol, atol=1e-3 * rtol)([7.1], [p])
        assert bar.theta[0] == pytest.approx(exact, rel=100.0 * rtol)


@pytest.mark.parametrize("p", [2.000001, 2.0001, 3.000001])
@pytest.mark.parametrize("method", METHODS)
def test_a_power_of_time_that_the_method_almost_integrates_exactly(method, p):
    """The steps are those of an error a millionth as large as the stages of u alone make it seem, and explain nothing."""
    T = 10.0
    exact = T ** (p + 1.0) * (math.log(T) / (p + 1.0) - 1.0 / (p + 1.0) ** 2)
    for rtol in (1e-6, 1e-8, 1e-10):
        _, bar = value_and_gradient(POWER, FinalState([1.0]), (0.0, T), method=method, rtol=rtol, atol=1e-3 * rtol)([7.1], [p])
        assert bar.theta[0] == pytest.approx(exact, rel=100.0 * rtol)


@pytest.mark.parametrize("p", [0.0, 0.01, 1.0, 1.000001, 2.0])
@pytest.mark.parametrize("method", ["BS3", "TRBDF2"])
def test_a_power_of_time_by_methods_with_few_stages(method, p):
    for T in (1.0, 10.0):
        exact = T ** (p + 1.0) * (math.log(T) / (p + 1.0) - 1.0 / (p + 1.0) ** 2)
        for rtol in (1e-4, 1e-6, 1e-8):
            _, bar = value_and_gradient(POWER, FinalState([1.0]), (0.0, T), method=method, rtol=rtol, atol=1e-3 * rtol)([7.1], [p])
            size = p or 1.0
            assert size * abs(bar.theta[0] - exact) < 100.0 * rtol * max(7.1, size * abs(exact))


@pytest.mark.parametrize("rate", [20.0, 50.0])
@pytest.mark.parametrize("method", ["BS3", "TRBDF2"])
def test_a_control_that_is_zero_by_methods_with_few_stages(method, rate):
    """Also on a budget of memory, and where observations make lam jump."""
    error, bar = controlled(method, 1e-6, [0.0, 0.0, rate])
    assert error < 1e-4 and bar.stats.n_refined > 0
    options = {"method": method, "rtol": 1e-6, "atol": 1e-9}
    again = value_and_gradient(CONTROL, FinalState([1.0]), (0.0, 5.0), memory="20kB", **options)([1.0], [0.0, 0.0, rate])[1]
    np.testing.assert_allclose(again.theta, bar.theta, rtol=1e-12)
    times = np.linspace(0.5, 5.0, 10)
    loss = LeastSquares(times, np.ones((10, 1)))
    _, observed = value_and_gradient(CONTROL, loss, (0.0, 5.0), **options)([1.0], [0.0, 0.0, rate])
    integrals = [quad(lambda t, T=T: math.exp(t - T) * math.sin(rate * t), 0.0, T, epsabs=1e-13, limit=500)[0] for T in times]
    off = abs(observed.theta[0] - (np.exp(-times) - 1.0) @ integrals) / abs(observed.u0[0])
    assert off < observed.error["theta"] < 1e-4 and off < 2e-5 and observed.stats.n_refined > 0


@pytest.mark.parametrize("method", ["BS3", "TRBDF2"])
def test_methods_with_few_stages_on_what_the_solve_has_seen(method):
    """No step is shortened for integrands that vary like the solution."""
    _, bar = controlled(method, 1e-6, [1.0, 0.0, 6.0])
    assert bar.stats.n_refined == 0


def test_a_pulse_behind_a_parameter_that_is_zero():
    def f(t, u, theta, du):
        du[0] = -u[0] + theta[0] * math.exp(-(((t - 2.3) / 0.1) ** 2))

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0], theta_bar[0] = -lam[0], lam[0] * math.exp(-(((t - 2.3) / 0.1) ** 2))

    exact = quad(lambda t: math.exp(t - 5.0) * math.exp(-(((t - 2.3) / 0.1) ** 2)), 0.0, 5.0, points=[2.3], epsabs=1e-14)[0]
    dynamics = Dynamics(f, vjp)
    for method in ("Tsit5", "DOP853"):
        _, bar = value_and_gradient(dynamics, FinalState([1.0]), (0.0, 5.0), method=method, rtol=1e-6, atol=1e-9)([1.0], [0.0])
        assert bar.theta[0] == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("method", ["Tsit5", "Radau"])
def test_oscillations_need_no_shorter_steps(method):
    """Integrands that vary three times as fast as u, whose sums are as good as the solve."""

    def f(t, u, theta, du):
        du[0] = u[1] + theta[0] * u[0] ** 2 * u[1]
        du[1] = -u[0]

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = 2.0 * theta[0] * u[0] * u[1] * lam[0] - lam[1]
        u_bar[1] = lam[0] * (1.0 + theta[0] * u[0] ** 2)
        theta_bar[0] = lam[0] * u[0] ** 2 * u[1]

    evaluate = value_and_gradient(Dynamics(f, vjp), FinalState([1.0, 2.0]), (0.0, 10.0), method=method, rtol=1e-7, atol=1e-10)
    _, bar = evaluate([1.0, 0.3], [0.0])
    assert bar.stats.n_refined == 0
    fine = value_and_gradient(Dynamics(f, vjp), FinalState([1.0, 2.0]), (0.0, 10.0), method="DOP853", rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(bar.theta, fine([1.0, 0.3], [0.0])[1].theta, rtol=1e-5)


@pytest.mark.parametrize("method", ["Radau", "TRBDF2"])
def test_a_rough_integrand_is_seen_between_observations_of_a_fast_part(method):
    """Steps that begin with a transient of lam are not judged by their quadrature, but those between are."""

    def f(t, u, theta, du):
        du[0] = -u[0] + theta[0] * np.sin(20.0 * t)
        du[1] = 1e4 * (u[0] - u[1])

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = -lam[0] + 1e4 * lam[1]
        u_bar[1] = -1e4 * lam[1]
        theta_bar[0] = lam[0] * np.sin(20.0 * t)

    loss = LeastSquares([1.0, 2.5, 4.0], np.zeros((3, 2)), sigma=[1.0, 1e-3])
    given, start = (Dynamics(f, vjp), loss, (0.0, 4.0)), ([1.0, 1.0], [0.0])
    exact = value_and_gradient(*given, method="Radau", rtol=1e-10, atol=1e-13, max_step=0.01)(*start)[1]
    bar = value_and_gradient(*given, method=method, rtol=1e-6, atol=1e-9)(*start)[1]
    assert abs(bar.theta[0] - exact.theta[0]) < 1e-4 * abs(exact.u0[0])


def test_theta_bar_is_not_compared_with_one_that_was_amplified():
    """Three passes, the second of which says nothing: theta_bar is not a number there."""

    def end_pass(address):
        frame = opened(address)
        of_theta, _ = errors_of_rules(frame)
        end_rules(frame, 1.0)
        slots.TRUST(frame)[slots.U0_ERROR] = of_theta
        return 0

    frame, run = Frame(), entry(end_pass, (i8,), "end_pass", None)
    frame[slots.TRUST] = trust = slots.TRUST.zeros()
    frame[slots.TOTAL], frame[slots.THETA_PROBE], frame[slots.ZERO_PROBE] = total, probe, _ = np.zeros((3, 1))
    trust[[slots.GREW_FREELY, slots.RULE_IS_OFF, slots.RULE_OF_THETA, slots.UNIT_ERROR]] = 1.0, 1.0, 1e-3, 1e-6
    trust[slots.LAST_RULE_SUM] = probe[0] = 1.0
    found = []
    for total[0], trust[slots.AMPLIFIED] in ((0.0, 0.0), (math.nan, 1.0), (1e-4, 0.0)):
        assert run(frame.argument) == 0
        found.append(trust[slots.U0_ERROR])
    assert found[0] == found[1] == 1e-3 and found[2] == pytest.approx(1e-3 * 4.0 * 1e-4 / 1e-6)
