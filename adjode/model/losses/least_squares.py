"""`LeastSquares`: residuals of observations, weighted and squared."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from adjode.checks import float_vector
from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.frame import Frame
from adjode.model.losses.data import smallest_sizes, unmasked
from adjode.model.losses.loss import States, blamed, loss_at
from adjode.model.losses.members import MemberData
from adjode.model.losses.observed import PreparedObserved, observed_entry
from adjode.model.losses.prepared import PreparedLoss, clear_jumps, finish, loss_entry
from adjode.model.losses.residuals import Residuals, residual
from adjode.model.losses.rule import Rule, WithRule
from adjode.status import SolveError, Status

_HIDDEN = 0.1  # standard deviations


class LeastSquares(WithRule, MemberData):
    """`0.5 sum(((y(t_obs) - y_obs) / sigma)**2)`, optionally of logarithms; y are components of the state, or what `observe`
    computes.

    Entries of `y_obs` that are NaN or masked are missing data and left out.

    Parameters
    ----------
    t_obs : (k,) array
        Observation times, in any order.
    y_obs : (k, c) array, or (k,) for one component
        Observations of c components of the state; (N, k, c) if each member of an ensemble has its own.
    sigma : float or array that broadcasts to y_obs
        Standard deviation of the observations (of their logarithms, with `log=True`).
    components : sequence of c ints, optional
        Which components of the state were observed; the first c by default.
    log : bool
        Compare log(y) with log(y_obs): the residuals of log-normal errors.
    observe : callable or pair of callables, optional
        What was observed, if not components of the state: `observe(t, u, theta, y)` overwrites y (c,), or `observe(t, u, theta)`
        returns it. It is compiled. Its derivatives by u and theta are derived from its source, as those of f are, and compared with
        differences. Or give them, as `(observe, observe_vjp)`, where `observe_vjp(t, u, theta, y_bar, u_bar, theta_bar)` overwrites
        the last two. `t` counts as data.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.
    SolveError
        With `log=True`, if a value to be compared is not positive.
    """

    option = kind = "observe"
    is_sum_of_squares = True

    def __init__(
        self,
        t_obs: Any,
        y_obs: Any,
        *,
        sigma: Any = 1.0,
        components: Any = None,
        log: bool = False,
        observe: Callable | tuple[Callable, Callable] | None = None,
    ):
        if observe is not None:
            if components is not None:
                raise ValueError("give either components or observe, which says what was observed.")
            self._take(observe)
        self.t_obs = float_vector("t_obs", t_obs)
        y_obs, sigma = unmasked(y_obs, sigma)
        y = np.asarray(y_obs)
        if y.dtype.kind not in "fiub":
            raise TypeError(f"y_obs must hold real numbers, but its dtype is {y.dtype}.")
        y = np.array(y[:, None] if y.ndim == 1 else y, dtype=float)
        if y.ndim not in (2, 3) or y.shape[-2] != self.t_obs.size:
            raise ValueError(
                f"y_obs must have one row for each of the {self.t_obs.size} times, but its shape is {np.shape(y_obs)}."
            )
        if np.isinf(y).any() or (log and (y <= 0).any()):
            raise ValueError(f"y_obs must be finite{' and positive (log=True)' if log else ''}, or NaN where data is missing.")
        scale = _scale(sigma, np.shape(y_obs), y.shape)
        if y.ndim == 3:
            self.members, self.by_member = len(y), ("y_obs", "missing", *(("weights",) if scale.ndim == 3 else ()))
        self.components = np.arange(y.shape[-1]) if components is None else np.array(components)
        if self.components.dtype.kind not in "iu" or self.components.shape != (y.shape[-1],):
            raise ValueError(
                f"components must be {y.shape[-1]} integers, one for each column of y_obs, but {components!r} was given."
            )
        if np.unique(self.components).size != self.components.size or (self.components < 0).any():
            raise ValueError(f"components must be different and not negative, but {components!r} was given.")
        self.missing = np.isnan(y)
        self.log = log
        self.y_obs = np.ascontiguousarray(np.log(y) if log else y)
        self.weights = np.ascontiguousarray(1.0 / scale)

    def sizes_of_states(self) -> tuple[np.ndarray, np.ndarray]:
        """The states that are compared with data (c,), and how small these are, (c,) or (N, c)."""
        if self.of is not None:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        return self.components, smallest_sizes(np.exp(self.y_obs) if self.log else self.y_obs, 1.0 / self.weights)

    def warn_of_tolerances(self, atol: np.ndarray, t0: float, names: Sequence[str], stacklevel: int) -> None:
        """Warn if errors of a state as large as its absolute tolerance, atol (n,), would show beside the standard deviations."""
        if self.of is not None:
            return
        size = np.exp(self.y_obs) if self.log else 1.0
        late = self.t_obs != t0  # at t0 the state has no error
        with np.errstate(all="ignore"):
            ratios = np.where(~self.missing & late[:, None], atol[self.components] * self.weights / size, 0.0)
        if not ratios.size or not ratios.max() > _HIDDEN:
            return
        *_, k, c = np.unravel_index(np.argmax(ratios), ratios.shape)
        name, value = names[self.components[c]], atol[self.components[c]]
        compared = f"the logarithm of {name}" if self.log else name
        allowed = f"atol = {value:.3g} allows errors of {ratios.max():.2g} standard deviations"
        warnings.warn(
            f"the loss compares {compared} at t = {self.t_obs[k]:g}, where {allowed}, whatever rtol is: use an atol of at most "
            f"{value / ratios.max() * _HIDDEN:.1g} for it (atol may have an entry for each state).",
            RuntimeWarning,
            stacklevel=stacklevel,
        )

    def prepare(self, n: int, T: float) -> PreparedLoss:
        return self._prepared(n)

    def value_and_cotangents(self, solution: States) -> tuple[float, dict[str, Any]]:
        return loss_at(solution, self)._prepared(solution.u.shape[1], as_given=True).evaluate(solution)

    def _prepared(self, n: int, *, as_given: bool = False) -> PreparedLoss:
        self._require_one()
        if self.of is not None:
            return _PreparedObserved(self, n, self.t_obs, as_given=as_given)
        if self.components.size and self.components.max() >= n:
            raise ValueError(f"components go up to {self.components.max()}, but the state has {n} components.")
        return PreparedLeastSquares(self, n, self.t_obs, as_given=as_given)


def _scale(sigma: Any, given: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Standard deviations of data of this shape, that were given in another; (k, c) where the members of an ensemble share them."""
    own = len(shape) < 3 or (np.ndim(sigma) == 3 and len(sigma) == shape[0])
    try:
        scale = np.broadcast_to(np.asarray(sigma, dtype=float), given).reshape(shape)
        scale = scale if own else np.broadcast_to(np.asarray(sigma, dtype=float), shape[1:])
    except (ValueError, TypeError):
        raise ValueError(
            f"sigma must be a number or broadcast to the shape {given} of y_obs, but its shape is {np.shape(sigma)}."
        ) from None
    if not (scale > 0).all():
        raise ValueError(f"sigma must be positive, but {scale[~(scale > 0)][0]:g} is among its values.")
    return scale


_DATA = {slots.DATA: "y_obs", slots.DATA_WEIGHTS: "weights"}


def _put_data(frame: Frame, loss: LeastSquares) -> None:
    frame[slots.DATA], frame[slots.DATA_WEIGHTS] = loss.y_obs, loss.weights
    frame[slots.LOGARITHMS] = np.array([loss.log], dtype=np.int64)


def _residuals(prepared: PreparedLoss, rule: Rule | None) -> Residuals:
    loss = prepared.loss
    return Residuals(prepared, rule, loss.missing, loss.weights, loss.log)


class PreparedLeastSquares(PreparedLoss):
    data: ClassVar = _DATA

    def __init__(self, loss: LeastSquares, n: int, times: np.ndarray, *, as_given: bool):
        super().__init__(loss, n, times, as_given=as_given)
        _put_data(self.frame, loss)
        self.frame[slots.COMPONENTS] = loss.components.astype(np.int64)

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return least_squares_entry()

    @functools.cached_property
    def squares(self) -> Residuals:
        return _residuals(self, None)

    def explain(self) -> None:
        if self.loss.log:
            self._require_positive()
        super().explain()

    def _require_positive(self) -> None:
        u = self.observed[self.rows][:, self.loss.components]
        bad = np.argwhere(~(u > 0) & ~self.loss.missing)
        if not bad.size:
            return
        k, c = (int(i) for i in bad[0])
        t, found = float(self.loss.t_obs[k]), blamed(self.loss, int(self.loss.components[c]))
        raise SolveError(
            f"the loss compares logarithms, but {found['name']} is {u[k, c]:.3g} at t = {t:g}.",
            phase="loss",
            status=Status.NON_FINITE,
            t=t,
            component=found["component"],
        )


class _PreparedObserved(PreparedObserved):
    data: ClassVar = _DATA

    def __init__(self, loss: LeastSquares, n: int, times: np.ndarray, *, as_given: bool):
        super().__init__(loss, n, times, loss.y_obs.shape[1], as_given=as_given)
        _put_data(self.frame, loss)

    @functools.cached_property
    def squares(self) -> Residuals:
        return _residuals(self, self.rule)

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return observed_entry(self.rule, squares)

    def explain(self) -> None:
        if self.loss.log:
            self._require_positive()
        super().explain()

    def _require_positive(self) -> None:
        for k, (numbers, u) in enumerate(self.calls(self.rule)):
            y = np.full(self.loss.y_obs.shape[1], np.nan)
            self.rule.function(*numbers, u.copy(), self.theta, y)
            bad = np.flatnonzero(~(y > 0) & ~self.loss.missing[k])
            if bad.size:
                c, t = int(bad[0]), float(self.loss.t_obs[k])
                message = f"the loss compares logarithms, but y[{c}] is {y[c]:.3g} at t = {t:g}."
                raise SolveError(message, phase="loss", status=Status.NON_FINITE, t=t)


@kernel
def compared(frame, k, c, y):
    """The square that y adds, and half its derivative."""
    r, scale = residual(frame, k, c, y)
    return r * r, r * scale


@kernel
def squares(frame, k):
    """Half the squares of observation k, of what is RESULT."""
    total, result, result_bar = 0.0, slots.RESULT(frame), slots.RESULT_BAR(frame)
    for c in range(result.size):
        square, result_bar[c] = compared(frame, k, c, result[c])
        total += 0.5 * square
    return total


@functools.cache
def make_least_squares() -> Callable:
    @kernel
    def least_squares(frame):
        total, observed, jumps = 0.0, slots.OBSERVED(frame), slots.JUMPS(frame)
        rows, components = slots.ROWS(frame), slots.COMPONENTS(frame)
        clear_jumps(frame)
        for k in range(rows.size):
            for c in range(components.size):
                number, slope = compared(frame, k, c, observed[rows[k], components[c]])
                jumps[rows[k], components[c]] += slope
                total += number
        return finish(frame, 0.5 * total)

    return least_squares


@functools.cache
def least_squares_entry() -> Callable[[Any], int]:
    return loss_entry(make_least_squares(), "least_squares")
