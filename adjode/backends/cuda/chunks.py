"""Chunks of trajectories: how many the memory holds at a time, and those that need more of it again.

What is kept of the steps of a trajectory lies in its *lane*, with room for a number of steps, the capacity. Trajectories that take
more steps run again, in longer lanes and so fewer at a time; where a chunk has ended, the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adjode.backends.cuda import device
from adjode.backends.cuda.arrays import is_device_array, to_host
from adjode.backends.cuda.plan import Plan
from adjode.checks import memory_size
from adjode.status import STORE_FULL

_FIRST_CAPACITY = 128  # steps
_WARP = 32  # threads that run together
_LARGEST_CHUNK = 1 << 20  # trajectories: the device has been full for long, and progress is seen


@dataclass(frozen=True)
class DeviceOptions:
    """What the backend of a GPU takes beside the options of all backends.

    Parameters
    ----------
    dtype : dtype
        float64 or float32, of all arithmetic, times included.
    memory : float or str, optional
        Bytes of the GPU's memory for what is kept of the steps, or "512MB" and the like; half of what is free by default.
    device_output : bool, optional
        Whether values and cotangents stay on the GPU; by default if u0 or theta came from there.

    Raises
    ------
    ValueError, TypeError
        For bad input.
    """

    dtype: Any = np.float64
    memory: float | str | None = None
    device_output: bool | None = None
    real: np.dtype = field(init=False)

    def __post_init__(self) -> None:
        try:
            real = np.dtype(self.dtype)
        except TypeError:
            raise TypeError(f"dtype must be float64 or float32, but {self.dtype!r} was given.") from None
        if real not in (np.float64, np.float32):
            raise ValueError(f"dtype must be float64 or float32, but {self.dtype!r} was given.")
        object.__setattr__(self, "real", real)
        if self.memory is not None:
            object.__setattr__(self, "memory", memory_size("memory", self.memory))

    def require_attainable(self, rtol: float) -> None:
        """Raise a ValueError if rounding in single precision leaves a relative tolerance out of reach."""
        least = 4.0 * float(np.finfo(np.float32).eps)
        if self.real == np.float32 and 0.0 < rtol < least:
            raise ValueError(f"rtol must be at least {least:.2g} with dtype=float32, but {rtol:g} was given.")

    @property
    def budget(self) -> int:
        return device.free_memory() // 2 if self.memory is None else int(self.memory)

    def stays(self, *inputs: Any) -> bool:
        """Whether results stay on the GPU."""
        return any(map(is_device_array, inputs)) if self.device_output is None else self.device_output


class Lanes:
    """The memory for what is kept of steps, made when it is needed and kept."""

    def __init__(self, options: DeviceOptions):
        self._options = options
        self._buffer: Any = None
        self._budget: int | None = None
        self._capacity = _FIRST_CAPACITY

    def chunk(self, plan: Plan, wanted: int) -> int:
        """How many trajectories to take at a time."""
        return self._width(plan, min(wanted, _LARGEST_CHUNK), self._capacity)

    def run(self, plan: Plan, kernel: Callable, count: int, arguments: tuple) -> np.ndarray:
        """Run trajectories 0..count-1 of the arguments (inputs, data, outputs), whose second output are statuses; these."""
        inputs, data, outputs = arguments
        members, statuses = np.arange(count, dtype=np.int32), np.zeros(0, dtype=np.int32)
        while members.size:
            capacity = int(min(self._capacity, plan.longest))
            width = self._width(plan, members.size, capacity)
            for first in range(0, members.size, width):
                group = members[first : first + width]
                store, given = self._store(plan, group.size, capacity), group if group.size < count else group[:1]
                chosen = device.to_device("members", given, given.dtype)
                device.launch(kernel, group.size, chosen, group.size, capacity, (*inputs, store), data, outputs)
            statuses = to_host(outputs[1])[:count]
            members = members[statuses[members] == STORE_FULL]
            if members.size:
                self._capacity = 2 * capacity
        return statuses

    def _width(self, plan: Plan, wanted: int, capacity: int) -> int:
        if plan.entries(capacity) == 0:
            return wanted
        if self._budget is None:
            self._budget = self._options.budget  # before the lanes themselves take of what is free
        fitting = self._budget // (plan.entries(capacity) * plan.real.itemsize)
        if fitting < 1:
            raise ValueError(
                f"memory={self._budget} bytes cannot hold a trajectory of {capacity} steps with {plan.step_entries} numbers each: "
                "raise memory, loosen the tolerances, or lower max_steps."
            )
        return min(wanted, fitting - fitting % _WARP or fitting)

    def _store(self, plan: Plan, width: int, capacity: int) -> Any:
        entries = max(plan.entries(capacity), 1)
        if self._buffer is None or self._buffer.size < entries * width:
            self._buffer = None  # given back before more is taken
            self._buffer = device.device_array((entries * width,), plan.real)
        return self._buffer[: entries * width].reshape(entries, width)


class Sums:
    """Sums over blocks of `size` trajectories, in their order, whatever the chunks."""

    def __init__(self, N: int, size: int, width: int, chunk: int, real: np.dtype):
        self.rows = device.device_array((chunk, width), real)
        self._size, self._real = size, real
        shape = -(-N // size), width
        self._totals, self._lost = (device.to_device("sums", np.zeros(shape), np.dtype(np.float64)) for _ in range(2))

    def add(self, first: int, count: int, status: Any) -> None:
        """Add the rows of the trajectories first..first+count-1."""
        blocks, width = (first + count - 1) // self._size - first // self._size + 1, self.rows.shape[1]
        arguments = self.rows[:count], status, first, self._size, self._totals, self._lost
        device.launch(device.sum_entry(), blocks * width, *arguments)

    def result(self) -> np.ndarray:
        return to_host(self._totals) + to_host(self._lost)
