"""`Uncertainty`: what the data say of fitted entries, by the Jacobian of the residuals at the minimum (Gauss-Newton)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from adjode.frontends.entries import natural

_SMALL_PART = 0.05  # of a singular direction, in units of the columns, below which an entry is not named
_MOST_NAMED = 6
_OFF = 0.1  # standard errors that a step from a minimum may be long
_AT_BOUND = 1e-6  # how near, as a part of the entry or of 1
_ACCURACY = 1e-12  # that a Jacobian has at best


Push = Callable[[Any, str | None], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Entries(Protocol):
    """What is read of a `Fit`."""

    names: list[str]
    bounds: list[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """States with bands, by the delta method.

    Attributes
    ----------
    times : (c,) array
    u, standard_errors : (c, n) arrays
    low, high : (c, n) arrays
        Pointwise confidence bands of the states; the scatter of data comes on top.
    """

    times: np.ndarray
    u: np.ndarray
    standard_errors: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Uncertainty:
    """Estimates with standard errors, correlations and intervals; `str()` gives a table.

    Attributes
    ----------
    names : list of k str
    values, standard_errors : (k,) arrays
        In natural units.
    covariance, correlation : (k, k) arrays
        In natural units.
    x, rates : (k,) arrays
        The point as the optimiser sees it, and the rates at which `exp(rate x)` are the values; 0 where these are x itself.
    covariance_of_x : (k, k) array
    n_data, degrees_of_freedom : int
    residual_variance : float
        The sum of the squared residuals by the degrees of freedom: about 1 where `sigma` of the loss is right.
    absolute_sigma : bool
        Whether `sigma` of the loss was taken for the standard deviations as they are.
    at_bounds : list of str
        Entries at a bound, for whose errors, and those of all others, there is no such theory.
    """

    names: list[str]
    x: np.ndarray
    rates: np.ndarray
    covariance_of_x: np.ndarray
    n_data: int
    residual_variance: float
    absolute_sigma: bool
    at_bounds: list[str] = field(default_factory=list)
    push: Push | None = None

    @classmethod
    def at_minimum(
        cls,
        fit: Entries,
        x: np.ndarray,
        rates: np.ndarray,
        residuals: tuple[np.ndarray, np.ndarray],
        push: Push,
        absolute_sigma: bool,
        rtol: float,
    ) -> Uncertainty:
        """From the residuals (N,) at x and their Jacobian (N, k); `push(times, experiment)` gives what `predict` is made of."""
        (r, J), accuracy = residuals, max(rtol, _ACCURACY)
        covariance, variance = _covariance(r, J, fit.names, absolute_sigma, accuracy)
        scale = 1.0 if absolute_sigma else variance
        distances = np.abs(np.array(fit.bounds) - x[:, None]).min(axis=1)
        near = distances <= _AT_BOUND * np.maximum(1.0, np.abs(x))
        at_bounds = [name for name, there in zip(fit.names, near, strict=True) if there]
        if not at_bounds:
            _warn_off_minimum(covariance, J.T @ r, x, scale, accuracy)
        return cls(list(fit.names), x, rates, covariance * scale, r.size, variance, absolute_sigma, at_bounds, push)

    @property
    def degrees_of_freedom(self) -> int:
        return self.n_data - len(self.names)

    @property
    def values(self) -> np.ndarray:
        return natural(self.x, self.rates)

    @property
    def _slopes(self) -> np.ndarray:
        """Of the natural units by x."""
        return np.where(self.rates > 0.0, self.rates * self.values, 1.0)

    @property
    def covariance(self) -> np.ndarray:
        return self.covariance_of_x * np.outer(self._slopes, self._slopes)

    @property
    def standard_errors(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance))

    @property
    def standard_errors_of_x(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance_of_x))

    @property
    def correlation(self) -> np.ndarray:
        errors = self.standard_errors_of_x
        return self.covariance_of_x / np.outer(errors, errors)

    def quantile(self, level: float) -> float:
        """Half the width of an interval in standard errors: Student's t, or normal where sigma is known."""
        from scipy import special

        if not 0.0 < level < 1.0:
            raise ValueError(f"level must be between 0 and 1, but {level!r} was given.")
        upper = 0.5 + 0.5 * level
        return float(special.ndtri(upper) if self.absolute_sigma else special.stdtrit(self.degrees_of_freedom, upper))

    def intervals(self, level: float = 0.95) -> np.ndarray:
        """Confidence intervals (k, 2) in natural units: on a log scale those of the logarithm, so that they stay positive."""
        width = self.quantile(level) * self.standard_errors_of_x
        return np.column_stack([natural(self.x - width, self.rates), natural(self.x + width, self.rates)])

    def predict(self, times: Any, *, level: float = 0.95, experiment: str | None = None) -> Prediction:
        """The states at times (c,) in the span, of one of several experiments, with confidence bands of the fitted curve."""
        assert self.push is not None
        given, u, dots = self.push(times, experiment)
        errors = np.sqrt(np.maximum(np.einsum("cik,kl,cil->ci", dots, self.covariance_of_x, dots), 0.0))
        width = self.quantile(level) * errors
        return Prediction(given, u, errors, u - width, u + width)

    def table(self, level: float = 0.95) -> str:
        """Estimate, standard error and interval of each entry, with as many digits as the error allows."""
        heads = ("entry", "estimate", "std. error", f"{100 * level:g}% interval")
        rows = [heads]
        ends = self.intervals(level)
        for k, name in enumerate(self.names):
            error = self.standard_errors[k]
            value, *limits = (rounded(number, error) for number in (self.values[k], *ends[k]))
            mark = " (at a bound)" if name in self.at_bounds else ""
            rows.append((name + mark, value, rounded(error, error), f"{limits[0]} .. {limits[1]}"))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [f"{row[0]:<{widths[0]}}  " + "  ".join(f"{row[i]:>{widths[i]}}" for i in (1, 2, 3)) for row in rows]
        known = "sigma as given" if self.absolute_sigma else f"residual variance {self.residual_variance:.3g}"
        lines.append(f"{self.n_data} data, {self.degrees_of_freedom} degrees of freedom, {known}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"Uncertainty of {len(self.names)} entries from {self.n_data} data"


def rounded(value: float, error: float) -> str:
    """A number to the second digit of its error."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0.0):
        return f"{value:.6g}"
    decimals = 1 - math.floor(math.log10(error))
    if 0 <= decimals <= 8 and abs(value) < 1e7:
        return f"{value:.{decimals}f}"
    digits = decimals + (math.floor(math.log10(abs(value))) if value else 0)
    return f"{value:.{min(max(digits, 0), 15)}e}"


def _covariance(r: np.ndarray, J: np.ndarray, names: Sequence[str], absolute_sigma: bool, accuracy: float) -> tuple[Any, float]:
    """The covariance of x for errors of variance 1, from residuals (N,) and their Jacobian (N, k), and the residual variance.

    Raises
    ------
    ValueError
        If the data do not determine all entries, to the relative accuracy of the Jacobian, or leave no degrees of freedom.
    """
    N, k = J.shape
    sizes = np.linalg.norm(J, axis=0)
    without = [name for name, size in zip(names, sizes, strict=True) if size == 0.0]
    if without:
        raise ValueError(
            f"the data do not depend on {', '.join(without)}: leave {'it' if len(without) == 1 else 'them'} out of free."
        )
    _, singular, V = np.linalg.svd(np.linalg.qr(J / sizes, mode="r"))
    singular = np.append(singular, np.zeros(k - singular.size))
    unseen = np.flatnonzero(singular <= accuracy * singular[0])
    if unseen.size:
        raise ValueError(_unidentified(V[unseen], sizes, names, singular[unseen] / singular[0]))
    variance = float(r @ r / (N - k)) if N > k else math.nan
    if N == k and not absolute_sigma:
        raise ValueError(
            f"{N} data for {k} entries leave no residual variance to estimate: give absolute_sigma=True, if sigma of the loss are "
            f"the standard deviations."
        )
    root = (V / singular[:, None]) / sizes
    return root.T @ root, variance


def _warn_off_minimum(covariance: np.ndarray, gradient: np.ndarray, x: np.ndarray, scale: float, accuracy: float) -> None:
    """Warn if a Gauss-Newton step would lead far from x: where the loss has no minimum its Jacobian says nothing of errors."""
    step = covariance @ gradient
    length = math.sqrt(max(float(gradient @ step), 0.0) / scale) if scale > 0.0 else 0.0
    if length > _OFF and np.any(np.abs(step) > 10.0 * accuracy * np.maximum(1.0, np.abs(x))):
        warnings.warn(
            f"this is no minimum: a Gauss-Newton step from here is {length:.2g} standard errors long; fit again, with tighter "
            f"tolerances.",
            RuntimeWarning,
            stacklevel=4,
        )


def _unidentified(directions: np.ndarray, sizes: np.ndarray, names: Sequence[str], parts: np.ndarray) -> str:
    """A sentence on the directions (d, k), in units of the columns, along which the residuals do not change."""
    told = []
    for direction in directions:
        entries = np.flatnonzero(np.abs(direction) > _SMALL_PART * np.abs(direction).max())
        natural = direction / sizes
        natural = natural / natural[entries[np.argmax(np.abs(direction[entries]))]]
        shown = entries[:_MOST_NAMED]
        terms = [f"{natural[i]:+.3g} {names[i]}" for i in shown] + ["..."] * (entries.size > _MOST_NAMED)
        told.append(" ".join(terms))
    return (
        f"the data do not determine all entries: the residuals do not change along {'; nor along '.join(told)} (the Jacobian has a "
        f"singular value of {parts.max():.1g} of its largest): leave an entry out of free, or add data."
    )
