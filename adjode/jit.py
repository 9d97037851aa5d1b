"""How kernels are compiled: flags, the disk cache, and the few intrinsics that kernels share.

A *kernel* is a function that other kernels call; an *entry* is a kernel that Python calls, compiled for one explicit
signature and kept on disk. The user's callbacks reach a kernel as addresses of C functions (see `callbacks.py`), so that one
compiled entry serves every problem, or are part of a fused entry (see `calls.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from adjode.disk import EntryCache, keep_bytes, kept_bytes
from adjode.versions import counts_references, warn_lost

_STANDARD = "Kernels go through Numba's own pipeline, which takes longer"
try:
    from adjode import compiler
except (ImportError, AttributeError, TypeError) as error:
    warn_lost(_STANDARD, error)
    compiler = None  # type: ignore[assignment]

# fastmath=True would delete NaN tests; this subset keeps them. The error norm does without even these.
FAST = {"contract", "reassoc", "nsz", "arcp"}
DISABLED = bool(config.DISABLE_JIT)


def _pipeline(name: str) -> dict[str, Any]:
    """The option for Numba's decorator that chooses a pipeline of `compiler`, if there are any."""
    return {} if compiler is None else {"pipeline_class": getattr(compiler, name)}


# Kernels own no memory, so they need no reference counts (a third of the compile time, half the run time); only other kernels
# call them, so they need no wrappers for Python and C (another third). Whether they are inlined is for the entry to say.
_FLAGS = {"error_model": "numpy", "nogil": True, **counts_references(False)}
_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
kernel = njit(**_FLAGS, **_INNER, **_pipeline("KernelCompiler"), fastmath=FAST)
# fastmath=False must be said: what is not said a function inherits from the one whose compilation asks for it
exact_kernel = njit(**_FLAGS, **_INNER, **_pipeline("KernelCompiler"), fastmath=False)
# for what calls the user's code: with exceptions, reference counts and every pass of Numba's
linked = njit(error_model="numpy", nogil=True, fastmath=False, **counts_references(True), **_INNER, **_pipeline("LinkedCompiler"))

f8 = types.float64
i8 = types.int64
pointer = types.CPointer(types.int64)
vector = types.Array(types.float64, 1, "C")
matrix = types.Array(types.float64, 2, "C")
cube = types.Array(types.float64, 3, "C")
integers = types.Array(types.int64, 1, "C")


def entry(function: Callable, signature, name: str, key: str | None = "", *, wrapped: bool = True) -> Callable:
    """Compile `function` for `signature`, or load it from the disk cache, where it is filed as `name` and `key`.

    `key` stands for what the entry depends on beside the sources of this package; with None it is not kept on disk. What is not
    `wrapped` can only be called through its `code_address`.
    """
    if DISABLED:
        return function
    _settle_pipeline()
    function.__name__ = function.__qualname__ = f"{name}-{key}" if key else name
    return _compile(function, signature, None if key is None else EntryCache(name, key), wrapped)


def _compile(function: Callable, signature: Any, cache: EntryCache | None = None, wrapped: bool = True) -> Any:
    dispatcher = njit(**_FLAGS, fastmath=FAST, no_cpython_wrapper=not wrapped, **_pipeline("EntryCompiler"))(function)
    if cache is not None:
        dispatcher._cache = cache
    with _undisturbed():
        dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


def _undisturbed() -> Any:
    return contextlib.nullcontext() if compiler is None else compiler.undisturbed()


@functools.cache
def _settle_pipeline() -> None:
    """Compile with Numba's own pipeline if that of `compiler` fails on the smallest entry that calls a kernel."""

    def probe() -> int:
        @kernel
        def double(n):
            return 2 * n

        return _compile(lambda n: double(n), (i8,))(21)

    if compiler is not None and not _works("pipeline", probe, _STANDARD):
        compiler.Pipeline.standard = True


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
        return _compile(lambda n: linked_pass(n), (i8,))(21)

    _settle_pipeline()
    if compiler is None or compiler.Pipeline.standard:
        return False
    return _works("fused", probe, "fused=True has no effect: callbacks are called through their addresses")


def _works(name: str, probe: Callable[[], int], lost: str) -> bool:
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


def code_address(compiled: Any) -> Any:
    """The address of the machine code of an entry, or of a function of ctypes, for `call_code`."""
    if DISABLED:
        return compiled
    if not hasattr(compiled, "overloads"):
        return ctypes.cast(compiled, ctypes.c_void_p).value
    (result,) = compiled.overloads.values()
    return result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)


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
    dispatcher = njit(**_FLAGS, **_INNER, **_pipeline("PassCompiler"), fastmath=FAST)(run.py_func)
    with _undisturbed():
        compiled = dispatcher._compiler._compile_core((argument,), None)
        return compiled.library.bitcode(compiled.fndesc.llvm_func_name, compiler.PASS)


# --- intrinsics -----------------------------------------------------------------------------------------------------
# Views that own nothing: an ordinary slice counts references, which costs more than the arithmetic on a small system.


def array_view(context, builder, array_type, data, shape, width=None):
    """A view of numbers at `data`, which owns nothing: in C order, and every `width`-th number of what lies there if given."""
    view = context.make_array(array_type)(context, builder)
    itemsize = context.get_constant(types.intp, array_type.dtype.bitwidth // 8)
    strides = [itemsize if width is None else builder.mul(itemsize, width)]
    for length in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    populate_array(view, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return view._getvalue()


def _part(array, ndim):
    """The type of a part of an array."""
    return types.Array(array.dtype, ndim, array.layout)


def _width(context, builder, array_type, source):
    """What `array_view` needs to know of an array that is not contiguous."""
    if array_type.layout == "C":
        return None
    last = cgutils.unpack_tuple(builder, source.strides)[-1]
    return builder.sdiv(last, context.get_constant(types.intp, array_type.dtype.bitwidth // 8))


def _subarray(context, builder, sig, args):
    """`array[i]` of an array with more than one axis."""
    source = context.make_array(sig.args[0])(context, builder, args[0])
    shape = cgutils.unpack_tuple(builder, source.shape)[1:]
    width, offset = _width(context, builder, sig.args[0], source), args[1]
    for length in shape if width is None else [*shape, width]:
        offset = builder.mul(offset, length)
    return array_view(context, builder, sig.return_type, builder.gep(source.data, [offset]), shape, width)


if DISABLED:

    def row(array, i):
        return array[i]

    def plane(array, i):
        return array[i]

    def segment(array, start, length):
        return array[start : start + length]

    def part(array, i, start, length):
        return array[i, start : start + length]

    def flat(array):
        return array.reshape(-1)

    def as_complex(array):
        return array.view(np.complex128)

    def invoke(callback, t, arrays):
        return callback(t, *arrays)

    def call_code(code, argument):
        return code(argument)

    def view(pointer, size):
        return pointer

else:

    @intrinsic
    def row(typingctx, array, i):
        """`array[i]` of a 2-D array, as a view that owns nothing."""
        return _part(array, 1)(array, types.intp), _subarray

    @intrinsic
    def plane(typingctx, array, i):
        """`array[i]` of a 3-D array, as a view that owns nothing."""
        return _part(array, 2)(array, types.intp), _subarray

    @intrinsic
    def segment(typingctx, array, start, length):
        """`array[start : start + length]` of a 1-D array, as a view that owns nothing."""

        def codegen(context, builder, sig, args):
            source = context.make_array(sig.args[0])(context, builder, args[0])
            width, offset = _width(context, builder, sig.args[0], source), args[1]
            start = builder.gep(source.data, [offset if width is None else builder.mul(offset, width)])
            return array_view(context, builder, sig.return_type, start, [args[2]], width)

        return _part(array, 1)(array, types.intp, types.intp), codegen

    @intrinsic
    def part(typingctx, array, i, start, length):
        """`array[i, start : start + length]` of a 2-D C array, as a view that owns nothing."""

        def codegen(context, builder, sig, args):
            source = context.make_array(sig.args[0])(context, builder, args[0])
            first = builder.add(builder.mul(args[1], cgutils.unpack_tuple(builder, source.shape)[1]), args[2])
            return array_view(context, builder, sig.return_type, builder.gep(source.data, [first]), [args[3]])

        return types.Array(array.dtype, 1, "C")(array, types.intp, types.intp, types.intp), codegen

    @intrinsic
    def flat(typingctx, array):
        """The entries of a 2-D C array as a vector that owns nothing."""

        result = types.Array(array.dtype, 1, "C")

        def codegen(context, builder, sig, args):
            source = context.make_array(sig.args[0])(context, builder, args[0])
            return array_view(context, builder, result, source.data, [builder.mul(*cgutils.unpack_tuple(builder, source.shape))])

        return result(array), codegen

    @intrinsic
    def as_complex(typingctx, array):
        """Pairs of floats along the last axis of a C array as complex numbers, as a view that owns nothing."""
        result = types.Array(types.complex128, array.ndim, "C")

        def codegen(context, builder, sig, args):
            source = context.make_array(sig.args[0])(context, builder, args[0])
            *others, last = cgutils.unpack_tuple(builder, source.shape)
            data = builder.bitcast(source.data, context.get_data_type(types.complex128).as_pointer())
            return array_view(context, builder, result, data, [*others, builder.udiv(last, last.type(2))])

        return result(array), codegen

    @intrinsic
    def view(typingctx, pointer, size):
        """The vector of `size` numbers at a pointer."""

        def codegen(context, builder, sig, args):
            return array_view(context, builder, vector, args[0], [args[1]])

        return vector(pointer, types.intp), codegen

    @intrinsic
    def call_code(typingctx, code, argument):
        """Call the C function `int64 code(int64 argument)` at an address."""

        def codegen(context, builder, sig, args):
            integer = ir.IntType(64)
            c_type = ir.FunctionType(integer, [integer])
            return builder.call(builder.inttoptr(args[0], c_type.as_pointer()), [args[1]])

        return i8(i8, i8), codegen

    @intrinsic
    def invoke(typingctx, callback, t, arrays):
        """Call the C function at address `callback` with `t`, then each array's pointer, then each array's length."""

        def codegen(context, builder, sig, args):
            address, t, packed = args
            pointers, lengths = [], []
            for k, array_type in enumerate(sig.args[2].types):
                array = context.make_array(array_type)(context, builder, builder.extract_value(packed, k))
                pointers.append(array.data)
                lengths.append(builder.extract_value(array.shape, 0))
            given = [argument.type for argument in (t, *pointers, *lengths)]
            c_type = ir.FunctionType(ir.IntType(32), given)
            return builder.call(builder.inttoptr(address, c_type.as_pointer()), [t, *pointers, *lengths])

        return types.int32(types.int64, types.float64, arrays), codegen


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
            return _call_by_name(context, builder, compiler.PASS, sig.args, args)

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
