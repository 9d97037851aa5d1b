"""The frame: everything a pass works on, in one block that kernels hand on as a single pointer; what lies in it is in slots.py.

`Frame` is the Python side. It keeps the arrays alive, and it is what the kernels see with NUMBA_DISABLE_JIT.

An entry of the fused tier works on a copy of the frame that it knows more about (`Known`): the arrays of the method are constants,
shapes are constants, and small arrays lie on its stack. What is left for LLVM after inlining is straight code in registers.

A pass that switches between two methods has a frame for each. They share all arrays but those of the method, so that a kernel runs
on either, and takes its method's step. A backward pass by an implicit method has another one, on which the same kernels carry the
error of lam along.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from adjode.compile import slots
from adjode.compile.flags import DISABLED, i8, pointer
from adjode.compile.slot import I64, WORDS, Block, Group, Slot, load_pointer, word_of

SLOTS = len(slots.ALL)
# where each group begins, and the last one ends
_FIRST = [next(slot.index for slot in slots.ALL if slot.group == group) for group in Group] + [SLOTS]
_FIRST_SIZED, _FIRST_OPTIONAL, _FIRST_STORE, _FIRST_NUMBER = _FIRST[Group.SIZED : Group.NUMBER + 1]
_ON_STACK = 128  # entries of an array that a fused entry keeps on its stack
_LINE, _LONG = 64, 512  # bytes of a cache line, and of an array that begins with one
_NO_BYTES = ctypes.c_char * 0


def address_of(array: Any) -> int:
    """Where the data of a contiguous array are, in an eighth of the time that `__array_interface__` takes."""
    if array.flags.writeable:
        return ctypes.addressof(_NO_BYTES.from_buffer(array))
    return array.__array_interface__["data"][0]


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

    def __setitem__(self, slot: Slot, value: np.ndarray | int) -> None:
        at = slot.index
        if isinstance(value, np.ndarray):
            slot.require(value)
            self._place(at, address_of(value), value.shape)
        elif slot.ndim:
            raise ValueError(f"{slot!r}, {slot.meaning}, takes an array, but a {type(value).__name__} was given.")
        elif not DISABLED:
            self._words[WORDS * at] = value
        self._kept[at] = value
        if self.partner is not None:
            self.partner[slot] = value

    def __getitem__(self, slot: Slot) -> np.ndarray:
        at = slot.index
        if self._kept[at] is None:
            start = WORDS * at
            first = (self._words[start] - address_of(self._block)) // 8
            shape = tuple(self._words[start + 1 : start + 1 + slot.ndim])
            self._kept[at] = self._block[first : first + math.prod(shape)].reshape(shape)
        return self._kept[at]

    def has(self, slot: Slot) -> bool:
        """Whether anything is in the slot."""
        return bool(self._words[WORDS * slot.index])

    def adopt(self, other: Frame, *groups: Group) -> None:
        """Take the slots of these groups over from another frame."""
        for group in groups:
            begin, end = _FIRST[group], _FIRST[group + 1]
            self._words[WORDS * begin : WORDS * end] = other._words[WORDS * begin : WORDS * end]
            self._kept[begin:end] = other._kept[begin:end]

    def pair(self) -> Frame:
        """A frame with the same arrays, to be given others: what is put here from now on goes there too, but not the reverse."""
        partner = Frame()
        partner.adopt(self, *Group)
        partner._block = self._block
        self[slots.PARTNER], self.partner = partner.argument, partner
        return partner

    def allocate(self, shapes: dict[Slot, tuple[int, ...]]) -> None:
        """Zeros of these shapes, in one block of memory, long ones at the start of a cache line: vectors across two take longer."""
        sizes = [8 * math.prod(shape) for shape in shapes.values()]
        self._block = np.zeros(sum(sizes) // 8 + _LINE // 8 * sum(size >= _LONG for size in sizes))
        address = address_of(self._block)
        for (slot, shape), size in zip(shapes.items(), sizes, strict=True):
            if size >= _LONG:
                address += -address % _LINE
            self._place(slot.index, address, shape)
            address += size
            if DISABLED:
                self[slot]

    def _place(self, index: int, address: int, shape: tuple[int, ...]) -> None:
        words, start = self._words, WORDS * index
        words[start] = address
        for length in shape:
            start += 1
            words[start] = length

    def integers_of(self, chosen: Iterable[Slot]) -> Iterator[np.ndarray]:
        """The arrays of these slots, here and in the frame beside, each once, as vectors of integers; of rows for the stages, or
        for places in a step, only those at its start.
        """
        seen = set()
        for one in filter(None, (self, self.partner)):
            for slot in filter(one.has, chosen):
                array = one[slot][0] if slot in (slots.K, slots.GUARD_VALUES) else one[slot]
                address = address_of(array)
                if array.size and address not in seen:
                    seen.add(address)
                    yield array.reshape(-1).view(np.int64)

    def describe(self) -> str:
        """What is in the frame, a line for each slot: its name, its shape, what it means; then the numbers that have names."""
        lines = []
        for slot in filter(self.has, slots.ALL):
            shape = str(self[slot].shape) if slot.ndim else "address"
            lines.append(f"{slot.name:15} {shape:15} {slot.meaning}")
            if isinstance(slot, Block):
                for (name, meaning), value in zip(slot.entries.items(), self[slot].tolist(), strict=True):
                    lines.append(f"    {name:15} {value!s:11} {meaning}")
        return "\n".join(lines)

    @property
    def form(self) -> bytes:
        """What tells frames apart that need different entries of the fused tier."""
        words = self._words
        ends = {1: _FIRST_OPTIONAL, 2: _FIRST_NUMBER, 3: _FIRST_NUMBER}  # the first length of a store may be any
        shapes = (words[k : WORDS * end : WORDS].tobytes() for k, end in ends.items())
        empty = bytes(words[k] == 0 for k in range(WORDS * _FIRST_OPTIONAL + 1, WORDS * _FIRST_STORE, WORDS))
        kept = (one.tobytes() for one in self._kept[:_FIRST_SIZED] if one is not None)
        return b"".join((*shapes, empty, *kept, b"" if self.partner is None else self.partner.form))

    def known(self, slots_at: dict[int, set[Slot]] | None = None) -> Known:
        """What a fused entry for frames like this one may know; `slots_at` says what is at the addresses that are in the frames."""
        slots_at = slots_at or self._slots_at()
        constants, shapes = {}, {}
        for slot in filter(self.has, slots.ALL[:_FIRST_NUMBER]):
            kept = self[slot]
            if slot.group < Group.SIZED:
                constants[slot] = kept
            elif slot.group == Group.SIZED or (slot.group == Group.OPTIONAL and not kept.size):
                shapes[slot] = kept.shape
            else:
                shapes[slot] = (None, *kept.shape[1:])
        twofold = frozenset(slot for slot, address in self._addresses() if len(slots_at[address]) > 1)
        if self.partner is None:
            return Known(constants, shapes, twofold=twofold)
        same = frozenset(slot for slot, address in self.partner._addresses() if self._words[WORDS * slot.index] == address)
        return Known(constants, shapes, replace(self.partner.known(slots_at), shared=same), twofold=twofold)

    def _addresses(self) -> Iterator[tuple[Slot, int]]:
        """Where the arrays of known sizes are, of those that have any."""
        for slot in filter(self.has, slots.ALL[_FIRST_SIZED:_FIRST_OPTIONAL]):
            if self[slot].size:
                yield slot, self._words[WORDS * slot.index]

    def _slots_at(self) -> dict[int, set[Slot]]:
        """By address, in this frame and those beside it, the slots of known sizes."""
        found = {} if self.partner is None else self.partner._slots_at()
        for slot, address in self._addresses():
            found.setdefault(address, set()).add(slot)
        return found


@dataclass(frozen=True, eq=False)
class Known:
    """Contents and shapes that an entry of the fused tier is compiled for; an unknown length is None.

    `partner` is the same for the frame beside it, of which the `shared` slots have the arrays of this one. Those of `twofold` slots
    are in other slots too, so they stay where they are.
    """

    constants: dict[Slot, np.ndarray]
    shapes: dict[Slot, tuple[Any, ...]]
    partner: Known | None = None
    shared: frozenset[Slot] = frozenset()
    twofold: frozenset[Slot] = frozenset()

    @property
    def key(self) -> str:
        contents = [(slot.name, kept.dtype.str, kept.shape, kept.tobytes()) for slot, kept in self.constants.items()]
        shapes = [(slot.name, shape) for slot, shape in self.shapes.items()]
        partner = self.partner and (self.partner.key, sorted(slot.name for slot in self.partner.shared))
        twofold = sorted(slot.name for slot in self.twofold)
        return hashlib.sha256(repr((contents, shapes, partner, twofold)).encode()).hexdigest()[:16]

    @property
    def stacked(self) -> dict[Slot, int]:
        """Sizes of the arrays to keep on the stack."""
        sized = {slot: math.prod(map(int, shape)) for slot, shape in self.shapes.items() if slot.group == Group.SIZED}
        return {slot: size for slot, size in sized.items() if size <= _ON_STACK and slot not in self.shared | self.twofold}


if DISABLED:

    def opened(address):
        return address

else:

    @intrinsic
    def opened(typingctx, address):
        """The frame at an address."""

        def codegen(context, builder, sig, args):
            return builder.inttoptr(args[0], I64.as_pointer())

        return pointer(i8), codegen


def make_local(known: Known) -> tuple[Callable, Callable]:
    """`local(frame)`, a copy of the frame that has what is known in it, and `give_back(frame, local)`, before an entry returns."""

    @intrinsic
    def local(typingctx, frame):
        def codegen(context, builder, sig, args):
            first = words = _copied_in(builder, args[0], known)
            source, partner = args[0], known.partner
            while partner is not None:
                source = _load(builder, source, slots.PARTNER)
                theirs = _copied_in(builder, source, partner)
                for slot in sorted(partner.shared, key=attrgetter("index")):
                    store_pointer(builder, theirs, slot, _load(builder, words, slot))
                store_pointer(builder, words, slots.PARTNER, theirs)
                words, partner = theirs, partner.partner
            return first

        return frame(frame), codegen

    @intrinsic
    def give_back(typingctx, frame, local):
        def codegen(context, builder, sig, args):
            frames, one = args, known
            while one is not None:
                _copy_out(builder, *frames, one)
                one = one.partner
                if one is not None:
                    frames = [_load(builder, each, slots.PARTNER) for each in frames]
            return context.get_dummy_value()

        return types.none(frame, local), codegen

    return local, give_back


def _copied_in(builder, frame, known):
    words = builder.bitcast(cgutils.alloca_once(builder, ir.ArrayType(I64, WORDS * SLOTS)), I64.as_pointer())
    cgutils.raw_memcpy(builder, words, frame, I64(WORDS * SLOTS), 8, align=8)
    for slot, kept in known.constants.items():
        store_shape(builder, words, slot, kept.shape)
        store_pointer(builder, words, slot, _constant(builder, slot, kept))
    for slot, shape in known.shapes.items():
        store_shape(builder, words, slot, shape)
    for slot, size in known.stacked.items():
        on_stack = cgutils.alloca_once(builder, ir.ArrayType(I64, size))
        _copy(builder, on_stack, _load(builder, frame, slot), size)
        store_pointer(builder, words, slot, on_stack)
    return words


def _copy_out(builder, frame, local, known):
    for slot, size in known.stacked.items():
        to, source = (_load(builder, each, slot) for each in (frame, local))
        _copy(builder, to, source, size)


def _load(builder, frame, slot):
    return load_pointer(builder, word_of(builder, frame, slot.index, 0), I64)


def store_shape(builder, words, slot, shape):
    for k, length in enumerate(shape):
        if length is not None:
            builder.store(I64(length), word_of(builder, words, slot.index, 1 + k))


def store_pointer(builder, words, slot, value):
    word = word_of(builder, words, slot.index, 0)
    builder.store(value, builder.bitcast(word, value.type.as_pointer()))


def _copy(builder, to, source, size):
    cgutils.raw_memcpy(builder, builder.bitcast(to, I64.as_pointer()), source, I64(size), 8, align=8)


def _constant(builder, slot, kept):
    element = ir.DoubleType() if kept.dtype == np.float64 else I64
    contents = ir.Constant(ir.ArrayType(element, kept.size), [element(value) for value in kept.ravel().tolist()])
    return cgutils.global_constant(builder, f"adjode.known.{slot.name}", contents)
