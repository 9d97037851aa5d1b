"""The frame: everything a pass works on, in one block that kernels hand on as a single pointer.

A frame is an array of integers, four words a slot: the address of an array and its shape, or one number such as the address of
a callback. A kernel asks for what it needs (`vector_at(frame, Y)`) and gets a view that owns nothing.

`Frame` is the Python side. It keeps the arrays alive, and it is what the kernels see with NUMBA_DISABLE_JIT.

An entry of the fused tier works on a copy of the frame that it knows more about (`Known`): the arrays of the method are constants,
shapes are constants, and small arrays lie on its stack. What is left for LLVM after inlining is straight code in registers.

A pass that switches between two methods has a frame for each. They share all arrays but those of the method, so that a kernel runs
on either, and takes its method's step.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from adjode.jit import DISABLED, array_view, cube, i8, integers, matrix, pointer, vector

WORDS = 4

# fmt: off
(
    # --- arrays that do not change: those of the method, and settings
    A, C, E, PT,          # tableau: coefficients, nodes, error weights, dense-output weights by power
    WEIGHTS, NODES,       # quadrature rule: weights and error weights, interior nodes
    Q_ROWS,               # row of Q for the integrand of each stage
    EIGENVALUES, TRANSFORM, INVERSE,  # implicit methods: what separates the stages, see Tableau.decoupled
    SETTING,              # integers, named in loops/integrate.py
    WANTS,                # flags, named in adjoints/products.py
    WIDTHS, SOURCE,       # bandwidths of the Jacobian, lower and upper; where it comes from, named in jacobian.py
    # --- arrays whose shapes depend on the method and on the numbers of states and parameters
    CONTROL,              # floats, named in loops/integrate.py
    COUNT, CLOCK,         # integers and floats that change
    ATOL, START, THETA,
    Y, ERROR, K,          # the state, error estimate, slopes of the stages
    Q,                    # integrands: rows of the rule, then a scratch row
    TOTAL, INCREMENT,     # the quadrature so far, and of the step tried
    U_BAR, THETA_BAR, G_U, VALUE,  # scratch that callbacks write to
    PLACE, U,             # the step of the forward solve last looked up; the state there
    LAM, K_BAR, BASIS, STAGE_BAR, Y_BAR,  # discrete adjoint
    JACOBIAN,             # df/du in the storage of the linear solver
    LU, PIVOTS, LU_COMPLEX, PIVOTS_COMPLEX,
    ROUTINES, DIAGONAL,   # addresses of compiled code; where in the storage the diagonal is
    SYMBOLIC,             # order and fill-in of a sparse matrix, see linalg/sparse.py
    UNIT, PULLED, PULLED_THETA, WHOLE,  # scratch of its assembly: lam, and what a vjp writes; what a jac writes
    ROW_STARTS, ROW_ORDER, ENTRY_STARTS, ENTRY_SOURCES, ENTRY_PLACES,  # groups of rows; their entries: from where to where
    MASS, MASS_STARTS, MASS_COLUMNS, MASS_PLACES, MASSED,  # the mass matrix by rows, its places in that storage; products with it
    NULL, NULL_STARTS, NULL_COLUMNS,  # a basis, by rows, of the vectors that its transpose sends to zero
    POWER, ENTRIES,       # a vector of the power method; rows, columns and places in the storage of the Jacobian's entries
    Z, W, RIGHT, PAIR, PREVIOUS,  # Newton: increments of the stages, transformed, right-hand sides; the last step's dense output
    KRYLOV, HESSENBERG,   # the transposed stages: basis of the Krylov space, and its small least-squares problem
    # --- arrays with a row for each step or time
    STAGES,               # (k, r, n) states of all stages, y itself the first
    MESH_T, MESH_U, MESH_C,     # the dense output recorded
    MESH_KIND, FORWARD_KIND,    # the kind of each step; empty where all are of one kind
    OBSERVED,             # states observed along the way
    FORWARD_T, FORWARD_U, FORWARD_C, FORWARD_STAGES, FORWARD_COUNT,  # what the forward solve has recorded, and its COUNT
    JUMPS, ANCHORS,       # what to add to lam, and where to put the state, at each time
    STOPS, CROSSED,       # where to stop; 1 where f may jump there, and else 0: empty for zeros
    JUMP_ROWS,            # the row of JUMPS for each stop, -1 for none; empty where they are in reverse order
    TIMES,                # where to observe
    WATCH,                # when to look up from the work, see watch.py
    U0_BAR,               # where a backward pass leaves lam at t0
    ROWS, DATA, DATA_WEIGHTS, COMPONENTS,  # losses: row of OBSERVED for each datum, the data, 1/sigma, what was observed
    # --- callbacks
    F, VJP, VJP_U, G, G_VJP, JAC,
    PARTNER,              # the frame of the other method
    SLOTS,
) = range(103)
# Entries of SETTING. LAST_STAGE is s; TOP is the last stage of the dense output; DENSE says whether every step needs its dense
# output; RECORD is a sum of what is kept of each step; INTEGRAND_FREE says that the derivative writes the whole integrand into q;
# FILTERED is that of Tableau.
LAST_STAGE, TOP, ADAPTIVE, DENSE, RECORD, RULE, INTEGRAND_FREE, FILTERED = range(8)
EXPLICIT_STEP, IMPLICIT_STEP, CROSSING = range(3)  # entries of MESH_KIND
RECORD_DENSE, RECORD_STAGES, RECORD_MESH = 1, 2, 4  # dense output; the states of all stages; nothing but times and states
# Entries of CONTROL. ATOL_SCALE, if positive, sets the absolute tolerances of a pass over lam by the largest cotangent; EPS is the
# spacing of numbers at 1.
RTOL, Q_RTOL, Q_ATOL, MAX_STEP, DIRECTION, SPAN, ERROR_ORDER, T_START, FIRST_STEP, MAX_ATTEMPTS, ATOL_SCALE, NEWTON_TOL, EPS = (
    range(13)
)
# Entries of CLOCK. LOG_ERROR is the logarithm of the last accepted step's error norm; T_TRIED and H_TRIED describe the last
# evaluation or step tried, for error messages; H_LAST is the step that LOG_ERROR belongs to. Implicit methods: the step that the
# factorisation was made for, that of PREVIOUS, and what remains after a correction of Newton's, as a part of it. RADIUS is the
# spectral radius of the Jacobian. T_REST is what the time reached has beyond T, by rounding.
T, H, LOG_ERROR, T_TRIED, H_TRIED, H_LAST, H_FACTORED, H_PREVIOUS, REMAINS, RADIUS, T_REST, CLOCKS = range(12)
# Entries of COUNT. STIFF says which of two methods is in use; EVIDENCE and CALM count what speaks for the other one, and against.
# The last ones belong to implicit methods: how fresh the Jacobian is, see steppers/frozen.py, the iterations of the last solve, and
# the work.
STEPS, REJECTED, DERIVATIVES, INTEGRANDS, STOP, FRESH, RETRY, SEEN, ENTERED, CROSSINGS = range(10)
STIFF, EVIDENCE, CALM, SWITCHES = range(10, 14)
FRESHNESS, LAST_ITERATIONS, JACOBIANS, FACTORISATIONS, ITERATIONS, COUNTERS = range(14, 20)
# fmt: on

_FIRST_SIZED, _FIRST_STORE, _FIRST_NUMBER = CONTROL, STAGES, F
_ON_STACK = 128  # entries of an array that a fused entry keeps on its stack


class Frame:
    """The arrays and numbers of one pass, by slot."""

    def __init__(self) -> None:
        self._words = array("q", bytes(8 * WORDS * SLOTS))  # its items are set in half the time that NumPy's take
        self._kept: list = [None] * SLOTS
        self._block = np.zeros(0)
        self.partner: Frame | None = None
        self.owners: list = []  # of what addresses in the frame point to
        # what entries take
        self.argument: Any = self._kept if DISABLED else self._words.buffer_info()[0]

    def __setitem__(self, slot: int, value: np.ndarray | int) -> None:
        self._kept[slot] = value
        if isinstance(value, np.ndarray):
            if not value.flags.c_contiguous:
                raise ValueError("arrays in a frame must be contiguous")
            self._place(slot, value.__array_interface__["data"][0], value.shape)
        elif not DISABLED:
            self._words[WORDS * slot] = value
        if self.partner is not None:
            self.partner[slot] = value

    def __getitem__(self, slot: int) -> np.ndarray:
        if self._kept[slot] is None:
            start = WORDS * slot
            first = (self._words[start] - self._block.__array_interface__["data"][0]) // 8
            shape = tuple(self._words[start + 1 : start + 1 + self._words[start + 3]])
            self._kept[slot] = self._block[first : first + math.prod(shape)].reshape(shape)
        return self._kept[slot]

    def has(self, slot: int) -> bool:
        """Whether anything is in the slot."""
        return bool(self._words[WORDS * slot])

    def adopt(self, other: Frame, begin: int, end: int) -> None:
        """Take slots begin..end-1 over from another frame."""
        self._words[WORDS * begin : WORDS * end] = other._words[WORDS * begin : WORDS * end]
        self._kept[begin:end] = other._kept[begin:end]

    def pair(self) -> Frame:
        """A frame with the same arrays, for another method: what is put here from now on goes there too, but not the reverse."""
        partner = Frame()
        partner.adopt(self, 0, SLOTS)
        partner._block = self._block
        self[PARTNER], self.partner = partner.argument, partner
        return partner

    def allocate(self, shapes: dict[int, tuple[int, ...]]) -> None:
        """Zeros of these shapes (of one or two axes), in one block of memory."""
        self._block = np.zeros(sum(math.prod(shape) for shape in shapes.values()))
        address = self._block.__array_interface__["data"][0]
        for slot, shape in shapes.items():
            self._place(slot, address, shape)
            self._words[WORDS * slot + 3] = len(shape)
            address += 8 * math.prod(shape)
            if DISABLED:
                self[slot]

    def _place(self, slot: int, address: int, shape: tuple[int, ...]) -> None:
        words, start = self._words, WORDS * slot
        words[start] = address
        for length in shape:
            start += 1
            words[start] = length

    def __reduce__(self):
        raise TypeError("a frame holds addresses of this process, so it cannot be copied or pickled.")

    @property
    def form(self) -> bytes:
        """What tells frames apart that need different entries of the fused tier."""
        words = self._words
        ends = {1: _FIRST_STORE, 2: _FIRST_NUMBER, 3: _FIRST_NUMBER}  # the first length of a store may be any
        shapes = (words[k : WORDS * end : WORDS].tobytes() for k, end in ends.items())
        kept = (self._kept[slot].tobytes() for slot in range(_FIRST_SIZED) if self._kept[slot] is not None)
        return b"".join((*shapes, *kept, b"" if self.partner is None else self.partner.form))

    def known(self) -> Known:
        """What a fused entry for frames like this one may know."""
        constants, shapes = {}, {}
        for slot in range(_FIRST_NUMBER):
            if not self.has(slot):
                continue
            kept = self[slot]
            if slot < _FIRST_SIZED:
                constants[slot] = kept
            elif slot < _FIRST_STORE:
                shapes[slot] = kept.shape
            else:
                shapes[slot] = (None, *kept.shape[1:])
        if self.partner is None:
            return Known(constants, shapes)
        ours, theirs = self._words, self.partner._words
        same = frozenset(slot for slot in range(_FIRST_SIZED, _FIRST_STORE) if ours[WORDS * slot] == theirs[WORDS * slot])
        return Known(constants, shapes, replace(self.partner.known(), shared=same))


@dataclass(frozen=True, eq=False)
class Known:
    """Contents and shapes that an entry of the fused tier is compiled for; an unknown length is None.

    `partner` is the same for the frame of another method, of which the `shared` slots have the arrays of the first.
    """

    constants: dict[int, np.ndarray]
    shapes: dict[int, tuple[Any, ...]]
    partner: Known | None = None
    shared: frozenset[int] = frozenset()

    @property
    def key(self) -> str:
        contents = [(slot, kept.dtype.str, kept.shape, kept.tobytes()) for slot, kept in self.constants.items()]
        partner = self.partner and (self.partner.key, sorted(self.partner.shared))
        return hashlib.sha256(repr((contents, self.shapes, partner)).encode()).hexdigest()[:16]

    @property
    def stacked(self) -> dict[int, int]:
        """Sizes of the arrays to keep on the stack."""
        sized = {slot: math.prod(map(int, shape)) for slot, shape in self.shapes.items() if _FIRST_SIZED <= slot < _FIRST_STORE}
        return {slot: size for slot, size in sized.items() if size <= _ON_STACK and slot not in self.shared}


if DISABLED:

    def opened(address):
        return address

    def _kept(frame, slot):
        return frame[slot]

    vector_at = matrix_at = cube_at = integers_at = number_at = _kept

    def partner_at(frame):
        return frame[PARTNER]

else:
    _i64 = ir.IntType(64)

    def _word(builder, frame, slot, k):
        position = builder.add(builder.mul(slot, ir.Constant(slot.type, WORDS)), ir.Constant(slot.type, k))
        return builder.gep(frame, [position])

    def _load_pointer(builder, word, element):
        """Pointers are loaded as such: an integer cast to one would hide what it points to from LLVM."""
        return builder.load(builder.bitcast(word, element.as_pointer().as_pointer()))

    def _accessor(array_type):
        @intrinsic(prefer_literal=True)
        def at(typingctx, frame, slot):
            # the frames of another target say themselves what lies in their slots
            found = array_type if frame == pointer else frame.array_in(slot.literal_value, array_type)

            def codegen(context, builder, sig, args):
                element = context.get_data_type(found.dtype)
                data = _load_pointer(builder, _word(builder, args[0], args[1], 0), element)
                shape = [builder.load(_word(builder, args[0], args[1], 1 + k)) for k in range(found.ndim)]
                width = None if found.layout == "C" else builder.load(_word(builder, args[0], args[1].type(SLOTS), 0))
                return array_view(context, builder, found, data, shape, width)

            return found(frame, slot), codegen

        return at

    vector_at, matrix_at, cube_at, integers_at = (_accessor(kind) for kind in (vector, matrix, cube, integers))

    @intrinsic
    def number_at(typingctx, frame, slot):
        def codegen(context, builder, sig, args):
            return builder.load(_word(builder, args[0], args[1], 0))

        return types.int64(frame, types.intp), codegen

    def _partner(builder, frame):
        return _load_pointer(builder, _word(builder, frame, _i64(PARTNER), 0), _i64)

    @intrinsic
    def partner_at(typingctx, frame):
        """The frame of the other method."""

        def codegen(context, builder, sig, args):
            return _partner(builder, args[0])

        return pointer(frame), codegen

    @intrinsic
    def opened(typingctx, address):
        """The frame at an address."""

        def codegen(context, builder, sig, args):
            return builder.inttoptr(args[0], _i64.as_pointer())

        return pointer(i8), codegen


def make_local(known: Known) -> tuple[Callable, Callable]:
    """`local(frame)`, a copy of the frame that has what is known in it, and `give_back(frame, local)`, before an entry returns."""

    @intrinsic
    def local(typingctx, frame):
        def codegen(context, builder, sig, args):
            words = _copied_in(builder, args[0], known)
            if known.partner is not None:
                theirs = _copied_in(builder, _partner(builder, args[0]), known.partner)
                for slot in sorted(known.partner.shared & known.stacked.keys()):
                    store_pointer(builder, theirs, slot, _load_pointer(builder, _word(builder, words, _i64(slot), 0), _i64))
                store_pointer(builder, words, PARTNER, theirs)
            return words

        return frame(frame), codegen

    @intrinsic
    def give_back(typingctx, frame, local):
        def codegen(context, builder, sig, args):
            _copy_out(builder, *args, known)
            if known.partner is not None:
                _copy_out(builder, *(_partner(builder, each) for each in args), known.partner)
            return context.get_dummy_value()

        return types.none(frame, local), codegen

    return local, give_back


def _copied_in(builder, frame, known):
    words = builder.bitcast(cgutils.alloca_once(builder, ir.ArrayType(_i64, WORDS * SLOTS)), _i64.as_pointer())
    cgutils.raw_memcpy(builder, words, frame, _i64(WORDS * SLOTS), 8, align=8)
    for slot, kept in known.constants.items():
        store_shape(builder, words, slot, kept.shape)
        store_pointer(builder, words, slot, _constant(builder, slot, kept))
    for slot, shape in known.shapes.items():
        store_shape(builder, words, slot, shape)
    for slot, size in known.stacked.items():
        on_stack = cgutils.alloca_once(builder, ir.ArrayType(_i64, size))
        _copy(builder, on_stack, _load_pointer(builder, _word(builder, frame, _i64(slot), 0), _i64), size)
        store_pointer(builder, words, slot, on_stack)
    return words


def _copy_out(builder, frame, local, known):
    for slot, size in known.stacked.items():
        to, source = (_load_pointer(builder, _word(builder, each, _i64(slot), 0), _i64) for each in (frame, local))
        _copy(builder, to, source, size)


def store_shape(builder, words, slot, shape):
    for k, length in enumerate(shape):
        if length is not None:
            builder.store(_i64(length), _word(builder, words, _i64(slot), 1 + k))


def store_pointer(builder, words, slot, value):
    word = _word(builder, words, _i64(slot), 0)
    builder.store(value, builder.bitcast(word, value.type.as_pointer()))


def _copy(builder, to, source, size):
    cgutils.raw_memcpy(builder, builder.bitcast(to, _i64.as_pointer()), source, _i64(size), 8, align=8)


def _constant(builder, slot, kept):
    element = ir.DoubleType() if kept.dtype == np.float64 else _i64
    contents = ir.Constant(ir.ArrayType(element, kept.size), [element(value) for value in kept.ravel().tolist()])
    return cgutils.global_constant(builder, f"adjode.known.{slot}", contents)
