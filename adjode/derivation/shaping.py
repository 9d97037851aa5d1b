"""Calls that make larger arrays of given ones, and calls of Python's own that make lists."""

from __future__ import annotations

from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import spelled_arrays
from adjode.derivation.along import ALL
from adjode.derivation.calls import all_of, any_of
from adjode.derivation.joining import vector
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Dictionary, Items, Object
from adjode.derivation.refusals import Refusal


def _matrix(reader: Any, function: Object, array: Any) -> Node:
    array = reader.number_or_array(array)
    if len(array.shape) != 2:
        raise Refusal(f"`{function.text}` is given something other than a matrix", "write a loop over the entries")
    return array


def matrix(reader: Any, function: Object, array: Any) -> Node:
    return _matrix(reader, function, array)


def tile(reader: Any, function: Object, x: Any, reps: Any) -> Node:
    x = vector(reader, function, x)
    if not isinstance(reps, tuple):
        return reader.session.inlined(spelled_arrays.tiled, [x, reps], {})
    if len(reps) != 2:
        raise Refusal(f"`{function.text}` makes an array that does not have two axes", "use broadcasting, as x[None, :]")
    wide = reader.session.inlined(spelled_arrays.tiled, [x, reps[1]], {})
    row = reader.whole(reader.session.sliced(reader, wide, ("new", ALL)))
    zeros = reader.whole(reader.session.allocate((reader.number_or_array(reps[0]), wide.shape[0]), N.ZERO))
    return N.add(zeros, row)


def pad(reader: Any, function: Object, x: Any, width: Any, mode: Any = "constant", constant_values: Any = 0.0) -> Node:
    x, mode = reader.number_or_array(x), getattr(mode, "value", mode)
    widths = width if isinstance(width, tuple) else (width, width)
    value = N.const(constant_values) if isinstance(constant_values, float) else N.as_float(reader.number_or_array(constant_values))
    if mode not in ("constant", "edge", "wrap", "reflect") or len(x.shape) not in (1, 2) or value.shape:
        raise Refusal(f"`{function.text}` is called in a way that is not supported", "fill an array, made by np.zeros(...)")
    if len(x.shape) == 1:
        widths = widths[0] if isinstance(widths[0], tuple) else widths
        return reader.session.inlined(spelled_arrays.padded, [x, *widths, Object(mode), value], {})
    if not isinstance(widths[0], tuple):
        widths = (tuple(widths), tuple(widths))
    return reader.session.inlined(spelled_arrays.padded_matrix, [x, *widths, Object(mode), value], {})


def gradient(reader: Any, function: Object, f: Any, h: Any = 1.0) -> Node:
    f, h = vector(reader, function, f), N.const(h) if isinstance(h, float) else reader.number_or_array(h)
    if h.shape:
        raise Refusal(f"`{function.text}` is given distances that differ", "write a loop over the entries")
    return reader.session.inlined(spelled_arrays.slopes, [f, h], {})


def determinant(reader: Any, function: Object, A: Any) -> Node:
    A = _matrix(reader, function, A)
    sizes = {N.value_of(length) for length in A.shape} - {None}
    rules = {2: spelled_arrays.two_by_two, 3: spelled_arrays.three_by_three}
    if len(sizes) != 1 or (size := sizes.pop()) not in rules:
        raise Refusal(
            "the determinant is taken of a matrix that is not known to be 2 by 2 or 3 by 3", "write it out, or reshape to (3, 3)"
        )
    return reader.session.inlined(rules[size], [A], {})


def power(reader: Any, function: Object, A: Any, n: Any) -> Node:
    """`np.linalg.matrix_power`."""
    times, A = N.value_of(n) if isinstance(n, Node) else None, reader.whole(_matrix(reader, function, A))
    if times is None or not 1 <= times <= 32:
        raise Refusal(f"`{function.text}` to a power that is not constant, or less than 1", "write a loop of products")
    result = A
    for _ in range(int(times) - 1):
        result = reader.anchored(N.dot(result, A))
    return result


def outer_of(reader: Any, function: Object, a: Any, b: Any) -> Any:
    """`np.subtract.outer` and the like, of vectors."""
    a, b = (vector(reader, function, one) for one in (a, b))
    column, row = reader.session.sliced(reader, a, (ALL, "new")), reader.session.sliced(reader, b, ("new", ALL))
    ufunc = Object(function.value.__self__, function.text.removesuffix(".outer"))
    return reader.session.apply(reader, ufunc, [column, row], {})


# --- Python's own ---------------------------------------------------------------------------------------------------------------


def listed(reader: Any, function: Object, values: Any = ()) -> Any:
    """`list(values)` or `tuple(values)`."""
    if isinstance(values, Node) and values.shape:
        count = N.value_of(values.shape[0])
        if count is None:
            made = reader.session.allocate(values.shape, reader.anchored(reader.whole(values)), values.kind)
            reader.session.lists.add(made)
            return made
        values = reader.entries(values, range(int(count)))
    if isinstance(values, Dictionary):
        values = tuple(reader.session.known("", key) for key in values.value)
    if not isinstance(values, tuple):
        raise Refusal(f"`{function.text}` is called on something other than a list or an array", "write its items")
    return Items.of(values, reader.nest) if function.value is list else tuple(values)


def dictionary(reader: Any, function: Object, given: Any = None, **items: Any) -> Dictionary:
    """`dict(given, name=value)`, or of pairs."""
    if isinstance(given, Dictionary):
        pairs = dict(given.value)
    elif given is None or isinstance(given, tuple):
        pairs = {reader.constant(pair[0]): pair[1] for pair in given or ()}
    else:
        raise Refusal("a dictionary is made of something other than pairs", "write its items")
    return Dictionary(pairs | items, "", reader.nest)


def mapped(reader: Any, function: Object, rule: Any, *values: Any) -> Any:
    """`map(rule, values)`."""
    if not all(isinstance(one, tuple) for one in values):
        raise Refusal("`map` goes through an array", "write [... for x in ...]")
    return tuple(reader.session.apply(reader, rule, list(each), {}) for each in zip(*values, strict=False))


def some(reader: Any, function: Object, values: Any) -> Node:
    return _of_truths(reader, values, "or") if isinstance(values, tuple) else any_of(reader, function, values)


def every(reader: Any, function: Object, values: Any) -> Node:
    return _of_truths(reader, values, "and") if isinstance(values, tuple) else all_of(reader, function, values)


def _of_truths(reader: Any, values: tuple, word: str) -> Node:
    result = N.const(word == "and")
    for value in values:
        node = reader.number_or_array(value)
        result = N.both(word, result, node if node.kind == "b" else N.compare("!=", node, N.I0))
    return result
