"""The frame: everything a pass works on, in one block that kernels hand on as a single argument.

A frame is an array of integers, four words a slot: the address of an array and its shape, or one number such as the address of
a callback. A kernel asks for what it needs (`vector_at(frame, Y)`) and gets a view that owns nothing. Passed one by one, some forty
arrays would travel as three hundred machine words with every call that is not inlined.

`Frame` is the Python side. It keeps the arrays alive, and it is what the kernels see with NUMBA_DISABLE_JIT.
"""

from __future__ import annotations

import math
from array import array

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from adjode.jit import DISABLED, array_view, cube, integers, matrix, vector

_WORDS = 4

# --- slots: the method -------------------------------------------------------------------------------------------------
# fmt: off
(
    A, C, E, PT,          # tableau: coefficients, nodes, error weights, dense-output weights by power
    WEIGHTS, NODES,       # quadrature rule: weights and error weights, interior nodes
    Q_ROWS,               # row of Q for the integrand of each stage
    # --- the pass -----------------------------------------------------------------------------------------------------
    SETTING, CONTROL,     # integers and floats that do not change (named in loops/integrate.py)
    COUNT, CLOCK,         # integers and floats that do
    STOPS, ATOL,
    Y, Y_NEW, STAGE,      # the state, the state tried, the state of a stage
    ERROR, ZEROS,         # error estimate; zeros of the same length
    K,                    # slopes of the stages
    Q,                    # integrands: rows of the rule, then a scratch row
    TOTAL, INCREMENT, Q_ZEROS,  # the quadrature so far, of the step tried; zeros
    MESH_T, MESH_U, MESH_C,     # the dense output recorded
    # --- callbacks and what they work on ---------------------------------------------------------------------------------
    F, VJP, VJP_U, G, G_VJP,
    THETA,
    WANTS,                # flags (named in adjoints/products.py)
    U_BAR, THETA_BAR, G_U, VALUE,  # scratch that callbacks write to
    # --- adjoints -----------------------------------------------------------------------------------------------------
    FORWARD_T, FORWARD_U, FORWARD_C,  # the forward solve's dense output
    PLACE,                # step last looked up, number of steps
    U,                    # the forward state looked up
    JUMPS, ANCHORS,       # what to add to lam, and where to put the state, at each stop
    TIMES, STEP_OF,       # discrete adjoint: observations and the step of each
    K_BAR, BASIS, STAGE_BAR, Y_BAR,
    SLOTS,
) = range(51)
# fmt: on


class Frame:
    """The arrays and numbers of one pass, by slot."""

    def __init__(self) -> None:
        self._words = array("q", bytes(8 * _WORDS * SLOTS))  # its items are set in half the time that NumPy's take
        self._kept: list = [None] * SLOTS
        self._block = np.zeros(0)

    def __setitem__(self, slot: int, value: np.ndarray | int) -> None:
        self._kept[slot] = value
        if isinstance(value, np.ndarray):
            self._place(slot, value.__array_interface__["data"][0], value.shape)
        elif not DISABLED:
            self._words[_WORDS * slot] = value

    def __getitem__(self, slot: int) -> np.ndarray:
        if self._kept[slot] is None:
            start = _WORDS * slot
            first = (self._words[start] - self._block.__array_interface__["data"][0]) // 8
            shape = tuple(self._words[start + 1 : start + 1 + self._words[start + 3]])
            self._kept[slot] = self._block[first : first + math.prod(shape)].reshape(shape)
        return self._kept[slot]

    def adopt(self, other: Frame, begin: int, end: int) -> None:
        """Take slots begin..end-1 over from another frame."""
        self._words[_WORDS * begin : _WORDS * end] = other._words[_WORDS * begin : _WORDS * end]
        self._kept[begin:end] = other._kept[begin:end]

    def allocate(self, shapes: dict[int, tuple[int, ...]]) -> None:
        """Zeros of these shapes (of one or two axes), in one block of memory."""
        self._block = np.zeros(sum(math.prod(shape) for shape in shapes.values()))
        address = self._block.__array_interface__["data"][0]
        for slot, shape in shapes.items():
            self._place(slot, address, shape)
            self._words[_WORDS * slot + 3] = len(shape)
            address += 8 * math.prod(shape)
            if DISABLED:
                self[slot]

    def _place(self, slot: int, address: int, shape: tuple[int, ...]) -> None:
        words, start = self._words, _WORDS * slot
        words[start] = address
        for length in shape:
            start += 1
            words[start] = length

    @property
    def argument(self):
        """What entries take."""
        return self._kept if DISABLED else np.frombuffer(self._words, dtype=np.int64)


frame_type = integers

if DISABLED:

    def _kept(frame, slot):
        return frame[slot]

    vector_at = matrix_at = cube_at = integers_at = number_at = _kept

else:

    def _word(builder, frame, slot, k):
        position = builder.add(builder.mul(slot, ir.Constant(slot.type, _WORDS)), ir.Constant(slot.type, k))
        return builder.load(builder.gep(frame.data, [position]))

    def _accessor(array_type):
        @intrinsic
        def at(typingctx, frame, slot):
            def codegen(context, builder, sig, args):
                block = context.make_array(sig.args[0])(context, builder, args[0])
                element = context.get_data_type(array_type.dtype).as_pointer()
                data = builder.inttoptr(_word(builder, block, args[1], 0), element)
                shape = [_word(builder, block, args[1], 1 + k) for k in range(array_type.ndim)]
                return array_view(context, builder, array_type, data, shape)

            return array_type(frame, types.intp), codegen

        return at

    vector_at, matrix_at, cube_at, integers_at = (_accessor(kind) for kind in (vector, matrix, cube, integers))

    @intrinsic
    def number_at(typingctx, frame, slot):
        def codegen(context, builder, sig, args):
            return _word(builder, context.make_array(sig.args[0])(context, builder, args[0]), args[1], 0)

        return types.int64(frame, types.intp), codegen
