"""Calls that make arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.derivation import nodes as N
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Object
from adjode.derivation.refusals import Refusal


def shape_of(reader: Any, shape: Any) -> tuple[Node, ...]:
    if isinstance(shape, tuple):
        return tuple(map(reader.number_or_array, shape))
    return (reader.number_or_array(shape),)


def kind_of(dtype: Any) -> str:
    dtype = dtype.value if isinstance(dtype, Object) else dtype
    if dtype in (bool, np.bool_):
        return "b"
    if dtype is None or dtype is float or dtype is np.float64:
        return "f"
    if dtype in (int, np.int64, np.int32, np.intp):
        return "i"
    raise Refusal(f"an array of {getattr(dtype, '__name__', dtype)} is made", "use float64")


def allocating(fill: Any) -> Callable:
    """A call such as `np.zeros(shape, dtype)`; with fill "value" as `np.full(shape, value, dtype)`."""

    def allocate(reader: Any, function: Object, shape: Any, value: Any = None, dtype: Any = None) -> Node:
        return _filled(reader, function, shape_of(reader, shape), fill, value, dtype, None)

    return allocate


def like(fill: Any) -> Callable:
    """A call such as `np.zeros_like(array, dtype)`."""

    def allocate(reader: Any, function: Object, array: Any, value: Any = None, dtype: Any = None) -> Node:
        array = reader.number_or_array(array)
        return _filled(reader, function, array.shape, fill, value, dtype, array.kind)

    return allocate


def _filled(reader: Any, function: Object, shape: tuple[Node, ...], fill: Any, value: Any, dtype: Any, kind: str | None) -> Node:
    """New memory; its kind is that of the dtype, or `kind`, or that of what fills it."""
    if fill == "value":
        content = reader.number_or_array(value)
        kind = kind or content.kind
    else:
        dtype, content = value if dtype is None else dtype, fill
    kind = kind if kind is not None and dtype is None else kind_of(dtype)
    return reader.session.allocate(shape, _as_kind(content, kind, function), kind)


def _as_kind(content: Node | None, kind: str, function: Object) -> Node | None:
    """What new memory is filled with, as a number of its kind."""
    if content is None or content.kind == kind:
        return content
    if kind == "f":
        return N.as_float(content)
    value = N.value_of(content)
    if value is None:
        raise Refusal(f"`{function.text}` fills integers with floats", "leave out the dtype")
    return N.const(int(value) if kind == "i" else bool(value))


def array_of(reader: Any, function: Object, value: Any, dtype: Any = None) -> Node:
    """`np.array(value, dtype)`."""
    kind = None if dtype is None else kind_of(dtype)
    if isinstance(value, tuple):
        return reader.session.packed(reader, value, kind)
    array = reader.number_or_array(value)
    return copied(reader, array) if kind in (None, array.kind) else converted(reader, array, kind)


def same(reader: Any, function: Object, value: Any, dtype: Any = None) -> Node:
    """`np.asarray(value, dtype)`."""
    array = reader.number_or_array(value)
    return array if dtype is None or kind_of(dtype) == array.kind else converted(reader, array, kind_of(dtype))


def in_one_piece(reader: Any, function: Object, value: Any) -> Node:
    """`np.ascontiguousarray(value)`."""
    array = reader.number_or_array(value)
    return array if N.is_contiguous(array) else copied(reader, array)


def copied(reader: Any, array: Node) -> Node:
    return reader.session.allocate(array.shape, reader.anchored(reader.whole(array)), array.kind)


def converted(reader: Any, array: Node, kind: str | None) -> Node:
    """A copy of an array as one of another kind."""
    if kind != "f":
        raise Refusal("an array of floats is converted to integers", "convert its entries in a loop, by int(...)")
    return reader.session.allocate(array.shape, reader.anchored(N.mul(N.ONE, reader.whole(array))), "f")
