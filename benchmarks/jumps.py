"""What events and doses cost.

    python -m benchmarks.jumps [--rounds K] [--output FOLDER]

prints, and with `--output` writes to jumps.md there: the times of a solve and of a gradient with a guard that never fires beside
those without; evaluations of f for a thousand doses beside the restarts that these must be; and the time of a gradient of one of
many patients with own doses, beside that of a call for one alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

import adjode
from adjode.losses import FinalState
from benchmarks import problems, stiff_problems
from benchmarks.problems import Problem
from benchmarks.report import table
from benchmarks.scaling import least_seconds

TURN = 0.02  # seconds of calls in a round
TIERS = {"portable": False, "fused": True}
_FAR = 1e6


def far(t, u, theta):
    return u[0] + _FAR


def oral(t, u, theta, du):  # theta: absorption, elimination, and a dose
    du[0] = -theta[0] * u[0]
    du[1] = theta[0] * u[0] - theta[1] * u[1]


def reset(t, u, theta, u_new):
    u_new[0] = 0.5 * u[0]


GUARDED: tuple[dict[str, Any], ...] = ({}, {"events": adjode.Event(far)}, {"events": adjode.Event(far, reset)})


def in_turns(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """The least seconds of a call of each, over rounds in which all have their turn."""
    least = [math.inf] * len(calls)
    for _ in range(rounds):
        least = [min(seconds, least_seconds(call, TURN)) for seconds, call in zip(least, calls, strict=True)]
    return least


def measured() -> Iterator[tuple[str, str, str, Problem]]:
    """Problems with a name, a method and a tier."""
    for method, tier in itertools.product(("Tsit5", "DOP853"), TIERS):
        for build in (problems.lv_final, problems.lv_series):
            yield build.__name__, method, tier, dataclasses.replace(build(), dynamics=problems.lv_dynamics(TIERS[tier]))
    for tier, fused in TIERS.items():
        yield "spiral", "Tsit5", tier, problems.spiral(fused)
        yield "rober", "Radau", tier, stiff_problems.rober(fused)


def guards(rounds: int) -> list[tuple[str, ...]]:
    """Times with a guard that has no reset, and with one that has, as parts of those without a guard."""
    rows = []
    for name, method, tier, problem in measured():
        options = {"method": method, "rtol": 1e-8, "atol": 1e-8}
        solves = [partial(problem.solve, **options, **given) for given in GUARDED]
        gradients = [problem.value_and_gradient(**options, **given) for given in GUARDED]
        times = [in_turns(calls, rounds) for calls in (solves, gradients)]
        parts = [f"{least[k] / least[0]:.2f}" for least in times for k in (1, 2)]
        rows.append((name, method, tier, *parts, f"{1e6 * times[0][0]:.0f}", f"{1e6 * times[1][0]:.0f}"))
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


def patients(N: int, rounds: int = 3) -> tuple[float, float]:
    """Microseconds for the gradient of a patient with seven doses of its own: in an ensemble on one thread, and by jitted calls."""
    dynamics, rng = adjode.Dynamics(oral), np.random.default_rng(1)
    u0, theta = np.zeros((N, 2)), rng.uniform([1.0, 0.1, 0.5], [3.0, 0.5, 2.0], (N, 3))
    given: dict[str, Any] = {"doses": adjode.Doses(0.0, "theta[2]", 0, every=12.0, until=72.0)}
    problem = dynamics, FinalState([0.0, 1.0]), (0.0, 84.0)
    gradient = adjode.ensemble_value_and_gradient(*problem, workers=1, **given)
    evaluate = adjode.value_and_gradient(*problem, **given).jitted(2, 3)

    @njit
    def one_by_one(u0, theta, u0_bar, theta_bar):
        for i in range(len(u0)):
            evaluate(u0[i], theta[i], u0_bar[i], theta_bar[i])

    calls = partial(gradient, u0, theta), partial(one_by_one, u0, theta, np.zeros_like(u0), np.zeros_like(theta))
    for call in calls:
        call()
    together, alone = in_turns(calls, rounds)
    return 1e6 * together / N, 1e6 * alone / N


def report(rounds: int) -> str:
    columns = ("problem", "method", "tier", "solve", "with a reset", "gradient", "with a reset", "solve, us", "gradient, us")
    at_once, pieces = doses()
    together, alone = patients(10_000)
    lines = [
        "Times with a guard that never fires, as parts of those without, which are in microseconds at the end:",
        "",
        table(columns, guards(rounds)),
        f"A thousand doses take {at_once} evaluations of f, and {pieces} in a thousand solves from one dose to the next.",
        "",
        "The gradient of one of ten thousand patients with seven doses each takes",
        f"{together:.1f} us in an ensemble on one thread, and {alone:.1f} us by jitted calls in a loop.",
    ]
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
