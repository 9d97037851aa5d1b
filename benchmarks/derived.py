"""What a derived vjp costs beside the hand-written one: gradients of the reference problems, in one run and in turns.

    python -m benchmarks.derived [--rounds K] [--tiers portable fused] [--problems NAME ...] [--output FOLDER]

prints, and with `--output` writes to derived.md there, the times of value and gradient with both, the median of their ratio, and
by how much the gradients differ. Each gradient is the least of a few calls, so that other processes are seen little; where
`vjp_u` is given by hand, the derived rules have theirs too.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

import adjode
from benchmarks import problems, stiff_problems
from benchmarks.report import table
from benchmarks.scaling import least_seconds

TURN = 0.02  # seconds of calls in a round
PROBLEMS: dict[str, tuple[Callable[..., problems.Problem], str]] = {
    "lv_final": (problems.lv_final, "Tsit5"),
    "spiral": (problems.spiral, "Tsit5"),
    "pleiades": (problems.pleiades, "DOP853"),
    "batch_network": (problems.batch_network, "Tsit5"),
    "wide_layer": (problems.wide_layer, "Tsit5"),
    "rober": (stiff_problems.rober, "Radau"),
    "hires": (stiff_problems.hires, "Radau"),
    "pollu": (stiff_problems.pollu, "Radau"),
    "orego": (stiff_problems.orego, "Radau"),
    "brusselator_line": (stiff_problems.brusselator_line, "Radau"),
    "brusselator_grid": (stiff_problems.brusselator_grid, "Radau"),
}
PORTABLE_ONLY = ("brusselator_line", "brusselator_grid")


def pair(name: str, tier: str) -> list[problems.Problem]:
    """A problem with its hand-written rules, and with rules that are derived."""
    build = PROBLEMS[name][0]
    by_hand = build() if tier == "portable" else build(fused=True)
    given = by_hand.dynamics
    parts = {"jac_sparsity": given.sparsity, "name": given.name, "fused": given.fused}
    return [by_hand, replace(by_hand, dynamics=adjode.Dynamics(given.f.given, **parts))]


def difference(one: adjode.Cotangents, other: adjode.Cotangents) -> float:
    """Of two gradients, as a part of the largest entry."""
    a, b = (np.concatenate([bar.u0, bar.theta]) for bar in (one, other))
    return float(np.abs(a - b).max() / np.abs(a).max())


def measure(name: str, tier: str, rounds: int, rtol: float = 1e-6) -> tuple[str, ...]:
    calls = [one.value_and_gradient(method=PROBLEMS[name][1], rtol=rtol, atol=rtol) for one in pair(name, tier)]
    off = difference(*(call()[1] for call in calls))
    times = np.array([[least_seconds(call, TURN) for call in calls] for _ in range(rounds)])
    ratio, least = statistics.median(times[:, 1] / times[:, 0]), times.min(axis=0)
    return name, tier, *(f"{1e6 * one:.4g} µs" for one in least), f"{ratio:.2f}", f"{off:.0e}"


def geometric_mean(rows: list[tuple[str, ...]], column: int) -> str:
    mean = math.exp(statistics.mean(math.log(float(row[column])) for row in rows))
    return f"\nGeometric mean of the ratios: {mean:.2f}.\n"


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--tiers", nargs="+", choices=("portable", "fused"), default=["portable", "fused"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    rows = []
    for tier in chosen.tiers:
        for name in chosen.problems:
            if tier == "portable" or name not in PORTABLE_ONLY:
                rows.append(measure(name, tier, chosen.rounds))
                print(*rows[-1], flush=True)
    text = table(("problem", "tier", "by hand", "derived", "derived / by hand", "gradients differ by"), rows)
    text += geometric_mean(rows, 4)
    print(text)
    if chosen.output is not None:
        (chosen.output / "derived.md").write_text(text)


if __name__ == "__main__":
    main()
