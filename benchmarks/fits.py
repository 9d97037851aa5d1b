"""Fits by Gauss-Newton beside L-BFGS-B, from many starts; and what a Hessian-vector product costs.

    python -m benchmarks.fits --output docs/measured

writes fits.md: for each problem how many solves either needs in the median of `--starts` starts, how long that takes, and how often
it ends at the lowest loss that any has found; the same of rings of reactions with more and more rates, by which `Fit.fit` chooses;
and Hessian-vector products in gradients. Takes some minutes.
"""

from __future__ import annotations

import argparse
import functools
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import adjode
from adjode import Fit, SolveError
from adjode.losses import LeastSquares
from benchmarks.report import table
from benchmarks.stiff_problems import hires, pollu, rober

SAME = 1.01  # times the lowest loss
MOST = 200  # solves of L-BFGS-B
RINGS = (10, 30, 100)


class Case(NamedTuple):
    """A fit, and by how much the logarithms of its entries differ from it at the starts."""

    fit: Fit
    spread: float


def noisy(problem: Any, times: np.ndarray, sigma: np.ndarray, seed: int, **options: Any) -> LeastSquares:
    """All states at these times, with errors of so many standard deviations (n,)."""
    states = adjode.solve(problem.dynamics, problem.u0, problem.theta, problem.t_span, t_eval=times, **options).u_eval
    return LeastSquares(times, states + sigma * np.random.default_rng(seed).normal(size=states.shape), sigma=sigma)


def chemical(make: Callable, times: np.ndarray, scale: np.ndarray, spread: float, **options: Any) -> Case:
    """All rates of a chemical model, on a logarithmic scale, from states with errors of a part of `scale`."""
    problem = make()
    loss = noisy(problem, times, 0.01 * scale, 1, **options)
    fit = Fit(problem.dynamics, loss, problem.t_span, u0=problem.u0, theta=problem.theta, log=("theta",), **options)
    return Case(fit, spread)


def robertson() -> Case:
    times, scale = np.logspace(-1.0, 4.0, 20), np.array([1.0, 4e-5, 1.0])
    return chemical(rober, times, scale, 0.5, method="Radau", rtol=1e-8, atol=1e-12)


def pollution() -> Case:
    problem = pollu()
    times = np.linspace(3.0, 60.0, 20)
    reached = adjode.solve(problem.dynamics, problem.u0, problem.theta, problem.t_span, method="Radau", t_eval=times).u_eval
    return chemical(pollu, times, np.abs(reached).max(axis=0), 0.3, method="Radau", rtol=1e-6, atol=1e-11)


def hare_lynx() -> Case:
    from examples.hare_lynx import build_fit

    return Case(build_fit(), 0.2)


def ring_f(t, u, theta, du):
    n = u.size
    for i in range(n):
        du[i] = theta[i - 1] * u[i - 1] - theta[i] * u[i] * (1.0 + 0.1 * u[i])


@functools.cache
def ring_dynamics() -> adjode.Dynamics:
    return adjode.Dynamics(ring_f)


def ring(k: int) -> Case:
    """So many states in a ring, and a rate from each to the next."""
    rng = np.random.default_rng(k)
    u0, theta, times = rng.uniform(0.5, 2.0, k), rng.uniform(0.5, 2.0, k), np.linspace(0.25, 2.0, 8)
    states = adjode.solve(ring_dynamics(), u0, theta, (0.0, 2.0), t_eval=times, rtol=1e-8).u_eval
    loss = LeastSquares(times, states + 0.01 * rng.normal(size=states.shape), sigma=0.01)
    return Case(Fit(ring_dynamics(), loss, (0.0, 2.0), u0=u0, theta=theta, log=("theta",), rtol=1e-7, atol=1e-9), 0.3)


CASES: dict[str, Callable[[], Case]] = {"hare and lynx": hare_lynx, "Robertson": robertson, "POLLU": pollution}
WAYS = {"Gauss-Newton": "trf", "L-BFGS-B": "L-BFGS-B"}
_OPTIONS: dict[str, dict[str, Any]] = {"trf": {}, "L-BFGS-B": {"options": {"maxfun": MOST}}}


class Found(NamedTuple):
    solves: int
    seconds: float
    loss: float


def fit_from(fit: Fit, x0: np.ndarray, method: str) -> Found | None:
    """One fit; None if the solve at the start fails."""
    start, fit.x0 = fit.x0, x0
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = fit.fit(method, **_OPTIONS[method])
    except SolveError:
        return None
    finally:
        fit.x0 = start
    return Found(result.nfev, time.perf_counter() - began, result.loss)


def race(case: Case, starts: int) -> dict[str, list[Found]]:
    """What has become of the same starts by either way, those alone from which both could begin."""
    rng, fit = np.random.default_rng(0), case.fit
    points = fit.x0 + case.spread * rng.normal(size=(starts, fit.x0.size))
    for method in WAYS.values():
        fit_from(fit, fit.x0, method)  # compiles
    found = [{way: fit_from(fit, x0, method) for way, method in WAYS.items()} for x0 in points]
    both = [one for one in found if all(one.values())]
    return {way: [one[way] for one in both] for way in WAYS}  # type: ignore[misc]


def rows_of(name: str, case: Case, starts: int) -> list[tuple]:
    found = race(case, starts)
    lowest = min(one.loss for outcomes in found.values() for one in outcomes)
    rows = []
    for way, outcomes in found.items():
        solves, seconds = (np.median([one[i] for one in outcomes]) for i in (0, 1))
        first = np.median([one.seconds for one in found["Gauss-Newton"]])
        there = sum(one.loss <= SAME * lowest for one in outcomes)
        size = case.fit.x0.size
        rows.append((name, size, way, f"{solves:.0f}", f"{seconds / first:.2g}", f"{there} of {len(outcomes)}"))
    return rows


def best_of(task: Callable[[], Any], rounds: int = 7) -> float:
    """Seconds of a call, the least of some rounds."""
    task()
    count, seconds = 1, []
    while (spent := _timed(task, count)) < 0.02:
        count *= 2
    for _ in range(rounds):
        seconds.append(_timed(task, count) / count)
    return min(min(seconds), spent / count)


def _timed(task: Callable[[], Any], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        task()
    return time.perf_counter() - began


def ratio_of_product(
    dynamics: adjode.Dynamics, u0: np.ndarray, theta: np.ndarray, span: tuple, **options: Any
) -> tuple[float, float]:
    """The time of a Hessian-vector product in gradients by the discrete adjoint: at a new point, and at that of the call before."""
    n, times = len(u0), np.linspace(*span, 21)
    loss = LeastSquares(times, np.ones((21, n)))
    gradient = adjode.value_and_gradient(dynamics, loss, span, adjoint="discrete", on_inaccurate="warn", **options)
    product = adjode.hessian_vector_product(dynamics, loss, span, **options)
    along, other, turn = (np.ones(n), np.ones(len(theta))), theta * (1.0 + 1e-12), [0]

    def anew():
        turn[0] ^= 1
        return product(u0, (theta, other)[turn[0]], *along)

    unit = best_of(lambda: gradient(u0, theta))
    return best_of(anew) / unit, best_of(lambda: product(u0, theta, *along)) / unit


def product_rows() -> list[tuple]:
    from examples.hare_lynx import START_THETA, START_U0, lotka_volterra

    lv, u0, theta = adjode.Dynamics(lotka_volterra), np.array([*START_U0.values()]), np.array([*START_THETA.values()])
    cases = [("hare and lynx", lv, u0, theta, (0.0, 20.0), {"method": name}) for name in ("Tsit5", "DOP853")]
    for name, make in (("HIRES", hires), ("POLLU", pollu)):
        one = make()
        cases += [
            (name, one.dynamics, one.u0, one.theta, one.t_span, {"method": m, "atol": 1e-9}) for m in ("Radau", "Kvaerno5", "auto")
        ]
    rows = []
    for name, dynamics, start, parameters, span, options in cases:
        anew, again = ratio_of_product(dynamics, start, parameters, span, rtol=1e-6, **options)
        rows.append((name, options["method"], f"{anew:.1f}", f"{again:.1f}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="folder for fits.md")
    parser.add_argument("--starts", type=int, default=50)
    given = parser.parse_args()
    columns = ("problem", "entries", "by", "solves", "time", "at the lowest loss")
    rows = [row for name, make in CASES.items() for row in rows_of(name, make(), given.starts)]
    rings = [row for k in RINGS for row in rows_of(f"ring of {k}", ring(k), min(given.starts, 10))]
    products = table(("problem", "method", "at a new point", "at the same point"), product_rows())
    text = f"{table(columns, rows)}\nL-BFGS-B is stopped after {MOST} solves.\n\n{table(columns, rings)}\n{products}"
    print(text)
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "fits.md").write_text(text)


if __name__ == "__main__":
    main()
