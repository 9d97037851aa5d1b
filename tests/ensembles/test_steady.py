"""Ensembles whose doses have always been given: against closed forms and single calls, and members that have no steady state."""

import concurrent.futures

import numpy as np
import pytest
from scipy.linalg import expm

from adjode import Doses, SolveError, Status, ensemble_value_and_gradient, solve, solve_ensemble, value_and_gradient
from adjode.losses import FinalState, LeastSquares
from tests.problems.hybrid import TWO_THETA, two_compartments
from tests.problems.numerics import complex_step

TOLERANCES = {"rtol": 1e-9, "atol": 1e-9}
PERIOD, SPAN = 8.0, (0.0, 20.0)
REGIMEN = Doses(0.0, "theta[4]", 0, lag=1.5, fraction="theta[5]", every=PERIOD, steady_state=True)
OPTIONS = {"doses": REGIMEN, **TOLERANCES}
SEED = np.array([0.3, 1.0, -0.5])
THETA = TWO_THETA * np.random.default_rng(0).uniform(0.8, 1.2, (5, TWO_THETA.size))
ZERO = np.zeros(3)


def exact(theta, t):
    """The state of the regimen at t."""
    ka, ke, k12, k21, amount, fraction = theta
    A = np.array([[-ka, 0.0, 0.0], [ka, -ke - k12, k21], [0.0, k12, -k21]])
    given = np.array([amount * fraction, 0.0, 0.0])
    return expm(A * ((t - 1.5) % PERIOD)) @ np.linalg.solve(np.eye(3) - expm(A * PERIOD), given)


def conserving():
    """Of trajectory 3 nothing is ever eliminated, and trajectory 1 has no parameters at all."""
    theta = THETA.copy()
    theta[3, 1], theta[1, 0] = 0.0, np.nan
    return theta


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_members_against_closed_forms_and_single_calls(adjoint):
    times = np.array([1.0, 6.0, 12.5])
    data = np.random.default_rng(1).uniform(1.0, 5.0, (len(THETA), 3, 3))
    loss = LeastSquares(times, data)
    values, bars = ensemble_value_and_gradient(two_compartments(), loss, SPAN, adjoint=adjoint, **OPTIONS)(ZERO, THETA)
    np.testing.assert_array_equal(bars.u0, ZERO)
    for i, theta in enumerate(THETA):
        one = loss.member(i)
        value, bar = value_and_gradient(two_compartments(), one, SPAN, adjoint=adjoint, **OPTIONS)(ZERO, theta)
        assert values[i] == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(bars.theta[i], bar.theta, rtol=0.0, atol=1e-8 * np.abs(bar.theta).max())

        def of_theta(x, rows=data[i]):
            return 0.5 * sum(((exact(x, t) - row) ** 2).sum() for t, row in zip(times, rows, strict=True))

        (wanted,) = complex_step(of_theta, [theta])
        np.testing.assert_allclose(bars.theta[i], wanted, rtol=0.0, atol=1e-6 * np.abs(wanted).max())


def test_a_shared_theta_has_the_sum_of_the_cotangents():
    loss = LeastSquares([6.0], np.arange(6.0).reshape(2, 1, 3))
    _, bars = ensemble_value_and_gradient(two_compartments(), loss, SPAN, **OPTIONS)(np.zeros((2, 3)), TWO_THETA)
    singles = [value_and_gradient(two_compartments(), loss.member(i), SPAN, **OPTIONS)(ZERO, TWO_THETA)[1] for i in range(2)]
    np.testing.assert_array_equal(bars.u0, np.zeros((2, 3)))
    np.testing.assert_allclose(bars.theta, singles[0].theta + singles[1].theta, rtol=1e-8)


def test_states_and_their_pullback():
    many = solve_ensemble(two_compartments(), ZERO, THETA, SPAN, t_eval=[3.0, 11.0], **OPTIONS)
    np.testing.assert_allclose(many.u_eval[:, 0], many.u_eval[:, 1], rtol=1e-7)
    bar = many.pullback(SEED)
    for i, theta in enumerate(THETA):
        one = solve(two_compartments(), ZERO, theta, SPAN, **OPTIONS)
        np.testing.assert_allclose(many.u_T[i], one.u_T, rtol=1e-9)
        np.testing.assert_array_equal(many[i].u_T, one.u_T)
        np.testing.assert_allclose(bar.theta[i], one.pullback(SEED, adjoint="discrete").theta, rtol=1e-7)


def test_spans_of_their_own():
    spans = np.column_stack([0.1 * np.arange(5.0), 10.0 + np.arange(5.0)])
    values, bars = ensemble_value_and_gradient(two_compartments(), FinalState(SEED), spans, **OPTIONS)(ZERO, THETA)
    for i, (_, T) in enumerate(spans):
        (wanted,) = complex_step(lambda x, T=T: SEED @ exact(x, T), [THETA[i]])
        assert values[i] == pytest.approx(SEED @ exact(THETA[i], T), rel=1e-7)
        np.testing.assert_allclose(bars.theta[i], wanted, rtol=0.0, atol=1e-6 * np.abs(wanted).max())


def test_an_executor_has_the_same_bits():
    here = ensemble_value_and_gradient(two_compartments(), FinalState(SEED), SPAN, **OPTIONS)(ZERO, THETA)
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        call = ensemble_value_and_gradient(two_compartments(), FinalState(SEED), SPAN, executor=executor, chunks=3, **OPTIONS)
        there = call(ZERO, THETA)
    np.testing.assert_array_equal(there[0], here[0])
    np.testing.assert_array_equal(there[1].theta, here[1].theta)


@pytest.mark.parametrize("on_failure", ["nan", "drop"])
def test_members_without_a_steady_state_fail_alone(on_failure):
    call = ensemble_value_and_gradient(two_compartments(), FinalState(SEED), SPAN, on_failure=on_failure, **OPTIONS)
    values, bars = call(ZERO, conserving())
    there = np.array([True, False, True, False, True])
    np.testing.assert_array_equal(bars.stats.status != Status.SUCCESS, ~there)
    np.testing.assert_array_equal(np.isnan(values), ~there)
    np.testing.assert_array_equal(np.isnan(bars.theta).all(axis=1), ~there)
    np.testing.assert_array_equal(bars.u0, ZERO if on_failure == "drop" else np.full(3, np.nan))
    np.testing.assert_array_equal(values[there], call(ZERO, THETA)[0][there])


def test_the_first_member_without_a_steady_state_is_named():
    theta = conserving()
    theta[1] = THETA[1]
    says = "1 of 5 trajectories failed; the first is number 3: there is no steady state of the doses: some quantity is conserved"
    with pytest.raises(SolveError, match=says):
        ensemble_value_and_gradient(two_compartments(), FinalState(SEED), SPAN, **OPTIONS)(ZERO, theta)
    many = solve_ensemble(two_compartments(), ZERO, theta, SPAN, **OPTIONS)
    assert many.status.tolist() == [0, 0, 0, Status.NEWTON_FAILED, 0]
    assert np.isnan(many.u_T[3]).all()


def test_what_does_not_go_together():
    lagging = Doses(0.0, "theta[4]", 0, lag="theta[0]", every=PERIOD, steady_state=True)
    theta = THETA.copy()
    theta[2, 0] += PERIOD
    with pytest.raises(ValueError, match="begin in a different period for trajectory 2 than for trajectory 0, by their lag or t0"):
        solve_ensemble(two_compartments(), ZERO, theta, SPAN, doses=lagging)
    with pytest.raises(ValueError, match="doses in steady state and device_output=True exclude each other"):
        ensemble_value_and_gradient(two_compartments(), FinalState(SEED), SPAN, backend="cuda", device_output=True, **OPTIONS)
    with pytest.raises(ValueError, match="doses in steady state need time to run forwards"):
        solve_ensemble(two_compartments(), ZERO, THETA, SPAN[::-1], **OPTIONS)
