"""Errors of the state, which the drift of lam . du/dt tells of."""

import math
import warnings

import numpy as np
import pytest

from adjode import Dynamics, SolveError, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares
from tests.problems.stiff_systems import van_der_pol
from tests.problems.systems import LV_THETA, LV_U0, lotka_volterra, lv_f

REFERENCE = {"method": "Radau", "rtol": 1e-12, "atol": 1e-14, "on_inaccurate": "warn"}


def gradient(dynamics, loss, span, u0, theta, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what is not accurate enough
        return value_and_gradient(dynamics, loss, span, **options)(u0, theta)[1]


def units(bar, exact, u0, theta, rtol, least=1e-2):
    """The error in units of rtol, in the scale of logarithmic derivatives; sizes of states are at least `least`."""
    sizes = {"u0": np.maximum(np.abs(u0), least), "theta": np.abs(theta)}
    off = max(np.max(np.abs(getattr(bar, name) - getattr(exact, name)) * size) for name, size in sizes.items())
    return off / max(np.max(np.abs(getattr(exact, name)) * size) for name, size in sizes.items()) / rtol


def relaxations(many):
    """Draws of van der Pol's oscillator, over up to two jumps: mu, u0, T and the weights of u(T)."""
    rng = np.random.default_rng(0)
    for k in range(many):
        mu = float(10.0 ** rng.uniform(0.5, 2.5))
        u0 = np.array([rng.choice([2.0, 1.5, -2.0, 2.2, 0.5]), rng.choice([0.0, 0.1, -1.0])])
        yield mu, u0, float(rng.uniform(0.1, 2.0) * mu), [[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]][k % 3]


@pytest.mark.parametrize(("method", "most"), [("auto", 300.0), ("Radau", 300.0), ("Kvaerno5", 300.0), ("DOP853", 100.0)])
def test_relaxation_oscillators(method, most):
    """Values are right to a unit; gradients were off by up to 2e6 of them, by each method, without a word."""
    dynamics, right, wrong, refused, magnified, seen = van_der_pol(), 0, 0, 0, 0, 0
    for mu, u0, T, weights in relaxations(20):
        loss, theta = FinalState(weights), np.array([mu])
        if mu > most:
            continue
        exact = gradient(dynamics, loss, (0.0, T), u0, theta, **REFERENCE)
        for rtol in (1e-4, 1e-6):
            options = {"method": method, "rtol": rtol, "atol": 1e-2 * rtol}
            try:
                off = units(gradient(dynamics, loss, (0.0, T), u0, theta, **options), exact, u0, theta, rtol)
                right, wrong = right + (off < 100.0), wrong + (off > 200.0)
            except SolveError:
                refused += 1
            first = gradient(dynamics, loss, (0.0, T), u0, theta, on_inaccurate="warn", **options)
            off = units(first, exact, u0, theta, rtol)
            magnified += off > 100.0
            seen += off > 100.0 and max(first.error.values()) > 0.1 * rtol * off
    assert wrong == 0 and refused <= 4 and right > 4 * refused
    assert magnified > (1 if method == "Radau" else 5) and seen > 0.8 * magnified


def ignition_f(t, u, theta, du):
    rate = theta[0] * u[0] * math.exp(-theta[1] / u[1])
    du[0] = -rate
    du[1] = theta[2] * rate - theta[3] * (u[1] - 1.0)


@pytest.mark.parametrize("method", ["auto", "Radau"])
def test_something_slow_that_leads_to_something_fast_is_observed(method):
    """Also between observations, at each of which the product changes."""
    u0, theta, times = np.array([1.0, 1.0]), np.array([3e5, 14.0, 4.0, 0.05]), np.array([0.5, 2.0, 4.0, 6.0])
    loss, dynamics = LeastSquares(times, np.ones((4, 2))), Dynamics(ignition_f)
    exact = gradient(dynamics, loss, (0.0, 6.0), u0, theta, **REFERENCE)
    for rtol in (1e-5, 1e-7):
        options = {"method": method, "rtol": rtol, "atol": 1e-3 * rtol}
        assert units(gradient(dynamics, loss, (0.0, 6.0), u0, theta, **options), exact, u0, theta, rtol) < 100.0
        first = gradient(dynamics, loss, (0.0, 6.0), u0, theta, on_inaccurate="warn", **options)
        off = units(first, exact, u0, theta, rtol)
        assert off < 10.0 or 0.5 * off < max(first.error.values()) / rtol < 10.0 * off


def forced(t, u, theta, du):
    lv_f(t, u, theta, du)
    du[0] += theta[4] * u[0] * math.sin(3.0 * t)


def switched(t, u, theta, du):
    lv_f(t, u, theta, du)
    if t < 4.0:
        du[0] += theta[4] * u[0]


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Radau"])
def test_f_that_depends_on_time_is_no_error(method):
    """Then the product changes: what it was at the first steps pulled back says that, or that f is the same at other times."""
    options = {"method": method, "rtol": 1e-6, "atol": 1e-6}
    for f, stops in ((forced, ()), (switched, [4.0])):
        for size in (0.0, 0.3):
            theta = np.append(LV_THETA, size)
            bar = gradient(Dynamics(f), FinalState([1.0, 1.0]), (0.0, 10.0), LV_U0, theta, stops=stops, **options)
            exact = gradient(Dynamics(f), FinalState([1.0, 1.0]), (0.0, 10.0), LV_U0, theta, stops=stops, **REFERENCE)
            assert units(bar, exact, LV_U0, np.append(LV_THETA, 0.0), 1e-6) < 100.0 and max(bar.error.values()) < 1e-4


def test_a_forcing_of_size_zero_makes_no_difference():
    """Two evaluations of f in a step that is judged; one more in all where f depends on time."""
    span, options = (0.0, 10.0), {"rtol": 1e-6, "atol": 1e-6, "method": "Tsit5"}
    plain = gradient(lotka_volterra(), FinalState([1.0, 1.0]), span, LV_U0, LV_THETA, **options)
    still = gradient(Dynamics(forced), FinalState([1.0, 1.0]), span, LV_U0, np.append(LV_THETA, 0.0), **options)
    assert still.stats.n_steps == plain.stats.n_steps and still.error["u0"] == pytest.approx(plain.error["u0"], rel=1e-6)
    assert 0.9 * still.stats.n_steps < still.stats.n_f < 1.1 * still.stats.n_steps
    moved = gradient(Dynamics(forced), FinalState([1.0, 1.0]), span, LV_U0, np.append(LV_THETA, 0.3), **options)
    assert moved.stats.n_f < 5


def picky(t, u, theta, du):
    if abs(u[0] - math.exp(-t)) > 1e-3:
        raise ValueError("off the solution")
    du[0] = -u[0]


def picky_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -lam[0]


@pytest.mark.parametrize("method", ["Tsit5", "DOP853"])
def test_f_that_raises_for_a_state_at_another_time(method):
    bar = gradient(Dynamics(picky, picky_vjp), FinalState([1.0]), (0.0, 5.0), [1.0], [], method=method, rtol=1e-8, atol=1e-8)
    assert bar.u0[0] == pytest.approx(math.exp(-5.0), rel=1e-5)


def test_pullback_finds_the_same():
    """It evaluates stages again, and has the slopes at the ends of steps from them."""
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 10.0), rtol=1e-6, atol=1e-6)
    bar = solution.pullback([1.0, 1.0], adjoint="discrete")
    same = gradient(lotka_volterra(), FinalState([1.0, 1.0]), (0.0, 10.0), LV_U0, LV_THETA, rtol=1e-6, atol=1e-6)
    assert bar.error == pytest.approx(same.error, rel=1e-6) and 1e-5 < bar.error["theta"] < 1e-4
    assert bar.stats.n_f <= 6 * bar.stats.n_steps + 2
