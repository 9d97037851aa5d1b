"""Cost against work: steps, states, parameters and observations, each over several decades with the others held fixed.

    python -m benchmarks.scaling --output docs/measured

measures time and memory of one value and gradient and writes scaling.json, the figure scaling.svg and the table scaling.md. Every
cost should grow at most in proportion to the work: the order between two sizes, log(cost ratio) / log(size ratio), at most 1.
Needs Matplotlib. The process refuses to take more than 8 GB.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import itertools
import json
import math
import platform
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import adjode
from adjode.losses import FinalState, LeastSquares
from benchmarks.problems import Problem, lv_dynamics

ADJOINTS = ("interpolating", "discrete")
MEMORY_LIMIT = 8 << 30  # bytes
_SECONDS = 0.15  # to spend on the repetitions of one measurement, of which there are at least three, in each round
_ROUNDS = 4


# --- what grows: each builder makes a problem of the given size, and the options of its solve -----------------------------


def ring_f(t, u, theta, du):  # each state follows its neighbour, and decays; steps do not depend on how many there are
    for i in range(u.size):
        du[i] = theta[0] * (u[i - 1] - u[i]) - theta[1] * u[i] * u[i]


def ring_vjp(t, u, theta, lam, u_bar, theta_bar):
    follow, decay = 0.0, 0.0
    for i in range(u.size):
        u_bar[i] = -lam[i] * (theta[0] + 2.0 * theta[1] * u[i])
        follow += lam[i] * (u[i - 1] - u[i])
        decay -= lam[i] * u[i] * u[i]
    for i in range(u.size):
        u_bar[i - 1] += lam[i] * theta[0]
    theta_bar[0] = follow
    theta_bar[1] = decay


def mean_f(t, u, theta, du):  # decay at the mean of all parameters
    total = 0.0
    for j in range(theta.size):
        total += theta[j]
    du[0] = -total / theta.size * u[0]


def mean_vjp(t, u, theta, lam, u_bar, theta_bar):
    total = 0.0
    each = -lam[0] * u[0] / theta.size
    for j in range(theta.size):
        total += theta[j]
        theta_bar[j] = each
    u_bar[0] = -total / theta.size * lam[0]


@functools.cache
def _ring() -> adjode.Dynamics:
    return adjode.Dynamics(ring_f, ring_vjp, name="ring")


@functools.cache
def _mean() -> adjode.Dynamics:
    return adjode.Dynamics(mean_f, mean_vjp, name="mean")


def _lotka_volterra(T: float, loss: Any) -> Problem:
    theta = np.array([1.5, 1.0, 3.0, 1.0])
    return Problem("Lotka-Volterra", lv_dynamics(), np.ones(2), theta, (0.0, T), loss, {})


def more_steps(size: int) -> tuple[Problem, dict[str, Any]]:
    return _lotka_volterra(0.1 * size, FinalState([1.0, 1.0])), {"step": 0.1, "max_steps": 2 * size}


def more_states(size: int) -> tuple[Problem, dict[str, Any]]:
    u0 = 1.0 + 0.5 * np.cos(np.arange(size))
    problem = Problem("ring", _ring(), u0, np.array([1.0, 0.5]), (0.0, 5.0), FinalState(np.ones(size)), {})
    return problem, {"step": 0.1}


def more_parameters(size: int) -> tuple[Problem, dict[str, Any]]:
    problem = Problem("mean", _mean(), np.ones(1), np.linspace(0.5, 1.5, size), (0.0, 2.0), FinalState([1.0]), {})
    return problem, {"step": 0.1}


def more_observations(size: int) -> tuple[Problem, dict[str, Any]]:
    times = 10.0 * np.arange(1, size + 1) / size
    return _lotka_volterra(10.0, LeastSquares(times, np.ones((size, 2)))), {"max_steps": 10_000 + 2 * size}


@dataclass(frozen=True)
class Axis:
    what: str
    build: Callable[[int], tuple[Problem, dict[str, Any]]]
    sizes: tuple[int, ...]


def _decades(first: int, last: int) -> tuple[int, ...]:
    return tuple(10**k for k in range(first, last + 1))


AXES = {
    "steps": Axis("Lotka-Volterra over a longer and longer span", more_steps, _decades(2, 6)),
    "states": Axis("a ring of states, each following its neighbour", more_states, _decades(0, 4)),
    "parameters": Axis("decay at the mean of all parameters", more_parameters, _decades(0, 6)),
    "observations": Axis("Lotka-Volterra observed more and more often", more_observations, _decades(0, 5)),
}


# --- measure ----------------------------------------------------------------------------------------------------------------


def value_and_gradient(problem: Problem, adjoint: str, **options: Any) -> tuple[adjode.Solution, adjode.Cotangents]:
    """As `adjode.value_and_gradient`, but with the solution, whose counters are wanted."""
    solution = problem.solve(**options)
    _, seeds = problem.loss.value_and_cotangents(solution)
    return solution, solution.pullback(**seeds, wrt=("u0", "theta"), adjoint=adjoint)


def evaluations(problem: Problem, adjoint: str, **options: Any) -> dict[str, int]:
    """Evaluations of `f` and `vjp` in both passes, and the steps of both."""
    solution, bar = value_and_gradient(problem, adjoint, **options)
    return {
        "n_f": solution.stats.n_f + bar.stats.n_f,
        "n_vjp": bar.stats.n_vjp,
        "n_steps": solution.stats.n_steps,
        "n_steps_back": bar.stats.n_steps,
    }


def peak_memory(run: Callable[[], Any]) -> int:
    """Bytes that arrays and Python's objects take at most while `run` runs, beyond what is there before."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def least_seconds(run: Callable[[], Any], spend: float = _SECONDS) -> float:
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < spend:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@dataclass
class Row:
    """One measurement; `memory` in bytes."""

    axis: str
    adjoint: str
    size: int
    work: dict[str, int]
    memory: int
    seconds: float = math.inf


def measure(axes: Iterable[str] = tuple(AXES)) -> list[Row]:
    """All sizes in turn, several times, so that what disturbs the machine for a while does not spoil all times of one size."""
    runs, rows = [], []
    for name, adjoint in itertools.product(axes, ADJOINTS):
        for size in AXES[name].sizes:
            problem, options = AXES[name].build(size)
            run = functools.partial(value_and_gradient, problem, adjoint, **options)
            rows.append(Row(name, adjoint, size, evaluations(problem, adjoint, **options), peak_memory(run)))
            runs.append(run)
    for k in range(_ROUNDS):
        for row, run in zip(rows, runs, strict=True):
            row.seconds = min(row.seconds, least_seconds(run))
        print(f"round {k + 1} of {_ROUNDS} done", flush=True)
    return rows


def orders(rows: list[Row], cost: str) -> list[float]:
    """The order of growth between each size and the one before."""
    pairs = itertools.pairwise(rows)
    return [math.log(getattr(b, cost) / getattr(a, cost)) / math.log(b.size / a.size) for a, b in pairs]


# --- write ------------------------------------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    packages = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "adjode")}
    return {"processor": models[0] if models else platform.processor(), "python": platform.python_version(), **packages}


def series(rows: list[Row], axis: str, adjoint: str) -> list[Row]:
    return [row for row in rows if (row.axis, row.adjoint) == (axis, adjoint)]


def write_figure(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "scaling", "svg.fonttype": "none"})  # the same numbers give the same, short, file
    figure, panels = plt.subplots(2, len(AXES), figsize=(13, 6), sharex="col", layout="constrained")
    for column, axis in enumerate(AXES):
        for panel, (cost, unit) in zip(panels[:, column], (("seconds", 1.0), ("memory", 1e-6)), strict=True):
            for adjoint, marker in zip(ADJOINTS, "os", strict=True):
                line = series(rows, axis, adjoint)
                panel.loglog([r.size for r in line], [unit * getattr(r, cost) for r in line], marker=marker, label=adjoint)
            longest = series(rows, axis, ADJOINTS[0])
            ends = np.array([longest[0].size, longest[-1].size])
            level = unit * getattr(longest[-1], cost)
            low = panel.get_ylim()[0]
            panel.plot(ends, level * ends / ends[-1], "k--", linewidth=1, label="slope 1")
            panel.set_ylim(bottom=low)  # where the cost is constant at first, the line would leave the rest no room
            panel.minorticks_off()  # half of the file
            panel.grid(alpha=0.3)
        panels[1, column].set_xlabel(axis)
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("memory, MB")
    panels[0, 0].legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def table(rows: list[Row], about: dict[str, str]) -> str:
    """The largest size of each axis, and the orders of growth: that of the last decade, and the largest."""
    head = (
        "axis",
        "adjoint",
        "largest size",
        "seconds",
        "order, last decade",
        "largest order",
        "MB",
        "order of memory, last decade",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for axis in AXES:
        for adjoint in ADJOINTS:
            line = series(rows, axis, adjoint)
            if line:
                time_orders, memory_orders = orders(line, "seconds"), orders(line, "memory")
                cells = (axis, f'`"{adjoint}"`', line[-1].size, f"{line[-1].seconds:.3g}", f"{time_orders[-1]:.2f}")
                cells += (f"{max(time_orders):.2f}", f"{line[-1].memory / 1e6:.3g}", f"{memory_orders[-1]:.2f}")
                lines.append("| " + " | ".join(map(str, cells)) + " |")
    made = f"{about['processor']}, one core; Python {about['python']}, NumPy {about['numpy']}, Numba {about['numba']}."
    return "\n".join([*lines, "", made, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="folder for scaling.json, scaling.svg and scaling.md")
    parser.add_argument("--axes", nargs="*", choices=AXES, default=tuple(AXES), help="measure these alone, and print them")
    arguments = parser.parse_args()
    if arguments.output and set(arguments.axes) != set(AXES):
        parser.error("--output takes all axes")
    import resource  # not on Windows, where the rest works

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    rows = measure(arguments.axes)
    for row in rows:
        print(f"{row.axis:13s} {row.adjoint:14s} {row.size:8d} {row.seconds:10.3e} s {row.memory / 1e6:9.3f} MB  {row.work}")
    about = machine()
    print(table(rows, about))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        data = {"machine": about, "rows": [asdict(row) for row in rows]}
        (arguments.output / "scaling.json").write_text(json.dumps(data, indent=1) + "\n")
        (arguments.output / "scaling.md").write_text(table(rows, about))
        write_figure(rows, arguments.output / "scaling.svg")


if __name__ == "__main__":
    main()
