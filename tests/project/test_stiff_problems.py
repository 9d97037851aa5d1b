"""The stiff reference problems: their callbacks, patterns and stored gradients are right, before any stiff method is."""

import numpy as np
import pytest

from adjode import check_vjp
from benchmarks.cases import stiff_references
from benchmarks.stiff_cases import MAKE, brusselator_2d, stiff_case
from benchmarks.stiff_problems import STIFF_PROBLEMS, brusselator_grid, brusselator_line, linear, linear_final
from tests.references import collocation, grid
from tests.references.make_stiff import SYSTEMS, compute, differences

SMALL = [name for name in STIFF_PROBLEMS if name not in ("brusselator_1d", "brusselator_2d")]


def away_from_zero(problem):
    """A state at which no derivative happens to be zero."""
    return problem.u0 + 0.1 * (1.0 + np.abs(problem.u0)) * np.random.default_rng(3).uniform(0.5, 1.0, problem.u0.size)


@pytest.mark.parametrize("name", SMALL)
def test_products(name):
    problem = STIFF_PROBLEMS[name]()
    for u in (problem.u0, away_from_zero(problem)):
        assert check_vjp(problem.dynamics, u, problem.theta, t=0.3).problems == []


BRUSSELATORS = [(brusselator_line, 5, 2 * 4), (brusselator_grid, 6, 4 * 36)]  # with the pairs of points side by side, both ways


@pytest.mark.parametrize(("build", "size", "pairs"), BRUSSELATORS, ids=["line", "grid"])
def test_products_and_pattern_of_the_brusselator(build, size, pairs):
    """At each point both species depend on both; each species on itself at the points beside."""
    problem = build(size)
    check_vjp(problem.dynamics, away_from_zero(problem), problem.theta).raise_if_wrong()
    assert problem.dynamics.sparsity.nnz == 4 * (problem.u0.size // 2) + 2 * pairs


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_references_solve_the_same_problem(name):
    """f of adjode's problem is the f that the reference was made with."""
    problem = STIFF_PROBLEMS[name]()
    u, du = away_from_zero(problem), np.empty(problem.u0.size)
    problem.dynamics.f(0.0, u, problem.theta, du)
    np.testing.assert_allclose(du, SYSTEMS[name](u, problem.theta), rtol=1e-11, atol=1e-12 * np.abs(du).max())
    case = stiff_case(name)
    assert set(stiff_references()[name]) == {"loss", "u0", "theta", "final"}
    value, _ = problem.loss.value_and_cotangents(_States(case))
    assert np.isclose(value, case.loss(np.ones((case.times.size, case.u0.size)))[0])


class _States:
    """A solution that is one everywhere."""

    def __init__(self, case):
        self.u, self.theta = np.ones((2, case.u0.size)), case.theta
        self.t = np.array(case.t_span)
        self.t0, self.T = case.t_span

    def __call__(self, times):
        return np.ones((np.size(times), self.u.shape[1]))


def test_the_grid_of_the_reference():
    problem = brusselator_grid(6)
    u, du = away_from_zero(problem), np.empty(problem.u0.size)
    problem.dynamics.f(0.0, u, problem.theta, du)
    np.testing.assert_allclose(du, grid.Grid(6).f(u, problem.theta), rtol=1e-12, atol=1e-12)


def test_a_published_solution():
    """POLLU at t = 60, four components as in the Test Set for IVP Solvers (F. Mazzia, C. Magherini, 2008)."""
    published = [0.5646255480022769e-1, 0.1342484130422339, 0.4139734331099427e-8, 0.5523140207484359e-2]
    np.testing.assert_allclose(stiff_references()["pollu"]["final"][:4], published, rtol=1e-11)


def test_two_ways_of_making_a_reference_agree():
    """Forward sensitivities, and the complex step through the whole solve with a method of another order."""
    for name in ("rober", "van_der_pol_1e+00"):
        case, blocks = stiff_case(name), compute(name, 1e-6)
        assert max(differences(blocks, stiff_references()[name]).values()) < 1e-12
        direction = np.concatenate([np.ones(case.u0.size), case.theta])
        found = collocation.slope(case, SYSTEMS[name], direction, stages=5, tol=1e-7)
        parts = np.concatenate([blocks["u0"], blocks["theta"]]) * direction
        assert abs(parts.sum() - found) < 1e-11 * np.abs(parts).sum()


@pytest.mark.slow
def test_two_ways_of_making_the_reference_of_a_grid_agree():
    case = brusselator_2d(6)
    blocks, _ = grid.gradient(case, 1e-5)
    direction = np.random.default_rng(0).normal(size=case.u0.size + case.theta.size)
    parts = np.concatenate([blocks["u0"], blocks["theta"]]) * direction
    assert abs(parts.sum() - grid.slope(case, direction, 1e-6)) < 1e-8 * np.abs(parts).sum()


def test_closed_form():
    """The exact solution of the linear system satisfies it."""
    problem, T, du = linear(), 0.7, np.empty(5)
    theta = problem.theta / 1e4
    final = linear_final(problem.u0.astype(complex), theta, T + 1e-30j)
    problem.dynamics.f(T, np.ascontiguousarray(final.real), theta, du)
    np.testing.assert_allclose(final.imag / 1e-30, du, rtol=1e-9, atol=1e-9 * np.abs(du).max())
    np.testing.assert_allclose(linear_final(problem.u0, theta, 0.0), problem.u0, rtol=1e-12)


def test_every_case_has_a_problem():
    assert set(MAKE) == set(STIFF_PROBLEMS) - {"linear"}
