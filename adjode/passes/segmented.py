"""`SegmentedOutput`: the states of a pass whose steps have not all been kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.checks import times_in_span
from adjode.passes.segments import Segments
from adjode.passes.trajectory import derivatives, evaluate


class SegmentedOutput:
    """The states between the steps of a pass whose steps have not all been kept: they are solved again where they are asked for.

    Attributes
    ----------
    t : (n_steps + 1,) array
    """

    def __init__(self, segments: Segments):
        self._segments, self.t = segments, segments.t

    @property
    def steps(self) -> int:
        return self.t.size - 1

    @property
    def u(self) -> np.ndarray:
        """The states at all `t`."""
        return self(self.t)

    def __call__(self, t: Any) -> np.ndarray:
        """The state at `t`: (n,) for a scalar, (k, n) for k times, which must lie inside the span."""
        out = self._read(times_in_span("t", t, self.t[0], self.t[-1]), evaluate)
        return out[0] if np.ndim(t) == 0 else out

    def derivatives(self, times: np.ndarray) -> np.ndarray:
        """See `DenseOutput.derivatives`."""
        return self._read(times, derivatives)

    def _read(self, times: np.ndarray, read: Callable[..., None]) -> np.ndarray:
        order = np.argsort(times if self.t[-1] >= self.t[0] else -times, kind="stable")
        with self._segments.lock:
            return self._segments.states(times[order], read)[np.argsort(order)]
