"""Gradients of ten thousand Lorenz systems on threads: time, error, scaling, and what the passes alone would take.

    python -m benchmarks.ensembles

prints for each tier the time of an ensemble on one thread, two, ... and all CPUs, beside a loop of single calls from Python and
beside one compiled call repeated; and the largest error of the gradients against sensitivities that SciPy integrates with tight
tolerances. Times are the least of many, taken in turns, so that a busy machine matters little. With `--output docs/measured` it
writes the table of the page "Ensembles" anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp

import adjode
from adjode.backends.threads import count_workers
from benchmarks.problems import LORENZ_LOSS, LORENZ_SPAN, lorenz_dynamics, lorenz_ensemble
from benchmarks.scaling import machine

METHOD, TOLERANCE = "Tsit5", 2e-8  # rtol and atol, for an error of the gradient of at most 1e-6
_CHECKED = 25  # trajectories compared with the reference


def sensitivities(u0: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """dx(1)/d(u0, theta) by the variational equations, which know nothing of adjoints."""

    def rhs(t, v):
        x, y, z = v[:3]
        s, r, b = theta
        jacobian = np.array([[-s, s, 0.0], [r - z, -1.0, -x], [y, x, -b]])
        by_theta = np.array([[y - x, 0.0, 0.0], [0.0, x, 0.0], [0.0, 0.0, -z]])
        spread = jacobian @ v[3:].reshape(3, 6)
        spread[:, 3:] += by_theta
        return np.concatenate([[s * (y - x), x * (r - z) - y, x * y - b * z], spread.ravel()])

    start = np.concatenate([u0, np.hstack([np.eye(3), np.zeros((3, 3))]).ravel()])
    return solve_ivp(rhs, LORENZ_SPAN, start, method="DOP853", rtol=1e-13, atol=1e-13).y[3:9, -1]


def largest_error(bar: adjode.Cotangents, u0: np.ndarray, theta: np.ndarray) -> float:
    some = np.linspace(0, len(u0) - 1, _CHECKED).astype(int)
    return max(float(np.abs(np.append(bar.u0[i], bar.theta[i]) - sensitivities(u0[i], theta[i])).max()) for i in some)


def least_times(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """The least wall-clock seconds of each task; the least CPU seconds of its threads, which depend little on other processes."""
    least = dict.fromkeys(tasks, (np.inf, np.inf))
    for _ in range(repeats):
        for name, task in tasks.items():
            wall, cpu = time.perf_counter(), time.process_time()
            task()
            taken = time.perf_counter() - wall, time.process_time() - cpu
            least[name] = min(least[name][0], taken[0]), min(least[name][1], taken[1])
    return least


def measure(N: int, repeats: int, fused: bool) -> dict[str, float]:
    dynamics, (u0, theta) = lorenz_dynamics(fused), lorenz_ensemble(N)
    options = {"method": METHOD, "rtol": TOLERANCE, "atol": TOLERANCE}
    problem = dynamics, LORENZ_LOSS, LORENZ_SPAN
    single = adjode.value_and_gradient(*problem, **options)
    compiled, bars = single.jitted(3, 3), (np.zeros(3), np.zeros(3))
    cpus = count_workers(None)
    ensembles = {w: adjode.ensemble_value_and_gradient(*problem, workers=w, **options) for w in range(1, cpus + 1)}
    tasks: dict[str, Callable[[], object]] = {f"seconds, threads: {w}": lambda e=e: e(u0, theta) for w, e in ensembles.items()}
    tasks["seconds, solve_ensemble"] = lambda: adjode.solve_ensemble(dynamics, u0, theta, LORENZ_SPAN, **options)
    some = range(0, N, max(1, N // 100))  # the next two are slow and even, so a part of them will do
    tasks["seconds, loop of single calls"] = lambda: [single(u0[i], theta[i]) for i in some]
    tasks["seconds, passes alone"] = lambda: [compiled(u0[i], theta[i], *bars) for i in some]
    for task in tasks.values():
        task()
    least = least_times(tasks, repeats)
    value, bar = ensembles[cpus](u0, theta)
    result = {name: wall for name, (wall, _) in least.items()}
    for name in ("seconds, loop of single calls", "seconds, passes alone"):
        result[name] *= N / len(some)
    for w in ensembles:
        result[f"CPU seconds, threads: {w}"] = least[f"seconds, threads: {w}"][1]
    for w in range(2, cpus + 1):
        result[f"speedup per thread, threads: {w}"] = least["seconds, threads: 1"][0] / least[f"seconds, threads: {w}"][0] / w
    result["largest error of the gradient"] = largest_error(bar, u0, theta)
    result["mean number of steps"] = float(bar.stats.n_steps.mean())
    assert all(value[i] == single(u0[i], theta[i])[0] for i in some)
    return result


def table(rows: dict[str, dict[str, float]], about: dict[str, str], N: int) -> str:
    """The page's table, in Markdown."""
    tiers = list(rows)
    lines = [f"| {N} Lorenz systems | " + " | ".join(tiers) + " |", "|---" * (1 + len(tiers)) + "|"]
    for name in rows[tiers[0]]:
        lines.append(f"| {name} | " + " | ".join(f"{rows[tier][name]:.3g}" for tier in tiers) + " |")
    made = f"{METHOD}, rtol = atol = {TOLERANCE:g}. {about['processor']}, {count_workers(None)} CPUs; Python {about['python']}, "
    return "\n".join([*lines, "", f"{made}NumPy {about['numpy']}, Numba {about['numba']}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-N", type=int, default=10_000, help="number of trajectories")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path, help="folder for ensembles.md and ensembles.json")
    arguments = parser.parse_args()
    about = machine()
    print(f"{arguments.N} gradients, {METHOD}, rtol = atol = {TOLERANCE:g}; {about['processor']}, {count_workers(None)} CPUs")
    rows = {}
    for tier in ("portable", "fused"):
        rows[tier] = measure(arguments.N, arguments.repeats, tier == "fused")
        for name, number in rows[tier].items():
            print(f"  {tier:8s} {name:46s} {number:10.4g}")
    if arguments.output:
        data = {"machine": about, "N": arguments.N, "rows": rows}
        (arguments.output / "ensembles.json").write_text(json.dumps(data, indent=1) + "\n")
        (arguments.output / "ensembles.md").write_text(table(rows, about, arguments.N))


if __name__ == "__main__":
    main()
