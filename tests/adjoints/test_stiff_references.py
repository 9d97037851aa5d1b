"""Implicit methods on the stiff reference problems: gradients against stored references; draws of parameters."""

import numpy as np
import pytest

from adjode import solve, value_and_gradient
from benchmarks import stiff_draws
from benchmarks.cases import case
from benchmarks.stiff_accuracy import ACCURATE, COMBINATIONS
from benchmarks.stiff_problems import STIFF_PROBLEMS, brusselator_grid, brusselator_line


def errors(name, tolerances, **options):
    problem = STIFF_PROBLEMS[name]()
    found = []
    for tol in tolerances:
        value, bar = problem.value_and_gradient(rtol=tol, atol=1e-5 * tol, **options)()
        assert value == pytest.approx(problem.reference["loss"][0], rel=max(1e3 * tol, 1e-9))
        found.append(problem.gradient_error(bar))
    return np.array(found)


# What needs more than about ten tolerances, and why, is told on the page "Stiff problems".
WORSE = {("van_der_pol_1e+06", "Kvaerno5", "interpolating"): 40.0}


@pytest.mark.parametrize("name", ACCURATE)
@pytest.mark.parametrize(("method", "adjoint"), [(m, a) for m, a in COMBINATIONS if m != "TRBDF2"])
def test_gradients_are_as_exact_as_asked_for(name, method, adjoint):
    tolerances = np.array([1e-4, 1e-6, 1e-8, 1e-10])
    found = errors(name, tolerances, method=method, adjoint=adjoint)
    assert (found < WORSE.get((name, method, adjoint), 15.0) * tolerances).all()


@pytest.mark.parametrize("name", ["rober", "hires", "orego", "pollu"])
@pytest.mark.parametrize("method", ["Radau", "Kvaerno5"])
def test_estimates_of_gradients_refine_nothing_in_vain(name, method):
    """Stiff parts of lam, which observations put in, are off by far more than the gradient is; growth over decades comes back."""
    problem = STIFF_PROBLEMS[name]()
    for tol in (1e-4, 1e-6, 1e-8):
        _, bar = problem.value_and_gradient(method=method, rtol=tol, atol=tol * case(name).scales(), adjoint="discrete")()
        assert bar.stats.n_refined == 0 and 0.0 < max(bar.error.values()) < 100.0 * tol


@pytest.mark.parametrize("method", ["Radau", "Kvaerno5"])
def test_a_fast_part_that_is_observed_is_no_rough_integrand(method):
    """Lam has a transient before each observation, thousands of times faster than a step."""
    problem, scales, times = STIFF_PROBLEMS["rober"](), case("rober").scales(), np.logspace(-1.0, 4.0, 20)
    theta, weights = np.array([4.215e-2, 2.295e7, 1.198e4]), np.linspace(0.75, 1.25, 60).reshape(20, 3) * [1.0, -1.0, 1.0] / scales

    def pulled(method, tol):
        solution = solve(problem.dynamics, problem.u0, theta, problem.t_span, method=method, rtol=tol, atol=1e-4 * tol * scales)
        return solution.pullback(observations=(times, weights), adjoint="discrete")

    exact = pulled("Radau", 1e-11)
    for tol in (1e-6, 1e-8):
        bar = pulled(method, tol)
        assert bar.stats.n_refined == 0 and 0.0 < max(bar.error.values()) < 10.0 * tol
        np.testing.assert_allclose(bar.theta * theta, exact.theta * theta, rtol=0, atol=5.0 * tol * abs(exact.theta * theta).max())


@pytest.mark.slow  # compile banded and sparse passes
@pytest.mark.parametrize(("name", "kind"), [("brusselator_1d", "banded"), ("brusselator_2d", "sparse")])
def test_brusselator(name, kind):
    problem = STIFF_PROBLEMS[name]()
    solution = problem.solve(method="Radau", rtol=1e-4, atol=1e-6)
    assert solution.structure.kind == kind
    found = errors(name, (1e-4, 1e-6), method="Radau")
    assert found[1] < 1e-5 and found[1] < 0.2 * found[0]


@pytest.mark.slow  # tens of seconds for the grid
@pytest.mark.parametrize(
    ("build", "points", "T", "kind"), [(brusselator_line, 5000, 1.0, "banded"), (brusselator_grid, 70, 1.0, "sparse")]
)
@pytest.mark.parametrize("method", ["Radau", "Kvaerno5"])
def test_ten_thousand_states(build, points, T, kind, method):
    """The slope of the value along a direction, by differences of the same fixed steps."""
    problem, rng = build(points), np.random.default_rng(0)
    assert abs(problem.u0.size - 10_000) <= 200
    options = {"method": method, "step": T / 20, "rtol": 1e-9, "atol": 1e-9}
    evaluate = value_and_gradient(problem.dynamics, problem.loss, (0.0, T), **options)
    u0_way, theta_way, h = rng.normal(size=problem.u0.size), rng.normal(size=problem.theta.size), 1e-4
    _, bar = evaluate(problem.u0, problem.theta)
    ahead, behind = (
        solve(problem.dynamics, problem.u0 + s * u0_way, problem.theta + s * theta_way, (0.0, T), **options) for s in (h, -h)
    )
    assert ahead.structure.kind == kind
    difference = problem.loss.value_and_cotangents(ahead)[0] - problem.loss.value_and_cotangents(behind)[0]
    assert u0_way @ bar.u0 + theta_way @ bar.theta == pytest.approx(difference / (2 * h), rel=1e-5)


@pytest.mark.slow
def test_transposed_stages_where_rounding_hides_their_last_digits():
    """Diffusion between 5000 points is 1e6 times faster than a step."""
    problem = brusselator_line(5000)
    bars = [problem.value_and_gradient(method="Radau", rtol=tol, atol=1e-2 * tol)()[1] for tol in (1e-4, 1e-6)]
    np.testing.assert_allclose(bars[0].theta, bars[1].theta, rtol=1e-3)
    assert bars[0].stats.n_newton < 20 * bars[0].stats.n_steps


@pytest.mark.slow
@pytest.mark.parametrize("name", stiff_draws.PROBLEMS)
def test_draws_over_two_decades(name):
    """Every draw gives a gradient that agrees with a tight one, and on a sample with differences; none a SolveError."""
    outcome = stiff_draws.run(name, 200)
    assert len(outcome.errors) == 200 and len(outcome.slope_errors) == 20 and not outcome.failed
    assert max(outcome.errors + outcome.slope_errors) < 1e-3


@pytest.mark.slow
def test_what_fails_in_a_draw_is_a_solve_error(monkeypatch):
    monkeypatch.setattr(stiff_draws, "MAX_STEPS", 30)
    outcome = stiff_draws.run("orego", 3)
    assert outcome.failed == {"forward MAX_STEPS": 3} and not outcome.errors
