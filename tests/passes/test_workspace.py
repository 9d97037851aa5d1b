"""`value_and_gradient` on prepared buffers: the numbers of the long way round, from Python and from compiled code."""

import threading
import tracemalloc

import numba
import numpy as np
import pytest

from adjode import Dynamics, Event, SolveError, value_and_gradient
from adjode.losses import FinalState, LeastSquares, Series
from benchmarks.problems import lv_f, lv_vjp
from tests.problems.systems import LV_SPAN, LV_THETA, LV_U0, lotka_volterra, lv_vjp_u

T_OBS = np.array([4.0, 0.0, 10.0, 0.3, 0.31, 4.0, 7.5])  # in no order, one twice, both ends
RNG = np.random.default_rng(1)
Y_OBS = RNG.uniform(0.5, 3.0, (T_OBS.size, 2))
Y_OBS[2, 1] = np.nan


@numba.njit
def squares(k, t, u, u_bar):
    u_bar[0] = 2.0 * u[0] * (k + 1.0)
    u_bar[1] = t
    return u[0] ** 2 * (k + 1.0) + t * u[1]


LOSSES = {
    "final": FinalState([1.0, -2.0]),
    "least squares": LeastSquares(T_OBS, Y_OBS, sigma=0.3),
    "logarithms": LeastSquares(T_OBS, Y_OBS[:, 1:], components=[1], log=True),
    "jitted series": Series(T_OBS, squares),
    "python series": Series(T_OBS, getattr(squares, "py_func", squares)),
    "at the start": Series([0.0], squares),
    "before the end": Series([1.0, 2.0], squares),
    "nothing": Series([], squares),
}


class LongWay:
    """The same loss without its preparation."""

    def __init__(self, loss):
        self.loss = loss

    def value_and_cotangents(self, solution):
        return self.loss.value_and_cotangents(solution)


def pair(loss, t_span=LV_SPAN, dynamics=None, **options):
    options = {"rtol": 1e-8, "atol": 1e-8, **options}
    dynamics = dynamics or lotka_volterra()
    return [value_and_gradient(dynamics, one, t_span, **options) for one in (loss, LongWay(loss))]


def assert_same(one, other, rtol=1e-11):
    assert one[0] == pytest.approx(other[0], rel=rtol)
    for a, b in ((one[1].u0, other[1].u0), (one[1].theta, other[1].theta)):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_long_way_round(loss, adjoint):
    short, long = pair(LOSSES[loss], adjoint=adjoint)
    assert short._unprepared is None and long._unprepared is not None
    assert_same(short(LV_U0, LV_THETA), long(LV_U0, LV_THETA), 1e-11 if adjoint == "discrete" else 1e-7)


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")  # refined, the long way keeps the value of the first mesh
@pytest.mark.parametrize("method", ["DOP853", "Vern9", "BS3", "RK4"])
@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_every_method(method, adjoint):
    """DOP853 and Vern9 have stages of their own for the dense output; RK4 takes fixed steps."""
    steps = {"rtol": 1e-6, "step": 0.01} if method == "RK4" else {}
    steps |= {"on_inaccurate": "warn"} if adjoint == "discrete" else {}
    short, long = pair(LOSSES["least squares"], method=method, adjoint=adjoint, **steps)
    assert_same(short(LV_U0, LV_THETA), long(LV_U0, LV_THETA), 1e-10 if adjoint == "discrete" else 1e-6)


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("loss", ["final", "jitted series"])
def test_time_backwards(loss, adjoint):
    short, long = pair(LOSSES[loss], t_span=LV_SPAN[::-1], adjoint=adjoint)
    assert_same(short(LV_U0, LV_THETA), long(LV_U0, LV_THETA), 1e-11 if adjoint == "discrete" else 1e-7)


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_options_of_the_continuous_adjoint_and_vjp_u(adjoint):
    dynamics = lotka_volterra(True)
    options = {"quadrature": "augmented", "adjoint_rtol": 1e-9, "adjoint_atol": 1e-9} if adjoint == "interpolating" else {}
    for wrt in ("u0", "theta"):
        short, long = pair(LOSSES["final"], dynamics=dynamics, adjoint=adjoint, wrt=wrt, **options)
        (_, bar), (_, expected) = short(LV_U0, LV_THETA), long(LV_U0, LV_THETA)
        assert (bar.u0 is None) == (wrt != "u0") and (bar.theta is None) == (wrt != "theta")
        np.testing.assert_allclose(getattr(bar, wrt), getattr(expected, wrt), rtol=1e-9)
        assert bar.stats.n_vjp == expected.stats.n_vjp and bar.stats.n_vjp_u == expected.stats.n_vjp_u


def test_the_discrete_adjoint_evaluates_stages_in_the_forward_pass_only():
    """But for one at the end of every other step, which says how the product of lam with it drifts."""
    short, long = pair(LOSSES["final"])
    _, bar = short(LV_U0, LV_THETA)
    _, again = long(LV_U0, LV_THETA)
    assert 0.5 * bar.stats.n_steps <= bar.stats.n_f <= 0.5 * bar.stats.n_steps + 2.0 and again.stats.n_f == 6 * bar.stats.n_steps
    assert bar.stats.n_vjp == again.stats.n_vjp == 6 * bar.stats.n_steps + 1


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_repeated_calls_are_equal_to_the_last_bit(adjoint):
    short, _ = pair(LOSSES["least squares"], adjoint=adjoint)
    first = short(LV_U0, LV_THETA)
    moved = short(LV_U0 + 0.1, LV_THETA * 1.1)
    assert moved[0] != first[0]
    kept = first[1].u0.copy()
    again = short(LV_U0, LV_THETA)
    assert again[0] == first[0]
    np.testing.assert_array_equal(again[1].theta, first[1].theta)
    np.testing.assert_array_equal(first[1].u0, kept)  # the result is the caller's own


def test_named_and_other_inputs():
    short, long = pair(LOSSES["final"])
    flat = short(LV_U0, LV_THETA)
    for u0, theta in (
        ({"prey": LV_U0[0], "predator": LV_U0[1]}, {"rates": LV_THETA}),
        (list(LV_U0), tuple(LV_THETA)),
        (LV_U0.astype(np.float32), LV_THETA),
    ):
        named, expected = short(u0, theta), long(u0, theta)
        (workspace,) = short._idle[2, 4]
        short(u0, theta)
        assert short._idle == {(2, 4): [workspace]}
        assert named[0] == pytest.approx(expected[0], rel=1e-12) and type(named[1].u0) is type(expected[1].u0)
    assert short(LV_U0, LV_THETA)[0] == flat[0]
    strided = np.repeat(LV_U0, 2)[::2]
    assert short(strided, LV_THETA)[0] == flat[0]


def test_bad_input_is_refused_as_everywhere():
    short, _ = pair(LOSSES["final"])
    short(LV_U0, LV_THETA)
    with pytest.raises(ValueError, match="u0 must be finite, but entry 0 is nan"):
        short(np.array([np.nan, 1.0]), LV_THETA)
    with pytest.raises(ValueError, match="theta must be finite, but entry 3 is inf"):
        short(LV_U0, np.append(LV_THETA[:3], np.inf))
    with pytest.raises(ValueError, match="weights must have one entry for each of the 3 states"):
        short(np.ones(3), LV_THETA)
    with pytest.raises(ValueError, match="f indexes an array out of bounds where u has 2 entries and theta 2"):
        short(LV_U0, LV_THETA[:2])
    with pytest.raises(TypeError, match="u0 must hold real numbers"):
        short(LV_U0 * 1j, LV_THETA)
    with pytest.raises(ValueError, match=r"must lie in the span \[0.0, 10.0\]"):
        value_and_gradient(lotka_volterra(), Series([11.0], squares), LV_SPAN)(LV_U0, LV_THETA)
    with pytest.raises(ValueError, match="rtol and atol must not both be zero"):
        value_and_gradient(lotka_volterra(), LOSSES["final"], LV_SPAN, rtol=0.0, atol=0.0)(LV_U0, LV_THETA)
    for option in ({"quadrature": "gauss"}, {"adjoint_rtol": 1e-3}, {"dense_adjoint": True}):
        with pytest.raises(ValueError, match="belongs to the continuous adjoints.*choose adjoint='interpolating'"):
            value_and_gradient(lotka_volterra(), LOSSES["final"], LV_SPAN, **option)
    assert short(LV_U0, LV_THETA)[0] == pytest.approx(short.step_by_step(LV_U0, LV_THETA)[0], rel=1e-12)


def test_a_failed_solve_raises_and_the_next_call_is_well():
    short, _ = pair(LOSSES["final"], max_steps=300)
    value, _ = short(LV_U0, LV_THETA)
    with pytest.raises(SolveError, match="the forward solve stopped at t = .* the cap of 300 steps was reached"):
        short(LV_U0, LV_THETA * 20)
    assert short(LV_U0, LV_THETA)[0] == value


@numba.njit
def raises_late(t, u, theta, lam, u_bar, theta_bar):
    if t < 5.0:
        raise ValueError("too early")
    u_bar[:] = lam
    theta_bar[:] = 0.0


@numba.njit
def careless(k, t, u, u_bar):
    if u[0] > 0.0:
        raise ValueError("not today")
    return 0.0


@pytest.mark.jitted
def test_exceptions_of_callbacks_reach_the_user():
    dynamics = Dynamics(lv_f, raises_late)
    with pytest.raises(SolveError, match="the adjoint solve stopped.*raised ValueError: too early"):
        value_and_gradient(dynamics, LOSSES["final"], LV_SPAN)(LV_U0, LV_THETA)
    with pytest.raises(ValueError, match="not today"):
        value_and_gradient(lotka_volterra(), Series([1.0], careless), LV_SPAN)(LV_U0, LV_THETA)


def test_no_states_and_no_parameters():
    def f(t, u, theta, du):
        for k in range(u.size):
            du[k] = -u[k]

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        for k in range(u.size):
            u_bar[k] = -lam[k]

    dynamics = Dynamics(f, vjp)
    value, bar = value_and_gradient(dynamics, FinalState([2.0]), (0.0, 1.0), rtol=1e-10, atol=1e-10)([3.0], [])
    assert value == pytest.approx(6 * np.exp(-1)) and bar.u0[0] == pytest.approx(2 * np.exp(-1)) and bar.theta.size == 0
    value, bar = value_and_gradient(dynamics, FinalState([]), (0.0, 1.0))([], [])
    assert value == 0.0 and bar.u0.size == 0


@pytest.mark.jitted
@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_stores_grow_and_stay(adjoint):
    short, _ = pair(LOSSES["final"], max_step=0.005, adjoint=adjoint)
    value, bar = short(LV_U0, LV_THETA)
    assert bar.stats.n_steps >= 200
    tracemalloc.start()
    for _ in range(20):
        short(LV_U0, LV_THETA)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000  # 2000 steps would not fit
    again = short(LV_U0, LV_THETA)
    assert again[0] == value and (again[1].theta == bar.theta).all()


@pytest.mark.jitted
def test_threads_have_buffers_of_their_own():
    short, _ = pair(LOSSES["jitted series"])
    points = [(LV_U0 + 0.01 * k, LV_THETA) for k in range(64)]
    expected = [short(*point) for point in points]
    got = [None] * len(points)

    def work(first):
        for k in range(first, len(points), 8):
            for _ in range(20):
                got[k] = short(*points[k])

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(got, expected, strict=True):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1].theta, other[1].theta)


@pytest.mark.jitted
@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("loss", ["final", "least squares", "jitted series"])
def test_jitted(loss, adjoint, fused):
    dynamics = Dynamics(lv_f, lv_vjp, vjp_u=lv_vjp_u, fused=fused)
    evaluate, _ = pair(LOSSES[loss], dynamics=dynamics, adjoint=adjoint)
    gradient = evaluate.jitted(2, 4)

    @numba.njit
    def descend(u0, theta, steps):
        u0_bar, theta_bar = np.empty_like(u0), np.empty_like(theta)
        for _ in range(steps):
            status, value = gradient(u0, theta, u0_bar, theta_bar)
            if status != 0:
                return np.nan, u0_bar, theta_bar
            theta = theta - 1e-4 * theta_bar
        status, value = gradient(u0, theta, u0_bar, theta_bar)
        return value, u0_bar, theta_bar

    value, u0_bar, theta_bar = descend(LV_U0, LV_THETA, 3)
    theta = LV_THETA
    for _ in range(3):
        theta = theta - 1e-4 * evaluate(LV_U0, theta)[1].theta
    expected = evaluate(LV_U0, theta)
    assert value == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(u0_bar, expected[1].u0, rtol=1e-12)
    np.testing.assert_allclose(theta_bar, expected[1].theta, rtol=1e-12)


@pytest.mark.jitted
def test_jitted_failures():
    evaluate, _ = pair(LOSSES["final"], max_steps=300)
    gradient, bars = evaluate.jitted(2, 4), (np.zeros(2), np.zeros(4))
    status, value = gradient(LV_U0, LV_THETA * 20, *bars)
    assert status != 0 and np.isnan(value) and np.isnan(bars[0]).all() and np.isnan(bars[1]).all()
    status, value = gradient(LV_U0, LV_THETA, *bars)
    assert status == 0 and value == evaluate(LV_U0, LV_THETA)[0]
    with pytest.raises(ValueError, match="the sizes that this function was made for"):
        gradient(LV_U0, LV_THETA[:3], *bars)
    with pytest.raises(ValueError, match="indexes an array out of bounds where u has 2 entries and theta 2"):
        evaluate.jitted(2, 2)
    with pytest.raises(TypeError, match="there is no compiled form for a loss of your own"):
        value_and_gradient(lotka_volterra(), LongWay(LOSSES["final"]), LV_SPAN).jitted(2, 4)
    with pytest.raises(TypeError, match=r"decorate its callback with @numba.njit"):
        value_and_gradient(lotka_volterra(), LOSSES["python series"], LV_SPAN).jitted(2, 4)


@pytest.mark.jitted
def test_jitted_grows_its_store():
    evaluate, _ = pair(LOSSES["final"], max_step=0.005)
    bars = np.zeros(2), np.zeros(4)
    status, value = evaluate.jitted(2, 4)(LV_U0, LV_THETA, *bars)
    assert status == 0 and value == evaluate(LV_U0, LV_THETA)[0]


def _never(t, u, theta):
    return u[0] + 1e6


def _halved(t, u, theta, u_new):
    u_new[0] = 0.5 * u[0]


@pytest.mark.parametrize("times", [[10.0], [1.0, 4.0, 7.5]])
def test_a_guard_that_never_fires_asks_for_no_further_stages(times):
    """Dense output is computed where a state is observed inside of a step, and if steps may move at its end."""
    f_calls = []
    for options in ({}, {"events": Event(_never, _halved)}):
        evaluate = value_and_gradient(lotka_volterra(), Series(times, squares), LV_SPAN, method="DOP853", **options)
        workspace = evaluate.workspace(LV_U0, LV_THETA)
        workspace.u0[:], workspace.theta[:] = LV_U0, LV_THETA
        assert workspace.run()
        f_calls.append(workspace.forward.derivatives)
    assert f_calls[1] - f_calls[0] == (3 if times == [10.0] else 0)
