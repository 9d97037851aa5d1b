"""Small runs that pass through every kernel, to be done twice: compiled, and as plain Python.

    NUMBA_DISABLE_JIT=1 python -m tests.compile.runs results.npz entered.json

writes what the runs compute, and which functions of adjode were entered, by file and line.
"""

from __future__ import annotations

import cProfile
import dataclasses
import functools
import json
import math
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import numpy as np
from scipy import sparse

import adjode
from adjode import (
    Doses,
    Dynamics,
    consistent_initial,
    ensemble_value_and_gradient,
    hessian_vector_product,
    residuals_and_jacobian,
    solve,
    solve_ensemble,
    value_and_gradient,
)
from adjode.losses import (
    Density,
    EventTimes,
    FinalState,
    Gaussian,
    Laplace,
    LeastSquares,
    Likelihood,
    LogLaplace,
    LogNormal,
    NegativeBinomial,
    Poisson,
    Series,
    StudentT,
)
from adjode.tableaus import METHODS, tableau
from tests.problems.hybrid import (
    BALL_EVENTS,
    BALL_THETA,
    BALL_U0,
    BOUNCE,
    DRIVEN_THETA,
    HUNT_SEED,
    HUNT_SPAN,
    HUNT_THETA,
    HUNT_U0,
    ball,
    driven,
    driven_jumps,
    hunt,
    hunt_jumps,
    mixed_hunt,
)
from tests.problems.mass_systems import (
    CHAIN_THETA,
    CHAIN_U0,
    CUBIC_THETA,
    CUBIC_U0,
    FULL,
    LINEAR_THETA,
    chain_f,
    chain_vjp,
    cubic,
    mixed,
)
from tests.problems.methods import STIFF, TRANSPOSED
from tests.problems.stiff_systems import robertson_f, robertson_vjp, van_der_pol
from tests.problems.systems import LV_THETA, LV_U0, cost_g, cost_g_vjp, lotka_volterra

EXPLICIT = [name for name in METHODS if tableau(name).name == name and not tableau(name).implicit]
ADAPTIVE, FIXED = ([name for name in EXPLICIT if tableau(name).adaptive == adaptive] for adaptive in (True, False))
STEPS = {"step": 0.05}
# loose, so that rounding makes little of the error that steps are chosen by
CONTROLLED = {"rtol": 1e-4, "atol": 1e-6}
COST = {"running_cost": (cost_g, cost_g_vjp)}
CONTINUOUS = [
    {**adjoint, **rule}
    for adjoint in ({"adjoint": "interpolating"}, {"adjoint": "backsolve", "reanchor": True})
    for rule in ({"quadrature": "gauss"}, {"quadrature": "augmented"}, {"quadrature": "augmented", "error_norm": "lam"})
]


def solved(dynamics, u0, theta, span, pullbacks, **options) -> Iterator:
    """A solution, and its cotangents of the end and of times in no order, one twice, both ends among them."""
    solution = solve(dynamics, u0, theta, span, **options)
    yield solution, solution(np.linspace(*sorted(span), 7))
    rng, n = np.random.default_rng(0), len(u0)
    times = span[0] + (span[1] - span[0]) * np.array([0.3, 0.0, 1.0, 0.301, 0.7, 0.3])
    u_T_bar, u_bars = rng.normal(size=n), rng.normal(size=(times.size, n))
    for each in pullbacks:
        bar = solution.pullback(u_T_bar, observations=(times, u_bars), **each)
        # transposed stages are solved as far as rounding allows, so that rounding decides how often
        iterated = each["adjoint"] == "discrete" and tableau(solution.method).implicit
        yield dataclasses.replace(bar, stats=None) if iterated else bar


# --- explicit methods ---------------------------------------------------------------------------------------------------------
def explicit(method: str, **steps) -> Iterator:
    pullbacks = [{"adjoint": "discrete"}, {"adjoint": "discrete", **COST}, *CONTINUOUS, CONTINUOUS[0] | COST]
    for span in ((0.0, 2.0), (2.0, 0.0)):
        yield solved(lotka_volterra(), LV_U0, LV_THETA, span, pullbacks, method=method, **steps)


def zero_parameter(**steps) -> Iterator:
    """One that is zero, to which errors of theta_bar are not relative."""
    theta = LV_THETA * np.array([1.0, 1.0, 0.0, 1.0])
    yield solved(lotka_volterra(), LV_U0, theta, (0.0, 2.0), [{"adjoint": "discrete"}], **steps)


def short_products(**steps) -> Iterator:
    """vjp_u, where theta is not asked for, and in the stages."""
    pullbacks = [{"adjoint": adjoint, "wrt": wrt} for adjoint in ("discrete", "interpolating") for wrt in ("u0", "theta", "T")]
    yield solved(lotka_volterra(True), LV_U0, LV_THETA, (0.0, 2.0), pullbacks, **steps)


# --- implicit methods ---------------------------------------------------------------------------------------------------------
def robertson_jac(t, u, theta, J):
    J[:] = 0.0
    J[0, 0], J[0, 1], J[0, 2] = -theta[0], theta[2] * u[2], theta[2] * u[1]
    J[1, 0], J[1, 1], J[1, 2] = theta[0], -theta[2] * u[2] - 2.0 * theta[1] * u[1], -theta[2] * u[1]
    J[2, 1] = 2.0 * theta[1] * u[1]


@functools.cache
def milder(jac: bool = False) -> Dynamics:
    """Robertson's problem, to be given rates that differ by less."""
    return Dynamics(robertson_f, robertson_vjp, jac=robertson_jac if jac else None)


MILD_U0, MILD_THETA, MILD_SPAN = np.array([1.0, 0.0, 0.0]), np.array([0.4, 30.0, 1.0]), (0.0, 3.0)


def implicit(method: str, **steps) -> Iterator:
    pullbacks = [{"adjoint": "interpolating"}, {"adjoint": "interpolating", **COST}]
    if method in TRANSPOSED:
        pullbacks += [{"adjoint": "discrete"}, {"adjoint": "discrete", **COST}, CONTINUOUS[1]]
    for jac in (False, True):
        yield solved(milder(jac), MILD_U0, MILD_THETA, MILD_SPAN, pullbacks, method=method, **steps)


def switching() -> Iterator:
    """Explicit, stiff, and back."""
    pullbacks = [{"adjoint": "discrete"}, {"adjoint": "interpolating"}]
    problem = van_der_pol(), np.array([2.0, -0.6]), np.array([50.0]), (0.0, 45.0)
    yield solved(*problem, pullbacks, method="auto", **CONTROLLED)
    yield pushed(*problem, (1, 3), method="auto", **CONTROLLED)
    yield curved(*problem, LeastSquares([10.0, 44.0], [[1.0, 0.1], [-1.0, 0.2]]), method="auto", **CONTROLLED)


def bent(t, u, theta, du):
    du[0] = -theta[0] * min(u[0], theta[1])
    du[1] = u[0] - u[1]


def kinks() -> Iterator:
    """Where the state decides on which side of a kink f is."""
    for method in ("Tsit5", "Radau"):
        evaluate = value_and_gradient(Dynamics(bent), FinalState([1.0, 0.5]), (0.0, 2.0), method=method, **CONTROLLED)
        yield evaluate([2.0, 0.0], [1.5, 1.0])


def stopping(**steps) -> Iterator:
    """Stops, across which no step looks, forwards and backwards, for explicit and implicit methods."""
    pullbacks = [{"adjoint": "discrete"}, CONTINUOUS[0]]
    for span in ((0.0, 2.0), (2.0, 0.0)):
        yield solved(lotka_volterra(), LV_U0, LV_THETA, span, pullbacks, stops=[0.7, 1.3], **steps)
    yield solved(milder(True), MILD_U0, MILD_THETA, MILD_SPAN, pullbacks, method="Radau", stops=[np.mean(MILD_SPAN)], **steps)


def cost_of_time(t, u, theta):
    return u[0] ** 2 * np.cos(t) + theta[2] * u[1]


def jumping(**steps) -> Iterator:
    """Doses at once and over a while, and events: with resets, along with others, in pairs inside a step, at the end."""
    pullbacks = [{"adjoint": "discrete"}, CONTINUOUS[0], {"adjoint": "discrete", **COST}, CONTINUOUS[0] | COST]
    everything = {**hunt_jumps(), **steps}
    for span in (HUNT_SPAN, HUNT_SPAN[::-1]):
        yield solved(hunt(), HUNT_U0, HUNT_THETA, span, pullbacks[:2], **everything)
    yield solved(hunt(), HUNT_U0, HUNT_THETA, HUNT_SPAN, pullbacks[2:], **everything)
    yield value_and_gradient(hunt(), LOSSES[1], HUNT_SPAN, **everything)(HUNT_U0, HUNT_THETA)
    timed = EventTimes([1.0, np.nan], sigma=0.5, beside=LOSSES[1])
    yield value_and_gradient(hunt(), timed, HUNT_SPAN, **everything)(HUNT_U0, HUNT_THETA)
    ended = solve(ball(), BALL_U0, BALL_THETA, (0.0, 6.0), events=[BOUNCE, *BALL_EVENTS], **steps)
    yield ended, tuple(ended.t_events), tuple(ended.u_events)
    yield tuple(ended.pullback([1.0, -0.5], **each) for each in pullbacks)
    yield pushed(hunt(), HUNT_U0, HUNT_THETA, HUNT_SPAN, (2,), **everything)
    yield ended.pushforward(np.cos(np.arange(18.0)).reshape(2, 9)).u_T
    seen = [DRIVEN_THETA[6] + DRIVEN_THETA[8], 2.0], np.array([[1.0, 0.3], [-0.2, 0.6]])  # at a dose, and on the way
    exact = {"adjoint": "discrete", "on_inaccurate": "warn", "running_cost": cost_of_time}
    moved = solve(driven(), HUNT_U0, DRIVEN_THETA, HUNT_SPAN, **driven_jumps(), **steps)
    yield moved, moved.pullback(HUNT_SEED, observations=seen, event_times=np.ones(moved.t_events[0].size), **exact)


# --- mass matrices -----------------------------------------------------------------------------------------------------------
def massed(**steps) -> Iterator:
    pullbacks = [{"adjoint": "discrete", "wrt": ("u0", "theta")}]
    options = {"method": "Radau", **steps}
    yield solved(cubic(), CUBIC_U0, CUBIC_THETA, (0.0, 2.0), pullbacks, **options)
    yield consistent_initial(mixed(), [1.0, -1.0], LINEAR_THETA, 0.5)
    yield solved(mixed_hunt(), HUNT_U0, HUNT_THETA, HUNT_SPAN, pullbacks, **hunt_jumps(), **options)
    yield solved(Dynamics(chain_f, chain_vjp, mass=FULL), CHAIN_U0, CHAIN_THETA, (0.2, 1.0), pullbacks, **options)


# --- tangents ------------------------------------------------------------------------------------------------------------------
def pushed(dynamics, u0, theta, span, directions, **options) -> Iterator:
    """Tangents, at times in no order, for so many directions."""
    solution, rng = solve(dynamics, u0, theta, span, **options), np.random.default_rng(1)
    times = span[0] + (span[1] - span[0]) * np.array([0.3, 0.0, 1.0, 0.301, 0.7, 0.3])
    for k in directions:
        dots = solution.pushforward(rng.normal(size=(len(u0), k)), rng.normal(size=(len(theta), k)), times)
        yield dots.u_T, dots.u


def tangents(**steps) -> Iterator:
    for method in ("DOP853", "Vern9"):
        for span in ((0.0, 2.0), (2.0, 0.0)):
            yield pushed(lotka_volterra(), LV_U0, LV_THETA, span, (1, 9), method=method, **steps)
    yield pushed(lotka_volterra(), LV_U0, LV_THETA, (0.0, 2.0), (1, 4), stops=[0.7, 1.3], **steps)
    for method in TRANSPOSED:
        yield pushed(milder(), MILD_U0, MILD_THETA, MILD_SPAN, (1, 5), method=method, **steps)
    yield pushed(cubic(), CUBIC_U0, CUBIC_THETA, (0.0, 2.0), (2,), method="Radau", **steps)
    yield residuals_and_jacobian(lotka_volterra(), LOSSES[-1], (0.0, 2.0), **steps)(LV_U0, LV_THETA)
    states = LeastSquares([0.0, 0.6, 2.0], [[1.0, 0.5], [np.nan, 2.0], [3.0, 1.0]], sigma=0.5)
    yield residuals_and_jacobian(lotka_volterra(), states, (0.0, 2.0), jacobian="tangents", **steps)(LV_U0, LV_THETA)


# --- second order ----------------------------------------------------------------------------------------------------------------
def curved(dynamics, u0, theta, span, loss, directions=1, **options) -> Iterator:
    """A gradient and products with the Hessian, for so many directions."""
    product, rng = hessian_vector_product(dynamics, loss, span, **options), np.random.default_rng(1)
    found = product(u0, theta, rng.normal(size=(len(u0), directions)), rng.normal(size=(len(theta), directions)))
    yield found.value, found.u0, found.theta, found.u0_dot, found.theta_dot


def second_order(**steps) -> Iterator:
    loss = LeastSquares([0.0, 0.6, 2.0], [[1.0, 0.5], [0.3, 2.0], [3.0, 1.0]], sigma=0.5)
    for span in ((0.0, 2.0), (2.0, 0.0)):
        yield curved(lotka_volterra(), LV_U0, LV_THETA, span, loss, 2, method="DOP853", **steps)
    yield curved(lotka_volterra(), LV_U0, LV_THETA, (0.0, 2.0), loss, stops=[0.6, 1.3], **steps)  # where there is an observation
    given = {"doses": [Doses([0.5, 1.2], "theta[3]", 0), Doses(0.7, "theta[0]", 1, duration=0.5)], "running_cost": cost_of_time}
    yield curved(lotka_volterra(), LV_U0, LV_THETA, (0.0, 2.0), loss, **given, **steps)
    for method in TRANSPOSED:
        ends = LeastSquares(MILD_SPAN[1:], np.ones((1, len(MILD_U0))))
        yield curved(milder(), MILD_U0, MILD_THETA, MILD_SPAN, ends, method=method, **steps)
    end = LeastSquares([2.0], np.ones((1, len(CUBIC_U0))))
    yield curved(cubic(), CUBIC_U0, CUBIC_THETA, (0.0, 2.0), end, method="Radau", **steps)


# --- losses and ensembles --------------------------------------------------------------------------------------------------------
@numba.njit
def squares(k, t, u, u_bar):
    u_bar[0] = 2.0 * u[0] * (k + 1.0)
    u_bar[1] = t
    return u[0] ** 2 * (k + 1.0) + t * u[1]


def weighed(k, t, u, theta):
    return u[0] ** 2 * (k + theta[0]) + t * u[1]


def totals(t, u, theta, y):
    y[0] = theta[0] * (u[0] + u[1])
    y[1] = u[0] / u[1]


def spread(t, u, theta, s):
    s[0] = 0.1 * theta[0]
    s[1] = 0.2 + 0.1 * u[1]


def gumbel(y, d, theta):
    z = (d - y) / theta[0]
    return z + math.exp(-z)


TIMES, DATA = [0.0, 1.0, 2.0, 1.0], np.array([[1.0, 0.5], [np.nan, 2.0], [3.0, 1.0], [0.7, 0.9]])
LOSSES = [
    FinalState([1.0, -2.0]),
    LeastSquares(TIMES, DATA),
    LeastSquares(TIMES, DATA, sigma=0.3, log=True),
    Series(TIMES, squares),
    Series(TIMES, value=weighed),
    LeastSquares(TIMES, DATA, observe=totals),
]
LIKELIHOODS = [
    Likelihood(TIMES, DATA, [Gaussian("theta[0]"), Laplace(0.3)]),
    Likelihood(TIMES, DATA, [LogNormal(0.3, base=10.0), LogLaplace("theta[1]")]),
    Likelihood(TIMES, np.round(DATA), [Poisson(), NegativeBinomial("theta[3]")]),
    Likelihood(TIMES, DATA, [Density(gumbel), Gaussian(0.3)]),
    Likelihood(TIMES, DATA, [StudentT(spread, degrees="theta[2]"), Gaussian(spread)], observe=totals),
]


def gradients(**steps) -> Iterator:
    for loss in [*LOSSES, *LIKELIHOODS]:
        for adjoint in ("discrete", "interpolating"):
            yield value_and_gradient(lotka_volterra(), loss, (0.0, 2.0), adjoint=adjoint, **steps)(LV_U0, LV_THETA)


def ensembles(**steps) -> Iterator:
    u0 = LV_U0 * np.array([[0.9], [1.0], [1.2]])
    for adjoint in ("discrete", "interpolating"):
        for theta in (LV_THETA, np.tile(LV_THETA, (3, 1))):
            yield ensemble_value_and_gradient(lotka_volterra(), LOSSES[1], (0.0, 2.0), adjoint=adjoint, **steps)(u0, theta)
    solutions = solve_ensemble(lotka_volterra(), u0, LV_THETA, (0.0, 2.0), t_eval=[1.5, 0.2], **steps)
    yield solutions.u_T, solutions.u_eval, solutions.status, solutions.pullback(u0, observations=([0.3], [[1.0, 2.0]]))


def segments(**steps) -> Iterator:
    """With memory for a few steps, and a stop."""
    options = {"memory": 2500, "stops": [1.0], **steps}
    for adjoint in ("discrete", "interpolating"):
        yield value_and_gradient(lotka_volterra(), LOSSES[1], (0.0, 2.0), adjoint=adjoint, **options)(LV_U0, LV_THETA)
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, (2.0, 0.0), **options)
    yield solution, solution(np.linspace(0.0, 2.0, 7)), solution.pullback([1.0, 2.0], adjoint="discrete")


# --- matrices that are banded or sparse -----------------------------------------------------------------------------------------
def grid_f(t, u, theta, du):
    """What flows between neighbours, one and six places away, and what decays."""
    for i in range(u.size):
        du[i] = -theta[1] * u[i] ** 3
    for k in (1, 6):
        for i in range(u.size - k):
            flow = theta[0] * (u[i + k] - u[i])
            du[i] += flow
            du[i + k] -= flow


def grid_vjp(t, u, theta, lam, u_bar, theta_bar):
    theta_bar[0], theta_bar[1] = 0.0, 0.0
    for i in range(u.size):
        u_bar[i] = -3.0 * theta[1] * u[i] ** 2 * lam[i]
        theta_bar[1] -= u[i] ** 3 * lam[i]
    for k in (1, 6):
        for i in range(u.size - k):
            difference = lam[i] - lam[i + k]
            u_bar[i + k] += theta[0] * difference
            u_bar[i] -= theta[0] * difference
            theta_bar[0] += (u[i + k] - u[i]) * difference


def storage(kind: str, **steps) -> Iterator:
    n = 36
    pattern = sparse.diags_array([1.0] * 5, offsets=[-6, -1, 0, 1, 6], shape=(n, n))
    dynamics, u0 = Dynamics(grid_f, grid_vjp, jac_sparsity=pattern), np.sin(np.linspace(0.1, 3.0, n))
    pullbacks = [{"adjoint": "discrete"}, {"adjoint": "interpolating"}]
    options = {"method": "Radau", "linear_solver": kind, **steps}
    yield solved(dynamics, u0, [1.0, 2.0], (0.0, 0.3), pullbacks, **options)
    yield pushed(dynamics, u0, [1.0, 2.0], (0.0, 0.3), (1, 2), **options)


BOTH: dict[str, Callable[..., Iterator]] = {
    **{method: functools.partial(explicit, method) for method in ADAPTIVE},
    **{method: functools.partial(implicit, method) for method in STIFF},
    "vjp_u": short_products,
    "zero parameter": zero_parameter,
    "stops": stopping,
    "jumps": jumping,
    "mass": massed,
    "tangents": tangents,
    "second order": second_order,
    "losses": gradients,
    "ensembles": ensembles,
    "segments": segments,
    **{kind: functools.partial(storage, kind) for kind in ("banded", "sparse")},
}
FIXED_RUNS = {name: functools.partial(run, **STEPS) for name, run in BOTH.items()} | {
    method: functools.partial(explicit, method, **STEPS) for method in FIXED
}
CONTROLLED_RUNS = {f"{name}, controlled": functools.partial(run, **CONTROLLED) for name, run in BOTH.items()} | {
    "auto": switching,
    "kinks": kinks,
}
RUNS = FIXED_RUNS | CONTROLLED_RUNS


def results_of(name: str) -> dict[str, np.ndarray]:
    return dict(_numbers_of(RUNS[name](), name))


def _numbers_of(result, label: str) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays and numbers of solutions, cotangents, values with their gradients, each with its name."""
    if isinstance(result, tuple | Iterator):
        for k, one in enumerate(result):
            yield from _numbers_of(one, f"{label}[{k}]")
    elif isinstance(result, adjode.Solution):
        yield from _numbers_of((result.t, result.u, result.stats), label)
    elif dataclasses.is_dataclass(result):
        for field in dataclasses.fields(result):
            yield from _numbers_of(getattr(result, field.name), f"{label}.{field.name}")
    elif isinstance(result, np.ndarray | np.generic | int | float):
        yield label, np.asarray(result)


def main() -> None:
    results, entered = map(Path, sys.argv[1:])
    package, seen = str(Path(adjode.__file__).parent), set()

    def watch(frame, event, argument):
        if event == "call":
            seen.add(frame.f_code)

    threading.setprofile(watch)  # in other threads; in this one what is written in C takes half the time
    with cProfile.Profile(subcalls=False, builtins=False) as profile:
        found = [results_of(name) for name in RUNS]
    seen |= {entry.code for entry in profile.getstats() if not isinstance(entry.code, str)}
    np.savez(results, **{label: array for one in found for label, array in one.items()})
    inside = [(code.co_filename, code.co_firstlineno) for code in seen if code.co_filename.startswith(package)]
    entered.write_text(json.dumps(sorted(inside)))


if __name__ == "__main__":
    main()
