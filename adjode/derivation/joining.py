"""Calls that put vectors together, or take them apart; `along` has those along axes."""

from __future__ import annotations

import itertools
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation.along import concatenate
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Object
from adjode.derivation.refusals import Refusal


def vector(reader: Any, function: Object, array: Any) -> Node:
    array = reader.number_or_array(array)
    if len(array.shape) != 1:
        raise Refusal(f"`{function.text}` is given something other than vectors", "write a loop over the entries")
    return array


def _slice(reader: Any, array: Node, start: Node | None, stop: Node | None) -> Node:
    return reader.session.sliced(reader, array, (("s", start, stop, None),))


def append(reader: Any, function: Object, x: Any, values: Any) -> Node:
    last = values if isinstance(values, tuple) or reader.number_or_array(values).shape else (values,)
    return concatenate(reader, function, (x, last))


def split(reader: Any, function: Object, x: Any, sections: Any) -> tuple[Node, ...]:
    """Parts of the same length."""
    x = reader.session.addressable(reader, vector(reader, function, x))
    count = N.value_of(sections) if isinstance(sections, Node) else None
    if count is None:
        raise Refusal(f"`{function.text}` does not split into a constant number of parts", "take slices")
    length = N.whole("floordiv", x.shape[0], sections)
    ends = [N.mul(N.const(k), length) for k in range(count + 1)]
    return tuple(_slice(reader, x, *pair) for pair in itertools.pairwise(ends))
