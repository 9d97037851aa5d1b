"""Where lam jumps: observations sorted, merged and split into the start of the sweep, its stops, and t0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Jumps:
    """The plan of one backward pass.

    Attributes
    ----------
    start : float
        Where lam starts: T, or the last time with a cotangent that is not zero.
    lam : (n,) array
        lam there, its jump included.
    stops : (k + 1,) array
        The times inside at which lam jumps, in the order of the sweep, and t0.
    jumps : (k, n) array
    """

    start: float
    lam: np.ndarray
    stops: np.ndarray
    jumps: np.ndarray


def plan_jumps(
    t0: float, T: float, u_T_bar: np.ndarray, times: np.ndarray, u_bars: np.ndarray, *, from_T: bool, behind_start: bool
) -> Jumps:
    """Plan the sweep from T back to t0; `from_T` starts it at T even where lam is zero there.

    What is observed at t0 is left out, unless the state jumps there and is observed `behind_start`.
    """
    n = u_T_bar.size
    unique, index = np.unique(np.append(times, T), return_inverse=True)
    merged = np.zeros((unique.size, n))
    np.add.at(merged, index, np.vstack([u_bars, u_T_bar]))
    if T >= t0:
        unique, merged = unique[::-1], merged[::-1]
    inside = (unique != t0) | behind_start
    unique, merged = unique[inside], merged[inside]
    kept = merged.any(axis=1)  # a zero jump is no stop
    if from_T and kept.size:
        kept[0] = True
    unique, merged = unique[kept], merged[kept]
    if unique.size == 0:
        return Jumps(t0, np.zeros(n), np.array([t0]), np.zeros((0, n)))
    return Jumps(float(unique[0]), merged[0].copy(), np.append(unique[1:], t0), np.ascontiguousarray(merged[1:]))
