"""Profile likelihoods: how the loss rises when one entry is held where the data would not have it, and all others are fitted anew.

D. M. Bates, D. G. Watts (1988), Nonlinear Regression Analysis and Its Applications, section 6.1. The signed root of the rise, in
standard deviations, is a straight line through zero where the model is linear; intervals end where it is a quantile of Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adjode.frontends.curvature import Settling
from adjode.frontends.entries import natural
from adjode.frontends.frames import data_frame
from adjode.frontends.least_squares import Fitted, fit_from
from adjode.frontends.starts import StartOptions
from adjode.frontends.uncertainty import Uncertainty, rounded
from adjode.status import SolveError

if TYPE_CHECKING:
    import pandas

_STEP = 0.5  # of the quantile, by which the root is to rise from point to point
_MOST_POINTS = 25  # on each side
_FAR = 30.0  # times the distance that a linear model has: a side that is open so far is open
_SECANTS = 8
_EXACT = 1e-8  # of the quantile, to which the end of an interval is found,
_BY_GRADIENTS = 1e-5  # and without residuals
_LOWER = 1e-6  # by what part a loss must be below the minimum to be another,
_LOWER_BY_GRADIENTS = 1e-4  # and by how much without residuals
_HALVINGS = 6
_TOLERANCES = {"xtol": 1e-12, "ftol": 1e-14, "gtol": 1e-12}


@dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """Profiles of some entries; `str()` gives a table.

    Attributes
    ----------
    names : list of str
    level : float
    values : dict of name -> (p,) array
        Where the entry was held, increasing, in natural units; the estimate is among them.
    losses : dict of name -> (p,) array
        The lowest losses there.
    roots : dict of name -> (p,) array
        The signed roots of their rises, in standard deviations of a residual.
    quantile : float
        The quantile of Student's t at which the root ends an interval.
    intervals : dict of name -> (low, high)
        Where the root is that quantile; infinite, or 0 on a log scale, if it never reaches it, because the data leave that side
        open. A bound is the end if it comes first.
    is_closed : dict of name -> bool
        Whether both ends are such quantiles.
    """

    names: list[str]
    level: float
    quantile: float
    estimates: dict[str, float]
    values: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]
    roots: dict[str, np.ndarray]
    intervals: dict[str, tuple[float, float]]
    is_closed: dict[str, bool]

    def shown(self, name: str) -> tuple[str, str]:
        """The estimate and the interval of an entry, with as many digits as the interval allows."""
        low, high = self.intervals[name]
        width = min(high - self.estimates[name], self.estimates[name] - low)
        error = width / 2.0 if 0.0 < width < math.inf else abs(self.estimates[name]) / 10.0
        estimate, *ends = (rounded(value, error) for value in (self.estimates[name], low, high))
        return estimate, f"{ends[0]} .. {ends[1]}"

    def __str__(self) -> str:
        rows = [("entry", "estimate", f"{100 * self.level:g}% interval")]
        rows += [(name, *self.shown(name)) for name in self.names]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}" for row in rows)

    def to_frame(self) -> pandas.DataFrame:
        """A row for each entry: its estimate, and the ends of its interval."""
        low, high = np.array([self.intervals[name] for name in self.names]).reshape(-1, 2).T
        columns = {"estimate": [self.estimates[name] for name in self.names], "low": low, "high": high}
        return data_frame(columns, self.names, "entry")


class _Point(NamedTuple):
    value: float  # of the entry, as the optimiser sees it
    root: float
    loss: float
    x: np.ndarray


class Others:
    """The fit of all entries but those that are `held` (k,), a mask, where x (k,) has them."""

    def __init__(self, fit: Fitted, held: np.ndarray, x: np.ndarray):
        self._fit, self._x, self.free = fit, x.copy(), ~held
        self.names = [name for name, free in zip(fit.names, self.free, strict=True) if free]
        self.bounds = [pair for pair, free in zip(fit.bounds, self.free, strict=True) if free]
        low, high = np.array(self.bounds).reshape(-1, 2).T
        self.x0 = np.clip(x[self.free], low, high)

    def whole(self, y: np.ndarray) -> np.ndarray:
        x = self._x.copy()
        x[self.free] = y
        return x

    def evaluate_residuals(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r, J = self._fit.evaluate_residuals(self.whole(x))
        return r, J[:, self.free]


def profile(fit: Fitted, found: Uncertainty, names: list[str], level: float, how: StartOptions) -> Profile:
    """Profiles around the minimum that `found` is of; `how` says what runs them.

    Raises
    ------
    ValueError
        If a name is none of the fit's, or if a lower minimum is found on the way.
    """
    unknown = [name for name in names if name not in fit.names]
    if unknown:
        raise ValueError(f"names must be among {', '.join(fit.names)}, but {unknown[0]!r} was given.")
    start, refit = _at_minimum(fit, found)
    sides = [_Side(fit, found, fit.names.index(name), sign, level, start, refit) for name in names for sign in (-1.0, 1.0)]
    with how.mapping() as mapping:
        run = list(mapping(_run, sides))
    one: dict[str, dict[str, Any]] = {part: {} for part in ("estimates", "values", "losses", "roots", "intervals", "is_closed")}
    for name, below, above in zip(names, run[::2], run[1::2], strict=True):
        k = fit.names.index(name)
        points = [*below.points[:0:-1], *above.points]
        rate = found.rates[k]
        one["estimates"][name] = float(found.values[k])
        one["values"][name] = natural(np.array([point.value for point in points]), rate)
        one["losses"][name] = np.array([point.loss for point in points])
        one["roots"][name] = np.array([point.root for point in points])
        one["is_closed"][name] = below.is_closed and above.is_closed
        one["intervals"][name] = tuple(float(natural(side.end, rate)) for side in (below, above))
    return Profile(names, level, found.quantile(level), **one)


Refit = Callable[[np.ndarray], tuple[np.ndarray, float]]  # from x with an entry held to the least loss, and that


def _at_minimum(fit: Any, found: Uncertainty) -> tuple[_Point, Callable[[int], Refit]]:
    """The minimum, and what fits all others when an entry is held."""
    H, noise = found.hessian, found.noise
    if H is None or noise is None:
        r, _ = fit.evaluate_residuals(found.x)
        return _Point(0.0, 0.0, 0.5 * float(r @ r), found.x), lambda k: _BySquares(fit, k)
    x, loss = Settling(fit, H, np.zeros(found.x.size, dtype=bool), noise)(found.x)
    return _Point(0.0, 0.0, loss, x), lambda k: Settling(fit, H, np.arange(x.size) == k, noise)


class _BySquares:
    """The fit of all entries but one by least squares."""

    def __init__(self, fit: Fitted, k: int):
        self._fit, self._k = fit, k

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        others = Others(self._fit, np.arange(x.size) == self._k, x)
        if others.x0.size:
            result = fit_from(others, others.x0, dict(_TOLERANCES))
            return others.whole(result.x), float(result.cost)
        r, _ = self._fit.evaluate_residuals(x)
        return x, 0.5 * float(r @ r)


def _run(side: _Side) -> _Side:
    side.run()
    return side


class _Side:
    """One side of a profile.

    Attributes
    ----------
    end : float
        Of the interval, as the optimiser sees the entry.
    """

    def __init__(
        self, fit: Fitted, found: Uncertainty, k: int, sign: float, level: float, start: _Point, refit: Callable[[int], Refit]
    ):
        self.fit, self.k, self.sign, self.quantile, self.refit = fit, k, sign, found.quantile(level), refit(k)
        self.least, self.variance = start.loss, 1.0 if found.absolute_sigma else found.residual_variance
        squares = found.hessian is None
        self.lowest = start.loss - (_LOWER * start.loss if squares else _LOWER_BY_GRADIENTS)
        self.exact = _EXACT if squares else _BY_GRADIENTS
        self.points = [start._replace(value=start.x[k])]
        self.reach = self.quantile * float(found.standard_errors_of_x[k])
        self.step = _STEP * self.reach
        self.bound = fit.bounds[k][1 if sign > 0.0 else 0]
        self.end, self.is_closed = sign * math.inf, False

    def run(self) -> None:
        """Take the points, from the minimum outwards."""
        while len(self.points) <= _MOST_POINTS:
            last = self.points[-1]
            if abs(last.value - self.points[0].value) > _FAR * self.reach:
                break
            value = last.value + self.sign * self.step
            at_bound = self.sign * (value - self.bound) >= 0.0
            point = self._next(self.bound if at_bound else value)
            self.points.append(point)
            if abs(point.root) >= self.quantile:
                self.end, self.is_closed = self._crossing(last, point), True
                break
            if point.value == self.bound:
                self.end = self.bound
                break
            rise = max(abs(point.root) - abs(last.root), 0.1 * _STEP * self.quantile)
            self.step = abs(point.value - last.value) * min(max(_STEP * self.quantile / rise, 0.5), 3.0)

    def _next(self, value: float) -> _Point:
        """The point there or, where solves fail, nearer."""
        last = self.points[-1]
        for halved in range(_HALVINGS + 1):
            try:
                return self._point(last.value + (value - last.value) * 0.5**halved)
            except SolveError:
                if halved == _HALVINGS:
                    raise
        raise AssertionError

    def _point(self, value: float) -> _Point:
        x, loss = self.refit(self._extrapolated(value))
        if loss < self.lowest:
            raise ValueError(
                f"the profile of {self.fit.names[self.k]} finds a loss of {loss:.6g}, and the minimum has {self.least:.6g}: fit "
                f"again, from x = {x.tolist()}."
            )
        return _Point(value, self.sign * math.sqrt(2.0 * max(loss - self.least, 0.0) / self.variance), loss, x)

    def _extrapolated(self, value: float) -> np.ndarray:
        """A guess with the others, from the last two points."""
        last, x = self.points[-1], self.points[-1].x.copy()
        x[self.k] = value
        if len(self.points) < 2 or last.value == self.points[-2].value:
            return self.refit.guess(last.x, x) if isinstance(self.refit, Settling) else x
        before, others = self.points[-2], np.arange(x.size) != self.k
        x[others] += (last.x - before.x)[others] * (value - last.value) / (last.value - before.value)
        low, high = np.array(self.fit.bounds).T
        return np.where(others, np.clip(x, low, high), x)

    def _crossing(self, inner: _Point, outer: _Point) -> float:
        """Where the root is the quantile, between two points: by secants that keep both sides."""
        for _ in range(_SECANTS):
            part = (self.quantile - abs(inner.root)) / (abs(outer.root) - abs(inner.root))
            value = inner.value + part * (outer.value - inner.value)
            point = self._point(value)
            if abs(abs(point.root) - self.quantile) <= self.exact * self.quantile:
                return value
            inner, outer = (point, outer) if abs(point.root) < self.quantile else (inner, point)
        return value
