"""A fit by SciPy's `least_squares`: the residuals and their Jacobian as it wants them, where solves fail too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from adjode.checks import choose
from adjode.frontends.progress import no_show
from adjode.frontends.starts import Outcome, Task
from adjode.status import SolveError

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

METHODS = ("trf", "dogbox", "lm")
LOSSES = ("linear", "soft_l1", "huber", "cauchy", "arctan")
_WORSE = 1e3  # times the residuals of the best point, which makes a step that MINPACK turns back from


class Fitted(Protocol):
    """What is read of a `Fit`."""

    x0: np.ndarray
    bounds: list[tuple[float, float]]
    names: list[str]

    def evaluate_residuals(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class Residuals:
    """Residuals and Jacobian for SciPy, where a failed solve is a point that it steps back from.

    Attributes
    ----------
    n_evaluations, n_failed : int
    first_failure : SolveError or None
    """

    def __init__(self, fit: Fitted, show: Callable[[dict[str, str], int], None], finite: bool):
        self.fit, self._show, self._finite = fit, show, finite
        self.n_evaluations = self.n_failed = 0
        self.first_failure: SolveError | None = None
        self._best: np.ndarray | None = None
        self._at: tuple[bytes, np.ndarray] | None = None  # a point and its Jacobian

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The residuals; where the solve fails infinite, or for MINPACK, which has no eye for that, far larger than they were."""
        self.n_evaluations += 1
        try:
            r, J = self.fit.evaluate_residuals(x)
        except SolveError as error:
            if self._best is None:
                error.args = (f"the fit cannot start, because the solve at the start fails: {error}",)
                raise
            self.n_failed += 1
            self.first_failure = self.first_failure or error
            return _WORSE * (np.abs(self._best) + 1.0) if self._finite else np.full(self._best.size, np.inf)
        self._at = x.tobytes(), J
        if self._best is None or r @ r < self._best @ self._best:
            self._best = r
        self._show({"loss": f"{0.5 * r @ r:.6g}"}, self.n_failed)
        return r

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """At a point whose residuals were the last ones, or at another."""
        if self._at is None or self._at[0] != x.tobytes():
            return self.fit.evaluate_residuals(x)[1]
        return self._at[1]


@dataclass(frozen=True)
class LeastSquaresTask(Task):
    """A fit from one start, where `loss` is what is summed up of the squares."""

    loss: str = "linear"

    def __call__(self, x0: np.ndarray) -> Outcome:
        from scipy import optimize

        residuals = Residuals(self.fit, self.show or no_show, finite=self.method == "lm")
        bounds = np.array(self.fit.bounds).T
        bounded = {"bounds": tuple(bounds)} if np.isfinite(bounds).any() else {}
        given = {"x_scale": "jac", **bounded, **self.options}
        try:
            with np.errstate(invalid="ignore"):  # SciPy divides 0 by 0 along entries of which nothing is seen any more
                result = optimize.least_squares(residuals, x0, jac=residuals.jacobian, method=self.method, loss=self.loss, **given)
            result.loss = float(result.cost)
        except SolveError as error:
            return Outcome(None, residuals.first_failure or error, residuals.n_failed + 1, residuals.n_evaluations)
        return Outcome(result, residuals.first_failure, residuals.n_failed, residuals.n_evaluations)


def fit_from(fit: Fitted, x0: np.ndarray, options: dict[str, Any]) -> OptimizeResult:
    """A fit by "trf" from one point; a SolveError if the solve there fails."""
    outcome = LeastSquaresTask(fit, "trf", options)(x0)
    if outcome.result is None:
        assert outcome.failure is not None
        raise outcome.failure
    return outcome.result


def check_options(method: str, loss: str, bounds: list[tuple[float, float]]) -> None:
    choose("method", method, METHODS)
    choose("loss", loss, LOSSES)
    if method == "lm" and np.isfinite(bounds).any():
        raise ValueError("method='lm' takes no bounds: leave them out, or choose 'trf' or 'dogbox'.")
    if method == "lm" and loss != "linear":
        raise ValueError(f"method='lm' takes only loss='linear', but {loss!r} was given: choose 'trf' or 'dogbox'.")
