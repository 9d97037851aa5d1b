"""`Residuals`: those of a loss that is half the sum of their squares, and their derivatives, in compiled code."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from adjode.compile import slots
from adjode.compile.finite import all_finite
from adjode.compile.flags import kernel
from adjode.compile.frame import Frame
from adjode.compile.views import flat, row
from adjode.model.losses.observed import (
    copy_components,
    fill,
    make_linearised,
    make_predict,
    make_pull,
    pull_to_components,
)
from adjode.model.losses.prepared import PreparedLoss, clear_jumps, finish, loss_entry
from adjode.model.losses.rule import Rule
from adjode.status import NON_FINITE, SUCCESS


class Residuals:
    """
    Parameters
    ----------
    prepared : PreparedLoss
        Which observes; with DATA in its frame, and COMPONENTS where there is no rule.
    rule : Rule or None
        What is observed, where that is not components of the state.
    missing : (k, c) array of bool
    weights : (k, c) array
        1/sigma.
    logarithms : (1,) or (c,) array of bool
        Whether logarithms are compared, or in which columns.
    since : (k,) array of int, optional
        The observation since which one is counted, or -1.

    Attributes
    ----------
    count : int
        N, the number of data that are not missing; residuals are in their order, by rows.
    r : (N,) array
        The residuals of the last run of either kernel.
    """

    def __init__(
        self,
        prepared: PreparedLoss,
        rule: Rule | None,
        missing: np.ndarray,
        weights: np.ndarray,
        logarithms: Any,
        since: np.ndarray | None = None,
    ):
        self._there, self._rule, self._prepared, frame = ~missing, rule, prepared, prepared.frame
        self.count, (k, c) = np.count_nonzero(self._there), missing.shape
        frame[slots.DATA_WEIGHTS] = np.ascontiguousarray(weights)
        frame[slots.LOGARITHMS] = np.atleast_1d(logarithms).astype(np.int64)
        frame[slots.COUNTED_SINCE] = np.full(k, -1) if since is None else since.astype(np.int64)
        frame[slots.RESULTS], frame[slots.RESULTS_BAR] = np.zeros((k, c)), np.zeros((k, c))
        self.r = frame[slots.RESIDUALS] = np.zeros(self.count)
        self._probe = frame[slots.PROBE] = np.zeros((k, c))

    def probing(self, r_bars: np.ndarray, u_bars: np.ndarray) -> Probing:
        """What writes to `u_bars` (times, n) the cotangents of the states for those of the residuals, `r_bars` (k, c)."""
        self._probe[:] = np.where(self._there, r_bars, 0.0)
        self._prepared.u_bars = self._prepared.frame[slots.JUMPS] = u_bars
        return Probing(probing_entry(self._rule), self._prepared.frame)

    def pull(self, probing: Probing, k: int) -> tuple[int, np.ndarray]:
        """Write what `probing` writes for residual k alone; the status, and the cotangent of theta, (m,) or (0,)."""
        before, unit = self._probe.copy(), np.zeros(self.count)
        unit[k] = 1.0
        self._probe[:] = 0.0
        self._probe[self._there] = unit
        status = probing.entry(probing.frame.argument)
        self._probe[:] = before
        return status, self._prepared.theta_bar

    def reading(self, dots: np.ndarray, width: int, theta_columns: np.ndarray) -> Reading:
        """What writes the residuals down and their tangents in p directions.

        Parameters
        ----------
        dots : (times, p n or more) array
            The tangents of the states, which are read at each run: `width` directions side by side for each state, or with 1 one
            direction behind the other.
        theta_columns : (p,) array of int
            The entry of theta (m,) that changes in each direction, by 1, or m for none.
        """
        frame = self._prepared.frame
        frame[slots.OBSERVED_DOTS], frame[slots.WIDTH] = dots, np.array([width])
        frame[slots.THETA_COLUMNS] = theta_columns.astype(np.int64)
        J = frame[slots.RESIDUAL_DOTS] = np.zeros((self.count, theta_columns.size))
        if self._rule is not None:
            (k, c), n, m = self._there.shape, self._prepared.u_bars.shape[1], frame[slots.THETA].size
            frame[slots.RESULTS_U], frame[slots.RESULTS_THETA] = np.zeros((k * c, n)), np.zeros((k * c, m))
        return Reading(reading_entry(self._rule), frame, self.r, J)


class Probing(NamedTuple):
    """What a program takes for a loss: cotangents that are not those of a value."""

    entry: Callable[[Any], int]
    frame: Frame

    def follow(self, forward: Frame, backward: Frame) -> None:
        """See `PreparedLoss`."""


class Reading(NamedTuple):
    """What a program runs behind tangents: residuals r (N,) and their derivatives J (N, p)."""

    entry: Callable[[Any], int]
    frame: Frame
    r: np.ndarray
    J: np.ndarray


@kernel
def residual(frame, k, c, y):
    """The residual of y, entry c of observation k, and its derivative."""
    datum, weight, logarithms = slots.DATA(frame)[k, c], slots.DATA_WEIGHTS(frame)[k, c], slots.LOGARITHMS(frame)
    if math.isnan(datum):  # missing
        return 0.0, 0.0
    scale = weight
    if logarithms[min(c, logarithms.size - 1)] == 1:
        if not y > 0.0:
            return math.nan, math.nan
        scale, y = weight / y, math.log(y)
    return (y - datum) * weight, scale


@kernel
def _residual_of_results(frame, k, c):
    results, since = slots.RESULTS(frame), slots.COUNTED_SINCE(frame)[k]
    return residual(frame, k, c, results[k, c] - (results[since, c] if since >= 0 else 0.0))


@kernel
def _probe(frame):
    """RESIDUALS, and RESULTS_BAR of PROBE; a number that is finite if all residuals are."""
    r, data, bars, weights = slots.RESIDUALS(frame), slots.DATA(frame), slots.RESULTS_BAR(frame), slots.PROBE(frame)
    since, total, at = slots.COUNTED_SINCE(frame), 0.0, 0
    fill(flat(bars), 0.0)
    for k in range(bars.shape[0]):
        for c in range(bars.shape[1]):
            if math.isnan(data[k, c]):
                continue
            r[at], slope = _residual_of_results(frame, k, c)
            total += 0.0 * r[at]
            bars[k, c] += slope * weights[k, c]
            if since[k] >= 0:
                bars[since[k], c] -= slope * weights[k, c]
            at += 1
    return total


def make_probing(predict: Callable, pull: Callable) -> Callable:
    """`predict` writes RESULTS, `pull` reads RESULTS_BAR; each returns whether a callback has failed."""

    @kernel
    def probing(frame):
        clear_jumps(frame)
        fill(slots.DIRECT(frame), 0.0)
        failed = predict(frame)
        total = _probe(frame)
        failed |= pull(frame)
        return finish(frame, math.nan if failed else total)

    return probing


@kernel
def _push_state(frame, out, k, i, scale):
    """Add the tangents of state i at observation k."""
    width, n, p = slots.WIDTH(frame)[0], slots.OBSERVED(frame).shape[1], out.size
    dots = row(slots.OBSERVED_DOTS(frame), slots.ROWS(frame)[k])
    for first in range(0, p, width):
        for d in range(min(width, p - first)):
            out[first + d] += scale * dots[first * n + i * width + d]


@kernel
def _push_component(frame, out, k, c, scale):
    _push_state(frame, out, k, slots.COMPONENTS(frame)[c], scale)


@kernel
def _push_result(frame, out, k, c, scale):
    """The same of entry c of what the rule observes, from RESULTS_U and RESULTS_THETA."""
    at, columns = k * slots.RESULTS(frame).shape[1] + c, slots.THETA_COLUMNS(frame)
    of_u, of_theta = row(slots.RESULTS_U(frame), at), row(slots.RESULTS_THETA(frame), at)
    for i in range(of_u.size):
        if of_u[i] != 0.0:
            _push_state(frame, out, k, i, scale * of_u[i])
    for d in range(out.size):
        if columns[d] < of_theta.size:
            out[d] += scale * of_theta[columns[d]]


def make_reading(linearise: Callable, push: Callable) -> Callable:
    """`linearise` writes RESULTS, and returns whether a callback has failed; `push(frame, out, k, c, scale)` adds tangents."""

    @kernel
    def reading(frame):
        failed, r, data, at = linearise(frame), slots.RESIDUALS(frame), slots.DATA(frame), 0
        since, J = slots.COUNTED_SINCE(frame), slots.RESIDUAL_DOTS(frame)
        fill(flat(J), 0.0)
        for k in range(data.shape[0]):
            for c in range(data.shape[1]):
                if math.isnan(data[k, c]):
                    continue
                r[at], slope = _residual_of_results(frame, k, c)
                push(frame, row(J, at), k, c, slope)
                if since[k] >= 0:
                    push(frame, row(J, at), since[k], c, -slope)
                at += 1
        return NON_FINITE if failed or not (all_finite(r) and all_finite(flat(J))) else SUCCESS

    return reading


@functools.lru_cache(maxsize=64)
def probing_entry(rule: Rule | None = None) -> Callable[[Any], int]:
    if rule is None:
        return loss_entry(make_probing(copy_components, pull_to_components), "residuals-probed")
    function, vjp = rule.uniform
    return loss_entry(make_probing(make_predict(function), make_pull(vjp)), "residuals-probed-observed", rule.key)


@functools.lru_cache(maxsize=64)
def reading_entry(rule: Rule | None = None) -> Callable[[Any], int]:
    if rule is None:
        return loss_entry(make_reading(copy_components, _push_component), "residuals-read")
    return loss_entry(make_reading(make_linearised(*rule.uniform), _push_result), "residuals-read-observed", rule.key)
