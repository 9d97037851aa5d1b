"""What SciPy's `minimize` sees of a fit: the loss, finite everywhere, and what is done after each of its iterations."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from adjode.status import SolveError


class Evaluated(Protocol):
    """What is read of a `Fit`."""

    def evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray]: ...


class Point(NamedTuple):
    x: np.ndarray
    value: float
    gradient: np.ndarray


class Objective:
    """The loss for SciPy, finite everywhere.

    The anchor is the iterate from which the optimiser is searching; SciPy's callback moves it. A substitute value must exceed the
    anchor's, not just that of the latest good trial, or a line search could accept the failing point.
    """

    def __init__(self, fit: Evaluated):
        self.fit = fit
        self.anchor: Point | None = None
        self.best: Point | None = None  # of all
        self.trials: dict[bytes, Point] = {}  # good points since the anchor was set
        self.failed: set[bytes] = set()
        self.first_failure: SolveError | None = None
        self.n_evaluations = self.n_failed = 0

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self.n_evaluations += 1
        try:
            point = Point(x.copy(), *self.fit.evaluate(x))
        except SolveError as error:
            if self.anchor is None:
                error.args = (f"the fit cannot start, because the solve at x0 fails: {error}",)
                raise
            self.n_failed += 1
            self.failed.add(x.tobytes())
            self.first_failure = self.first_failure or error
            return self._uphill(x)
        self.anchor = self.anchor or point
        if self.best is None or point.value < self.best.value:
            self.best = point
        self.trials[x.tobytes()] = point
        return point.value, point.gradient.copy()

    def _uphill(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """`value + |gradient . (x - anchor)|`: its slope along any step is the anchor's, turned uphill."""
        assert self.anchor is not None
        change = float(self.anchor.gradient @ (x - self.anchor.x))
        return self.anchor.value + abs(change), math.copysign(1.0, change) * self.anchor.gradient

    def give_best(self, result: Any, bounds: np.ndarray) -> None:
        """Put the best point into a result that is worse: a line search that ends in rounding goes back to where it began."""
        best = self.best
        if best is not None and best.value < result.fun and ((best.x >= bounds[:, 0]) & (best.x <= bounds[:, 1])).all():
            result.x, result.fun, result.jac = best.x, best.value, best.gradient

    def accept(self, x: np.ndarray) -> Point:
        """Move the anchor to the iterate x."""
        assert self.anchor is not None
        if x.tobytes() in self.trials:
            self.anchor = self.trials[x.tobytes()]
            self.trials = {}
        return self.anchor


def after_each_iteration(objective: Objective, show: Callable[..., None], callback: Callable | None) -> Callable:
    """SciPy's callback: move the anchor, show progress, and call the user's in whichever of SciPy's two forms it has."""
    by_name = callback is not None and set(inspect.signature(callback).parameters) == {"intermediate_result"}

    def after_iteration(x: np.ndarray, *state: Any) -> Any:
        point = objective.accept(x)
        facts = {"loss": f"{point.value:.6g}", "|gradient|": f"{np.linalg.norm(point.gradient):.2e}"}
        show(facts, len(objective.failed))
        if callback is None:
            return None
        if by_name:
            from scipy.optimize import OptimizeResult

            return callback(intermediate_result=OptimizeResult(x=x, fun=point.value))
        return callback(x, *state)

    return after_iteration
