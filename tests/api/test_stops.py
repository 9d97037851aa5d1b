"""`stops=` everywhere: fused, in ensembles, fits and compiled code of one's own; what refuses it."""

import copy
import functools
import pickle

import numba
import numpy as np
import pytest

from adjode import Fit, SolveError, ensemble_value_and_gradient, solve, solve_ensemble, value_and_gradient
from adjode.losses import FinalState, LeastSquares
from tests.problems.jumps import END, FIRST, JUMP_THETA, JUMP_U0, SECOND, SEED, exact, exact_gradient, final, jumping

STOPS, OPTIONS = [FIRST, SECOND], {"rtol": 1e-7, "atol": 1e-7, "stops": [SECOND, FIRST, 9.0]}
by_adjoint = pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
# stops inside, at the ends, a spacing from them, and outside of every span
SPANS = np.array(
    [
        [0.0, END],
        [0.5, END],
        [FIRST, SECOND],
        [np.nextafter(FIRST, 2.0), np.nextafter(SECOND, 0.0)],
        [np.nextafter(FIRST, 0.0), np.nextafter(SECOND, 3.0)],
        [2.6, 3.0],
        [0.0, 0.7],
    ]
)
SOME = [0.0, 1.0, np.nextafter(1.0, 2.0), 2.5, 3.2]


def losses_for(span):
    times = np.array([t for t in SOME if span[0] <= t <= span[1]])
    return {"final": FinalState(SEED), "least squares": LeastSquares(times, np.zeros((times.size, 2)))}


@by_adjoint
@pytest.mark.parametrize("loss", ["final", "least squares"])
def test_an_ensemble_has_the_bits_of_single_calls(adjoint, loss):
    spans = SPANS if loss == "final" else SPANS[:1].repeat(3, axis=0)
    rng, losses = np.random.default_rng(0), losses_for((0.0, END))
    u0 = JUMP_U0 + rng.normal(size=(len(spans), 2))
    every = ensemble_value_and_gradient(jumping(), losses[loss], spans, adjoint=adjoint, **OPTIONS)
    values, bars = every(u0, JUMP_THETA)
    n_steps = []
    for i, span in enumerate(spans):
        value, bar = value_and_gradient(jumping(), losses[loss], span, adjoint=adjoint, **OPTIONS)(u0[i], JUMP_THETA)
        assert value == values[i]
        np.testing.assert_array_equal(bar.u0, bars.u0[i])
        solved = solve(jumping(), u0[i], JUMP_THETA, span, **OPTIONS).stats
        n_steps.append(bar.stats.n_steps if bar.stats.n_refined else solved.n_steps)
    np.testing.assert_array_equal(bars.stats.n_steps, n_steps)


@by_adjoint
def test_an_ensemble_of_spans_against_the_closed_form(adjoint):
    start = np.tile(JUMP_U0, (len(SPANS), 1))
    each = np.tile(JUMP_THETA, (len(SPANS), 1))
    values, bars = ensemble_value_and_gradient(jumping(), FinalState(SEED), SPANS, adjoint=adjoint, **OPTIONS)(start, each)
    for i, (t0, T) in enumerate(SPANS):
        assert values[i] == pytest.approx(final(JUMP_U0, JUMP_THETA, t0, T).real, abs=1e-6)
        np.testing.assert_allclose([*bars.u0[i], *bars.theta[i]], exact_gradient(final, t0=t0, T=T)[:6], rtol=0, atol=1e-6)


def test_the_solution_of_an_ensemble_and_its_pullback():
    ens = solve_ensemble(jumping(), np.tile(JUMP_U0, (len(SPANS), 1)), JUMP_THETA, SPANS, **OPTIONS)
    bars = ens.pullback(np.tile(SEED, (len(SPANS), 1)))
    for i, span in enumerate(SPANS):
        one = solve(jumping(), JUMP_U0, JUMP_THETA, span, **OPTIONS)
        np.testing.assert_array_equal(ens.u_T[i], one.u_T)
        np.testing.assert_allclose(bars.u0[i], one.pullback(SEED).u0, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(ens[i].t, one.t)


@pytest.mark.slow
@pytest.mark.jitted
@by_adjoint
def test_fused(adjoint):
    loss = losses_for((0.0, END))["least squares"]
    results = []
    for fused in (False, True):
        dynamics = jumping(fused=fused)
        prepared = value_and_gradient(dynamics, loss, (0.0, END), adjoint=adjoint, **OPTIONS)
        (value, bar), (again, other) = prepared(JUMP_U0, JUMP_THETA), prepared.step_by_step(JUMP_U0, JUMP_THETA)
        results.append([value, *bar.u0, *bar.theta])
        np.testing.assert_allclose([again, *other.u0, *other.theta], results[-1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=2e-6)


@pytest.mark.slow
@pytest.mark.jitted
@by_adjoint
def test_which_side_a_stop_belongs_to_changes_no_bit_of_a_fused_pass(adjoint):
    run = functools.partial(value_and_gradient, loss=FinalState(SEED), t_span=(0.0, END), adjoint=adjoint, **OPTIONS)
    (value, bar), (other, same) = (run(jumping(inclusive=i, fused=True))(JUMP_U0, JUMP_THETA) for i in (False, True))
    assert value == other
    np.testing.assert_array_equal([*bar.u0, *bar.theta], [*same.u0, *same.theta])


@pytest.mark.jitted
@by_adjoint
def test_jitted(adjoint):
    prepared = value_and_gradient(jumping(), losses_for((0.0, END))["least squares"], (0.0, END), adjoint=adjoint, **OPTIONS)
    value, bar = prepared(JUMP_U0, JUMP_THETA)
    evaluate = prepared.jitted(2, 4)

    @numba.njit
    def call(u0, theta):
        u0_bar, theta_bar = np.empty(2), np.empty(4)
        status, value = evaluate(u0, theta, u0_bar, theta_bar)
        return status, value, u0_bar, theta_bar

    status, again, u0_bar, theta_bar = call(JUMP_U0, JUMP_THETA)
    assert status == 0 and again == value
    np.testing.assert_array_equal(u0_bar, bar.u0)
    np.testing.assert_array_equal(theta_bar, bar.theta)


@by_adjoint
def test_a_store_that_grows_at_a_stop(adjoint):
    """More crossings than there is room for at first, so that it is full at stops, too."""
    many = OPTIONS | {"stops": np.arange(1, 800) * END / 800}
    value, bar = value_and_gradient(jumping(), FinalState(SEED), (0.0, END), adjoint=adjoint, **many)(JUMP_U0, JUMP_THETA)
    assert value == pytest.approx(final(JUMP_U0, JUMP_THETA, 0.0, END).real, abs=1e-6)
    np.testing.assert_allclose([*bar.u0, *bar.theta], exact_gradient(final)[:6], rtol=0, atol=1e-6)


@by_adjoint
def test_a_fit_finds_parameters_on_either_side(adjoint):
    times = np.linspace(0.0, END, 17)
    data = np.array([exact(JUMP_U0, JUMP_THETA, 0.0, t)[:2].real for t in times])
    fit = Fit(jumping(), LeastSquares(times, data), (0.0, END), u0=JUMP_U0, theta=[0.5, 1.0, 1.0, 0.2], adjoint=adjoint, **OPTIONS)
    found = fit.minimize()
    np.testing.assert_allclose(found.theta, JUMP_THETA, rtol=0, atol=1e-3)


def test_copies_keep_the_stops():
    prepared = value_and_gradient(jumping(), FinalState(SEED), (0.0, END), **OPTIONS)
    value, _ = prepared(JUMP_U0, JUMP_THETA)
    for other in (copy.deepcopy(prepared), copy.copy(prepared)):
        assert other(JUMP_U0, JUMP_THETA)[0] == value
    assert pickle.loads(pickle.dumps(prepared.forward_options)).stops.tolist() == [FIRST, SECOND, 9.0]


def test_backsolve_refuses():
    solution = solve(jumping(), JUMP_U0, JUMP_THETA, (0.0, END), **OPTIONS)
    with pytest.raises(
        ValueError,
        match="backsolve' does not support stops or breaks of the dynamics: choose adjoint='discrete' or 'interpolating'",
    ):
        solution.pullback(SEED, adjoint="backsolve")
    prepared = value_and_gradient(jumping(), FinalState(SEED), (0.0, END), adjoint="backsolve", **OPTIONS)
    with pytest.raises(ValueError, match="backsolve' does not support stops"):
        prepared(JUMP_U0, JUMP_THETA)


@pytest.mark.parametrize(
    ("stops", "error", "says"),
    [
        ([1.0, np.nan], ValueError, "stops must be finite, but entry 1 is nan"),
        ([[1.0, 2.0]], ValueError, "stops must have one dimension"),
        (["noon"], TypeError, "stops must hold real numbers"),
        (None, TypeError, "stops must hold real numbers"),
    ],
)
def test_bad_stops(stops, error, says):
    with pytest.raises(error, match=says):
        solve(jumping(), JUMP_U0, JUMP_THETA, (0.0, END), stops=stops)


def test_one_number_is_one_stop():
    one, other = (solve(jumping(), JUMP_U0, JUMP_THETA, (0.0, 2.0), stops=stops) for stops in (1.0, [1.0]))
    np.testing.assert_array_equal(one.u, other.u)


def test_an_error_behind_a_stop_says_where():
    with pytest.raises(SolveError) as caught:
        solve(jumping(), JUMP_U0, [1.0, 1e308, 0.7, 0.4], (0.0, END), **OPTIONS)
    assert caught.value.t >= FIRST
