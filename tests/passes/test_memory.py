"""Memory: stores grow geometrically, a million steps work, ten thousand solves leave nothing behind."""

import gc

import numpy as np
import psutil
import pytest

from adjode import SolveError, solve
from adjode.passes.trajectory import Trajectory
from tests.problems.systems import LV_SPAN, LV_THETA, LV_U0, ROTATION, lotka_volterra


def resident() -> float:
    """Resident memory in MB."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


def test_stores_double(monkeypatch):
    grown = []
    grow = Trajectory.grow
    monkeypatch.setattr(Trajectory, "grow", lambda self: (grown.append(len(self.c)), grow(self)))
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, max_step=0.0025)
    assert solution.stats.n_steps == 4000
    assert grown == [512, 1024, 2048]
    whole = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(solution.u_T, whole.u_T, rtol=1e-9)
    grown.clear()
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, method="RK4", step=0.0025)
    assert solution.stats.n_steps == 4000 and not grown  # fixed steps are known beforehand
    np.testing.assert_allclose(np.diff(solution.t), 0.0025, rtol=1e-9)
    np.testing.assert_allclose(solution.u_T, whole.u_T, rtol=1e-7)


@pytest.mark.jitted
def test_a_million_steps():
    solution = solve(ROTATION.dynamics, ROTATION.u0, [], (0.0, 10.0), method="RK4", step=1e-5, max_steps=2_000_000)
    assert abs(solution.stats.n_steps - 1_000_000) <= 1
    np.testing.assert_allclose(solution.u_T, ROTATION.final(ROTATION.u0, None, 0.0, 10.0), atol=1e-10)
    bar = solution.pullback([1.0, 0.0])
    np.testing.assert_allclose(bar.u0, [np.cos(10.0), np.sin(10.0)], atol=1e-10)
    assert abs(bar.stats.n_steps - 1_000_000) <= 1


@pytest.mark.slow
@pytest.mark.jitted
def test_ten_thousand_solves_leave_nothing_behind():
    def rounds(count):
        for _ in range(count):
            solution = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 2.0))
            solution.pullback([1.0, 1.0])

    rounds(500)
    before = resident()
    rounds(10_000)
    assert resident() - before < 8.0


@pytest.mark.jitted
def test_failures_leave_nothing_behind():
    def rounds(count):
        for _ in range(count):
            with pytest.raises(SolveError):
                solve(lotka_volterra(), np.array([1e200, 1e200]), LV_THETA, LV_SPAN)

    rounds(50)
    before = resident()
    rounds(500)
    assert resident() - before < 8.0
