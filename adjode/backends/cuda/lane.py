"""The lane of a thread: arrays of its own in device memory, one behind the other in a column of one array for all threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from adjode.compile.flags import kernel
from adjode.compile.slot import Slot


@dataclass(frozen=True)
class Part:
    """An array in a lane: `times` * (`fixed` + capacity // `every`) rows, or without `every` as many for any number of steps.

    Attributes
    ----------
    slot : Slot
        Where the frame has it.
    shape : tuple of int
        Of a row.
    """

    slot: Slot
    shape: tuple[int, ...] = ()
    fixed: int = 0
    every: int = 0
    times: int = 1

    @property
    def width(self) -> int:
        return math.prod(self.shape)

    def entries(self, capacity: int) -> int:
        return self.width * self.times * (self.fixed + (capacity // self.every if self.every else 0))


def make_put_parts(put_lane: Callable, parts: tuple[Part, ...]) -> Callable:
    """`put_parts(frame, store, first, lane, capacity) -> first`, the entry behind them: lets a frame have its parts of a lane."""
    if not parts:

        @kernel
        def put_nothing(frame, store, first, lane, capacity):
            return first

        return put_nothing
    part, put_others = parts[0], make_put_parts(put_lane, parts[1:])
    slot, width, times, fixed, every, grows = part.slot, part.width, part.times, part.fixed, max(part.every, 1), part.every > 0

    @kernel
    def put_parts(frame, store, first, lane, capacity):
        length = times * (fixed + (capacity // every if grows else 0))
        put_lane(frame, slot, store, first, lane, length)
        return put_others(frame, store, first + length * width, lane, capacity)

    return put_parts
