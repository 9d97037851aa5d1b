"""Running costs that vary faster than the state, or only for a while: right by a quadrature with an error control of its own."""

import numpy as np
import pytest

from adjode import Dynamics, SolveError, Status, solve, value_and_gradient
from adjode.adjoints.cost_looks import LOOKS
from adjode.losses import FinalState

ADJOINTS = ["discrete", "interpolating"]
METHODS = ["Tsit5", "DOP853", "Radau", "auto"]


def decay(t, u, theta, du):
    du[0] = -theta[0] * u[0]


def decay_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0], theta_bar[1] = -u[0] * lam[0], 0.0


def wave(t, u, theta):
    return u[0] * np.cos(theta[1] * t)


def wave_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[0] = np.cos(theta[1] * t)
    theta_bar[0], theta_bar[1] = 0.0, -t * u[0] * np.sin(theta[1] * t)


def circle(t, u, theta, du):
    du[0], du[1] = theta[0] * u[1], -theta[0] * u[0]


def circle_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0], u_bar[1] = -theta[0] * lam[1], theta[0] * lam[0]
    theta_bar[0] = lam[0] * u[1] - lam[1] * u[0]


def window(t, u, theta):
    return u[0] if 40.0 <= t < 40.07 else 0.0


def window_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[0] = 1.0 if 40.0 <= t < 40.07 else 0.0
    u_bar[1] = theta_bar[0] = 0.0


def bell(t, u, theta):
    return u[0] * np.exp(-0.5 * ((t - 40.0) / 0.07) ** 2)


def bell_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[0] = np.exp(-0.5 * ((t - 40.0) / 0.07) ** 2)
    u_bar[1] = theta_bar[0] = 0.0


def kinked(t, u, theta):
    return abs(u[0]) + theta[0] * abs(t - 1.0)


def kinked_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[0], u_bar[1] = np.sign(u[0]), 0.0
    theta_bar[0] = abs(t - 1.0)


DECAY, CIRCLE = Dynamics(decay, decay_vjp), Dynamics(circle, circle_vjp)


def wave_exactly(k, omega, T):
    """Of `wave` from u0 = 1 over [0, T]: its integral, the derivatives by k and omega, and the largest one of absolute values."""
    z = -k + 1j * omega
    value, slope = (np.exp(z * T) - 1.0) / z, T * np.exp(z * T) / z - (np.exp(z * T) - 1.0) / z**2
    return value.real, -slope.real, -slope.imag, (1.0 - np.exp(-k * T) * (1.0 + k * T)) / k**2 * omega


@pytest.mark.parametrize("T", [10.0, -2.0], ids=["forwards", "backwards"])
@pytest.mark.parametrize("omega", [20.0, 1000.0])
@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("method", METHODS)
def test_oscillating_cost(method, adjoint, omega, T):
    k, rtol = 0.5, 1e-8
    value, by_k, by_omega, largest = wave_exactly(k, omega, T)
    options = {"method": method, "rtol": rtol, "atol": rtol, "adjoint": adjoint, "running_cost": (wave, wave_vjp)}
    got, bar = value_and_gradient(DECAY, FinalState([0.0]), (0.0, T), **options)([1.0], [k, omega])
    # in units of rtol of the largest logarithmic derivative; what cancels by more than that is lost where u is not known better
    cancels = 1e-3 if adjoint == "discrete" else 1e-2
    unit = rtol * max(abs(value), abs(k * by_k), abs(omega * by_omega), cancels * abs(largest))
    errors = np.abs([got - value, bar.u0[0] - value, k * (bar.theta[0] - by_k), omega * (bar.theta[1] - by_omega)])
    assert errors.max() < 30.0 * unit


@pytest.mark.parametrize("omega", [0.1, 2.0])
@pytest.mark.parametrize("cost", ["window", "bell"])
@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_cost_for_a_while_only(adjoint, cost, omega):
    """Where the state hardly moves, and no step ends nearby; T lies long after it, so that lam has nothing to do until there."""
    if cost == "window":
        exact = (np.sin(omega * 40.07) - np.sin(omega * 40.0)) / omega
    else:
        exact = 0.07 * np.sqrt(2 * np.pi) * np.cos(omega * 40) * np.exp(-0.5 * (omega * 0.07) ** 2)
    pair = {"window": (window, window_vjp), "bell": (bell, bell_vjp)}[cost]
    bar = solve(CIRCLE, [1.0, 0.0], [omega], (0.0, 100.0)).pullback(running_cost=pair, adjoint=adjoint)
    assert bar.running_cost == pytest.approx(exact, abs=1e-4 * 0.07)
    assert bar.u0[0] == pytest.approx(exact, abs=1e-4 * 0.07)


def blink(t, u, theta):
    return u[0] if 40.0 <= t < 40.0003 or t % 24.0 < 0.0001 else 0.0


def blink_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[0] = 1.0 if 40.0 <= t < 40.0003 or t % 24.0 < 0.0001 else 0.0
    u_bar[1] = theta_bar[0] = 0.0


@pytest.mark.parametrize("span", [(0.0, 100.0), (100.0, 0.0)])
@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_windows_that_the_source_shows_are_not_passed_over(adjoint, span):
    solution = solve(Dynamics(circle, circle_vjp), [1.0, 0.0], [0.0], span)
    bar = solution.pullback(running_cost=(blink, blink_vjp), adjoint=adjoint)
    exact = np.sign(span[1] - span[0]) * (0.0003 + 5 * 0.0001)
    assert bar.running_cost == pytest.approx(exact, rel=1e-5) and bar.u0[0] == pytest.approx(exact, rel=1e-5)


def test_windows_that_move_with_theta_are_refused():
    solution = solve(Dynamics(circle, circle_vjp), [1.0, 0.0], [0.5], (0.0, 1.0))
    with pytest.raises(ValueError, match=r"the running cost switches at a time that depends on theta\[0\] .* additional state"):
        solution.pullback(running_cost=lambda t, u, theta: u[0] if t > theta[0] else 0.0)


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_kinks(adjoint):
    bar = solve(CIRCLE, [1.0, 0.0], [2.0], (0.0, 5.0), rtol=1e-8, atol=1e-8).pullback(
        running_cost=(kinked, kinked_vjp), adjoint=adjoint
    )
    absolute = 2.5 + 0.5 * (1.0 - np.sin(10.0))  # the integral of |cos 2 t|, which has three zeros
    assert bar.running_cost == pytest.approx(absolute + 2.0 * (0.5 + 8.0), rel=1e-7)
    assert bar.u0[0] == pytest.approx(absolute, rel=1e-6)


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_scale_of_the_cost_does_not_matter(adjoint):
    def scaled(factor):
        def g(t, u, theta):
            return factor * u[0] * np.cos(theta[1] * t)

        def g_vjp(t, u, theta, u_bar, theta_bar):
            u_bar[0] = factor * np.cos(theta[1] * t)
            theta_bar[0], theta_bar[1] = 0.0, -factor * t * u[0] * np.sin(theta[1] * t)

        return g, g_vjp

    solution = solve(DECAY, [1.0], [0.5, 20.0], (0.0, 10.0), rtol=1e-8, atol=1e-8)
    for factor in (2.0**-60, 2.0**60):
        got = solution.pullback(running_cost=scaled(factor), adjoint=adjoint)
        wanted = solution.pullback(running_cost=(wave, wave_vjp), adjoint=adjoint)
        np.testing.assert_allclose(got.theta / factor, wanted.theta, rtol=1e-6)
        assert got.running_cost / factor == pytest.approx(wanted.running_cost, rel=1e-12)


def test_work():
    solution = solve(DECAY, [1.0], [0.5, 0.0], (0.0, 10.0))
    steps = solution.stats.n_steps
    for adjoint in ADJOINTS:
        stats = solution.pullback(running_cost=(wave, wave_vjp), adjoint=adjoint, wrt="u0").stats
        assert stats.n_g <= LOOKS + 6 * steps + 1  # five nodes a step, of which two have one in common, and g between them
    stats = solution.pullback(running_cost=(wave, wave_vjp), adjoint="discrete", wrt="u0").stats
    assert stats.n_g_vjp == 5 * steps
    fixed = solve(DECAY, [1.0], [0.5, 1000.0], (0.0, 10.0), step=0.5)
    for adjoint in ADJOINTS:  # there is no tolerance to judge the cost by
        assert fixed.pullback(running_cost=(wave, wave_vjp), adjoint=adjoint).stats.n_g == 5 * 20 + 2
    assert solution.pullback([1.0]).stats.n_g == 0


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_what_cannot_be_integrated_is_refused(adjoint):
    def pole(t, u, theta):
        return u[0] / abs(t - 0.3)

    def pole_vjp(t, u, theta, u_bar, theta_bar):
        u_bar[0] = 1.0 / abs(t - 0.3)
        theta_bar[:] = 0.0

    solution = solve(DECAY, [1.0], [0.5, 1e7], (0.0, 1.0), max_steps=2000)
    with pytest.raises(SolveError, match="running cost") as caught:
        solution.pullback(running_cost=(pole, pole_vjp), adjoint=adjoint)
    assert caught.value.status == Status.STEP_TOO_SMALL or caught.value.status == Status.NON_FINITE
    with pytest.raises(SolveError, match="cap of 2000 .* running cost") as caught:
        solution.pullback(running_cost=(wave, wave_vjp), adjoint=adjoint)
    assert caught.value.status == Status.MAX_STEPS


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_root_at_the_start(adjoint):
    def root(t, u, theta):
        return u[0] * np.sqrt(t)

    def root_vjp(t, u, theta, u_bar, theta_bar):
        u_bar[0] = np.sqrt(t)
        theta_bar[:] = 0.0

    bar = solve(DECAY, [1.0], [0.0, 0.0], (0.0, 1.0), rtol=1e-8).pullback(running_cost=(root, root_vjp), adjoint=adjoint)
    assert bar.running_cost == pytest.approx(2.0 / 3.0, rel=1e-7)
    assert bar.u0[0] == pytest.approx(2.0 / 3.0, rel=1e-6)
