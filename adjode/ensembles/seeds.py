"""`Seeds`: cotangents of states, as a loss that is linear in them; what a pullback of an ensemble runs as its loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.api.solution import Solution
from adjode.backends.cuda.arrays import to_host
from adjode.checks import float_vector, require_finite
from adjode.ensembles.inputs import require_times_inside
from adjode.model.losses import PreparedLinear, PreparedLoss
from adjode.model.losses.members import MemberData


class Seeds(MemberData):
    """`u_T_bar . u(T) + sum of u_bars[k] . u(times[k])`.

    Parameters
    ----------
    u_T_bar : (n,) or (N, n) array
    times : (k,) array
        In any order, and repeated ones add up.
    u_bars : (k, n) or (N, k, n) array
    backwards : bool
        Whether T comes before t0.
    """

    def __init__(self, u_T_bar: np.ndarray, times: np.ndarray, u_bars: np.ndarray, *, backwards: bool):
        self.t_obs, rows = np.unique(times, return_inverse=True)
        self.backwards = backwards
        own = max(u_T_bar.ndim - 1, u_bars.ndim - 2) > 0
        if own:
            self.members, self.by_member = len(u_T_bar if u_T_bar.ndim == 2 else u_bars), ("weights",)
        shape = self.t_obs.size + 1, u_T_bar.shape[-1]
        self.weights = np.zeros(shape if self.members is None else (self.members, *shape))  # by rising times, T among them
        self.weights[..., 0 if backwards else -1, :] = u_T_bar
        for k, row in enumerate(rows):
            self.weights[..., row + backwards, :] += u_bars[..., k, :]

    def prepare(self, n: int, T: float) -> PreparedLoss:
        times = [T, *self.t_obs] if self.backwards else [*self.t_obs, T]
        return PreparedLinear(self, n, np.array(times), self.weights)

    def value_and_cotangents(self, solution: Solution) -> tuple[float, dict[str, Any]]:
        u_bars = np.delete(self.weights, 0 if self.backwards else -1, axis=0)
        u_T_bar = self.weights[0 if self.backwards else -1]
        value = float(u_T_bar @ solution.u[-1] + np.sum(u_bars * solution(self.t_obs)))
        return value, {"u_T_bar": u_T_bar, "observations": (self.t_obs, u_bars)}


def read_seeds(u_T_bar: Any, observations: Any, spans: np.ndarray, n: int, N: int) -> Seeds:
    """The cotangents that a user gives: of u(T), (n,) or (N, n), and (times, u_bars), (k,) and (k, n) or (N, k, n)."""
    at_T = np.zeros(n) if u_T_bar is None else _read("u_T_bar", u_T_bar, ((n,), (N, n)))
    times, u_bars = np.zeros(0), np.zeros((0, n))
    if observations is not None:
        try:
            times, u_bars = observations
        except (TypeError, ValueError):
            raise ValueError("observations must be a pair (times, u_bars).") from None
        times = float_vector("observation times", times)
        require_times_inside("observation times", times, spans)
        u_bars = _read("u_bars", u_bars, ((times.size, n), (N, times.size, n)))
    return Seeds(at_T, times, u_bars, backwards=bool(len(spans) and spans[0, 1] < spans[0, 0]))


def _read(name: str, value: Any, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> np.ndarray:
    """An array of one of two shapes; what has a row for each trajectory may hold NaN where a trajectory has failed."""
    array = np.asarray(to_host(value))
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, but its dtype is {array.dtype}.")
    if array.shape not in shapes:
        raise ValueError(f"{name} must have the shape {shapes[0]} or {shapes[1]}, but its shape is {array.shape}.")
    if array.shape == shapes[0]:
        require_finite(name, array)
    return array.astype(float)
