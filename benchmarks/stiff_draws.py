"""Gradients of the stiff reference problems at random parameters, over two decades around the nominal ones.

    python -m benchmarks.stiff_draws [--draws 200] [--method Radau] [--adjoint discrete] [--problems NAME ...]

Every draw must give a gradient, or a SolveError. A gradient is compared with one at a hundredth of the tolerance, and every tenth
with differences of tight solves along a random direction. Parameters move on a logarithmic scale. Fails if any is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from adjode import SolveError, value_and_gradient
from benchmarks.problems import Problem
from benchmarks.stiff_problems import STIFF_PROBLEMS

PROBLEMS = ("rober", "hires", "orego", "pollu", "van_der_pol_1e+00", "van_der_pol_1e+06")
RTOL, LIMIT, MAX_STEPS = 1e-6, 1e-3, 100_000
_EVERY, _STEP = 10, 1e-5


@dataclass
class Outcome:
    """How the draws of one problem went: errors relative to the largest derivative, and the statuses of those that failed."""

    errors: list[float] = field(default_factory=list)
    slope_errors: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)


def span_of(problem: Problem, theta: np.ndarray) -> tuple[float, float]:
    """The problem's; with van der Pol's at mu = 1e6 it goes half the way to the first jump, of which see stiff_cases.py."""
    return (0.0, 0.5 * theta[0] / theta[1]) if problem.name == "van_der_pol_1e+06" else problem.t_span


def run(name: str, draws: int, method: str = "Radau", adjoint: str = "discrete") -> Outcome:
    problem, rng, outcome = STIFF_PROBLEMS[name](), np.random.default_rng(0), Outcome()
    for k in range(draws):
        theta = problem.theta * 10.0 ** rng.uniform(-1.0, 1.0, problem.theta.size)
        way = rng.normal(size=theta.size)

        def evaluate(rtol, theta=theta):
            options = {"method": method, "adjoint": adjoint, "rtol": rtol, "atol": 1e-5 * rtol, "max_steps": MAX_STEPS}
            made = value_and_gradient(problem.dynamics, problem.loss, span_of(problem, theta), wrt="theta", **options)
            return lambda theta: made(problem.u0, theta)

        try:
            _, bar = evaluate(RTOL)(theta)
            tight = evaluate(1e-2 * RTOL)
            _, exact = tight(theta)
            scale = np.abs(exact.theta * theta).max()
            outcome.errors.append(float(np.abs((bar.theta - exact.theta) * theta).max() / scale))
            if k % _EVERY == 0:
                ahead, behind = (evaluate(1e-4 * RTOL)(theta * np.exp(s * _STEP * way))[0] for s in (1.0, -1.0))
                slope = (ahead - behind) / (2.0 * _STEP)
                along = np.abs(exact.theta * theta * way).sum()
                outcome.slope_errors.append(float(abs(bar.theta * theta @ way - slope) / along))
        except SolveError as error:
            outcome.failed[f"{error.phase} {error.status.name}"] += 1
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--method", default="Radau")
    parser.add_argument("--adjoint", default="discrete", choices=("discrete", "interpolating"))
    parser.add_argument("--problems", nargs="+", default=PROBLEMS, choices=PROBLEMS, metavar="NAME")
    given = parser.parse_args()
    right = True
    for name in given.problems:
        outcome = run(name, given.draws, given.method, given.adjoint)
        worst = max(outcome.errors, default=0.0), max(outcome.slope_errors, default=0.0)
        print(
            f"{name:18s} {len(outcome.errors)} gradients, off by {worst[0]:.1e}; {len(outcome.slope_errors)} slopes, "
            f"by {worst[1]:.1e}; failed: {dict(outcome.failed)}",
            flush=True,
        )
        right &= max(worst) < LIMIT
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
