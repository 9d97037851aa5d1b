"""`Slot`: one typed place of a frame, which kernels read by calling it; slots.py declares them all.

A frame is an array of integers, `WORDS` a slot: the address of an array and its shape, or one number such as the address of a
callback. Inside a kernel `slots.Y(frame)` is a view of what lies in slot Y, of the type that the slot was declared with, so that it
cannot be taken for anything else. The view owns nothing, and no function is called for it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core.typing.templates import builtin_registry
from numba.extending import intrinsic, typeof_impl

from adjode.compile import flags, views

WORDS = 4
I64 = ir.IntType(64)


class Group(IntEnum):
    """What an entry of the fused tier may know of a slot when it is compiled. The slots of a frame are in this order."""

    METHOD = 0  # its contents: arrays of the method
    SETTINGS = 1  # its contents
    SIZED = 2  # its shape, by the method and the numbers of states and parameters
    OPTIONAL = 3  # whether it is empty, which few passes need it not to be; if not, what is known of a store
    STORE = 4  # its shape but for the first length: there is a row for each step or time
    NUMBER = 5  # nothing


class Slot:
    """
    Attributes
    ----------
    name, index : str, int
        Its name in the module that declares it, and its place in a frame.
    group : Group
    kind : numba type
        What a kernel gets.
    function : numba type
        What a kernel takes the slot for: a function of the frame.
    shape, meaning : str
        For people.
    """

    name: str
    index: int

    def __init__(self, group: Group, kind: Any, shape: str, meaning: str):
        self.group, self.kind, self.shape, self.meaning = group, kind, shape, meaning
        self.ndim = getattr(kind, "ndim", 0)
        self.dtype = np.dtype(np.float64 if self.ndim and kind.dtype == flags.f8 else np.int64)

    @functools.cached_property
    def function(self) -> Any:
        read = _reader(self)
        # for any target, and so not from the registries that a target has loaded
        return next(function for known, function in reversed(builtin_registry.globals) if known is read)

    def __index__(self) -> int:
        return self.index

    def __repr__(self) -> str:
        return f"slot {self.name}"

    def __call__(self, frame: Any) -> Any:
        """What lies there, in plain Python."""
        return frame[self]

    def require(self, array: np.ndarray) -> None:
        """Raise a ValueError if an array does not belong here."""
        if (array.dtype, array.ndim) == (self.dtype, self.ndim) and array.flags.c_contiguous:
            return
        if flags.DISABLED and array.dtype == object:  # Python functions in place of addresses
            return
        given = f"{'' if array.flags.c_contiguous else 'not '}contiguous, of {array.dtype}, with {array.ndim} axes"
        raise ValueError(
            f"{self!r} takes arrays that are contiguous, of {self.dtype}, with {self.ndim} axes, but one {given} was given."
        )


class Block(Slot):
    """A slot of numbers, each of which has a name and a meaning.

    Attributes
    ----------
    entries : dict of str -> str
        The meaning of each. The module that declares a block also names their places, in capitals: `count[slots.STEPS]`.
    """

    def __init__(self, group: Group, kind: Any, meaning: str, entries: Mapping[str, str]):
        super().__init__(group, kind, f"({len(entries)},)", meaning)
        self.entries = dict(entries)

    @property
    def places(self) -> range:
        return range(len(self.entries))

    def zeros(self) -> np.ndarray:
        return np.zeros(len(self.entries), dtype=self.dtype)

    def fill(self, **values: Any) -> np.ndarray:
        """An array of these numbers, by name.

        Raises
        ------
        TypeError
            If there is not one for each name.
        """
        if values.keys() != self.entries.keys():
            missing, unknown = self.entries.keys() - values.keys(), values.keys() - self.entries.keys()
            raise TypeError(f"{self!r} has other entries: missing {sorted(missing)}, unknown {sorted(unknown)}.")
        return np.array([values[name] for name in self.entries], dtype=self.dtype)

    def require(self, array: np.ndarray) -> None:
        super().require(array)
        if array.size != len(self.entries):
            raise ValueError(f"{self!r} takes one number for each of its {len(self.entries)} names, but {array.size} were given.")


def vector(group: Group, shape: str, meaning: str) -> Slot:
    return Slot(group, flags.vector, shape, meaning)


def matrix(group: Group, shape: str, meaning: str) -> Slot:
    return Slot(group, flags.matrix, shape, meaning)


def cube(group: Group, shape: str, meaning: str) -> Slot:
    return Slot(group, flags.cube, shape, meaning)


def integers(group: Group, shape: str, meaning: str) -> Slot:
    return Slot(group, flags.integers, shape, meaning)


def floats_by_name(group: Group, meaning: str, **entries: str) -> Block:
    return Block(group, flags.vector, meaning, entries)


def integers_by_name(group: Group, meaning: str, **entries: str) -> Block:
    return Block(group, flags.integers, meaning, entries)


def address(meaning: str) -> Slot:
    return Slot(Group.NUMBER, flags.i8, "", meaning)


def frame_address(meaning: str) -> Slot:
    return Slot(Group.NUMBER, flags.pointer, "", meaning)


def arrange(namespace: Mapping[str, Any]) -> tuple[Slot, ...]:
    """The slots of a module in the order of their places: by group, and in each as they are declared."""
    declared = [(name, slot) for name, slot in namespace.items() if isinstance(slot, Slot)]
    declared.sort(key=lambda one: one[1].group)
    for index, (name, slot) in enumerate(declared):
        slot.name, slot.index = name, index
    return tuple(slot for _, slot in declared)


# --- compiled --------------------------------------------------------------------------------------------------------------------


@typeof_impl.register(Slot)
def _type_of(slot, c):
    return slot.function


def _reader(slot: Slot) -> Any:
    @intrinsic
    def read(typingctx, frame):
        # the frames of another target say themselves what lies in their slots
        found = slot.kind if frame == flags.pointer or not slot.ndim else frame.array_in(slot)

        def codegen(context, builder, sig, args):
            word = word_of(builder, args[0], slot.index, 0)
            if found == flags.i8:
                return builder.load(word)
            if found == flags.pointer:
                return load_pointer(builder, word, I64)
            data = load_pointer(builder, word, context.get_data_type(found.dtype))
            shape = [builder.load(word_of(builder, args[0], slot.index, 1 + k)) for k in range(found.ndim)]
            width = None if found.layout == "C" else builder.load(word_of(builder, args[0], 0, frame.width_word))
            return views.array_view(context, builder, found, data, shape, width)

        return found(frame), codegen

    read.slot = slot
    return read


def slot_of(function: Any) -> Slot:
    """The slot whose `function` this is."""
    return function.typing_key.slot


def word_of(builder, frame, index, k):
    """Word k of a slot."""
    return builder.gep(frame, [I64(WORDS * index + k)])


def load_pointer(builder, word, element):
    """Pointers are loaded as such: an integer cast to one would hide what it points to from LLVM."""
    return builder.load(builder.bitcast(word, element.as_pointer().as_pointer()))
