"""What tangents cost: many directions beside one, and the Jacobian of residuals beside a gradient.

    python -m benchmarks.tangents [--rounds K] [--output FOLDER]

prints, and with `--output` writes to tangents.md there, how much longer a pass with 32 directions takes than one with a single
direction on 20 states, and how many gradients one Jacobian is on the chemical problem with 20 states and 25 parameters, whose data
are its states at ten times; and how much longer a Jacobian by all 20 initial values takes by tangents than by adjoints, for few
residuals and for many. All are medians of ratios within one run, each of the least of a few calls, in turns.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np

import adjode
from adjode.losses import LeastSquares
from adjode.passes.program import Program
from adjode.passes.tangents import TangentPass
from benchmarks.chemistry import pollu_f
from benchmarks.report import table
from benchmarks.scaling import least_seconds
from benchmarks.stiff_cases import pollu

TURN, STATES, DIRECTIONS = 0.1, 20, 32
ROWS = 1, 16
METHODS = ("Tsit5", "DOP853", "Radau", "Kvaerno5", "auto")


def neighbours(t, u, theta, du):
    """A chain: what each state does depends on the one before it and the one behind."""
    for i in range(u.size):
        du[i] = theta[0] * (u[(i + 1) % u.size] - 2.0 * u[i] + u[i - 1]) - theta[1] * u[i] ** 3


def dense(t, u, theta, du):
    """Every state depends on every other, by a weight each."""
    for i in range(u.size):
        s = 0.0
        for j in range(u.size):
            s += theta[i * u.size + j] * u[j]
        du[i] = np.tanh(s) - u[i]


SYSTEMS = {"chain": (neighbours, np.array([2.0, 1.0])), "dense": (dense, np.cos(np.arange(400.0)))}


def passes(f: Callable, theta: np.ndarray, method: str) -> list[Callable[[], int]]:
    """The pass of one direction of the initial state, and that of many, along the same solution."""
    solution = adjode.solve(
        adjode.Dynamics(f), np.linspace(0.5, 1.5, STATES), theta, (0.0, 10.0), method=method, rtol=1e-6, atol=1e-6
    )
    calls = []
    for k in (1, DIRECTIONS):
        start, none = np.random.default_rng(k).normal(size=(k, STATES)), np.zeros((k, theta.size))
        parts = solution.dynamics, solution.options, solution.structure, solution.span, solution.theta
        made = TangentPass(*parts, start, none, np.zeros(0))
        made.follow(solution.trajectory, solution.counts)
        calls.append(Program(backward=made).run)
    return calls


def gradient_and_jacobian(method: str) -> list[Callable]:
    case, dynamics = pollu(), adjode.Dynamics(pollu_f)
    options = {"method": method, "rtol": 1e-6, "atol": 1e-10}
    states = adjode.solve(dynamics, case.u0, case.theta, case.t_span, **options)(case.times)
    loss = LeastSquares(case.times, 1.1 * states, sigma=0.1 * np.abs(states).max(axis=0) + 1e-9)
    both = adjode.value_and_gradient, adjode.residuals_and_jacobian
    gradient, jacobian = (of(dynamics, loss, case.t_span, wrt=("theta",), **options) for of in both)
    return [functools.partial(one, case.u0, case.theta) for one in (gradient, jacobian)]


def columns_and_rows(method: str, residuals: int) -> list[Callable]:
    """A Jacobian of the last state of the chain by its twenty initial values, by adjoints and by tangents."""
    f, theta = SYSTEMS["chain"]
    loss, options = LeastSquares(np.full(residuals, 10.0), np.ones(residuals)), {"method": method, "rtol": 1e-6, "atol": 1e-6}
    made = [
        adjode.residuals_and_jacobian(adjode.Dynamics(f), loss, (0.0, 10.0), wrt="u0", jacobian=how, **options)
        for how in ("adjoints", "tangents")
    ]
    return [functools.partial(one, np.linspace(0.5, 1.5, STATES), theta) for one in made]


def ratio(calls: list[Callable], rounds: int) -> float:
    """How much longer the second takes."""
    for call in calls:
        call()
    return statistics.median(np.divide(*[least_seconds(call, TURN) for call in reversed(calls)]) for _ in range(rounds))


def measure(rounds: int) -> str:
    rows = []
    for method in METHODS:
        many = [f"{ratio(passes(f, theta, method), rounds):.1f}" for f, theta in SYSTEMS.values()]
        jacobian = "" if method in ("Tsit5", "DOP853") else f"{ratio(gradient_and_jacobian(method), rounds):.1f}"
        by_rows = [f"{ratio(columns_and_rows(method, residuals), rounds):.1f}" for residuals in ROWS]
        rows.append((method, *many, jacobian, *by_rows))
    heads = [f"{DIRECTIONS} directions by one, {name}" for name in SYSTEMS]
    by_rows = [f"tangents by adjoints of {residuals} residuals" for residuals in ROWS]
    return table(("method", *heads, "gradients a Jacobian, pollu", *by_rows), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    text = measure(given.rounds)
    print(text)
    if given.output is not None:
        (given.output / "tangents.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
