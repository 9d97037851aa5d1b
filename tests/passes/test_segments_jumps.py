"""`memory=` where the state jumps: what a step needs of jumps before and behind it, at every budget."""

import functools
import re

import numpy as np
import pytest

from adjode import Doses, Dynamics, ensemble_value_and_gradient, solve, solve_ensemble, value_and_gradient
from adjode.losses import EventTimes, FinalState, LeastSquares, Series
from tests.problems import hybrid as H

TIMES = np.linspace(0.0, 5.0, 21)
LOSS = LeastSquares(TIMES, np.ones((21, 2)))
DRIVEN = {"max_step": 0.05, **H.driven_jumps()}


def switched_f(t, u, theta, du):
    du[0] = (5.0 if t >= theta[0] else 0.0) + (3.0 if (t - theta[1]) % 1.5 < 0.4 else 0.0) - theta[2] * u[0]
    du[1] = u[0] - theta[2] * u[1]


@functools.cache
def switched():
    return Dynamics(switched_f)


SWITCHED_THETA = np.array([1.137, 0.271, 0.8])
PROBLEMS = {  # dynamics, u0, theta, the span, options
    "doses": (H.drug, H.PK_U0, H.PK_THETA, (0.0, 12.0), {"doses": H.PK_DOSES, "max_step": 0.1}),
    "a dose at t0": (H.two_compartments, np.zeros(3), H.TWO_THETA, H.TWO_SPAN, {"doses": H.TWO_DOSES, "max_step": 0.5}),
    "all": (H.driven, H.HUNT_U0, H.DRIVEN_THETA, H.HUNT_SPAN, DRIVEN),
    "beside stops": (H.driven, H.HUNT_U0, H.DRIVEN_THETA, H.HUNT_SPAN, {"stops": [1.0, 1.408, 2.537, 3.0], **DRIVEN}),
    "back": (H.driven, H.HUNT_U0, H.DRIVEN_THETA, H.HUNT_SPAN[::-1], DRIVEN),
    "switches": (switched, H.HUNT_U0, SWITCHED_THETA, (0.0, 5.0), {"max_step": 0.05}),
    "bounces": (H.ball, H.BALL_U0, H.BALL_THETA, (0.0, 12.0), {"events": H.BOUNCE, "max_step": 0.1}),
    "an end": (H.ball, H.BALL_U0, H.BALL_THETA, (0.0, 12.0), {"events": [H.BOUNCE, *H.BALL_EVENTS], "max_step": 0.1}),
    "fixed steps": (H.driven, H.HUNT_U0, H.DRIVEN_THETA, H.HUNT_SPAN, {"method": "RK4", "step": 0.05, **H.driven_jumps()}),
}
by_problem = pytest.mark.parametrize("name", PROBLEMS)
by_adjoint = pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])


def loss_of(name):
    u0, span, ends = PROBLEMS[name][1], PROBLEMS[name][3], name == "an end"
    return FinalState(np.ones(2)) if ends else LeastSquares(np.linspace(*sorted(span), 21), np.ones((21, u0.size)))


def least_memory(make):
    with pytest.raises(ValueError, match=r"memory must be at least \d+ bytes") as caught:
        make(1)
    return int(re.search(r"\d+", str(caught.value))[0])


def budgets(make):
    """From one that solves most steps several times to one that solves none again; stores of odd lengths among them."""
    least = least_memory(make)
    return [least, least + 300, least + 700, 2 * least, 4 * least, 100 * least]


def same(one, other):
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1].u0, other[1].u0)
    np.testing.assert_array_equal(one[1].theta, other[1].theta)


def near(one, other, rtol=1e-7):
    assert one[0] == other[0]
    for name in ("u0", "theta"):
        right = getattr(other[1], name)
        np.testing.assert_allclose(getattr(one[1], name), right, rtol=rtol, atol=rtol * np.abs(right).max())


@by_adjoint
@by_problem
def test_gradients(name, adjoint):
    """The discrete adjoint has the same bits; the other one has its steps end where segments begin."""
    make, u0, theta, span, options = PROBLEMS[name]
    options = {"adjoint": adjoint, "rtol": 1e-8, **options} if "step" not in options else {"adjoint": adjoint, **options}
    compare = same if adjoint == "discrete" else functools.partial(near, rtol=1e-5 if "step" in options else 1e-7)
    full = value_and_gradient(make(), loss_of(name), span, **options)(u0, theta)
    evaluates = functools.partial(value_and_gradient, make(), loss_of(name), span, **options)
    again = []
    for memory in budgets(lambda memory: evaluates(memory=memory)(u0, theta)):
        evaluate = evaluates(memory=memory)
        for _ in range(2):
            found = evaluate(u0, theta)
            compare(found, full)
        again.append(found[1].stats.n_recomputed)
    assert again[0] > again[3] > again[4] > 0 == again[-1] == full[1].stats.n_recomputed


def energy(t, u, theta):
    return theta[0] * u[0] * u[0]


@by_problem
def test_solutions(name):
    make, u0, theta, span, options = PROBLEMS[name]
    full = solve(make(), u0, theta, span, **options)
    times = np.linspace(span[0], full.t[-1], 101)
    seeds = {"observations": (times[3::13], np.ones((8, u0.size))), "wrt": ("u0", "theta", "t0", "T", "observation_times")}
    exact = {"adjoint": "discrete", "running_cost": energy}
    bars = [full.pullback(np.ones(u0.size), **seeds, **how) for how in (exact, {"adjoint": "interpolating"})]
    for memory in budgets(lambda memory: solve(make(), u0, theta, span, memory=memory, **options)):
        found = solve(make(), u0, theta, span, memory=memory, **options)
        assert found.stats == full.stats and found.ended == full.ended and found.events == full.events
        for _ in range(2):
            for side in ("left", "right"):
                np.testing.assert_array_equal(found(times[::-1], side=side), full(times[::-1], side=side))
            for part in ("t", "u", "u_T", "kinds"):
                np.testing.assert_array_equal(getattr(found, part), getattr(full, part))
            for part in ("t_events", "u_events"):
                assert all(map(np.array_equal, getattr(found, part), getattr(full, part)))
            bar = found.pullback(np.ones(u0.size), **seeds, **exact)
            for part in (*seeds["wrt"], "running_cost"):
                np.testing.assert_array_equal(getattr(bar, part), getattr(bars[0], part))
        bar = found.pullback(np.ones(u0.size), **seeds, adjoint="interpolating")
        near((0.0, bar), (0.0, bars[1]), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["DOP853", "Radau", "Kvaerno5", "auto"])
def test_methods(method):
    """With stages behind their steps and implicit ones, too."""
    options = {**DRIVEN, "method": method, "stops": [1.0, 1.408, 3.0]}
    full = value_and_gradient(H.driven(), LOSS, H.HUNT_SPAN, **options)(H.HUNT_U0, H.DRIVEN_THETA)
    evaluates = functools.partial(value_and_gradient, H.driven(), LOSS, H.HUNT_SPAN, **options)
    for memory in budgets(lambda memory: evaluates(memory=memory)(H.HUNT_U0, H.DRIVEN_THETA)):
        same(evaluates(memory=memory)(H.HUNT_U0, H.DRIVEN_THETA), full)


def test_more_events_than_there_is_room_for_at_first():
    """The log of jumps grows, and no segment begins for it."""
    theta, span = np.array([9.8, 0.97]), (0.0, 160.0)
    options = {"events": H.BOUNCE, "max_step": 0.5}
    evaluates = functools.partial(value_and_gradient, H.ball(), FinalState(np.ones(2)), span, **options)
    full = evaluates()(H.BALL_U0, theta)
    assert len(solve(H.ball(), H.BALL_U0, theta, span, **options).events) > 34
    for memory in (3000, 4000, 20_000, "1 MB"):
        evaluate = evaluates(memory=memory)
        same(evaluate(H.BALL_U0, theta), full)
        same(evaluate(H.BALL_U0, theta), full)
        found = solve(H.ball(), H.BALL_U0, theta, span, memory=memory, **options)
        bar = found.pullback(np.ones(2), adjoint="discrete")
        np.testing.assert_array_equal(bar.theta, full[1].theta)
        states = solve_ensemble(H.ball(), H.BALL_U0[None], theta, span, memory=memory, **options)
        np.testing.assert_array_equal(states.u_T[0], found.u_T)


def test_losses_of_the_times_of_events():
    loss = EventTimes([3.0, 8.0], event="height", sigma=0.1)
    many = EventTimes(np.append(np.full(34, np.nan), [130.0, np.nan, 140.0]), event="height")
    for one, theta, span in ((loss, H.BALL_THETA, (0.0, 12.0)), (many, np.array([9.8, 0.97]), (0.0, 160.0))):
        how = {"events": [H.BOUNCE, *H.BALL_EVENTS[1:2]], "max_step": 0.2}
        full = value_and_gradient(H.ball(), one, span, **how)(H.BALL_U0, theta)
        for memory in (3000, 3700, 8000):
            same(value_and_gradient(H.ball(), one, span, memory=memory, **how)(H.BALL_U0, theta), full)


def python_squares(k, t, u, u_bar):
    u_bar[:] = 2.0 * u
    return float(u @ u)


@by_adjoint
@pytest.mark.filterwarnings("ignore:.*plain Python")
def test_losses_in_plain_python(adjoint):
    loss, options = Series([0.0, 1.0, 3.3], python_squares), {"adjoint": adjoint, "rtol": 1e-8, **DRIVEN}
    full = value_and_gradient(H.driven(), loss, H.HUNT_SPAN, **options)(H.HUNT_U0, H.DRIVEN_THETA)
    evaluate = value_and_gradient(H.driven(), loss, H.HUNT_SPAN, memory=4000, **options)
    for _ in range(2):
        found = evaluate(H.HUNT_U0, H.DRIVEN_THETA)
        (same if adjoint == "discrete" else near)(found, full)
        assert found[1].stats.n_recomputed > 0


@by_adjoint
def test_ensembles(adjoint):
    """Whose trajectories have jumps, segments and spans of their own."""
    u0 = H.HUNT_U0 * np.linspace(0.8, 1.2, 5)[:, None]
    spans = np.column_stack([np.zeros(5), np.linspace(4.2, 6.0, 5)])
    options = {"adjoint": adjoint, "workers": 2, "rtol": 1e-8, **DRIVEN}
    run = functools.partial(ensemble_value_and_gradient, H.driven(), FinalState([1.0, -2.0]), spans, **options)
    full, found = run()(u0, H.DRIVEN_THETA), run(memory=4000)(u0, H.DRIVEN_THETA)
    np.testing.assert_array_equal(found[0], full[0])
    rtol = 0.0 if adjoint == "discrete" else 1e-7
    for name in ("u0", "theta"):
        right = getattr(full[1], name)
        np.testing.assert_allclose(getattr(found[1], name), right, rtol=rtol, atol=rtol * np.abs(right).max())


def test_inflows_are_what_they_were_wherever_a_solution_has_been_read():
    """A second pullback begins with those at T, however many steps have been solved again in between."""
    options = {"doses": Doses([1.0, 2.0], 3.0, 0, duration="theta[9]"), "max_step": 0.05}
    full, found = (solve(H.drug(), H.PK_U0, H.PK_THETA, (0.0, 3.0), memory=memory, **options) for memory in (None, 4000))
    for how in ({"adjoint": "discrete"}, {"adjoint": "interpolating"}):
        right = full.pullback(np.ones(2), **how)
        for t in (0.5, 1.4, 2.9, 3.0):
            np.testing.assert_array_equal(found(t), full(t))
            np.testing.assert_allclose(found.pullback(np.ones(2), **how).theta, right.theta, rtol=1e-9)
    assert found.segments is not None


@by_adjoint
def test_steady_states(adjoint):
    """Solves of the period that they are found from keep to the memory as well as those that start there."""
    doses = Doses(0.0, "theta[4]", 0, fraction="theta[5]", every=8.0, steady_state=True)
    options = {"doses": doses, "max_step": 0.25, "rtol": 1e-8}
    full, found = (
        solve(H.two_compartments(), np.zeros(3), H.TWO_THETA, (0.0, 20.0), memory=memory, **options) for memory in (None, 6000)
    )
    np.testing.assert_array_equal(found.u_T, full.u_T)
    wanted, bar = (one.pullback(np.ones(3), adjoint=adjoint, wrt=("u0", "theta", "t0", "T")) for one in (full, found))
    np.testing.assert_allclose(bar.theta, wanted.theta, rtol=1e-9)
    np.testing.assert_allclose([*bar.u0, bar.t0, bar.T], [*wanted.u0, wanted.t0, wanted.T], rtol=1e-9, atol=1e-9)
    assert bar.stats.n_recomputed > wanted.stats.n_recomputed == 0

    loss = LeastSquares(np.linspace(0.0, 20.0, 21), np.ones((21, 3)))
    (value, right), (same, bar) = (
        value_and_gradient(H.two_compartments(), loss, (0.0, 20.0), memory=memory, adjoint=adjoint, **options)(
            np.zeros(3), H.TWO_THETA
        )
        for memory in (None, 6000)
    )
    assert same == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(bar.theta, right.theta, rtol=0.0, atol=1e-9 * np.abs(right.theta).max())
    rows = np.zeros((3, 3)), np.tile(H.TWO_THETA, (3, 1))
    of_many = ensemble_value_and_gradient(H.two_compartments(), loss, (0.0, 20.0), memory=6000, adjoint=adjoint, **options)
    values, bars = of_many(*rows)
    np.testing.assert_allclose(values, value, rtol=1e-9)
    np.testing.assert_allclose(bars.theta, np.tile(bar.theta, (3, 1)), rtol=0.0, atol=1e-9 * np.abs(right.theta).max())
