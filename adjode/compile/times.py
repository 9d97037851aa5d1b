"""Time as passes count it, from the start of the solve, and as callbacks see it.

Near t0 the numbers that count from there are dense, however late t0 is: steps may be far below the spacing of numbers at t0.
"""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import exact_kernel


@exact_kernel
def time_at(frame, elapsed):
    """The time of a callback: inside the span, whatever rounding has made of a stage at its end."""
    span = slots.TIME_SPAN(frame)
    t = span[slots.ORIGIN] + elapsed
    t = span[slots.EARLIEST] if t < span[slots.EARLIEST] else t
    return span[slots.LATEST] if t > span[slots.LATEST] else t
