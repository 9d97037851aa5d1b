"""Speed, accuracy and work of a value and its gradient."""

from __future__ import annotations

import functools
import itertools
import math
import timeit
import warnings

import adjode
from benchmarks.problems import PROBLEMS, Problem, lv_final, pleiades, spiral, spiral_with_vjp_u
from benchmarks.scaling import more_steps, value_and_gradient

METHODS = ("Tsit5", "DOP853")
ADJOINTS = ("interpolating", "backsolve")
QUADRATURES = ("gauss", "augmented")
TOLERANCES = (1e-6, 1e-8)  # rtol and atol alike
AXES = (tuple(PROBLEMS), METHODS, ADJOINTS, QUADRATURES, TOLERANCES)
AXIS_NAMES = ["problem", "method", "adjoint", "quadrature", "tol"]


def gradient_of(problem: Problem, method: str, adjoint: str, quadrature: str, tol: float):
    return problem.value_and_gradient(method=method, adjoint=adjoint, quadrature=quadrature, rtol=tol, atol=tol)


class Speed:
    """Time of one value and gradient, compiled and warm."""

    params = AXES
    param_names = AXIS_NAMES
    warmup_time = 0.02
    sample_time = 0.02
    repeat = (3, 10, 0.3)

    def setup(self, problem, *options):
        self.gradient = gradient_of(PROBLEMS[problem](), *options)
        self.gradient()

    def time_value_and_gradient(self, *params):
        self.gradient()


class SpeedWithVjpU:
    """The spiral with `vjp_u`, which the stages can use once theta_bar is left to the Gauss nodes."""

    def setup(self):
        self.gradient = gradient_of(spiral_with_vjp_u(), "Tsit5", "interpolating", "gauss", 1e-8)
        self.gradient()

    def time_value_and_gradient(self):
        self.gradient()


class SpeedFused:
    """The fused tier: callbacks compiled into the kernels."""

    params = (["lv_final", "spiral"], ["interpolating", "discrete"])
    param_names = ["problem", "adjoint"]

    def setup(self, problem, adjoint):
        fused = {"lv_final": lv_final, "spiral": spiral}[problem](fused=True)
        self.gradient = fused.value_and_gradient(adjoint=adjoint, rtol=1e-8, atol=1e-8)
        self.gradient()

    def time_value_and_gradient(self, *params):
        self.gradient()


class Overhead:
    """What a call costs beside its compiled entries: the smallest of many, so that a busy machine matters little."""

    unit = "seconds"

    def setup(self):
        problem = lv_final(fused=True)
        self.call = problem.value_and_gradient(rtol=1e-3, atol=1e-3)
        self.call()
        evaluate = adjode.value_and_gradient(problem.dynamics, problem.loss, problem.t_span, rtol=1e-3, atol=1e-3)
        evaluate(problem.u0, problem.theta)
        ((workspace,),) = evaluate._idle.values()
        self.entries = workspace.program.run

    def track_python_around_a_call(self):
        times = [min(timeit.repeat(f, number=1000, repeat=30)) / 1000 for f in (self.call, self.entries)]
        return times[0] - times[1]


class SpeedDiscrete:
    """The discrete adjoint, which has no quadrature to choose."""

    params = (tuple(PROBLEMS), METHODS, TOLERANCES)
    param_names = ["problem", "method", "tol"]

    def setup(self, problem, method, tol):
        self.gradient = PROBLEMS[problem]().value_and_gradient(adjoint="discrete", method=method, rtol=tol, atol=tol)
        self.gradient()

    def time_value_and_gradient(self, *params):
        self.gradient()


class Work:
    """Error of the gradient, relative to the largest entry of each block, and evaluations in both passes."""

    params = AXES
    param_names = AXIS_NAMES

    def setup_cache(self):
        table = {}
        for name, *options in itertools.product(*AXES):
            problem = PROBLEMS[name]()
            value, bar = gradient_of(problem, *options)()
            true = problem.reference["loss"][0]
            table[(name, *options)] = {
                "gradient_error": problem.gradient_error(bar),
                "value_error": math.fabs(value - true) / math.fabs(true),
                "n_f": forward_evaluations(problem, options) + bar.stats.n_f,
                "n_vjp": bar.stats.n_vjp,
            }
        return table

    def track_gradient_error(self, table, *params):
        return table[params]["gradient_error"]

    def track_value_error(self, table, *params):
        return table[params]["value_error"]

    def track_n_f(self, table, *params):
        return table[params]["n_f"]

    def track_n_vjp(self, table, *params):
        return table[params]["n_vjp"]

    track_n_f.unit = track_n_vjp.unit = "evaluations"


def forward_evaluations(problem: Problem, options) -> int:
    method, _, _, tol = options
    return problem.solve(method=method, rtol=tol, atol=tol).stats.n_f


PLEIADES = {
    "interpolating, gauss": {"adjoint": "interpolating"},
    "interpolating, augmented": {"adjoint": "interpolating", "quadrature": "augmented"},
    "backsolve, augmented": {"adjoint": "backsolve", "on_drift": "warn", "quadrature": "augmented"},
    "discrete": {"adjoint": "discrete"},
}


def gradient_of_pleiades(choice: str, fused: bool = False):
    options = PLEIADES[choice]
    return pleiades(fused).value_and_gradient(method="DOP853", rtol=1e-10, atol=1e-10, **options)


class SpeedPleiades:
    """28 states at a tight tolerance, where the arithmetic counts and not the call; a backsolve drifts there and says so."""

    params = (tuple(PLEIADES), ["portable", "fused"])
    param_names = ["adjoint", "tier"]

    def setup(self, choice, tier):
        warnings.simplefilter("ignore", RuntimeWarning)
        self.gradient = gradient_of_pleiades(choice, fused=tier == "fused")
        self.gradient()

    def time_value_and_gradient(self, *params):
        self.gradient()


class WorkPleiades:
    """Error of the gradient, evaluations in both passes, steps of the backward one."""

    params = tuple(PLEIADES)
    param_names = ["adjoint"]

    def setup_cache(self):
        warnings.simplefilter("ignore", RuntimeWarning)
        bars = {choice: gradient_of_pleiades(choice)()[1] for choice in PLEIADES}
        forward = pleiades().solve(method="DOP853", rtol=1e-10, atol=1e-10).stats.n_f
        return {
            choice: {
                "error": pleiades().gradient_error(bar),
                "n_f": forward + bar.stats.n_f,
                "n_vjp": bar.stats.n_vjp,
                "n_steps": bar.stats.n_steps,
            }
            for choice, bar in bars.items()
        }

    def track_gradient_error(self, table, choice):
        return table[choice]["error"]

    def track_n_f(self, table, choice):
        return table[choice]["n_f"]

    def track_n_vjp(self, table, choice):
        return table[choice]["n_vjp"]

    def track_n_steps(self, table, choice):
        return table[choice]["n_steps"]

    track_n_f.unit = track_n_vjp.unit = "evaluations"
    track_n_steps.unit = "steps"


class Memory:
    """Peak memory of a process that computes one gradient."""

    params = (*PROBLEMS, "pleiades", "a hundred thousand steps")
    param_names = ["problem"]

    def setup(self, problem):
        if problem == "pleiades":
            self.gradient = gradient_of_pleiades("interpolating, gauss")
        elif problem in PROBLEMS:
            self.gradient = PROBLEMS[problem]().value_and_gradient(rtol=1e-8, atol=1e-8)
        else:
            long, options = more_steps(100_000)
            self.gradient = functools.partial(value_and_gradient, long, "interpolating", **options)

    def peakmem_value_and_gradient(self, problem):
        self.gradient()
