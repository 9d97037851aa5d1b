"""Known times at which f jumps: values, gradients and work with every method, in either direction."""

import functools

import numpy as np
import pytest
from numba import njit

from adjode import Dynamics, SolveError, solve, value_and_gradient
from adjode.compile.slots import CROSSING
from adjode.losses import FinalState, LeastSquares
from adjode.tableaus import METHODS, tableau
from tests.problems.jumps import (
    DIRECTIONS,
    END,
    FIRST,
    JUMP_THETA,
    JUMP_U0,
    SECOND,
    SEED,
    callbacks,
    exact,
    exact_gradient,
    final,
    jumping,
    own_time,
    running_cost,
    span_of,
)

STOPS, DELTA = np.array([FIRST, SECOND]), 4.0 * np.finfo(float).eps * END
ADJOINTS = ("discrete", "interpolating")
ADAPTIVE = [name for name in METHODS if tableau(name).adaptive and name == tableau(name).name]
FIXED = [name for name in METHODS if not tableau(name).adaptive]
# errors of u(T) and of its gradient, in tolerances, at most: low orders take many steps, whose errors add up
FACTORS = {"BS3": 60.0, "TRBDF2": 600.0}
TOL = 1e-6
# both ends, both stops, and their nearest neighbours
TIMES = np.array([0.0, 0.4, np.nextafter(FIRST, 0.0), FIRST, np.nextafter(FIRST, 2.0), 1.7, SECOND, 3.1, END])


def adjoints_of(method):
    return [adjoint for adjoint in ADJOINTS if adjoint != "discrete" or tableau(method).family != "rosenbrock"]


COMBINATIONS = [(method, adjoint) for method in ADAPTIVE for adjoint in adjoints_of(method)]
by_method_and_adjoint = pytest.mark.parametrize(("method", "adjoint"), COMBINATIONS)
by_adjoint = pytest.mark.parametrize("adjoint", ADJOINTS)
by_direction = pytest.mark.parametrize("sign", DIRECTIONS.values(), ids=DIRECTIONS.keys())


def solved(sign=1.0, inclusive=False, u0=JUMP_U0, span=None, **options):
    options = {"stops": own_time(sign, STOPS), "rtol": TOL, "atol": TOL, **options}
    return solve(jumping(sign, inclusive), u0, JUMP_THETA, span or span_of(sign), **options)


def squares(sign=1.0, times=TIMES):
    """A loss with observations of u = 0 at `times`, and it as `exact_gradient` wants it."""
    loss = LeastSquares(own_time(sign, times), np.zeros((len(times), 2)))
    return loss, lambda u0, theta, t0, T: 0.5 * sum(np.sum(exact(u0, theta, t0, t)[:2] ** 2) for t in times)


def gradient_of(loss, sign=1.0, inclusive=False, span=None, **options):
    options = {"stops": own_time(sign, STOPS), "rtol": TOL, "atol": TOL, **options}
    return value_and_gradient(jumping(sign, inclusive), loss, span or span_of(sign), **options)


def numbers(result):
    """What a solution, or a value with its cotangents, has to say, to the last bit."""
    if isinstance(result, tuple):
        value, bar = result
        return [value, bar.u0, bar.theta, bar.t0, bar.T, bar.running_cost, bar.stats]
    return [result.t, result.u, result.stats]


def assert_same_bits(one, other):
    for a, b in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_array_equal(a, b)


# --- against the closed form --------------------------------------------------------------------------------------------------
@by_direction
@by_method_and_adjoint
def test_value_and_cotangents(method, adjoint, sign):
    limit = FACTORS.get(method, 10.0) * TOL
    solution = solved(sign, method=method)
    bar = solution.pullback(SEED, adjoint=adjoint)
    assert SEED @ solution.u_T == pytest.approx(final(JUMP_U0, JUMP_THETA, 0.0, END).real, abs=limit)
    expected = exact_gradient(final) * np.array([1.0] * 6 + [sign] * 2)
    np.testing.assert_allclose([*bar.u0, *bar.theta, bar.t0, bar.T], expected, rtol=0, atol=limit)


@by_direction
@by_method_and_adjoint
def test_observations_at_and_beside_stops(method, adjoint, sign):
    limit = FACTORS.get(method, 40.0) * TOL
    loss, closed = squares(sign)
    prepared = gradient_of(loss, sign, method=method, adjoint=adjoint)
    value, bar = prepared(JUMP_U0, JUMP_THETA)
    assert value == pytest.approx(closed(JUMP_U0, JUMP_THETA, 0.0, END).real, abs=limit)
    np.testing.assert_allclose([*bar.u0, *bar.theta], exact_gradient(closed)[:6], rtol=0, atol=limit)
    value, other = prepared.step_by_step(JUMP_U0, JUMP_THETA)
    np.testing.assert_allclose([*other.u0, *other.theta], [*bar.u0, *bar.theta], rtol=0, atol=limit)


@by_direction
@by_method_and_adjoint
def test_which_side_a_stop_itself_belongs_to_changes_no_bit(method, adjoint, sign):
    loss, options = squares(sign)[0], {"method": method, "adjoint": adjoint}
    results = []
    for inclusive in (False, True):
        costly = {"running_cost": running_cost(sign, inclusive), "wrt": ("u0", "theta", "t0", "T")}
        results.append(
            (
                solved(sign, inclusive, method=method),
                gradient_of(loss, sign, inclusive, **options)(JUMP_U0, JUMP_THETA),
                gradient_of(loss, sign, inclusive, **options, **costly)(JUMP_U0, JUMP_THETA),
            )
        )
    for one, other in zip(*results, strict=True):
        assert_same_bits(one, other)


@by_direction
@by_adjoint
@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps_keep_their_order(method, adjoint, sign):
    step, errors = {"Euler": 1e-3, "Midpoint": 1e-2, "RK4": 0.1}[method], []
    for size in (step, step / 2):
        solution = solved(sign, method=method, step=size)
        bar = solution.pullback(SEED, adjoint=adjoint, wrt=("u0", "theta"))
        error = SEED @ solution.u_T - final(JUMP_U0, JUMP_THETA, 0.0, END).real
        errors.append(np.abs([error, *([*bar.u0, *bar.theta] - exact_gradient(final)[:6])]))
        assert solution.stats.n_steps == round(END / size)  # stops and end are on this grid
    order = np.log2(np.max(errors[0]) / np.max(errors[1]))
    assert abs(order - tableau(method).order) < 0.3


def test_fixed_steps_end_at_a_stop_and_go_on_from_there():
    solution = solved(method="RK4", step=0.3, stops=[1.0])
    expected = [0.0, 0.3, 0.6, 0.9, 1.0, 1.0, 1.0, 1.3, 1.6]
    np.testing.assert_allclose(solution.t[: len(expected)], expected, rtol=0, atol=2 * DELTA)
    assert solution.stats.n_steps == 4 + 10


@by_direction
@by_adjoint
def test_running_cost(adjoint, sign):
    limit = 10.0 * TOL
    bar = solved(sign).pullback(SEED, adjoint=adjoint, running_cost=running_cost(sign))
    expected = exact_gradient(lambda *given: final(*given) + exact(*given)[2]) * np.array([1.0] * 6 + [sign] * 2)
    assert bar.running_cost * sign == pytest.approx(exact(JUMP_U0, JUMP_THETA, 0.0, END)[2].real * sign, abs=limit)
    np.testing.assert_allclose([*bar.u0, *bar.theta, bar.t0, bar.T], expected, rtol=0, atol=limit)


@by_direction
def test_dense_adjoint(sign):
    """lam(t) is the cotangent of the state at t."""
    solution = solved(sign)
    adjoint = solution.pullback(SEED, dense_adjoint=True).adjoint
    for t in (0.0, 0.5, FIRST, 1.5, SECOND, 3.0, END):
        state = exact(JUMP_U0, JUMP_THETA, 0.0, t)[:2].real
        expected = exact_gradient(final, u0=state, t0=t)[:2] if t < END else SEED
        np.testing.assert_allclose(adjoint(float(own_time(sign, t))), expected, rtol=0, atol=50 * TOL)


# --- where the stops are --------------------------------------------------------------------------------------------------------
UP, DOWN = np.nextafter(FIRST, 2.0), np.nextafter(FIRST, 0.0)
PLACES = {
    "at both ends": [0.0, FIRST, SECOND, END],
    "unsorted, twice": [SECOND, FIRST, SECOND, FIRST],
    "outside too": [-1.0, FIRST, SECOND, END + 1.0, 1e300],
    "a spacing outside": [-5e-324, FIRST, SECOND, np.nextafter(END, 5.0)],
    "a spacing inside": [5e-324, FIRST, SECOND, np.nextafter(END, 0.0)],
    "a spacing apart": [DOWN, FIRST, UP, SECOND],
    "nearer than steps go": [*(FIRST + 0.3 * DELTA * np.arange(-20, 21)), SECOND],
    "hardly further": [*(FIRST + 2.5 * DELTA * np.arange(-20, 21)), SECOND],
    "hundreds": [*np.linspace(0.0, END, 321)],
}


@by_adjoint
@by_direction
@pytest.mark.parametrize("method", ["Tsit5", "Radau", "Rodas5P"])
@pytest.mark.parametrize("places", PLACES)
def test_places(places, method, sign, adjoint):
    if adjoint not in adjoints_of(method):
        pytest.skip("not transposable")
    stops = own_time(sign, np.array(PLACES[places]))
    solution = solved(sign, method=method, stops=stops)
    assert (np.diff(sign * solution.t) > 0.0).all()
    inside = np.unique(stops[(stops > -DELTA) & (stops < END + DELTA)])
    assert np.count_nonzero(solution.trajectory.kinds == CROSSING) <= 2 * inside.size
    loss, closed = squares(sign)
    expected, limit = exact_gradient(closed)[:6], 40.0 * TOL
    prepared = gradient_of(loss, sign, method=method, adjoint=adjoint, stops=stops)
    for way in (prepared, prepared.step_by_step):
        value, bar = way(JUMP_U0, JUMP_THETA)
        assert value == pytest.approx(closed(JUMP_U0, JUMP_THETA, 0.0, END).real, abs=limit)
        np.testing.assert_allclose([*bar.u0, *bar.theta], expected, rtol=0, atol=limit)


@by_direction
@by_method_and_adjoint
def test_stops_outside_the_span_change_no_bit(method, adjoint, sign):
    span, (loss, _) = span_of(sign), squares(sign)
    outside = [-1.0, -1.1 * DELTA, END + 1.5 * DELTA, 1e300]
    options = {"method": method, "span": span}
    assert_same_bits(solved(sign, stops=outside, **options), solved(sign, stops=(), **options))
    options["adjoint"] = adjoint
    one, other = (gradient_of(loss, sign, stops=stops, **options)(JUMP_U0, JUMP_THETA) for stops in (outside, ()))
    assert_same_bits(one, other)


@by_direction
@by_adjoint
@pytest.mark.parametrize("span", [(FIRST, SECOND), (FIRST, FIRST + 3 * DELTA), (DOWN, UP), (FIRST, FIRST), (UP, 2.0), (0.5, DOWN)])
def test_spans_that_begin_and_end_at_stops(span, adjoint, sign):
    """The cotangents of t0 and T are those on the side of the span, whichever side the stop belongs to."""
    t_span = tuple(map(float, own_time(sign, span)))
    bars = []
    for inclusive in (False, True):
        solution = solved(sign, inclusive, span=t_span, stops=own_time(sign, [DOWN, FIRST, SECOND, UP][1:3]))
        np.testing.assert_allclose(solution.u_T, exact(JUMP_U0, JUMP_THETA, *span)[:2].real, rtol=0, atol=10 * TOL)
        bar = solution.pullback(SEED, adjoint=adjoint)
        bars.append([*bar.u0, *bar.theta, bar.t0, bar.T])
    if span[1] - span[0] > 1e-9:
        np.testing.assert_array_equal(*bars)
        expected = exact_gradient(final, t0=span[0], T=span[1]) * np.array([1.0] * 6 + [sign] * 2)
        np.testing.assert_allclose(bars[0], expected, rtol=0, atol=10 * TOL)
    else:
        np.testing.assert_allclose(bars[0][:6], [*SEED, 0.0, 0.0, 0.0, 0.0], rtol=0, atol=1e-12)


@by_direction
def test_states_at_and_beside_a_stop(sign):
    times = own_time(sign, np.array([FIRST - DELTA, DOWN, FIRST, UP, FIRST + DELTA]))
    solution = solved(sign, t_eval=times)
    k = int(np.searchsorted(sign * solution.t, sign * times[2]))
    assert solution.t[k] == times[2]
    np.testing.assert_allclose(solution.t[[k - 1, k + 1]], times[[0, 4]], rtol=0, atol=1e-15)
    for states in (solution.u_eval, solution(times), solution.u[k - 1 : k + 2]):
        assert (states == solution.u[k]).all()


@by_direction
@by_adjoint
def test_cotangents_of_observation_times_at_stops_are_those_on_the_side_before(adjoint, sign):
    times = own_time(sign, np.array([FIRST, SECOND]))
    bars = [
        solved(sign, inclusive).pullback(observations=(times, np.tile(SEED, (2, 1))), wrt=("observation_times",), adjoint=adjoint)
        for inclusive in (False, True)
    ]
    np.testing.assert_array_equal(bars[0].observation_times, bars[1].observation_times)
    before = [exact_gradient(final, T=t)[-1] for t in (FIRST, SECOND)]  # its T is the end of a span
    np.testing.assert_allclose(bars[0].observation_times, sign * np.array(before), rtol=0, atol=10 * TOL)


# --- work -----------------------------------------------------------------------------------------------------------------------
@by_direction
@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Radau", "Kvaerno5", "Rodas5P", "auto"])
def test_stops_save_the_search_for_the_jump(method, sign):
    with_stops, without = (solved(sign, method=method, stops=stops).stats for stops in (own_time(sign, STOPS), ()))
    assert with_stops.n_f < 0.7 * without.n_f
    assert with_stops.n_rejected <= 3 < 10 <= without.n_rejected


@by_adjoint
@by_direction
def test_a_thousand_stops_cost_a_thousand_restarts(adjoint, sign):
    """Tsit5: six evaluations for each step, one for each restart and two for the first; a step for each piece."""
    stops, pieces = own_time(sign, np.arange(1, 1000) * END / 1000), 1000
    stats = solved(sign, stops=stops, max_steps=pieces).stats
    assert (stats.n_steps, stats.n_rejected) == (pieces, 0)
    assert stats.n_f == 2 + (pieces - 1) + 6 * pieces
    stats = gradient_of(FinalState(SEED), sign, stops=stops, adjoint=adjoint)(JUMP_U0, JUMP_THETA)[1].stats
    assert (stats.n_steps, stats.n_rejected) == (pieces, 0)
    expected = 6 * pieces + pieces if adjoint == "discrete" else 2 + (pieces - 1) + 9 * pieces  # with the nodes of the quadrature
    assert stats.n_vjp == expected


def test_steps_go_on_with_the_size_that_was_wanted():
    """A short piece between two stops does not make the step behind it short."""
    near = solved(stops=[FIRST, FIRST + 1e-7, SECOND]).stats
    assert near.n_steps <= solved().stats.n_steps + 2


def test_crossings_are_no_steps():
    few = {"stops": np.linspace(0.0, END, 41)}
    stats = solved(**few).stats
    assert solved(max_steps=stats.n_steps + stats.n_rejected, **few).stats == stats
    with pytest.raises(SolveError, match="the cap of 30 steps"):
        solved(max_steps=30, **few)


def test_first_step_and_max_step():
    assert solved(first_step=0.25).t[1] == 0.25
    solution = solved(max_step=0.1, first_step=3.0)
    assert np.max(np.diff(solution.t)) <= 0.1 * (1.0 + 2e-6) and solution.t[1] == 0.1


# --- Newton behind a stop -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [name for name in ADAPTIVE if tableau(name).implicit])
def test_the_jacobian_behind_a_stop_is_that_of_there(method):
    """It becomes a thousand times as large at the second stop, where no step has asked for another one."""
    fast = {"rate": 3000.0}
    solution = solve(jumping(**fast), JUMP_U0, JUMP_THETA, (0.0, END), stops=STOPS, method=method, rtol=TOL, atol=TOL)
    expected = exact(JUMP_U0, JUMP_THETA, 0.0, END, **fast)[:2].real
    np.testing.assert_allclose(solution.u_T, expected, rtol=0, atol=FACTORS.get(method, 10.0) * TOL)
    for adjoint in adjoints_of(method):
        bar = solution.pullback(SEED, adjoint=adjoint, wrt=("u0", "theta"))
        closed = exact_gradient(lambda *given: SEED @ exact(*given, **fast)[:2])[:6]
        np.testing.assert_allclose([*bar.u0, *bar.theta], closed, rtol=0, atol=FACTORS.get(method, 10.0) * TOL)
    if method == "auto":
        assert solution.stats.n_switch == 1 and solution.t[np.flatnonzero(solution.stiff)[0]] > SECOND


def test_a_linear_problem_with_fixed_steps_needs_its_jacobian_once_for_each_piece():
    """At most: Newton's first correction is taken for exact only with the Jacobian that it was measured with."""
    stats = solved(method="Radau", step=0.1).stats
    assert stats.n_jac == 3 and stats.n_newton <= 2 * stats.n_steps


def forced_f(t, u, theta, du):
    du[0] = (theta[0] * np.cos(3.0 * t) if t < 1.0 else theta[1] * np.sin(2.0 * t)) - theta[2] * (1.0 + t) * u[0]


def forced_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[2] * (1.0 + t) * lam[0]
    theta_bar[0] = np.cos(3.0 * t) * lam[0] if t < 1.0 else 0.0
    theta_bar[1] = 0.0 if t < 1.0 else np.sin(2.0 * t) * lam[0]
    theta_bar[2] = -(1.0 + t) * u[0] * lam[0]


@by_adjoint
def test_a_stage_behind_the_end_of_a_step(adjoint):
    """Kvaerno5 has one: that it is taken at the stop costs a step or two where f depends on time, and no error."""
    forced = Dynamics(forced_f, forced_vjp)
    run = functools.partial(solve, forced, [0.3], [1.0, 2.0, 0.5], (0.0, 2.0), stops=[1.0])
    exactly = run(method="DOP853", rtol=1e-12, atol=1e-13)
    solution = run(method="Kvaerno5", rtol=TOL, atol=TOL)
    assert abs(solution.u_T - exactly.u_T) < TOL and solution.stats.n_rejected < 6
    bars = solution.pullback([1.0], adjoint=adjoint), exactly.pullback([1.0], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(bars[0].theta, bars[1].theta, rtol=0, atol=TOL)


# --- mass matrices --------------------------------------------------------------------------------------------------------------
MASS = np.array([[2.0, 0.5], [0.0, 0.5]])


@functools.cache
def massed(sign, singular):
    """The same problem with M u' = M f, or with a third state z, 0 = theta_0 x - z."""
    f, vjp = map(njit, callbacks(sign, False)[:2])
    if not singular:

        def massed_f(t, u, theta, du):
            f(t, u, theta, du)
            du[0], du[1] = 2.0 * du[0] + 0.5 * du[1], 0.5 * du[1]

        def massed_vjp(t, u, theta, lam, u_bar, theta_bar):
            turned = np.array([2.0 * lam[0], 0.5 * lam[0] + 0.5 * lam[1]])
            vjp(t, u, theta, turned, u_bar, theta_bar)

        return Dynamics(massed_f, massed_vjp, mass=MASS)

    def algebraic_f(t, u, theta, du):
        f(t, u, theta, du)
        du[2] = theta[0] * u[0] - u[2]

    def algebraic_vjp(t, u, theta, lam, u_bar, theta_bar):
        vjp(t, u, theta, lam, u_bar, theta_bar)
        u_bar[0] += theta[0] * lam[2]
        u_bar[2] = -lam[2]
        theta_bar[0] += u[0] * lam[2]

    return Dynamics(algebraic_f, algebraic_vjp, mass=[1.0, 1.0, 0.0])


@by_direction
def test_a_mass_matrix(sign):
    options = {"stops": own_time(sign, STOPS), "method": "Radau", "rtol": TOL, "atol": TOL}
    solution = solve(massed(sign, False), JUMP_U0, JUMP_THETA, span_of(sign), **options)
    bar = solution.pullback(SEED, adjoint="discrete")
    np.testing.assert_allclose(solution.u_T, exact(JUMP_U0, JUMP_THETA, 0.0, END)[:2].real, rtol=0, atol=TOL)
    expected = exact_gradient(final) * np.array([1.0] * 6 + [sign] * 2)
    np.testing.assert_allclose([*bar.u0, *bar.theta, bar.t0, bar.T], expected, rtol=0, atol=10 * TOL)


@by_direction
def test_algebraic_equations(sign):
    options = {"stops": own_time(sign, STOPS), "method": "Radau", "rtol": TOL, "atol": TOL}
    start = np.append(JUMP_U0, JUMP_THETA[0] * JUMP_U0[0])
    solution = solve(massed(sign, True), start, JUMP_THETA, span_of(sign), **options)
    np.testing.assert_allclose(solution.u_T[:2], exact(JUMP_U0, JUMP_THETA, 0.0, END)[:2].real, rtol=0, atol=TOL)
    bar = solution.pullback([*SEED, 1.0], adjoint="discrete", wrt=("u0", "theta"))

    def with_z(u0, theta, t0, T):
        state = exact(u0, theta, t0, T)
        return SEED @ state[:2] + theta[0] * state[0]

    np.testing.assert_allclose([*bar.u0[:2], *bar.theta], exact_gradient(with_z)[:6], rtol=0, atol=10 * TOL)
