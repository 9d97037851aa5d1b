"""`Span`: between the time of users and callbacks, and that of passes, which count from the start of the solve."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.loops.stops import SPACINGS


class Span:
    """The span of a solve, from t0 to T.

    Attributes
    ----------
    numbers : array
        What kernels know of it, for `slots.TIME_SPAN`.
    """

    def __init__(self, t0: float, T: float):
        self.numbers = slots.TIME_SPAN.fill(origin=t0, earliest=min(t0, T), latest=max(t0, T))

    @property
    def ends(self) -> tuple[float, float]:
        """(t0, T)"""
        origin, earliest, latest = self.numbers.tolist()
        return origin, latest if origin == earliest else earliest

    @property
    def length(self) -> float:
        return float(self.numbers[slots.LATEST] - self.numbers[slots.EARLIEST])

    @property
    def clearance(self) -> float:
        """See `loops.stops.clearance`."""
        return SPACINGS * 2.0**-52 * float(np.max(np.abs(self.ends)))

    def elapsed(self, t: Any) -> np.ndarray:
        """Since the start: of T exactly where a pass ends."""
        return np.asarray(t) - self.numbers[slots.ORIGIN]

    def time(self, elapsed: Any) -> np.ndarray:
        """The reverse, as `compile.times.time_at` has it."""
        return np.clip(self.numbers[slots.ORIGIN] + elapsed, self.numbers[slots.EARLIEST], self.numbers[slots.LATEST])
