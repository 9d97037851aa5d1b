"""What events and doses cost.

    python -m benchmarks.jumps [--rounds K] [--output FOLDER]

prints, and with `--output` writes to jumps.md there: the time of a gradient with a guard that never fires beside one without;
evaluations of f for a thousand doses beside the restarts that these must be; and gradients of many patients with own doses.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

import adjode
from adjode.losses import FinalState
from benchmarks import problems, stiff_problems
from benchmarks.report import table
from benchmarks.scaling import least_seconds

TURN = 0.02  # seconds of calls in a round
_FAR = 1e6


@njit
def far(t, u, theta):
    return u[0] + _FAR


def oral(t, u, theta, du):  # theta: absorption, elimination, and a dose
    du[0] = -theta[0] * u[0]
    du[1] = theta[0] * u[0] - theta[1] * u[1]


def ratio(without: Callable[[], Any], with_guard: Callable[[], Any], rounds: int) -> float:
    """Of times, in turns."""
    without(), with_guard()
    return statistics.median(least_seconds(with_guard, TURN) / least_seconds(without, TURN) for _ in range(rounds))


def guards(rounds: int) -> list[tuple[str, ...]]:
    rows = []
    for name, build, method in (
        ("lv_final", problems.lv_final, "Tsit5"),
        ("lv_final", problems.lv_final, "DOP853"),
        ("spiral", problems.spiral, "Tsit5"),
        ("rober", stiff_problems.rober, "Radau"),
    ):
        problem = build()
        for tier in ("portable", "fused"):
            problem = build() if tier == "portable" else build(fused=True)
            options = {"method": method, "rtol": 1e-8, "atol": 1e-8}
            plain, guarded = (problem.value_and_gradient(**options, **more) for more in ({}, {"events": adjode.Event(far)}))
            rows.append((name, method, tier, f"{ratio(plain, guarded, rounds):.3f}"))
    return rows


def doses() -> tuple[int, int]:
    """Evaluations of f for a thousand doses: along one solve, and along as many solves from one to the next, with its step size."""
    dynamics, theta, options = adjode.Dynamics(oral), np.array([2.0, 0.3, 1.0]), {"rtol": 1e-6, "atol": 1e-9}
    every = 2.0
    given = adjode.Doses(0.0, 1.0, 0, every=every, until=999 * every)
    at_once = adjode.solve(dynamics, np.zeros(2), theta, (0.0, 1000 * every), doses=given, **options).stats.n_f
    u, step, pieces = np.zeros(2), None, 0
    for k in range(1000):
        u = u + np.array([1.0, 0.0])
        piece = adjode.solve(dynamics, u, theta, (k * every, (k + 1) * every), first_step=step, **options)
        u, pieces = piece.u_T, pieces + piece.stats.n_f
        step = float(np.max(np.diff(piece.t)))
    return at_once, pieces


def patients(N: int) -> float:
    """Microseconds for the gradient of a patient with seven doses of its own."""
    dynamics, rng = adjode.Dynamics(oral), np.random.default_rng(1)
    theta = np.column_stack([rng.uniform(1.0, 3.0, N), rng.uniform(0.1, 0.5, N), rng.uniform(0.5, 2.0, N)])
    given = adjode.Doses(0.0, "theta[2]", 0, every=12.0, until=72.0)
    gradient = adjode.ensemble_value_and_gradient(dynamics, FinalState([0.0, 1.0]), (0.0, 84.0), doses=given)
    gradient(np.zeros((N, 2)), theta)
    start = time.perf_counter()
    gradient(np.zeros((N, 2)), theta)
    return 1e6 * (time.perf_counter() - start) / N


def report(rounds: int) -> str:
    lines = ["Time of a gradient with a guard that never fires, as a part of that without:", ""]
    lines.append(table(("problem", "method", "tier", "ratio"), guards(rounds)))
    at_once, pieces = doses()
    lines += ["", f"A thousand doses take {at_once} evaluations of f, and {pieces} in a thousand solves from one dose to the next."]
    lines += ["", f"Ten thousand patients with seven doses each take {patients(10_000):.0f} us a gradient, on all cores."]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    text = report(given.rounds)
    print(text)
    if given.output is not None:
        (given.output / "jumps.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
