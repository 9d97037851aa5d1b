"""Speed, accuracy and work of a value and its gradient on the stiff problems."""

from __future__ import annotations

from adjode.tableaus import METHODS
from benchmarks.cases import Gradient, gradient_error
from benchmarks.stiff_cases import STIFF_CASES, stiff_case
from benchmarks.stiff_problems import STIFF_PROBLEMS

IMPLICIT = [name for name in ("Radau", "Kvaerno5", "TRBDF2") if name in METHODS]


def gradient_of(problem: str, method: str, tol: float):
    atol = tol * stiff_case(problem).scales()
    return STIFF_PROBLEMS[problem]().value_and_gradient(method=method, rtol=tol, atol=atol)


class Stiff:
    """One value and gradient with the discrete adjoint, compiled and warm, and how exact it is."""

    params = (list(STIFF_CASES), IMPLICIT, [1e-5, 1e-7])
    param_names = ["problem", "method", "tol"]
    warmup_time = 0.02
    sample_time = 0.05
    repeat = (2, 5, 2.0)
    timeout = 300

    def setup(self, problem, method, tol):
        if problem == "brusselator_2d" and (method, tol) != ("Radau", 1e-5):
            raise NotImplementedError  # asv leaves it out: seconds for each evaluation
        self.gradient = gradient_of(problem, method, tol)
        self.gradient()

    def time_value_and_gradient(self, *params):
        self.gradient()

    def track_gradient_error(self, problem, *params):
        value, bar = self.gradient()
        return gradient_error(problem, Gradient(value, bar.u0, bar.theta))
