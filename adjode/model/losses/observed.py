"""Losses of what a function makes of state and parameters at each observation: their buffers, and the kernel that runs them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import row
from adjode.model.losses.prepared import PreparedLoss, clear_jumps, finish, loss_entry
from adjode.model.losses.rule import Numbers, Rule


class PreparedObserved(PreparedLoss):
    """A loss of `y_k = function(k, t_k, u(t_k), theta)`, (c,), with its derivatives by the states and by theta.

    Parameters
    ----------
    loss, n, times, as_given
        As for `PreparedLoss`; the loss has a `rule`.
    c : int
        How many numbers the function makes.
    """

    def __init__(self, loss: Any, n: int, times: np.ndarray, c: int = 1, *, as_given: bool = False):
        super().__init__(loss, n, times, as_given=as_given)
        self.rule: Rule = loss.rule
        self.rules: list[Rule] = loss.rules
        self.c = c
        self.frame[slots.RESULT], self.frame[slots.RESULT_BAR] = np.zeros(c), np.zeros(c)

    def observe(self, observed: np.ndarray, theta: np.ndarray) -> None:
        super().observe(observed, theta)
        self.frame[slots.THETA] = self.theta = theta
        self.frame[slots.THETA_BAR] = np.zeros_like(theta)
        self.theta_bar = self.frame[slots.DIRECT] = np.zeros_like(theta)

    @property
    def observations(self) -> list[Numbers]:
        """k and t of each."""
        return [{"k": k, "t": t} for k, t in enumerate(self.frame[slots.TIMES].tolist())]

    def given(self, rule: Rule) -> list[tuple[Numbers, np.ndarray]]:
        """What a rule's function was given at each observation in the last run, but theta: numbers and the state."""
        return list(zip(self.observations, self.observed[self.rows], strict=True))

    def calls(self, rule: Rule) -> list[tuple[tuple[float, ...], np.ndarray]]:
        """The same with the numbers in the order of the arguments."""
        return [(tuple(numbers[name] for name in rule.function.kind.numbers), u) for numbers, u in self.given(rule)]

    def try_calls(self, u: np.ndarray, theta: np.ndarray) -> None:
        for rule in self.rules:
            self.try_rule(rule, self.observations, u, theta)

    def try_rule(self, rule: Rule, observations: list[Numbers], u: np.ndarray, theta: np.ndarray) -> None:
        rule.try_calls(observations, u, theta, self.c, type(self.loss).__name__)

    def evaluate(self, solution: Any) -> tuple[float, dict[str, Any]]:
        self.try_calls(solution.u[-1], solution.theta)
        return super().evaluate(solution)

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return observed_entry(self.rule, value_alone)

    def explain(self) -> None:
        for rule in self.rules:
            for numbers, u in self.given(rule):
                rule.raise_again(numbers, u, self.theta, self.c)
        super().explain()


@kernel
def fill(array, x):
    for i in range(array.size):
        array[i] = x


@kernel
def add(array, total):
    for i in range(array.size):
        total[i] += array[i]


@kernel
def matters(result_bar):
    """Whether any entry is not zero, or is NaN."""
    matters = False
    for c in range(result_bar.size):
        matters |= result_bar[c] != 0.0
    return matters


def make_add_bars(vjp: Callable) -> Callable:
    @kernel
    def add_bars(frame, k, result_bar):
        """Pull the cotangent of what is observed at k back; the status of the callback."""
        jumps, at, t = slots.JUMPS(frame), slots.ROWS(frame)[k], slots.TIMES(frame)[k]
        u_bar, theta_bar = slots.U_BAR(frame), slots.THETA_BAR(frame)
        fill(u_bar, math.nan)  # an entry that a callback forgets must not pass as zero
        fill(theta_bar, math.nan)
        status = vjp(k, t, row(slots.OBSERVED(frame), at), slots.THETA(frame), result_bar, u_bar, theta_bar)
        add(u_bar, row(jumps, at))
        add(theta_bar, slots.DIRECT(frame))
        return status

    return add_bars


def make_observed(function: Callable, vjp: Callable, outer: Callable) -> Callable:
    """`outer(frame, k) -> float` is what observation k adds to the loss by what is RESULT, and writes RESULT_BAR."""
    add_bars = make_add_bars(vjp)

    @kernel
    def observed(frame):
        total, failed = 0.0, False
        times, rows, result = slots.TIMES(frame), slots.ROWS(frame), slots.RESULT(frame)
        clear_jumps(frame)
        fill(slots.DIRECT(frame), 0.0)
        for k in range(rows.size):
            fill(result, math.nan)
            failed |= function(k, times[k], row(slots.OBSERVED(frame), rows[k]), slots.THETA(frame), result) != 0
            total += outer(frame, k)
            if matters(slots.RESULT_BAR(frame)):
                failed |= add_bars(frame, k, slots.RESULT_BAR(frame)) != 0
        return finish(frame, math.nan if failed else total)

    return observed


def make_predict(function: Callable) -> Callable:
    @kernel
    def observing(frame):
        times, rows, results, failed = slots.TIMES(frame), slots.ROWS(frame), slots.RESULTS(frame), False
        for k in range(rows.size):
            result = row(results, k)
            fill(result, math.nan)
            failed |= function(k, times[k], row(slots.OBSERVED(frame), rows[k]), slots.THETA(frame), result) != 0
        return failed

    return observing


def make_pull(vjp: Callable) -> Callable:
    add_bars = make_add_bars(vjp)

    @kernel
    def pulling(frame):
        bars, failed = slots.RESULTS_BAR(frame), False
        for k in range(bars.shape[0]):
            if matters(row(bars, k)):
                failed |= add_bars(frame, k, row(bars, k)) != 0
        return failed

    return pulling


@kernel
def copy_components(frame):
    results, rows, components = slots.RESULTS(frame), slots.ROWS(frame), slots.COMPONENTS(frame)
    for k in range(rows.size):
        for c in range(components.size):
            results[k, c] = slots.OBSERVED(frame)[rows[k], components[c]]
    return False


@kernel
def pull_to_components(frame):
    bars, rows, components = slots.RESULTS_BAR(frame), slots.ROWS(frame), slots.COMPONENTS(frame)
    for k in range(rows.size):
        for c in range(components.size):
            slots.JUMPS(frame)[rows[k], components[c]] += bars[k, c]
    return False


def make_linearised(function: Callable, vjp: Callable) -> Callable:
    """The kernel that writes RESULTS, and their derivatives: a vjp for each of them; whether one has failed."""

    @kernel
    def linearised(frame):
        times, rows, unit, theta = slots.TIMES(frame), slots.ROWS(frame), slots.RESULT_BAR(frame), slots.THETA(frame)
        results, of_u, of_theta = slots.RESULTS(frame), slots.RESULTS_U(frame), slots.RESULTS_THETA(frame)
        failed = False
        fill(unit, 0.0)
        for k in range(rows.size):
            u, result = row(slots.OBSERVED(frame), rows[k]), row(results, k)
            fill(result, math.nan)
            failed |= function(k, times[k], u, theta, result) != 0
            for c in range(unit.size):
                u_bar, theta_bar = row(of_u, k * unit.size + c), row(of_theta, k * unit.size + c)
                fill(u_bar, math.nan)  # an entry that a callback forgets must not pass as zero
                fill(theta_bar, math.nan)
                unit[c] = 1.0
                failed |= vjp(k, times[k], u, theta, unit, u_bar, theta_bar) != 0
                unit[c] = 0.0
        return failed

    return linearised


@kernel
def value_alone(frame, k):
    slots.RESULT_BAR(frame)[0] = 1.0
    return slots.RESULT(frame)[0]


@functools.lru_cache(maxsize=64)
def observed_entry(rule: Rule, outer: Callable) -> Callable[[Any], int]:
    """The compiled loss."""
    name = f"observed-{getattr(outer, 'py_func', outer).__name__}"
    return loss_entry(make_observed(*rule.uniform, outer), name, rule.key)
