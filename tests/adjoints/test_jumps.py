"""Gradients through doses and events with every method and adjoint, forwards and backwards, and wherever gradients are taken."""

import concurrent.futures
import copy
import functools
import pickle

import numba
import numpy as np
import pytest

from adjode import Doses, Dynamics, Event, Fit, Status, ensemble_value_and_gradient, solve, solve_ensemble, value_and_gradient
from adjode.losses import EventTimes, FinalState, LeastSquares
from adjode.steppers.family import family_of
from adjode.tableaus import METHODS, tableau
from tests.problems.hybrid import (
    BALL_EVENTS,
    BALL_THETA,
    BALL_U0,
    BOUNCE,
    DRIVEN_THETA,
    HUNT,
    HUNT_SEED,
    HUNT_SPAN,
    HUNT_THETA,
    HUNT_U0,
    PK_DOSES,
    PK_SPAN,
    PK_THETA,
    PK_U0,
    ball,
    bounce,
    differences,
    driven,
    driven_jumps,
    drug,
    drug_at,
    height,
    hunt,
    hunt_gradient,
    hunt_jumps,
    mixed_hunt,
)

ADAPTIVE = [name for name in METHODS if (tableau(name).name == name and tableau(name).adaptive) or name == "auto"]
EVERYDAY = {"Tsit5", "DOP853"}  # whose kernels are at hand; TRBDF2 of low order takes many steps
by_adjoint = pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
LOOSE = {"BS3": 1e-8, "TRBDF2": 1e-8}  # of low order, so that steps would be without number


def combinations():
    for name in ADAPTIVE:
        for adjoint in ("discrete", "interpolating"):
            if adjoint == "discrete" and not family_of(tableau(name)).transposable:
                continue
            for backwards in (False, True):
                everyday = name in EVERYDAY and not backwards
                yield pytest.param(name, adjoint, backwards, marks=[] if everyday else [pytest.mark.slow])


def hunted(name, adjoint, backwards, dynamics=None):
    """Value and gradient of the hunt, and their reference."""
    rtol = LOOSE.get(name, 1e-10)
    solution = solve(
        dynamics or hunt(),
        HUNT_U0,
        HUNT_THETA,
        HUNT_SPAN[::-1] if backwards else HUNT_SPAN,
        method=name,
        rtol=rtol,
        atol=rtol,
        **hunt_jumps(),
    )
    bar = solution.pullback(HUNT_SEED, adjoint=adjoint, wrt=("u0", "theta"))
    value, gradient = hunt_gradient(backwards)
    assert HUNT_SEED @ solution.u_T == pytest.approx(value, abs=3e2 * rtol)
    error = np.max(np.abs(np.concatenate([bar.u0, bar.theta]) - gradient)) / np.max(np.abs(gradient))
    assert error < max(1e-8, 3e2 * rtol)
    return error


@pytest.mark.parametrize(("name", "adjoint", "backwards"), list(combinations()))
def test_a_nonlinear_system_with_all_that_there_is(name, adjoint, backwards):
    hunted(name, adjoint, backwards)


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [False, True])
def test_with_a_regular_mass_matrix(backwards):
    hunted("Radau", "discrete", backwards, dynamics=mixed_hunt())


@pytest.mark.slow
def test_times_of_events_with_a_mass_matrix():
    plain, mixed = (
        solve(dynamics, HUNT_U0, HUNT_THETA, HUNT_SPAN, method="Radau", events=HUNT, **TIGHT) for dynamics in (hunt(), mixed_hunt())
    )
    np.testing.assert_allclose(mixed.t_events[0], plain.t_events[0], rtol=0.0, atol=1e-8)
    bars = [np.linspace(1.0, 2.0, plain.t_events[0].size)]
    one, other = (solution.pullback(event_times=bars, adjoint="discrete").theta for solution in (plain, mixed))
    np.testing.assert_allclose(other, one, rtol=0.0, atol=1e-7)


# --- the discrete adjoint is that of the steps ----------------------------------------------------------------------------------
TIMES, SEEN = np.array([0.55, 1.73, 3.31, 4.44, 5.0]), np.random.default_rng(0).normal(size=(5, 2))
OTHERS = "DOP853", "Radau", "TRBDF2"
DRIVEN = np.concatenate([HUNT_U0, DRIVEN_THETA])


def cost(t, u, theta):
    return u[0] ** 2 * np.cos(t) + theta[2] * u[1]


def of_steps(method, backwards=False, times=TIMES, terminal=0):
    """Values and gradients of what is observed, of the end and of a running cost, on steps of a tenth, and differences of them."""
    span = HUNT_SPAN[::-1] if backwards else HUNT_SPAN
    options = {"method": method, "step": 0.1, "rtol": 1e-13, "atol": 1e-13, **driven_jumps(terminal)}
    coarse = {"adjoint": "discrete", "on_inaccurate": "warn"}

    def solved(x):
        return solve(driven(), x[:2], x[2:], span, **options)

    def value(x):
        solution = solved(x)
        integral = solution.pullback(running_cost=cost, wrt="u0", **coarse).running_cost
        return HUNT_SEED @ solution.u_T + np.sum(SEEN[: times.size] * solution(times)) + integral

    bar = solved(DRIVEN).pullback(
        HUNT_SEED, observations=(times, SEEN[: times.size]), running_cost=cost, wrt=("u0", "theta"), **coarse
    )
    slopes = differences(value, DRIVEN, 3e-4)
    np.testing.assert_allclose(np.concatenate([bar.u0, bar.theta]), slopes, rtol=0.0, atol=3e-11 * np.max(np.abs(slopes)))


@pytest.mark.filterwarnings("ignore:the gradient")
@pytest.mark.parametrize(
    ("method", "backwards"),
    [("Tsit5", False), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("Tsit5", True), ("Radau", False)))],
)
def test_the_discrete_gradient_is_that_of_the_steps_themselves(method, backwards):
    """On steps at which the solution is off by 2e-4, through doses at times that depend on parameters, an infusion and events."""
    of_steps(method, backwards)


@pytest.mark.parametrize("rtol", [1e-6, 1e-9])
def test_with_stages_behind_a_step_the_slopes_of_f_are_taken(rtol):
    """The error of a last step before a stop goes with its size, so that its derivative by that is no part of the gradient."""
    doses = [Doses("theta[2]", 1.0, 0), Doses("theta[3]", "theta[0]", 1)]
    theta, options = [0.8, 0.6, 1.5, 1.5], {"doses": doses, "atol": 1e-2 * rtol}
    bars = [
        value_and_gradient(absorbed(), FinalState([1.0, -0.5]), (0.0, 4.0), method=method, rtol=rtol, adjoint=adjoint, **options)(
            [1.0, 0.5], theta
        )[1].theta
        for method, adjoint in (("Kvaerno5", "discrete"), ("Tsit5", "interpolating"))
    ]
    np.testing.assert_allclose(*bars, rtol=0.0, atol=3.0 * rtol)


@functools.cache
def absorbed():
    def f(t, u, theta, du):
        du[0] = -theta[0] * u[0] + 0.2 * np.sin(t)
        du[1] = theta[0] * u[0] - theta[1] * u[1] * u[1]

    return Dynamics(f)


@pytest.mark.filterwarnings("ignore:the gradient")
def test_so_it_is_where_an_event_ends_the_solution():
    of_steps("Tsit5", times=TIMES[:2], terminal=2)


@pytest.mark.filterwarnings("ignore:the gradient")
@pytest.mark.parametrize("method", ["Tsit5", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_so_it_is_of_a_loss(method):
    options = {"method": method, "step": 0.1, "rtol": 1e-13, "atol": 1e-13, "on_inaccurate": "warn", **driven_jumps()}
    evaluate = value_and_gradient(driven(), LeastSquares(TIMES, SEEN), HUNT_SPAN, **options)
    _, bar = evaluate(HUNT_U0, DRIVEN_THETA)
    slopes = differences(lambda x: evaluate(x[:2], x[2:])[0], DRIVEN, 3e-4)
    np.testing.assert_allclose(np.concatenate([bar.u0, bar.theta]), slopes, rtol=0.0, atol=3e-11 * np.max(np.abs(slopes)))


@pytest.mark.filterwarnings("ignore:the gradient")
def test_so_it_is_of_times_of_events():
    loss = EventTimes([1.5, 4.8], sigma=[0.1, 0.3], beside=LeastSquares(TIMES[:3], SEEN[:3]))
    evaluate = value_and_gradient(driven(), loss, HUNT_SPAN, step=0.1, on_inaccurate="warn", **driven_jumps())
    _, bar = evaluate(HUNT_U0, DRIVEN_THETA)
    slopes = differences(lambda x: evaluate(x[:2], x[2:])[0], DRIVEN, 3e-4)
    np.testing.assert_allclose(np.concatenate([bar.u0, bar.theta]), slopes, rtol=0.0, atol=3e-11 * np.max(np.abs(slopes)))


def test_so_it_is_of_times_of_events_that_take_others_along():
    events, x = (BOUNCE, BALL_EVENTS[0]), np.concatenate([BALL_U0, BALL_THETA])

    def times(x):
        return np.concatenate(solve(ball(), x[:2], x[2:], (0.0, 15.0), events=events, step=0.3).t_events)

    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 15.0), events=events, step=0.3)
    weights = [np.array([1.0, -0.5, 2.0]), np.array([0.3, 0.8, -1.1])]
    bar = solution.pullback(event_times=weights, adjoint="discrete")
    slopes = differences(lambda x: np.concatenate(weights) @ times(x), x, 3e-4)
    np.testing.assert_allclose(np.concatenate([bar.u0, bar.theta]), slopes, rtol=0.0, atol=1e-10 * np.max(np.abs(slopes)))


# --- wherever gradients are taken ---------------------------------------------------------------------------------------------
LOSS = LeastSquares([1.0, 2.5, 5.0], np.array([[1.0, 1.0], [0.5, 1.5], [2.0, 2.0]]))
EVERYTHING = {**hunt_jumps(), "rtol": 1e-7, "atol": 1e-7}


@functools.cache
def prepared(adjoint):
    return value_and_gradient(hunt(), LOSS, HUNT_SPAN, adjoint=adjoint, **EVERYTHING)


@by_adjoint
def test_prepared_and_step_by_step(adjoint):
    value, bar = prepared(adjoint)(HUNT_U0, HUNT_THETA)
    other, long_way = prepared(adjoint).step_by_step(HUNT_U0, HUNT_THETA)
    assert value == pytest.approx(other, rel=1e-6)
    np.testing.assert_allclose(bar.theta, long_way.theta, rtol=0.0, atol=1e-5)
    np.testing.assert_allclose(bar.u0, long_way.u0, rtol=0.0, atol=1e-5)


@pytest.mark.jitted
@by_adjoint
def test_jitted(adjoint):
    value, bar = prepared(adjoint)(HUNT_U0, HUNT_THETA)
    evaluate = prepared(adjoint).jitted(2, HUNT_THETA.size)

    @numba.njit
    def call(u0, theta):
        u0_bar, theta_bar = np.empty(u0.size), np.empty(theta.size)
        status, value = evaluate(u0, theta, u0_bar, theta_bar)
        return status, value, u0_bar, theta_bar

    status, again, u0_bar, theta_bar = call(HUNT_U0, HUNT_THETA)
    assert status == 0 and again == value
    np.testing.assert_array_equal(u0_bar, bar.u0)
    np.testing.assert_array_equal(theta_bar, bar.theta)


@pytest.mark.jitted
@by_adjoint
def test_threads_call_one_object(adjoint):
    """Each with theta of its own, so with as many events, at other times."""
    thetas = HUNT_THETA * np.linspace(0.97, 1.03, 24)[:, None]
    alone = [prepared(adjoint)(HUNT_U0, theta) for theta in thetas]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda theta: prepared(adjoint)(HUNT_U0, theta), thetas))
    for (value, bar), (again, same) in zip(alone, together, strict=True):
        assert value == again
        np.testing.assert_array_equal(bar.theta, same.theta)


@by_adjoint
def test_an_ensemble_has_the_bits_of_single_calls(adjoint):
    thetas = HUNT_THETA * np.linspace(0.97, 1.03, 24)[:, None]
    values, bars = ensemble_value_and_gradient(hunt(), LOSS, HUNT_SPAN, adjoint=adjoint, **EVERYTHING)(
        np.tile(HUNT_U0, (24, 1)), thetas
    )
    for k in range(0, 24, 7):
        value, bar = prepared(adjoint)(HUNT_U0, thetas[k])
        assert value == values[k]
        np.testing.assert_array_equal(bar.theta, bars.theta[k])
        np.testing.assert_array_equal(bar.u0, bars.u0[k])


class Here(concurrent.futures.Executor):
    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        future.set_result(pickle.loads(pickle.dumps(function))(*pickle.loads(pickle.dumps(arguments))))
        return future


@pytest.mark.jitted
def test_an_executor_has_the_bits_of_threads():
    """What goes to a worker is pickled: events as their functions, doses as numbers and names."""
    thetas, u0 = HUNT_THETA * np.linspace(0.97, 1.03, 24)[:, None], np.tile(HUNT_U0, (24, 1))
    wanted, bars = ensemble_value_and_gradient(hunt(), LOSS, HUNT_SPAN, **EVERYTHING)(u0, thetas)
    found, others = ensemble_value_and_gradient(hunt(), LOSS, HUNT_SPAN, executor=Here(), chunks=3, **EVERYTHING)(u0, thetas)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(others.theta, bars.theta)


def test_the_solutions_of_an_ensemble():
    thetas, u0 = HUNT_THETA * np.linspace(0.97, 1.03, 5)[:, None], np.tile(HUNT_U0, (5, 1))
    many = solve_ensemble(hunt(), u0, thetas, HUNT_SPAN, t_eval=[1.0, 3.0], **EVERYTHING)
    bars = many.pullback(np.tile(HUNT_SEED, (5, 1)))
    for k in range(5):
        one = solve(hunt(), HUNT_U0, thetas[k], HUNT_SPAN, t_eval=[1.0, 3.0], **EVERYTHING)
        np.testing.assert_array_equal(many.u_T[k], one.u_T)
        np.testing.assert_allclose(many.u_eval[k], one.u_eval, rtol=0.0, atol=1e-5)
        np.testing.assert_allclose(bars.theta[k], one.pullback(HUNT_SEED).theta, rtol=0.0, atol=1e-4)
        assert many[k].events == one.events


DAILY = Doses(1.0, 2.0, 0, every=1.0)
SPANS = np.array([[0.0, 1.7], [0.0, 3.4], [0.5, 2.6]])


@by_adjoint
def test_doses_go_on_to_the_end_of_each_span(adjoint):
    """Three trajectories of different lengths have the bits of single calls with their own spans."""
    options = {"doses": DAILY, "adjoint": adjoint, "rtol": 1e-7, "atol": 1e-7}
    loss = FinalState([0.0, 1.0])
    values, bars = ensemble_value_and_gradient(drug(), loss, SPANS, **options)(PK_U0, PK_THETA)
    alone = np.zeros(PK_THETA.size)
    for i, (t0, T) in enumerate(SPANS):
        value, bar = value_and_gradient(drug(), loss, (t0, T), **options)(PK_U0, PK_THETA)
        assert values[i] == value
        alone += bar.theta
    np.testing.assert_allclose(bars.theta, alone, rtol=1e-12)


def test_an_ensemble_refuses_a_dose_outside_of_the_span_of_a_trajectory():
    message = "a dose at 2 is outside the span from 0 to 1.7 of trajectory 0: leave it out, change the span, or make its time"
    for run in (
        lambda: solve_ensemble(drug(), PK_U0, PK_THETA, SPANS, doses=Doses([1.0, 2.0], 1.0, 0)),
        lambda: ensemble_value_and_gradient(drug(), FinalState([0.0, 1.0]), SPANS, doses=Doses(1.0, 1.0, 0, every=1.0, until=2.0)),
    ):
        with pytest.raises(ValueError, match=message):
            run()
    with pytest.raises(ValueError, match="a dose at 0.2 is outside the span from 0.5 to 2.6 of trajectory 2"):
        solve_ensemble(drug(), PK_U0, PK_THETA, SPANS, doses=Doses(0.2, 1.0, 0, every=1.0))
    with pytest.raises(ValueError, match="backwards in time: give until="):
        solve_ensemble(drug(), PK_U0, PK_THETA, SPANS[:, ::-1], doses=DAILY)


def test_an_ensemble_says_which_trajectory_had_a_dose_too_early():
    doses = Doses("theta[6]", 1.0, 0)
    thetas = np.tile(HUNT_THETA, (3, 1))
    thetas[1, 6] = -1.0
    many = solve_ensemble(hunt(), np.tile(HUNT_U0, (3, 1)), thetas, HUNT_SPAN, doses=doses)
    assert many.status.tolist() == [Status.SUCCESS, Status.DOSE_TOO_EARLY, Status.SUCCESS]


@pytest.mark.slow
@pytest.mark.jitted
@by_adjoint
def test_fused(adjoint):
    """Compiled for callbacks, method and sizes: the same numbers to rounding."""
    options = {"doses": PK_DOSES, "adjoint": adjoint, "rtol": 1e-9, "atol": 1e-9}
    loss = LeastSquares([1.0, 6.0, 12.0], np.ones((3, 2)))
    value, bar = value_and_gradient(drug(), loss, PK_SPAN, **options)(PK_U0, PK_THETA)
    other, same = value_and_gradient(drug(fused=True), loss, PK_SPAN, **options)(PK_U0, PK_THETA)
    assert value == pytest.approx(other, rel=1e-8)
    np.testing.assert_allclose(same.theta, bar.theta, rtol=0.0, atol=1e-7 * np.max(np.abs(bar.theta)))


@pytest.mark.slow
@pytest.mark.jitted
def test_fused_events():
    loss = FinalState([1.0, 0.0])
    options = {"events": BOUNCE, "rtol": 1e-9, "atol": 1e-9}
    value, bar = value_and_gradient(ball(), loss, (0.0, 15.0), **options)(BALL_U0, BALL_THETA)
    other, same = value_and_gradient(ball(fused=True), loss, (0.0, 15.0), **options)(BALL_U0, BALL_THETA)
    assert value == pytest.approx(other, rel=1e-8)
    np.testing.assert_allclose(same.theta, bar.theta, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.jitted
def test_debug():
    options = {"doses": PK_DOSES, "rtol": 1e-9, "atol": 1e-9}
    value, bar = value_and_gradient(drug(debug=True), FinalState([1.0, 1.0]), PK_SPAN, **options)(PK_U0, PK_THETA)
    assert value == pytest.approx(np.sum(drug_at(PK_U0, PK_THETA, *PK_SPAN)).real, rel=1e-7)
    value, bar = value_and_gradient(ball(debug=True), FinalState([1.0, 0.0]), (0.0, 15.0), events=BOUNCE)(BALL_U0, BALL_THETA)
    assert np.isfinite(value) and np.isfinite(bar.theta).all()


def test_copies_and_pickles():
    value, bar = prepared("discrete")(HUNT_U0, HUNT_THETA)
    for other in (copy.copy(prepared("discrete")), copy.deepcopy(prepared("discrete"))):
        again, same = other(HUNT_U0, HUNT_THETA)
        assert again == value
        np.testing.assert_array_equal(same.theta, bar.theta)
    again, same = pickle.loads(pickle.dumps(prepared("discrete")))(HUNT_U0, HUNT_THETA)
    assert again == value
    np.testing.assert_array_equal(same.theta, bar.theta)


@by_adjoint
@pytest.mark.parametrize("wrt", ["u0", "theta", "t0", "T", ("u0", "T")])
def test_some_of_the_cotangents(adjoint, wrt):
    solution = solve(hunt(), HUNT_U0, HUNT_THETA, HUNT_SPAN, **EVERYTHING)
    every, some = solution.pullback(HUNT_SEED, adjoint=adjoint), solution.pullback(HUNT_SEED, adjoint=adjoint, wrt=wrt)
    for name in ("u0", "theta", "t0", "T"):
        found = getattr(some, name)
        if name in ((wrt,) if isinstance(wrt, str) else wrt):
            np.testing.assert_allclose(found, getattr(every, name), rtol=0.0, atol=1e-5)
        else:
            assert found is None


def test_a_fit_finds_when_and_how_much_was_given():
    """Absorption, lag, fraction and the time of a dose, from what is seen in the blood."""
    times = np.linspace(0.25, 12.0, 48)
    data = np.array([drug_at(PK_U0, PK_THETA, 0.0, t).real for t in times])
    data[:, 0] = np.nan
    start = PK_THETA.copy()
    start[[0, 1, 5, 6, 8]] *= [1.2, 0.9, 1.05, 0.9, 1.1]
    entries = {"theta": [0, 1, 5, 6, 8]}
    options = {"free": entries, "log": entries, "doses": PK_DOSES, "rtol": 1e-8, "atol": 1e-8}
    fit = Fit(drug(), LeastSquares(times, data), PK_SPAN, u0=PK_U0, theta=start, **options)
    np.testing.assert_allclose(fit.minimize().theta, PK_THETA, rtol=1e-3)


@by_adjoint
def test_certified(adjoint):
    """The second gradient has the doses and the events of the first."""
    tight = {**hunt_jumps(), "rtol": 1e-9, "atol": 1e-9}
    bar = solve(hunt(), HUNT_U0, HUNT_THETA, HUNT_SPAN, **tight).pullback(HUNT_SEED, adjoint=adjoint, certify=True)
    assert 0.0 < bar.error["theta"] < 1e-6
    ended = solve(ball(), BALL_U0, BALL_THETA, (0.0, 9.0), events=Event(height, bounce, direction=-1.0, terminal=2), **TIGHT)
    assert ended.pullback([0.0, 1.0], adjoint=adjoint, certify=True).error["theta"] < 1e-6


def test_dense_lambda_jumps_at_an_event():
    """By the rule of a bounce: lam[1] changes its sign and is less by the restitution, lam[0] takes what a later bounce does."""
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 5.0), events=BOUNCE, rtol=1e-10, atol=1e-10)
    lam = solution.pullback([1.0, 0.0], dense_adjoint=True).adjoint
    (t,), (_, v), (g, e) = solution.t_events[0], solution.u_events[0][0], BALL_THETA
    before, behind = lam(t - 1e-9), lam(t + 1e-9)
    rho = behind @ (np.array([-e * 0.0 + v, e * g]) - np.array([-e * v, -g]))
    np.testing.assert_allclose(before, [behind[0] - rho / v, -e * behind[1]], rtol=1e-6)


def test_an_event_of_a_function_of_scipy_leaves_every_bit():
    """What is only noted changes no step but the one that ends there; the gradient is that without it."""
    plain = solve(hunt(), HUNT_U0, HUNT_THETA, HUNT_SPAN, **TIGHT)
    noted = solve(hunt(), HUNT_U0, HUNT_THETA, HUNT_SPAN, events=Event(lambda t, u: u[0] - 1.5, name="noted"), **TIGHT)
    assert noted.t_events[0].size > 0
    np.testing.assert_allclose(noted.u_events[0][:, 0], 1.5, rtol=0.0, atol=1e-13)
    for adjoint in ("discrete", "interpolating"):
        one, other = (each.pullback(HUNT_SEED, adjoint=adjoint) for each in (plain, noted))
        np.testing.assert_allclose(other.theta, one.theta, rtol=0.0, atol=1e-7)
