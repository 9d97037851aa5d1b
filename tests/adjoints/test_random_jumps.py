"""Values and gradients of random systems with events, doses, a table and stops, against a plain integrator of their own."""

import functools

import numpy as np
import pytest

from adjode import solve
from tests.problems.random_jumps import Draw, Run, draw, model, reference

RTOL = 1e-9
SEEDS = range(16)


def seen_before_the_end(problem):
    """The problem without observations behind an event that ends it."""
    run = Run(problem, problem.u0, problem.theta, problem.span[1])
    if run.ended:
        early = run.sign * (run.t - problem.times) > 5e-3
        problem.times, problem.weights = problem.times[early], problem.weights[early]
    return problem


@functools.cache
def referenced(seed):
    """A problem, a direction, and the derivative in it and the run of the reference; None where rounding matters."""
    try:
        problem = seen_before_the_end(draw(seed))
        direction = np.random.default_rng(seed).normal(size=problem.n + problem.theta.size + 1)
        direction *= 3.0 / np.linalg.norm(direction)
        _, slope, run = reference(problem, direction)
    except Draw:
        return None
    return problem, direction, slope, run


@pytest.mark.slow
@pytest.mark.parametrize("method", ["Tsit5", "DOP853"])
def test_random_jumps(method):
    """At least half of the draws are no matter of rounding; their events, states and gradients are those of the reference."""
    found_there = [one for one in map(referenced, SEEDS) if one is not None]
    assert len(found_there) >= len(SEEDS) // 2
    for problem, direction, slope, run in found_there:
        dynamics, _, _, cost = model(problem.n)
        jumps = {"doses": problem.doses(), "events": problem.make_events(), "stops": problem.stops}
        solution = solve(dynamics, problem.u0, problem.theta, problem.span, method=method, rtol=RTOL, atol=RTOL, **jumps)
        for found, wanted in zip(solution.t_events, run.event_times, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e3 * RTOL)
        np.testing.assert_allclose(solution.u_T, run.u, rtol=1e3 * RTOL, atol=1e3 * RTOL)
        for t in problem.times:
            wanted = run.at(t, problem.side)
            np.testing.assert_allclose(solution(t, side=problem.side), wanted, rtol=1e3 * RTOL, atol=1e3 * RTOL)
        of_loss = {"observations": (problem.times, problem.weights), "side": problem.side}
        of_loss |= {"running_cost": cost} if problem.has_cost else {}
        for adjoint in ("discrete", "interpolating"):
            bar = solution.pullback(problem.weight_T, adjoint=adjoint, wrt=("u0", "theta", "T"), **of_loss)
            found = np.concatenate([bar.u0, bar.theta, [bar.T]]) @ direction
            assert abs(found - slope) < 1e3 * RTOL * max(1.0, abs(slope), np.abs(bar.theta).max()), (problem, adjoint)
