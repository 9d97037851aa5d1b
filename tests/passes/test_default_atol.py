"""Absolute tolerances by default: states are solved alike in all units, whether their sizes are known from u0 or from data."""

import numpy as np
import pytest

from adjode import (
    Dynamics,
    Fit,
    ensemble_value_and_gradient,
    hessian_vector_product,
    residuals_and_jacobian,
    solve,
    solve_ensemble,
    value_and_gradient,
)
from adjode.losses import FinalState, Gaussian, LeastSquares, Likelihood, LogNormal, Series
from adjode.passes.options import rows_at_most

RATES, T, SMALL = np.array([1.3, 0.4]), 4.0, 1e-8
T_OBS = np.linspace(0.5, T, 8)


def f(t, u, theta, du):
    du[0] = -theta[0] * u[0]
    du[1] = theta[0] * u[0] - theta[1] * u[1]


decay = Dynamics(f)


def exact(t, u0, theta):
    """u0 decays into the second state, which decays in its turn."""
    a, b = (np.exp(-rate * t) for rate in theta)
    return np.stack([u0[0] * a, u0[1] * b + u0[0] * theta[0] / (theta[1] - theta[0]) * (a - b)], axis=-1)


def squares(k, t, u, u_bar):
    u_bar[:] = 2.0 * u
    return (u**2).sum()


def least_squares(scale, columns=(0, 1), sigma=0.1):
    """Data of a solution from (1, 0), with errors, in units of `scale`."""
    y = (exact(T_OBS, (1.0, 0.0), RATES) * (1.0 + 0.3 * np.sin(7.0 * np.arange(16).reshape(8, 2))))[:, list(columns)]
    return LeastSquares(T_OBS, scale * y, sigma=scale * sigma, components=columns)


def exact_gradient(loss, u0, theta):
    """Of least squares, by complex steps."""
    z, n = np.concatenate([u0, theta]), len(u0)
    gradient = np.empty(z.size)
    for i in range(z.size):
        shifted = z + 1e-30j * (np.arange(z.size) == i)
        u = exact(T_OBS, shifted[:n], shifted[n:])[:, loss.components]
        gradient[i] = (0.5 * np.sum(((u - loss.y_obs) * loss.weights) ** 2)).imag / 1e-30
    return gradient


def error(bar, right, u0):
    """Of (u0_bar, theta_bar), relative to the largest logarithmic derivative."""
    sizes = np.concatenate([np.where(u0 == 0.0, 0.0, u0), RATES])
    return np.abs((np.concatenate(bar) - right) * sizes).max() / np.abs(right * sizes).max()


@pytest.mark.parametrize("method", ["Tsit5", "TRBDF2"])
def test_units_change_nothing(method):
    """In powers of two not a bit, from order one down."""
    u0, unit = np.array([1.0, 2.0]), 2.0**-40
    one, other = (solve(decay, scale * u0, RATES, (0.0, T), method=method) for scale in (1.0, unit))
    assert one.options.atol == pytest.approx(1e-9, rel=1e-15) and other.options.atol == pytest.approx(unit * 1e-9 * u0)
    assert other.stats.n_steps >= one.stats.n_steps
    assert other.u_T == pytest.approx(exact(T, unit * u0, RATES), rel=3e-6 if method == "Tsit5" else 3e-3, abs=0)
    again = solve(decay, unit**2 * u0, RATES, (0.0, T), method=method)
    np.testing.assert_array_equal(again.u, unit * other.u)
    loose = solve(decay, unit * u0, RATES, (0.0, T), method=method, atol=1e-9)
    assert np.abs(loose.u_T / exact(T, unit * u0, RATES) - 1.0).max() > 0.1


def test_states_of_order_one_and_what_is_given_keep_their_bits():
    u0 = np.array([1.0, 2.0])
    one, other = (solve(decay, u0, RATES, (0.0, T), **options) for options in ({}, {"atol": 1e-9}))
    np.testing.assert_array_equal(one.u, other.u)
    loss = FinalState([1.0, 1.0])
    one, other = (value_and_gradient(decay, loss, (0.0, T), **options)(u0, RATES) for options in ({}, {"atol": None}))
    given = value_and_gradient(decay, loss, (0.0, T), atol=1e-9)(u0, RATES)
    assert one[0] == other[0] == given[0]
    np.testing.assert_array_equal(one[1].theta, given[1].theta)


def test_what_is_known_of_each_state():
    def atol(u0, loss=None, **options):
        evaluate = value_and_gradient(decay, loss or FinalState([1.0, 1.0]), (0.0, T), **options)
        return evaluate.forward_options.at(np.array(u0)).atol.tolist()

    assert atol([0.0, 0.0]) == [1e-9, 1e-9]
    assert atol([0.0, 1e-4]) == [1e-9, pytest.approx(1e-13)]
    assert atol([1e3, 1e-4], rtol=1e-8) == pytest.approx([1e-9, 1e-15])
    assert atol([1.0, 1e-17]) == [1e-9, 1e-9]  # which is rounding
    assert atol([1e-4, 1.0], rtol=0.0) == [1e-9, 1e-9]
    y = np.array([[3e-5, np.nan], [0.0, 2.0]])
    assert atol([1.0, 0.0], LeastSquares([1.0, 2.0], y, sigma=1e-3)) == [pytest.approx(3e-14), 1e-9]
    assert atol([0.0, 0.0], LeastSquares([1.0, 2.0], [0.0, 0.0], sigma=1e-6, components=[1])) == [1e-9, pytest.approx(1e-15)]
    assert atol([0.0, 0.0], LeastSquares([1.0, 2.0], [1e-3, 1e-6], log=True)) == [pytest.approx(1e-15), 1e-9]
    assert atol([0.0, 0.0], LeastSquares([1.0], [1e-3], observe=lambda t, u, theta: u[:1])) == [1e-9, 1e-9]
    each = LeastSquares([1.0], np.array([1e-3, 1e-5]).reshape(2, 1, 1))
    assert rows_at_most({}, each, 2).tolist() == [[pytest.approx(1e-12), 1e-9], [pytest.approx(1e-14), 1e-9]]
    assert rows_at_most({}, LeastSquares([1.0], [[1e-3]]), 2).tolist() == [[pytest.approx(1e-12), 1e-9]]
    assert rows_at_most({"atol": 1e-9}, each, 2).shape == (2, 0)
    noise = [Gaussian(0.1), LogNormal(0.1)]
    assert atol([0.0, 0.0], Likelihood([1.0, 2.0], [[1e-3, 1e-5], [np.nan, 1e-4]], noise)) == pytest.approx([1e-12, 1e-14])


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("method", ["Tsit5", "DOP853"])
def test_gradients_of_small_states(method, adjoint):
    """Of a state whose size is that of u0, and one that begins at zero, whose size is that of its data."""
    u0, loss = np.array([SMALL, 0.0]), least_squares(SMALL)
    right = exact_gradient(loss, u0, RATES)
    evaluate = value_and_gradient(decay, loss, (0.0, T), method=method, adjoint=adjoint)
    value, bar = evaluate(u0, RATES)
    assert error((bar.u0, bar.theta), right, u0) < 3e-5
    again, other = evaluate.step_by_step(u0, RATES)
    assert again == pytest.approx(value, rel=1e-12) and other.theta == pytest.approx(bar.theta, rel=1e-9)
    if adjoint == "discrete":
        loose = value_and_gradient(decay, loss, (0.0, T), method=method, atol=1e-9, on_inaccurate="warn")
        with pytest.warns(RuntimeWarning):
            _, bar = loose(u0, RATES)
        assert error((bar.u0, bar.theta), right, u0) > 1e-3


def test_data_alone_say_how_small_a_state_is():
    """The state that decays is not observed, the one that it decays into begins at zero."""
    u0, loss = np.array([SMALL, 0.0]), least_squares(SMALL, columns=(1,))
    _, bar = value_and_gradient(decay, loss, (0.0, T))(u0, RATES)
    assert error((bar.u0, bar.theta), exact_gradient(loss, u0, RATES), u0) < 3e-5


def test_each_call_has_the_tolerances_of_its_u0():
    """Whatever was solved before, on the same buffers, from Python, with a loss in Python, and from compiled code."""

    starts = [SMALL * np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([1.0, 2e-5])]
    for loss in (FinalState([1.0, 2.0]), Series(T_OBS, squares)):
        evaluate = value_and_gradient(decay, loss, (0.0, T))
        for u0 in (*starts, *starts[::-1]):
            value, bar = evaluate(u0, RATES)
            fresh, other = value_and_gradient(decay, loss, (0.0, T))(u0, RATES)
            assert value == fresh
            np.testing.assert_array_equal(bar.theta, other.theta)
    evaluate = value_and_gradient(decay, FinalState([1.0, 2.0]), (0.0, T))
    compiled, bars = evaluate.jitted(2, 2), (np.zeros(2), np.zeros(2))
    for u0 in starts:
        value, bar = evaluate(u0, RATES)
        assert compiled(u0, RATES, *bars) == (0, value)
        np.testing.assert_array_equal(bars[1], bar.theta)
        assert value == pytest.approx(exact(T, u0, RATES) @ [1.0, 2.0], rel=1e-5)


def test_members_of_an_ensemble():
    """Each has the tolerances of its own u0 and its own data, and so the bits of a single call."""
    u0 = np.array([[1.0, 2.0], [SMALL, 0.0], [1.0, 1.0], [1e-12, 3.0]])
    evaluate = ensemble_value_and_gradient(decay, FinalState([1.0, 2.0]), (0.0, T), workers=1)
    values, bars = evaluate(u0, RATES[None].repeat(4, 0))
    states = solve_ensemble(decay, u0, RATES, (0.0, T), workers=1).u_T
    alone = value_and_gradient(decay, FinalState([1.0, 2.0]), (0.0, T))
    for i in range(4):
        value, bar = alone(u0[i], RATES)
        assert values[i] == value
        np.testing.assert_array_equal(bars.theta[i], bar.theta)
        np.testing.assert_array_equal(states[i], solve(decay, u0[i], RATES, (0.0, T)).u_T)
    small, large = least_squares(SMALL), least_squares(1.0)
    both = LeastSquares(T_OBS, np.stack([large.y_obs, small.y_obs]), sigma=np.stack([1.0 / large.weights, 1.0 / small.weights]))
    starts = np.array([[1.0, 0.0], [SMALL, 0.0]])
    evaluate = ensemble_value_and_gradient(decay, both, (0.0, T), workers=1)
    for _ in range(2):  # on the same buffers
        _, bars = evaluate(starts, RATES[None].repeat(2, 0))
        for i, loss in enumerate((large, small)):
            _, bar = value_and_gradient(decay, loss, (0.0, T))(starts[i], RATES)
            np.testing.assert_array_equal(bars.theta[i], bar.theta)
            assert error((bars.u0[i], bars.theta[i]), exact_gradient(loss, starts[i], RATES), starts[i]) < 3e-5


def test_residuals_and_second_derivatives():
    u0, loss = np.array([SMALL, 0.0]), least_squares(SMALL)
    right, direction = exact_gradient(loss, u0, RATES), np.array([0.3, -0.7])
    r, J = residuals_and_jacobian(decay, loss, (0.0, T))(u0, RATES)
    assert error((J.T @ r,), right, u0) < 3e-5
    product = hessian_vector_product(decay, loss, (0.0, T))(u0, RATES, theta_dot=direction)
    assert error((product.u0, product.theta), right, u0) < 3e-5
    ahead, behind = (exact_gradient(loss, u0, RATES + h * direction)[2:] for h in (1e-5, -1e-5))
    np.testing.assert_allclose(product.theta_dot, (ahead - behind) / 2e-5, rtol=1e-4)


def test_fits():
    """Find the rates again, and their solution has the tolerances of their gradient."""
    y = exact(T_OBS, (SMALL, 0.0), RATES)
    loss = LeastSquares(T_OBS, y, sigma=0.1 * SMALL)
    fit = Fit(decay, loss, (0.0, T), u0=[SMALL, 0.0], theta=[1.0, 0.5], free=("theta",))
    assert fit.check_gradient().ok
    np.testing.assert_allclose(fit.minimize().x, RATES, rtol=1e-4)
    np.testing.assert_allclose(fit.least_squares().x, RATES, rtol=1e-5)


def test_the_least_sizes_of_states_follow_too():
    """The units of the states are those of the estimate of lam's error, too."""
    for loss in (FinalState([1.0, 2.0]), Series(T_OBS, squares)):
        evaluate = value_and_gradient(decay, loss, (0.0, T))
        errors = [evaluate(scale * np.ones(2), RATES)[1].error for scale in (1.0, 2.0**-40, 2.0**-80)]
        assert errors[0] == errors[1] == errors[2]
        assert errors[0]["theta"] > 0.0
