"""Events: what happens and when, and gradients through it, against closed forms; what is refused."""

import functools

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from adjode import Doses, Dynamics, Event, SolveError, Status, Table, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.losses import EventTimes, FinalState, LeastSquares
from tests.problems.hybrid import (
    BALL_THETA,
    BALL_U0,
    BOUNCE,
    PK_DOSES,
    PK_INFUSED_AT,
    PK_SPAN,
    PK_THETA,
    PK_U0,
    ball,
    ball_at,
    bounce,
    bounces,
    drug,
    drug_at,
    height,
    lands,
)
from tests.problems.numerics import complex_step

RTOL = 1e-9
TOLERANCES = {"rtol": RTOL, "atol": RTOL}
SEED = np.array([1.0, 0.3])
by_adjoint = pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])


def assert_near(found, wanted, units=10.0):
    """Within so many units of the tolerance, of the largest."""
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=units * RTOL * max(1.0, np.max(np.abs(wanted))))


def assert_gradient(solution, seed, final, u0, theta, adjoint, units=50.0, **options):
    """The cotangents of u0 and theta against the complex step of `final(u0, theta)`."""
    bar = solution.pullback(seed, adjoint=adjoint, **options)
    for found, exact in zip([bar.u0, bar.theta], complex_step(final, [u0, theta]), strict=True):
        assert_near(found, exact, units)
    return bar


# --- a ball ---------------------------------------------------------------------------------------------------------------------
def test_six_bounces():
    times, _ = bounces(BALL_U0, BALL_THETA, 21.0)
    assert len(times) == 6
    at = np.linspace(0.0, 21.0, 50)
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 21.0), events=BOUNCE, t_eval=at, **TOLERANCES)
    assert_near(solution.t_events[0], times)
    assert [name for _, name in solution.events] == ["height"] * 6
    assert_near(solution.u_events[0], [ball_at(BALL_U0, BALL_THETA, t - 1e-11) for t in times])
    assert_near(solution.u_eval, [ball_at(BALL_U0, BALL_THETA, t) for t in at])
    assert solution.stats.n_steps < 60


@by_adjoint
def test_the_gradient_through_six_bounces(adjoint):
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 21.0), events=BOUNCE, **TOLERANCES)
    assert_gradient(solution, SEED, lambda u0, theta: SEED @ ball_at(u0, theta, 21.0), BALL_U0, BALL_THETA, adjoint)


@by_adjoint
def test_cotangents_of_the_ends(adjoint):
    """Moved by as much, both leave the ball where it is: no gravity knows the time."""
    bar = solve(ball(), BALL_U0, BALL_THETA, (0.0, 15.0), events=BOUNCE, **TOLERANCES).pullback(SEED, adjoint=adjoint)
    (exact,) = complex_step(lambda T: SEED @ ball_at(BALL_U0, BALL_THETA, T[0]), [[15.0]])
    assert_near([bar.T, bar.t0], [exact[0], -exact[0]])


@by_adjoint
def test_the_gradient_of_what_is_observed_between_bounces(adjoint):
    times, data = np.linspace(0.5, 14.5, 15), np.linspace(1.0, 30.0, 30).reshape(15, 2)
    call = value_and_gradient(ball(), LeastSquares(times, data), (0.0, 15.0), events=BOUNCE, adjoint=adjoint, **TOLERANCES)

    def loss(u0, theta):
        return 0.5 * sum(np.sum((ball_at(u0, theta, t) - y) ** 2) for t, y in zip(times, data, strict=True))

    for value, bar in (call(BALL_U0, BALL_THETA), call.step_by_step(BALL_U0, BALL_THETA)):
        assert value == pytest.approx(loss(BALL_U0, BALL_THETA), rel=50.0 * RTOL)
        for found, exact in zip([bar.u0, bar.theta], complex_step(loss, [BALL_U0, BALL_THETA]), strict=True):
            assert_near(found, exact, 50.0)


def test_the_restitution_that_takes_the_ball_to_twenty():
    """The optimum that the documentation of SciMLSensitivity has for this ball, "Bouncing Ball Hybrid ODE Optimization"."""
    call = value_and_gradient(ball(), LeastSquares([15.0], [[20.0, np.nan]]), (0.0, 15.0), events=BOUNCE, rtol=1e-10, atol=1e-10)
    loss = functools.lru_cache(lambda e: call(BALL_U0, [9.8, e]))
    found = minimize_scalar(lambda e: loss(e)[0], bracket=(0.86, 0.87), tol=1e-12)
    assert found.x == pytest.approx(0.866554105436901, abs=1e-6)
    assert abs(loss(found.x)[1].theta[1]) < 1e-4


@pytest.mark.parametrize("restitution", [0.1, 0.5, 0.9])
def test_a_ball_that_comes_to_rest_is_an_error_with_the_name_of_its_event(restitution):
    with pytest.raises(SolveError, match=r"events follow each other without end here \(height\): a state at rest") as caught:
        solve(ball(), [1.0, 0.0], [9.8, restitution], (0.0, 10.0), events=BOUNCE)
    assert caught.value.status == Status.ZENO
    assert caught.value.t == pytest.approx(np.sqrt(2.0 / 9.8) * (1.0 + restitution) / (1.0 - restitution), rel=1e-6)


# --- thresholds that depend on theta, on time and on the state ------------------------------------------------------------------
def _growth_f(t, u, theta, du):
    du[0] = theta[0] * u[0]
    du[1] = u[0]


@functools.cache
def growth():
    """u[0] grows; u[1] is what has been; theta = rate, threshold, factor."""
    return Dynamics(_growth_f, name="growth")


def above(t, u, theta):
    return u[0] - theta[1]


def higher_still(t, u, theta):
    return 2.0 * u[1] - 3.0 * theta[1] + t


def cut(t, u, theta, u_new):
    u_new[0] = theta[2] * u[0]


GROWTH_U0, GROWTH_THETA = np.array([1.0, 0.0]), np.array([0.7, 2.3, 0.4])


def sawtooth(u0, theta, T):
    """u(T) of the state that grows and is cut."""
    rate, threshold, factor = theta
    t, (x, total) = 0.0, u0
    while True:
        wait = np.log(threshold / x) / rate
        end = t + wait if np.real(t + wait) < T else T
        total = total + x * (np.exp(rate * (end - t)) - 1.0) / rate
        if end is T:
            return np.array([x * np.exp(rate * (T - t)), total])
        t, x = end, factor * threshold


@by_adjoint
def test_a_threshold_that_is_a_parameter(adjoint):
    solution = solve(growth(), GROWTH_U0, GROWTH_THETA, (0.0, 5.0), events=Event(above, cut), **TOLERANCES)
    assert_near(solution.u_T, sawtooth(GROWTH_U0, GROWTH_THETA, 5.0))
    assert len(solution.t_events[0]) == 3
    assert_gradient(solution, SEED, lambda u0, theta: SEED @ sawtooth(u0, theta, 5.0), GROWTH_U0, GROWTH_THETA, adjoint)


def moving(t, u, theta):
    return u[0] - theta[1] * (1.0 + 0.1 * t)


def cut_in_time(t, u, theta, u_new):
    u_new[0] = theta[2] * u[0] + 0.1 * t


def moving_threshold(u0, theta, T):
    """By Newton's method for complex numbers; one event."""
    rate, threshold, factor = theta
    t = 1.5 + 0j
    for _ in range(50):
        e = u0[0] * np.exp(rate * t) - threshold * (1.0 + 0.1 * t)
        t = t - e / (rate * u0[0] * np.exp(rate * t) - 0.1 * threshold)
    before = u0[0] * np.exp(rate * t)
    x = factor * before + 0.1 * t
    total = u0[1] + (before - u0[0]) / rate + x * (np.exp(rate * (T - t)) - 1.0) / rate
    return np.array([x * np.exp(rate * (T - t)), total])


@by_adjoint
def test_a_threshold_and_a_reset_that_depend_on_time(adjoint):
    solution = solve(growth(), GROWTH_U0, GROWTH_THETA, (0.0, 2.5), events=Event(moving, cut_in_time), **TOLERANCES)
    assert_near(solution.u_T, moving_threshold(GROWTH_U0, GROWTH_THETA, 2.5).real)
    assert_gradient(solution, SEED, lambda u0, theta: SEED @ moving_threshold(u0, theta, 2.5), GROWTH_U0, GROWTH_THETA, adjoint)


# --- a relay, a neuron ----------------------------------------------------------------------------------------------------------
def _relay_f(t, u, theta, du):  # temperature, heating on or off
    du[0] = theta[0] * u[1] - theta[1] * u[0]
    du[1] = 0.0


def too_hot(t, u, theta):
    return u[0] - theta[2]


def too_cold(t, u, theta):
    return u[0] - theta[3]


def off(t, u, theta, u_new):
    u_new[1] = 0.0


def on(t, u, theta, u_new):
    u_new[1] = 1.0


RELAY_U0, RELAY_THETA = np.array([0.5, 1.0]), np.array([3.0, 1.0, 2.0, 1.0])
RELAY = [Event(too_hot, off, direction=1.0), Event(too_cold, on, direction=-1.0)]


@functools.cache
def relay():
    return Dynamics(_relay_f, name="relay")


def relay_at(u0, theta, T):
    heat, loss, high, low = theta
    t, (x, mode) = 0.0, u0
    while True:
        limit = heat * mode / loss
        target = high if np.real(mode) > 0.5 else low
        wait = np.log((x - limit) / (target - limit)) / loss
        if np.real(t + wait) > T:
            return np.array([limit + (x - limit) * np.exp(-loss * (T - t)), mode])
        t, x, mode = t + wait, target, 0.0 if np.real(mode) > 0.5 else 1.0


@by_adjoint
def test_a_relay_with_hysteresis(adjoint):
    """Its mode is a state that is reset; behind the first event nothing remembers the start."""
    solution = solve(relay(), RELAY_U0, RELAY_THETA, (0.0, 5.0), events=RELAY, **TOLERANCES)
    assert [name for _, name in solution.events][:3] == ["too_hot", "too_cold", "too_hot"]
    assert_near(solution.u_T, relay_at(RELAY_U0, RELAY_THETA, 5.0))
    bar = solution.pullback([1.0, 0.0], adjoint=adjoint)
    exact = complex_step(lambda x0, theta: relay_at(np.array([x0[0], 1.0]), theta, 5.0)[0], [[0.5], RELAY_THETA])
    assert_near(bar.u0[0], exact[0][0], 50.0)
    assert_near(bar.theta, exact[1], 50.0)


def _neuron_f(t, u, theta, du):  # leak, current, threshold, reset
    du[0] = -theta[0] * u[0] + theta[1]


def fires(t, u, theta):
    return u[0] - theta[2]


def returning(t, u, theta):
    return np.array([theta[3]])


NEURON_THETA = np.array([1.0, 1.5, 1.0, 0.1])


def neuron_at(u0, theta, T):
    leak, current, threshold, reset = theta
    limit, t, x = current / leak, 0.0, u0[0]
    while True:
        wait = np.log((limit - x) / (limit - threshold)) / leak
        if np.real(t + wait) > T:
            return limit + (x - limit) * np.exp(-leak * (T - t))
        t, x = t + wait, reset


@by_adjoint
def test_a_neuron_that_fires_and_a_reset_that_returns_the_state(adjoint):
    neuron = Dynamics(_neuron_f, name="neuron")
    solution = solve(neuron, [0.2], NEURON_THETA, (0.0, 8.0), events=Event(fires, returning), **TOLERANCES)
    assert len(solution.t_events[0]) == 7
    assert_near(solution.u_T, [neuron_at([0.2], NEURON_THETA, 8.0)])
    assert_gradient(solution, [1.0], lambda u0, theta: neuron_at(u0, theta, 8.0), np.array([0.2]), NEURON_THETA, adjoint)


# --- more than one at a time ----------------------------------------------------------------------------------------------------
def doubled(t, u, theta, u_new):
    u_new[0] = 2.0 * u[0]


def lifted(t, u, theta, u_new):
    u_new[0] = u[0] + theta[2]


def higher(t, u, theta):
    return u[0] - 3.0


def counted(t, u, theta, u_new):
    u_new[1] = u[1] + 10.0 * theta[2] * u[0]


def grown(u0, theta, T, change):
    """One event at the threshold, where `change` is what happens to (u, theta)."""
    rate, threshold, _ = theta
    t = np.log(threshold / u0[0]) / rate
    x, total = change(threshold, u0[1] + (threshold - u0[0]) / rate, theta)
    return np.array([x * np.exp(rate * (T - t)), total + x * (np.exp(rate * (T - t)) - 1.0) / rate])


CHANGES = {  # events, what they do to the two states together, names in order
    "first twice": (
        [Event(above, doubled, priority=2.0), Event(above, lifted, priority=1.0)],
        lambda x, total, theta: (2.0 * x + theta[2], total),
        ["above", "above"],
    ),
    "second first": (
        [Event(above, doubled, priority=1.0), Event(above, lifted, priority=2.0)],
        lambda x, total, theta: (2.0 * (x + theta[2]), total),
        ["above", "above"],
    ),
    "order as given": (
        [Event(above, doubled), Event(above, lifted)],
        lambda x, total, theta: (2.0 * x + theta[2], total),
        ["above", "above"],
    ),
    "nested": (  # 2.3 is doubled to 4.6: beyond 3
        [Event(above, doubled, direction=1.0), Event(higher, counted, direction=1.0)],
        lambda x, total, theta: (2.0 * x, total + 10.0 * theta[2] * 2.0 * x),
        ["above", "higher"],
    ),
    "not in this direction": (
        [Event(above, doubled, direction=1.0), Event(higher, counted, direction=-1.0)],
        lambda x, total, theta: (2.0 * x, total),
        ["above"],
    ),
}


@by_adjoint
@pytest.mark.parametrize("name", CHANGES)
def test_events_at_one_time(name, adjoint):
    events, change, names = CHANGES[name]
    solution = solve(growth(), GROWTH_U0, GROWTH_THETA, (0.0, 2.0), events=events, **TOLERANCES)
    assert [one for _, one in solution.events] == names
    assert_near(solution.u_T, grown(GROWTH_U0, GROWTH_THETA, 2.0, change))
    final = functools.partial(grown, T=2.0, change=change)
    assert_gradient(solution, SEED, lambda u0, theta: SEED @ final(u0, theta), GROWTH_U0, GROWTH_THETA, adjoint)


def twice_above(t, u, theta):
    return 2.0 * u[0] - 2.0 * theta[1]


def test_rounding_decides_no_order():
    """Two guards that are zero together, with resets: an error without priorities, and with them the result of that order."""
    with pytest.raises(
        SolveError, match=r"events of the same priority happen at the same time \(above and twice_above\)"
    ) as caught:
        solve(growth(), GROWTH_U0, GROWTH_THETA, (0.0, 2.0), events=[Event(above, doubled), Event(twice_above, lifted)])
    assert caught.value.status == Status.AMBIGUOUS
    events = [Event(above, doubled), Event(twice_above, lifted, priority=1.0)]
    solution = solve(growth(), GROWTH_U0, GROWTH_THETA, (0.0, 2.0), events=events, **TOLERANCES)
    wanted = grown(GROWTH_U0, GROWTH_THETA, 2.0, lambda x, total, theta: (2.0 * (x + theta[2]), total))
    assert_near(solution.u_T, wanted)
    noted = solve(growth(), GROWTH_U0, GROWTH_THETA, (0.0, 2.0), events=[Event(above, doubled), twice_above], **TOLERANCES)
    assert [name for _, name in noted.events].count("twice_above") == 1


# --- where guards are zero ------------------------------------------------------------------------------------------------------
def _still_f(t, u, theta, du):
    du[0] = 1.0


@functools.cache
def clock():
    """u[0] = t, which every method has exactly: its steps are as long as they may be."""
    return Dynamics(_still_f, name="clock")


def dips(t, u, theta):
    return (u[0] - 5.0) ** 2 - theta[0]


@by_adjoint
def test_a_reset_that_leaves_its_guard_soon_to_be_crossed_again(adjoint):
    """It is not zero any more, so that its sign is known, however long the next step would be."""

    def little(t, u, theta, u_new):
        u_new[0] = theta[0] - 0.1

    twice = Event(passes, little, terminal=2)
    solution = solve(clock(), [0.0], [5.0], (0.0, 20.0), events=twice, first_step=9.0, **TOLERANCES)
    assert_near(solution.t_events[0], [5.0, 5.1])
    bar = solution.pullback([0.0], adjoint=adjoint, running_cost=one)  # the last time: theta - u0 + 0.1
    assert_near([bar.u0[0], bar.theta[0]], [-1.0, 1.0])


@pytest.mark.parametrize("half", [0.7, 0.2, 0.03])
def test_a_pair_of_zeros_inside_one_step(half):
    solution = solve(clock(), [0.0], [half**2], (0.0, 10.0), events=dips, first_step=9.0)
    np.testing.assert_allclose(solution.t_events[0], [5.0 - half, 5.0 + half], rtol=1e-12)
    for direction, wanted in ((1.0, 5.0 + half), (-1.0, 5.0 - half)):
        solution = solve(clock(), [0.0], [half**2], (0.0, 10.0), events=Event(dips, direction=direction), first_step=9.0)
        np.testing.assert_allclose(solution.t_events[0], [wanted], rtol=1e-12)


def test_a_dip_that_only_the_middle_of_a_step_sees():
    """The guard is flat at the ends of all steps, and was so in the steps before."""

    def notch(t, u, theta):
        return 1.0 - 2.0 * np.exp(-(((u[0] - 5.0) / theta[0]) ** 2))

    solution = solve(clock(), [0.0], [0.15], (0.0, 10.0), events=notch, step=2.0)
    np.testing.assert_allclose(solution.t_events[0], 5.0 + 0.15 * np.sqrt(np.log(2.0)) * np.array([-1.0, 1.0]), rtol=1e-12)


def waves(t, u):
    return np.sin(3.0 * u[0] + 0.5)


def test_many_zeros_in_one_step():
    solution = solve(clock(), [0.0], [], (0.0, 10.0), events=waves, first_step=2.0, max_step=4.0)
    np.testing.assert_allclose(solution.t_events[0], (np.arange(1, 10) * np.pi - 0.5) / 3.0, rtol=1e-12)


def passes(t, u, theta):
    return u[0] - theta[0]


@pytest.mark.parametrize("at", [1e-12, 1e-3, 10.0 - 1e-9, 10.0 - 1e-13])
def test_an_event_near_an_end(at):
    def moved(t, u, theta, u_new):
        u_new[0] = u[0] + 100.0

    solution = solve(clock(), [0.0], [at], (0.0, 10.0), events=Event(passes, moved), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(solution.t_events[0], [at], rtol=1e-9)
    np.testing.assert_allclose(solution.u_T, [110.0], rtol=1e-13)


def test_a_start_on_the_guard_is_no_event():
    assert solve(clock(), [2.0], [2.0], (0.0, 10.0), events=passes).t_events[0].size == 0
    thrown = solve(ball(), [0.0, 9.8], [9.8, 0.5], (0.0, 2.5), events=Event(height, bounce), **TOLERANCES)
    assert_near(thrown.t_events[0], [2.0])


def test_directions_along_the_integration():
    """Of sin(3 u + 0.5): backwards in time, what falls along time rises."""
    for span, sign in (((0.0, 5.0), 1.0), ((5.0, 0.0), -1.0)):
        start = [span[0]]
        both = solve(clock(), start, [], span, events=waves, max_step=0.3).t_events[0]
        rising = solve(clock(), start, [], span, events=Event(waves, direction=1.0), max_step=0.3).t_events[0]
        np.testing.assert_allclose(both, (np.arange(1, 5) * np.pi - 0.5)[:: int(sign)] / 3.0, rtol=1e-12)
        slopes = 3.0 * np.cos(3.0 * rising + 0.5) * sign
        assert (slopes > 0.0).all() and rising.size == 2


@by_adjoint
def test_backwards_through_an_event(adjoint):
    """u[0] falls back in time; where it passes the threshold it is cut."""

    def final(u0, theta):
        rate, threshold, factor = theta
        t = 3.0 - np.log(u0[0] / threshold) / rate
        x, total = factor * threshold, u0[1] - (u0[0] - threshold) / rate
        return SEED @ np.array([x * np.exp(-rate * t), total - x * (1.0 - np.exp(-rate * t)) / rate])

    u0 = np.array([5.0, 0.0])
    solution = solve(growth(), u0, GROWTH_THETA, (3.0, 0.0), events=Event(above, cut, direction=-1.0), **TOLERANCES)
    assert SEED @ solution.u_T == pytest.approx(final(u0, GROWTH_THETA), rel=10.0 * RTOL)
    assert_gradient(solution, SEED, final, u0, GROWTH_THETA, adjoint)


def _rest_f(t, u, theta, du):
    du[0] = 0.0


def test_events_at_rest():
    """Nothing moves: a guard of the time alone is met, one of the state never."""
    rest, late = Dynamics(_rest_f, name="rest"), Event(lambda t, u, theta: t - 7.25, name="late")
    solution = solve(rest, [1.0], [2.0], (0.0, 10.0), events=[late, passes])
    np.testing.assert_allclose(solution.t_events[0], [7.25], rtol=1e-13)
    assert solution.t_events[1].size == 0


@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["Tsit5", "DOP853"])
def test_a_guard_that_never_fires_changes_no_bit(method, fused):
    dynamics = Dynamics(_growth_f, name="growth", fused=True) if fused else growth()
    u0, theta, loss = GROWTH_U0, [0.7, 1e3, 0.4], LeastSquares([0.5, 2.0], np.ones((2, 2)))
    guarded, free = (
        (
            solve(dynamics, u0, theta, (0.0, 2.0), method=method, **events, **TOLERANCES),
            value_and_gradient(dynamics, loss, (0.0, 2.0), method=method, **events, **TOLERANCES)(u0, theta),
        )
        for events in ({"events": [Event(above, cut), Event(higher_still)]}, {})
    )
    assert guarded[0].t.tobytes() == free[0].t.tobytes()
    assert guarded[0].u.tobytes() == free[0].u.tobytes()
    assert guarded[1][0] == free[1][0]
    assert guarded[1][1].u0.tobytes() == free[1][1].u0.tobytes()
    assert guarded[1][1].theta.tobytes() == free[1][1].theta.tobytes()


# --- beside stops, doses and observations ---------------------------------------------------------------------------------------
def test_what_is_observed_counts_where_no_event_happens():
    never = {"events": Event(above, cut), **TOLERANCES}
    solution = solve(growth(), GROWTH_U0, [0.7, 1e3, 0.4], (0.0, 2.0), **never)
    bars = [
        solution.pullback(SEED, observations=([0.5, 1.5], np.ones((2, 2))), adjoint=adjoint)
        for adjoint in ("discrete", "interpolating")
    ]
    assert_near(bars[1].theta, bars[0].theta, 50.0)
    assert_near(bars[1].u0, bars[0].u0, 50.0)


def above_one(t, u, theta):
    return u[0] - 1.0


def to_zero(t, u, theta, u_new):
    u_new[0] = 0.0


@pytest.mark.parametrize("first_step", [9.0, 0.1])
def test_a_guard_knows_its_side_also_within_the_step_of_another_event(first_step):
    """`above_one` is crossed upwards, which is no event of it, in the step in which another one takes u back to zero."""
    events = [Event(above_one, direction=-1.0), Event(passes, to_zero)]
    solution = solve(clock(), [0.0], [2.0], (0.0, 3.5), events=events, first_step=first_step, max_step=first_step)
    assert [(round(time, 12), name) for time, name in solution.events] == [(2.0, "passes"), (2.0, "above_one")]
    np.testing.assert_allclose(solution.u_T, [1.5], rtol=1e-13)


def moved_far(t, u, theta, u_new):
    u_new[0] = u[0] + 100.0


@by_adjoint
@pytest.mark.parametrize("spacings", [-24, -6, -3, -1, 0, 1, 6])
def test_an_observation_so_near_to_an_event_that_rounding_decides(adjoint, spacings):
    """Value, gradient and tangents are of the same side, whichever it is."""
    t, options = 2.5 + spacings * np.spacing(2.5), {"events": Event(passes, moved_far), **TOLERANCES}
    call = value_and_gradient(clock(), LeastSquares([t, 4.0], [[0.0], [103.0]]), (0.0, 5.0), adjoint=adjoint, **options)
    (value, bar), (again, by_steps) = call([0.0], [2.5]), call.step_by_step([0.0], [2.5])
    seen = solve(clock(), [0.0], [2.5], (0.0, 5.0), **options)(t)[0]
    assert value == pytest.approx(0.5 * (seen**2 + 1.0), rel=1e-12) and again == pytest.approx(value, rel=1e-12)
    for one in (bar, by_steps):
        np.testing.assert_allclose(one.u0, [seen + 1.0], rtol=1e-9)
        np.testing.assert_allclose(one.theta, [0.0], atol=1e-9)


@pytest.mark.parametrize("spacings", [-3, 0])
def test_the_end_is_observed_where_an_event_that_changes_nothing_is_as_late(spacings):
    value, bar = value_and_gradient(clock(), FinalState([1.0]), (0.0, 5.0), events=passes, **TOLERANCES)(
        [0.0], [5.0 + spacings * np.spacing(5.0)]
    )
    assert value == pytest.approx(5.0, rel=1e-12) and bar.u0 == pytest.approx([1.0], rel=1e-9)


def on_time(t, u, theta):
    return t - theta[1]


@by_adjoint
@pytest.mark.parametrize("beside", ["a dose", "a stop"])
def test_an_event_at_a_known_time_that_something_else_has_too(adjoint, beside):
    """Its guard passes through zero in the gap across which steps go there; what is given comes first."""
    more = {"doses": Doses(2.0, 10.0, 1)} if beside == "a dose" else {"stops": [2.0]}
    theta, given = [0.7, 2.0, 0.4], 10.0 if beside == "a dose" else 0.0
    solution = solve(growth(), GROWTH_U0, theta, (0.0, 3.0), events=Event(on_time, cut), **more, **TOLERANCES)
    assert solution.events == [(2.0, "on_time")]

    def final(u0, theta):
        rate, t, factor = theta
        x = u0[0] * np.exp(rate * t)
        total = u0[1] + (x - u0[0]) / rate + given + factor * x * (np.exp(rate * (3.0 - t)) - 1.0) / rate
        return SEED @ np.array([factor * x * np.exp(rate * (3.0 - t)), total])

    assert_gradient(solution, SEED, final, GROWTH_U0, np.array(theta), adjoint)


SCHEDULE = Table([0.0, 1.0, 2.0], [5.0, 0.5, 9.0], kind="previous")


def below_schedule(t, u, theta):
    return u[0] - SCHEDULE(t)


@by_adjoint
def test_a_guard_that_jumps_at_a_break(adjoint):
    """It is taken across zero at t = 1, and back at t = 2, where it asks for no event: at a time that is held fixed."""
    events = Event(below_schedule, cut, direction=1.0)
    solution = solve(growth(), GROWTH_U0, GROWTH_THETA, (0.0, 3.0), events=events, stops=[1.0, 2.0], **TOLERANCES)
    assert [time for time, _ in solution.events] == [1.0]

    def final(u0, theta):
        rate, _, factor = theta
        x, end = u0[0] * np.exp(rate), np.exp(2.0 * rate)
        return SEED @ np.array([factor * x * end, u0[1] + (x - u0[0]) / rate + factor * x * (end - 1.0) / rate])

    assert_gradient(solution, SEED, final, GROWTH_U0, GROWTH_THETA, adjoint)


# --- the end --------------------------------------------------------------------------------------------------------------------
def landing_time(u0, theta):
    (x, v), g = u0, theta[0]
    return (v + np.sqrt(v * v + 2.0 * g * x)) / g


LANDS = Event(height, direction=-1.0, terminal=True)


@by_adjoint
def test_a_terminal_event_is_a_function_of_theta(adjoint):
    """Where a ball lands: the speed and, by the running cost 1, the time."""
    solution = solve(ball(), [20.0, 3.0], BALL_THETA, (0.0, 100.0), events=LANDS, **TOLERANCES)
    u0 = np.array([20.0, 3.0])
    assert_near(solution.t[-1], landing_time(u0, BALL_THETA))
    bar = assert_gradient(
        solution, [0.0, 1.0], lambda u0, theta: -np.sqrt(u0[1] ** 2 + 2.0 * theta[0] * u0[0]), u0, BALL_THETA, adjoint
    )
    assert bar.T == 0.0


def one(t, u, theta):
    return 1.0


def squared(t, u, theta):
    return theta[1] * u[0] ** 2


@by_adjoint
def test_running_costs_up_to_a_terminal_event(adjoint):
    u0 = np.array([20.0, 3.0])
    solution = solve(ball(), u0, BALL_THETA, (0.0, 100.0), events=LANDS, **TOLERANCES)
    bar = assert_gradient(solution, [0.0, 0.0], landing_time, u0, BALL_THETA, adjoint, running_cost=one)
    assert bar.running_cost == pytest.approx(landing_time(u0, BALL_THETA), rel=10.0 * RTOL)
    call = value_and_gradient(
        ball(), FinalState([0.0, 0.0]), (0.0, 100.0), events=LANDS, adjoint=adjoint, running_cost=one, **TOLERANCES
    )
    value, again = call(u0, BALL_THETA)
    assert value == bar.running_cost
    assert_near(again.theta, bar.theta)

    def cost(u0, theta):
        (x, v), (g, factor), t = u0, theta, landing_time(u0, theta)
        powers = x * x * t + x * v * t**2 + (v * v - g * x) * t**3 / 3.0 - g * v * t**4 / 4.0 + g * g * t**5 / 20.0
        return factor * powers

    assert_gradient(solution, [0.0, 0.0], cost, u0, BALL_THETA, adjoint, running_cost=squared)


@by_adjoint
def test_a_terminal_event_behind_the_last_observation_has_no_part_in_the_gradient(adjoint):
    u0, times = np.array([20.0, 3.0]), np.array([0.5, 1.0])

    def loss(u0, theta):
        return 0.5 * sum((u0[0] + u0[1] * t - 0.5 * theta[0] * t**2) ** 2 for t in times)

    seen = LeastSquares(times, np.column_stack([np.zeros(2), np.full(2, np.nan)]))
    call = value_and_gradient(ball(), seen, (0.0, 100.0), events=LANDS, adjoint=adjoint, **TOLERANCES)
    for value, bar in (call(u0, BALL_THETA), call.step_by_step(u0, BALL_THETA)):
        assert value == pytest.approx(loss(u0, BALL_THETA), rel=10.0 * RTOL)
        for found, exact in zip([bar.u0, bar.theta], complex_step(loss, [u0, BALL_THETA]), strict=True):
            assert_near(found, exact)


@by_adjoint
def test_running_costs_through_bounces(adjoint):
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 10.0), events=BOUNCE, **TOLERANCES)

    def cost(u0, theta):
        times, _ = bounces(u0, theta, 10.0)
        total, nodes = 0.0, np.polynomial.legendre.leggauss(4)
        for a, b in zip([0.0, *times], [*times, 10.0], strict=True):
            for x, w in zip(*nodes, strict=True):
                s = 0.5 * (a + b) + 0.5 * (b - a) * x
                total = total + 0.5 * (b - a) * w * theta[1] * flight_from(a, u0, theta, s) ** 2
        return total

    assert_gradient(solution, [0.0, 0.0], cost, BALL_U0, BALL_THETA, adjoint, running_cost=squared)


def flight_from(a, u0, theta, s):
    """The height at s of the flight that begins at a."""
    _, (t, x, v) = bounces(u0, theta, np.real(a) + 1e-9)
    return x + v * (s - t) - 0.5 * theta[0] * (s - t) ** 2


def test_the_second_time_ends_it_as_in_scipy():
    second = Event(height, bounce, direction=-1.0, terminal=2)
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 100.0), events=second, **TOLERANCES)
    times, _ = bounces(BALL_U0, BALL_THETA, 10.0)
    assert_near(solution.t_events[0], times[:2])
    assert_near(solution.t[-1], times[1])


def test_functions_of_scipy():
    def hits(t, u):
        return u[0]

    hits.terminal, hits.direction = True, -1.0
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 100.0), events=hits, **TOLERANCES)
    assert_near(solution.t[-1], np.sqrt(2.0 * 50.0 / 9.8))
    assert_near(solution.u_T, [0.0, -np.sqrt(2.0 * 50.0 * 9.8)])


@by_adjoint
def test_what_is_observed_behind_the_end_is_not_there(adjoint):
    """An observation at T is that of the end; a later time than the end, inside of the span, has no state."""
    call = value_and_gradient(ball(), FinalState([0.0, 1.0]), (0.0, 100.0), events=LANDS, adjoint=adjoint, **TOLERANCES)
    value, bar = call([20.0, 3.0], BALL_THETA)
    assert value == pytest.approx(-np.sqrt(9.0 + 2.0 * 9.8 * 20.0), rel=10.0 * RTOL)
    exact = complex_step(lambda u0, theta: -np.sqrt(u0[1] ** 2 + 2.0 * theta[0] * u0[0]), [[20.0, 3.0], BALL_THETA])
    assert_near(bar.u0, exact[0], 50.0)
    assert_near(bar.theta, exact[1], 50.0)
    late = value_and_gradient(ball(), LeastSquares([50.0], [[0.0, 0.0]]), (0.0, 100.0), events=LANDS, adjoint=adjoint)
    with pytest.raises(SolveError, match="height ended the solution at t = 2.34949, before the observation at t = 50"):
        late([20.0, 3.0], BALL_THETA)


# --- their times, and states before them ----------------------------------------------------------------------------------------
@by_adjoint
def test_cotangents_of_the_times_of_bounces(adjoint):
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 15.0), events=BOUNCE, **TOLERANCES)
    weights = np.array([1.0, -0.5, 2.0])

    def summed(u0, theta):
        return weights @ np.array(bounces(u0, theta, 15.0)[0])

    bar = solution.pullback(event_times=[weights], adjoint=adjoint)
    for found, exact in zip([bar.u0, bar.theta], complex_step(summed, [BALL_U0, BALL_THETA]), strict=True):
        assert_near(found, exact, 100.0)


def test_cotangents_of_times_of_two_events():
    solution = solve(relay(), RELAY_U0, RELAY_THETA, (0.0, 2.0), events=RELAY, **TOLERANCES)
    bar = solution.pullback(event_times=[np.array([0.0]), np.array([1.0])])
    heat, loss, high, low = RELAY_THETA  # on until log(2.5 / 1), then off for log(2)
    assert_near(solution.t_events[1], [np.log(2.5) + np.log(2.0)])
    limit = heat / loss
    assert_near(bar.theta[2:], [1.0 / (limit - high) + 1.0 / high, -1.0 / low], 100.0)


@by_adjoint
def test_times_of_events_compared_with_data(adjoint):
    data, sigma = np.array([3.0, np.nan, 12.5]), np.array([0.1, 1.0, 0.2])
    loss = EventTimes(data, event="height", sigma=sigma)
    value, bar = value_and_gradient(ball(), loss, (0.0, 15.0), events=BOUNCE, adjoint=adjoint, **TOLERANCES)(BALL_U0, BALL_THETA)

    def summed(u0, theta):
        first, _, third = bounces(u0, theta, 15.0)[0]
        return 0.5 * (((first - 3.0) / 0.1) ** 2 + ((third - 12.5) / 0.2) ** 2)

    assert value == pytest.approx(np.real(summed(BALL_U0, BALL_THETA)), rel=1e3 * RTOL)
    for found, exact in zip([bar.u0, bar.theta], complex_step(summed, [BALL_U0, BALL_THETA]), strict=True):
        assert_near(found, exact, 1e4)


SEEN = EventTimes([3.0, np.nan, 12.5], event="height", sigma=[0.1, 1.0, 0.2])


@pytest.mark.slow  # compiles passes of its own
@by_adjoint
def test_times_of_events_in_compiled_code_and_in_ensembles(adjoint):
    options = {"events": BOUNCE, "adjoint": adjoint, **TOLERANCES}
    beside = EventTimes(SEEN.times, sigma=SEEN.sigma, beside=LeastSquares([4.0, 14.0], [[5.0, np.nan], [3.0, 1.0]]))
    rows = EventTimes(np.array([SEEN.times + shift for shift in (0.0, 0.1, -0.2)]), sigma=SEEN.sigma)
    u0, theta = np.array([BALL_U0, BALL_U0 * 0.9, BALL_U0 * 1.1]), np.array([BALL_THETA, [9.5, 0.81], [9.9, 0.79]])
    for loss in (SEEN, beside, rows):
        values, bars = ensemble_value_and_gradient(ball(), loss, (0.0, 15.0), **options)(u0, theta)
        for k in range(3):
            alone = loss.member(k)
            call = value_and_gradient(ball(), alone, (0.0, 15.0), **options)
            (value, bar), (slow, by_steps), bars_of = call(u0[k], theta[k]), call.step_by_step(u0[k], theta[k]), np.zeros((2, 2))
            status, compiled = call.jitted(2, 2)(u0[k], theta[k], *bars_of)
            assert status == 0 and value == values[k] == compiled and value == pytest.approx(slow, rel=1e-6)
            np.testing.assert_array_equal([bars.u0[k], bars.theta[k]], [bar.u0, bar.theta])
            np.testing.assert_array_equal(bars_of, [bar.u0, bar.theta])
            assert_near(bar.theta, by_steps.theta, 1e4)
            assert_near(bar.u0, by_steps.u0, 1e4)


@by_adjoint
@pytest.mark.parametrize("span", [(0.0, 15.0), (3.0, 18.0)])
def test_times_of_events_that_reset_nothing(adjoint, span):
    """Steps end at them, so their times are as exact as all else."""
    loss, events = EventTimes([4.0 + span[0]], event="lands", sigma=0.5), [BOUNCE, Event(lands, direction=-1.0)]
    value, bar = value_and_gradient(ball(), loss, span, events=events, adjoint=adjoint, **TOLERANCES)(BALL_U0, BALL_THETA)

    def slows_down(u0, theta):
        upwards = theta[1] * np.sqrt(u0[1] ** 2 + 2.0 * theta[0] * u0[0])
        return 0.5 * ((bounces(u0, theta, 4.0)[0][0] + (upwards - 12.0) / theta[0] - 4.0) / 0.5) ** 2

    assert value == pytest.approx(np.real(slows_down(BALL_U0, BALL_THETA)), rel=1e3 * RTOL)
    for found, exact in zip([bar.u0, bar.theta], complex_step(slows_down, [BALL_U0, BALL_THETA]), strict=True):
        assert_near(found, exact, 1e3)


def much(t, u):
    return u[1] - 60.0


@by_adjoint
def test_the_time_of_an_event_that_resets_nothing_during_an_infusion(adjoint):
    """By the slope there, of which the rate of the infusion is part."""
    options = {"doses": PK_DOSES, "events": Event(much, direction=1.0), **TOLERANCES}
    solution = solve(drug(), PK_U0, PK_THETA, PK_SPAN, **options)
    (time,) = solution.t_events[0]
    assert PK_INFUSED_AT < time < PK_INFUSED_AT + PK_THETA[9]
    bar = solution.pullback(event_times=[[2.0]], adjoint=adjoint)
    of_u0, of_theta, slope = complex_step(
        lambda u0, theta, t: drug_at(u0, theta, 0.0, t[0])[1], [PK_U0, PK_THETA, np.array([time])]
    )
    assert_near(bar.u0, -2.0 * of_u0 / slope, 100.0)
    assert_near(bar.theta, -2.0 * of_theta / slope, 100.0)


def test_fewer_occurrences_than_times_fail_in_an_ensemble():
    values, _ = ensemble_value_and_gradient(
        ball(), EventTimes([3.0, 8.0, 12.5, 14.0]), (0.0, 15.0), events=BOUNCE, on_failure="nan", **TOLERANCES
    )(np.array([BALL_U0, BALL_U0 * 0.5]), BALL_THETA)
    assert np.isnan(values[0]) and np.isfinite(values[1])


def nothing(t, u, theta):
    pass


def as_in_scipy(**attributes):
    def event(t, u):
        return u[0]

    vars(event).update(attributes)
    return event


def solved_with(events):
    return solve(clock(), [0.0], [5.0], (0.0, 10.0), events=events)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: EventTimes([[[1.0]]]), ValueError, "times of events must be a vector"),
        (lambda: EventTimes([1.0], sigma=0.0), ValueError, "sigma of times of events must be positive"),
        (lambda: ball_times(EventTimes([1.0], event="floor")), ValueError, "event 'floor', but events= has height"),
        (lambda: ball_times(EventTimes([1.0] * 4)), SolveError, "height happened 3 times up to t = 15, but was observed 4"),
    ],
)
def test_bad_times_of_events(make, error, says):
    with pytest.raises(error, match=says):
        make()


def ball_times(loss):
    return value_and_gradient(ball(), loss, (0.0, 15.0), events=BOUNCE)(BALL_U0, BALL_THETA)


def test_the_side_before_a_bounce():
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 15.0), events=BOUNCE, **TOLERANCES)
    times, u_before = solution.t_events[0], solution.u_events[0]
    assert_near(solution(times, side="left"), u_before, 100.0)
    assert_near(solution(times)[:, 1], -0.8 * u_before[:, 1], 100.0)


@pytest.mark.parametrize(
    ("event_times", "says"),
    [
        ([np.zeros(2)], "event_times of height"),
        ([np.zeros(3)] * 2, "for each of the 1 events"),
    ],
)
def test_bad_event_times(event_times, says):
    solution = solve(ball(), BALL_U0, BALL_THETA, (0.0, 15.0), events=BOUNCE)
    with pytest.raises(ValueError, match=says):
        solution.pullback(event_times=event_times)


# --- what is refused ------------------------------------------------------------------------------------------------------------
def _chase_f(t, u, theta, du):
    du[0] = 1.0
    du[1] = 1.0 + 3.0 * (u[0] - theta[0]) ** 2


def meets(t, u, theta):
    return u[1] - u[0]


def stops(t, u, theta, u_new):
    u_new[1] = 0.0


@by_adjoint
def test_a_guard_that_only_touches_zero_has_no_gradient(adjoint):
    """u[1] - u[0] = (t - 5)^3: it passes through zero, but at no rate."""
    chase = Dynamics(_chase_f)
    solution = solve(chase, [0.0, -125.0], [5.0], (0.0, 10.0), events=Event(meets, stops), **TOLERANCES)
    with pytest.raises(SolveError, match="the guard of meets touches zero without passing through it") as caught:
        solution.pullback(SEED, adjoint=adjoint)
    assert caught.value.status == Status.GRAZING
    with pytest.raises(SolveError, match="the guard of meets touches zero without passing through it") as caught:
        solution.pushforward(SEED)
    assert caught.value.status == Status.GRAZING


def root(t, u, theta):
    return np.sqrt(theta[0] - u[0])


def root_behind(t, u, theta):
    return np.sqrt(theta[0] + 0.1 - u[0]) + 1.0


def undefined(t, u, theta, u_new):
    u_new[0] = np.log(-theta[0])


@pytest.mark.parametrize(
    ("events", "culprit", "component"),
    [
        ([Event(passes, name="other"), root], "the guard of root", None),
        ([root_behind, Event(passes, undefined, name="gone")], "the reset of gone", 0),
    ],
)
def test_nan(events, culprit, component):
    with pytest.raises(SolveError, match=f"{culprit} returned NaN or infinity") as caught:
        solve(clock(), [0.0], [5.0], (0.0, 10.0), events=events)
    assert (caught.value.status, caught.value.component) == (Status.NON_FINITE, component)


@by_adjoint
def test_a_guard_that_is_defined_no_further_than_the_event_that_comes_first(adjoint):
    """A step on trial may go beyond, and the next one is shorter."""

    def back(t, u, theta, u_new):
        u_new[0] = 0.5 * theta[0]

    solution = solve(clock(), [0.0], [5.0], (0.0, 7.0), events=[root_behind, Event(passes, back)], first_step=6.9, **TOLERANCES)
    assert_near(solution.t_events[1], [5.0])
    assert solution.stats.n_rejected < 10
    bar = solution.pullback([1.0], adjoint=adjoint)  # of 0.5 theta + 7 - theta
    assert_near([bar.u0[0] - 1.0, bar.theta[0]], [0.0, -0.5])


def too_few(t):
    return t


def too_much_reset(t, u, theta, u_new, more):
    u_new[0] = 0.0


def wrong_length(t, u, theta):
    return np.zeros(3)


def overwrites_and_returns(t, u, theta, u_new):
    return np.array([theta[0]])


def leaves_arrays(t, u, theta, u_new):
    u_new[7] = 0.0


def guard_beyond(t, u, theta):
    return u[5]


def writes_state(t, u, theta, u_new):
    u[0] = 3.0
    u_new[0] = 0.0


def vector_guard(t, u, theta):
    return u


@pytest.mark.parametrize(
    ("events", "error", "says"),
    [
        (3.0, TypeError, r"events must be an adjode.Event, a function event\(t, u\), or a list of them, but 3.0 was given"),
        (
            [passes, 3.0],
            TypeError,
            r"events must be an adjode.Event, a function event\(t, u\), or a list of them, but 3.0 is among",
        ),
        (too_few, TypeError, r"the guard too_few takes 1 arguments, but it must be guard\(t, u, theta\) or guard\(t, u\)"),
        (lambda: Event(passes, too_much_reset), TypeError, "the reset too_much_reset takes 5 arguments, but it must be reset"),
        (
            Event(passes, wrong_length),
            ValueError,
            r"reset returns something of shape \(\d,\), but u_new must have the shape \(1,\)",
        ),
        (
            Event(passes, overwrites_and_returns),
            ValueError,
            r"reset takes u_new to write into, so what it returns is lost: return nothing, or use .* reset\(t, u, theta\)",
        ),
        (Event(passes, leaves_arrays), ValueError, "index 7"),
        (guard_beyond, ValueError, "index 5"),
        (Event(passes, writes_state), ValueError, "reset"),
        (vector_guard, TypeError, "guard"),
    ],
)
def test_bad_events(events, error, says):
    with pytest.raises(error, match=says):
        solve(clock(), [0.0], [5.0], (0.0, 10.0), events=events() if getattr(events, "__name__", "") == "<lambda>" else events)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Event(3.0), TypeError, "an event takes functions"),
        (lambda: Event(passes, 3.0), TypeError, "an event takes functions"),
        (lambda: Event(passes, terminal=-1), ValueError, "terminal must be False, True or the number of an occurrence, but -1"),
        (lambda: Event(passes, terminal="yes"), ValueError, "terminal must be False"),
        (
            lambda: Event(passes, terminal=2**40),
            ValueError,
            "terminal must be False, True or the number of an occurrence, but 1099",
        ),
        (
            lambda: solved_with(as_in_scipy(terminal="x")),
            ValueError,
            "terminal must be False, True or the number of an occurrence, but 'x'",
        ),
        (lambda: solved_with(as_in_scipy(direction=None)), ValueError, "direction must be a finite number, but None was given"),
        (
            lambda: solved_with(Event(lambda t, u: u)),
            TypeError,
            r"Numba cannot compile guard: it returns an array \(.*test_events.py, line",
        ),
        (
            lambda: solved_with(Event(nothing)),
            TypeError,
            r"Numba cannot compile guard: it returns nothing \(.*test_events.py, line",
        ),
        (
            lambda: solved_with(Event(passes, nothing)),
            TypeError,
            r"Numba cannot compile reset: it returns nothing \(.*test_events.py, line",
        ),
        (lambda: Event(passes, direction="up"), ValueError, "direction must be a finite number, but 'up'"),
        (lambda: Event(passes, priority=np.inf), ValueError, "priority must be a finite number, but inf"),
    ],
)
def test_bad_options_of_events(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_backsolve_refuses():
    with pytest.raises(ValueError, match="backsolve' does not support doses or events"):
        solve(clock(), [0.0], [5.0], (0.0, 10.0), events=passes).pullback([1.0], adjoint="backsolve")


def test_a_singular_mass_matrix_refuses():
    with pytest.raises(ValueError, match="without a singular mass matrix"):
        solve(Dynamics(_growth_f, mass=[1.0, 0.0]), GROWTH_U0, GROWTH_THETA, (0.0, 1.0), method="Radau", events=above)


def test_the_discrete_adjoint_of_rosenbrock_refuses_as_ever():
    with pytest.raises(ValueError, match="Rodas5P"):
        value_and_gradient(growth(), FinalState(SEED), (0.0, 2.0), method="Rodas5P", events=Event(above, cut))(
            GROWTH_U0, GROWTH_THETA
        )
