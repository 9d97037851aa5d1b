"""Jumps of f that a solve has gone over without an event: what their moves do to a gradient, continuous adjoints do not know."""

from __future__ import annotations

import warnings

import numpy as np

from adjode.model.dynamics import Dynamics

SHORT = 0.02  # of the median of all steps: a jump is crossed in one that is far shorter than others
_JUMPS = 0.01  # of f
_MOVES = 10.0  # times what f says: where the state changes by more it has been reset
_NEAR = 4  # steps on either side, which tell how large f is


def warn_of_jump(
    dynamics: Dynamics, times: np.ndarray, states: np.ndarray, theta: np.ndarray, *, of: str = "", stacklevel: int
) -> bool:
    """Warn if f jumps between two of these places of a solve, as it comes to another side of a comparison with the state.

    `times` (k,) and `states` (k, n) are those at the starts of the steps; `of` says of which trajectory. Whether it does.
    """
    if not dynamics.switches.compare_states or times.size < 3:
        return False
    steps = np.abs(np.diff(times))
    for k in np.flatnonzero((steps < SHORT * np.median(steps)) & (steps > 0.0)):
        near = slice(max(k - _NEAR, 0), k + _NEAR)
        rates = np.abs(np.diff(states[near], axis=0) / np.diff(times[near])[:, None]).max(axis=0)
        if _jumps(dynamics, times[k : k + 2], np.ascontiguousarray(states[k : k + 2]), theta, rates):
            warnings.warn(
                f"{of}f jumps at t = {times[k]:.6g}, where a comparison with the state changes: the gradient lacks the effect of "
                "moving that time. Make it an adjode.Event.",
                RuntimeWarning,
                stacklevel=stacklevel + 1,
            )
            return True
    return False


def _jumps(dynamics: Dynamics, times: np.ndarray, states: np.ndarray, theta: np.ndarray, rates: np.ndarray) -> bool:
    """Between two places, around which the states change at these rates."""
    slopes, sides = np.zeros(states.shape), np.zeros((2, 1))
    for t, u, slope in zip(times, states, slopes, strict=True):
        dynamics.f(float(t), u.copy(), theta, slope)
    change, size, width = np.abs(slopes[1] - slopes[0]), np.abs(slopes).max(axis=0), abs(times[1] - times[0])
    is_reset = np.abs(states[1] - states[0]) > _MOVES * width * size + np.spacing(np.abs(states).max(axis=0))
    if is_reset.any() or not (change > _JUMPS * np.maximum(size, rates)).any() or dynamics.sides is None:
        return False
    for t, u, side in zip(times, states, sides, strict=True):
        dynamics.sides(float(t), u.copy(), theta, np.zeros(u.size), side)
    return bool(sides[0] != sides[1])
