"""`SegmentedOutput`: the states of a pass whose steps have not all been kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.checks import times_in_span
from adjode.passes.segments import Segments
from adjode.passes.trajectory import at_jumps, derivatives, evaluate


class SegmentedOutput:
    """The states between the steps of a pass whose steps have not all been kept: they are solved again where they are asked for.

    Attributes
    ----------
    t : (n_steps + 1,) array
    jumps : (k,) array
        See `DenseOutput`.
    """

    def __init__(self, segments: Segments, jumps: np.ndarray):
        self._segments, self._span, self.jumps = segments, segments.forward.span, jumps

    @functools.cached_property
    def t(self) -> np.ndarray:
        return self._span.time(self._segments.t)

    @property
    def steps(self) -> int:
        return self._segments.t.size - 1

    @property
    def u(self) -> np.ndarray:
        """The states at all `t`."""
        return self._segments.states(self._segments.t)

    def __call__(self, t: Any) -> np.ndarray:
        """The state at `t`: (n,) for a scalar, (k, n) for k times, which must lie inside the span."""
        elapsed = self._span.elapsed(times_in_span("t", t, self.t[0], self.t[-1]))
        out = self._read(at_jumps(self._span, self.jumps, elapsed), evaluate)
        return out[0] if np.ndim(t) == 0 else out

    def derivatives(self, elapsed: np.ndarray) -> np.ndarray:
        """See `DenseOutput.derivatives`."""
        return self._read(elapsed, derivatives, vectors=2)

    def _read(self, elapsed: np.ndarray, read: Callable[..., None], vectors: int = 1) -> np.ndarray:
        order = np.argsort(abs(elapsed), kind="stable")
        return self._segments.states(elapsed[order], read, vectors)[np.argsort(order)]
