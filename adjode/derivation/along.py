"""Calls that work along axes of arrays of two axes or more."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import spelled, spelled_arrays
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Object
from adjode.derivation.refusals import Refusal

ALL = ("s", None, None, None)
LAST = N.const(-1)


def axis_of(axis: Any, rank: int) -> int | None:
    """The number of an axis, from 0; None for all of them."""
    if axis is None or (isinstance(axis, Object) and axis.value is None):
        return None
    value = N.value_of(axis) if isinstance(axis, Node) else None
    if value is None:
        raise Refusal("an axis is not a constant number", "write the number of the axis, or a loop")
    if not -rank <= value < rank:
        raise Refusal(f"an axis {value} of an array with {rank} axes is named", "name one that it has")
    return int(value) % rank


def axes_of(axis: Any, rank: int) -> list[int]:
    """The numbers of some axes, or of all."""
    if isinstance(axis, tuple):
        return [one for one in (axis_of(part, rank) for part in axis) if one is not None]
    one = axis_of(axis, rank)
    return list(range(rank)) if one is None else [one]


def is_true(value: Any, what: str) -> bool:
    """The truth of an option that must be a constant."""
    known = N.value_of(value) if isinstance(value, Node) else getattr(value, "value", value)
    if known not in (True, False):
        raise Refusal(f"`{what}` is not a constant", "write True or False")
    return bool(known)


def part(reader: Any, array: Node, axis: int, start: Node | None, stop: Node | None) -> Node:
    """Some of the entries along an axis."""
    spec: list = [ALL] * len(array.shape)
    spec[axis] = ("s", start, stop, None)
    return reader.session.sliced(reader, array, tuple(spec))


def with_axis(reader: Any, array: Node, axis: int) -> Node:
    """The same array with another axis, of length 1."""
    spec: list = [ALL] * len(array.shape)
    spec.insert(axis, "new")
    return reader.session.sliced(reader, array, tuple(spec))


def expanded(reader: Any, function: Object, array: Any, axis: Any) -> Node:
    """`np.expand_dims`."""
    array = reader.number_or_array(array)
    where = axis_of(axis, len(array.shape) + 1)
    if not array.shape or where is None:
        raise Refusal(f"`{function.text}` of a number is taken", "give it an array, and one axis")
    return with_axis(reader, array, where)


# --- sums and other results of all entries along an axis ----------------------------------------------------------------------


def summed(reader: Any, array: Node, axis: Any, keepdims: Any) -> tuple[Node, Node]:
    """The sum along some axes, and of how many entries it is."""
    axes, keeps = axes_of(axis, len(array.shape)), is_true(keepdims, "keepdims")
    result, count = reader.whole(array), N.I1
    if len(axes) == len(array.shape) and not keeps:
        return N.total(result), N.size_of(array)
    for one in sorted(axes, reverse=True):
        count = N.mul(count, array.shape[one])
        result = N.total(result, one) if len(result.shape) > 1 else N.total(result)
    if keeps and not result.shape:
        result = reader.session.allocate((N.I1,) * len(axes), result, array.kind)
        return reader.whole(result), count
    for one in sorted(axes) if keeps else ():
        result = with_axis(reader, result, one)
    return reader.whole(result), count


def total(reader: Any, function: Object, array: Any, axis: Any = None, keepdims: Any = False) -> Node:
    array = reader.number_or_array(array)
    return summed(reader, array, axis, keepdims)[0] if array.shape else array


def mean(reader: Any, function: Object, array: Any, axis: Any = None, keepdims: Any = False) -> Node:
    array = reader.number_or_array(array)
    return N.div(*summed(reader, array, axis, keepdims)) if array.shape else array


def reduced(rule: Callable) -> Callable:
    """A function of all entries, or of those along an axis of a matrix, each of which is read as `rule` of a vector."""

    def reduce(reader: Any, function: Object, array: Any, axis: Any = None, keepdims: Any = False) -> Node:
        array, keeps = reader.number_or_array(array), is_true(keepdims, "keepdims")
        along = axis_of(axis, len(array.shape))
        if not array.shape:
            raise Refusal(f"`{function.text}` of a number is taken", "give it an array")
        if (along is None and keeps) or (along is not None and len(array.shape) > 2):
            raise Refusal(f"`{function.text}` goes along an axis of an array with {len(array.shape)} axes", "write a loop")
        if along is None or len(array.shape) == 1:
            if len(array.shape) > 1:
                array = reader.session.reshaped(reader, array, N.const(-1))
            result = reader.session.inlined(rule, [array], {})
            return result if not keeps else reader.session.packed(reader, (result,))
        by = spelled.of_rows if along else spelled.of_columns
        result = reader.session.inlined(by, [array, Object(rule)], {})
        return reader.session.sliced(reader, result, (ALL, "new") if along else ("new", ALL)) if keeps else result

    return reduce


def running(rule: Callable) -> Callable:
    """A function such as `np.cumsum`, of all entries or along an axis of a matrix."""

    def run(reader: Any, function: Object, array: Any, axis: Any = None) -> Node:
        array = reader.number_or_array(array)
        along = axis_of(axis, len(array.shape))
        if not array.shape or (along is not None and len(array.shape) > 2):
            raise Refusal(f"`{function.text}` goes along an axis of an array with {len(array.shape)} axes", "write a loop")
        if along is None or len(array.shape) == 1:
            if len(array.shape) > 1:
                array = reader.session.reshaped(reader, array, N.const(-1))
            return reader.session.inlined(rule, [array], {})
        by = spelled.rows_of if along else spelled.columns_of
        return reader.session.inlined(by, [array, Object(rule)], {})

    return run


# --- neighbours -----------------------------------------------------------------------------------------------------------------


def diff(reader: Any, function: Object, x: Any, n: Any = N.I1, axis: Any = LAST) -> Node:
    x, times = reader.number_or_array(x), N.value_of(n) if isinstance(n, Node) else None
    along = axis_of(axis, len(x.shape)) if x.shape else None
    if along is None or times is None or not 0 <= times <= 8:
        raise Refusal(f"`{function.text}` is given no array, or is taken a number of times that is not constant", "write a loop")
    for _ in range(int(times)):
        x = reader.session.addressable(reader, x)
        ends = (N.I1, None), (None, N.const(-1))
        x = reader.anchored(N.sub(*(reader.whole(part(reader, x, along, *pair)) for pair in ends)))
    return x


def roll(reader: Any, function: Object, x: Any, shift: Any, axis: Any = None) -> Node:
    x = reader.number_or_array(x)
    if not x.shape:
        raise Refusal(f"`{function.text}` of a number is taken", "give it an array")
    if isinstance(shift, tuple) or isinstance(axis, tuple):
        if not isinstance(axis, tuple) or (isinstance(shift, tuple) and len(shift) != len(axis)):
            raise Refusal(f"`{function.text}` is not given one shift for each axis", "give it one shift for each axis")
        for one, along in zip(shift if isinstance(shift, tuple) else (shift,) * len(axis), axis, strict=True):
            x = roll(reader, function, x, one, along)
        return x
    shift, along = reader.number_or_array(shift), axis_of(axis, len(x.shape))
    if shift.kind != "i" or shift.shape:
        raise Refusal(f"`{function.text}` shifts by something other than an integer", "write a loop over the entries")
    if along is None and len(x.shape) > 1:
        rolled = roll(reader, function, reader.session.reshaped(reader, x, N.const(-1)), shift)
        return reader.session.reshaped(reader, rolled, *x.shape)
    along, x = along or 0, reader.session.addressable(reader, x)
    if len(x.shape) == 2 and x.kind == "f":
        return reader.session.inlined(spelled_arrays.rolled_columns if along else spelled_arrays.rolled_rows, [x, shift], {})
    length = x.shape[along]
    moved = N.whole("mod", shift, length)  # where the first entry comes
    first = N.sub(length, moved)  # what comes first
    parts = [part(reader, x, along, first, None), part(reader, x, along, None, first)]
    return joined(reader, parts, [moved, length], along)


def joined(reader: Any, parts: list[Node], stops: list[Node], axis: int = 0) -> Node:
    """A new array of the entries of these, one after another along an axis, which end at `stops`."""
    shape = (*parts[0].shape[:axis], stops[-1], *parts[0].shape[axis + 1 :])
    result = reader.session.allocate(shape, None, "f" if any(one.kind == "f" for one in parts) else "i")
    ends = (None, *stops[:-1], None)
    for (start, stop), one in zip(itertools.pairwise(ends), parts, strict=True):
        spec: list = [ALL] * len(shape)
        spec[axis] = ("s", start, stop, None)
        if axis == 0:
            spec = spec[:1]
        reader.store(N.view("slice", result, *spec, shape=one.shape), (), None, one)
    return result


def concatenate(reader: Any, function: Object, parts: Any, axis: Any = N.I0) -> Node:
    if not isinstance(parts, tuple) or not parts:
        raise Refusal(f"`{function.text}` is given something other than a tuple of arrays", "write a loop over the entries")
    arrays = [reader.number_or_array(one) for one in parts]
    ranks = {len(one.shape) for one in arrays}
    along = axis_of(axis, max(ranks))
    if len(ranks) > 1 or along is None:
        raise Refusal(f"`{function.text}` is given arrays with different numbers of axes", "reshape them, or write a loop")
    lengths = (one.shape[along] for one in arrays)
    return joined(reader, arrays, list(itertools.accumulate(lengths, N.add)), along)


def side_by_side(reader: Any, function: Object, parts: Any) -> Node:
    """`np.hstack`."""
    of_vectors = isinstance(parts, tuple) and all(len(reader.number_or_array(one).shape) == 1 for one in parts)
    return concatenate(reader, function, parts, N.I0 if of_vectors else N.I1)


def stack(reader: Any, function: Object, parts: Any, axis: Any = N.I0) -> Node:
    """`np.stack`: arrays along a new axis."""
    if isinstance(parts, Node) and parts.shape:
        parts = tuple(parts_of(reader, function, parts))
    if not isinstance(parts, tuple) or not parts:
        raise Refusal(f"`{function.text}` is given something other than a tuple of arrays", "write a loop over the entries")
    arrays = [reader.number_or_array(one) for one in parts]
    along = axis_of(axis, len(arrays[0].shape) + 1)
    if len({len(one.shape) for one in arrays}) > 1 or not arrays[0].shape or along is None:
        raise Refusal(f"`{function.text}` is given numbers, or arrays of different shapes", "make arrays of the same shape")
    if along == 0:
        return reader.session.packed(reader, tuple(arrays))
    return concatenate(reader, function, tuple(expanded(reader, function, one, axis) for one in arrays), axis)


def parts_of(reader: Any, function: Object, array: Node) -> tuple:
    count = N.value_of(array.shape[0])
    if count is None:
        raise Refusal(f"`{function.text}` is given an array", "give it a tuple of arrays")
    return reader.entries(array, range(int(count)))


def on_top(reader: Any, function: Object, parts: Any) -> Node:
    """`np.vstack`: vectors are rows."""
    if not isinstance(parts, tuple) or not parts:
        raise Refusal(f"`{function.text}` is given something other than a tuple of arrays", "write a loop over the entries")
    arrays = [reader.number_or_array(one) for one in parts]
    if all(len(one.shape) == 1 for one in arrays):
        return stack(reader, function, tuple(arrays))
    rows = [one if len(one.shape) > 1 else reader.session.sliced(reader, one, ("new", ALL)) for one in arrays]
    return concatenate(reader, function, tuple(rows))


def columns(reader: Any, function: Object, parts: Any) -> Node:
    """`np.column_stack`: vectors are columns."""
    if not isinstance(parts, tuple) or not parts:
        raise Refusal(f"`{function.text}` is given something other than a tuple of arrays", "write a loop over the entries")
    arrays = [reader.number_or_array(one) for one in parts]
    if all(len(one.shape) == 1 for one in arrays):
        return N.transpose(stack(reader, function, tuple(arrays)))
    rows = [one if len(one.shape) > 1 else reader.session.sliced(reader, one, (ALL, "new")) for one in arrays]
    return concatenate(reader, function, tuple(rows), N.I1)
