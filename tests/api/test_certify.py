"""`certify=True`: a gradient held against a second one, and products against f."""

import numba
import numpy as np
import pytest

from adjode import Dynamics, SolveError, Status, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares
from benchmarks.problems import lorenz_dynamics
from tests.problems.mass_systems import CUBIC_THETA, CUBIC_U0, cubic
from tests.problems.stiff_systems import van_der_pol
from tests.problems.systems import LV_THETA, LV_U0, lotka_volterra, lv_f, lv_vjp

SPAN, W = (0.0, 5.0), np.array([1.0, -0.5])


def reference():
    return solve(lotka_volterra(), LV_U0, LV_THETA, SPAN, method="DOP853", rtol=1e-12, atol=1e-12).pullback(W)


def true_error(bar):
    """In the scale of logarithmic derivatives."""
    exact, off = reference(), 0.0
    blocks = (bar.u0, exact.u0, LV_U0), (bar.theta, exact.theta, LV_THETA)
    largest = max(np.max(np.abs(wanted * size)) for _, wanted, size in blocks)
    for got, wanted, size in blocks:
        off = max(off, np.max(np.abs((got - wanted) * size)) / largest)
    return off


@pytest.mark.parametrize(
    ("method", "adjoint"),
    [
        ("Tsit5", "discrete"),
        ("Tsit5", "interpolating"),
        ("Tsit5", "backsolve"),
        ("Radau", "discrete"),
        ("Rodas5P", "interpolating"),
    ],
)
def test_the_error_is_that_of_the_gradient(method, adjoint):
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, SPAN, method=method)
    bar = solution.pullback(W, adjoint=adjoint, certify=True)
    assert 0.5 * true_error(bar) < max(bar.error.values()) < 1e-4
    same = solution.pullback(W, adjoint=adjoint)
    np.testing.assert_array_equal(bar.theta, same.theta)


def test_value_and_gradient():
    loss = LeastSquares(np.array([1.0, 3.0]), np.ones((2, 2)))
    value, bar = value_and_gradient(lotka_volterra(), loss, SPAN, certify=True)(LV_U0, LV_THETA)
    plain, same = value_and_gradient(lotka_volterra(), loss, SPAN)(LV_U0, LV_THETA)
    assert value == pytest.approx(plain, rel=1e-12)
    np.testing.assert_allclose(bar.theta, same.theta, rtol=1e-9)
    assert same.error["theta"] <= bar.error["theta"] < 1e-4


def test_a_jump_magnifies_errors_beyond_what_is_promised():
    """By 400 to 2000 units, most of them of the state, which shorter steps mend."""
    loss, span, given = FinalState([1.0, 0.0]), (0.0, 820.0), ([2.0, 0.0], [1000.0])
    exact = value_and_gradient(van_der_pol(), loss, span, method="Radau", rtol=1e-10, atol=1e-12)(*given)[1]
    for rtol in (1e-5, 1e-6, 1e-7):
        options = {"method": "Radau", "rtol": rtol, "atol": 1e-2 * rtol}
        with pytest.raises(SolveError, match="the gradient may be off by") as caught:
            value_and_gradient(van_der_pol(), loss, span, on_inaccurate="raise", **options)(*given)
        assert caught.value.status == Status.INACCURATE
        bar = value_and_gradient(van_der_pol(), loss, span, **options)(*given)[1]
        assert bar.stats.n_refined > 0 and abs(bar.u0[0] - exact.u0[0]) < 100.0 * rtol * abs(exact.u0[0])


def test_chaos_is_not_certified():
    """The transposed steps are as good as ever; it is the state that is far from where it should be."""
    loss, span = FinalState([1.0, 0.0, 0.0]), (0.0, 15.0)
    options = {"method": "Radau", "rtol": 1e-7, "atol": 1e-9, "certify": True}
    given = [1.0, 1.0, 1.0], [10.0, 28.0, 2.7]
    with pytest.raises(
        SolveError, match=r"not certified: along a solve with tolerances ten times tighter, by another adjoint"
    ) as caught:
        value_and_gradient(lorenz_dynamics(), loss, span, **options)(*given)
    assert caught.value.status == Status.INACCURATE
    with pytest.warns(RuntimeWarning, match="not certified"):
        _, bar = value_and_gradient(lorenz_dynamics(), loss, span, on_inaccurate="warn", **options)(*given)
    assert max(bar.error.values()) > 100.0 * options["rtol"]


def test_a_wrong_product_is_found():
    def wrong(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = (theta[0] - theta[1] * u[1]) * lam[0] + theta[3] * u[1] * lam[1]
        u_bar[1] = -theta[1] * u[0] * lam[0] + (theta[3] * u[0] - theta[2]) * lam[1]
        theta_bar[0] = u[0] * lam[0]
        theta_bar[1] = -u[0] * u[1] * lam[0]
        theta_bar[2] = u[1] * lam[1]  # should be less than zero
        theta_bar[3] = u[0] * u[1] * lam[1]

    solution = solve(Dynamics(lv_f, wrong), LV_U0, LV_THETA, SPAN)
    solution.pullback(W)
    with pytest.raises(SolveError, match=r"not certified: at t = 0.5 vjp says .* and differences of f .*check_vjp"):
        solution.pullback(W, certify=True)
    right = solve(Dynamics(lv_f, lv_vjp), LV_U0, LV_THETA, SPAN)
    assert right.pullback(W, certify=True).error is not None


def test_a_product_that_is_wrong_for_a_while_is_found_by_a_tangent():
    """Both adjoints have it from vjp, which is held against differences elsewhere."""

    right_vjp = numba.njit(lv_vjp)

    def wrong(t, u, theta, lam, u_bar, theta_bar):
        right_vjp(t, u, theta, lam, u_bar, theta_bar)
        if 1.7 < t < 2.3:
            theta_bar[2] *= 0.9

    solution = solve(Dynamics(lv_f, wrong), LV_U0, LV_THETA, SPAN, stops=[1.7, 2.3])
    observed = [1.0, 3.0], [[1.0, 0.0], [0.0, 2.0]]
    for adjoint in ("discrete", "interpolating"):
        with pytest.raises(SolveError, match=r"not certified: .*, a tangent differs by .* times rtol, .*check_vjp"):
            solution.pullback(W, observations=observed, adjoint=adjoint, certify=True)
        right = solve(Dynamics(lv_f, lv_vjp), LV_U0, LV_THETA, SPAN, stops=[1.7, 2.3])
        assert right.pullback(W, observations=observed, adjoint=adjoint, certify=True).error is not None


def test_where_there_is_one_adjoint_alone():
    solution = solve(cubic(), CUBIC_U0, CUBIC_THETA, (0.0, 2.0), method="Radau")
    bar = solution.pullback(np.ones(len(CUBIC_U0)), wrt=("u0", "theta"), adjoint="discrete", certify=True)
    assert 0.0 < max(bar.error.values()) < 1e-4


def test_fixed_steps_are_compared_and_not_judged():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, SPAN, step=0.5)
    bar = solution.pullback(W, adjoint="discrete", certify=True)
    assert 0.5 * true_error(bar) < max(bar.error.values())


def test_what_is_not_asked_for_is_not_judged():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, SPAN)
    bar = solution.pullback(W, wrt=("T", "u0"), certify=True)
    assert list(bar.error) == ["u0"]
    assert solution.pullback(W, wrt=("T",), certify=True).error == {}


def test_with_a_running_cost_and_a_budget_of_memory():
    def cost(t, u, theta):
        return u[0] ** 2

    def cost_vjp(t, u, theta, u_bar, theta_bar):
        u_bar[0], u_bar[1] = 2.0 * u[0], 0.0
        theta_bar[:] = 0.0

    solution = solve(lotka_volterra(), LV_U0, LV_THETA, SPAN, memory=10_000)
    bar = solution.pullback(W, running_cost=(cost, cost_vjp), certify=True)
    assert max(bar.error.values()) < 1e-4 and bar.running_cost > 0.0
