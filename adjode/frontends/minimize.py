"""A fit by SciPy's `minimize`: which methods there are, and the fit from one start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adjode.checks import choose
from adjode.frontends.objective import Objective, after_each_iteration
from adjode.frontends.progress import no_show
from adjode.frontends.starts import Outcome, Task
from adjode.status import SolveError

# SciPy's methods that use gradients, without SLSQP: its line search can accept a point however much the loss rises there.
BOUNDED = ("L-BFGS-B", "TNC", "trust-constr")
UNBOUNDED = ("BFGS", "CG", "Newton-CG", "trust-ncg", "trust-krylov")
OF_SECOND_ORDER = ("trust-ncg", "trust-krylov")  # which take Hessian-vector products
TAKE_PRODUCTS = ("Newton-CG", "trust-constr")  # where there are any, and else differences of gradients


def check_method(method: str, bounds: list[tuple[float, float]]) -> str:
    method = choose("method", method, BOUNDED + UNBOUNDED)
    if np.isfinite(bounds).any() and method in UNBOUNDED:
        raise ValueError(f"{method} takes no bounds: leave them out, or choose one of {', '.join(BOUNDED)}.")
    return method


@dataclass(frozen=True)
class MinimizeTask(Task):
    """A fit from one start; `callback` as SciPy's."""

    callback: Callable | None = None
    second_order: bool = False

    def __call__(self, x0: np.ndarray) -> Outcome:
        from scipy import optimize

        objective, bounds = Objective(self.fit), self.fit.bounds
        given = {"hessp": self.fit.hessp, **self.options} if self.second_order else self.options
        try:
            result = optimize.minimize(
                objective,
                x0,
                jac=True,
                method=self.method,
                bounds=bounds if np.isfinite(bounds).any() else None,
                callback=after_each_iteration(objective, self.show or no_show, self.callback),
                **given,
            )
            objective.give_best(result, np.asarray(bounds))
            result.loss = float(result.fun)
        except SolveError as error:
            return Outcome(None, objective.first_failure or error, objective.n_failed + 1, objective.n_evaluations)
        return Outcome(result, objective.first_failure, objective.n_failed, objective.n_evaluations)
