"""What goes to the GPU for an ensemble and what comes back: the arguments of the kernels in `member.py`.

Inputs are pairs (array on the GPU, whether it has a row for each trajectory).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.backends.cuda import device
from adjode.backends.cuda.arrays import to_host
from adjode.backends.cuda.chunks import Sums
from adjode.backends.cuda.plan import Plan
from adjode.compile import slots
from adjode.model.losses import PreparedLoss

Input = tuple[Any, bool]


def inputs_of(
    plan: Plan, u0: Any, theta: Any, t_span: np.ndarray, times: np.ndarray, ends_at_T: bool, at_most: np.ndarray
) -> list[Input]:
    """What `member.py` calls so; `times` are in the order of integration, the last is T if it `ends_at_T`.

    `at_most` is what absolute tolerances are at most, without columns if they are given.
    """
    own, real, (t0, T) = plan.own, plan.real, t_span.T[:, :, None]
    rows, ahead, behind = times - t0, plan.stops - t0, plan.stops_behind - t0
    ahead[:, -1:] = T - t0
    if ends_at_T:
        rows[:, -1:] = T - t0
    # where the interpolating adjoint begins on its way back, and where it ends
    behind[:, :1], behind[:, -1:] = rows[:, -1:] if rows.size else 0.0, 0.0
    arrays = {
        "given": plan.given,
        "u0": u0,
        "theta": theta,
        "span": np.concatenate([t0, T, T - t0], axis=1),
        "times": rows,
        "at_most": at_most if at_most.size else np.zeros((len(at_most), 1)),  # the GPU has no arrays of no size
        "stops": ahead,
        "stops behind": behind,
        "doses": plan.doses,
    }
    owns = own | ({"stops", "stops behind"} if "span" in own else set())
    given = [(device.to_device(name, array, real), name in owns) for name, array in arrays.items()]
    return [*given, (device.to_device("whats", plan.whats, np.dtype(np.int64)), False)]


def data_of(plan: Plan, loss: Any, prepared: PreparedLoss) -> list[Input]:
    """(rows, t_obs, components, data, weights)."""
    real, frame = plan.real, prepared.frame
    t_obs, components = getattr(loss, "t_obs", np.zeros(1)), getattr(loss, "components", np.zeros(1))
    shared = (prepared.rows, np.int64), (t_obs, real), (components, np.int64)
    data: list[Input] = [(device.to_device("data", array, np.dtype(dtype)), False) for array, dtype in shared]
    for slot, name in ((slots.DATA, "data"), (slots.DATA_WEIGHTS, "weights")):
        array = np.zeros((1, 1, 1))
        if slot in prepared.data:
            array = np.reshape(getattr(loss, prepared.data[slot]), (-1, *frame[slot].shape))
        data.append((device.to_device(name, array, real), name in plan.own))
    return data


def owned_data(loss: Any, prepared: PreparedLoss) -> set[str]:
    """Which of "data", "weights" and "at_most" every trajectory has its own of."""
    names = {"data": prepared.data.get(slots.DATA), "weights": prepared.data.get(slots.DATA_WEIGHTS)}
    found = {kind for kind, name in names.items() if name in getattr(loss, "by_member", ())}
    return found if getattr(loss, "members", None) is None else found | {"at_most"}


class Results:
    """Values, statuses, work and cotangents of N trajectories: rows, or sums over blocks of `size` for those in `summed`."""

    def __init__(self, plan: Plan, N: int, size: int, chunk: int, summed: frozenset[str]):
        real = plan.real
        self.chunk, self._wants, self._N = chunk, plan.wants, N
        self._value, self._status = device.device_array((N,), real), device.device_array((N,), np.int32)
        self._work, self._statuses = device.device_array((N, 3), np.int32), np.zeros(N, dtype=np.int32)
        widths = {"u0": plan.n, "theta": plan.m}
        self._sums = {name: Sums(N, size, widths[name], chunk, real) for name in summed if widths[name]}
        self._bars = {
            name: device.device_array((N if name in self._wants and name not in summed else 1, width), real)
            for name, width in widths.items()
        }
        self._shapes = {name: (-(-N // size) if name in summed else N, width) for name, width in widths.items()}

    def of_chunk(self, first: int, stop: int) -> tuple[Any, ...]:
        bars = []
        for name, rows in self._bars.items():
            if name in self._sums:
                rows = self._sums[name].rows
            elif name in self._wants:
                rows = rows[first:stop]
            bars.append(rows)
        return self._value[first:stop], self._status[first:stop], self._work[first:stop], *bars

    def add(self, first: int, stop: int, statuses: np.ndarray) -> None:
        """Sum what a chunk has left."""
        self._statuses[first:stop] = statuses
        for sums in self._sums.values():
            sums.add(first, stop - first, self._status[first:stop])

    def fetch(self, stays: bool) -> tuple[Any, Any, Any, np.ndarray, np.ndarray]:
        """(value, u0_bar, theta_bar, status, work); the first three on the GPU if they stay there, but for sums."""
        fetched: list[Any] = []
        for name, rows in self._bars.items():
            if name not in self._wants:
                fetched.append(None)
            elif name in self._sums:
                fetched.append(self._sums[name].result())
            else:
                fetched.append(_fetch(rows, self._shapes[name], stays))
        value = _fetch(self._value, (self._N,), stays)
        return value, fetched[0], fetched[1], self._statuses, to_host(self._work)


class StateResults:
    """States at k times, statuses and work of N trajectories."""

    def __init__(self, plan: Plan, N: int, chunk: int):
        self.chunk, self._shape = chunk, (N, plan.k, plan.n)
        self._states, self._status = device.device_array(self._shape, plan.real), device.device_array((N,), np.int32)
        self._work, self._statuses = device.device_array((N, 3), np.int32), np.zeros(N, dtype=np.int32)

    def of_chunk(self, first: int, stop: int) -> tuple[Any, ...]:
        return self._states[first:stop], self._status[first:stop], self._work[first:stop]

    def add(self, first: int, stop: int, statuses: np.ndarray) -> None:
        self._statuses[first:stop] = statuses

    def fetch(self, stays: bool) -> tuple[Any, np.ndarray, np.ndarray]:
        return _fetch(self._states, self._shape, stays), self._statuses, to_host(self._work)


def _fetch(rows: Any, shape: tuple[int, ...], stays: bool) -> Any:
    if 0 in shape:  # the GPU has no arrays of no size
        return np.zeros(shape)
    return rows if stays else to_host(rows)
