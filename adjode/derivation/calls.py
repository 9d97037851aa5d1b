"""What calls of NumPy's functions, of methods of arrays and of `adjode.functions` mean; `known` has them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.derivation import nodes as N
from adjode.derivation import spelled
from adjode.derivation.allocating import converted, copied, kind_of, shape_of
from adjode.derivation.joining import vector
from adjode.derivation.library import INTEGER, TRUTH
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Object
from adjode.derivation.refusals import Refusal


def called_by_key(reader: Any, key: str, text: str, arguments: list, keywords: dict) -> Node:
    """A function of `library`, of numbers or entry by entry."""
    out = keywords.pop("out", None)
    if keywords:
        raise Refusal(f"`{text}` is called with keywords", "give its arguments by position")
    if key not in _ARITY and len(arguments) == 2 and out is None and isinstance(arguments[1], Node) and arguments[1].shape:
        *arguments, out = arguments
    if len(arguments) == 1 and isinstance(arguments[0], tuple) and key in ("max", "min"):
        arguments = list(arguments[0])
    nodes = [reader.whole(reader.number_or_array(argument)) for argument in arguments]
    if key in ("max", "min") and len(nodes) == 1 and len(nodes[0].shape) == 1:
        return reader.session.inlined(spelled.largest if key == "max" else spelled.smallest, nodes, {})
    result = reader.seen(_built(key, text, nodes))
    if out is None:
        return result
    reader.store(out, (), None, result)
    return out


_TWO = "atan2 hypot pow max min copysign fmod mod floordiv heaviside logaddexp"
_TWO_WHOLE = "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor left_shift right_shift"
_ARITY = dict.fromkeys(f"{_TWO} {_TWO_WHOLE}".split(), 2)


def _built(key: str, text: str, nodes: list[Node]) -> Node:
    if key in ("max", "min"):
        return _extreme(key, text, nodes)
    if len(nodes) != _ARITY.get(key, 1):
        raise Refusal(f"`{text}` is called with {len(nodes)} arguments", "give it as many as it has")
    if key in _SPELLED:
        return _SPELLED[key](*nodes)
    text = "np.abs" if text == "abs" and nodes[0].shape else text  # Numba's abs takes numbers alone
    if key == "float":
        return nodes[0] if nodes[0].kind == "f" else N.call(key, text, *nodes)
    if key == "int" and nodes[0].kind == "i":
        return nodes[0]
    if key == "abs" and nodes[0].kind == "i":
        return N.call(key, text, *nodes, kind="i")
    if key in ("floor", "ceil", "trunc", "round") and (not text.startswith("np") or nodes[0].kind == "i"):
        return N.call(key, text, *nodes, kind="i")
    return N.call(key, text, *nodes, kind="b" if key in TRUTH else "i" if key in INTEGER else "f")


_SPELLED: dict[str, Callable] = {
    "pow": lambda a, b: N.power(N.as_float(a), b),
    "square": lambda a: N.mul(a, a),
    "reciprocal": lambda a: N.div(N.ONE, a),
    "mod": lambda a, b: N.whole("mod", a, b),
    "floordiv": lambda a, b: N.whole("floordiv", a, b),
    "heaviside": lambda a, b: N.where(N.compare("==", a, N.ZERO), N.as_float(b), _step(N.as_float(a))),  # Numba has none
}


def _step(x: Node) -> Node:
    return N.mul(N.const(0.5), N.add(N.ONE, N.call("sign", "np.sign", x)))


def _extreme(key: str, text: str, nodes: list[Node]) -> Node:
    result = nodes[0]
    for node in nodes[1:]:
        kind = "f" if "f" in (result.kind, node.kind) else "i"
        result = N.call(key, text, *((N.as_float(result), N.as_float(node)) if kind == "f" else (result, node)), kind=kind)
    return result


def into_out(reader: Any, result: Node, out: Any) -> Node:
    """A result, written into `out` if that is given."""
    if out is None:
        return result
    reader.store(out, (), None, result)
    return out


def dot(reader: Any, function: Object, a: Any, b: Any, out: Any = None) -> Node:
    return into_out(reader, N.dot(*(reader.session.floats(reader.whole(reader.number_or_array(x))) for x in (a, b))), out)


def of_vectors(product: Callable) -> Callable:
    def multiply(reader: Any, function: Object, a: Any, b: Any) -> Node:
        return product(*(reader.session.floats(reader.whole(vector(reader, function, x))) for x in (a, b)))

    return multiply


def solve(reader: Any, function: Object, a: Any, b: Any) -> Node:
    matrix, right = (reader.session.floats(reader.whole(reader.number_or_array(x))) for x in (a, b))
    return reader.seen(N.solve(matrix, right))


def where(reader: Any, function: Object, condition: Any, a: Any, b: Any) -> Node:
    nodes = [reader.whole(reader.number_or_array(x)) for x in (condition, a, b)]
    return N.where(*nodes)


def reshape(reader: Any, array: Node, *shape: Any) -> Node:
    lengths = shape_of(reader, shape[0] if len(shape) == 1 else tuple(shape))
    unknown = [k for k, length in enumerate(lengths) if N.value_of(length) == -1]
    true = list(lengths)
    if unknown:
        rest = N.I1
        for k, length in enumerate(lengths):
            rest = rest if k in unknown else N.mul(rest, length)
        true[unknown[0]] = N.whole("floordiv", N.size_of(array), rest)
    array = reader.session.addressable(reader, array)
    if not N.is_contiguous(array):  # as in NumPy
        array = copied(reader, array)
    return N.view("reshape", array, *lengths, shape=tuple(true))


def matrix(reader: Any, function: Object, x: Any, start: Any, rows: Any, columns: Any) -> Node:
    array = reader.session.addressable(reader, reader.number_or_array(x))
    where = tuple(map(reader.number_or_array, (start, rows, columns)))
    name = reader.session.bound("as_matrix", function.value)
    return N.view("matrix", array, name, *where, shape=where[1:])


def located(reader: Any, function: Object, starts: Any, x: Any) -> Node:
    """An integer, which has no derivative."""
    name = reader.session.bound("locate", function.value)
    return reader.seen(N.make("taught", (name, (None, None), starts, reader.number_or_array(x)), "i"))


def turned(reader: Any, function: Object, *arguments: Any) -> Node:
    """An integer, too."""
    name = reader.session.bound("turns", function.value)
    return reader.seen(N.make("taught", (name, (None, None), *map(reader.number_or_array, arguments)), "i"))


def interp(reader: Any, function: Object, x: Any, xp: Any, fp: Any) -> Any:
    x = reader.number_or_array(x)
    rule = spelled.interpolated_at if x.shape else spelled.interpolated
    if len(x.shape) > 1:
        raise Refusal(f"`{function.text}` is given a matrix", "write a loop over the entries")
    return reader.session.inlined(rule, [x, *(vector(reader, function, points) for points in (xp, fp))], {})


def into(key: str) -> Callable:
    def store(reader: Any, function: Object, x: Any, out: Any) -> Object:
        reader.session.space.setdefault("np", np)
        reader.store(out, (), None, N.call(key, f"np.{key}", reader.whole(reader.number_or_array(x))))
        return Object(None)

    return store


def length(reader: Any, function: Object, value: Any) -> Node:
    return N.const(len(value)) if isinstance(value, tuple) else reader.number_or_array(value).shape[0]


def transposed(reader: Any, function: Object, array: Any) -> Node:
    return N.transpose(reader.number_or_array(array))


def of_two(operation: Callable) -> Callable:
    def calculate(reader: Any, function: Object, a: Any, b: Any, out: Any = None) -> Node:
        return into_out(reader, operation(*(reader.whole(reader.number_or_array(x)) for x in (a, b))), out)

    return calculate


def divided(reader: Any, function: Object, a: Any, b: Any) -> tuple[Node, Node]:
    nodes = [reader.number_or_array(x) for x in (a, b)]
    return reader.seen(N.whole("floordiv", *nodes)), reader.seen(N.whole("mod", *nodes))


def spelled_as(rule: Callable, *prepare: Callable) -> Callable:
    """A function that is read as `rule`; the first arguments are prepared by these."""

    def call(reader: Any, function: Object, *arguments: Any, **keywords: Any) -> Any:
        ready = [one(reader, function, argument) for one, argument in zip(prepare, arguments, strict=False)]
        return reader.session.inlined(rule, [*ready, *arguments[len(ready) :]], keywords)

    own = inspect.signature(call).parameters
    parameters = [own["reader"], own["function"], *inspect.signature(rule).parameters.values()]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what `_takes` in `calling` sees
    return call


def flat(reader: Any, function: Object, value: Any) -> Node:
    """All entries of an array, as a vector."""
    array = reader.number_or_array(value)
    if not array.shape:
        raise Refusal(f"`{function.text}` of a number is taken", "give it an array")
    return array if len(array.shape) == 1 else reshape(reader, array, N.const(-1))


def integer(reader: Any, function: Object, value: Any) -> Node:
    number = reader.number_or_array(value)
    if number.kind != "i" or number.shape:
        raise Refusal(f"`{function.text}` is given something other than an integer", "convert it by int(...), or use np.linspace")
    return number


def diagonal(reader: Any, function: Object, value: Any) -> Any:
    array = reader.number_or_array(value)
    return reader.session.inlined(spelled.diagonal if len(array.shape) == 2 else spelled.diagonal_matrix, [array], {})


def any_of(reader: Any, function: Object, condition: Any) -> Node:
    return N.compare(">", N.total(reader.whole(_truths(reader, condition))), N.I0)


def all_of(reader: Any, function: Object, condition: Any) -> Node:
    truths = reader.whole(_truths(reader, condition))
    return N.compare("==", N.total(truths), N.size_of(truths))


def _truths(reader: Any, condition: Any) -> Node:
    array = reader.number_or_array(condition)
    return array if array.kind == "b" else N.compare("!=", reader.whole(array), N.I0)


def searched(reader: Any, function: Object, table: Any, value: Any, side: Object | None = None) -> Node:
    if side is not None and getattr(side, "value", None) not in ("left", "right"):
        raise Refusal(f"`{function.text}` has a side that is not a constant", 'write "left" or "right"')
    is_right = side is not None and side.value == "right"
    return _place(reader, function, "np.searchsorted", (table, value), '"right"' if is_right else None)


def bisected(side: str) -> Callable:
    return lambda reader, function, table, value: searched(reader, function, table, value, Object(side))


def binned(reader: Any, function: Object, value: Any, bins: Any, right: Any = None) -> Node:
    closed = isinstance(right, Node) and N.value_of(right)
    if closed is None:
        raise Refusal(f"`{function.text}` has a `right` that is not a constant", "write True or False")
    return _place(reader, function, "np.digitize", (value, bins), "True" if closed else None)


def _place(reader: Any, function: Object, name: str, values: tuple[Any, Any], option: str | None) -> Node:
    """The place of a number in an ordered table, an integer, which has no derivative; an option is what the text has last."""
    reader.session.space.setdefault("np", np)
    constants = (reader.session.calculated(np.asarray, [x]) for x in values)
    nodes = [c or reader.whole(reader.number_or_array(x)) for c, x in zip(constants, values, strict=True)]
    if sorted(len(node.shape) for node in nodes) != [0, 1]:
        raise Refusal(f"`{function.text}` is given many values", "write a loop over them")
    options = [] if option is None else [N.named(option, 0)]
    return reader.seen(N.make("taught", (name, (None, None), *nodes, *options), "i"))


def as_type(reader: Any, array: Node, dtype: Any) -> Node:
    kind = kind_of(dtype)
    return copied(reader, array) if kind == array.kind else converted(reader, array, kind)


def sum_of_items(reader: Any, function: Object, values: Any) -> Node:
    if not isinstance(values, tuple):
        array = reader.number_or_array(values)
        return N.total(reader.whole(array), 0 if len(array.shape) > 1 else None)
    result = N.I0
    for value in values:
        result = N.add(result, reader.number_or_array(value))
    return result
