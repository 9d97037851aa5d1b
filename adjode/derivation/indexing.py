"""Entries and parts of arrays."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation import spelled
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Dictionary
from adjode.derivation.refusals import Refusal


class Indexing:
    """What subscripts mean, for a reader."""

    session: Any
    block: Any
    contents: Any
    last_stores: Any
    value: Any
    number_or_array: Any
    integer: Any
    seen: Any
    whole: Any
    binary: Any
    item_of: Any

    def value_Subscript(self, node: ast.Subscript) -> Any:
        value = self.value(node.value)
        if isinstance(value, tuple):
            return self.item_of_tuple(value, node.slice)
        if isinstance(value, Dictionary):
            return self.item_of(value, self.value(node.slice))
        array = self.number_or_array(value)
        array, indices = self.part(array, node.slice)
        return self.element(array, indices) if indices else array

    def item_of_tuple(self, value: tuple, where: ast.expr) -> Any:
        if isinstance(where, ast.Slice):
            ends = [None if part is None else N.value_of(self.integer(part)) for part in (where.lower, where.upper, where.step)]
            return value[slice(*ends)]
        index = self.integer(where)
        if (place := N.value_of(index)) is not None:
            return value[place]
        table = self.session.table_of(value)
        if table is None:
            raise Refusal("a tuple is indexed by a variable", "use np.array for the table")
        return self.element(table, (index,)) if len(table.shape) == 1 else self.session.sliced(self, table, (index,))

    def place(self, node: ast.Subscript) -> tuple[Node, tuple[Node, ...]]:
        """What a subscript shows: the array, or the view of it, and the indices of an entry, () for all of it."""
        value = self.value(node.value)
        if isinstance(value, (tuple, Dictionary)):
            kind = "dictionary" if isinstance(value, Dictionary) else "list"
            raise Refusal(f"a {kind} that has no name of its own is written into", "write into an array, made by np.zeros(...)")
        return self.part(self.number_or_array(value), node.slice)

    def part(self, array: Node, where: ast.expr) -> tuple[Node, tuple[Node, ...]]:
        parts = list(where.elts) if isinstance(where, ast.Tuple) else [where]
        if not array.shape:
            raise Refusal("a number is indexed", "index arrays")
        spec: list[Any] = []
        for item in parts:
            if isinstance(item, ast.Constant) and item.value is Ellipsis:
                used = sum(1 for p in parts if not _makes_no_axis(self, p))
                spec += [("s", None, None, None)] * (len(array.shape) - used)
            elif isinstance(item, ast.Slice):
                ends = (None if part is None else self.integer(part) for part in (item.lower, item.upper, item.step))
                spec.append(("s", *ends))
            elif _makes_no_axis(self, item):
                spec.append("new")
            else:
                spec.append(self.index(item, alone=len(parts) == 1))
        axes = sum(1 for item in spec if item != "new")
        if axes > len(array.shape):
            raise Refusal("an array has fewer axes than indices", "give one index for each axis")
        return self.seen_part(array, tuple(spec), axes)

    def index(self, node: ast.expr, alone: bool) -> Node:
        """An index: an integer, or where it is the only one an array of integers, or of truth values."""
        index = self.number_or_array(self.value(node))
        if index.kind == "f" or (index.shape and not (alone and len(index.shape) == 1)):
            raise Refusal("an index is not an integer", "convert it by int(...), or write a loop over the entries")
        return self.whole(index) if index.shape else index

    def seen_part(self, array: Node, spec: tuple, axes: int) -> tuple[Node, tuple[Node, ...]]:
        if all(isinstance(item, Node) for item in spec):
            if axes == len(array.shape) or spec[0].shape:
                return array, spec
        return self.session.sliced(self, array, spec), ()

    def element(self, array: Node, indices: tuple[Node, ...]) -> Node:
        """The value of an entry, or of memory without axes."""
        array = self.session.addressable(self, array)
        if indices and indices[0].shape:
            return self.taken(array, indices[0])
        array, indices = unsliced(array, indices)
        base = N.root(array)
        constant = tuple(map(N.value_of, indices))
        if base not in self.session.memory:
            table = self.session.table_at(base) if base is array and array.kind == "i" and None not in constant else None
            return self.seen(N.load(array, indices)) if table is None else self.session.known("", table[constant])
        if base is array and constant in self.contents.get(base, {}):
            return self.contents[base][constant]
        self.forget_stores(base)
        read = P.Read(N.symbol(array.kind), array, indices)
        self.block.add(read)
        return read.symbol

    def taken(self, array: Node, places: Node) -> Node:
        """`array[places]`, for an array of integers."""
        if places.kind == "b" or len(array.shape) > 2 or array.kind != "f":
            raise Refusal("entries are selected by an array that does not hold integers", "use np.where(...), or a loop")
        return self.session.inlined(spelled.taken if len(array.shape) == 1 else spelled.taken_rows, [array, places], {})

    def put(self, array: Node, places: Node, op: ast.operator | None, value: Node) -> None:
        """`array[places] op= value`, for an array of integers or truth values."""
        if len(array.shape) != 1 or (places.kind == "b" and (op is not None or value.shape)):
            raise Refusal("entries that are selected by an array are written into", "write a loop over the entries")
        if op is not None:
            value = self.binary(op, self.taken(array, places), value)
        value = self.session.addressable(self, self.whole(value)) if value.shape else value
        rule = spelled.put_where if places.kind == "b" else spelled.put if value.shape else spelled.put_one
        self.session.inlined(rule, [array, places, value], {})

    def forget_stores(self, base: Node) -> None:
        for key in [key for key in self.last_stores if key[0] is base]:
            del self.last_stores[key]


def unsliced(array: Node, indices: tuple[Node, ...]) -> tuple[Node, tuple[Node, ...]]:
    """`x[k:][i]` is `x[k + i]`."""
    if array.op == "slice" and len(array.args) == 2 and len(indices) == 1 and isinstance(array.args[1], tuple):
        _, start, _, step = array.args[1]
        first = N.I0 if start is None else start
        values = [N.value_of(first), N.value_of(indices[0])]
        if step is None and all(value is None or value >= 0 for value in values):
            return unsliced(array.args[0], (N.add(first, indices[0]),))
    return array, indices


def _makes_no_axis(reader: Indexing, node: ast.expr) -> bool:
    """Whether part of a subscript is none of an axis that is there: `...`, None, `np.newaxis`."""
    return (isinstance(node, ast.Constant) and node.value in (None, Ellipsis)) or _is_newaxis(reader, node)


def _is_newaxis(reader: Indexing, node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "newaxis" and getattr(reader.value(node), "value", np) is np.newaxis
