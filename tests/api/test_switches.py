"""Switches that the source of f shows, against closed forms: d u/dt = what is on - k u."""

import bisect
import functools
import pickle
import warnings

import numpy as np
import pytest

from adjode import Doses, Dynamics, ensemble_value_and_gradient, hessian_vector_product, solve, solve_ensemble, value_and_gradient
from adjode.losses import FinalState

K, T = 0.5, 6.0
FINAL = FinalState([1.0])
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
by_adjoint = pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])


def since(start, end=T, k=K):
    """u(end) where 1 is on since the start."""
    return (1.0 - np.exp(-k * (end - start))) / k


def pulse(t, u, theta, du):
    du[0] = (theta[0] if 5.0 <= t < 5.5 else 0.0) - theta[1] * u[0]


def daily(hours):
    def f(t, u, theta, du):
        du[0] = (theta[0] if (t % 24.0) < hours else 0.0) - theta[1] * u[0]

    return f


def lagged(t, u, theta, du):
    du[0] = (5.0 if t >= theta[0] else 0.0) + (3.0 if t < theta[1] else 0.0) - theta[2] * u[0]


def lagged_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[2] * lam[0]
    theta_bar[0] = theta_bar[1] = 0.0
    theta_bar[2] = -u[0] * lam[0]


STARTS = np.array([1.0, 5.0])
RATES = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0])


def by_entries(t, u, theta, du):
    on = 0.0
    for k in range(STARTS.size):
        if STARTS[k] <= t < STARTS[k] + 1.0:
            on += 1.0
    du[0] = theta[0] * on - theta[1] * u[0]


EDGES, LEVELS = [1.0, 2.0, 5.0], np.array([0.0, 1.0, 0.0, 1.0])


def by_search(t, u, theta, du):
    du[0] = theta[0] * LEVELS[np.searchsorted(EDGES, t, side="right")] - theta[1] * u[0]


def by_bisection(t, u, theta, du):
    du[0] = theta[0] * LEVELS[bisect.bisect(EDGES, t)] - theta[1] * u[0]


def by_bins(t, u, theta, du):
    du[0] = theta[0] * LEVELS[np.digitize(t, EDGES)] - theta[1] * u[0]


def by_steps(t, u, theta, du):
    on = np.heaviside(t - 1.0, 1.0) - np.heaviside(t - 2.0, 1.0) + np.heaviside(t - 5.0, 1.0)
    du[0] = theta[0] * on - theta[1] * u[0]


def by_counting(t, u, theta, du):
    k = 0
    while k < 3 and t >= EDGES[k]:
        k += 1
    du[0] = theta[0] * LEVELS[k] - theta[1] * u[0]


def by_number(t, u, theta, du):
    du[0] = theta[0] * RATES[min(int(t), 6)] - theta[1] * u[0]


def by_wave(t, u, theta, du):
    du[0] = theta[0] * (np.cos(0.5 * np.pi * (t - 1.5)) > np.sqrt(0.5)) - theta[1] * u[0]


def hat(t, u, theta, du):
    du[0] = 50.0 * max(0.0, 1.0 - 50.0 * abs(t - theta[0])) - theta[1] * u[0]


def repeated(t, u, theta, du):
    du[0] = (1.0 if (t - theta[0]) % 3.0 < theta[1] else 0.0) - theta[2] * u[0]


@functools.cache
def dynamics_of(f, vjp=None):
    return Dynamics(f, vjp)


def gradient(f, theta, span=(0.0, T), u0=0.0, vjp=None, **options):
    value, bar = value_and_gradient(dynamics_of(f, vjp), FINAL, span, **options)([u0], theta)
    return value, bar.theta


def test_a_pulse_after_a_rest_is_a_break():
    assert dynamics_of(pulse).breaks.tolist() == [5.0, 5.5]
    value, bar = gradient(pulse, [2.0, K])
    on = since(5.0) - since(5.5)
    slope = sum(s * ((T - start) * np.exp(-K * (T - start)) / K - since(start) / K) for s, start in ((2.0, 5.0), (-2.0, 5.5)))
    assert value == pytest.approx(2.0 * on, rel=1e-6)
    np.testing.assert_allclose(bar, [on, slope], rtol=1e-6)


@pytest.mark.parametrize("f", [by_entries, by_number, by_wave, by_search, by_bisection, by_bins, by_steps, by_counting])
def test_inputs_after_a_rest(f):
    value, bar = gradient(f, [2.0, K])
    on = since(1.0) - since(2.0) + since(5.0)
    slopes = [(T - start) * np.exp(-K * (T - start)) / K - since(start) / K for start in (1.0, 2.0, 5.0)]
    assert value == pytest.approx(2.0 * on, rel=1e-6)
    np.testing.assert_allclose(bar, [on, 2.0 * (slopes[0] - slopes[1] + slopes[2])], rtol=1e-5)


@by_adjoint
def test_a_moving_hat_after_a_rest(adjoint):
    """Its slope jumps, and steps end there, so that it is not passed over."""
    value, bar = gradient(hat, [4.0, K], adjoint=adjoint)
    w = 0.02
    exact = np.exp(-K * (T - 4.0)) * 50.0 * w * (2.0 * np.sinh(0.5 * K * w) / (K * w)) ** 2
    assert value == pytest.approx(exact, rel=1e-6) and bar[0] == pytest.approx(K * exact, rel=1e-5)
    backsolve = gradient(hat, [4.0, K], adjoint="backsolve", max_step=0.01)  # as before: it knows no such times
    assert backsolve[1][0] == pytest.approx(K * exact, rel=1e-3)


def test_what_returns_every_day():
    value, bar = gradient(daily(0.1), [1.0, K], (0.0, 168.0))
    exact = sum(since(24.0 * i, 168.0) - since(24.0 * i + 0.1, 168.0) for i in range(7))
    assert value == pytest.approx(exact, rel=1e-5) and bar[0] == pytest.approx(exact, rel=1e-5)


def test_an_ensemble_with_spans_of_its_own_meets_all_of_them():
    theta, spans = [1.0, 0.0], np.array([[0.0, 30.0], [90.0, 180.5]])
    dynamics = Dynamics(daily(0.1))
    np.testing.assert_allclose(solve_ensemble(dynamics, [0.0], theta, spans).u_T[:, 0], [0.2, 0.4], rtol=1e-9)
    values, _ = ensemble_value_and_gradient(dynamics, FINAL, spans)([0.0], theta)
    np.testing.assert_allclose(values, [0.2, 0.4], rtol=1e-9)


@by_adjoint
@pytest.mark.parametrize("times", [(1.0, 4.0), (1.0, 1.0), (0.0, T)], ids=["apart", "together", "at the ends"])
@pytest.mark.parametrize("vjp", [None, lagged_vjp], ids=["derived", "given"])
def test_the_gradient_by_the_time_of_a_switch(adjoint, times, vjp):
    """Also where two of them are at one time, and at an end of the span: there it is that of moving inwards."""
    value, bar = gradient(lagged, [*times, K], adjoint=adjoint, vjp=vjp, **TIGHT)
    on, off = times
    assert value == pytest.approx(5.0 * since(on) + 3.0 * (since(0.0) - since(off)), rel=1e-8)
    np.testing.assert_allclose(bar[:2], [-5.0 * np.exp(-K * (T - on)), 3.0 * np.exp(-K * (T - off))], rtol=1e-7)


def held(t, u, theta, du):
    du[0] = (5.0 if t >= theta[0] else 0.0) + (3.0 if t >= 1.5 else 0.0) - theta[1] * u[0]


@by_adjoint
@pytest.mark.parametrize("method", ["Tsit5", "Kvaerno5"])
def test_a_switch_at_a_time_at_which_f_jumps_by_itself(adjoint, method):
    """That one stays where it is when the switch moves, or a dose that is given then as well."""
    doses = Doses("theta[2]", "theta[3]", 0)
    value, bar = gradient(held, [1.5, K, 1.5, 0.7], adjoint=adjoint, doses=doses, method=method, **TIGHT)
    late = np.exp(-K * (T - 1.5))
    assert value == pytest.approx(8.0 * since(1.5) + 0.7 * late, rel=1e-8)
    np.testing.assert_allclose(bar[[0, 2, 3]], [-5.0 * late, 0.7 * K * late, late], rtol=1e-7)


def test_second_derivatives_where_f_jumps_by_itself_too():
    product = hessian_vector_product(dynamics_of(held), FINAL, (0.0, T), doses=Doses("theta[2]", "theta[3]", 0), **TIGHT)
    _, _, H = product.hessian([0.0], [1.5, K, 1.5, 0.7], wrt={"theta": [0, 2, 3]})
    late = K * np.exp(-K * (T - 1.5))
    np.testing.assert_allclose(H, [[-5.0 * late, 0.0, 0.0], [0.0, 0.7 * K * late, late], [0.0, late, 0.0]], rtol=1e-7, atol=1e-9)


@by_adjoint
def test_a_switch_outside_of_the_span_has_no_part(adjoint):
    value, bar = gradient(lagged, [-1.0, 7.0, K], adjoint=adjoint, **TIGHT)
    assert value == pytest.approx(8.0 * since(0.0), rel=1e-8)
    assert bar[:2].tolist() == [0.0, 0.0]


def repeated_exact(lag, width):
    """u(T) and its derivatives by the two; T = 6, 0 < lag < 3 - width."""
    starts = (lag, lag + 3.0)
    value = sum(since(start) - since(start + width) for start in starts)
    ends = sum(np.exp(-K * (T - start - width)) for start in starts)
    return value, -sum(np.exp(-K * (T - start)) for start in starts) + ends, ends


@by_adjoint
@pytest.mark.parametrize("turns", [-20, 0, 20])
def test_a_lag_that_returns(adjoint, turns):
    exact = repeated_exact(0.4, 0.7)
    value, bar = gradient(repeated, [0.4 + 3.0 * turns, 0.7, K], adjoint=adjoint, **TIGHT)
    np.testing.assert_allclose([value, *bar[:2]], exact, rtol=1e-7)


def test_tangents_are_dual_and_backwards_is_too():
    for span in ((0.0, T), (T, 0.0)):
        solution = solve(dynamics_of(repeated), [0.3], [0.4, 0.7, K], span, **TIGHT)
        bar = solution.pullback([1.0], adjoint="discrete")
        tangents = solution.pushforward(theta_dot=np.eye(3)).u_T
        np.testing.assert_allclose(tangents[0], bar.theta, rtol=1e-6)
        moved = [solve(dynamics_of(repeated), [0.3], [0.4 + h, 0.7, K], span, **TIGHT).u_T[0] for h in (1e-4, -1e-4)]
        assert bar.theta[0] == pytest.approx((moved[0] - moved[1]) / 2e-4, rel=1e-5)


def test_second_derivatives_by_times_of_switches():
    product = hessian_vector_product(dynamics_of(repeated), FINAL, (0.0, T), **TIGHT)
    (lag, width), h = (0.4, 0.7), 1e-4
    _, gradient, H = product.hessian([0.0], [lag, width, K], wrt={"theta": [0, 1]})
    np.testing.assert_allclose(gradient, repeated_exact(lag, width)[1:], rtol=1e-7)
    shifted = [[np.array(repeated_exact(lag + s * h * a, width + s * h * b)[1:]) for s in (1, -1)] for a, b in np.eye(2)]
    np.testing.assert_allclose(H, [(above - below) / (2 * h) for above, below in shifted], rtol=1e-6)


def test_copies_keep_switches_and_names_say_what_does_not_go_with_them():
    with_names = Dynamics(repeated, parameters=("lag", "width", "k"))
    copied = pickle.loads(pickle.dumps(with_names))
    theta = {"lag": 0.4, "width": 0.7, "k": K}
    bar = value_and_gradient(copied, FINAL, (0.0, T), **TIGHT)([0.0], theta)[1]
    np.testing.assert_allclose(bar.theta["lag"], repeated_exact(0.4, 0.7)[1], rtol=1e-7)
    with pytest.raises(ValueError, match="choose adjoint='discrete' or 'interpolating'"):
        solve(with_names, [0.0], theta, (0.0, T)).pullback([1.0], adjoint="backsolve")
    with pytest.raises(ValueError, match="give these"):
        ensemble_value_and_gradient(with_names, FINAL, np.array([[0.0, T], [0.0, 2.0 * T]]))


def test_that_there_are_no_breaks_can_be_said():
    dynamics = Dynamics(lagged, lagged_vjp, breaks=())
    _, bar = value_and_gradient(dynamics, FINAL, (0.0, T))([0.0], [1.0, 4.0, K])
    assert bar.theta[:2].tolist() == [0.0, 0.0] and pickle.loads(pickle.dumps(dynamics)).switches.moving == ()


def squared(t, u, theta, du):
    du[0] = (1.0 if t > theta[0] ** 2 else 0.0) - u[0]


def test_what_cannot_be_read_is_told_once_with_its_line():
    dynamics = Dynamics(squared)
    with pytest.warns(RuntimeWarning, match=r"line \d+: `du\[0\] = \(1.0 if t > theta\[0\] \*\* 2") as told:
        value_and_gradient(dynamics, FINAL, (0.0, T))
    assert len(told) == 1 and told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value_and_gradient(dynamics, FINAL, (0.0, T))
        value_and_gradient(Dynamics(squared, breaks=[1.0]), FINAL, (0.0, T))
        value_and_gradient(Dynamics(squared), FINAL, (0.0, T), stops=[1.0])


def bounded(t, u, theta, du):
    du[0] = -u[0] if theta[0] <= t <= theta[1] else np.nan


@by_adjoint
def test_where_f_is_there_on_one_side_alone_it_does_not_jump(adjoint):
    value, bar = gradient(bounded, [0.0, 2.0], (0.0, 2.0), u0=1.0, adjoint=adjoint)
    assert value == pytest.approx(np.exp(-2.0), rel=1e-5)
    np.testing.assert_allclose(bar, 0.0, atol=1e-12)


def rests(t, u, theta, du):
    du[0] = theta[0] * (1.0 - u[0])


GUARDS = {
    "twice": (lambda t, u: abs(t - 40.0) - 1e-4, [39.9999, 40.0001]),
    "again": (lambda t, u, theta: 0.999 - np.sin(t), [np.arcsin(0.999), np.pi - np.arcsin(0.999)]),
    "daily": (lambda t, u: t % 24.0 - 12.0, 12.0 * np.arange(1, 9)),
}


@pytest.mark.parametrize("name", GUARDS)
def test_events_by_time_at_rest(name):
    guard, times = GUARDS[name]
    span = (0.0, 5.0 if name == "again" else 100.0)
    solution = solve(dynamics_of(rests), [1.0], [0.5], span, events=[guard])
    np.testing.assert_allclose(solution.t_events[0], times, rtol=1e-12)
