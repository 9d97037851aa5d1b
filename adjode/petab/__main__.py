"""`python -m adjode.petab problem.yaml`: what is in a problem, its log-likelihood, a fit, figures."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from adjode.petab.plotting import plot
from adjode.petab.problem import Problem, load


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m adjode.petab", description="Load a PEtab problem of version 1.")
    parser.add_argument("problem", type=Path, help="the yaml file")
    parser.add_argument("--source", action="store_true", help="print the model as Python, and nothing else")
    parser.add_argument("--fit", action="store_true", help="minimise from the nominal values")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="write a figure for each experiment: data and model")
    parser.add_argument("--rtol", type=float, help="relative tolerance of the solves")
    parser.add_argument("--atol", type=float, help="absolute tolerance of the solves")
    given = parser.parse_args(arguments)
    options = {name: value for name in ("rtol", "atol") if (value := getattr(given, name)) is not None}
    try:
        problem = load(given.problem, **options)
    except (ValueError, ImportError) as error:
        parser.exit(1, f"{error}\n")
    if given.source:
        print(problem.source, end="")
        return
    _report(problem)
    x = _fitted(problem) if given.fit else problem.x0
    if given.plot:
        given.plot.mkdir(parents=True, exist_ok=True)
        for file in plot(problem, x, given.plot):
            print(f"wrote {file}")


def _report(problem: Problem) -> None:
    states, theta = problem.dynamics.fields
    assert states is not None and theta is not None
    data = sum(int(np.isfinite(row.value)) for row in problem.tables.measurements)
    print(f"{problem.tables.path}: {len(problem.experiments)} experiments, {data} data, {len(problem.names)} parameters to fit")
    print(f"model: {states.size} states, {theta.size} inputs; {len(problem.source.splitlines())} lines of Python")
    problem.evaluate(problem.x0)  # compiles
    start = time.perf_counter()
    value, gradient = problem.evaluate(problem.x0)
    passed = time.perf_counter() - start
    print(f"log-likelihood at the nominal values: {problem.log_likelihood():.10g}")
    print(f"loss, with priors: {value:.10g}; norm of its gradient {np.linalg.norm(gradient):.3g}, in {1e3 * passed:.3g} ms")


def _fitted(problem: Problem) -> np.ndarray:
    result = problem.minimize()
    print(f"fit: loss {result.fun:.10g} after {result.nit} iterations; {result.message}")
    width = max(map(len, problem.names))
    for name, value in result.parameters.items():
        print(f"  {name:{width}} {value:.6g}")
    return np.asarray(result.x)


if __name__ == "__main__":
    main()
