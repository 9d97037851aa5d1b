"""Losses that are linear in the states: weights, which are their cotangents."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.model.losses.prepared import PreparedLoss, finish, loss_entry


class PreparedLinear(PreparedLoss):
    """`sum of weights[k] . u(times[k])`, weights (k, n); the times in rising order, T among them, where another may be."""

    data: ClassVar = {slots.DATA_WEIGHTS: "weights"}
    ends_at_T = True

    def __init__(self, loss: Any, n: int, times: np.ndarray, weights: np.ndarray):
        super().__init__(loss, n, times, as_given=True)
        self.frame[slots.DATA_WEIGHTS] = np.ascontiguousarray(weights)

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return linear_entry()


@functools.cache
def make_linear() -> Callable:
    @kernel
    def linear(frame):
        weights, observed, total = slots.DATA_WEIGHTS(frame), slots.OBSERVED(frame), 0.0
        rows, jumps = slots.ROWS(frame), slots.JUMPS(frame)
        for k in range(rows.size):
            for i in range(weights.shape[1]):
                total += weights[k, i] * observed[rows[k], i]
                jumps[rows[k], i] = weights[k, i]
        return finish(frame, total)

    return linear


@functools.cache
def linear_entry() -> Callable[[Any], int]:
    return loss_entry(make_linear(), "linear")
