"""`LeastSquaresFit`: what a fit of a `LeastSquares` loss has beyond other fits: Gauss-Newton methods, and what the data say."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import numpy as np

from adjode.api.solution import Solution
from adjode.checks import choose, float_vector
from adjode.frontends.curvature import hessian_by_differences
from adjode.frontends.identifiability import Identifiability, identifiability
from adjode.frontends.least_squares import LeastSquaresTask, check_options
from adjode.frontends.problems import Problem
from adjode.frontends.profile import Profile, profile
from adjode.frontends.second_order import CurvedFit
from adjode.frontends.starts import Outcome, StartOptions, best_of, run_starts
from adjode.frontends.uncertainty import Prediction, Uncertainty
from adjode.status import SolveError

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult


class LeastSquaresFit(CurvedFit):
    """The part of `Fit` that takes residuals."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self.n_failed = 0
        self._tried: tuple[np.ndarray, Any] | None = None  # residuals at x0, for who asks for them next

    def unpack(self, x: Any) -> Any:
        """`(u0, theta)` at x, in the form they were given in, or a dict of all parameters; what is not free starts and stays."""
        results = self._problem.results(self._natural(float_vector("x", x, self._free.size)))
        return results["parameters"] if "parameters" in results else (results["u0"], results["theta"])

    def solve(self, x: Any = None, *, experiment: str | None = None) -> Solution:
        """The solution at x, by default at the minimum last found, of one of several experiments by its name."""
        return self._problem.solve(self._natural(self._minimum_or(x)), experiment)

    def least_squares(
        self,
        method: str = "trf",
        *,
        loss: str = "linear",
        starts: int = 1,
        seed: Any = None,
        sampling: str = "latin",
        workers: int | Executor = 1,
        progress: bool = False,
        **options: Any,
    ) -> OptimizeResult:
        """Minimise a sum of squares by `scipy.optimize.least_squares`, with the Jacobian of the residuals from tangents or
        adjoints.

        Parameters
        ----------
        method : {"trf", "dogbox", "lm"}
            "lm" takes no bounds.
        loss : {"linear", "soft_l1", "huber", "cauchy", "arctan"}
            The function of the squared residuals that is summed: all but the first give less weight to outliers.
        starts, seed, sampling, workers
            As for `Fit.minimize`.
        progress : bool
            Show solves and loss with tqdm; with workers, the number of starts that have ended.
        **options
            Passed on to SciPy: `ftol`, `xtol`, `f_scale`, `max_nfev`, ...; `x_scale` is "jac" by default.

        Returns
        -------
        scipy.optimize.OptimizeResult
            As from `minimize`; its `fun` contains the residuals and its `jac` their Jacobian.

        Raises
        ------
        SolveError
            If the solve at x0 fails. Later failures do not stop the fit; a RuntimeWarning at the end counts them.
        """
        check_options(method, loss, self.bounds)
        how, task = StartOptions(starts, seed, sampling, workers), LeastSquaresTask(self, method, options, loss=loss)
        return self._finish(run_starts(task, how.points(self), how, progress, "solves"), loss)

    def evaluate_residuals(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """The residuals (N,) at x and their Jacobian by x (N, k), both finite, or a SolveError."""
        x, (tried, self._tried) = float_vector("x", x, self._free.size), (self._tried, None)
        if tried is not None and np.array_equal(tried[0], x):
            return tried[1]
        z = self._checked_natural(x)
        r, J = self._problem.residuals_and_jacobian(z)
        with np.errstate(over="ignore", invalid="ignore"):
            J = J * self._slopes(z)
        if not (np.isfinite(r).all() and np.isfinite(J).all()):
            raise self._non_finite("a residual or its derivative is not finite")
        return r, J

    def uncertainty(self, x: Any = None, *, absolute_sigma: bool = False, kind: str = "gauss-newton") -> Uncertainty:
        """Standard errors, correlations, intervals and predictions at a minimum of a `LeastSquares` loss, or of a `Likelihood`;
        prints as a table.

        Parameters
        ----------
        x : (k,) array, optional
            The minimum; by default the last one found.
        absolute_sigma : bool
            Treat `sigma` of the loss as the standard deviations of the data. By default they are only relative, and their size is
            estimated from the residuals, as in `scipy.optimize.curve_fit`.
        kind : {"gauss-newton", "exact"}
            What is inverted: `J^T J`, or the Hessian, which includes the curvature of the model. They differ where residuals are
            large and the model is not linear. For a likelihood without residuals, for example when the size of the noise is fitted,
            it is always a Hessian: by default from differences of gradients.

        Raises
        ------
        ValueError
            If the data do not determine all entries, naming the directions that they leave undetermined; if nothing has been fitted
            yet; or with a robust loss.

        Notes
        -----
        The covariance is `(J^T J)^-1`, that of a model that is linear within the errors. Entries at a bound are named in the table.
        """
        choose("kind", kind, ("gauss-newton", "exact"))
        if x is None and self._fitted is not None and self._fitted[1] != "linear":
            raise ValueError(f"there is no theory of standard errors for loss={self._fitted[1]!r}: fit with loss='linear'.")
        x = float_vector("x", self.minimum if x is None else x, self._free.size)
        push = functools.partial(self._push, x)
        if self._is_likelihood and not self.has_residuals:
            H = self.hessian(x) if kind == "exact" else hessian_by_differences(self, x)
            given = (self.evaluate(x)[1], H), push, self._n_data, self._problem.rtol
            return Uncertainty.of_likelihood(self, x, self._rates, *given)
        residuals = self.evaluate_residuals(x)
        found = Uncertainty.at_minimum(self, x, self._rates, residuals, push, absolute_sigma, self._problem.rtol)
        return found.with_hessian(self.hessian(x)) if kind == "exact" else found

    def covariance(
        self, x: Any = None, *, scale: str = "parameters", absolute_sigma: bool = False, kind: str = "gauss-newton"
    ) -> np.ndarray:
        """The covariance (k, k) of the entries, scale="parameters", or of x, scale="fit"; see `uncertainty`."""
        found = self.uncertainty(x, absolute_sigma=absolute_sigma, kind=kind)
        return found.covariance if choose("scale", scale, ("parameters", "fit")) == "parameters" else found.covariance_of_x

    def standard_errors(self, x: Any = None, *, scale: str = "parameters", absolute_sigma: bool = False) -> np.ndarray:
        """The standard errors (k,) of the entries, scale="parameters", or of x, scale="fit"; see `uncertainty`."""
        return np.sqrt(np.diag(self.covariance(x, scale=scale, absolute_sigma=absolute_sigma)))

    def correlation(self, x: Any = None) -> np.ndarray:
        """The correlations (k, k) of the entries, on either scale; see `uncertainty`."""
        return self.uncertainty(x).correlation

    def profile(
        self,
        names: str | Sequence[str] | None = None,
        x: Any = None,
        *,
        level: float = 0.95,
        absolute_sigma: bool = False,
        workers: int | Executor = 1,
    ) -> Profile:
        """Profile likelihoods: the lowest losses with one entry held, and intervals that are valid if the model is not linear.

        Parameters
        ----------
        names : str or sequence of str, optional
            The entries, as in `Fit.names`; all by default.
        x, absolute_sigma
            As for `uncertainty`.
        level : float
            The confidence level of the intervals.
        workers : int or Executor
            What runs the sides of all profiles: a number of threads, or an executor, as for `minimize`.

        Raises
        ------
        ValueError
            As for `uncertainty`; and if a lower minimum is found on the way, giving its x.
        SolveError
            If solves fail however close to the minimum.

        Notes
        -----
        Each entry takes a fit of all others at about ten places: by least squares, or for a likelihood without residuals by
        quasi-Newton steps, which begin with the Hessian at the minimum.
        """
        chosen = self.names if names is None else [names] if isinstance(names, str) else list(names)
        return profile(self, self.uncertainty(x, absolute_sigma=absolute_sigma), chosen, level, StartOptions(workers=workers))

    def identifiability(self, x: Any = None, *, level: float = 0.95, absolute_sigma: bool = False) -> Identifiability:
        """Which entries the data determine, each with a verdict: "identifiable", "practically not" or "structurally not".

        Parameters
        ----------
        x, level, absolute_sigma
            As for `profile`.

        Returns
        -------
        Identifiability
            `str()` gives a table.

        Raises
        ------
        ValueError, SolveError
            As for `profile`.

        Notes
        -----
        "structurally not": along a direction that involves this entry the residuals do not change, to the accuracy of the solve.
        "practically not": the profile of the entry does not close on both sides before a bound, at this level. In these profiles
        one entry is held for each undetermined direction, which changes no fit.
        """
        x = self._minimum_or(x)
        return identifiability(self, x, self._rates, level, absolute_sigma, self._problem.rtol, StartOptions())

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

    @property
    def has_residuals(self) -> bool:
        """Whether `least_squares` takes the loss, the method and the dynamics."""
        try:
            self._tried = self.x0.copy(), self.evaluate_residuals(self.x0)
        except (TypeError, ValueError):
            return False
        except SolveError:
            pass
        return True

    @property
    def _is_likelihood(self) -> bool:
        """Whether the loss is minus the logarithm of a likelihood, or of a posterior density."""
        return all(part.is_likelihood for _, part, _ in self._problem.parts(self._start))

    @property
    def _n_data(self) -> int:
        return sum(part.n_data for _, part, _ in self._problem.parts(self._start))

    def _finish(self, outcomes: list[Outcome], loss: str) -> OptimizeResult:
        """The best result, and what every fit adds to it."""
        self.n_failed += sum(one.n_failed for one in outcomes)
        result, warning = best_of(outcomes, self.names, self._rates)
        result.update(self._problem.results(self._natural(result.x)))
        self._fitted = result.x.copy(), loss
        if warning:
            warnings.warn(warning, RuntimeWarning, stacklevel=3)
        return result

    def _push(self, x: np.ndarray, times: Any, experiment: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times (c,), the states there (c, n), and their derivatives by x (c, n, k)."""
        z = self._natural(x)
        directions = np.zeros((z.size, x.size))
        directions[self._free, np.arange(x.size)] = self._slopes(z)
        return self._problem.push(z, directions, times, experiment)
