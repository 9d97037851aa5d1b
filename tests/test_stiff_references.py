"""Implicit methods on the stiff reference problems: gradients against stored references; draws of parameters."""

import numpy as np
import pytest

from adjode import SolveError, value_and_gradient
from benchmarks.stiff_accuracy import ACCURATE, COMBINATIONS
from benchmarks.stiff_problems import STIFF_PROBLEMS


def errors(name, tolerances, **options):
    problem = STIFF_PROBLEMS[name]()
    found = []
    for tol in tolerances:
        value, bar = problem.value_and_gradient(rtol=tol, atol=1e-5 * tol, **options)()
        assert value == pytest.approx(problem.reference["loss"][0], rel=max(1e3 * tol, 1e-9))
        found.append(problem.gradient_error(bar))
    return np.array(found)


# What needs more than about ten tolerances, and why, is told on the page "Stiff problems".
WORSE = {("van_der_pol_1e+06", "Kvaerno5", "interpolating"): 30.0}


@pytest.mark.parametrize("name", ACCURATE)
@pytest.mark.parametrize(("method", "adjoint"), [(m, a) for m, a in COMBINATIONS if m != "TRBDF2"])
def test_gradients_are_as_exact_as_asked_for(name, method, adjoint):
    tolerances = np.array([1e-4, 1e-6, 1e-8, 1e-10])
    found = errors(name, tolerances, method=method, adjoint=adjoint)
    assert (found < WORSE.get((name, method, adjoint), 12.0) * tolerances).all()


@pytest.mark.slow  # compile banded and sparse passes
@pytest.mark.parametrize(("name", "kind"), [("brusselator_1d", "banded"), ("brusselator_2d", "sparse")])
def test_brusselator(name, kind):
    problem = STIFF_PROBLEMS[name]()
    solution = problem.solve(method="Radau", rtol=1e-4, atol=1e-6)
    assert solution.structure.kind == kind
    found = errors(name, (1e-4, 1e-6), method="Radau")
    assert found[1] < 1e-5 and found[1] < 0.2 * found[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rober", "hires", "orego"])
def test_draws_over_two_decades(name):
    """Every draw gives a gradient that agrees with a tight one, or a SolveError."""
    problem, rng = STIFF_PROBLEMS[name](), np.random.default_rng(0)
    loose, tight = (
        value_and_gradient(
            problem.dynamics, problem.loss, problem.t_span, method="Radau", rtol=tol, atol=1e-5 * tol, max_steps=20000
        )
        for tol in (1e-6, 1e-8)
    )
    failed = 0
    for _ in range(200):
        theta = problem.theta * 10.0 ** rng.uniform(-1.0, 1.0, problem.theta.size)
        try:
            value, bar = loose(problem.u0, theta)
            exact_value, exact = tight(problem.u0, theta)
        except SolveError:
            failed += 1
            continue
        assert value == pytest.approx(exact_value, rel=1e-2)
        scale = np.abs(exact.theta * theta).max() + 1e-12 * abs(exact_value)
        np.testing.assert_allclose(bar.theta * theta, exact.theta * theta, rtol=2e-2, atol=2e-2 * scale)
    assert failed < 20
