"""Entries: kernels that Python calls, compiled for one explicit signature and kept on disk.

The user's callbacks reach a kernel as addresses of C functions (see `callbacks.py`), so that one compiled entry serves every
problem, or are part of a fused entry (see `tiers.py` and `calls.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from llvmlite import ir
from numba import njit
from numba.extending import intrinsic

from adjode.compile.cache import EntryCache, keep_bytes, kept_bytes
from adjode.compile.flags import DISABLED, FAST, FLAGS, STANDARD, i8, kernel, pipeline, pipeline_class
from adjode.compile.notice import announced
from adjode.compile.signals import uninterrupted
from adjode.compile.versions import warn_lost


def entry(function: Callable, signature, name: str, key: str | None = "", *, wrapped: bool = True) -> Callable:
    """Compile `function` for `signature`, or load it from the disk cache, where it is filed as `name` and `key`.

    `key` stands for what the entry depends on beside the sources of this package; with None it is not kept on disk. What is not
    `wrapped` can only be called through its `code_address`.
    """
    if DISABLED:
        return function
    settle_pipeline()
    function.__name__ = function.__qualname__ = f"{name}-{key}" if key else name
    return compile_entry(function, signature, None if key is None else EntryCache(name, key), wrapped)


def compile_entry(function: Callable, signature: Any, cache: EntryCache | None = None, wrapped: bool = True) -> Any:
    dispatcher = njit(**FLAGS, fastmath=FAST, no_cpython_wrapper=not wrapped, **pipeline_class("EntryCompiler"))(function)
    if cache is not None:
        dispatcher._cache = cache
    is_kept = cache is not None and cache.has(signature, dispatcher)
    with uninterrupted(), contextlib.nullcontext() if is_kept else undisturbed(), announced():
        dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


def undisturbed() -> Any:
    return contextlib.nullcontext() if pipeline is None else pipeline.undisturbed()


@functools.cache
def settle_pipeline() -> None:
    """Compile with Numba's own pipeline if that of `pipeline` fails on the smallest entry that calls a kernel."""

    def probe() -> int:
        @kernel
        def double(n):
            return 2 * n

        return compile_entry(lambda n: double(n), (i8,))(21)

    if pipeline is not None and not works("pipeline", probe, STANDARD):
        pipeline.Pipeline.standard = True


@uninterrupted()  # what a handler raises would look like a failure
def works(name: str, probe: Callable[[], int], lost: str) -> bool:
    """Whether the probe compiles and doubles 21; remembered on disk, where a folder stands for one version of everything."""
    if kept_bytes(f"{name}.works") is not None:
        return True
    try:
        if probe() != 42:
            raise ArithmeticError("a wrong result")
    except Exception as error:  # whatever Numba raises
        warn_lost(lost, error)
        return False
    keep_bytes(f"{name}.works", b"")
    return True


_ADDRESSES: WeakKeyDictionary = WeakKeyDictionary()  # LLVM looks for as long as a small pass runs


def code_address(compiled: Any) -> Any:
    """The address of the machine code of an entry, or of a function of ctypes, for `call_code`."""
    if DISABLED:
        return compiled
    if not hasattr(compiled, "overloads"):
        return ctypes.c_void_p.from_buffer(compiled).value  # ctypes.cast would have the function refer to itself
    if compiled not in _ADDRESSES:
        (result,) = compiled.overloads.values()
        _ADDRESSES[compiled] = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)
    return _ADDRESSES[compiled]


def own_address(address: Any) -> Callable[[], Any]:
    """A function for compiled code that returns an address of this process; what calls it Numba never keeps on disk."""
    if DISABLED:
        return lambda: address

    @intrinsic
    def own(typingctx):
        def codegen(context, builder, sig, args):
            return builder.ptrtoint(context.add_dynamic_addr(builder, address, "an address of adjode's"), ir.IntType(64))

        return i8(), codegen

    return own
