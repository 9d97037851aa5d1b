"""A fit by SciPy's `least_squares`: the residuals and their Jacobian as it wants them, where solves fail too, from many starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from adjode.checks import choose
from adjode.frontends.progress import progress_line
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


def fit_least_squares(
    fit: Fitted, method: str, loss: str, starts: int, seed: Any, progress: bool, options: dict[str, Any]
) -> tuple[OptimizeResult, int]:
    """The best of the fits from all starts, which are its `starts` if there are more than one, and the number of failed solves.

    Raises
    ------
    SolveError
        If the solve at x0 fails, where that is the only start, or at all of them.
    """
    bounds = np.array(fit.bounds).T
    _check(method, loss, bounds)
    points = starting_points(fit, starts, seed)
    results, failures, n_failed, n_evaluations = [], [], 0, 0
    with progress_line(progress, "solves") as show:
        for x0 in points:
            residuals = Residuals(fit, show, finite=method == "lm")
            try:
                results.append(_minimise(residuals, x0, method, loss, bounds, options))
            except SolveError as error:
                failures.append(error)
                n_failed += 1
            n_failed, n_evaluations = n_failed + residuals.n_failed, n_evaluations + residuals.n_evaluations
            failures += [] if residuals.first_failure is None else [residuals.first_failure]
    if not results:
        raise failures[0]
    if n_failed:
        warnings.warn(
            f"{n_failed} of the {n_evaluations} solves of the fit failed and were stepped back from; the first: {failures[0]}",
            RuntimeWarning,
            stacklevel=3,
        )
    best = min(results, key=lambda result: result.cost)
    if starts > 1:
        best.starts = results
    return best, n_failed


def _minimise(residuals: Residuals, x0: np.ndarray, method: str, loss: str, bounds: np.ndarray, options: dict[str, Any]) -> Any:
    from scipy import optimize

    bounded = {"bounds": tuple(bounds)} if np.isfinite(bounds).any() else {}
    return optimize.least_squares(
        residuals, x0, jac=residuals.jacobian, method=method, loss=loss, **{"x_scale": "jac", **bounded, **options}
    )


def _check(method: str, loss: str, bounds: np.ndarray) -> None:
    choose("method", method, METHODS)
    choose("loss", loss, LOSSES)
    if method == "lm" and np.isfinite(bounds).any():
        raise ValueError("method='lm' takes no bounds: leave them out, or choose 'trf' or 'dogbox'.")
    if method == "lm" and loss != "linear":
        raise ValueError(f"method='lm' takes loss='linear' alone, but {loss!r} was given: choose 'trf' or 'dogbox'.")


def starting_points(fit: Fitted, starts: int, seed: Any) -> np.ndarray:
    """x0, and behind it points of a Latin hypercube within the bounds, (starts, k); the same ones for the same seed.

    Raises
    ------
    ValueError
        If there are no bounds to choose them from.
    """
    if not isinstance(starts, (int, np.integer)) or starts < 1:
        raise ValueError(f"starts must be a positive integer, but {starts!r} was given.")
    if starts == 1:
        return fit.x0[None]
    low, high = np.array(fit.bounds).T
    for name, least, most in zip(fit.names, low, high, strict=True):
        if not np.isfinite([least, most]).all():
            raise ValueError(f"starts={starts} needs finite bounds to choose starts from, but {name} has ({least:g}, {most:g}).")
    from scipy.stats import qmc

    sampler = qmc.LatinHypercube(fit.x0.size, seed=seed)
    return np.vstack([fit.x0, low + (high - low) * sampler.random(starts - 1)])
