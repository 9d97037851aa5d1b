"""Calls that put vectors together, or take them apart."""

from __future__ import annotations

import itertools
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Object
from adjode.derivation.refusals import Refusal


def vector(reader: Any, function: Object, array: Any) -> Node:
    array = reader.number_or_array(array)
    if len(array.shape) != 1:
        raise Refusal(f"`{function.text}` is given something else than vectors", "write a loop over the entries")
    return array


def _slice(reader: Any, array: Node, start: Node | None, stop: Node | None) -> Node:
    return reader.session.sliced(reader, array, (("s", start, stop, None),))


def diff(reader: Any, function: Object, x: Any) -> Node:
    x = reader.session.addressable(reader, vector(reader, function, x))
    return N.sub(*(reader.whole(_slice(reader, x, *ends)) for ends in ((N.I1, None), (None, N.const(-1)))))


def roll(reader: Any, function: Object, x: Any, shift: Any) -> Node:
    shift = reader.number_or_array(shift)
    if shift.kind != "i" or shift.shape:
        raise Refusal(f"`{function.text}` shifts by something else than an integer", "write a loop over the entries")
    x = reader.session.addressable(reader, vector(reader, function, x))
    length = x.shape[0]
    moved = N.whole("mod", shift, length)  # where the first entry comes
    first = N.sub(length, moved)  # what comes first
    return _joined(reader, [_slice(reader, x, first, None), _slice(reader, x, None, first)], [moved, length])


def concatenate(reader: Any, function: Object, parts: Any, axis: Any = N.I0) -> Node:
    if not isinstance(parts, tuple) or not parts or not isinstance(axis, Node) or N.value_of(axis) not in (0, -1):
        raise Refusal(f"`{function.text}` is given something else than a tuple of vectors", "write a loop over the entries")
    vectors = [vector(reader, function, part) for part in parts]
    return _joined(reader, vectors, list(itertools.accumulate((one.shape[0] for one in vectors), N.add)))


def append(reader: Any, function: Object, x: Any, values: Any) -> Node:
    last = values if isinstance(values, tuple) or reader.number_or_array(values).shape else (values,)
    return concatenate(reader, function, (x, last))


def stack(reader: Any, function: Object, parts: Any) -> Node:
    """Vectors as the rows of a matrix."""
    if not isinstance(parts, tuple) or not parts:
        raise Refusal(f"`{function.text}` is given something else than a tuple of vectors", "write a loop over the entries")
    return reader.session.packed(reader, tuple(vector(reader, function, part) for part in parts))


def columns(reader: Any, function: Object, parts: Any) -> Node:
    return N.transpose(stack(reader, function, parts))


def split(reader: Any, function: Object, x: Any, sections: Any) -> tuple[Node, ...]:
    """Parts of the same length."""
    x = reader.session.addressable(reader, vector(reader, function, x))
    count = N.value_of(sections) if isinstance(sections, Node) else None
    if count is None:
        raise Refusal(f"`{function.text}` does not split into a constant number of parts", "take slices")
    length = N.whole("floordiv", x.shape[0], sections)
    ends = [N.mul(N.const(k), length) for k in range(count + 1)]
    return tuple(_slice(reader, x, *pair) for pair in itertools.pairwise(ends))


def _joined(reader: Any, parts: list[Node], stops: list[Node]) -> Node:
    """A new vector of the entries of these, one after another, which end at `stops`."""
    result = reader.session.allocate((stops[-1],), None, "f" if any(part.kind == "f" for part in parts) else "i")
    ends = (None, *stops[:-1], None)
    for (start, stop), part in zip(itertools.pairwise(ends), parts, strict=True):
        reader.store(N.view("slice", result, ("s", start, stop, None), shape=part.shape), (), None, part)
    return result
