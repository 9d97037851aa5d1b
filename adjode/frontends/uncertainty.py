"""`Uncertainty`: what the data say of fitted entries, by the Jacobian of the residuals at the minimum (Gauss-Newton)."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from adjode.frontends.entries import natural
from adjode.frontends.frames import data_frame

if TYPE_CHECKING:
    import pandas

_SMALL_PART = 0.05  # of a singular direction, in units of the columns, below which an entry is not named
_MOST_NAMED = 6
_ALIKE = 1e-6  # how near, as a part of the largest entry of a direction, others are as large
_OFF = 0.1  # standard errors that a step from a minimum may be long
_AT_BOUND = 1e-6  # how near, as a part of the entry or of 1
ACCURACY = 1e-12  # that a Jacobian has at best


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

    def to_frame(self) -> pandas.DataFrame:
        """A row for each time: every state with its standard error and the ends of its band."""
        columns: dict[str, np.ndarray] = {}
        for i in range(self.u.shape[1]):
            parts = {"": self.u, " std. error": self.standard_errors, " low": self.low, " high": self.high}
            columns |= {f"u[{i}]{what}": values[:, i] for what, values in parts.items()}
        return data_frame(columns, self.times, "t")


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
        The point as the optimiser sees it, and the rates for which `exp(rate x)` are the values; 0 where the values are x itself.
    covariance_of_x : (k, k) array
    n_data, degrees_of_freedom : int
    residual_variance : float
        The sum of the squared residuals divided by the degrees of freedom: about 1 if `sigma` of the loss is right.
    absolute_sigma : bool
        Whether `sigma` of the loss was taken as the standard deviations of the data.
    at_bounds : list of str
        Entries at a bound. For their errors, and then for those of all others, this theory does not hold.
    hessian : (k, k) array or None
        For a likelihood without residuals, the Hessian whose inverse is the covariance.
    noise : float or None
        The relative noise of the loss, if there is a Hessian.
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
    hessian: np.ndarray | None = None
    noise: float | None = None

    @classmethod
    def of_likelihood(
        cls,
        fit: Entries,
        x: np.ndarray,
        rates: np.ndarray,
        curvature: tuple[np.ndarray, np.ndarray],
        push: Push,
        n: int,
        rtol: float,
    ) -> Uncertainty:
        """From the gradient (k,) and the Hessian (k, k) of minus the logarithm of a likelihood at x, of n data.

        Raises
        ------
        ValueError
            If the Hessian has no inverse that would be a covariance.
        """
        (gradient, H), at_bounds = curvature, _at_bounds(fit, x)
        covariance = _inverse(H, fit.names)
        if not at_bounds:
            _warn_off_minimum(covariance, gradient, x, 1.0, max(rtol, ACCURACY))
        return cls(list(fit.names), x, rates, covariance, n, math.nan, True, at_bounds, push, H, rtol)

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
        (r, J), accuracy = residuals, max(rtol, ACCURACY)
        covariance, variance = _covariance(r, J, fit.names, absolute_sigma, accuracy)
        scale = 1.0 if absolute_sigma else variance
        at_bounds = _at_bounds(fit, x)
        if not at_bounds:
            _warn_off_minimum(covariance, J.T @ r, x, scale, accuracy)
        return cls(list(fit.names), x, rates, covariance * scale, r.size, variance, absolute_sigma, at_bounds, push)

    def with_hessian(self, H: np.ndarray) -> Uncertainty:
        """The same by the Hessian (k, k) of the loss by x in place of J^T J.

        Raises
        ------
        ValueError
            If it has no inverse, or this is no minimum.
        """
        scale = 1.0 if self.absolute_sigma else self.residual_variance
        return dataclasses.replace(self, covariance_of_x=scale * _inverse(H, self.names))

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
        freedom = f"{self.degrees_of_freedom} degrees of freedom, {known}"
        lines.append(f"{self.n_data} data, {freedom if self.hessian is None else 'by the curvature of the likelihood'}")
        return "\n".join(lines)

    def to_frame(self, level: float = 0.95) -> pandas.DataFrame:
        """A row for each entry: its estimate, standard error, and the ends of its interval."""
        low, high = self.intervals(level).T
        columns = {"estimate": self.values, "std. error": self.standard_errors, "low": low, "high": high}
        return data_frame(columns, self.names, "entry")

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"Uncertainty of {len(self.names)} entries from {self.n_data} data"


def _at_bounds(fit: Entries, x: np.ndarray) -> list[str]:
    distances = np.abs(np.array(fit.bounds) - x[:, None]).min(axis=1)
    near = distances <= _AT_BOUND * np.maximum(1.0, np.abs(x))
    return [name for name, there in zip(fit.names, near, strict=True) if there]


def rounded(value: float, error: float) -> str:
    """A number to the second digit of its error."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0.0):
        return f"{value:.6g}"
    decimals = 1 - math.floor(math.log10(error))
    if 0 <= decimals <= 8 and abs(value) < 1e7:
        return f"{value:.{decimals}f}"
    digits = decimals + (math.floor(math.log10(abs(value))) if value else 0)
    return f"{value:.{min(max(digits, 0), 15)}e}"


def decomposed(J: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Norms of the columns of J (N, k), 1 for those that are zero; singular values (k,) and directions (k, k) in units of these."""
    sizes = np.linalg.norm(J, axis=0)
    sizes[sizes == 0.0] = 1.0
    _, singular, V = np.linalg.svd(np.linalg.qr(J / sizes, mode="r"))
    return sizes, np.append(singular, np.zeros(J.shape[1] - singular.size)), V


def takes_part(directions: np.ndarray) -> np.ndarray:
    """Which entries (d, k) have a part in directions worth a name."""
    sizes = np.abs(directions)
    return sizes > _SMALL_PART * sizes.max(axis=1, keepdims=True)


def _inverse(H: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The inverse of a Hessian at a minimum."""
    sizes = np.sqrt(np.abs(np.diag(H)))
    sizes[sizes == 0.0] = 1.0
    values, V = np.linalg.eigh(H / np.outer(sizes, sizes))
    if values[0] <= ACCURACY * np.abs(values).max():
        direction = V[:, 0] / sizes
        shown = np.flatnonzero(takes_part(V[:, :1].T)[0])
        told = " ".join(f"{direction[i] / direction[shown[0]]:+.3g} {names[i]}" for i in shown[:_MOST_NAMED])
        raise ValueError(
            f"the Hessian has no inverse that would be a covariance: along {told} the loss does not curve upwards, so this is not "
            "a minimum, or the data leave that direction undetermined."
        )
    root = V.T / np.sqrt(values)[:, None] / sizes
    return root.T @ root


def _covariance(r: np.ndarray, J: np.ndarray, names: Sequence[str], absolute_sigma: bool, accuracy: float) -> tuple[Any, float]:
    """The covariance of x for errors of variance 1, from residuals (N,) and their Jacobian (N, k), and the residual variance.

    Raises
    ------
    ValueError
        If the data do not determine all entries, to the relative accuracy of the Jacobian, or leave no degrees of freedom.
    """
    N, k = J.shape
    sizes, singular, V = decomposed(J)
    without = [name for name, size in zip(names, np.linalg.norm(J, axis=0), strict=True) if size == 0.0]
    if without:
        raise ValueError(
            f"the data do not depend on {', '.join(without)}: leave {'it' if len(without) == 1 else 'them'} out of free."
        )
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
            f"this is not a minimum: a Gauss-Newton step from here is {length:.2g} standard errors long; fit again, with tighter "
            f"tolerances.",
            RuntimeWarning,
            stacklevel=4,
        )


def _unidentified(directions: np.ndarray, sizes: np.ndarray, names: Sequence[str], parts: np.ndarray) -> str:
    """A sentence on the directions (d, k), in units of the columns, along which the residuals do not change."""
    told = []
    for direction in directions:
        entries = np.flatnonzero(takes_part(direction[None])[0])
        natural = direction / sizes
        size = np.abs(direction[entries])
        natural = natural / natural[entries[np.argmax(size > (1.0 - _ALIKE) * size.max())]]  # of some alike it is the first
        shown = entries[:_MOST_NAMED]
        terms = [f"{natural[i]:+.3g} {names[i]}" for i in shown] + ["..."] * (entries.size > _MOST_NAMED)
        told.append(" ".join(terms))
    return (
        f"the data do not determine all entries: the residuals do not change along {'; nor along '.join(told)} (the Jacobian has a "
        f"singular value of {parts.max():.1g} of its largest): leave an entry out of free, or add data."
    )
