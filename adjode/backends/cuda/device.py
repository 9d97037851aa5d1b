"""The GPU: whether there is one, its arrays, and how a kernel is compiled for it and launched.

Imported when it is first needed, since it imports numba-cuda. With NUMBA_ENABLE_CUDASIM=1 numba-cuda's simulator runs the kernels
as plain Python, which wants NUMBA_DISABLE_JIT=1 as well.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core.errors import NumbaError

from adjode.backends.cuda.arrays import is_device_array
from adjode.backends.cuda.target import Target
from adjode.compile.flags import DISABLED
from adjode.model.messages import reason_of

INSTALL = "pip install 'adjode[cuda]', with the build of numba-cuda that matches the driver (see the page \"Ensembles on CUDA\")"
if importlib.util.find_spec("numba_cuda") is None:
    raise ImportError(f"backend='cuda' needs numba-cuda, which is not installed: {INSTALL}.")

from numba import cuda  # noqa: E402

SIMULATED = bool(cuda.config.ENABLE_CUDASIM) if hasattr(cuda, "config") else False
_THREADS = 32  # a block is a warp: one whose trajectories are done makes room for the next at once
_SIMULATED_MEMORY = 1 << 28


def require_gpu() -> None:
    """Raise a RuntimeError in one sentence if no GPU can be used."""
    if SIMULATED and not DISABLED:
        raise RuntimeError("the CUDA simulator runs kernels as plain Python: set NUMBA_DISABLE_JIT=1 too.")
    if SIMULATED:
        return
    if DISABLED:
        raise RuntimeError(
            "backend='cuda' does not work with NUMBA_DISABLE_JIT, which keeps kernels from being compiled: unset it."
        )
    if not cuda.is_available():
        raise RuntimeError(f"backend='cuda' needs an NVIDIA GPU with its driver, but none was found: {_reason()}; {INSTALL}.")


def _reason() -> str:
    error = cuda.cuda_error()
    return " ".join(str(error or "there is no device").split()).rstrip(".")


# --- arrays ---------------------------------------------------------------------------------------------------------------------


def to_device(name: str, array: Any, dtype: np.dtype) -> Any:
    """A contiguous array of this dtype on the GPU: a copy of a NumPy array, or a device array as it is."""
    if not is_device_array(array):
        array = np.ascontiguousarray(array, dtype=dtype)
        return cuda.to_device(array if array.size else np.zeros((1,) * array.ndim, dtype))
    held = adopted(array)
    if held.dtype != dtype or not held.is_c_contiguous():
        raise ValueError(
            f"{name} is a device array, which is used without a copy and so must be C-contiguous and of dtype {dtype}, but its "
            f"dtype is {held.dtype}{'' if held.is_c_contiguous() else ' and it is not contiguous'}."
        )
    return held


def adopted(array: Any) -> Any:
    """A device array of any library as one of numba-cuda, which shares its memory."""
    if getattr(array, "__cuda_ndarray__", False):
        return array
    if hasattr(array, "__cuda_array_interface__"):
        return cuda.as_cuda_array(array)
    from cuda.core.utils import StridedMemoryView

    cuda.synchronize()  # whatever its library has still to write
    view = StridedMemoryView.from_dlpack(array, stream_ptr=-1)
    strides = None if view.strides is None else tuple(step * view.dtype.itemsize for step in view.strides)
    interface = {
        "shape": tuple(view.shape),
        "typestr": view.dtype.str,
        "data": (view.ptr, False),
        "strides": strides,
        "version": 3,
    }
    return cuda.from_cuda_array_interface(interface, owner=(array, view))


def device_array(shape: tuple[int, ...], dtype: Any) -> Any:
    """Uninitialised memory on the GPU, of one number at least."""
    return cuda.device_array(tuple(max(length, 1) for length in shape), dtype=dtype)


def free_memory() -> int:
    """Bytes free on the GPU."""
    return _SIMULATED_MEMORY if SIMULATED else int(cuda.current_context().get_memory_info()[0])


# --- kernels --------------------------------------------------------------------------------------------------------------------


def device_entry(one: Callable, real: np.dtype, replaced: dict[Callable, Callable]) -> Callable:
    """The kernel that runs `one` for `count` trajectories, a thread for each: for `members`, or the first if these are fewer.

    `replaced` is as in `Target`.
    """

    def entry(members, count, capacity, inputs, data, outputs):
        lane = cuda.grid(1)
        if lane < count:
            one(members[lane] if members.size == count else lane, lane, capacity, inputs, data, outputs)

    if SIMULATED:
        return cuda.jit(entry)
    target = Target(cuda.jit(device=True, forceinline=True), real, replaced)
    return cuda.jit(target.plain(entry))


@functools.cache
def sum_entry() -> Callable:
    """The kernel that adds rows to the sums of their blocks, in order, a thread for each sum."""

    def sum_rows(rows, status, start, size, totals, lost):
        """totals += rows, and what rounding takes away into `lost` (Neumaier 1974, ZAMM 54, 39-51); rows that failed left out."""
        width = totals.shape[1]
        block, i = start // size + cuda.grid(1) // width, cuda.grid(1) % width
        if block < totals.shape[0]:
            total, rest = totals[block, i], lost[block, i]
            for j in range(max(block * size - start, 0), min((block + 1) * size - start, rows.shape[0])):
                if status[j] == 0:
                    x, old = rows[j, i], total
                    total = old + x
                    if abs(old) >= abs(x):
                        rest += (old - total) + x
                    else:
                        rest += (x - total) + old
            totals[block, i], lost[block, i] = total, rest

    return cuda.jit(sum_rows)


def launch(kernel: Any, threads: int, *arguments: Any) -> None:
    if SIMULATED:
        kernel.forall(threads)(*_bare(arguments))
        return
    try:
        kernel[-(-threads // _THREADS), _THREADS](*arguments)
    except NumbaError as error:  # at the first launch, which compiles
        raise TypeError(
            f"numba-cuda cannot compile the callbacks for a GPU: {reason_of(str(error))}. They must be in their in-place forms and "
            f"allocate nothing."
        ) from error


def _bare(value: Any) -> Any:
    """The simulator's arrays inside tuples as those of NumPy, which it leaves alone there."""
    if isinstance(value, tuple):
        return tuple(_bare(item) for item in value)
    return getattr(value, "_ary", value)
