"""The comparison with other libraries: those that are installed compute the gradients, and the tables say what was measured."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import peers, report
from benchmarks.cases import (
    CASES,
    JACOBIANS,
    STIFF_JACOBIANS,
    Gradient,
    case,
    derivatives_from_tangents,
    gradient_error,
    jacobians,
    references,
    stiff_references,
)
from benchmarks.compare import Effort, measure_speed
from benchmarks.peers.process import Pool, WorkerError
from benchmarks.problems import PROBLEMS
from benchmarks.stiff_cases import STIFF_CASES

SLOW_PEERS = ("torchdiffeq", "diffrax")  # to compile or to run
HARD, ROBUST = (
    ("pollu", "J_pollu", "brusselator_2d"),
    ("cvodes", "adjode: portable, discrete, Radau"),
)  # where others fail, or take minutes


def variants():
    for peer in peers.PEERS:
        if peers.why_not(peer) is None:
            yield from (pytest.param(one, id=one.name) for one in peers.module(peer).contenders())


@pytest.mark.parametrize("name", CASES)
def test_cases_and_problems_are_the_same(name):
    problem, numbers = PROBLEMS[name](), case(name)
    np.testing.assert_array_equal(problem.u0, numbers.u0)
    np.testing.assert_array_equal(problem.theta, numbers.theta)
    assert problem.t_span == numbers.t_span and numbers.times[-1] == numbers.t_span[1]
    solution = problem.solve(rtol=1e-8, atol=1e-8)
    value, seeds = problem.loss.value_and_cotangents(solution)
    mine, u_bars = numbers.loss(solution(numbers.times))
    assert math.isclose(mine, value, rel_tol=1e-9)
    theirs = seeds["observations"][1] if "observations" in seeds else seeds["u_T_bar"]
    np.testing.assert_allclose(u_bars, np.atleast_2d(theirs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*JACOBIANS, *STIFF_JACOBIANS])
def test_stored_jacobians(name):
    """Pulled back through the loss of the problem they are the stored gradients, which were computed by other methods."""
    residuals, whole, stored = case(name), case(name.removeprefix("J_")), jacobians()[name]
    shape = whole.times.size, whole.u0.size
    tangents = np.hstack([stored["u0"], stored["theta"]]).reshape(*shape, -1) * residuals.sigma[:, None]
    states = np.zeros(shape)
    if getattr(whole, "data", None) is not None:  # the only loss whose cotangents depend on the states
        states = PROBLEMS[whole.name]().solve(method="Vern9", rtol=1e-13, atol=1e-13)(whole.times)
    assert gradient_error(whole.name, derivatives_from_tangents(whole, states, tangents)) < 1e-11
    J = derivatives_from_tangents(residuals, states, tangents)
    assert gradient_error(name, J) < 1e-14
    assert gradient_error(name, J._replace(u0=1.001 * J.u0)) > 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of other libraries
@pytest.mark.parametrize("contender", list(variants()))
def test_contenders_compute_the_gradients(contender):
    # fused entries take long to compile: the portable tier computes the other cases
    for name in contender.cases[:1] if "fused" in contender.name else contender.cases:
        if (contender.peer in SLOW_PEERS and name == "lv_series") or (name in HARD and not contender.name.startswith(ROBUST)):
            continue
        problem = case(name)
        gradient = contender.make(problem, 1e-7)(problem.u0.copy(), problem.theta.copy())
        assert gradient_error(name, gradient) < 1e-3
        assert (gradient.u0.shape[-1], gradient.theta.shape[-1]) == (problem.u0.size, problem.theta.size)
        if not name.startswith("J_"):
            loss = (stiff_references()[name] if name in STIFF_CASES else references()[name]["reference"])["loss"][0]
            assert math.isclose(gradient.value, loss, rel_tol=1e-4)


def test_parameters_are_not_compiled_in():
    """Other parameters give another gradient, the first ones the first again."""
    if peers.why_not("floor"):
        pytest.skip("needs gcc")
    problem = case("lv_series")
    evaluate = peers.module("floor").contenders()[0].make(problem, 1e-6)
    first = evaluate(problem.u0, problem.theta)
    other = evaluate(1.1 * problem.u0, 1.1 * problem.theta)
    again = evaluate(problem.u0, problem.theta)
    assert abs(other.value - first.value) > 1.0
    np.testing.assert_array_equal(again.theta, first.theta)


@pytest.fixture
def pool(tmp_path):
    with Pool(str(tmp_path), patience=120.0) as pool:
        yield pool


def test_worker_measures_and_reports_failures(pool):
    if peers.why_not("floor"):
        pytest.skip("needs gcc")
    what = {"contender": "floor: discrete, gcc -O3", "case": "lv_final", "tol": 1e-6}
    answer = pool.ask("floor", "make", **what)
    assert gradient_error("lv_final", Gradient(**answer["gradient"])) < 1e-3
    assert 0 < pool.ask("floor", "measure", seconds=0.001, **what)["seconds"] < 0.1
    assert pool.ask("floor", "memory")["bytes"] > 2**20
    with pytest.raises(WorkerError, match="KeyError"):
        pool.ask("floor", "make", contender="floor: none", case="lv_final", tol=1e-6)
    pool.workers["floor"].process.kill()
    pool.workers["floor"].process.wait()
    pool.ask("floor", "make", **what)  # in a new process
    with pytest.raises(WorkerError, match="its process ended"):
        pool.ask("nothing of this name", "memory")


def test_report(tmp_path):
    """From measuring to the files, and a contender that fails is a row of the table of failures."""
    if peers.why_not("floor"):
        pytest.skip("needs gcc")

    contenders = [one for one in peers.module("floor").contenders() if "fast" not in one.name]
    broken = peers.Contender("floor", "no such variant", contenders[0].make)
    effort = Effort((1e-4, 1e-6), rounds=2, turn=0.001, most=1.0, startups=1)
    results = {
        "machine": {"processor": "p", "python": "3", "date": "today"},
        "versions": {"floor": {}},
        "absent": {"heyoka": "not installed: heyoka"},
        "speed": measure_speed(["lv_final"], [*contenders, broken], effort),
        "startup": [{"contender": "a", "peer": "a", "case": "lv_final", "failure": "too\nbad"}],
    }
    report.write(results, tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert {f"{name}.md" for name in report.PARTS if name != "floor"} | {"compare.json"} == set(written) - {"compare.svg"}
    assert "not installed: heyoka" in written["setup.md"]
    assert written["speed.md"].count("no such variant") == 1 + 2 * len(effort.tolerances) and "KeyError" in written["speed.md"]
    assert "failed: too bad" in written["startup.md"]


def test_tight_tolerances_and_chosen_errors():
    """Methods of high order alone are measured at the tightest tolerances, and times compared at the errors asked for."""
    if peers.why_not("floor"):
        pytest.skip("needs gcc")
    plain = peers.module("floor").contenders()[:2]
    chosen = [plain[0], replace(plain[1], fine=True)]
    effort = Effort((1e-4, 1e-6), rounds=2, turn=0.001, most=1.0, startups=1, fine=(1e-8,))
    speed = measure_speed(["lv_final"], chosen, effort)
    assert [cell["contender"] for cell in speed if cell["tol"] == 1e-8] == [plain[1].name]
    first, *rows = report.precision({"speed": speed, "errors": [1e-3, 1e-6]}).splitlines()
    assert first == "| contender | lv_final, 1e-03 | lv_final, 1e-06 |" and len(rows) == 1 + len(chosen)


def test_time_at_an_error():
    measured = [(1e-2, 1.0), (1e-4, 10.0), (1e-6, 100.0)]
    assert report.seconds_to_reach(measured, 1e-4) == 10.0
    assert math.isclose(report.seconds_to_reach(measured, 1e-5), 10**1.5)
    assert report.seconds_to_reach(measured, 1e-1) == 1.0
    assert report.seconds_to_reach(measured, 1e-8) is None
