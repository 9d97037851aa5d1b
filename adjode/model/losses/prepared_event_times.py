"""The compiled loss of times of events: it reads what a forward pass has written down of jumps, and writes their cotangents."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from adjode.compile import slots
from adjode.compile.entries import code_address
from adjode.compile.finite import is_finite
from adjode.compile.flags import kernel
from adjode.compile.frame import Frame
from adjode.compile.times import time_at
from adjode.compile.views import call_code
from adjode.model.losses.prepared import PreparedLoss, loss_entry
from adjode.status import NON_FINITE, SUCCESS


class PreparedEventTimes(PreparedLoss):
    """Its times are those of the loss `beside` it, if there is one, and T: lam begins there, since events may be the last."""

    data: ClassVar = {slots.DATA: "times"}
    ends_at_T = True

    def __init__(self, loss: Any, n: int, T: float, beside: PreparedLoss | None):
        inner = np.zeros(0) if beside is None else beside.times
        self._beside, self._own = beside, beside is None or not beside.ends_at_T
        super().__init__(loss, n, np.append(inner, T) if self._own else inner, as_given=True)
        frame = self.frame
        frame[slots.DATA], frame[slots.DATA_WEIGHTS] = loss.times[None].copy(), 1.0 / loss.sigma[None]
        frame[slots.BESIDE], frame[slots.BESIDE_FRAME] = 0, 0
        if beside is None:
            return
        self.theta_bar = beside.theta_bar
        frame[slots.DIRECT], beside.frame[slots.VALUE] = beside.theta_bar, self.value
        beside.value, beside.u_bars = self.value, self.u_bars[: inner.size]
        beside.frame[slots.JUMPS] = beside.u_bars
        if beside.compiled:
            frame[slots.BESIDE], frame[slots.BESIDE_FRAME] = code_address(beside.entry), beside.frame.argument

    @property
    def compiled(self) -> bool:
        return self._beside is None or self._beside.compiled

    def observe(self, observed: np.ndarray, theta: np.ndarray) -> None:
        super().observe(observed, theta)
        if self._beside is not None:
            self._beside.observe(observed[: len(self._beside.u_bars)], theta)

    def try_calls(self, u: np.ndarray, theta: np.ndarray) -> None:
        if self._beside is not None:
            self._beside.try_calls(u, theta)

    def reverse(self) -> None:
        if self._beside is not None:
            self._beside.reverse()
            self.times[: self._beside.times.size] = self._beside.times

    def follow(self, forward: Frame, backward: Frame) -> None:
        for slot in (slots.JUMP_T, slots.JUMP_WHAT, slots.TIME_SPAN):
            self.frame[slot] = forward[slot]
        self.frame[slots.FORWARD_COUNT] = forward[slots.COUNT]
        self.frame[slots.JUMP_BARS] = backward[slots.JUMP_BARS] = np.zeros(forward[slots.JUMP_T].size)

    @property
    def observing(self) -> PreparedLoss:
        return self if self._beside is None else self._beside

    def bind(self, events: Sequence[Any]) -> None:
        self.frame[slots.WHICH] = np.array([float(self.loss.index_in(events))])

    def run(self) -> float:
        if self._beside is None or self.compiled:
            return super().run()
        value = self._beside.run()
        self.value[0] = super().run() + value
        return float(self.value[0])

    @functools.cached_property
    def entry(self) -> Callable[[Any], int]:
        return event_times_entry()


@kernel
def _clear(bars):
    for k in range(bars.size):
        bars[k] = 0.0


@kernel
def _is_seen(times, k):
    return k < times.shape[1] and times[0, k] == times[0, k]


@kernel
def _event_times(frame):
    times, weights, bars, value = slots.DATA(frame), slots.DATA_WEIGHTS(frame), slots.JUMP_BARS(frame), slots.VALUE(frame)
    whats, jump_t, event, occurred, total = slots.JUMP_WHAT(frame), slots.JUMP_T(frame), int(slots.WHICH(frame)[0]), 0, 0.0
    if slots.BESIDE(frame) != 0:
        status = call_code(slots.BESIDE(frame), slots.BESIDE_FRAME(frame))
        if status != SUCCESS:
            return status
        total = value[0]
    _clear(bars)
    for k in range(slots.FORWARD_COUNT(frame)[slots.OCCURRED]):
        if whats[3 * k] == slots.DOSE or whats[3 * k + 1] != event:
            continue
        if _is_seen(times, occurred):
            weight = weights[0, occurred]
            residual = (time_at(frame, jump_t[k]) - times[0, occurred]) * weight
            total += 0.5 * residual * residual
            bars[k] = residual * weight
        occurred += 1
    value[0] = total
    for k in range(occurred, times.shape[1]):
        if _is_seen(times, k):
            return NON_FINITE
    return SUCCESS if is_finite(total) else NON_FINITE


@functools.cache
def event_times_entry() -> Callable[[Any], int]:
    return loss_entry(_event_times, "event times")
