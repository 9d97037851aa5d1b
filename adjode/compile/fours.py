"""Four numbers side by side, in one register where the machine has such ones: `load`, `side_by_side`, `plus`, `store`.

LLVM makes vectors of loops, but not of one over so few entries, which it writes out instead, one entry after the other.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from adjode.compile.flags import DISABLED, FAST, f8

_DOUBLES = ir.VectorType(ir.DoubleType(), 4)
_ALIGNED = 8  # bytes, as the entries of an array are
_FLAGS = tuple(sorted(FAST))


class _Four(types.Type):
    def __init__(self) -> None:
        super().__init__(name="four numbers")


_four = _Four()


@register_model(_Four)
class _FourModel(models.PrimitiveModel):
    def __init__(self, data_model_manager, type_):
        super().__init__(data_model_manager, type_, _DOUBLES)


def _splat(builder, numbers):
    value = ir.Constant(_DOUBLES, ir.Undefined)
    for k, number in enumerate(numbers):
        value = builder.insert_element(value, number, ir.IntType(32)(k))
    return value


def _place(context, builder, array_type, array, first):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [first]), _DOUBLES.as_pointer())


if DISABLED:

    def load(array, first):
        return array[first : first + 4].copy()

    def side_by_side(a, b, c, d):
        return np.array([a, b, c, d])

    def plus(four, factor, other):
        return four + factor * other

    def store(array, first, four):
        array[first : first + 4] = four

else:

    @intrinsic
    def load(typingctx, array, first):
        """The entries `array[first : first + 4]` of a vector in C order."""

        def codegen(context, builder, sig, args):
            return builder.load(_place(context, builder, sig.args[0], *args), align=_ALIGNED)

        return _four(array, types.intp), codegen

    @intrinsic
    def side_by_side(typingctx, a, b, c, d):
        """Four numbers as one."""
        return _four(f8, f8, f8, f8), lambda context, builder, sig, args: _splat(builder, args)

    @intrinsic
    def plus(typingctx, four, factor, other):
        """`four + factor * other`, with a number for a factor."""

        def codegen(context, builder, sig, args):
            product = builder.fmul(_splat(builder, [args[1]] * 4), args[2], flags=_FLAGS)
            return builder.fadd(args[0], product, flags=_FLAGS)

        return _four(_four, f8, _four), codegen

    @intrinsic
    def store(typingctx, array, first, four):
        """`array[first : first + 4] = four`."""

        def codegen(context, builder, sig, args):
            builder.store(args[2], _place(context, builder, sig.args[0], *args[:2]), align=_ALIGNED)
            return context.get_dummy_value()

        return types.void(array, types.intp, _four), codegen
