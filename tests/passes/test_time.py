"""The edges of time: callbacks see none outside of the span, and what is fast may be late after the origin of time."""

import functools

import numpy as np
import pytest

from adjode import Dynamics, ensemble_value_and_gradient, solve, solve_ensemble, value_and_gradient
from adjode.losses import FinalState, LeastSquares, Series
from adjode.tableaus import METHODS, tableau
from tests.problems.methods import COMBINATIONS as IMPLICIT

EXPLICIT = [name for name in METHODS if not tableau(name).implicit and name == tableau(name).name]
ADJOINTS = ("discrete", "interpolating", "backsolve")
COMBINATIONS = [
    *((name, adjoint) for name in EXPLICIT for adjoint in ADJOINTS),
    *IMPLICIT,
    *(("auto", adjoint) for adjoint in ADJOINTS[:2]),
]
by_method_and_adjoint = pytest.mark.parametrize(("method", "adjoint"), COMBINATIONS)
by_direction = pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
LATE = 1.7e9  # seconds since an epoch; numbers there are 2.4e-7 apart


def options_of(method, length=1.0):
    return {} if tableau(method).adaptive else {"step": length / 40}


# --- f is there within the span alone: du/dt = p cos(t) - 0.3 u ---------------------------------------------------------------
def _f(t, u, theta, du):
    inside = theta[1] <= t <= theta[2]
    du[0] = theta[0] * np.cos(t) - 0.3 * u[0] if inside else np.nan


def _vjp(t, u, theta, lam, u_bar, theta_bar):
    inside = theta[1] <= t <= theta[2]
    u_bar[0] = -0.3 * lam[0] if inside else np.nan
    theta_bar[0] = lam[0] * np.cos(t) if inside else np.nan
    theta_bar[1] = theta_bar[2] = 0.0


def _g(t, u, theta):
    return u[0] if theta[1] <= t <= theta[2] else np.nan


def _g_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[0] = 1.0 if theta[1] <= t <= theta[2] else np.nan
    theta_bar[:] = 0.0


@functools.cache
def bounded():
    return Dynamics(_f, _vjp, breaks=())  # what is outside is no jump


def bounded_spans(backwards, count):
    """Ends whose difference is none that numbers have, on either side of zero."""
    rng = np.random.default_rng(3)
    for low, length in zip(rng.uniform(-9.0, -1.0, count), 10.0 ** rng.uniform(-3.0, 0.5, count), strict=True):
        yield (low + length, low) if backwards else (low, low + length)


def bounded_exact(t0, t, p=1.0, u0=1.0):
    """u(t)."""

    def particular(s):
        return p * (0.3 * np.cos(s) + np.sin(s)) / 1.09

    return particular(t) + (u0 - particular(t0)) * np.exp(-0.3 * (t - t0))


@by_direction
@by_method_and_adjoint
def test_no_callback_sees_a_time_outside_the_span(method, adjoint, backwards):
    for t0, T in bounded_spans(backwards, 12):
        times, length, theta = np.array([t0, t0 + 0.37 * (T - t0), T]), abs(T - t0), [1.0, min(t0, T), max(t0, T)]
        tight = {"rtol": 1e-7, "atol": 1e-7} if tableau(method).adaptive else {}
        solution = solve(bounded(), [1.0], theta, (t0, T), method=method, **options_of(method, length), **tight)
        bar = solution.pullback([1.0], observations=(times, np.ones((3, 1))), running_cost=(_g, _g_vjp), adjoint=adjoint)
        assert solution.t[0] == t0 and solution.t[-1] == T and solution.t.min() == min(t0, T)
        limit = 1e-4 if tableau(method).adaptive else 0.1 * length
        assert solution.u_T[0] == pytest.approx(bounded_exact(t0, T), abs=limit)
        decay = np.exp(-0.3 * (times - t0))
        exact = decay.sum() + decay[-1] + (1.0 - decay[-1]) / 0.3
        assert np.isfinite(bar.theta).all() and bar.u0[0] == pytest.approx(exact, rel=10 * limit)


@by_direction
@by_method_and_adjoint
def test_the_same_in_prepared_gradients(method, adjoint, backwards):
    for t0, T in bounded_spans(backwards, 6):
        loss, length = LeastSquares([t0, 0.5 * (t0 + T), T], np.zeros((3, 1))), abs(T - t0)
        evaluate = value_and_gradient(bounded(), loss, (t0, T), method=method, adjoint=adjoint, **options_of(method, length))
        value, bar = evaluate([1.0], [1.0, min(t0, T), max(t0, T)])
        exact = 0.5 * sum(bounded_exact(t0, t) ** 2 for t in loss.t_obs)
        assert value == pytest.approx(exact, rel=1e-4 if tableau(method).adaptive else 0.3 * length)
        assert np.isfinite([*bar.u0, *bar.theta]).all()


def test_stages_beyond_a_step_cost_few_steps_at_the_end():
    """Kvaerno5 has a stage at t + 1.23 h: the last steps are shorter, down to where the time of f matters no more."""
    T, tight = 9.0, {"method": "Kvaerno5", "rtol": 1e-8, "atol": 1e-8}
    ends, goes_on = (solve(bounded(), [1.0], [1.0, 0.0, end], (0.0, end), **tight) for end in (T, 2.0 * T))
    assert ends.u_T[0] == pytest.approx(bounded_exact(0.0, T), abs=1e-7)
    assert ends.stats.n_steps <= np.searchsorted(goes_on.t, T) + 5


# --- f ends like a root: du/dt = p sqrt(T - t) - 0.3 u ------------------------------------------------------------------------
def _root_f(t, u, theta, du):
    du[0] = theta[0] * np.sqrt(1.0 - t) - 0.3 * u[0]


def _root_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -0.3 * lam[0]
    theta_bar[0] = lam[0] * np.sqrt(1.0 - t)


@functools.cache
def root():
    return Dynamics(_root_f, _root_vjp)


@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
@pytest.mark.parametrize(("method", "adjoint"), [(m, a) for m, a in COMBINATIONS if tableau(m).adaptive and a != "backsolve"])
def test_a_root_at_the_end(method, adjoint, rtol):
    x, w = np.polynomial.legendre.leggauss(200)
    s = 0.5 * (x + 1.0)  # sqrt(1 - t)
    integral = np.sum(w * s * s * np.exp(-0.3 * s * s))
    options = {"method": method, "adjoint": adjoint, "rtol": rtol, "atol": 1e-3 * rtol}
    value, bar = value_and_gradient(root(), FinalState([1.0]), (0.0, 1.0), **options)([1.0], [1.0])
    units = 300.0 if method == "TRBDF2" else 100.0  # whose many steps add up
    assert value == pytest.approx(np.exp(-0.3) + integral, rel=units * rtol)
    np.testing.assert_allclose([*bar.u0, *bar.theta], [np.exp(-0.3), integral], rtol=units * rtol)


# --- fast, and late: du/dt = -k (u - a) ----------------------------------------------------------------------------------------
def _decay_f(t, u, theta, du):
    du[0] = -theta[0] * (u[0] - theta[1])


def _decay_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0] = -lam[0] * (u[0] - theta[1])
    theta_bar[1] = lam[0] * theta[0]


@functools.cache
def decay():
    return Dynamics(_decay_f, _decay_vjp)


def rate_for(method):
    """Steps of implicit methods begin far below 2.4e-7 with this."""
    return 1e8 if tableau(method).implicit else 10.0


def same_bits(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@by_direction
@by_method_and_adjoint
def test_a_late_start_changes_no_bit(method, adjoint, backwards):
    """Of dynamics without explicit time, since all times here are exact."""
    k, sign, results = rate_for(method), -1.0 if backwards else 1.0, []
    if adjoint == "backsolve":
        k = 1.0  # which is unstable otherwise
    for t0 in (0.0, LATE):
        span, theta = (t0, t0 + sign), [sign * k, 0.5]
        given = {"method": method, "adjoint": adjoint, **options_of(method)}
        loss = LeastSquares(t0 + sign * np.array([0.0, 0.25, 1.0]), np.zeros((3, 1)))
        value, bar = value_and_gradient(decay(), loss, span, **given)([1.0], theta)
        solution = solve(decay(), [1.0], theta, span, **{name: given[name] for name in given.keys() - {"adjoint"}})
        back = solution.pullback([1.0], observations=([t0 + 0.25 * sign], [[1.0]]), adjoint=adjoint, wrt=("u0", "theta"))
        seen = solution(t0 + sign * np.array([0.5, 0.75]))
        results.append([value, bar.u0, bar.theta, solution.u, solution.dense.elapsed, seen, back.u0, back.theta])
    same_bits(*results)
    exact = 0.5 + 0.5 * np.exp(-k * np.array([0.25, 1.0]))
    assert results[0][0] == pytest.approx(0.5 * (1.0 + (exact**2).sum()), rel=1e-3 if tableau(method).adaptive else 0.2)


@pytest.mark.parametrize(("method", "adjoint"), [(m, a) for m, a in COMBINATIONS if tableau(m).implicit])
@pytest.mark.parametrize("k", [1e6, 1e12, 1e18])
def test_fast_and_late(method, adjoint, k):
    evaluate = value_and_gradient(decay(), FinalState([1.0]), (LATE, LATE + 1.0), method=method, adjoint=adjoint)
    value, bar = evaluate([1.0], [k, 0.5])
    assert value == pytest.approx(0.5, rel=1e-5)
    assert bar.theta[1] == pytest.approx(1.0, rel=1e-4) and abs(bar.u0[0]) < 1e-4 and abs(k * bar.theta[0]) < 1e-4


def _driven_f(t, u, theta, du):
    du[0] = -theta[0] * (u[0] - np.cos(t - theta[1]))


def _driven_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0] = -lam[0] * (u[0] - np.cos(t - theta[1]))
    theta_bar[1] = lam[0] * theta[0] * np.sin(t - theta[1])


@functools.cache
def driven():
    return Dynamics(_driven_f, _driven_vjp)


@pytest.mark.parametrize(("method", "adjoint"), [(m, a) for m, a in COMBINATIONS if tableau(m).implicit])
def test_a_late_drive(method, adjoint):
    """Where times are 3.7e-9 apart, Rodas5P's difference in time is that of the times which f has seen."""
    t0, k = 2.0**24, 1e3
    options = {"method": method, "adjoint": adjoint, "rtol": 1e-5, "atol": 1e-7}
    evaluate = value_and_gradient(driven(), FinalState([1.0]), (t0, t0 + 2.0), **options)
    value, bar = evaluate([1.0], [k, t0])
    exact = k * (k * np.cos(2.0) + np.sin(2.0)) / (k * k + 1.0)
    assert value == pytest.approx(exact, rel=1e-4)
    assert bar.theta[1] == pytest.approx(k * (k * np.sin(2.0) - np.cos(2.0)) / (k * k + 1.0), rel=1e-3)


@pytest.mark.parametrize("adjoint", ADJOINTS[:2])
@pytest.mark.parametrize("method", ["Tsit5", "Radau"])
def test_members_of_an_ensemble_have_spans_of_their_own(method, adjoint):
    """Each has the bits of a single call, stops and observations included."""
    spans = LATE + np.array([[0.0, 1.0], [0.25, 2.5], [-7.125, 1.0]])
    loss, stops, theta = LeastSquares(LATE + np.array([0.5, 0.75]), np.zeros((2, 1))), [LATE + 0.625], [rate_for(method), 0.5]
    options = {"method": method, "adjoint": adjoint, "stops": stops}
    u0 = np.array([[1.0], [2.0], [3.0]])
    value, bar = ensemble_value_and_gradient(decay(), loss, spans, workers=1, **options)(u0, np.tile(theta, (3, 1)))
    states = solve_ensemble(decay(), u0, theta, spans, method=method, stops=stops, t_eval=loss.t_obs, workers=1)
    for i, span in enumerate(spans):
        alone, cotangents = value_and_gradient(decay(), loss, tuple(span), **options)(u0[i], np.array(theta))
        same_bits([value[i], bar.u0[i], bar.theta[i]], [alone, cotangents.u0, cotangents.theta])
        solution = solve(decay(), u0[i], theta, tuple(span), method=method, stops=stops)
        np.testing.assert_array_equal(states.u_T[i], solution.u_T)
        assert states.u_eval[i] == pytest.approx(solution(loss.t_obs), rel=1e-12)


def test_a_loss_sees_the_times_of_its_data():
    seen = []

    def look(k, t, u, u_bar):
        seen.append(t)
        u_bar[0] = 1.0
        return u[0]

    times = LATE + np.array([0.5, 0.1])
    value_and_gradient(decay(), Series(times, look), (LATE, LATE + 1.0))([1.0], [1.0, 0.5])
    assert seen == list(times)


def test_steps_are_told_apart_by_the_time_since_the_start():
    solution = solve(decay(), [1.0], [1e8, 0.5], (LATE, LATE + 1.0), method="Radau")
    assert (np.diff(solution.t) >= 0.0).all() and (np.diff(solution.t) == 0.0).any()
    assert (np.diff(solution.dense.elapsed) > 0.0).all()
    assert (solution.t[0], solution.t[-1]) == (LATE, LATE + 1.0)
    np.testing.assert_array_equal(solution(solution.t[-1]), solution.u_T)


@pytest.mark.parametrize("adjoint", ADJOINTS[:2])
def test_late_with_a_budget_of_memory(adjoint):
    bars = []
    for memory in (None, 3000):
        solution = solve(decay(), [1.0], [1e8, 0.5], (LATE, LATE + 1.0), method="Radau", memory=memory)
        bars.append(solution.pullback([1.0], adjoint=adjoint, wrt=("u0", "theta")))
        assert (solution.segments is None) == (memory is None)
        assert solution.u[-1] == solution.u_T and solution(LATE + 0.5)[0] == pytest.approx(0.5, rel=1e-5)
    assert bars[1].theta[1] == pytest.approx(bars[0].theta[1], rel=1e-9)
