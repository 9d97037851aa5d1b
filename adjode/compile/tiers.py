"""What the fused tier needs beside the portable one: passes as bitcode, linked with compiled callbacks by name; unrolled loops."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from adjode.compile.cache import keep_bytes, kept_bytes
from adjode.compile.entries import compile_entry, settle_pipeline, undisturbed, works
from adjode.compile.flags import DISABLED, FAST, FLAGS, INNER, i8, kernel, linked, pipeline, pipeline_class, pointer
from adjode.compile.notice import announced


@functools.cache
def fused_works() -> bool:
    """Whether bitcode can be linked with compiled functions, tried on the smallest pass that calls one."""

    def probe() -> int:
        call = imported("adjode.double")

        @kernel
        def run(n):
            return call((n,))

        @linked
        def double(n):
            return 2 * n

        double.compile((i8,))
        (imports,) = double.overloads.values()
        bitcode = _compile_pass(run, i8)
        linked_pass = call_pass(lambda: bitcode, lambda: {"adjode.double": imports})
        return compile_entry(lambda n: linked_pass(n), (i8,))(21)

    settle_pipeline()
    if pipeline is None or pipeline.Pipeline.standard:
        return False
    return works("fused", probe, "fused=True has no effect: callbacks are called through their addresses")


_outlines: dict[str, bytes] = {}


def outline(name: str, make: Callable[[], Callable]) -> bytes:
    """The bitcode of a pass, which is the kernel `make()` of one frame with all kernels that it calls.

    Compiled once for each `name` and kept on disk: what it depends on are the sources of this package.
    """
    if name not in _outlines:
        kept = kept_bytes(f"pass-{name}.bc")
        _outlines[name] = _compile_pass(make(), pointer) if kept is None else kept
        if kept is None:
            keep_bytes(f"pass-{name}.bc", _outlines[name])
    return _outlines[name]


def _compile_pass(run: Any, argument: types.Type) -> bytes:
    dispatcher = njit(**FLAGS, **INNER, **pipeline_class("PassCompiler"), fastmath=FAST)(run.py_func)
    with undisturbed(), announced():
        compiled = dispatcher._compiler._compile_core((argument,), None)
        return compiled.library.bitcode(compiled.fndesc.llvm_func_name, pipeline.PASS)


def _call_by_name(context, builder, symbol, argument_types, arguments):
    """Call a compiled function that returns a status."""
    convention = context.call_conv
    function_type = convention.get_function_type(types.int64, argument_types)
    function = cgutils.get_or_insert_function(builder.module, function_type, symbol)
    status, result = convention.call_function(builder, function, types.int64, argument_types, arguments)
    with cgutils.if_unlikely(builder, status.is_error):
        convention.return_status_propagate(builder, status)
    return result


def imported(symbol: str) -> Callable:
    """An intrinsic `call(arguments) -> status` for a compiled function that the entry links in under this name."""

    @intrinsic
    def call(typingctx, arguments):
        def codegen(context, builder, sig, args):
            return _call_by_name(context, builder, symbol, tuple(arguments), cgutils.unpack_tuple(builder, args[0]))

        return types.int64(arguments), codegen

    return call


def call_pass(bitcode: Callable[[], bytes], imports: Callable[[], dict[str, Any]]) -> Callable:
    """An intrinsic `run(frame) -> status` for a pass in bitcode, linked with the compiled functions that it imports by name."""

    @intrinsic
    def run(typingctx, frame):
        def codegen(context, builder, sig, args):
            compiled = imports()
            names = {symbol: one.fndesc.llvm_func_name for symbol, one in compiled.items()}
            context.add_linking_libs([one.library for one in compiled.values()])
            context.active_code_library.link_pass(bitcode(), names)
            return _call_by_name(context, builder, pipeline.PASS, sig.args, args)

        return types.int64(frame), codegen

    return run


def unrolled(function: Callable, indices: range | None, *, down: bool = False) -> Callable:
    """`loop(frame, t, h, t_end, V, first, last) -> status`: `function(frame, t, h, t_end, V, i)` for each i until one is not 0.

    The indices are first..last at run time, `down` if they fall; or those given, in straight code: `first` and `last` are ignored.
    """
    if indices is None or DISABLED:
        step = -1 if down or (indices is not None and indices.step < 0) else 1

        @kernel
        def loop(frame, t, h, t_end, V, first, last):
            for i in range(first, last + step, step):
                status = function(frame, t, h, t_end, V, i)
                if status != 0:
                    return status
            return 0

        return loop

    @intrinsic
    def straight(typingctx, frame, t, h, t_end, V, first, last):
        kernel_type = typingctx.resolve_value_type(function)
        called = kernel_type.get_call_type(typingctx, (frame, t, h, t_end, V, types.intp), {})

        def codegen(context, builder, sig, args):
            call = context.get_function(kernel_type, called)
            context.add_linking_libs(getattr(call, "libs", ()))
            status = cgutils.alloca_once_value(builder, context.get_constant(types.int64, 0))
            for i in indices:
                with builder.if_then(cgutils.is_null(builder, builder.load(status)), likely=True):
                    result = call(builder, [*args[:5], context.get_constant(types.intp, i)])
                    builder.store(context.cast(builder, result, called.return_type, types.int64), status)
            return builder.load(status)

        return types.int64(frame, t, h, t_end, V, first, last), codegen

    return straight
