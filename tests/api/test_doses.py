"""Doses: values and gradients against closed forms, where doses meet, work, and what is refused."""

import functools

import numpy as np
import pytest
from scipy.linalg import expm

from adjode import Doses, Dynamics, SolveError, Status, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares
from tests.problems.hybrid import (
    PK_DOSES,
    PK_NAMED_DOSES,
    PK_NAMES,
    PK_SPAN,
    PK_THETA,
    PK_U0,
    TWO_DOSES,
    TWO_SPAN,
    TWO_THETA,
    drug,
    drug_at,
    named_drug,
    two_at,
    two_compartments,
)
from tests.problems.numerics import complex_step
from tests.problems.systems import DECAY

RTOL = 1e-8
TOLERANCES = {"rtol": RTOL, "atol": RTOL}
SEED = np.array([0.5, 1.0])
by_adjoint = pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])


def assert_near(found, wanted, units):
    """Within so many units of the tolerance, of the largest."""
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=units * RTOL * max(1.0, np.max(np.abs(wanted))))


# --- against closed forms -------------------------------------------------------------------------------------------------------
def test_a_drug_at_all_times():
    times = np.linspace(*PK_SPAN, 41)
    solution = solve(drug(), PK_U0, PK_THETA, PK_SPAN, doses=PK_DOSES, t_eval=times, **TOLERANCES)
    assert_near(
        solution.u_eval, [drug_at(PK_U0, PK_THETA, 0.0, t + 1e-12).real for t in times], 30.0
    )  # also where one is 1 ulp early


@by_adjoint
@pytest.mark.parametrize("T", [PK_SPAN[1], 5.8])  # 5.8 is in the infusion
def test_every_cotangent_of_a_drug(adjoint, T):
    def final(u0, theta, t0, end):
        return SEED @ drug_at(u0, theta, t0[0], end[0])

    bar = solve(drug(), PK_U0, PK_THETA, (0.0, T), doses=PK_DOSES, **TOLERANCES).pullback(SEED, adjoint=adjoint)
    wanted = complex_step(final, [PK_U0, PK_THETA, [0.0], [T]])
    for found, exact in zip([bar.u0, bar.theta, bar.t0, bar.T], wanted, strict=True):
        assert_near(found, exact, 50.0)


@by_adjoint
def test_every_cotangent_of_observations(adjoint):
    times, rng = np.array([0.2, 1.0, 3.0, 4.7, 5.5, 6.2, 12.0]), np.random.default_rng(0)
    u_bars = rng.normal(size=(times.size, 2))

    def observed(u0, theta):
        return sum(bar @ drug_at(u0, theta, 0.0, t) for bar, t in zip(u_bars, times, strict=True))

    solution = solve(drug(), PK_U0, PK_THETA, PK_SPAN, doses=PK_DOSES, **TOLERANCES)
    bar = solution.pullback(observations=(times, u_bars), adjoint=adjoint)
    for found, exact in zip([bar.u0, bar.theta], complex_step(observed, [PK_U0, PK_THETA]), strict=True):
        assert_near(found, exact, 50.0)


def test_cotangents_of_the_times_of_observations():
    """Before, in and behind the infusion, and where it begins: what is seen there is behind that."""
    times = np.array([1.0, 5.0, 5.5, 6.4, 9.0])
    solution = solve(drug(), PK_U0, PK_THETA, PK_SPAN, doses=PK_DOSES, **TOLERANCES)
    found = solution.pullback(observations=(times, np.tile(SEED, (5, 1))), wrt="observation_times").observation_times
    wanted = [complex_step(lambda t: SEED @ drug_at(PK_U0, PK_THETA, 0.0, t[0]), [[t + 1e-12]])[0][0] for t in times]
    assert_near(found, wanted, 50.0)


@by_adjoint
def test_an_observation_at_a_dose_at_t0_alone(adjoint):
    """The loss is that of u0 and the dose, and no step has a part in it."""
    loss = LeastSquares([0.0], [[0.5]])
    call = value_and_gradient(timed(), loss, (0.0, 2.0), doses=Doses(0.0, "theta[2]", 0), adjoint=adjoint, **TOLERANCES)
    for value, bar in (call([1.0], [0.5, 0.0, 3.0]), call.step_by_step([1.0], [0.5, 0.0, 3.0])):
        assert value == pytest.approx(0.5 * 3.5**2)
        assert_near(bar.u0, [3.5], 1.0)
        assert_near(bar.theta, [0.0, 0.0, 3.5], 1.0)


@by_adjoint
def test_two_compartments_with_six_doses(adjoint):
    def final(u0, theta):
        return np.array([0.0, 1.0, -0.5]) @ two_at(u0, theta, *TWO_SPAN)

    loss = FinalState([0.0, 1.0, -0.5])
    value, bar = value_and_gradient(two_compartments(), loss, TWO_SPAN, doses=TWO_DOSES, adjoint=adjoint, **TOLERANCES)(
        np.zeros(3), TWO_THETA
    )
    assert value == pytest.approx(final(np.zeros(3), TWO_THETA).real, abs=30.0 * RTOL)
    for found, exact in zip([bar.u0, bar.theta], complex_step(final, [np.zeros(3), TWO_THETA]), strict=True):
        assert_near(found, exact, 50.0)


def test_names_stand_for_entries():
    u0, theta = {"gut": PK_U0[0], "blood": PK_U0[1]}, dict(zip(PK_NAMES, PK_THETA, strict=True))
    loss = FinalState(SEED)
    value, bar = value_and_gradient(named_drug(), loss, PK_SPAN, doses=PK_NAMED_DOSES, **TOLERANCES)(u0, theta)
    other, same = value_and_gradient(drug(), loss, PK_SPAN, doses=PK_DOSES, **TOLERANCES)(PK_U0, PK_THETA)
    assert value == other
    assert [bar.theta[name] for name in PK_NAMES] == same.theta.tolist()


# --- the inverse of a dose, and its place ---------------------------------------------------------------------------------------
BACK_SPAN = (6.0, 4.0)  # what is infused from 4.6 to 5.7, and the bolus before that
BACK_DOSES = (Doses("theta[5]", "theta[7]", 0, lag="theta[2]", fraction="theta[3]"), Doses(4.6, "theta[8]", 1, duration=1.1))


def taken_out(u0, theta):
    """SEED . u(4) of the solution with u(6) = u0."""
    absorption, elimination, lag, fraction, _, second, _, small, infused, _ = theta
    A, extended = np.array([[-absorption, 0.0], [absorption, -elimination]]), np.zeros((3, 3), dtype=complex)
    extended[:2, :2], extended[1, 2] = A, infused / 1.1
    at_end = expm(-A * (6.0 - 5.7)) @ u0
    at_start = (expm(-extended * (5.7 - 4.6)) @ np.append(at_end, 1.0))[:2]
    behind = expm(-A * (4.6 - second - lag)) @ at_start
    return SEED @ expm(-A * (second + lag - 4.0)) @ (behind - np.array([fraction * small, 0.0]))


@by_adjoint
def test_backwards_doses_are_taken_out_again(adjoint):
    solution = solve(drug(), PK_U0, PK_THETA, BACK_SPAN, doses=BACK_DOSES, **TOLERANCES)
    assert SEED @ solution.u_T == pytest.approx(taken_out(PK_U0, PK_THETA).real, rel=30.0 * RTOL)
    bar = solution.pullback(SEED, adjoint=adjoint)
    for found, exact in zip([bar.u0, bar.theta], complex_step(taken_out, [PK_U0, PK_THETA]), strict=True):
        assert_near(found, exact, 50.0)


def test_there_and_back():
    there = solve(drug(), PK_U0, PK_THETA, (0.0, 8.0), doses=PK_DOSES, rtol=1e-12, atol=1e-12)
    back = solve(drug(), there.u_T, PK_THETA, (8.0, 0.0), doses=PK_DOSES, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(back.u_T, PK_U0, rtol=0.0, atol=1e-9 * np.exp(PK_THETA[0] * 8.0) / 100.0)


def given_at(*times, T=2.0, **options):
    """A state that decays, and gets 1.0 at these times."""
    doses = [Doses(time, 1.0, 0) for time in times]
    return solve(DECAY.dynamics, [1.0], [0.5], (0.0, T), doses=doses, **TOLERANCES, **options)


def decayed(*times, T=2.0):
    return np.exp(-0.5 * T) + sum(np.exp(-0.5 * (T - time)) for time in times)


@pytest.mark.parametrize(
    "times",
    [(0.0,), (2.0,), (0.0, 2.0), (1.0, 1.0), (1.0, np.nextafter(1.0, 2.0)), (1.0, 1.0 + 4e-15, 1.0 - 4e-15), (2.0 - 3e-16, 2.0)],
)
@by_adjoint
def test_doses_at_the_ends_at_one_time_and_beside_each_other(times, adjoint):
    solution = given_at(*times)
    assert_near(solution.u_T, [decayed(*times)], 20.0)
    bar = solution.pullback([1.0], adjoint=adjoint)
    assert_near(bar.u0, [np.exp(-1.0)], 20.0)
    slope = -2.0 * np.exp(-1.0) - sum((2.0 - time) * np.exp(-0.5 * (2.0 - time)) for time in times)
    assert_near(bar.theta[:1], [slope], 50.0)


@by_adjoint
def test_who_observes_at_a_dose_sees_it_given(adjoint):
    """At t0, inside and at T; a cotangent there is that of what is behind the dose."""
    times = np.array([0.0, 1.0, 2.0])
    solution = given_at(*times, t_eval=times)
    assert_near(solution.u_eval[:, 0], [2.0, decayed(0.0, 1.0, T=1.0), decayed(*times)], 20.0)
    bar = solution.pullback(observations=(times, np.ones((3, 1))), adjoint=adjoint)
    assert_near(bar.u0, [1.0 + np.exp(-0.5) + np.exp(-1.0)], 20.0)


@by_adjoint
def test_the_time_of_a_dose_at_t0_has_no_part_before_it(adjoint):
    """Moved later, it decays for less long."""
    doses = Doses("theta[1]", "theta[2]", 0)
    value, bar = value_and_gradient(timed(), FinalState([1.0]), (0.0, 2.0), doses=doses, adjoint=adjoint, **TOLERANCES)(
        [0.0], [0.5, 0.0, 3.0]
    )
    assert value == pytest.approx(3.0 * np.exp(-1.0), abs=20.0 * RTOL)
    assert_near(bar.theta, [-6.0 * np.exp(-1.0), 1.5 * np.exp(-1.0), np.exp(-1.0)], 50.0)


def _timed_f(t, u, theta, du):
    du[0] = -theta[0] * u[0]


@functools.cache
def timed():
    return Dynamics(_timed_f)


@by_adjoint
def test_a_dose_into_a_system_at_rest(adjoint):
    """Nothing moves before: the step to the dose is as long as it can be, and the gradient is right all the same."""
    doses = Doses("theta[1]", "theta[2]", 0)
    value, bar = value_and_gradient(timed(), FinalState([1.0]), (0.0, 100.0), doses=doses, adjoint=adjoint, **TOLERANCES)(
        [0.0], [0.5, 97.0, 3.0]
    )
    decay_by = np.exp(-1.5)
    assert value == pytest.approx(3.0 * decay_by, abs=20.0 * RTOL)
    assert_near(bar.theta, [-9.0 * decay_by, 1.5 * decay_by, decay_by], 50.0)


def test_a_dose_due_behind_the_end_is_not_given():
    solution = solve(timed(), [1.0], [0.5, 1.0, 3.0], (0.0, 2.0), doses=Doses(1.5, 1.0, 0, lag="theta[1]"), **TOLERANCES)
    assert_near(solution.u_T, [np.exp(-1.0)], 20.0)
    assert solution.pullback([1.0]).theta[1] == 0.0


def test_infusions_that_overlap_leave_no_inflow_behind():
    doses = Doses([0.3, 0.7, 1.1], [0.1, 0.2, 0.3], 0, duration=[1.0, 1.0, 0.3])
    solution = solve(timed(), [0.0], [0.0, 0.0, 0.0], (0.0, 50.0), doses=doses, **TOLERANCES)
    np.testing.assert_allclose(solution.u_T, [0.6], rtol=1e-11)
    np.testing.assert_array_equal(solution.theta_T[3:], [0.0])


# --- doses that have always been given ------------------------------------------------------------------------------------------
STEADY = Doses(0.0, "theta[4]", 0, fraction="theta[5]", every=8.0, steady_state=True)


def steady_at(theta, T):
    """u(T) for 0 <= T < 8, where the dose at 0 is one of those that come every 8 hours for ever."""
    ka, ke, k12, k21, amount, fraction = theta
    A = np.array([[-ka, 0.0, 0.0], [ka, -ke - k12, k21], [0.0, k12, -k21]])
    given, period = np.array([amount * fraction, 0.0, 0.0]), expm(8.0 * A)
    return expm(A * T) @ (np.linalg.solve(np.eye(3) - period, period @ given) + given)


@by_adjoint
def test_a_steady_state_and_its_gradient(adjoint):
    seed = np.array([0.0, 1.0, -0.5])
    loss = FinalState(seed)
    call = value_and_gradient(two_compartments(), loss, (0.0, 6.0), doses=STEADY, adjoint=adjoint, **TOLERANCES)
    value, bar = call(np.zeros(3), TWO_THETA)
    assert value == pytest.approx((seed @ steady_at(TWO_THETA, 6.0)).real, abs=100.0 * RTOL)
    (exact,) = complex_step(lambda theta: seed @ steady_at(theta, 6.0), [TWO_THETA])
    assert_near(bar.theta, exact, 200.0)
    np.testing.assert_array_equal(bar.u0, np.zeros(3))


def test_a_steady_state_is_met_again_after_every_period():
    solution = solve(two_compartments(), np.zeros(3), TWO_THETA, (0.0, 30.0), doses=STEADY, **TOLERANCES)
    assert_near(solution([9.0, 17.0, 25.0]), np.tile(solution(1.0), (3, 1)), 100.0)


@pytest.mark.parametrize(
    ("first", "t0", "lag"),
    [(0.0, 0.0, "theta[6]"), (0.0, 0.0, 9.5), (25.5, 0.0, None), (1.5, 4.0, None)],
    ids=["lag by a parameter", "lag", "named late", "named early"],
)
def test_a_steady_state_has_all_doses_from_its_start_on(first, t0, lag):
    """All are the same regimen, given at 1.5, 9.5, ...: with a lag of more than a period, or by another than the first."""
    doses = Doses(first, "theta[4]", 0, lag=lag, fraction="theta[5]", every=8.0, steady_state=True)
    theta, seed = np.append(TWO_THETA, 9.5), np.array([0.0, 1.0, -0.5])
    solution = solve(two_compartments(), np.zeros(3), theta, (t0, 24.0), doses=doses, **TOLERANCES)
    assert_near(solution([10.0, 18.0]), np.tile(steady_at(TWO_THETA, 0.5).real, (2, 1)), 100.0)
    bar = solution.pullback(seed, wrt=("theta", "t0"))
    (exact,) = complex_step(lambda x: seed @ steady_at(x[:6], 6.5 - (x[6] - 9.5)), [theta])
    exact[6] = exact[6] if isinstance(lag, str) else 0.0
    assert_near(bar.theta, exact, 300.0)
    assert_near(bar.t0, 0.0, 100.0)  # the start moves along the solution


def test_the_cotangent_of_the_start_of_a_steady_state():
    """Where f is not periodic, which period it is makes a difference."""

    def warming(t, u, theta, du):
        du[0] = -(0.3 + 0.05 * t) * u[0]

    def kept(begin, end):
        return np.exp(-0.3 * (end - begin) - 0.025 * (end**2 - begin**2))

    def final(t0):
        start = kept(0.5, t0[0] + 1.0) / (1.0 - kept(t0[0], t0[0] + 1.0))
        return kept(0.5, 1.25) * (kept(t0[0], 0.5) * start + 1.0)

    doses = Doses(0.5, 1.0, 0, every=1.0, steady_state=True)
    solution = solve(Dynamics(warming), [1.0], [], (0.0, 1.25), doses=doses, **TOLERANCES)
    (exact,) = complex_step(final, [[0.0]])
    assert_near(solution.u_T, [final([0.0])], 20.0)
    assert solution.pullback([1.0], wrt=("t0",)).t0 == pytest.approx(exact[0], abs=50.0 * RTOL)
    assert solution.pushforward(None, None, t0_dot=1.0).u_T == pytest.approx(exact, abs=50.0 * RTOL)


def test_something_that_is_conserved_has_no_steady_state():
    with pytest.raises(SolveError, match="there is no steady state of the doses"):
        solve(DECAY.dynamics, [1.0], [0.0], (0.0, 6.0), doses=Doses(0.0, 1.0, 0, every=2.0, steady_state=True))


# --- before a dose --------------------------------------------------------------------------------------------------------------
@by_adjoint
def test_the_side_before_a_dose(adjoint):
    times = np.array([0.0, 1.0, 2.0])
    solution = given_at(*times)
    left = [1.0, decayed(0.0, T=1.0), decayed(0.0, 1.0)]
    assert_near(solution(times, side="left")[:, 0], left, 20.0)
    assert_near(solution(times)[:, 0], np.array(left) + 1.0, 20.0)
    bar = solution.pullback(observations=(times, np.ones((3, 1))), side="left", adjoint=adjoint)
    assert_near(bar.u0, [1.0 + np.exp(-0.5) + np.exp(-1.0)], 20.0)
    slope = -(np.exp(-0.5) + 2.0 * np.exp(-1.0)) - np.exp(-0.5) - (2.0 * np.exp(-1.0) + np.exp(-0.5))
    wanted = -1.0 * np.exp(-0.5) * 2.0 - 2.0 * np.exp(-1.0) * 2.0 - np.exp(-0.5)
    assert slope == pytest.approx(wanted)
    assert_near(bar.theta, [wanted], 50.0)


# --- work -----------------------------------------------------------------------------------------------------------------------
def test_a_thousand_doses_cost_what_a_thousand_restarts_must():
    """Steps between doses are as few as without them where doses are far apart: at least one for each, with one slope anew."""
    times = np.linspace(0.05, 0.95, 1000)
    plain = solve(DECAY.dynamics, [1.0], [0.5], (0.0, 1.0), rtol=1e-6, atol=1e-6).stats
    stats = solve(DECAY.dynamics, [1.0], [0.5], (0.0, 1.0), doses=Doses(times, 1e-3, 0), rtol=1e-6, atol=1e-6).stats
    assert stats.n_steps <= 1001 + plain.n_steps
    assert stats.n_f <= plain.n_f + 1001 * 7  # six stages of Tsit5, and the slope behind the dose


@by_adjoint
def test_the_backward_pass_of_doses_that_do_not_depend_on_theta_calls_f_at_none(adjoint):
    times = np.linspace(0.05, 0.95, 100)
    solution = solve(DECAY.dynamics, [1.0], [0.5], (0.0, 1.0), doses=Doses(times, 1e-3, 0), rtol=1e-6, atol=1e-6)
    stats = solution.pullback([1.0], adjoint=adjoint).stats
    assert stats.n_vjp <= 8 * solution.stats.n_steps if adjoint == "discrete" else stats.n_vjp <= 2200


# --- many -----------------------------------------------------------------------------------------------------------------------
@by_adjoint
def test_patients_with_doses_of_their_own(adjoint):
    """Amounts and times are entries of theta: those of the bits of single calls."""
    rng = np.random.default_rng(1)
    theta = PK_THETA * rng.uniform(0.9, 1.1, (23, PK_THETA.size))
    u0 = np.tile(PK_U0, (len(theta), 1))
    loss = LeastSquares([1.0, 3.0, 6.0], rng.uniform(1.0, 20.0, (3, 2)))
    options = {"doses": PK_DOSES, "adjoint": adjoint, **TOLERANCES}
    values, bars = ensemble_value_and_gradient(drug(), loss, PK_SPAN, **options)(u0, theta)
    one = value_and_gradient(drug(), loss, PK_SPAN, **options)
    for k in range(0, len(theta), 5):
        value, bar = one(u0[k], theta[k])
        assert value == values[k]
        np.testing.assert_array_equal(bar.theta, bars.theta[k])


@by_adjoint
def test_observations_at_doses_whose_times_rounding_has_moved(adjoint):
    """0.1 + 2 * 0.1 is more than 0.3: what is observed there is behind the dose, for values and gradients alike."""
    times = np.array([0.3, 0.6, 0.7])
    options = {"doses": Doses(0.1, "theta[1]", 0, every=0.1), "adjoint": adjoint, **TOLERANCES}
    call = value_and_gradient(timed(), LeastSquares(times, np.zeros((3, 1))), (0.0, 1.0), **options)

    def loss(u0, theta):
        given = 0.1 * np.arange(1, 10)
        states = [
            u0[0] * np.exp(-theta[0] * t) + sum(theta[1] * np.exp(-theta[0] * (t - s)) for s in given if s < t + 1e-9)
            for t in times
        ]
        return 0.5 * sum(state**2 for state in states)

    u0, theta = np.array([1.0]), np.array([0.3, 1.0, 0.0])
    wanted = complex_step(loss, [u0, theta])
    for value, bar in (call(u0, theta), call.step_by_step(u0, theta)):
        assert value == pytest.approx(loss(u0, theta), rel=10.0 * RTOL)
        assert_near(bar.u0, wanted[0], 50.0)
        assert_near(bar.theta, wanted[1], 50.0)


# --- what is refused ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("doses", "error", "says"),
    [
        (lambda: Doses(3.0, 1.0, 0), ValueError, "a dose at 3 is outside the span from 0 to 2: leave it out, or change the span"),
        (lambda: Doses(-1.0, 1.0, 0), ValueError, "a dose at -1 is outside the span"),
        (lambda: Doses(1.0, 1.0, 0, lag=-3.0), ValueError, "a dose at 1 with a lag of -3 is outside the span"),
        (lambda: Doses(1.0, 1.0, 0, every=True), ValueError, "every must be a finite number, but True was given"),
        (lambda: Doses(1.0, 1.0, 1), ValueError, "doses go into state 1, but there are 1 states"),
        (lambda: Doses(1.0, 1.0, "blood"), ValueError, "doses go into 'blood', but the names of the states are none"),
        (lambda: Doses(1.0, "theta[1]", 0), ValueError, r"amounts of doses names 'theta\[1\]', which is not among theta\[0\]"),
        (lambda: Doses(1.0, "amount", 0), ValueError, "amounts of doses names 'amount', which is not among"),
        (
            lambda: Doses([1.0, 1.5], [1.0, 2.0, 3.0], 0),
            ValueError,
            "one number or one for each of the 2 times, but 3",
        ),
        (lambda: Doses([], 1.0, 0), ValueError, "times of doses must not be empty"),
        (lambda: Doses(np.nan, 1.0, 0), ValueError, "times of doses must be finite numbers or names of parameters, but nan"),
        (lambda: Doses(1.0, 1.0, 0, duration=0.0), ValueError, "duration must be positive, but 0.0 was given: leave it out"),
        (lambda: Doses(1.0, 1.0, 0.5), TypeError, "into must be the name or the index of a state, but 0.5"),
        (lambda: Doses(1.0, 1.0, True), TypeError, "into must be the name or the index of a state, but True"),
        (lambda: Doses(1.0, None, 0), ValueError, "amounts of doses must be finite numbers or names of parameters, but None"),
        (lambda: Doses(None, 1.0, 0), ValueError, "times of doses must be finite numbers or names of parameters, but None"),
        (lambda: Doses(0.0, 1.0, 0, every=1e-9), ValueError, r"every = 1e-09 makes 2e\+09 doses up to 2, more than the 1000000"),
        (
            lambda: Doses(1.0, 1.0, 0, until=1.0),
            ValueError,
            "until and steady_state belong to doses that are repeated: give every=",
        ),
        (lambda: Doses(1.0, 1.0, 0, steady_state=True), ValueError, "until and steady_state belong to doses that are repeated"),
        (lambda: Doses(1.0, 1.0, 0, every=0.0), ValueError, "every must be positive, but 0.0"),
        (lambda: Doses(1.0, 1.0, 0, every=1.0, until=np.inf), ValueError, "until must be a finite number, but inf"),
        (lambda: Doses("theta[0]", 1.0, 0, every=1.0, until=2.0), ValueError, "doses that are repeated need numbers for times"),
        (lambda: Doses(1.0, 1.0, 0, every=1.0, until=0.5), ValueError, "until = 0.5 is before all doses"),
        (lambda: 3.0, TypeError, "doses must be an adjode.Doses, or a list of them, but 3.0"),
        (lambda: [Doses(1.0, 1.0, 0), 3.0], TypeError, "doses must be an adjode.Doses, or a list of them, but 3.0"),
    ],
)
def test_bad_doses(doses, error, says):
    with pytest.raises(error, match=says):
        solve(DECAY.dynamics, [1.0], [0.5], (0.0, 2.0), doses=doses())


def test_a_name_that_no_parameter_has():
    with pytest.raises(ValueError, match="lag of doses names 'delay', which is not among the parameters absorption, elim"):
        solve(named_drug(), PK_U0, PK_THETA, PK_SPAN, doses=Doses(1.0, 1.0, "gut", lag="delay"))
    with pytest.raises(ValueError, match="doses go into 'liver', but the names of the states are gut, blood"):
        solve(named_drug(), PK_U0, PK_THETA, PK_SPAN, doses=Doses(1.0, 1.0, "liver"))


def test_a_dose_before_the_start_by_its_parameters():
    with pytest.raises(SolveError, match="a dose is due before the start: its time, with its lag, must") as caught:
        solve(timed(), [1.0], [0.5, -1.0, 3.0], (0.0, 2.0), doses=Doses("theta[1]", 1.0, 0))
    assert caught.value.status == Status.DOSE_TOO_EARLY and caught.value.t == 0.0


@pytest.mark.parametrize("duration", [0.0, -1.0])
def test_a_duration_that_is_a_parameter_must_be_positive(duration):
    with pytest.raises(SolveError, match="the duration of an infusion is an entry of theta that is not positive") as caught:
        solve(timed(), [1.0], [0.5, duration, 3.0], (0.0, 2.0), doses=Doses(1.0, 1.0, 0, duration="theta[1]"))
    assert caught.value.status == Status.NO_DURATION


def test_what_does_not_go_with_doses():
    options = {"doses": Doses(1.0, 1.0, 0), "adjoint": "backsolve"}
    with pytest.raises(
        ValueError, match="backsolve' does not support doses or events: choose adjoint='discrete' or 'interpolating'"
    ):
        value_and_gradient(DECAY.dynamics, FinalState([1.0]), (0.0, 2.0), **options)([1.0], [0.5])
