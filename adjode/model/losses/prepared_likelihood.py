"""`Likelihood` made ready for many calls: what is observed, its scales and densities, and what these owe to states and theta."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.model.losses import densities
from adjode.model.losses.observed import (
    PreparedObserved,
    copy_components,
    fill,
    make_add_bars,
    make_observe,
    make_predict,
    make_pull,
    matters,
    pull_to_components,
)
from adjode.model.losses.own_densities import with_own
from adjode.model.losses.prepared import clear_jumps, finish, loss_entry
from adjode.model.losses.residuals import Residuals
from adjode.model.losses.rule import Numbers, Rule
from adjode.status import SolveError, Status


class PreparedLikelihood(PreparedObserved):
    def __init__(self, loss: Any, n: int, times: np.ndarray, *, as_given: bool = False):
        c = len(loss.noise)
        super().__init__(loss, n, times, c, as_given=as_given)
        frame, shape = self.frame, loss.data.shape
        frame[slots.DATA], frame[slots.SCALES] = loss.data, loss.scales.copy()
        for slot in (slots.RESULTS, slots.RESULTS_BAR, slots.SCALES_BAR):
            frame[slot] = np.zeros(shape)
        frame[slots.COUNTED_SINCE] = loss.previous.astype(np.int64)
        components = np.zeros(0, dtype=np.int64) if loss.of is not None else loss.components.astype(np.int64)
        if components.size and components.max() >= n:
            raise ValueError(f"components go up to {components.max()}, but the state has {n} components.")
        frame[slots.COMPONENTS] = components
        shapes = [1.0 if one.shape is None or isinstance(one.shape, str) else float(one.shape) for one in loss.noise]
        frame[slots.COLUMN_NUMBERS] = np.array([[one.factor for one in loss.noise], shapes])
        frame[slots.CONSTANT], frame[slots.OF_DATUM] = np.array([loss.constant]), np.zeros(3)

    def observe(self, observed: np.ndarray, theta: np.ndarray) -> None:
        super().observe(observed, theta)
        loss = self.loss
        entries = loss.entries(theta.size)
        entries[0, [callable(one.scale) for one in loss.noise]] = _BY_FUNCTION
        self.frame[slots.DENSITIES] = np.vstack([[loss.densities], entries]).astype(np.int64).ravel()

    def try_calls(self, u: np.ndarray, theta: np.ndarray) -> None:
        self.loss.entries(theta.size)
        for rule in self.rules:
            if rule in self.loss.density_rules:
                self.try_rule(rule, [{"k": k, "d": self.loss.data[k, c]} for k, c in self.of_own(rule)], np.ones(1), theta)
            else:
                self.try_rule(rule, self.observations, u, theta)

    def of_own(self, rule: Rule) -> np.ndarray:
        """The rows and columns (r, 2) of the data whose density this is."""
        loss = self.loss
        return np.argwhere(~loss.missing & (np.array(loss.densities) == densities.OWN + loss.density_rules.index(rule)))

    def _said(self, k: int, c: int) -> float:
        """What the model says of a datum, in the last run."""
        y, before = self.frame[slots.RESULTS], self.loss.previous[k]
        return float(y[k, c] - (y[before, c] if before >= 0 else 0.0))

    def given(self, rule: Rule) -> list[tuple[Numbers, np.ndarray]]:
        if rule not in self.loss.density_rules:
            return super().given(rule)
        return [({"k": k, "d": self.loss.data[k, c]}, np.array([self._said(k, c)])) for k, c in self.of_own(rule)]

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return likelihood_entry(self.rule, self.loss.scale_rule, tuple(self.loss.density_rules))

    @functools.cached_property
    def squares(self) -> Residuals:
        loss = self.loss
        return Residuals(self, loss.rule, loss.missing, 1.0 / loss.scales, [one.of_logarithm for one in loss.noise], loss.previous)

    def explain(self) -> None:
        loss = self.loss
        scales = self.frame[slots.SCALES]
        for k, c in np.argwhere(~loss.missing):
            one, t, value = loss.noise[c], float(loss.t_obs[k]), self._said(k, c)
            what, found = None, 0.0
            if one.scale_name is not None and not scales[k, c] > 0.0:
                what, found = f"the {one.scale_name} of {loss.column_name(c)}", scales[k, c] / one.factor
            elif (one.of_logarithm or one.of_counts) and not value > 0.0 and not value == loss.data[k, c] == 0.0:
                what, found = f"the prediction of {loss.column_name(c)}", value
            if what is not None:
                message = f"{type(one).__name__} noise needs a positive number, but {what} is {found:.3g} at t = {t:g}."
                raise SolveError(message, phase="loss", status=Status.NON_FINITE, t=t)
        for rule in loss.density_rules:
            self._explain_own(rule)
        super().explain()

    def _explain_own(self, rule: Rule) -> None:
        """Raise a SolveError where a density of the user's own is not finite."""
        for (k, c), (numbers, y) in zip(self.of_own(rule), self.given(rule), strict=True):
            value = np.full(1, math.nan)
            with np.errstate(all="ignore"):
                rule.raise_again(numbers, y, self.theta, 1)
                rule.function(numbers["d"], y, self.theta, value)
            if not math.isfinite(value[0]):
                t, what = float(self.loss.t_obs[k]), self.loss.column_name(c)
                message = f"the density of {what} at t = {t:g} is {value[0]}, where y = {y[0]:.6g} and d = {numbers['d']:.6g}."
                raise SolveError(message, phase="loss", status=Status.NON_FINITE, t=t)


_BY_FUNCTION = -2  # in DENSITIES, for an entry of theta


@kernel
def _scales_of_theta(frame):
    """The scales that are entries of theta."""
    scales, entries, theta, numbers = slots.SCALES(frame), slots.DENSITIES(frame), slots.THETA(frame), slots.COLUMN_NUMBERS(frame)
    width = scales.shape[1]
    for c in range(width):
        entry = entries[width + c]
        if entry >= 0:
            for k in range(scales.shape[0]):
                scales[k, c] = numbers[0, c] * theta[entry]
    return False


@kernel
def _no_function(frame):
    return False


@kernel
def _densities(frame):
    """Minus the logarithms of all densities; their derivatives by results and scales, and by shapes that are entries of theta."""
    data, results, scales = slots.DATA(frame), slots.RESULTS(frame), slots.SCALES(frame)
    of_results, of_scales, kinds = slots.RESULTS_BAR(frame), slots.SCALES_BAR(frame), slots.DENSITIES(frame)
    numbers, theta, direct = slots.COLUMN_NUMBERS(frame), slots.THETA(frame), slots.DIRECT(frame)
    previous, total, width = slots.COUNTED_SINCE(frame), 0.0, data.shape[1]
    for k in range(data.shape[0]):
        for c in range(width):
            of_results[k, c] = of_scales[k, c] = 0.0
    for k in range(data.shape[0]):
        for c in range(width):
            if math.isnan(data[k, c]) or kinds[c] >= densities.OWN:  # missing, or added up elsewhere
                continue
            entry, y, shape = kinds[2 * width + c], results[k, c], numbers[1, c]
            if entry >= 0:
                shape = theta[entry]
            if previous[k] >= 0:
                y -= results[previous[k], c]
            value, by_y, by_scale, by_shape = densities.negative_log(kinds[c], y, data[k, c], scales[k, c], shape)
            total += value
            of_results[k, c] += by_y
            of_scales[k, c] = by_scale
            if previous[k] >= 0:
                of_results[previous[k], c] -= by_y
            if entry >= 0:
                direct[entry] += by_shape
    return total


@kernel
def _scales_to_theta(frame):
    """The cotangents of scales that are entries of theta."""
    bars, entries, direct, numbers = (
        slots.SCALES_BAR(frame),
        slots.DENSITIES(frame),
        slots.DIRECT(frame),
        slots.COLUMN_NUMBERS(frame),
    )
    width = bars.shape[1]
    for c in range(width):
        entry = entries[width + c]
        if entry >= 0:
            for k in range(bars.shape[0]):
                direct[entry] += numbers[0, c] * bars[k, c]
    return False


def _scaling(function: Callable) -> Callable:
    observe = make_observe(function)

    @kernel
    def scaling(frame):
        result, failed = slots.RESULT(frame), False
        scales, kinds, numbers = slots.SCALES(frame), slots.DENSITIES(frame), slots.COLUMN_NUMBERS(frame)
        width = scales.shape[1]
        for k in range(slots.ROWS(frame).size):
            failed |= observe(frame, k, result)
            for c in range(width):
                if kinds[width + c] == _BY_FUNCTION:
                    scales[k, c] = numbers[0, c] * result[c]
        return failed

    return scaling


def _scales_pulling(vjp: Callable) -> Callable:
    add_bars = make_add_bars(vjp)

    @kernel
    def scales_pulling(frame):
        bars, bar, failed = slots.SCALES_BAR(frame), slots.RESULT_BAR(frame), False
        kinds, numbers, width = slots.DENSITIES(frame), slots.COLUMN_NUMBERS(frame), bar.size
        for k in range(bars.shape[0]):
            for c in range(width):
                bar[c] = numbers[0, c] * bars[k, c] if kinds[width + c] == _BY_FUNCTION else 0.0
            if matters(bar):
                failed |= add_bars(frame, k, bar)
        return failed

    return scales_pulling


def make_likelihood(predict: Callable, scale: Callable, add_up: Callable, pull: Callable, pull_scale: Callable) -> Callable:
    """Each of them is a kernel of the frame that returns whether it has failed; but `add_up`, which returns minus the sum of all
    logarithms.
    """

    @kernel
    def likelihood(frame):
        clear_jumps(frame)
        fill(slots.DIRECT(frame), 0.0)
        failed = predict(frame)
        failed |= _scales_of_theta(frame)
        failed |= scale(frame)
        total = add_up(frame) + slots.CONSTANT(frame)[0]
        failed |= pull(frame)
        failed |= _scales_to_theta(frame)
        failed |= pull_scale(frame)
        return finish(frame, math.nan if failed else total)

    return likelihood


@functools.lru_cache(maxsize=64)
def likelihood_entry(
    rule: Rule | None = None, scale_rule: Rule | None = None, density_rules: tuple[Rule, ...] = ()
) -> Callable[[Any], int]:
    """The compiled loss; of components of the state without a rule, with scales that are numbers or parameters else."""
    predict, pull, scale, pull_scale = copy_components, pull_to_components, _no_function, _no_function
    keys: list[str | None] = []
    if rule is not None:
        function, vjp = rule.uniform
        predict, pull = make_predict(function), make_pull(vjp)
        keys.append(rule.key)
    if scale_rule is not None:
        function, vjp = scale_rule.uniform
        scale, pull_scale = _scaling(function), _scales_pulling(vjp)
        keys.append(scale_rule.key)
    add_up = with_own(_densities, density_rules)
    keys += [one.key for one in density_rules]
    own = f"-own-{len(density_rules)}" if density_rules else ""
    name = f"likelihood{'-observed' * (rule is not None)}{'-scaled' * (scale_rule is not None)}{own}"
    key = None if None in keys else "-".join(keys)  # type: ignore[arg-type]
    return loss_entry(make_likelihood(predict, scale, add_up, pull, pull_scale), name, key)
