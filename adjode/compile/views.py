"""Intrinsics that kernels share: views that own nothing, calls of C functions by their addresses, and what seldom is the case.

An ordinary slice counts references, which costs more than the arithmetic on a small system.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from adjode.compile.flags import DISABLED, i8, vector


def array_view(context, builder, array_type, data, shape, width=None):
    """A view of numbers at `data`, which owns nothing: in C order, and every `width`-th number of what lies there if given."""
    from numba.np.arrayobj import populate_array  # which takes longer to import than all of this package

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

    def unlikely(condition):
        return condition

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

    @intrinsic
    def unlikely(typingctx, condition):
        """The condition of an `if`, of which LLVM is told that it seldom holds: values stay in registers on the other way."""

        def codegen(context, builder, sig, args):
            bit = ir.IntType(1)
            expect = builder.module.declare_intrinsic("llvm.expect", [bit], ir.FunctionType(bit, [bit, bit]))
            return builder.call(expect, [args[0], bit(0)])

        return types.boolean(types.boolean), codegen
