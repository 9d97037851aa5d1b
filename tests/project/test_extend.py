"""A method added from outside, as docs/extend.md shows: its tableau, its orders, and what takes it by its name."""

import numpy as np
import pytest

from adjode import solve, value_and_gradient
from adjode.losses import FinalState
from adjode.tableaus import METHODS, tableau
from tests import ROOT
from tests.problems.systems import OSCILLATOR
from tests.project.pages import blocks_of, run

PAGE = ROOT / "docs" / "extend.md"


@pytest.fixture(autouse=True)
def with_ralston(monkeypatch):
    """The page's own tableau, under its name."""
    namespace: dict = {}
    run(next(blocks_of(PAGE.read_text())), namespace)
    monkeypatch.setitem(METHODS, "Ralston", namespace["ralston"])
    yield
    tableau.cache_clear()


def errors(n, **options):
    """Largest errors of the final state, the dense output, u0_bar and theta_bar, with n fixed steps."""
    problem = OSCILLATOR
    (t0, T), u_T_bar = problem.t_span, np.array([1.0, 0.5])
    loose = {"rtol": 1e-2, "atol": 1e-2}  # only the drift of a backsolve is measured by these
    solution = solve(problem.dynamics, problem.u0, problem.theta, (t0, T), method="Ralston", step=(T - t0) / n, **loose)
    bar = solution.pullback(u_T_bar, **options)
    u0_bar, theta_bar = problem.cotangents(u_T_bar)[:2]
    inside = t0 + 0.37 * (T - t0)
    pairs = [
        (solution.u_T, problem.final(problem.u0, problem.theta, t0, T)),
        (solution(inside), problem.final(problem.u0, problem.theta, t0, inside)),
        (bar.u0, u0_bar),
        (bar.theta, theta_bar),
    ]
    return np.array([np.max(np.abs(np.asarray(got) - wanted)) for got, wanted in pairs])


@pytest.mark.parametrize("adjoint", ["interpolating", "backsolve", "discrete"])
def test_second_order_throughout(adjoint):
    rates = np.log2(errors(100, adjoint=adjoint) / errors(200, adjoint=adjoint))
    assert (rates > 1.7).all()


@pytest.mark.parametrize("quadrature", ["gauss", "augmented"])
def test_the_error_estimate_drives_both_passes(quadrature):
    problem, u_T_bar = OSCILLATOR, np.array([1.0, 0.5])
    exact, found = problem.cotangents(u_T_bar), []
    for tol in (1e-4, 1e-6):
        solution = solve(problem.dynamics, problem.u0, problem.theta, problem.t_span, method="Ralston", rtol=tol, atol=tol)
        bar = solution.pullback(u_T_bar, quadrature=quadrature)
        found.append(np.max(np.abs(bar.theta - exact[1])))
        assert solution.stats.n_f == 2 + 2 * (solution.stats.n_steps + solution.stats.n_rejected)
    assert found[1] < 0.1 * found[0]


def test_the_method_is_known_by_name_everywhere():
    problem = OSCILLATOR
    evaluate = value_and_gradient(problem.dynamics, FinalState([1.0, 0.0]), problem.t_span, method="Ralston")
    assert np.isfinite(evaluate(problem.u0, problem.theta)[1].theta).all()
    with pytest.raises(ValueError, match=r"Ralston"):
        solve(problem.dynamics, problem.u0, problem.theta, problem.t_span, method="Rallston")
