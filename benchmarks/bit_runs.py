"""Many small solves and gradients, through all that users can call: methods, adjoints, tiers, losses, options, ensembles.

`table()` maps the name of a run to a function that returns its numbers; benchmarks/bits.py compares them between two versions of
the code. Only what is public is called, so that old code runs it too.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np

import adjode
from adjode import losses
from benchmarks import problems, stiff_problems
from benchmarks.stiff_cases import stiff_case

ADAPTIVE, FIXED = ("Tsit5", "RK45", "DOP853", "BS3"), ("RK4", "Midpoint", "Euler")
EXPLICIT = (*ADAPTIVE, *FIXED)
IMPLICIT = ("Radau", "Kvaerno5", "TRBDF2", "Rodas5P", "auto")
METHODS = (*EXPLICIT, *IMPLICIT)
ADJOINTS: dict[str, dict[str, Any]] = {
    "discrete": {"adjoint": "discrete"},
    "gauss": {"adjoint": "interpolating"},
    "augmented": {"adjoint": "interpolating", "quadrature": "augmented"},
    "backsolve": {"adjoint": "backsolve", "on_drift": "warn"},
    "reanchored": {"adjoint": "backsolve", "on_drift": "warn", "reanchor": True},
}
TRANSPOSED = ("discrete", "gauss", "augmented")
BOTH = ("discrete", "gauss")
TIERS = {"portable": False, "fused": True}
TOLERANCES = {"rtol": 1e-5, "atol": 1e-7}
EVERYTHING = ("u0", "theta", "t0", "T", "observation_times")

Numbers = Iterable[Any]
Run = tuple[str, Callable[[], Numbers]]


def options_of(method: str) -> dict[str, Any]:
    return {"method": method, "step": 0.03} if method in FIXED else {"method": method, **TOLERANCES}


def pairs(methods: Iterable[str], adjoints: Iterable[str] = tuple(ADJOINTS)) -> Iterator[tuple[str, str]]:
    """Each method with the adjoints that it has."""
    for method, adjoint in itertools.product(methods, adjoints):
        if method in EXPLICIT or adjoint == "gauss" or (method != "Rodas5P" and adjoint in TRANSPOSED):
            yield method, adjoint


# --- problems ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class System:
    dynamics: adjode.Dynamics
    u0: np.ndarray
    theta: np.ndarray
    t_span: tuple[float, float]

    @property
    def times(self) -> np.ndarray:
        """In no order, with a time twice and both ends."""
        (start, end), parts = self.t_span, np.array([0.31, 1.0, 0.0, 0.77, 0.31, 0.5])
        return start + parts * (end - start)

    def seeds(self) -> np.ndarray:
        return np.cos(np.arange(self.times.size * self.u0.size, dtype=float)).reshape(-1, self.u0.size)

    def gradient(self, loss: Any, **options: Any) -> Callable[..., Any]:
        return adjode.value_and_gradient(self.dynamics, loss, self.t_span, **options)

    def solve(self, **options: Any) -> adjode.Solution:
        return adjode.solve(self.dynamics, self.u0, self.theta, self.t_span, **options)


@functools.cache
def lotka_volterra(fused: bool = False, backward: bool = False) -> System:
    span = (3.0, 0.0) if backward else (0.0, 3.0)
    return System(problems.lv_dynamics(fused), np.array([1.0, 1.2]), np.array([1.5, 1.0, 3.0, 1.0]), span)


@functools.cache
def oregonator(fused: bool = False) -> System:
    whole = stiff_problems.orego(fused)
    return System(whole.dynamics, whole.u0, whole.theta, (0.0, 40.0))


def system_for(method: str, fused: bool = False) -> System:
    return lotka_volterra(fused) if method in EXPLICIT else oregonator(fused)


@functools.cache
def lorenz(fused: bool = False) -> System:
    u0, theta = problems.lorenz_ensemble(3)
    return System(problems.lorenz_dynamics(fused), u0[1], theta[1], (0.0, 1.0))


def conserved_f(t, u, theta, du):
    slow, fast, back = theta[0] * u[0], theta[1] * u[1] * u[1], theta[2] * u[1] * u[2]
    du[0] = back - slow
    du[1] = slow - back - fast
    du[2] = u[0] + u[1] + u[2] - 1.0


def conserved_vjp(t, u, theta, lam, u_bar, theta_bar):
    a, b = lam[1] - lam[0], -lam[1]
    u_bar[0] = theta[0] * a + lam[2]
    u_bar[1] = -theta[2] * u[2] * a + 2.0 * theta[1] * u[1] * b + lam[2]
    u_bar[2] = -theta[2] * u[1] * a + lam[2]
    theta_bar[0], theta_bar[1], theta_bar[2] = u[0] * a, u[1] * u[1] * b, -u[1] * u[2] * a


@functools.cache
def with_mass(kind: str, fused: bool = False) -> System:
    """A regular matrix, or Robertson's problem with an algebraic equation."""
    if kind == "singular":
        dynamics = adjode.Dynamics(conserved_f, conserved_vjp, mass=[1.0, 1.0, 0.0], fused=fused)
        return System(dynamics, np.array([0.9, 0.0, 0.1]), np.array([0.04, 3e7, 1e4]), (0.0, 40.0))
    mass = [[2.0, 0.3], [-0.2, 1.0]]
    dynamics = adjode.Dynamics(problems.lv_f, problems.lv_vjp, mass=mass, fused=fused)
    return System(dynamics, np.array([1.0, 1.2]), np.array([1.5, 1.0, 3.0, 1.0]), (0.0, 3.0))


@numba.njit
def hopping_f(t, u, theta, du):
    du[0] = theta[0] * u[0] - theta[1] * u[0] * u[1]
    du[1] = -theta[2] * u[1] + theta[3] * u[0] * u[1] + 0.1 * np.sin(t)


@numba.njit
def too_many(t, u, theta):
    return u[0] - theta[4]


@numba.njit
def hunted(t, u, theta, u_new):
    u_new[0] = theta[5] * u[0]


@functools.cache
def hopping(fused: bool = False) -> System:
    """Predators and prey that are hunted when they are too many, and some more of both at times that are parameters."""
    theta = np.array([1.5, 1.0, 3.0, 1.0, 2.1, 0.7, 0.62, 0.4])
    return System(adjode.Dynamics(hopping_f, fused=fused), np.array([1.0, 1.2]), theta, (0.0, 3.0))


def jumps_of(theta: int) -> dict[str, Any]:
    """The events and doses; those whose times are parameters begin with this one."""
    doses = [adjode.Doses(f"theta[{theta}]", f"theta[{theta + 1}]", 0), adjode.Doses([0.9, 2.5], 0.2, 1, duration=[0.31, 0.2])]
    return {"events": adjode.Event(too_many, hunted), "doses": doses}


def cost(t, u, theta):
    return 0.1 * t * theta[0] * u[0] ** 2


def cost_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[:] = 0.0
    theta_bar[:] = 0.0
    u_bar[0] = 0.2 * t * theta[0] * u[0]
    theta_bar[0] = 0.1 * t * u[0] ** 2


# --- losses -----------------------------------------------------------------------------------------------------------


@numba.njit
def half_square(k, t, u, u_bar):
    u_bar[:] = u
    return 0.5 * (u * u).sum()


class Own:
    """A loss that only Python knows."""

    def __init__(self, times: np.ndarray):
        self.times = times

    def value_and_cotangents(self, solution: adjode.Solution) -> tuple[float, dict[str, Any]]:
        states = solution(self.times)
        return float(np.sum(np.sin(states))), {"observations": (self.times, np.cos(states))}


def _data(system: System, *members: int) -> np.ndarray:
    shape = (*members, system.times.size, system.u0.size)
    return 1.0 + 0.5 * np.sin(np.arange(np.prod(shape), dtype=float)).reshape(shape)


def _logarithms(system: System) -> losses.LeastSquares:
    n, data = system.u0.size, _data(system)[:, [0, 1]]
    data[[0, 3], [1, 0]] = np.nan
    return losses.LeastSquares(system.times, data, sigma=0.3, components=[n - 1, 0], log=True)


MEMBERS = 37  # of an ensemble
LOSSES: dict[str, Callable[[System], Any]] = {
    "final": lambda system: losses.FinalState(np.cos(np.arange(system.u0.size, dtype=float))),
    "squares": lambda system: losses.LeastSquares(system.times, _data(system), sigma=0.5),
    "logarithms": _logarithms,
    "series": lambda system: losses.Series(system.times, half_square),
    "own": lambda system: Own(system.times),
    "members": lambda system: losses.LeastSquares(system.times, _data(system, MEMBERS)),  # each has its own data
}
SINGLE = tuple(LOSSES)[:-1]


@functools.cache
def loss_of(name: str, system: System) -> Any:
    return LOSSES[name](system)


# --- what is computed -------------------------------------------------------------------------------------------------


def numbers_of(bar: adjode.Cotangents) -> list[Any]:
    dense = [] if bar.adjoint is None else [bar.adjoint.t, bar.adjoint.u, bar.adjoint.c]
    return [bar.u0, bar.theta, bar.t0, bar.T, bar.observation_times, bar.running_cost, *dense]


def gradient(make: Callable[[], System], loss: str, **options: Any) -> Numbers:
    system = make()
    value, bar = system.gradient(loss_of(loss, system), **options)(system.u0, system.theta)
    return value, *numbers_of(bar)


def jitted(make: Callable[[], System], loss: str, **options: Any) -> Numbers:
    system = make()
    bars = np.zeros_like(system.u0), np.zeros_like(system.theta)
    evaluate = system.gradient(loss_of(loss, system), **options).jitted(system.u0.size, system.theta.size)
    return *evaluate(system.u0, system.theta, *bars), *bars


def pulled_back(make: Callable[[], System], forward: dict[str, Any], **options: Any) -> Numbers:
    """With cotangents of all times, unless `wrt` says otherwise."""
    system = make()
    observed, options = (system.times, system.seeds()), {"wrt": EVERYTHING, **options}
    return numbers_of(system.solve(**forward).pullback(np.ones_like(system.u0), observations=observed, **options))


def solved(make: Callable[[], System], **options: Any) -> Numbers:
    system = make()
    solution = system.solve(t_eval=system.times, **options)
    return solution.t, solution.u, solution.u_eval, solution(np.linspace(*system.t_span, 50)), solution.u_T


def stored(make: Callable[[], problems.Problem], tol: float = 1e-5, **options: Any) -> Numbers:
    """A reference problem with its own loss."""
    problem = make()
    value, bar = problem.value_and_gradient(rtol=tol, **({"atol": tol} | options))()
    return value, *numbers_of(bar)


def ensemble_input(shared: str) -> tuple[np.ndarray, np.ndarray]:
    u0, theta = problems.lorenz_ensemble(MEMBERS)
    return (u0[0] if "u0" in shared else u0), (theta[5] if "theta" in shared else theta)


def ensemble(fused: bool, shared: str, loss: str, t_span: Any = (0.0, 1.0), **options: Any) -> Numbers:
    given = loss_of(loss, lorenz(fused))
    evaluate = adjode.ensemble_value_and_gradient(problems.lorenz_dynamics(fused), given, t_span, workers=2, **options)
    value, bar = evaluate(*ensemble_input(shared))
    return value, *numbers_of(bar)


def solved_ensemble(fused: bool, shared: str, adjoint: dict[str, Any], **options: Any) -> Numbers:
    u0, theta = ensemble_input(shared)
    times = np.array([0.9, 0.2])
    solution = adjode.solve_ensemble(problems.lorenz_dynamics(fused), u0, theta, (0.0, 1.0), t_eval=times, workers=2, **options)
    bar = solution.pullback(np.ones(3), observations=(times, np.ones((2, 3))), **adjoint)
    return solution.u_T, solution.u_eval, *numbers_of(bar)


# --- the table: name -> numbers ---------------------------------------------------------------------------------------


def gradients() -> Iterator[Run]:
    """All methods, adjoints and losses; some in the fused tier, where each takes a while to compile."""
    methods_of = {"portable": METHODS, "fused": ("Tsit5", "RK4", "Radau", "auto")}
    for (tier, methods), loss in itertools.product(methods_of.items(), SINGLE):
        for method, adjoint in pairs(methods):
            make, options = partial(system_for, method, TIERS[tier]), options_of(method) | ADJOINTS[adjoint]
            if tier == "portable" or loss != "own" or adjoint == "discrete":  # a loss of one's own needs other passes
                yield f"gradient/{tier}/{method}/{adjoint}/{loss}", partial(gradient, make, loss, **options)
    for (method, adjoint), loss in itertools.product(pairs(("Tsit5", "Radau"), BOTH), ("squares", "series")):
        make, options = partial(system_for, method), options_of(method) | ADJOINTS[adjoint]
        yield f"jitted/{method}/{adjoint}/{loss}", partial(jitted, make, loss, **options)


def solutions() -> Iterator[Run]:
    """Solutions and their pullbacks, with all cotangents; time in both directions."""
    for way, backward in {"forward": False, "backward": True}.items():
        make = partial(lotka_volterra, False, backward)
        for method in METHODS:
            yield f"solve/{way}/{method}", partial(solved, make, **options_of(method))
        for method, adjoint in pairs(METHODS):
            yield f"pullback/{way}/{method}/{adjoint}", partial(pulled_back, make, options_of(method), **ADJOINTS[adjoint])
    for tier, methods in {"portable": METHODS, "fused": ("Tsit5", "Radau")}.items():
        for method, adjoint in pairs(methods, TRANSPOSED if tier == "portable" else BOTH):
            make, options = partial(system_for, method, TIERS[tier]), {"running_cost": (cost, cost_vjp), **ADJOINTS[adjoint]}
            yield f"running cost/{tier}/{method}/{adjoint}", partial(pulled_back, make, options_of(method), **options)


STEPS: dict[str, dict[str, Any]] = {
    "first step": {"first_step": 1e-4},
    "largest step": {"max_step": 0.11},
    "tight": {"rtol": 1e-9, "atol": 1e-11},
    "tolerances by state": {"rtol": 1e-4, "atol": np.array([1e-5, 1e-7, 1e-6])},
}
BACKWARD: dict[str, dict[str, Any]] = {
    "own backward method": {"adjoint_method": "Kvaerno5"},
    "own tolerances": {"adjoint_rtol": 1e-7, "adjoint_atol": 1e-8},
    "quadrature": {"quadrature_rtol": 1e-3, "quadrature_atol": 1e-4},
    "norm of lam": {"quadrature": "augmented", "error_norm": "lam"},
    "u0 alone": {"wrt": ("u0",)},
    "theta alone": {"wrt": ("theta",)},
    "all": {"wrt": ("u0", "theta", "t0", "T"), "running_cost": (cost, cost_vjp)},
    "dense": {"dense_adjoint": True},
}


def options() -> Iterator[Run]:
    for (name, given), (method, adjoint) in itertools.product(STEPS.items(), pairs((*ADAPTIVE, *IMPLICIT), BOTH)):
        together, make = options_of(method) | ADJOINTS[adjoint] | given, lorenz if method in EXPLICIT else oregonator
        yield f"options/{name}/{method}/{adjoint}", partial(gradient, make, "squares", **together)
    for (name, given), method in itertools.product(BACKWARD.items(), ("Tsit5", "DOP853", "Radau", "Kvaerno5", "auto")):
        together = options_of(method) | {"adjoint": "interpolating"} | given
        yield f"options/{name}/{method}", partial(gradient, partial(system_for, method), "squares", **together)
    for method, adjoint in pairs(IMPLICIT[:-1], TRANSPOSED):
        together = {"method": method, "step": 0.05, **ADJOINTS[adjoint]}
        yield f"options/fixed steps/{method}/{adjoint}", partial(gradient, lotka_volterra, "squares", **together)


def stiff() -> Iterator[Run]:
    """Stiff problems, on which auto switches; banded and sparse Jacobians."""
    portable = itertools.product(("portable",), ("rober", "hires", "van_der_pol_1e+03", "pollu"), pairs(IMPLICIT, BOTH))
    fused = itertools.product(("fused",), ("rober", "hires"), pairs(("Radau",), BOTH))
    for tier, name, (method, adjoint) in itertools.chain(portable, fused):
        make = partial(stiff_problems.STIFF_PROBLEMS[name], fused=TIERS[tier])
        given = {"method": method, "atol": 1e-5 * stiff_case(name).scales(), **ADJOINTS[adjoint]}
        yield f"stiff/{tier}/{name}/{method}/{adjoint}", partial(stored, make, **given)
    line, grid = partial(stiff_problems.brusselator_line, 16), partial(stiff_problems.brusselator_grid, 6)
    structures = [(line, "dense"), (line, "banded"), (line, "sparse"), (grid, "dense"), (grid, "sparse")]
    for (make, solver), (method, adjoint) in itertools.product(structures, pairs(IMPLICIT, BOTH)):
        if method != "auto" or (solver, adjoint) == ("sparse", "discrete"):
            given = {"method": method, "linear_solver": solver, **ADJOINTS[adjoint]}
            yield f"stiff/{make.func.__name__}/{solver}/{method}/{adjoint}", partial(stored, make, **given)


def larger() -> Iterator[Run]:
    """More states than stages are straight code for; parameters in hundreds; vjp_u."""
    made = {"pleiades": problems.pleiades, "wide layer": partial(problems.wide_layer, 12), "spiral": problems.spiral}
    for (name, make), (method, adjoint) in itertools.product(made.items(), pairs(("Tsit5", "DOP853"))):
        yield f"larger/portable/{name}/{method}/{adjoint}", partial(stored, make, method=method, **ADJOINTS[adjoint])
    for name, adjoint in itertools.product(("pleiades", "spiral"), TRANSPOSED):
        yield f"larger/fused/{name}/{adjoint}", partial(stored, partial(made[name], True), **ADJOINTS[adjoint])
    for adjoint, given in ADJOINTS.items():
        yield f"larger/portable/spiral with vjp_u/{adjoint}", partial(stored, problems.spiral_with_vjp_u, **given)


def masses() -> Iterator[Run]:
    for kind, (tier, fused) in itertools.product(("regular", "singular"), TIERS.items()):
        given: dict[str, Any] = {"method": "Radau", **TOLERANCES}
        back: dict[str, Any] = {"adjoint": "discrete", "running_cost": (cost, cost_vjp)}
        if kind == "singular":
            given["atol"], back["wrt"] = np.array([1e-7, 1e-11, 1e-7]), ("u0", "theta")
        make = partial(with_mass, kind, fused)
        for loss in SINGLE:
            yield f"mass/{tier}/{kind}/{loss}", partial(gradient, make, loss, **given)
        yield f"mass/{tier}/{kind}/pullback", partial(pulled_back, make, given, **back)
        yield f"mass/{tier}/{kind}/solve", partial(solved, make, **given)


def ensembles() -> Iterator[Run]:
    shares, reduced = ("nothing", "theta", "u0", "u0 and theta"), {"each": {}, "sum": {"reduce": "sum"}}
    for (tier, fused), shared, adjoint in itertools.product(TIERS.items(), shares[:3], BOTH):
        for how, reduction in reduced.items():
            run = partial(ensemble, fused, shared, "series", **TOLERANCES, **reduction, **ADJOINTS[adjoint])
            yield f"ensemble/{tier}/shared: {shared}/{how}/{adjoint}", run
        yield f"solve_ensemble/{tier}/shared: {shared}/{adjoint}", partial(solved_ensemble, fused, shared, ADJOINTS[adjoint])
    spans = np.column_stack([np.zeros(MEMBERS), np.linspace(1.0, 2.0, MEMBERS)])
    for shared, method in itertools.product(shares, ("Tsit5", "Radau", "auto")):
        given = options_of(method) | ({"reduce": "sum"} if shared == "theta" else {})
        yield f"ensemble/own data/{shared}/{method}", partial(ensemble, False, shared, "members", **given)
        yield f"ensemble/own spans/{shared}/{method}", partial(ensemble, False, shared, "final", spans, **given)


def fitted() -> Numbers:
    system = lotka_volterra()
    start: dict[str, Any] = {"u0": {"hare": 1.0, "lynx": 1.2}, "theta": system.theta}
    fit = adjode.Fit(system.dynamics, loss_of("squares", system), system.t_span, **start, free=("u0", "theta"), log=("theta",))
    found = fit.minimize(options={"maxiter": 5})
    return *fit.value_and_gradient(fit.x0), found.x, found.fun


def named() -> Numbers:
    system = lotka_volterra()
    u0, theta = {"hare": 1.0, "lynx": 1.2}, {"rates": system.theta[:2], "others": system.theta[2:]}
    u_T, pullback = adjode.vjp(system.dynamics, u0, theta, system.t_span, **TOLERANCES)
    bar = pullback({"hare": 1.0, "lynx": -1.0})
    return *u_T.values(), *bar.u0.values(), *bar.theta.values(), bar.t0, bar.T


def consistent() -> Numbers:
    system = with_mass("singular")
    return (adjode.consistent_initial(system.dynamics, [0.9, 1e-5, 0.2], system.theta),)


def residuals(make: Callable[[], System], **options: Any) -> Numbers:
    system = make()
    evaluate = adjode.residuals_and_jacobian(system.dynamics, loss_of("squares", system), system.t_span, **options)
    return evaluate(system.u0, system.theta)[:2]


def jumps() -> Iterator[Run]:
    """Doses and events."""
    for (tier, fused), method in itertools.product(TIERS.items(), ("Tsit5", "DOP853", "RK4", "Radau", "auto")):
        make, given = partial(hopping, fused), options_of(method) | jumps_of(6)
        for adjoint in BOTH:
            for loss in ("final", "squares", "series"):
                yield f"jumps/{tier}/{method}/{adjoint}/{loss}", partial(gradient, make, loss, **given, **ADJOINTS[adjoint])
        yield f"jumps/{tier}/{method}/jitted", partial(jitted, make, "squares", **given)
        yield f"jumps/{tier}/{method}/solve", partial(solved, make, **given)
        for how in ("tangents", "adjoints"):
            yield f"jumps/{tier}/{method}/residuals by {how}", partial(residuals, make, jacobian=how, **given)


def others() -> Iterator[Run]:
    yield from {"others/fit": fitted, "others/named entries": named, "others/consistent": consistent}.items()


def table() -> dict[str, Callable[[], Numbers]]:
    parts = (gradients, solutions, options, stiff, larger, masses, ensembles, jumps, others)
    return dict(itertools.chain.from_iterable(part() for part in parts))
