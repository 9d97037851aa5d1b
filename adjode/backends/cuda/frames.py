"""The frames of one thread: what `compile/frame.py` has for a process, made inside the kernel.

A thread owns a frame for each pass. The arrays of the method are constants in it, those of the size of the state lie in the
thread's local memory, which the compiler keeps in registers where it can, and what has a row for each step lies in *lanes*: columns
of one array in device memory, in which neighbouring threads have neighbouring numbers. The kernels of `loops`, `steppers` and
`adjoints` ask for their arrays as always; the type of the frame says what they get.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic

from adjode.compile import slots
from adjode.compile.flags import DISABLED
from adjode.compile.frame import SLOTS, store_pointer, store_shape
from adjode.compile.slot import I64, WORDS, Slot, slot_of, word_of
from adjode.compile.watch import new_watch

_CONSTANT_MEMORY = 4  # its address space in NVVM IR (NVVM IR specification, "Address Spaces")


class ThreadFrame(types.CPointer):
    """The type of a frame whose numbers are `real` and whose arrays in the slots `lanes` are columns.

    All columns are of one array, whose width is in a word behind those of the slots.
    """

    width_word = WORDS * SLOTS

    def __init__(self, real: types.Float, lanes: frozenset[Slot]):
        super().__init__(types.int64)
        self.real, self.lanes = real, lanes
        self.name = f"ThreadFrame({real}, {sorted(slot.name for slot in lanes)})"

    @property
    def key(self):
        return self.name

    def array_in(self, slot: Slot) -> types.Array:
        far, dtype = slot in self.lanes, self.real
        if isinstance(slot.kind.dtype, types.Integer):  # in a column as wide as its other numbers
            dtype = types.Integer.from_bitwidth(self.real.bitwidth) if far else slot.kind.dtype
        return types.Array(dtype, slot.ndim, "A" if far else "C")


register_default(ThreadFrame)(models.PointerModel)


@dataclass(frozen=True, eq=False)
class Layout:
    """What is known of a thread's frame when its kernel is compiled.

    Attributes
    ----------
    real : dtype
        float64 or float32.
    constants : dict of slot -> array
    local : dict of slot -> shape
        Arrays that start as zeros in local memory,
    filled : dict of slot -> array
        and such as start with these numbers.
    lanes : dict of slot -> shape
        Columns; the first length, None here, is given when the frame is filled.
    outside : dict of slot -> function
        Callbacks that kernels call through addresses, for the simulator; for a GPU `Plan.replaced` has them.
    """

    real: np.dtype
    constants: dict[Slot, np.ndarray]
    local: dict[Slot, tuple[int, ...]]
    lanes: dict[Slot, tuple[int | None, ...]]
    filled: dict[Slot, np.ndarray] = field(default_factory=dict)
    outside: dict[Slot, Callable] = field(default_factory=dict)

    @property
    def key(self) -> tuple:
        given = (*self.constants.items(), *self.filled.items())
        contents = tuple((slot.name, kept.dtype.str, kept.shape, kept.tobytes()) for slot, kept in given)
        local, lanes = (tuple((slot.name, shape) for slot, shape in shapes.items()) for shapes in (self.local, self.lanes))
        return str(self.real), contents, local, lanes

    def dtype(self, slot: Slot) -> np.dtype:
        return slot.dtype if slot.dtype == np.int64 else self.real


def make_frame(layout: Layout) -> tuple[Callable, Callable]:
    """`new()`, the frame, and `put_lane(frame, slot, store, first, lane, length)`, rows of a column from its entry `first` on."""
    return _python_frame(layout) if DISABLED else _compiled_frame(layout)


def _python_frame(layout: Layout) -> tuple[Callable, Callable]:
    constants = {slot: _of_kind(kept, layout.real) for slot, kept in layout.constants.items()}

    def new():
        frame: list = [None] * SLOTS
        frame[slots.WATCH] = new_watch()
        for slot, kept in (constants | layout.outside).items():
            frame[slot] = kept
        for slot, shape in layout.local.items():
            frame[slot] = np.zeros(shape, dtype=layout.dtype(slot))
        for slot, kept in layout.filled.items():
            frame[slot] = kept.astype(layout.dtype(slot))
        return frame

    def put_lane(frame, slot, store, first, lane, length):
        shape = (length, *layout.lanes[slot][1:])
        column = store[first : first + math.prod(shape), lane].reshape(shape, copy=False)
        frame[slot] = column.view(f"i{column.itemsize}") if slot.dtype == np.int64 else column

    return new, put_lane


def _compiled_frame(layout: Layout) -> tuple[Callable, Callable]:
    of_type = ThreadFrame(types.float32 if layout.real == np.float32 else types.float64, frozenset(layout.lanes))

    @intrinsic
    def new(typingctx):
        def codegen(context, builder, sig, args):
            words = builder.bitcast(cgutils.alloca_once(builder, ir.ArrayType(I64, WORDS * SLOTS + 1)), I64.as_pointer())
            for slot, kept in layout.constants.items():
                store_shape(builder, words, slot, kept.shape)
                store_pointer(builder, words, slot, _constant(context, builder, slot, _of_kind(kept, layout.real)))
            for slot, shape in layout.local.items():
                store_shape(builder, words, slot, shape)
                store_pointer(builder, words, slot, _zeros(builder, layout.dtype(slot), math.prod(shape)))
            for slot, kept in layout.filled.items():
                store_shape(builder, words, slot, kept.shape)
                store_pointer(builder, words, slot, _filled(builder, kept.astype(layout.dtype(slot))))
            return words

        return of_type(), codegen

    @intrinsic
    def put_lane(typingctx, frame, slot, store, first, lane, length):
        at = slot_of(slot)

        def codegen(context, builder, sig, args):
            frame, _, store, first, lane, length = args
            array = context.make_array(sig.args[2])(context, builder, store)
            width = cgutils.unpack_tuple(builder, array.shape)[1]
            entry = builder.add(builder.mul(first, width), lane)
            store_pointer(builder, frame, at, builder.gep(array.data, [entry]))
            store_shape(builder, frame, at, layout.lanes[at])
            builder.store(length, word_of(builder, frame, at.index, 1))
            builder.store(width, word_of(builder, frame, SLOTS, 0))
            return context.get_dummy_value()

        return types.none(frame, slot, store, types.intp, types.intp, types.intp), codegen

    return new, put_lane


def _of_kind(kept: np.ndarray, real: np.dtype) -> np.ndarray:
    return kept if kept.dtype == np.int64 else kept.astype(real)


_ELEMENTS = {"float64": ir.DoubleType(), "float32": ir.FloatType(), "int64": I64}


def _zeros(builder, dtype: np.dtype, size: int):
    element = _ELEMENTS[dtype.name]
    block = cgutils.alloca_once(builder, ir.ArrayType(element, max(size, 1)))
    start = builder.bitcast(block, element.as_pointer())
    if size <= 64:
        for k in range(size):
            builder.store(element(0), builder.gep(start, [I64(k)]))
    else:
        cgutils.memset(builder, start, I64(size * dtype.itemsize), 0)
    return start


def _filled(builder, kept: np.ndarray):
    start = _zeros(builder, kept.dtype, kept.size)
    for k in np.flatnonzero(kept).tolist():
        builder.store(_ELEMENTS[kept.dtype.name](kept.item(k)), builder.gep(start, [I64(k)]))
    return start


def _constant(context, builder, slot, kept: np.ndarray):
    element = _ELEMENTS[kept.dtype.name]
    block = ir.ArrayType(element, max(kept.size, 1))
    contents = ir.Constant(block, [element(value) for value in kept.ravel().tolist() or [0]])
    space = _CONSTANT_MEMORY if context.__class__.__module__.startswith("numba.cuda") else 0
    name = builder.module.get_unique_name(f"adjode_known_{slot.name}")
    constant = cgutils.add_global_variable(builder.module, block, name, addrspace=space)
    constant.linkage, constant.global_constant, constant.initializer = "internal", True, contents
    pointer = element.as_pointer()
    return builder.addrspacecast(constant, pointer, "generic") if space else builder.bitcast(constant, pointer)


if DISABLED:

    def put(frame, slot, array, length):
        frame[slot] = array[:length]

else:

    @intrinsic
    def put(typingctx, frame, slot, array, length):
        """Let a slot hold the first `length` rows of an array that lies elsewhere."""
        at = slot_of(slot)

        def codegen(context, builder, sig, args):
            layout = sig.args[2].layout
            held = context.make_array(sig.args[2])(context, builder, args[2])
            store_pointer(builder, args[0], at, held.data)
            for k, extent in enumerate([args[3], *cgutils.unpack_tuple(builder, held.shape)[1:]]):
                builder.store(extent, word_of(builder, args[0], at.index, 1 + k))
            if layout != "C":  # all columns of a frame are of one array, as wide as any of them says
                last = cgutils.unpack_tuple(builder, held.strides)[-1]
                width = builder.sdiv(last, I64(sig.args[2].dtype.bitwidth // 8))
                builder.store(width, word_of(builder, args[0], SLOTS, 0))
            return context.get_dummy_value()

        return types.none(frame, slot, array, types.intp), codegen
