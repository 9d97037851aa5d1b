"""The C floor computes what it is compared with: the gradients of the reference problems."""

import math
import shutil

import numpy as np
import pytest

from benchmarks.cases import CASES, case, gradient_error, references
from benchmarks.floor import FLAGS, NO_GCC, Floor, FloorError, library
from benchmarks.problems import PROBLEMS

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@needs_gcc
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("algorithm", ["augmented", "quadrature", "discrete"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_the_references(name, algorithm, flags):
    problem, errors = case(name), {}
    for tol in (1e-6, 1e-8, 1e-10):
        gradient = Floor(problem, algorithm, tol, flags)(problem.u0, problem.theta)
        errors[tol] = gradient_error(name, gradient)
        assert errors[tol] < 200 * tol
        true = references()[name]["reference"]["loss"][0]
        assert math.isclose(gradient.value, true, rel_tol=100 * tol)
    assert errors[1e-10] < 0.05 * errors[1e-6]


@needs_gcc
@pytest.mark.parametrize("name", CASES)
def test_the_floor_takes_the_steps_that_adjode_takes(name):
    problem = case(name)
    for tol in (1e-6, 1e-8):
        floor = Floor(problem, "augmented", tol)
        floor(problem.u0, problem.theta)
        _, bar = PROBLEMS[name]().value_and_gradient(adjoint="interpolating", quadrature="augmented", rtol=tol, atol=tol)()
        steps = PROBLEMS[name]().solve(rtol=tol, atol=tol).stats.n_steps
        assert abs(floor.output.steps - steps) <= 2
        assert abs(floor.output.steps_back - bar.stats.n_steps) <= 0.2 * bar.stats.n_steps


@needs_gcc
def test_the_time_and_the_gradient_are_of_the_same_computation():
    problem = case("lv_final")
    floor = Floor(problem, "discrete", 1e-6)
    gradient = floor(problem.u0, problem.theta)
    assert 0 < floor.seconds(problem.u0, problem.theta, 3) < 1
    np.testing.assert_array_equal(floor.output.theta_bar, gradient.theta)


def test_without_gcc_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FloorError, match="needs gcc") as caught:
        library.__wrapped__("spiral", "-O3")
    assert str(caught.value) == NO_GCC
