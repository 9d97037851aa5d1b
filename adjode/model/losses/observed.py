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
from adjode.model.losses.rule import Rule


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
    def observations(self) -> list[tuple[int, float]]:
        """k and t of each."""
        return list(enumerate(self.frame[slots.TIMES].tolist()))

    def calls(self, rule: Rule) -> list[tuple[tuple[float, ...], np.ndarray]]:
        """The numbers ahead of the arrays, and the state, that a rule's function was given at each observation in the last run."""
        named = [{"k": k, "t": t} for k, t in self.observations]
        numbers = [tuple(one[name] for name in rule.function.kind.numbers) for one in named]
        return list(zip(numbers, self.observed[self.rows], strict=True))

    def try_calls(self, u: np.ndarray, theta: np.ndarray) -> None:
        for rule in self.rules:
            rule.try_calls(self.observations, u, theta, self.c, type(self.loss).__name__)

    def evaluate(self, solution: Any) -> tuple[float, dict[str, Any]]:
        self.try_calls(solution.u[-1], solution.theta)
        return super().evaluate(solution)

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return observed_entry(self.rule, value_alone)

    def explain(self) -> None:
        for rule in self.rules:
            for (k, t), at in zip(self.observations, self.rows, strict=True):  # which raises what the callback raises
                rule.require_inside(k, t, self.observed[at], self.theta, self.c)
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


@kernel
def value_alone(frame, k):
    slots.RESULT_BAR(frame)[0] = 1.0
    return slots.RESULT(frame)[0]


@functools.lru_cache(maxsize=64)
def observed_entry(rule: Rule, outer: Callable) -> Callable[[Any], int]:
    """The compiled loss."""
    name = f"observed-{getattr(outer, 'py_func', outer).__name__}"
    return loss_entry(make_observed(*rule.uniform, outer), name, rule.key)
