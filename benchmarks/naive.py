"""A network of 2-50-2 as one writes it at first, `np.tanh` in a loop, with a derived vjp, beside rules by hand and beside C.

    python -m benchmarks.naive [--rounds K] [--output FOLDER]

prints, and with `--output` writes to naive.md there, the times of value and gradient of the problem spiral at rtol 1e-6. By hand
means `adjode.functions.tanh`, a vjp by hand, and `fastmath` for all of it; C is floor.c, compiled with -O3 for this machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

import adjode
from benchmarks import problems
from benchmarks.cases import case
from benchmarks.floor import Floor, best_of
from benchmarks.report import table
from benchmarks.scaling import least_seconds

TURN = 0.02  # seconds of calls in a round
TOL = 1e-6
ALGORITHMS = {"discrete": "discrete", "interpolating": "quadrature"}  # by adjoint, those of floor.c
HIDDEN = problems.HIDDEN


def naive(t, u, theta, du):
    x, y = u[0] ** 3, u[1] ** 3
    first, second = theta[5 * HIDDEN], theta[5 * HIDDEN + 1]
    for i in range(HIDDEN):
        a = np.tanh(theta[2 * i] * x + theta[2 * i + 1] * y + theta[2 * HIDDEN + i])
        first += theta[3 * HIDDEN + i] * a
        second += theta[4 * HIDDEN + i] * a
    du[0] = first
    du[1] = second


def contenders(tier: str) -> dict[str, problems.Problem]:
    by_hand = problems.spiral() if tier == "portable" else problems.spiral(fused=True)
    return {"by hand": by_hand, "naive": replace(by_hand, dynamics=adjode.Dynamics(naive, fused=tier == "fused"))}


def floor_call(algorithm: str) -> Callable[[], float]:
    """Seconds of a value and gradient by the C program."""
    problem = case("spiral")
    floor = Floor(problem, algorithm, TOL)
    return lambda: best_of(lambda repeats: floor.seconds(problem.u0, problem.theta, repeats), rounds=3)


def measure(adjoint: str, tier: str, rounds: int) -> list[tuple[str, ...]]:
    c, ours = floor_call(ALGORITHMS[adjoint]), contenders(tier)
    calls = {name: one.value_and_gradient(adjoint=adjoint, rtol=TOL, atol=TOL) for name, one in ours.items()}
    times = [[c(), *(least_seconds(call, TURN) for call in calls.values())] for _ in range(rounds)]
    of_c, *least = np.min(times, axis=0)
    ratios = np.median(np.array(times)[:, 1:] / np.array(times)[:, :1], axis=0)
    return [
        (adjoint, tier, name, f"{1e6 * one:.4g} µs", f"{1e6 * of_c:.4g} µs", f"{ratio:.2f}")
        for name, one, ratio in zip(calls, least, ratios, strict=True)
    ]


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    rows = [row for adjoint in ALGORITHMS for tier in ("portable", "fused") for row in measure(adjoint, tier, chosen.rounds)]
    text = table(("adjoint", "tier", "f and vjp", "adjode", "C, -O3", "ratio"), rows)
    print(text)
    if chosen.output is not None:
        (chosen.output / "naive.md").write_text(text)


if __name__ == "__main__":
    main()
