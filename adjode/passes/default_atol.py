"""`DefaultAtol`: absolute tolerances where none are given, which follow what is known of the sizes of states.

An error that is negligible in a state of order one may be all of a state of 1e-8, and no relative tolerance would help. So what a
state is allowed is a small part of what `rtol` allows it where it is as small as at the start of the solve, or as the least of its
data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import exact_kernel

_PART = 1e-3  # of what rtol allows a state of the size that is known
_ROUNDING = float(np.finfo(float).eps)  # of the largest state at the start: a state below that may be zero but for rounding
LEAST_SIZE = 1e-100  # so that there is a scale where a state is zero, and so is its absolute tolerance


@dataclass(frozen=True, eq=False)
class DefaultAtol:
    """
    Attributes
    ----------
    most : float
        What it is for states of order one, and those of which nothing is known.
    components : (c,) array of int
        The states that a loss compares with data,
    sizes : (c,) or (N, c) array
        and how small these are, of each member of an ensemble that has its own; infinite without any.
    """

    most: float = 1e-9
    components: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def beside(self, loss: Any) -> DefaultAtol:
        """The same for a solve whose states this loss compares with data."""
        if self.components.size or not hasattr(loss, "sizes_of_states"):
            return self
        components, sizes = loss.sizes_of_states()
        return replace(self, components=components, sizes=sizes)

    def at_most(self, rtol: float, n: int) -> np.ndarray:
        """That of n states, of whose start nothing is known: (n,) or (N, n)."""
        atol = np.full((*np.shape(self.sizes)[:-1], n), self.most)
        if rtol > 0.0 and self.components.size:
            there = np.less(self.components, n)  # the loss refuses others
            atol[..., self.components[there]] = np.minimum(self.most, _PART * rtol * self.sizes[..., there])
        return atol

    def at(self, rtol: float, u0: np.ndarray) -> np.ndarray:
        """That of a solve from u0 (n,), or of many from (N, n)."""
        atol, sizes = self.at_most(rtol, u0.shape[-1]), np.abs(u0)
        known = sizes > _ROUNDING * np.max(sizes, axis=-1, initial=0.0, keepdims=True)
        return np.where(known & (rtol > 0.0), np.minimum(atol, _PART * rtol * sizes), atol)


def beside_loss(options: Mapping[str, Any], loss: Any) -> dict[str, Any]:
    """The options of a solve, if this loss compares its states with data."""
    atol = DefaultAtol() if options.get("atol") is None else options["atol"]
    return {**options, "atol": atol.beside(loss) if isinstance(atol, DefaultAtol) else atol}


@exact_kernel
def follow_start(frame, floor):
    """`DefaultAtol.at` the state that a pass starts from, if it follows that; and `SolveOptions.least_sizes`, into `floor`."""
    most, start, atol, control = slots.ATOL_AT_MOST(frame), slots.START(frame), slots.ATOL(frame), slots.CONTROL(frame)
    rtol, largest = control[slots.ASKED_RTOL], 0.0
    for i in range(most.size):
        largest = max(largest, abs(start[i]))
    for i in range(most.size):
        allowed, size = most[i], abs(start[i])
        if size > _ROUNDING * largest:
            allowed = min(allowed, _PART * rtol * size)
        atol[i] = allowed * control[slots.PART_OF_ASKED]
        if floor.size > 0:
            floor[i] = max(allowed / rtol, LEAST_SIZE)
