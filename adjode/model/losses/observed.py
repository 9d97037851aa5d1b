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


def make_observe(function: Callable) -> Callable:
    @kernel
    def observe(frame, k, result):
        """Write what is observed at k; whether the callback has failed."""
        fill(result, math.nan)  # an entry that a callback forgets must not pass as what was there
        u = row(slots.OBSERVED(frame), slots.ROWS(frame)[k])
        return function(k, slots.TIMES(frame)[k], u, slots.THETA(frame), result) != 0

    return observe


def make_pull_back(vjp: Callable) -> Callable:
    @kernel
    def pull_back(frame, k, result_bar, u_bar, theta_bar):
        """Pull the cotangent of what is observed at k back to these; whether the callback has failed."""
        fill(u_bar, math.nan)  # as above
        fill(theta_bar, math.nan)
        u = row(slots.OBSERVED(frame), slots.ROWS(frame)[k])
        return vjp(k, slots.TIMES(frame)[k], u, slots.THETA(frame), result_bar, u_bar, theta_bar) != 0

    return pull_back


def make_add_bars(vjp: Callable) -> Callable:
    pull_back = make_pull_back(vjp)

    @kernel
    def add_bars(frame, k, result_bar):
        """The same, added to those of the loss."""
        u_bar, theta_bar = slots.U_BAR(frame), slots.THETA_BAR(frame)
        failed = pull_back(frame, k, result_bar, u_bar, theta_bar)
        add(u_bar, row(slots.JUMPS(frame), slots.ROWS(frame)[k]))
        add(theta_bar, slots.DIRECT(frame))
        return failed

    return add_bars


def make_observed(function: Callable, vjp: Callable, outer: Callable) -> Callable:
    """`outer(frame, k) -> float` is what observation k adds to the loss by what is RESULT, and writes RESULT_BAR."""
    observe, add_bars = make_observe(function), make_add_bars(vjp)

    @kernel
    def observed(frame):
        total, failed = 0.0, False
        clear_jumps(frame)
        fill(slots.DIRECT(frame), 0.0)
        for k in range(slots.ROWS(frame).size):
            failed |= observe(frame, k, slots.RESULT(frame))
            total += outer(frame, k)
            if matters(slots.RESULT_BAR(frame)):
                failed |= add_bars(frame, k, slots.RESULT_BAR(frame))
        return finish(frame, math.nan if failed else total)

    return observed


def make_predict(function: Callable) -> Callable:
    observe = make_observe(function)

    @kernel
    def observing(frame):
        results, failed = slots.RESULTS(frame), False
        for k in range(slots.ROWS(frame).size):
            failed |= observe(frame, k, row(results, k))
        return failed

    return observing


def make_pull(vjp: Callable) -> Callable:
    add_bars = make_add_bars(vjp)

    @kernel
    def pulling(frame):
        bars, failed = slots.RESULTS_BAR(frame), False
        for k in range(bars.shape[0]):
            if matters(row(bars, k)):
                failed |= add_bars(frame, k, row(bars, k))
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

    observe, pull_back = make_observe(function), make_pull_back(vjp)

    @kernel
    def linearised(frame):
        results, of_u, of_theta = slots.RESULTS(frame), slots.RESULTS_U(frame), slots.RESULTS_THETA(frame)
        unit, failed = slots.RESULT_BAR(frame), False
        fill(unit, 0.0)
        for k in range(slots.ROWS(frame).size):
            failed |= observe(frame, k, row(results, k))
            for c in range(unit.size):
                at = k * unit.size + c
                unit[c] = 1.0
                failed |= pull_back(frame, k, unit, row(of_u, at), row(of_theta, at))
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
