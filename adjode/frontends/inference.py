"""`LeastSquaresFit`: what a fit of a `LeastSquares` loss has beyond other fits: Gauss-Newton methods, and what the data say."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adjode.api.solution import Solution
from adjode.checks import choose, float_vector
from adjode.frontends.entries import Entries
from adjode.frontends.least_squares import fit_least_squares
from adjode.frontends.problems import Problem
from adjode.frontends.profile import Profile, profile
from adjode.frontends.uncertainty import Prediction, Uncertainty

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult


class LeastSquaresFit(Entries):
    """The part of `Fit` that takes residuals."""

    def __init__(self, problem: Problem):
        super().__init__(**problem.entries)
        self._problem = problem
        self._fitted: tuple[np.ndarray, str] | None = None  # the minimum last found, and of which loss of least squares
        self.n_failed = 0

    def unpack(self, x: Any) -> Any:
        """`(u0, theta)` at x, in the form they were given in, or a dict of all parameters; what is not free starts and stays."""
        results = self._problem.results(self._natural(float_vector("x", x, self._free.size)))
        return results["parameters"] if "parameters" in results else (results["u0"], results["theta"])

    def solve(self, x: Any = None, *, experiment: str | None = None) -> Solution:
        """The solution at x, by default at the minimum last found, of one of several experiments by its name."""
        return self._problem.solve(self._natural(self._minimum_or(x)), experiment)

    def _minimum_or(self, x: Any) -> np.ndarray:
        """x, or the minimum last found."""
        if x is None and self._fitted is None:
            raise ValueError("nothing has been fitted yet: call least_squares or minimize, or give x.")
        return float_vector("x", self._fitted[0] if x is None and self._fitted is not None else x, self._free.size)

    def least_squares(
        self,
        method: str = "trf",
        *,
        loss: str = "linear",
        starts: int = 1,
        seed: Any = None,
        progress: bool = False,
        **options: Any,
    ) -> OptimizeResult:
        """Minimise a `LeastSquares` loss by `scipy.optimize.least_squares`, with the Jacobian of the residuals by tangents.

        Parameters
        ----------
        method : {"trf", "dogbox", "lm"}
            "lm" takes no bounds.
        loss : {"linear", "soft_l1", "huber", "cauchy", "arctan"}
            What is summed up of the squared residuals: all but the first make less of outliers.
        starts, seed : int
            From how many points to fit: x0, and others within the bounds, which must be finite. The best fit is returned; all that
            ended are its `starts`, the same ones for the same seed.
        progress : bool
            Show solves and loss with tqdm.
        **options
            Passed on to SciPy: `ftol`, `xtol`, `f_scale`, `max_nfev`, ...; `x_scale` is "jac" by default.

        Returns
        -------
        scipy.optimize.OptimizeResult
            As `minimize` returns it; its `fun` are the residuals and its `jac` their Jacobian.

        Raises
        ------
        SolveError
            If the solve at x0 fails. Later failures do not stop the fit; a RuntimeWarning at the end counts them.
        """
        result, n_failed = fit_least_squares(self, method, loss, starts, seed, progress, options)
        self.n_failed += n_failed
        return self._finish(result, loss, n_failed)

    def evaluate_residuals(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """The residuals (N,) at x and their Jacobian by x (N, k), both finite, or a SolveError."""
        z = self._checked_natural(float_vector("x", x, self._free.size))
        r, J = self._problem.residuals_and_jacobian(z)
        with np.errstate(over="ignore", invalid="ignore"):
            J = J * self._slopes(z)
        if not (np.isfinite(r).all() and np.isfinite(J).all()):
            raise self._non_finite("a residual or its derivative is not finite")
        return r, J

    def uncertainty(self, x: Any = None, *, absolute_sigma: bool = False) -> Uncertainty:
        """Standard errors, correlations, intervals and predictions at a minimum of a `LeastSquares` loss; prints as a table.

        Parameters
        ----------
        x : (k,) array, optional
            The minimum: by default that last found.
        absolute_sigma : bool
            Take `sigma` of the loss for the standard deviations of the data; else, as by default, for their ratios, and estimate
            their size from the residuals. As in `scipy.optimize.curve_fit`.

        Raises
        ------
        ValueError
            If the data do not determine all entries, with the directions that they leave open; if nothing has been fitted yet, or
            by a robust loss.

        Notes
        -----
        The covariance is `(J^T J)^-1`, that of a model that is linear within the errors. Entries at a bound are named in the table.
        """
        if x is None and self._fitted is not None and self._fitted[1] != "linear":
            raise ValueError(f"there is no theory of standard errors for loss={self._fitted[1]!r}: fit with loss='linear'.")
        x = self._minimum_or(x)
        residuals, push = self.evaluate_residuals(x), functools.partial(self._push, x)
        return Uncertainty.at_minimum(self, x, self._rates, residuals, push, absolute_sigma, self._problem.rtol)

    def covariance(self, x: Any = None, *, scale: str = "parameters", absolute_sigma: bool = False) -> np.ndarray:
        """The covariance (k, k) of the entries, scale="parameters", or of x, scale="fit"; see `uncertainty`."""
        found = self.uncertainty(x, absolute_sigma=absolute_sigma)
        return found.covariance if choose("scale", scale, ("parameters", "fit")) == "parameters" else found.covariance_of_x

    def standard_errors(self, x: Any = None, *, scale: str = "parameters", absolute_sigma: bool = False) -> np.ndarray:
        """The standard errors (k,) of the entries, scale="parameters", or of x, scale="fit"; see `uncertainty`."""
        return np.sqrt(np.diag(self.covariance(x, scale=scale, absolute_sigma=absolute_sigma)))

    def correlation(self, x: Any = None) -> np.ndarray:
        """The correlations (k, k) of the entries, on either scale; see `uncertainty`."""
        return self.uncertainty(x).correlation

    def profile(
        self, names: str | Sequence[str] | None = None, x: Any = None, *, level: float = 0.95, absolute_sigma: bool = False
    ) -> Profile:
        """Profile likelihoods: the least losses with one entry held, and intervals that hold where the model is not linear.

        Parameters
        ----------
        names : str or sequence of str, optional
            Of the entries, as in `Fit.names`; all by default.
        x, absolute_sigma
            As for `uncertainty`.
        level : float
            Of the intervals.

        Raises
        ------
        ValueError
            As `uncertainty`; and if a lower minimum is found on the way, with its x.
        SolveError
            If solves fail however near to the minimum.

        Notes
        -----
        Each entry takes a fit of all others at some ten places.
        """
        chosen = self.names if names is None else [names] if isinstance(names, str) else list(names)
        return profile(self, self.uncertainty(x, absolute_sigma=absolute_sigma), chosen, level)

    def predict(
        self,
        times: Any,
        x: Any = None,
        *,
        level: float = 0.95,
        absolute_sigma: bool = False,
        experiment: str | None = None,
    ) -> Prediction:
        """The states at times (c,), of one of several experiments, with confidence bands by the delta method; see `uncertainty`."""
        return self.uncertainty(x, absolute_sigma=absolute_sigma).predict(times, level=level, experiment=experiment)

    def _finish(self, result: OptimizeResult, loss: str, n_failed: int) -> OptimizeResult:
        """What every fit adds to SciPy's result."""
        result.update(self._problem.results(self._natural(result.x)), n_failed=n_failed)
        self._fitted = result.x.copy(), loss
        return result

    def _push(self, x: np.ndarray, times: Any, experiment: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times (c,), the states there (c, n), and their derivatives by x (c, n, k)."""
        z = self._natural(x)
        directions = np.zeros((z.size, x.size))
        directions[self._free, np.arange(x.size)] = self._slopes(z)
        return self._problem.push(z, directions, times, experiment)
