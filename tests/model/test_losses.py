"""Losses and `value_and_gradient`: values by hand, gradients against finite differences."""

import numba
import numpy as np
import pytest

from adjode import SolveError, losses, solve, value_and_gradient, vjp
from tests.problems.systems import DECAY, LV_SPAN, LV_THETA, LV_U0, lotka_volterra

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
T_OBS = np.array([4.0, 1.0, 2.5, 4.0])
Y_OBS = np.array([[1.0, 0.5], [np.nan, 2.0], [3.0, np.nan], [0.7, 0.9]])


def assert_gradient(loss, wrt=("u0", "theta"), **options):
    """Compare with central differences of the value."""
    fun = value_and_gradient(lotka_volterra(), loss, LV_SPAN, wrt=wrt, **TIGHT, **options)
    value, bar = fun(LV_U0, LV_THETA)
    for name, start, gradient in (("u0", LV_U0, bar.u0), ("theta", LV_THETA, bar.theta)):
        if name not in wrt:
            assert gradient is None
            continue
        for i in range(start.size):
            h = 1e-4
            values = []
            for sign in (1, -1):
                moved = start.copy()
                moved[i] += sign * h
                values.append(fun(moved, LV_THETA)[0] if name == "u0" else fun(LV_U0, moved)[0])
            assert gradient[i] == pytest.approx((values[0] - values[1]) / (2 * h), rel=2e-5, abs=1e-5 * np.abs(gradient).max())
    return value, bar


def test_final_state():
    value, _ = assert_gradient(losses.FinalState([1.0, 2.0]))
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, **TIGHT)
    assert value == solution.u_T @ [1.0, 2.0]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("sigma", [1.0, 0.3, [0.5, 2.0], Y_OBS * 0 + 0.7])
def test_least_squares(log, sigma):
    if isinstance(sigma, np.ndarray):
        sigma = np.full(Y_OBS.shape, 0.7)
    value, _ = assert_gradient(losses.LeastSquares(T_OBS, Y_OBS, sigma=sigma, log=log))
    u = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, **TIGHT)(T_OBS)
    residual = (np.log(u) - np.log(Y_OBS) if log else u - Y_OBS) / sigma
    assert value == pytest.approx(0.5 * np.nansum(residual**2), rel=1e-12)


@pytest.mark.parametrize("log", [False, True])
def test_cotangents_of_least_squares_in_the_order_of_the_data(log):
    """By hand, for a time that comes twice, unsorted times and missing data."""
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    u, missing = solution(T_OBS), np.isnan(Y_OBS)
    value, seeds = losses.LeastSquares(T_OBS, Y_OBS, sigma=0.3, log=log).value_and_cotangents(solution)
    residual = np.where(missing, 0.0, np.log(u) - np.log(Y_OBS) if log else u - Y_OBS) / 0.3
    times, u_bars = seeds["observations"]
    np.testing.assert_array_equal(times, T_OBS)
    np.testing.assert_allclose(u_bars, residual / 0.3 / (u if log else 1.0), rtol=1e-14)
    assert value == pytest.approx(0.5 * np.sum(residual**2), rel=1e-14)


@pytest.mark.parametrize("loss", ["squares", "series"])
def test_both_ways_to_a_gradient_see_the_same_loss(loss):
    """The value that `value_and_gradient` computes by prepared passes is that of a solve and the loss."""
    times = np.array([1.0, 2.5, 4.0])
    made = losses.LeastSquares(times, Y_OBS[:3]) if loss == "squares" else losses.Series(times, numba.njit(_quartic))
    fun = value_and_gradient(lotka_volterra(), made, LV_SPAN)
    assert fun(LV_U0, LV_THETA)[0] == pytest.approx(fun.step_by_step(LV_U0, LV_THETA)[0], rel=1e-13)


def test_least_squares_of_one_component():
    value, _ = assert_gradient(losses.LeastSquares(T_OBS, Y_OBS[:, 1], components=[1], sigma=0.5))
    u = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, **TIGHT)(T_OBS)
    assert value == pytest.approx(0.5 * np.nansum(((u[:, 1] - Y_OBS[:, 1]) / 0.5) ** 2))
    swapped = losses.LeastSquares(T_OBS, Y_OBS[:, ::-1], components=[1, 0])
    straight = losses.LeastSquares(T_OBS, Y_OBS)
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    assert swapped.value_and_cotangents(solution)[0] == pytest.approx(straight.value_and_cotangents(solution)[0], rel=1e-14)


def test_no_data_is_no_loss():
    value, bar = value_and_gradient(lotka_volterra(), losses.LeastSquares([], np.zeros((0, 2))), LV_SPAN)(LV_U0, LV_THETA)
    assert value == 0.0 and not bar.theta.any()
    value, bar = value_and_gradient(lotka_volterra(), losses.LeastSquares([1.0], [[np.nan, np.nan]]), LV_SPAN)(LV_U0, LV_THETA)
    assert value == 0.0 and not bar.theta.any()


def _quartic(k, t, u, u_bar):
    u_bar[0] = 4.0 * (k + 1) * u[0] ** 3
    u_bar[1] = t
    return (k + 1) * u[0] ** 4 + t * u[1]


@pytest.mark.parametrize("callback", [_quartic, numba.njit(_quartic)], ids=["plain", "jitted"])
def test_series(callback):
    value, _ = assert_gradient(losses.Series(T_OBS, callback))
    u = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, **TIGHT)(T_OBS)
    assert value == pytest.approx(np.sum(np.arange(1, 5) * u[:, 0] ** 4 + T_OBS * u[:, 1]))


def test_a_jitted_series_over_many_observations():
    """The same numbers as from Python, and not one Python call an observation."""
    times = np.linspace(0.0, 10.0, 20_000)
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    plain = losses.Series(times, _quartic).value_and_cotangents(solution)
    jitted = losses.Series(times, numba.njit(_quartic)).value_and_cotangents(solution)
    assert jitted[0] == pytest.approx(plain[0], rel=1e-12)
    np.testing.assert_allclose(jitted[1]["observations"][1], plain[1]["observations"][1], rtol=1e-14)


def test_series_with_a_forgotten_entry():
    def forgets(k, t, u, u_bar):
        u_bar[0] = 1.0
        return u[0]

    with pytest.raises(SolveError, match=r"its cotangent of u\[1\] at t = 1 is nan.*left the entry out") as caught:
        value_and_gradient(lotka_volterra(), losses.Series([1.0], forgets), LV_SPAN)(LV_U0, LV_THETA)
    assert caught.value.phase == "loss" and caught.value.component == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_what_a_series_raises_comes_through(compiled):
    def raises(k, t, u, u_bar):
        if k == 1:
            raise ZeroDivisionError("no data")
        u_bar[:] = 0.0
        return 0.0

    loss = losses.Series([1.0, 2.0], numba.njit(raises) if compiled else raises)
    with pytest.raises(ZeroDivisionError, match="no data"):
        value_and_gradient(lotka_volterra(), loss, LV_SPAN)(LV_U0, LV_THETA)


@pytest.mark.jitted
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("theta", "options"), [(740.0, {"log": True}), (-700.0, {"sigma": 1e-10})])
def test_overflow_in_a_loss(theta, options):
    loss = losses.LeastSquares([1.0], [1.0], **options)
    with pytest.raises(SolveError, match="the loss is not finite"):
        value_and_gradient(DECAY.dynamics, loss, (0.0, 1.0), atol=0.0)([1.0], [theta])


def _g(t, u, theta):
    return u[0] ** 2


def _g_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[0] = 2 * u[0]
    u_bar[1] = 0.0
    theta_bar[:] = 0.0


def test_running_cost_joins_the_value():
    value, bar = assert_gradient(losses.FinalState([1.0, 0.0]), running_cost=(_g, _g_vjp))
    assert value == pytest.approx(solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, **TIGHT).u_T[0] + bar.running_cost)


def test_wrt_and_options():
    assert_gradient(losses.FinalState([1.0, 2.0]), wrt=("theta",), adjoint="backsolve", quadrature="augmented", method="DOP853")
    fun = value_and_gradient(
        lotka_volterra(), losses.FinalState([1.0, 2.0]), LV_SPAN, wrt="T", adjoint="interpolating", adjoint_rtol=1e-4
    )
    assert fun(LV_U0, LV_THETA)[1].T is not None
    with pytest.raises(TypeError, match="option 'tol' is unknown; the options are adjoint"):
        value_and_gradient(lotka_volterra(), losses.FinalState([1.0, 2.0]), LV_SPAN, tol=1e-3)


def test_adjoint_options_reach_the_pullback():
    loss = losses.FinalState([1.0, 2.0])
    loose, tight = (
        value_and_gradient(lotka_volterra(), loss, LV_SPAN, adjoint="interpolating", adjoint_rtol=tol, adjoint_atol=tol)(
            LV_U0, LV_THETA
        )[1].stats.n_steps
        for tol in (1e-3, 1e-10)
    )
    assert tight > 3 * loose


def test_vjp_is_the_rule_itself():
    u_T, pullback = vjp(DECAY.dynamics, DECAY.u0, DECAY.theta, DECAY.t_span, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(u_T, DECAY.final(DECAY.u0, DECAY.theta, *DECAY.t_span), rtol=1e-9)
    bar = pullback(np.ones(7))
    exact = DECAY.cotangents(np.ones(7))
    np.testing.assert_allclose(bar.u0, exact[0], rtol=1e-8)
    np.testing.assert_allclose(bar.theta, exact[1], rtol=1e-8)


def test_log_of_a_state_that_is_not_positive():
    loss = losses.LeastSquares([1.0], [[1.0]], log=True)
    solution = solve(DECAY.dynamics, [-1.0], [1.0], (0.0, 2.0))
    with pytest.raises(SolveError, match=r"compares logarithms, but u\[0\] is -0.368 at t = 1") as caught:
        loss.value_and_cotangents(solution)
    assert caught.value.phase == "loss" and caught.value.component == 0


BAD = [
    (lambda: losses.FinalState([[[1.0]]]), ValueError, "weights must have one dimension"),
    (lambda: losses.LeastSquares([1.0, 2.0], [[1.0]]), ValueError, r"y_obs must have one row for each of the 2 times"),
    (lambda: losses.LeastSquares([1.0], [["a"]]), TypeError, "y_obs must hold real numbers"),
    (lambda: losses.LeastSquares([1.0], [[-1.0]], log=True), ValueError, r"finite and positive \(log=True\)"),
    (lambda: losses.LeastSquares([1.0], [[np.inf]]), ValueError, "y_obs must be finite"),
    (lambda: losses.LeastSquares([1.0], [[1.0]], sigma=0.0), ValueError, "sigma must be positive"),
    (
        lambda: losses.LeastSquares(np.ma.masked_less([1.0, -9.0], 0.0), np.ones(2)),
        ValueError,
        "t_obs must be numbers, but .* masked",
    ),
    (lambda: losses.LeastSquares([1.0], [1.0], sigma=np.ma.masked_less([-9.0], 0.0)), ValueError, "wherever there is data"),
    (lambda: losses.LeastSquares([1.0], [[1.0]], sigma=[1.0, 2.0]), ValueError, "sigma must be a number or broadcast"),
    (lambda: losses.LeastSquares([1.0], [[1.0]], components=[0, 1]), ValueError, "components must be 1 integers"),
    (lambda: losses.LeastSquares([1.0], [[1.0, 1.0]], components=[0, 0]), ValueError, "components must be different"),
    (lambda: losses.LeastSquares([np.nan], [[1.0]]), ValueError, "t_obs must be finite"),
    (lambda: losses.Series([1.0], 3), TypeError, "value_and_cotangent must be a function"),
    (lambda: losses.Series([1.0], lambda k, t, u: 0.0), TypeError, "value_and_cotangent takes 3 arguments"),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD, ids=range(len(BAD)))
def test_bad_losses(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_losses_that_do_not_fit_the_state():
    solution = solve(DECAY.dynamics, [1.0], [1.0], (0.0, 2.0))
    with pytest.raises(ValueError, match="weights must have one entry for each of the 1 states"):
        losses.FinalState([1.0, 2.0]).value_and_cotangents(solution)
    with pytest.raises(ValueError, match="components go up to 1, but the state has 1"):
        losses.LeastSquares([1.0], [[1.0, 1.0]]).value_and_cotangents(solution)
    with pytest.raises(ValueError, match="t must lie in the span"):
        losses.LeastSquares([3.0], [[1.0]]).value_and_cotangents(solution)


def test_masked_data_is_missing():
    masked = np.ma.masked_invalid(Y_OBS)
    masked.data[masked.mask] = -999.0
    sigma = np.ma.array(np.full(Y_OBS.shape, 0.3), mask=masked.mask)
    sigma.data[masked.mask] = -1.0
    solved = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 4.0))
    expected, other = (losses.LeastSquares(T_OBS, *given).value_and_cotangents(solved) for given in [(Y_OBS,), (masked,)])
    assert np.ma.is_masked(masked) and other[0] == expected[0]
    value, _ = losses.LeastSquares(T_OBS, masked, sigma=sigma).value_and_cotangents(solved)
    assert value == pytest.approx(expected[0] / 0.3**2, rel=1e-12)
    beside, _ = losses.LeastSquares(T_OBS, Y_OBS, sigma=np.where(np.isnan(Y_OBS), np.nan, 0.3)).value_and_cotangents(solved)
    assert beside == value
    with pytest.raises(ValueError, match="u0 must be numbers, but some of its entries are masked"):
        solve(lotka_volterra(), np.ma.masked_greater(LV_U0, 0.0), LV_THETA, (0.0, 1.0))
