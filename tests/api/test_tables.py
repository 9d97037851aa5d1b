"""Models with measured inputs, against closed forms: values as parameters, pulses at rest, all front ends."""

import itertools
import pickle

import numba
import numpy as np
import pytest

from adjode import Dynamics, Fit, SolveError, Status, Table, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares

TIMES, END = np.array([0.0, 1.0, 2.5, 3.0, 4.0]), 4.0
U0, THETA = np.array([0.5]), np.array([0.7, 1.0, -1.0, 2.0, 0.5, 0.3])
OPTIONS = {"rtol": 1e-7, "atol": 1e-9}
LINEAR, PREVIOUS = Table(TIMES), Table(TIMES, kind="previous")
by_adjoint = pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])


def linear_f(t, u, theta, du):
    du[0] = LINEAR(t, theta.contacts) - theta.decay * u[0]


def previous_f(t, u, theta, du):
    du[0] = PREVIOUS(t, theta[1:]) - theta[0] * u[0]


NAMES = {"parameters": ("decay", ("contacts", 5))}
DYNAMICS = {"linear": Dynamics(linear_f, **NAMES), "previous": Dynamics(previous_f)}


def exact(kind, u0, theta, t0, t):
    """u(t), for complex u0 and theta."""
    k, inside = theta[0], [time for time in TIMES if min(t0, t) < time < max(t0, t)]
    mesh = [t0, *(inside if t > t0 else inside[::-1]), t]
    u = u0[0]
    for a, b in itertools.pairwise(mesh):
        i, h = min(int(np.searchsorted(TIMES, (a + b) / 2.0, side="right")) - 1, 3), b - a
        v = theta[1:]
        q = (v[i + 1] - v[i]) / (TIMES[i + 1] - TIMES[i]) if kind == "linear" else 0.0
        p, left = v[i] + q * (a - TIMES[i]), 1.0 - np.exp(-k * h)
        u = u * np.exp(-k * h) + p * left / k + q * (h / k - left / k**2)
    return u


def exact_gradient(kind, t0, t, u0=U0, theta=THETA):
    x = np.concatenate([u0, theta]).astype(complex)
    moved = x + 1e-30j * np.eye(x.size)
    return np.array([exact(kind, m[:1], m[1:], t0, t).imag / 1e-30 for m in moved])


@by_adjoint
@pytest.mark.parametrize("kind", ["linear", "previous"])
@pytest.mark.parametrize("span", [(0.0, END), (END, 0.0), (0.3, 3.6)], ids=["forwards", "backwards", "inside"])
@pytest.mark.parametrize("method", ["Tsit5", "Radau", *(pytest.param(m, marks=pytest.mark.slow) for m in ("Vern7", "Kvaerno5"))])
def test_values_as_parameters(adjoint, kind, span, method):
    prepared = value_and_gradient(DYNAMICS[kind], FinalState([1.0]), span, adjoint=adjoint, method=method, **OPTIONS)
    value, bar = prepared(U0, THETA)
    assert abs(value - exact(kind, U0, THETA, *span)) < 1e-7
    np.testing.assert_allclose([*bar.u0, *bar.theta], exact_gradient(kind, *span), rtol=0, atol=5e-7)


@by_adjoint
def test_observations_between_and_at_the_times(adjoint):
    times = np.array([0.5, 1.0, 2.7, 4.0])
    prepared = value_and_gradient(DYNAMICS["linear"], LeastSquares(times, np.zeros((4, 1))), (0.0, END), adjoint=adjoint, **OPTIONS)
    value, bar = prepared(U0, {"decay": THETA[0], "contacts": THETA[1:]})
    states = np.array([exact("linear", U0, THETA, 0.0, t) for t in times])
    expected = sum(u * exact_gradient("linear", 0.0, t) for u, t in zip(states, times, strict=True))
    assert value == pytest.approx(0.5 * states @ states, rel=1e-7)
    np.testing.assert_allclose([*bar.u0, bar.theta["decay"], *bar.theta["contacts"]], expected, rtol=0, atol=1e-6)


# --- at rest ----------------------------------------------------------------------------------------------------------------------

DAYS = 24.0 * np.arange(1, 4)
ON_OFF = np.sort(np.concatenate([[0.0], DAYS, DAYS + 0.1]))
PULSES = Table(ON_OFF, np.isin(ON_OFF, DAYS) * 10.0, "previous")
RAMP = np.array([0.0, 24.0, 24.02, 24.08, 24.1, 48.0])
RAMPS = Table(RAMP, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0], "linear")
SMOOTH = np.concatenate([np.arange(0.0, 25.0, 6.0), 24.0 + 0.1 * np.linspace(0.0, 1.0, 11)[1:], [30.0, 36.0, 42.0, 48.0]])
BUMP = np.zeros(SMOOTH.size)
BUMP[5:14] = np.sin(np.pi * np.linspace(0.0, 1.0, 11)[1:-1]) ** 2
BUMPS = {kind: Table(SMOOTH, BUMP, kind) for kind in ("cubic", "akima")}


def infused(t, u, theta, du):
    du[0] = theta[1] * PULSES(t) - theta[0] * u[0]


def infused_exactly(k):
    return sum(10.0 / k * (np.exp(0.1 * k) - 1.0) * np.exp(-k * (80.0 - day)) for day in DAYS)


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_an_infusion_at_rest_is_not_passed_over(adjoint):
    theta, k, step = np.array([0.05, 1.3]), 0.05, 1e-30j
    value, bar = value_and_gradient(Dynamics(infused), FinalState([1.0]), (0.0, 80.0), adjoint=adjoint)([0.0], theta)
    assert value == pytest.approx(1.3 * infused_exactly(k), rel=1e-6)
    expected = [1.3 * infused_exactly(k + step).imag / 1e-30, infused_exactly(k)]
    np.testing.assert_allclose(bar.theta, expected, rtol=2e-6)


def season(table, of_values):
    def f(t, u, theta, du):
        du[0] = (table(t, theta[1:]) if of_values else table(t)) - theta[0] * u[0]

    return f


@by_adjoint
@pytest.mark.parametrize("kind", ["previous", "linear", "cubic"])
@pytest.mark.parametrize("span", [(-1.0, 9.5), (9.5, -1.0)], ids=["forwards", "backwards"])
def test_what_repeats_is_met_in_every_period(adjoint, kind, span):
    """As a table of all periods, whose values are those of one again and again."""
    first, rounds = np.array([0.0, 0.5, 0.6, 2.0, 3.0]), np.arange(-1, 4)
    values, options = np.array([1.0, 5.0, 2.0, 0.5]), {"adjoint": adjoint, "rtol": 1e-9, "atol": 1e-9}
    times = np.append((first[:-1] + 3.0 * rounds[:, None]).ravel(), 12.0)
    repeated = Dynamics(season(Table(first, kind=kind, outside="periodic"), True))
    constant = Dynamics(season(Table(first, [*values, values[0]], kind, outside="periodic"), False))
    value, bar = value_and_gradient(repeated, FinalState([1.0]), span, **options)([0.3], [0.2, *values])
    assert value_and_gradient(constant, FinalState([1.0]), span, **options)([0.3], [0.2])[0] == pytest.approx(value, abs=1e-8)
    if kind == "cubic":  # that of all periods has other ends
        moved = [
            solve(repeated, [0.3], [0.2, *(values + h * np.eye(4)[2])], span, rtol=1e-11, atol=1e-11).u_T[0] for h in (0.1, -0.1)
        ]
        assert bar.theta[3] == pytest.approx((moved[0] - moved[1]) / 0.2, rel=1e-6)
        return
    table = Dynamics(season(Table(times, kind=kind), True))
    every = [*np.tile(values, 5), values[0]]
    expected, long = value_and_gradient(table, FinalState([1.0]), span, **options)([0.3], [0.2, *every])
    sums = long.theta[1:-1].reshape(5, 4).sum(axis=0)
    sums[0] += long.theta[-1]
    assert value == pytest.approx(expected, abs=1e-8)
    np.testing.assert_allclose(bar.theta, [long.theta[0], *sums], rtol=0, atol=1e-7)


def test_a_short_pulse_that_repeats_is_met_in_an_ensemble_too():
    pulse = Table([0.0, 23.9, 24.0], [[0.0, 1.0], [10.0, 1.0], [0.0, 1.0]], "previous", outside="periodic")

    def f(t, u, theta, du):
        du[0] = pulse(t, 0) * pulse(t, 1) - theta[0] * u[0]

    dynamics, spans = Dynamics(f), np.array([[0.0, 24.0], [24.0, 96.0]])
    np.testing.assert_allclose(solve(dynamics, [0.0], [0.0], (0.0, 240.0)).u_T, 10.0, rtol=1e-9)
    values, _ = ensemble_value_and_gradient(dynamics, FinalState([1.0]), spans)([0.0], [0.0])
    np.testing.assert_allclose(values, [1.0, 3.0], rtol=1e-9)


def test_a_function_of_ones_own_has_breaks():
    def f(t, u, theta, du):
        du[0] = (10.0 if t % 24.0 < 0.1 and t > 1.0 else 0.0) - theta[0] * u[0]

    passed = solve(Dynamics(f, breaks=()), [0.0], [0.05], (0.0, 80.0)).u_T[0]
    assert passed < 0.2 * infused_exactly(0.05)
    for dynamics in (Dynamics(f, breaks=ON_OFF), Dynamics(f)):  # which reads them from the source
        found = solve(dynamics, [0.0], [0.05], (0.0, 80.0)).u_T[0]
        assert found == pytest.approx(infused_exactly(0.05), rel=1e-6)


@pytest.mark.parametrize("kind", ["linear", "cubic", "akima"])
def test_a_short_pulse_of_any_kind_is_not_passed_over(kind):
    table = RAMPS if kind == "linear" else BUMPS[kind]

    def f(t, u, theta, du):
        du[0] = table(t)

    if kind == "linear":
        area = 0.08
    else:
        from scipy.interpolate import Akima1DInterpolator, CubicSpline

        area = float((CubicSpline if kind == "cubic" else Akima1DInterpolator)(SMOOTH, BUMP).integrate(0.0, 48.0))
    assert solve(Dynamics(f), [0.0], [], (0.0, 48.0), rtol=1e-6, atol=1e-9).u_T[0] == pytest.approx(area, rel=2e-6)


# --- front ends -------------------------------------------------------------------------------------------------------------------


@pytest.mark.jitted
@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_in_compiled_code_of_ones_own(fused):
    dynamics = Dynamics(linear_f, fused=fused, **NAMES)
    prepared = value_and_gradient(dynamics, FinalState([1.0]), (0.0, END), **OPTIONS)
    value, bar = prepared(U0, THETA)
    evaluate = prepared.jitted(1, 6)

    @numba.njit
    def call(u0, theta):
        u0_bar, theta_bar = np.empty(1), np.empty(6)
        status, value = evaluate(u0, theta, u0_bar, theta_bar)
        return status, value, theta_bar

    status, again, theta_bar = call(U0, THETA)
    assert status == 0 and again == value
    np.testing.assert_array_equal(theta_bar, bar.theta)
    np.testing.assert_allclose(theta_bar, exact_gradient("linear", 0.0, END)[1:], rtol=0, atol=5e-7)


def test_an_ensemble_on_threads_has_the_bits_of_single_calls():
    thetas = THETA * np.linspace(0.5, 1.5, 5)[:, None]
    every = ensemble_value_and_gradient(DYNAMICS["linear"], FinalState([1.0]), (0.0, END), backend="threads", **OPTIONS)
    values, bars = every(U0, thetas)
    single = value_and_gradient(DYNAMICS["linear"], FinalState([1.0]), (0.0, END), **OPTIONS)
    for theta, value, bar in zip(thetas, values, bars.theta, strict=True):
        assert single(U0, theta)[0] == value
        np.testing.assert_array_equal(single(U0, theta)[1].theta, bar)


def test_a_fit_finds_the_values():
    times = np.linspace(0.1, END, 40)
    data = np.array([[exact("linear", U0, THETA, 0.0, t)] for t in times])
    loss, start = LeastSquares(times, data), {"decay": 0.7, "contacts": np.zeros(5)}
    fit = Fit(DYNAMICS["linear"], loss, (0.0, END), u0=U0, theta=start, free={"theta": ["contacts"]}, **OPTIONS)
    np.testing.assert_allclose(fit.minimize(method="BFGS").theta["contacts"], THETA[1:], rtol=0, atol=1e-3)


def test_checked_and_sent_elsewhere_it_is_the_same():
    there = solve(DYNAMICS["previous"], U0, THETA, (0.0, END), **OPTIONS).u_T
    for other in (pickle.loads(pickle.dumps(DYNAMICS["previous"])), DYNAMICS["previous"].checked()):
        np.testing.assert_allclose(solve(other, U0, THETA, (0.0, END), **OPTIONS).u_T, there, rtol=1e-13)


# --- what is refused --------------------------------------------------------------------------------------------------------------


def test_a_span_beyond_the_times():
    message = r"a Table is called with .*, which is outside its times, 0 .. 4: .*line .*LINEAR\(t,"
    with pytest.raises(SolveError, match=message) as caught:
        solve(DYNAMICS["linear"], U0, THETA, (0.0, 5.0))
    assert caught.value.status == Status.CALLBACK_RAISED


def test_too_few_values():
    with pytest.raises(SolveError, match=r"a Table of 5 times is called with values of shape \(3,\) .*line .*PREVIOUS\(t,"):
        solve(DYNAMICS["previous"], U0, THETA[:4], (0.0, 4.0))


def test_backsolve_refuses_breaks():
    solution = solve(DYNAMICS["previous"], U0, THETA, (0.0, END))
    with pytest.raises(ValueError, match="adjoint='backsolve' does not support stops or breaks of the dynamics: choose"):
        solution.pullback([1.0], adjoint="backsolve")
