"""Work and memory grow no faster than the problem; times are for `benchmarks/scaling.py`, which no test measures."""

import json

import pytest

from adjode import check_vjp
from benchmarks.scaling import ADJOINTS, AXES, Row, evaluations, peak_memory, table, value_and_gradient
from tests import ROOT

MEASURED = ROOT / "docs" / "measured"


# Two sizes, the second ten times the first, both large enough for what does not grow to be small beside what does.
SIZES = {"steps": (10_000, 100_000), "states": (1_000, 10_000), "parameters": (10_000, 100_000), "observations": (5_000, 50_000)}
MORE_WORK = {"steps", "observations"}  # the others make each evaluation longer, not their number larger


@pytest.mark.parametrize("axis", AXES)
def test_vjps(axis):
    problem, _ = AXES[axis].build(5)
    check_vjp(problem.dynamics, problem.u0, problem.theta).raise_if_wrong()


@pytest.mark.jitted
@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("axis", AXES)
def test_work_is_linear(axis, adjoint):
    few, many = (evaluations(problem, adjoint, **options) for problem, options in map(AXES[axis].build, SIZES[axis]))
    most = 10 if axis in MORE_WORK else 1
    for counter, count in few.items():
        assert many[counter] <= most * count, counter


@pytest.mark.jitted
@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("axis", AXES)
def test_memory_is_linear(axis, adjoint):
    """Stores double when they are full, so that memory may be up to twice what a proportion would give."""
    peaks = []
    for size in SIZES[axis]:
        problem, options = AXES[axis].build(size)
        value_and_gradient(problem, adjoint, **options)  # what is compiled and kept is not counted
        peaks.append(peak_memory(lambda p=problem, o=options: value_and_gradient(p, adjoint, **o)))
    assert peaks[1] < 2 * 10 * peaks[0]


@pytest.mark.jitted
@pytest.mark.slow
def test_memory_of_a_step():
    """t, u and the polynomial of each step; a store that doubles holds at most three times as much while it grows."""
    size = 100_000
    problem, options = AXES["steps"].build(size)
    value_and_gradient(problem, "interpolating", **options)
    solution = problem.solve(**options)
    stored = sum(array.nbytes for array in (solution.t, solution.u, solution.dense.c)) / size
    peak = peak_memory(lambda: value_and_gradient(problem, "interpolating", **options)) / size
    assert stored < peak < 3.0 * stored


def test_the_page_shows_what_was_measured():
    data = json.loads((MEASURED / "scaling.json").read_text())
    assert (MEASURED / "scaling.md").read_text() == table([Row(**row) for row in data["rows"]], data["machine"])
