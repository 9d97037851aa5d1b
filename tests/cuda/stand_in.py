"""A machine without a GPU in its place: arrays of NumPy for those of the device, and kernels that are compiled but for another."""

from __future__ import annotations

import weakref

import numpy as np
from numba import njit, typeof

from adjode.backends.cuda import ensemble as ensembles
from adjode.backends.cuda.target import Target
from adjode.compile.entries import entry
from adjode.compile.flags import kernel


def install(monkeypatch, device, launch, device_entry=None):
    """Let the module `device` work on arrays of NumPy and launch by `launch(kernel, threads, *arguments)`."""
    monkeypatch.setattr(ensembles, "_kernels", weakref.WeakKeyDictionary())
    monkeypatch.setattr(device, "require_gpu", lambda: None)
    monkeypatch.setattr(device, "free_memory", lambda: 1 << 28)
    monkeypatch.setattr(device, "to_device", _to_device)
    monkeypatch.setattr(device, "device_array", lambda shape, dtype: np.zeros([max(length, 1) for length in shape], dtype))
    monkeypatch.setattr(device, "launch", launch)
    if device_entry is not None:
        monkeypatch.setattr(device, "device_entry", device_entry)


def _to_device(name, array, dtype):
    array = np.ascontiguousarray(array, dtype=dtype)
    return array if array.size else np.zeros((1,) * array.ndim, dtype)


def types_of(arguments):
    """The types that numba-cuda would give the arguments of a kernel."""
    return tuple(typeof(argument) for argument in arguments)


# --- device code for the CPU ------------------------------------------------------------------------------------------------------


def entry_for_cpu(one, real, replaced):
    """The kernel of an ensemble, from the copies that a GPU would get, as a loop on the CPU."""
    copy = Target(_compiled, real, replaced)(one)

    def run(members, count, capacity, inputs, data, outputs):
        for lane in range(count):
            copy(members[lane] if members.size == count else lane, lane, capacity, inputs, data, outputs)
        return 0

    return run


def launch_on_cpu(run, threads, *arguments):
    found = types_of(arguments)
    if (run, found) not in _entries:
        _entries[run, found] = entry(run, found, "stand_in", None)
    _entries[run, found](*arguments)


_entries: dict = {}


def _compiled(function):
    ours = function.__globals__["__name__"].startswith("adjode.") and function.__globals__["__name__"] != "adjode.tables"
    return kernel(function) if ours else njit(function, error_model="numpy")
