"""Networks as right-hand sides: their vjps, a batch against its reference, and a layer with many parameters."""

import numpy as np
import pytest

from adjode import check_vjp, solve
from benchmarks.problems import batch_network, network_dynamics, network_input, sum_of_squares, wide_dynamics, wide_layer


def test_vjps_of_the_network():
    u0, theta = network_input(3)
    check_vjp(network_dynamics(), u0, theta).raise_if_wrong()


def test_vjps_of_the_wide_layer():
    problem = wide_layer(12)
    check_vjp(problem.dynamics, problem.u0, problem.theta).raise_if_wrong()


@pytest.mark.jitted
@pytest.mark.parametrize(
    "strategy",
    [{"adjoint": "interpolating"}, {"adjoint": "interpolating", "quadrature": "augmented"}, {"adjoint": "discrete"}],
    ids=lambda strategy: " ".join(strategy.values()),
)
def test_batch_network_against_its_reference(strategy):
    problem = batch_network()
    for tol in (1e-6, 1e-8):
        value, bar = problem.value_and_gradient(rtol=tol, atol=tol, **strategy)()
        assert problem.gradient_error(bar) < 20 * tol
        assert value == pytest.approx(problem.reference["loss"][0], rel=tol)
    np.testing.assert_allclose(problem.solve(rtol=1e-10, atol=1e-10).u_T, problem.reference["final"], atol=1e-9)


@pytest.mark.jitted
@pytest.mark.slow
def test_batch_network_in_the_fused_tier():
    """With fixed steps the two tiers differ by rounding."""
    bars = []
    for fused in (False, True):
        problem = batch_network(fused)
        bars.append(problem.solve(step=0.1).pullback(problem.u0))
    np.testing.assert_allclose(bars[0].theta, bars[1].theta, rtol=1e-10, atol=1e-12 * np.abs(bars[0].theta).max())
    np.testing.assert_allclose(bars[0].u0, bars[1].u0, rtol=1e-10, atol=1e-12)


def test_the_gradient_of_a_batch_is_the_sum_of_those_of_its_parts():
    u0, theta = network_input(8)
    options = {"step": 0.1}
    parts = [solve(network_dynamics(), part, theta, (0.0, 1.0), **options).pullback(part) for part in (u0[:6], u0[6:])]
    whole = solve(network_dynamics(), u0, theta, (0.0, 1.0), **options).pullback(u0)
    np.testing.assert_allclose(whole.theta, parts[0].theta + parts[1].theta, atol=1e-12 * np.abs(whole.theta).max())
    np.testing.assert_allclose(whole.u0, np.concatenate([part.u0 for part in parts]), atol=1e-12)


def test_wide_layer_against_differences():
    """The product of the gradient with a direction is the slope of the loss along it."""
    problem = wide_layer(40)
    _, bar = problem.value_and_gradient(rtol=1e-9, atol=1e-9)()
    rng = np.random.default_rng(1)
    along_u0, along_theta = rng.normal(size=problem.u0.size), rng.normal(size=problem.theta.size) / 40

    def loss(s):
        u_T = solve(wide_dynamics(), problem.u0 + s * along_u0, problem.theta + s * along_theta, (0.0, 1.0), step=0.02).u_T
        return float(u_T @ u_T)

    h = 1e-3
    slope = (8.0 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12.0 * h)
    assert bar.u0 @ along_u0 + bar.theta @ along_theta == pytest.approx(slope, rel=1e-7)


@pytest.mark.jitted
def test_a_million_parameters_take_no_part_in_the_stages():
    problem = wide_layer(1000)
    solution = problem.solve(rtol=1e-6, atol=1e-6)
    bar = solution.pullback(2.0 * solution.u_T)
    attempts = bar.stats.n_steps + bar.stats.n_rejected
    assert bar.theta.size == 1_001_000
    assert bar.stats.n_vjp <= 1 + 4 * attempts and bar.stats.n_vjp_u == 2 + 6 * attempts
    value, again = problem.value_and_gradient(rtol=1e-6, atol=1e-6, adjoint="interpolating")()
    assert value == pytest.approx(sum_of_squares(1.0, 1000).value_and_cotangents(solution)[0])
    np.testing.assert_allclose(again.theta, bar.theta, rtol=1e-9, atol=1e-12 * np.abs(bar.theta).max())
