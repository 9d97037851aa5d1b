"""Values and gradients of random systems whose state or slope jumps, against a plain integrator of their own."""

import functools

import numpy as np
import pytest

from adjode import solve
from adjode.steppers.family import family_of
from adjode.tableaus import tableau
from tests.problems.random_jumps import Run, draw, model, reference

RTOL = 1e-9
SEEDS = (4, 13, 19, 21, 28, 30, 32, 33, 36, 37, 44, 45)  # of draws in which rounding and differences decide nothing
FAR = 1e3 * RTOL


def seen_before_the_end(problem):
    """The problem without observations behind an event that ends it."""
    run = Run(problem, problem.u0, problem.theta, problem.span)
    if run.ended:
        early = run.sign * (run.t - problem.times) > 5e-3
        problem.times, problem.weights = problem.times[early], problem.weights[early]
    return problem


@functools.cache
def referenced(seed):
    """A problem, a direction, and the derivative in it and the run of the reference."""
    problem = seen_before_the_end(draw(seed))
    direction = np.random.default_rng(seed).normal(size=problem.n + problem.theta.size + 2)
    direction *= 3.0 / np.linalg.norm(direction)
    _, slope, run = reference(problem, direction)
    return problem, direction, slope, run


def solved_by(method):
    """The problems that the method takes, and the adjoints that it has for them."""
    family = family_of(tableau(method))
    for problem, *rest in map(referenced, SEEDS):
        if not problem.massed:
            yield problem, *rest, ("discrete", "interpolating") if family.transposable else ("interpolating",)
        elif family.takes_mass_matrix:
            yield problem, *rest, ("discrete",)


def assert_states(problem, solution, run):
    for found, wanted in zip(solution.t_events, run.event_times, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0.0, atol=FAR)
    np.testing.assert_allclose(solution.u_T, run.u, rtol=FAR, atol=FAR)
    for t in problem.times:
        np.testing.assert_allclose(solution(t, side=problem.side), run.at(t, problem.side), rtol=FAR, atol=FAR)


def of_loss(problem, run):
    options = {"observations": (problem.times, problem.weights), "side": problem.side, "wrt": ("u0", "theta", "t0", "T")}
    options |= {"running_cost": model(problem.variant)[3]} if problem.has_cost else {}
    return options | ({"event_times": [np.array(bars, dtype=float) for bars in run.weights_of_times]} if problem.events else {})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Radau", "Kvaerno5", "Rodas5P", "auto"])
def test_random_jumps(method):
    """Events, states and gradients are those of the reference."""
    for problem, direction, slope, run, adjoints in solved_by(method):
        dynamics, options = model(problem.variant)[0], {"method": method, "rtol": RTOL, "atol": RTOL, "stops": problem.stops}
        options |= {"doses": problem.doses(), "events": problem.made_events}
        solution = solve(dynamics, problem.u0, problem.theta, problem.span, **options)
        assert_states(problem, solution, run)
        for adjoint in adjoints:
            bar = solution.pullback(problem.weight_T, adjoint=adjoint, **of_loss(problem, run))
            found = np.concatenate([bar.u0, bar.theta, [bar.t0, bar.T]]) @ direction
            assert abs(found - slope) < FAR * max(1.0, abs(slope), np.abs(bar.theta).max()), (problem, adjoint)
