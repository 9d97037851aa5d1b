"""adjode against a joint adjoint written by hand for one problem: Pleiades, DOP853, tolerance 1e-10.

    python -m benchmarks.joint_adjoint

What one would write without adjode: a DOP853 solves forwards without dense output, then integrates u, lam and theta_bar back as one
system of 28 + 28 + 7 states, whose right-hand side is derived and written out for this problem, each pair of bodies visited once
for all three. As any joint adjoint it trusts that u finds its way back; adjode's "backsolve" does the same, measures how far u is
off, and is told here only to warn. There are two of them:

- with numbalsoda's DOP853, compiled Fortran that gets the right-hand sides by address: the mark, where numbalsoda is installed
  (`python -m pip install ".[compare]"`; it has wheels up to Python 3.10, and for later ones pip builds it, which takes CMake and a
  Fortran compiler);
- with a DOP853 in fifty lines below, compiled together with the right-hand side, which needs nothing else.

Contenders take turns, so that all see the same machine; ratios are medians over the rounds of times within one round.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import carray, cfunc, njit
from scipy.integrate import DOP853

from adjode import Cotangents
from benchmarks.problems import BODIES, Problem, pleiades, pleiades_f, pleiades_weights

STATES = 4 * BODIES
JOINT = 2 * STATES + BODIES
GOAL = 1.2  # times the hand-written one

_f = njit(error_model="numpy")(pleiades_f)


@njit(error_model="numpy")
def joint_slope(z, masses, dz):
    """The joint system in the time s = T - t: dz for z = (u, lam, theta_bar)."""
    u, lam, total = z[:STATES], z[STATES : 2 * STATES], dz[2 * STATES :]
    du, dlam = dz[:STATES], dz[STATES : 2 * STATES]
    for i in range(2 * BODIES):
        du[i] = -u[2 * BODIES + i]
        du[2 * BODIES + i] = 0.0
        dlam[i] = 0.0
        dlam[2 * BODIES + i] = lam[i]
    for i in range(BODIES):
        total[i] = 0.0
    for i in range(BODIES):
        for j in range(i + 1, BODIES):
            x, y = u[j] - u[i], u[BODIES + j] - u[BODIES + i]
            inverse = 1.0 / (x * x + y * y)
            near = inverse * math.sqrt(inverse)
            x_near, y_near = near * x, near * y
            du[2 * BODIES + i] -= masses[j] * x_near
            du[3 * BODIES + i] -= masses[j] * y_near
            du[2 * BODIES + j] += masses[i] * x_near
            du[3 * BODIES + j] += masses[i] * y_near
            along_i = lam[2 * BODIES + i] * x_near + lam[3 * BODIES + i] * y_near
            along_j = lam[2 * BODIES + j] * x_near + lam[3 * BODIES + j] * y_near
            total[j] += along_i
            total[i] -= along_j
            stretch = 3.0 * inverse * (masses[j] * along_i - masses[i] * along_j)
            x_bar = near * (masses[j] * lam[2 * BODIES + i] - masses[i] * lam[2 * BODIES + j]) - stretch * x
            y_bar = near * (masses[j] * lam[3 * BODIES + i] - masses[i] * lam[3 * BODIES + j]) - stretch * y
            dlam[j] += x_bar
            dlam[i] -= x_bar
            dlam[BODIES + j] += y_bar
            dlam[BODIES + i] -= y_bar


# --- DOP853 by hand: Hairer, Norsett, Wanner I, II.10, with the constants of their dop853.f ---------------------------------

_STAGES = DOP853.n_stages
_A, _B, _C, _E3, _E5 = DOP853.A, DOP853.B, DOP853.C, DOP853.E3, DOP853.E5
_SMALLEST, _LARGEST, _SAFETY = 0.333, 6.0, 0.9
_FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(error_model="numpy", fastmath=_FAST)
def _add(y, h, weights, K, out):
    """out = y + h sum_j weights[j] K[j], zero weights left out."""
    out[:] = y
    for j in range(weights.size):
        weight = h * weights[j]
        if weight != 0.0:
            for i in range(y.size):
                out[i] += weight * K[j, i]


@njit(error_model="numpy")
def integrate(slope, y, span, masses, tol):
    """The state after `span`, and whether it was reached; slope(y, masses, dy) does not depend on time."""
    n, t = y.size, 0.0
    y, y_new, K = y.copy(), np.empty(n), np.empty((_STAGES + 1, n))
    slope(y, masses, K[0])
    h = 0.01 * np.linalg.norm(y / (tol + tol * np.abs(y))) / np.linalg.norm(K[0] / (tol + tol * np.abs(y)))
    for _ in range(100_000):
        last = t + h >= span
        if last:
            h = span - t
        for s in range(1, _STAGES):
            _add(y, h, _A[s, :s], K, y_new)
            slope(y_new, masses, K[s])
        _add(y, h, _B, K, y_new)
        fifth, third = 0.0, 0.0
        for i in range(n):
            scale = tol + tol * max(abs(y[i]), abs(y_new[i]))
            e3, e5 = 0.0, 0.0
            for j in range(_STAGES):
                e3 += _E3[j] * K[j, i]
                e5 += _E5[j] * K[j, i]
            third += (e3 / scale) ** 2
            fifth += (e5 / scale) ** 2
        error = h * fifth / math.sqrt(n * (fifth + 0.01 * third))
        if error <= 1.0:
            t += h
            y, y_new = y_new, y
            if last:
                return y, True
            slope(y, masses, K[0])
        h *= min(_LARGEST, max(_SMALLEST, _SAFETY * error ** (-1.0 / 8.0)))
    return y, False


@njit(error_model="numpy")
def forward_slope(u, masses, du):
    _f(0.0, u, masses, du)


# --- the joint adjoints -------------------------------------------------------------------------------------------------


def numbalsoda_pass(slope: Callable, size: int) -> Callable:
    """`(y, span, masses, tol) -> (state after span, reached)` by numbalsoda."""
    from numbalsoda import dop853, lsoda_sig

    @cfunc(lsoda_sig, error_model="numpy")
    def by_address(t, y, dy, masses):
        slope(carray(y, (size,)), carray(masses, (BODIES,)), carray(dy, (size,)))

    address = by_address.address

    @njit(error_model="numpy")
    def run(y, span, masses, tol):
        states, reached = dop853(address, y, np.array([0.0, span]), masses, tol, tol, 100_000)
        return states[1], reached

    return run


def own_pass(slope: Callable, size: int) -> Callable:
    """The same by `integrate`."""

    @njit(error_model="numpy")
    def run(y, span, masses, tol):
        return integrate(slope, y, span, masses, tol)

    return run


def make_joint(make_pass: Callable, problem: Problem, tol: float) -> Callable[[], tuple[float, Cotangents]]:
    """The hand-written value and gradient."""
    forward, backward = make_pass(forward_slope, STATES), make_pass(joint_slope, JOINT)
    weights, span = pleiades_weights(), problem.t_span[1]

    @njit(error_model="numpy")
    def value_and_gradient(u0, masses):
        u, reached = forward(u0, span, masses, tol)
        z = np.concatenate((u, weights, np.zeros(BODIES)))
        end, returned = backward(z, span, masses, tol)
        return weights @ u, end[STATES : 2 * STATES].copy(), end[2 * STATES :].copy(), reached and returned

    def run():
        value, u0_bar, theta_bar, done = value_and_gradient(problem.u0, problem.theta)
        assert done
        return value, Cotangents(u0=u0_bar, theta=theta_bar)

    return run


def contenders(tol: float) -> dict[str, Callable[[], tuple[float, Cotangents]]]:
    """Functions of no arguments that return a value and its gradient, by name; the first is the mark."""
    made = {}
    try:
        made["joint, numbalsoda"] = make_joint(numbalsoda_pass, pleiades(), tol)
    except (ImportError, OSError) as error:  # OSError: the Fortran runtime is missing
        print(f"without numbalsoda ({error}); the mark is the DOP853 of this file")
    made["joint, DOP853 of this file"] = make_joint(own_pass, pleiades(), tol)
    choices: tuple[tuple[str, dict], ...] = (
        ("interpolating, gauss", {"adjoint": "interpolating"}),
        ("interpolating, augmented", {"adjoint": "interpolating", "quadrature": "augmented"}),
        ("backsolve, gauss", {"adjoint": "backsolve", "on_drift": "warn"}),
        ("backsolve, augmented", {"adjoint": "backsolve", "on_drift": "warn", "quadrature": "augmented"}),
        ("discrete", {"adjoint": "discrete"}),
    )
    for tier in ("portable", "fused"):
        problem = pleiades(fused=tier == "fused")
        for name, options in choices:
            made[f"{tier}: {name}"] = problem.value_and_gradient(method="DOP853", rtol=tol, atol=tol, **options)
    return made


@dataclass(frozen=True)
class Result:
    """Seconds (the least), ratio to the first contender, and errors against the reference."""

    name: str
    seconds: float
    ratio: float
    gradient_error: float
    value_error: float


def race(functions: dict[str, Callable[[], tuple[float, Cotangents]]], problem: Problem, rounds: int) -> list[Result]:
    """Run all in turn, `rounds` times, and compare each with the first."""
    found = {name: run() for name, run in functions.items()}  # compiles
    seconds = np.empty((rounds, len(functions)))
    for k in range(rounds):
        for column, run in enumerate(functions.values()):
            start = time.perf_counter()
            run()
            seconds[k, column] = time.perf_counter() - start
    ratios = np.median(seconds / seconds[:, :1], axis=0)
    true = float(problem.reference["loss"][0])
    return [
        Result(name, float(best), float(ratio), problem.gradient_error(bar), abs(value / true - 1.0))
        for (name, (value, bar)), best, ratio in zip(found.items(), seconds.min(axis=0), ratios, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tol", type=float, default=1e-10, help="rtol and atol of both passes")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the drift of backsolve; its error is in the table
        results = race(contenders(arguments.tol), pleiades(), arguments.rounds)
    print(f"Pleiades, DOP853, rtol = atol = {arguments.tol:g}: one value and gradient, {arguments.rounds} rounds")
    print(f"{'':36s} {'ms':>8s} {'ratio':>7s} {'gradient error':>15s} {'value error':>12s}")
    for r in results:
        print(f"{r.name:36s} {1e3 * r.seconds:8.3f} {r.ratio:7.2f} {r.gradient_error:15.1e} {r.value_error:12.1e}")
    best = min((r for r in results if not r.name.startswith("joint")), key=lambda r: r.ratio)
    print(f"ratios are to {results[0].name}; the goal is {GOAL}, the least of adjode's is {best.ratio:.2f}: {best.name}")
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(r) for r in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
