"""How the directions of a block lie: one behind the other, or laced, WIDTH of them side by side for each state.

A block is a vector. Entry i of direction d is at `place_of(d, n, width) + i width`.
"""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import kernel


@kernel
def is_laced(frame):
    """Whether blocks of directions are laced."""
    return slots.WIDTH(frame)[0] > 1


@kernel
def place_of(d, n, width):
    """Where direction d of n entries begins in a block."""
    return (d // width) * n * width + d % width


@kernel
def lace(frame, block, laced, n, width):
    """From directions of n entries one behind the other to so many side by side."""
    for d in range(slots.THETA_DOTS(frame).shape[0]):
        first = place_of(d, n, width)
        for i in range(n):
            laced[first + i * width] = block[d * n + i]


@kernel
def unlace(frame, laced, block, n, width):
    """And back."""
    for d in range(slots.THETA_DOTS(frame).shape[0]):
        first = place_of(d, n, width)
        for i in range(n):
            block[d * n + i] = laced[first + i * width]
