"""Fits by Gauss-Newton beside L-BFGS-B, from many starts; and what a Hessian-vector product costs.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.fits --output docs/measured

writes fits.md: for each problem how many solves either needs in the median of `--starts` starts, how long that takes, and how often
it ends at the lowest loss that any has found; the same of rings of reactions with more and more rates, by which `Fit.fit` chooses;
and Hessian-vector products in gradients. Takes some minutes. With more threads SciPy's L-BFGS-B waits for them in every iteration.
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
from benchmarks.scaling import least_seconds
from benchmarks.stiff_problems import hires, pollu, rober

SAME = 1.01  # times the lowest loss
MOST = 1000  # solves of L-BFGS-B
_RANGE = 30.0  # of rates, to either side of the true ones
_LEAST = 1e-6  # of a state, below which it is not observed
_TURN, _TURNS = 0.1, 7  # seconds of a task before the next one takes its turn
RINGS = (10, 30, 50, 100)


class Case(NamedTuple):
    """A fit, and by how much the logarithms of its entries differ from it at the starts."""

    fit: Fit
    spread: float


def chemical(make: Callable, times: np.ndarray, spread: float, **options: Any) -> Case:
    """All rates of a chemical model, on a logarithmic scale and bounded, from states that are not tiny, with errors of 1 %."""
    problem = make()
    states = adjode.solve(problem.dynamics, problem.u0, problem.theta, problem.t_span, t_eval=times, **options).u_eval
    seen = np.flatnonzero(np.abs(states).max(axis=0) > _LEAST)
    sigma = 0.01 * np.abs(states[:, seen]).max(axis=0)
    noise = np.random.default_rng(1).normal(size=(len(times), seen.size))
    loss = LeastSquares(times, states[:, seen] + sigma * noise, sigma=sigma, components=seen)
    bounds = {"theta": (problem.theta / _RANGE, problem.theta * _RANGE)}
    fit = Fit(problem.dynamics, loss, problem.t_span, u0=problem.u0, theta=problem.theta, log=("theta",), bounds=bounds, **options)
    return Case(fit, spread)


def robertson() -> Case:
    return chemical(rober, np.logspace(-1.0, 4.0, 20), 0.5, method="Radau", rtol=1e-8, atol=1e-12)


def pollution() -> Case:
    return chemical(pollu, np.linspace(3.0, 60.0, 20), 0.3, method="Radau", rtol=1e-6, atol=1e-11)


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


class Found(NamedTuple):
    solves: int
    seconds: float
    loss: float


def fit_from(fit: Fit, x0: np.ndarray, method: str, most: int = MOST) -> Found | None:
    """One fit, by L-BFGS-B with so many solves at most; None if the solve at the start fails."""
    options: dict[str, Any] = {"options": {"maxfun": most}} if method == "L-BFGS-B" else {}
    start, fit.x0 = fit.x0, x0
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = fit.fit(method, **options)
    except SolveError:
        return None
    finally:
        fit.x0 = start
    return Found(result.nfev, time.perf_counter() - began, result.loss)


def race(case: Case, starts: int, most: int = MOST) -> dict[str, list[Found]]:
    """What has become of the same starts by either way, those alone from which both could begin."""
    rng, fit = np.random.default_rng(0), case.fit
    points = fit.x0 + case.spread * rng.normal(size=(starts, fit.x0.size))
    for method in WAYS.values():
        fit_from(fit, fit.x0, method)  # compiles
    found = [{way: fit_from(fit, x0, method, most) for way, method in WAYS.items()} for x0 in points]
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


def ratio_of_product(
    dynamics: adjode.Dynamics, u0: np.ndarray, theta: np.ndarray, span: tuple, **options: Any
) -> tuple[float, float]:
    """The time of a Hessian-vector product in gradients by the discrete adjoint: at a new point, and at that of the call before."""
    n, times = len(u0), np.linspace(*span, 21)
    loss = LeastSquares(times, np.ones((21, n)))
    gradient = adjode.value_and_gradient(dynamics, loss, span, adjoint="discrete", on_inaccurate="warn", **options)
    product = adjode.hessian_vector_product(dynamics, loss, span, on_inaccurate="warn", **options)
    along, other, turn = (np.ones(n), np.ones(len(theta))), theta * (1.0 + 1e-12), [0]

    def anew():
        turn[0] ^= 1
        return product(u0, (theta, other)[turn[0]], *along)

    tasks = (lambda: gradient(u0, theta)), anew, (lambda: product(u0, theta, *along))
    for task in tasks:
        task()
    unit, moved, again = np.min([[least_seconds(task, _TURN) for task in tasks] for _ in range(_TURNS)], axis=0)
    return moved / unit, again / unit


def _effort(t: float, u: Any, theta: Any) -> float:
    return 1e-3 * u[0] * u[1]


def product_rows() -> list[tuple]:
    from examples.hare_lynx import START_THETA, START_U0, lotka_volterra

    lv, u0, theta = adjode.Dynamics(lotka_volterra), np.array([*START_U0.values()]), np.array([*START_THETA.values()])
    cases = [("hare and lynx", lv, u0, theta, (0.0, 20.0), {"method": name}) for name in ("Tsit5", "DOP853")]
    for name, make in (("HIRES", hires), ("POLLU", pollu)):
        one = make()
        cases += [
            (name, one.dynamics, one.u0, one.theta, one.t_span, {"method": m, "atol": 1e-9}) for m in ("Radau", "Kvaerno5", "auto")
        ]
    doses, late = (adjode.Doses(1.0, 1.0, 0, every=1.0, until=19.0, lag=lag) for lag in (0.0, "theta[1]"))
    more = {"19 doses": {"doses": doses}, "19 doses with a lag": {"doses": late}, "a running cost": {"running_cost": _effort}}
    cases += [(f"hare and lynx, {what}", lv, u0, theta, (0.0, 20.0), {"method": "Tsit5", **one}) for what, one in more.items()]
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
    text = table(columns, [row for k in RINGS for row in rows_of(f"ring of {k}", ring(k), min(given.starts, 10))])
    products = table(("problem", "method", "at a new point", "at the same point"), product_rows())
    print(f"{text}\n{products}", flush=True)
    fits = table(columns, [row for name, make in CASES.items() for row in rows_of(name, make(), given.starts)])
    print(fits)
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "fits.md").write_text(f"{fits}\nL-BFGS-B is stopped after {MOST} solves.\n\n{text}")
        (given.output / "products.md").write_text(products)


if __name__ == "__main__":
    main()
