"""`ensemble_value_and_gradient` on threads: a loop of single calls, to the last bit."""

import functools
import math
import threading
import tracemalloc

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adjode import Dynamics, SolveError, Status, ensemble_value_and_gradient, value_and_gradient
from adjode.backends import outcome
from adjode.backends.outcome import block_size, pairwise_sum
from adjode.backends.threads import run_blocks
from adjode.losses import FinalState, LeastSquares, Series
from benchmarks.problems import lv_dynamics, lv_f
from tests.problems.systems import DECAY, LOGISTIC, LV_THETA, LV_U0, OSCILLATOR, lotka_volterra

SPAN = (0.0, 2.0)
T_OBS = [0.0, 0.3, 0.31, 1.7, 2.0, 0.3]  # in no order, one twice, both ends


@numba.njit
def squares(k, t, u, u_bar):
    u_bar[0] = 2.0 * u[0] * (k + 1.0)
    u_bar[1] = t
    return u[0] ** 2 * (k + 1.0) + t * u[1]


def least_squares(*members):
    y = np.random.default_rng(2).uniform(0.5, 3.0, (*members, len(T_OBS), 2))
    y[..., 2, 1] = np.nan
    return LeastSquares(T_OBS, y, sigma=0.3)


LOSSES = {
    "final": FinalState([1.0, -2.0]),
    "least squares": least_squares(),
    "series": Series(T_OBS, squares),
    "at the start": Series([0.0], squares),
}


def inputs(N, seed=0):
    rng = np.random.default_rng(seed)
    return LV_U0 + rng.uniform(-0.3, 0.3, (N, 2)), LV_THETA * rng.uniform(0.8, 1.2, (N, 4))


@functools.cache
def ensemble(loss="final", adjoint="discrete", workers=None, fused=False, **options):
    return ensemble_value_and_gradient(lv_dynamics(fused), LOSSES[loss], SPAN, adjoint=adjoint, workers=workers, **options)


@functools.cache
def single(loss="final", adjoint="discrete", fused=False, **options):
    return value_and_gradient(lv_dynamics(fused), LOSSES[loss], SPAN, adjoint=adjoint, **options)


def assert_equals_loop(got, evaluate, u0, theta):
    """Bit for bit; `u0` and `theta` may have one row for all."""
    value, bar = got
    for i in range(len(value)):
        one, expected = evaluate(u0 if u0.ndim == 1 else u0[i], theta if theta.ndim == 1 else theta[i])
        assert value[i] == one
        for name, rows in (("u0", u0), ("theta", theta)):
            if rows.ndim == 2 and getattr(bar, name) is not None:
                np.testing.assert_array_equal(getattr(bar, name)[i], getattr(expected, name))
        assert (bar.error is None) == (expected.error is None)
        assert {name: errors[i] for name, errors in (bar.error or {}).items()} == (expected.error or {})


def members_of(bar, which):
    return type(bar)(bar.u0[which], bar.theta[which], error={name: errors[which] for name, errors in bar.error.items()})


def assert_sum(total, terms):
    """The sum of the terms to rounding, more closely than adding them one by one would be."""
    exact = np.array([math.fsum(column) for column in np.transpose(terms)])
    np.testing.assert_allclose(total, exact, rtol=0.0, atol=4e-16 * np.abs(terms).sum(axis=0).max())


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.jitted
def test_every_loss_equals_the_loop(loss, adjoint):
    u0, theta = inputs(7)
    assert_equals_loop(ensemble(loss, adjoint)(u0, theta), single(loss, adjoint), u0, theta)


@settings(max_examples=40, deadline=None)
@given(
    N=st.integers(1, 40),
    seed=st.integers(0, 99),
    shared=st.sampled_from([(), ("u0",), ("theta",)]),
    wrt=st.sampled_from([("u0", "theta"), ("u0",), ("theta",)]),
    most_blocks=st.sampled_from([1, 3, 8, 1024]),
    order=st.randoms(use_true_random=False),
)
def test_ensemble_equals_loop(N, seed, shared, wrt, most_blocks, order):
    """Whatever N, the blocks, the number of threads and the order of trajectories."""
    u0, theta = inputs(N, seed)
    u0, theta = (u0[0] if "u0" in shared else u0), (theta[0] if "theta" in shared else theta)
    kept = outcome._MOST_BLOCKS, outcome._LEAST_BLOCKS
    outcome._MOST_BLOCKS = outcome._LEAST_BLOCKS = most_blocks
    try:
        results = [ensemble(workers=workers, wrt=wrt)(u0, theta) for workers in (1, 2, 3)]
        permuted = list(range(N))
        order.shuffle(permuted)
        moved = ensemble(workers=2, wrt=wrt)(*(rows if rows.ndim == 1 else rows[permuted] for rows in (u0, theta)))
    finally:
        outcome._MOST_BLOCKS, outcome._LEAST_BLOCKS = kept
    evaluate = single(wrt=wrt)
    for value, bar in results:
        assert_equals_loop((value, bar), evaluate, u0, theta)
        assert (bar.u0 is None) == ("u0" not in wrt) and (bar.theta is None) == ("theta" not in wrt)
        for name in wrt:
            np.testing.assert_array_equal(getattr(bar, name), getattr(results[0][1], name))
    np.testing.assert_array_equal(moved[0], results[0][0][permuted])
    singles = [evaluate(u0 if u0.ndim == 1 else u0[i], theta if theta.ndim == 1 else theta[i])[1] for i in range(N)]
    for name in set(wrt) & set(shared):
        assert_sum(getattr(results[0][1], name), [getattr(bar, name) for bar in singles])


@pytest.mark.slow
@pytest.mark.jitted
@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_fused_ensembles_equal_fused_calls(adjoint):
    u0, theta = inputs(31)
    options = {"rtol": 1e-8, "atol": 1e-8}
    assert_equals_loop(
        ensemble("final", adjoint, fused=True, **options)(u0, theta), single("final", adjoint, True, **options), u0, theta
    )


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("method", ["Radau", "Kvaerno5"])
def test_implicit_methods(method, adjoint):
    """No Jacobian or factorisation is left over from the trajectory before."""
    u0, theta = inputs(9)
    problem = {"loss": "least squares", "adjoint": adjoint, "method": method}
    assert_equals_loop(ensemble(**problem, workers=2)(u0, theta), single(**problem), u0, theta)


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("backwards", [False, True])
def test_spans_of_their_own(adjoint, backwards):
    """Some trajectories begin or end at an observation, and the first may be one of these."""
    u0, theta = inputs(6)
    spans = np.array([[0.0, 2.5], [-0.3, 2.0], [0.0, 2.0], [-1.0, 3.0], [-0.5, 2.1], [-0.1, 2.2]])
    spans = spans[:, ::-1] if backwards else spans
    for loss in (LOSSES["final"], LOSSES["least squares"]):
        for first in (0, 1, 3):
            order = np.roll(np.arange(6), -first)
            value, bar = ensemble_value_and_gradient(lv_dynamics(), loss, spans[order], adjoint=adjoint)(u0, theta[0])
            bars = []
            for i, k in enumerate(order):
                one, expected = value_and_gradient(lv_dynamics(), loss, spans[k], adjoint=adjoint)(u0[i], theta[0])
                assert value[i] == one
                np.testing.assert_array_equal(bar.u0[i], expected.u0)
                bars.append(expected.theta)
            assert_sum(bar.theta, bars)


def test_data_of_their_own():
    u0, theta = inputs(5)
    sigma = np.random.default_rng(0).uniform(0.1, 1.0, (5, len(T_OBS), 2))
    y = least_squares(5).y_obs
    for loss in (least_squares(5), LeastSquares(T_OBS, np.abs(y), sigma=sigma, log=True), FinalState(u0 - 1.0)):
        kept = loss.by_member and {name: getattr(loss, name).copy() for name in loss.by_member}
        for workers in (1, 3):
            value, bar = ensemble_value_and_gradient(lv_dynamics(), loss, SPAN, workers=workers)(u0, theta[0])
            for i in range(5):
                one, expected = value_and_gradient(lv_dynamics(), loss.member(i), SPAN)(u0[i], theta[0])
                assert value[i] == one and (bar.u0[i] == expected.u0).all()
        for name, array in kept.items():  # the data are the user's
            np.testing.assert_array_equal(getattr(loss, name), array)
    value, _ = ensemble_value_and_gradient(lv_dynamics(), least_squares(5), SPAN)(u0[0], theta[0])  # nothing else has rows
    assert value.shape == (5,) and np.unique(value).size == 5
    with pytest.raises(ValueError, match="has data for each of 5 members of an ensemble"):
        value_and_gradient(lv_dynamics(), least_squares(5), SPAN)(u0[0], theta[0])


def test_gradients_of_closed_forms():
    """Beside exact derivatives, for systems of one, two and seven states."""
    for case in (LOGISTIC, OSCILLATOR, DECAY):
        n, u_T_bar = case.u0.size, np.linspace(1.0, -0.5, case.u0.size)
        factors = np.linspace(0.9, 1.1, 5)[:, None]
        evaluate = ensemble_value_and_gradient(case.dynamics, FinalState(u_T_bar), case.t_span, rtol=1e-10, atol=1e-12)
        value, bar = evaluate(case.u0 * factors, case.theta * factors)
        for i, factor in enumerate(factors):
            moved = type(case)(case.name, case.build, case.final, case.u0 * factor, case.theta * factor, case.t_span)
            exact = moved.cotangents(u_T_bar)
            np.testing.assert_allclose(bar.u0[i], exact[0], rtol=1e-7, atol=1e-9)
            np.testing.assert_allclose(bar.theta[i], exact[1], rtol=1e-7, atol=1e-9)
        assert bar.u0.shape == (5, n)


def test_gradient_of_the_sum_by_differences():
    """Of a shared theta, by central differences of the reduced value with fixed steps."""
    u0, theta = inputs(9)
    evaluate = ensemble_value_and_gradient(lv_dynamics(), LOSSES["least squares"], SPAN, reduce="sum", step=0.01)
    value, bar = evaluate(u0, theta[0])
    assert isinstance(value, float) and bar.theta.shape == (4,) and bar.u0.shape == (9, 2)
    for j in range(4):
        step = 1e-5 * np.eye(4)[j]
        slope = (evaluate(u0, theta[0] + step)[0] - evaluate(u0, theta[0] - step)[0]) / 2e-5
        assert bar.theta[j] == pytest.approx(slope, rel=1e-6)


def test_no_trajectory_and_one():
    u0, theta = inputs(1)
    value, bar = ensemble()(u0[:0], theta[0])
    assert value.shape == (0,) and bar.u0.shape == (0, 2) and (bar.theta == 0.0).all() and bar.stats.status.size == 0
    assert ensemble(reduce="sum")(u0[:0], theta[0])[0] == 0.0
    value, bar = ensemble_value_and_gradient(lv_dynamics(), LOSSES["final"], np.zeros((0, 2)))(u0[0], theta[0])
    assert value.shape == (0,)
    value, bar = ensemble()(u0, theta[0])
    one, expected = single()(u0[0], theta[0])
    assert value[0] == one and (bar.theta == expected.theta).all() and (bar.u0[0] == expected.u0).all()


def test_stats_are_those_of_each_trajectory():
    u0, theta = inputs(4)
    _, bar = ensemble()(u0, theta)
    for i in range(4):
        assert bar.stats.n_steps[i] == single()(u0[i], theta[i])[1].stats.n_steps
    assert (bar.stats.n_f == 6 * (bar.stats.n_steps + bar.stats.n_rejected) + 2).all() and bar.stats.n_failed == 0


# --- failures --------------------------------------------------------------------------------------------------------------


def failing():
    """An ensemble of 40 with three members that fail, for three reasons, and those that do not."""
    u0, theta = inputs(40)
    u0[7, 1] = np.nan
    theta[20] *= 1e7  # takes more than max_steps
    u0[33] = 1e308
    return u0, theta, [7, 20, 33], np.setdiff1d(np.arange(40), [7, 20, 33])


@pytest.mark.parametrize("workers", [1, 3])
def test_failing_members_do_not_touch_the_others(workers):
    u0, theta, bad, good = failing()
    value, bar = ensemble(workers=workers, on_failure="nan", max_steps=500)(u0, theta)
    assert bar.stats.n_failed == 3 and (np.flatnonzero(bar.stats.status) == bad).all()
    assert bar.stats.status[20] == Status.MAX_STEPS and bar.stats.status[7] == Status.NON_FINITE
    for array in (value[bad], bar.u0[bad], bar.theta[bad], bar.error["u0"][bad], bar.error["theta"][bad]):
        assert np.isnan(array).all()
    kept = value[good], members_of(bar, good)
    assert_equals_loop(kept, single(max_steps=500), u0[good], theta[good])


def test_raise_says_how_many_and_why():
    u0, theta, *_ = failing()
    with pytest.raises(
        SolveError, match="3 of 40 trajectories failed; the first is number 7: u0 must be finite, but entry 1 is nan"
    ):
        ensemble(max_steps=500)(u0, theta)
    u0[7] = 1.0
    expected = "2 of 40 trajectories failed; the first is number 20: the forward solve stopped at .* the cap of 500 steps"
    with pytest.raises(SolveError, match=expected) as caught:
        ensemble(max_steps=500)(u0, theta)
    assert caught.value.status == Status.MAX_STEPS and caught.value.phase == "forward" and caught.value.t > 0.0


def test_sums_with_failures():
    u0, theta, _, good = failing()
    theta = theta[0]
    u0[20] = np.inf
    sums = {mode: ensemble(on_failure=mode, reduce="sum")(u0, theta) for mode in ("nan", "drop")}
    assert np.isnan(sums["nan"][0]) and np.isnan(sums["nan"][1].theta).all()
    value, bar = sums["drop"]
    singles = [single()(u0[i], theta) for i in good]
    assert value == math.fsum(one for one, _ in singles)
    assert_sum(bar.theta, [each.theta for _, each in singles])
    assert np.isnan(bar.u0[[7, 20, 33]]).all() and np.isfinite(bar.u0[good]).all()


@numba.njit
def raises_sometimes(t, u, theta, lam, u_bar, theta_bar):
    if u[0] > 100.0:
        raise ValueError("too large")
    u_bar[:] = 0.0
    theta_bar[:] = 0.0


@pytest.mark.jitted
def test_exceptions_of_callbacks():
    u0, theta = inputs(5)
    u0[3] = 200.0
    dynamics = Dynamics(lv_f, raises_sometimes)
    with pytest.raises(
        SolveError, match="1 of 5 trajectories failed; the first is number 3: the adjoint solve.*ValueError: too large"
    ):
        ensemble_value_and_gradient(dynamics, LOSSES["final"], (0.0, 0.1))(u0, theta)


# --- buffers and threads -----------------------------------------------------------------------------------------------------


def test_stores_grow_inside_the_loop():
    u0, theta = inputs(5)
    value, bar = ensemble(workers=2, max_step=0.002)(u0, theta)
    assert bar.stats.n_steps.min() >= 1000
    assert_equals_loop((value, bar), single(max_step=0.002), u0, theta)


@pytest.mark.jitted
def test_memory_does_not_grow_with_the_number_of_trajectories():
    """Beyond inputs and outputs: 3000 solves kept would take a hundred megabytes."""
    evaluate = ensemble(workers=2, max_step=0.01)
    u0, theta = inputs(3000)
    evaluate(u0[:4], theta[:4])
    tracemalloc.start()
    value, bar = evaluate(u0, theta)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    outputs = sum(array.nbytes for array in (value, bar.u0, bar.theta, bar.stats.status)) + 3 * bar.stats.n_f.nbytes
    assert peak < outputs + 100_000


@pytest.mark.jitted
def test_large_shared_blocks_are_not_kept_for_each_trajectory():
    """Of 20 000 parameters, 500 trajectories have partial sums for 128 blocks or so: not 80 MB of cotangents."""
    m, N = 20_000, 500
    size = block_size(N, m)
    assert size > 1 and -(-N // size) * m * 8 < 70e6
    assert block_size(N, 3) == 1 and block_size(10**6, 3) == -(-(10**6) // 1024)


def test_calls_from_several_threads():
    u0, theta = inputs(50)
    evaluate, got = ensemble(workers=2), [None] * 4
    expected = evaluate(u0, theta[0])

    def call(k):
        for _ in range(3):
            got[k] = evaluate(u0, theta[0])

    threads = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for value, bar in got:
        assert (value == expected[0]).all() and (bar.theta == expected[1].theta).all()


@pytest.mark.parametrize("seats", [1, 2, 5])
@pytest.mark.parametrize("blocks", [0, 1, 3, 100, 1024])
def test_blocks_are_run_once_each(blocks, seats):
    seen, done = [], []
    run_blocks(
        lambda seat, first, stop: seen.extend(range(first, stop)), list(range(seats)), blocks, lambda a, b: done.append(b - a)
    )
    assert sorted(seen) == list(range(blocks)) and sum(done) == blocks


def test_what_a_thread_raises_stops_the_others():
    class Seat:
        cancelled = False

        def cancel(self):
            self.cancelled = True

    def run(seat, first, stop):
        seen.append(first)
        if first >= 100:
            raise MemoryError("no more")

    seen, seats = [], [Seat(), Seat(), Seat()]
    with pytest.raises(MemoryError, match="no more"):
        run_blocks(run, seats, 1024, None)
    assert max(seen) < 200 and all(seat.cancelled for seat in seats)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 7, 64, 1023])
def test_pairwise_sum(rows):
    terms = np.random.default_rng(rows).normal(size=(rows, 3))
    np.testing.assert_allclose(pairwise_sum(terms), terms.sum(axis=0), rtol=1e-12, atol=1e-13)


def test_compensated_sums():
    """A large term that comes and goes takes nothing of the small ones with it."""
    N = 3000  # blocks of three
    weights = np.ones((N, 1))
    weights[0::3], weights[1::3], weights[2::3] = 1e17, 1.0, -1e17

    def f(t, u, theta, du):
        du[0] = 0.0

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = 0.0

    _, bar = ensemble_value_and_gradient(Dynamics(f, vjp), FinalState(weights), SPAN)([1.0], [])
    assert bar.u0[0] == N / 3


def test_progress(capsys):
    u0, theta = inputs(30)
    expected = ensemble()(u0, theta)
    value, _ = ensemble(progress=True)(u0, theta)
    assert (value == expected[0]).all()
    assert "30.0/30.0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.jitted
def test_many():
    """A hundred thousand, of which some are compared."""
    N = 100_003  # a prime
    u0, theta = inputs(N)
    value, bar = ensemble(workers=2)(u0, theta)
    assert np.isfinite(value).all() and np.isfinite(bar.theta).all()
    some = np.random.default_rng(0).integers(0, N, 200)
    assert_equals_loop((value[some], members_of(bar, some)), single(), u0[some], theta[some])
    one, two = (ensemble(workers=workers)(u0, LV_THETA) for workers in (1, 2))
    assert (one[1].theta == two[1].theta).all() and (one[0] == two[0]).all()


# --- bad input ---------------------------------------------------------------------------------------------------------------

U0, THETA = inputs(3)
BAD_CALLS = [
    ((LV_U0, LV_THETA), ValueError, "an ensemble needs a row for each trajectory in u0"),
    ((U0, THETA[:2]), ValueError, "the numbers of trajectories differ: u0 has 3, theta has 2"),
    (({"prey": 1.0, "predators": 1.0}, THETA), TypeError, r"u0 must be an array of shape \(n,\) or \(N, n\), but a dict was given"),
    ((U0[None], THETA), ValueError, r"u0 must have the shape \(n,\) or \(N, n\), but its shape is \(1, 3, 2\)"),
    ((U0 * 1j, THETA), TypeError, "u0 must hold real numbers"),
    (([1.0, np.nan], THETA), ValueError, "u0 must be finite, but entry 1 is nan"),
    ((np.ones((3, 3)), THETA), ValueError, "weights must have one entry for each of the 3 states"),
    ((U0, THETA[:, :2]), ValueError, "f indexes an array out of bounds where u has 2 entries and theta 2"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), BAD_CALLS, ids=range(len(BAD_CALLS)))
def test_bad_calls(arguments, kind, message):
    with pytest.raises(kind, match=message):
        ensemble()(*arguments)


BAD_OPTIONS = [
    ({"reduce": "mean"}, ValueError, "reduce must be None or 'sum', but 'mean' was given"),
    ({"on_failure": "ignore"}, ValueError, "on_failure must be one of 'raise', 'nan', 'drop'"),
    ({"backend": "gpu"}, ValueError, "backend must be one of 'threads', 'cuda'"),
    ({"workers": 0}, ValueError, "workers must be a positive integer, but 0 was given"),
    ({"chunks": 0}, ValueError, "chunks must be a positive integer, but 0 was given"),
    ({"executor": 3}, TypeError, "executor must have a method submit, as in concurrent.futures, but a int was given"),
    ({"wrt": "T"}, TypeError, "there is no compiled form for wrt=.*take 'u0', 'theta' or both"),
    ({"adjoint": "backsolve"}, TypeError, "there is no compiled form for"),
    ({"rotl": 1e-3}, TypeError, "option 'rotl' is unknown"),
    ({"quadrature": "gauss"}, ValueError, "belongs to the continuous adjoints"),
    ({"t_span": (0.0, 0.0)}, ValueError, "t_span must have a length: t0 and T are equal"),
    ({"t_span": [(0.0, 1.0), (1.0, 1.0)]}, ValueError, "t_span must have a length: t0 and T are equal in trajectory 1"),
    ({"t_span": [(0.0, 1.0), (1.0, 0.0)]}, ValueError, "must run the same way in time, but trajectory 1 runs against the first"),
    ({"t_span": [(0.0, 1.0, 2.0)]}, ValueError, r"or have the shape \(N, 2\), but its shape is \(1, 3\)"),
    ({"t_span": [(0.0, np.inf)]}, ValueError, "t_span must be finite"),
    (
        {"t_span": [(0, 9), (0, 1)], "loss": Series([2.0], squares)},
        ValueError,
        r"in the span \[0.0, 1.0\] in trajectory 1, but 2.0",
    ),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD_OPTIONS, ids=range(len(BAD_OPTIONS)))
def test_bad_options(options, kind, message):
    options = {"loss": LOSSES["final"], "t_span": SPAN, **options}
    with pytest.raises(kind, match=message):
        ensemble_value_and_gradient(lotka_volterra(), **options)


def test_other_bad_input():
    with pytest.raises(TypeError, match=r"dynamics must be an adjode.Dynamics\(f, vjp\), but a function was given"):
        ensemble_value_and_gradient(lv_f, LOSSES["final"], SPAN)
    with pytest.raises(TypeError, match=r"decorate its callback with @numba.njit"):
        ensemble_value_and_gradient(lv_dynamics(), Series([1.0], lambda k, t, u, u_bar: 0.0), SPAN)(U0, THETA)
    with pytest.raises(ValueError, match="the numbers of trajectories differ: u0 has 3, t_span has 2, loss has 5"):
        ensemble_value_and_gradient(lv_dynamics(), least_squares(5), [(0, 2), (0, 2)])(U0, LV_THETA)


def test_named_entries():
    u0, theta = inputs(4)
    pair = np.zeros(4, dtype=[("prey", float), ("predators", float)])
    pair["prey"], pair["predators"] = u0.T
    rates = np.array((tuple(LV_THETA),), dtype=[("rates", float, 4)])[()]
    value, bar = ensemble()(pair, rates)
    expected = ensemble()(u0, LV_THETA)
    assert (value == expected[0]).all() and (bar.u0["predators"] == expected[1].u0[:, 1]).all()
    assert (bar.theta["rates"] == expected[1].theta).all()
