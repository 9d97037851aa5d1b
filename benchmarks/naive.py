"""Loops as one writes them at first: a network of 2-50-2, beside rules by hand and beside C; sines and logarithms.

    python -m benchmarks.naive [--rounds K] [--output FOLDER]

prints, and with `--output` writes to naive.md there, the times of value and gradient of the problem spiral at rtol 1e-6. By hand
means `adjode.functions.tanh`, a vjp by hand, and `fastmath` for all of it; C is floor.c, compiled with -O3 for this machine. Then
those of an `f` with sines or logarithms in loops, written to naive_functions.md, beside the same function jitted, whose sines and
logarithms are those of the C library, in `f` and in the derived vjp.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numba
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


def oscillators(t, u, theta, du):
    """Kuramoto's: each is pulled by all others."""
    for i in range(u.size):
        pull = 0.0
        for j in range(u.size):
            pull += np.sin(u[j] - u[i])
        du[i] = theta[i] + theta[u.size] / u.size * pull


def entropies(t, u, theta, du):
    """Replicators whose fitness falls with the logarithm of their share."""
    mean = 0.0
    for i in range(u.size):
        mean += u[i] * np.log(u[i] / theta[i])
    for i in range(u.size):
        du[i] = u[i] * (mean - theta[u.size] * np.log(u[i] / theta[i]))


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


def measure_functions(f: Callable, rounds: int) -> tuple[str, ...]:
    """With forms for vectors and with the C library, in turns."""
    rng, n = np.random.default_rng(1), HIDDEN
    u0, theta = (1.0 + rng.random(n)) / n, np.append((1.0 + rng.random(n)) / n, 1.0)
    loss = adjode.losses.LeastSquares(np.array([1.0]), np.zeros((1, n)))
    ways = f, numba.njit(error_model="numpy", nogil=True)(f)
    options = {"adjoint": "discrete", "rtol": TOL, "atol": TOL}
    evaluate = [adjode.value_and_gradient(adjode.Dynamics(way), loss, (0.0, 1.0), **options) for way in ways]
    times = np.array([[least_seconds(lambda one=one: one(u0, theta), TURN) for one in evaluate] for _ in range(rounds)])
    ours, of_c = times.min(axis=0)
    return f.__name__, f"{1e6 * ours:.4g} µs", f"{1e6 * of_c:.4g} µs", f"{statistics.median(times[:, 0] / times[:, 1]):.2f}"


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    rows = [row for adjoint in ALGORITHMS for tier in ("portable", "fused") for row in measure(adjoint, tier, chosen.rounds)]
    texts = {"naive": table(("adjoint", "tier", "f and vjp", "adjode", "C, -O3", "ratio"), rows)}
    rows = [measure_functions(f, chosen.rounds) for f in (oscillators, entropies)]
    texts["naive_functions"] = table(("f", "forms for vectors", "C library", "ratio"), rows)
    print(*texts.values(), sep="\n")
    for name, text in texts.items() if chosen.output is not None else ():
        (chosen.output / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()
