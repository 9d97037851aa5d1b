"""How kernels are compiled: flags for Numba, and the types that signatures are made of.

A *kernel* is a function that other kernels call; an *entry* is a kernel that Python calls, see `entries.py`.
"""

from __future__ import annotations

from typing import Any

from numba import njit, types
from numba.core import config

from adjode.compile.versions import counts_references, warn_lost

STANDARD = "Kernels go through Numba's own pipeline, which takes longer"


try:
    from adjode.compile import pipeline as pipeline
except (ImportError, AttributeError, TypeError) as error:
    warn_lost(STANDARD, error)
    pipeline = None  # type: ignore[assignment]


# fastmath=True would delete NaN tests; this subset keeps them. The error norm does without even these.
FAST = {"contract", "reassoc", "nsz", "arcp"}
DISABLED = bool(config.DISABLE_JIT)


def pipeline_class(name: str) -> dict[str, Any]:
    """The option for Numba's decorator that chooses a pipeline of `pipeline`, if there are any."""
    return {} if pipeline is None else {"pipeline_class": getattr(pipeline, name)}


# Kernels own no memory, so they need no reference counts (a third of the compile time, half the run time); only other kernels
# call them, so they need no wrappers for Python and C (another third). Whether they are inlined is for the entry to say.
FLAGS = {"error_model": "numpy", "nogil": True, **counts_references(False)}
INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
kernel = njit(**FLAGS, **INNER, **pipeline_class("KernelCompiler"), fastmath=FAST)
# fastmath=False must be said: what is not said a function inherits from the one whose compilation asks for it
exact_kernel = njit(**FLAGS, **INNER, **pipeline_class("KernelCompiler"), fastmath=False)
# for what calls the user's code, which has exceptions and counts references
linked = njit(
    error_model="numpy", nogil=True, fastmath=False, **counts_references(True), **INNER, **pipeline_class("KernelCompiler")
)

# for the user's code, as Python may call it, and as entries have it
USERS = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
PART = {"no_cpython_wrapper": True, **pipeline_class("CallbackCompiler")}


f8 = types.float64
i8 = types.int64
pointer = types.CPointer(types.int64)
vector = types.Array(types.float64, 1, "C")
matrix = types.Array(types.float64, 2, "C")
cube = types.Array(types.float64, 3, "C")
integers = types.Array(types.int64, 1, "C")
