"""The functions that lie between a user's callback and the kernels, made for its kind, whatever the number of its arrays.

A C function cannot take `*arrays`, and Numba cannot hand them on inside of a `try`. So the source of such a function is filled into
a template, with the names of the kind's arrays; its lines are kept, so that tracebacks and Numba's errors show them.
"""

from __future__ import annotations

import ctypes
import linecache
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from adjode.compile.entries import code_address, entry
from adjode.compile.flags import DISABLED, USERS, f8, i8, linked
from adjode.compile.kinds import SHAPES, Kind
from adjode.compile.views import view

_WRITTEN = "<adjode: "  # how the names of files begin that exist in memory only
_pointer = types.CPointer(f8)
_compiled = njit(**USERS)

_IN_PLACE = """
def form({arguments}):
    function({given})
"""

_OUT_OF_PLACE = """
def form({arguments}):
    {results} = function({given})
    {stores}
"""

_INPUTS_GUARD = """
def guarded(t, {arrays}):
    {copies}
    function(t, {arrays})
    {tests}
"""

_GUARD = """
def guarded(t, {arrays}):
    return attempted((t, {arrays}))
"""

_C_FUNCTION = """
def adapter(t, {arrays}, {sizes}):
    return int32(guarded(t, {views}))
"""


def written(template: str, kind: Kind, parts: dict[str, str], **known: Any) -> Callable:
    """The function that a template defines, with these parts, for a kind of callback; `known` are the names it may use."""
    source = template.format(**parts).lstrip()
    name = source[len("def ") : source.index("(")]
    file = f"{_WRITTEN}{name} of {kind.name}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    space = {"__name__": __name__, **known}
    exec(compile(source, file, "exec"), space)
    return space[name]


def is_ours(file: str) -> bool:
    """Whether code is from here, and not the user's."""
    return file == __file__ or file.startswith(_WRITTEN)


# --- from either form to vectors in place ---------------------------------------------------------------------------------


@_compiled
def _fill(target, values):
    if len(values) != target.size:
        raise ValueError("the array returned has the wrong length")
    for i in range(target.size):
        target[i] = values[i]


@_compiled
def _fill_matrix(target, values):
    if values.shape != target.shape:
        raise ValueError("the matrix returned has the wrong shape")
    target[:] = values


_LENGTHS = {"n": "u.size", "m": "theta.size"}  # in terms of what every callback reads
_STORES = ("{0}[0] = {0}_given", "fill({0}, {0}_given)", "fill_matrix({shaped}, {0}_given)")  # by the number of axes


def _shaped(array: str) -> str:
    """A vector in the shape that the user's function gives to it."""
    if len(SHAPES[array]) < 2:
        return array
    return f"{array}.reshape(({', '.join(_LENGTHS[length] for length in SHAPES[array])}))"


def in_place_form(kind: Kind, function: Callable, in_place: bool, compiled: Callable = _compiled) -> Callable:
    """A compiled function, in either form, as one that overwrites vectors, and that is `compiled` likewise."""
    if in_place and not kind.returns_matrix:
        return function
    parts = {"arguments": ", ".join(kind.arguments(in_place=True))}
    if in_place:
        parts["given"] = ", ".join(("t", *kind.inputs, *map(_shaped, kind.outputs)))
        return compiled(written(_IN_PLACE, kind, parts, function=function))
    stores = (_STORES[len(SHAPES[name])].format(name, shaped=_shaped(name)) for name in kind.outputs)
    parts["given"] = ", ".join(kind.arguments(in_place=False))
    parts["results"], parts["stores"] = ", ".join(f"{name}_given" for name in kind.outputs), "\n    ".join(stores)
    return compiled(written(_OUT_OF_PLACE, kind, parts, function=function, fill=_fill, fill_matrix=_fill_matrix))


# --- guards -------------------------------------------------------------------------------------------------------------------


def attempt(function: Callable) -> Callable:
    """`attempted(arguments) -> status` for a jitted function of the user's: 1 if it raises, and else 0.

    What `try` and `except` compile to is the same, but takes four times as long to become that.
    """
    if DISABLED:

        def tried(arguments):
            try:
                function(*arguments)
            except Exception:
                return 1
            return 0

        return tried

    @intrinsic
    def attempted(typingctx, arguments):
        kind = typingctx.resolve_value_type(function)
        called = kind.get_call_type(typingctx, tuple(arguments), {})

        def codegen(context, builder, sig, args):
            compiled = kind.dispatcher.get_compile_result(called)
            takes, returns = compiled.fndesc.argtypes, compiled.fndesc.restype
            context.add_linking_libs([compiled.library])
            given = zip(cgutils.unpack_tuple(builder, args[0]), arguments, takes, strict=True)
            given = [context.cast(builder, value, is_of, wanted) for value, is_of, wanted in given]
            callee = context.declare_function(builder.module, compiled.fndesc)
            status, result = context.call_conv.call_function(builder, callee, returns, takes, given)
            with builder.if_then(status.is_ok):  # what may be None comes back as zeros then, which hold nothing
                context.nrt.decref(builder, returns.type if isinstance(returns, types.Optional) else returns, result)
            return builder.zext(status.is_error, context.get_value_type(types.int64))

        return types.int64(arguments), codegen

    return attempted


CHANGED = "the callback changed one of its input arrays"


@_compiled
def _unchanged(array, copy):
    for i in range(array.size):
        if array[i] != copy[i]:
            array[:] = copy
            raise ValueError(CHANGED)


def guard_inputs(kind: Kind, function: Callable) -> Callable:
    """For debug mode: raise if the callback writes into an array that it should only read."""
    parts = {"arrays": ", ".join(kind.arrays)}
    parts["copies"] = "; ".join(f"{name}_before = {name}.copy()" for name in kind.inputs)
    parts["tests"] = "; ".join(f"unchanged({name}, {name}_before)" for name in kind.inputs)
    return _compiled(written(_INPUTS_GUARD, kind, parts, function=function, unchanged=_unchanged))


def guard(kind: Kind, function: Callable) -> Any:
    """A function of t and the kind's arrays, for entries to link in, that returns 1 if the user's `function` raises, and else 0."""
    return linked(written(_GUARD, kind, {"arrays": ", ".join(kind.arrays)}, attempted=attempt(function)))


# --- for kernels ----------------------------------------------------------------------------------------------------------------


def c_function(kind: Kind, function: Callable, key: str | None) -> tuple[Any, Any]:
    """The C function that kernels call, as (object to keep alive, address); kept on disk under `key`.

    Its arguments are t, a pointer for each array, a length for each array.
    """
    guarded = guard(kind, function)
    if DISABLED:
        return guarded, guarded
    arrays, sizes = kind.arrays, [f"{name}_size" for name in kind.arrays]
    views = (f"view({name}, {size})" for name, size in zip(arrays, sizes, strict=True))
    parts = {"arrays": ", ".join(arrays), "sizes": ", ".join(sizes), "views": ", ".join(views)}
    adapter = written(_C_FUNCTION, kind, parts, guarded=guarded, view=view, int32=np.int32)
    signature = f8, *(_pointer,) * len(arrays), *(i8,) * len(arrays)
    compiled = entry(adapter, signature, f"callback_{kind.name}", key, wrapped=False)
    return compiled, code_address(compiled)


def call_c_function(address: int, t: float, arrays: Sequence[np.ndarray]) -> int:
    """Call such a C function from Python: 1 if the user's code raises, else 0."""
    count = len(arrays)
    types_of = ctypes.c_double, *(ctypes.c_void_p,) * count, *(ctypes.c_int64,) * count
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *types_of)(address)
    return function(t, *(array.ctypes.data for array in arrays), *(array.size for array in arrays))


def make_function(name: str, arguments: str, body: str, known: dict[str, Any]) -> Callable:
    """The Python function of this name that joins others, `known` by their names, in one body."""
    source = f"def {name}({arguments}):\n{body}"
    file = f"{_WRITTEN}{name}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    space = {"__name__": __name__, **known}
    exec(compile(source, file, "exec"), space)
    return space[name]
