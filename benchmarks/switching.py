"""`python -m benchmarks.switching`: `method="auto"` beside the two methods that it switches between; first calls with `--first`.

Prints the table of the page "Stiff problems". Times are the least of many calls of `value_and_gradient`, errors are those of the
gradient beside one at tight tolerances, relative to the largest entry of each block.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import adjode
from adjode.losses import FinalState
from benchmarks.cases import largest_error
from benchmarks.problems import PROBLEMS, Problem
from benchmarks.stiff_problems import STIFF_PROBLEMS, van_der_pol_f, van_der_pol_vjp

_FIRST = """
import time
from benchmarks.problems import lv_final
problem = lv_final({fused})
start = time.perf_counter()
problem.value_and_gradient(method={method!r})()
print(time.perf_counter() - start)
"""


def cycles(mu: float) -> Problem:
    """Van der Pol's oscillator over about two cycles."""
    dynamics, loss = adjode.Dynamics(van_der_pol_f, van_der_pol_vjp), FinalState([1.0, 0.0])
    return Problem(
        f"van der Pol, {mu:.0f}", dynamics, np.array([2.0, 0.0]), np.array([mu, 1.0]), (0.0, 3.0 * max(mu, 7.0)), loss, {}
    )


def least_time(call: Callable[[], Any], repeats: int = 40) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def row(name: str, problem: Problem, exact: dict[str, np.ndarray], tol: float, method: str) -> str:
    options = {"method": method, "rtol": tol, "atol": 1e-4 * tol, "max_steps": 20_000}
    try:
        solution, gradient = problem.solve(**options), problem.value_and_gradient(**options)
        error = largest_error(exact, gradient()[1])
    except adjode.SolveError:
        return f"| {name} | {tol:.0e} | {method} | more than 20000 | | | | | |"
    stats, milliseconds = solution.stats, 1e3 * least_time(gradient)
    stiff = "" if solution.stiff is None else f"{np.count_nonzero(solution.stiff)}, {stats.n_switch}"
    work = f"{stats.n_steps + stats.n_rejected} | {stiff} | {stats.n_f} | {stats.n_lu} | {error:.0e} | {milliseconds:.2f}"
    return f"| {name} | {tol:.0e} | {method} | {work} |"


def table() -> None:
    problems = {"Lotka-Volterra": PROBLEMS["lv_final"]()} | {problem.name: problem for problem in map(cycles, (10.0, 100.0))}
    problems |= {name: STIFF_PROBLEMS[name]() for name in ("rober", "hires", "orego")}
    print("| problem | tolerance | `method` | steps | by Radau, switches | evaluations of `f` | factorisations | error | ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, problem in problems.items():
        tight = problem.value_and_gradient(method="Radau", rtol=1e-11, atol=1e-15)()[1]
        exact = {"u0": np.asarray(tight.u0), "theta": np.asarray(tight.theta)}
        for tol in (1e-4, 1e-7):
            for method in ("Tsit5", "Radau", "auto"):
                print(row(name, problem, exact, tol, method), flush=True)


def first_calls() -> None:
    """Seconds until the first gradient, with nothing compiled; and in a second process."""
    for fused in (False, True):
        for method in ("Tsit5", "Radau", "auto"):
            with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as precompiled:
                environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "ADJODE_PRECOMPILED": precompiled}
                command = [sys.executable, "-c", _FIRST.format(fused=fused, method=method)]
                seconds = [float(subprocess.check_output(command, env=environment, text=True)) for _ in range(2)]
            print(f"fused={fused}, {method}: {seconds[0]:.1f} s, in a second process {seconds[1]:.2f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", action="store_true", help="time the first calls, with nothing compiled, instead")
    first_calls() if parser.parse_args().first else table()
