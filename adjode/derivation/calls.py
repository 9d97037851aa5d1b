"""What calls of NumPy's functions, of methods of arrays and of `adjode.functions` mean."""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode import functions, tables
from adjode.derivation import nodes as N
from adjode.derivation.interpolation import interpolated, interpolated_at
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
    nodes = [reader.whole(reader.number_or_array(argument)) for argument in arguments]
    result = reader.seen(_built(key, text, nodes))
    if out is None:
        return result
    reader.store(out, (), None, result)
    return out


_ARITY = {"atan2": 2, "hypot": 2, "pow": 2, "max": 2, "min": 2, "copysign": 2, "fmod": 2, "mod": 2, "heaviside": 2}


def _built(key: str, text: str, nodes: list[Node]) -> Node:
    if key in ("max", "min"):
        return _extreme(key, text, nodes)
    if len(nodes) != _ARITY.get(key, 1):
        raise Refusal(f"`{text}` is called with {len(nodes)} arguments", "give it as many as it has")
    if key in _SPELLED:
        return _SPELLED[key](*nodes)
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
}


def _extreme(key: str, text: str, nodes: list[Node]) -> Node:
    if len(nodes) == 1 and nodes[0].shape:
        raise Refusal(f"`{text}` of an array is taken", "write a loop")
    result = nodes[0]
    for node in nodes[1:]:
        kind = "f" if "f" in (result.kind, node.kind) else "i"
        result = N.call(key, text, *((N.as_float(result), N.as_float(node)) if kind == "f" else (result, node)), kind=kind)
    return result


# --- arrays -----------------------------------------------------------------------------------------------------------------


def _shape(reader: Any, shape: Any) -> tuple[Node, ...]:
    if isinstance(shape, tuple):
        return tuple(map(reader.number_or_array, shape))
    return (reader.number_or_array(shape),)


def _kind(dtype: Any) -> str:
    dtype = dtype.value if isinstance(dtype, Object) else dtype
    if dtype in (bool, np.bool_):
        return "b"
    if dtype is None or dtype is float or dtype is np.float64:
        return "f"
    if dtype in (int, np.int64, np.int32, np.intp):
        return "i"
    raise Refusal(f"an array of {getattr(dtype, '__name__', dtype)} is made", "use float64")


def _allocating(fill: Any) -> Callable:
    def allocate(reader: Any, function: Object, shape: Any, value: Any = None, dtype: Any = None) -> Node:
        if fill == "value":
            content = reader.number_or_array(value)
        else:
            dtype, content = value if dtype is None else dtype, fill
        kind = content.kind if fill == "value" and dtype is None else _kind(dtype)
        return reader.session.allocate(_shape(reader, shape), _as_kind(content, kind, function), kind)

    return allocate


def _like(fill: Any) -> Callable:
    def allocate(reader: Any, function: Object, array: Any, value: Any = None, dtype: Any = None) -> Node:
        if fill == "value":
            content = reader.number_or_array(value)
        else:
            dtype, content = value if dtype is None else dtype, fill
        array = reader.number_or_array(array)
        kind = array.kind if dtype is None else _kind(dtype)
        return reader.session.allocate(array.shape, _as_kind(content, kind, function), kind)

    return allocate


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


def _array(reader: Any, function: Object, value: Any, dtype: Any = None) -> Node:
    if isinstance(value, tuple):
        return reader.session.packed(reader, value)
    return _copied(reader, reader.number_or_array(value))


def _copied(reader: Any, array: Node) -> Node:
    return reader.session.allocate(array.shape, reader.anchored(reader.whole(array)), array.kind)


def _same(reader: Any, function: Object, value: Any, dtype: Any = None) -> Node:
    return reader.number_or_array(value)


def _dot(reader: Any, function: Object, a: Any, b: Any, out: Any = None) -> Node:
    product = N.dot(*(reader.whole(reader.number_or_array(x)) for x in (a, b)))
    if out is None:
        return product
    reader.store(out, (), None, product)
    return out


def _outer(reader: Any, function: Object, a: Any, b: Any) -> Node:
    return N.outer(*(reader.whole(reader.number_or_array(x)) for x in (a, b)))


def _sum(reader: Any, function: Object, array: Any, axis: Any = None) -> Node:
    if axis is not None and not isinstance(axis, Object):
        axis = N.value_of(axis)
    else:
        axis = None
    array = reader.number_or_array(array)
    if not array.shape:
        return array
    return N.total(reader.whole(array), axis)


def _mean(reader: Any, function: Object, array: Any) -> Node:
    array = reader.number_or_array(array)
    return N.div(N.total(reader.whole(array)), N.size_of(array))


def _where(reader: Any, function: Object, condition: Any, a: Any, b: Any) -> Node:
    nodes = [reader.whole(reader.number_or_array(x)) for x in (condition, a, b)]
    return N.where(*nodes)


def _reshape(reader: Any, array: Node, *shape: Any) -> Node:
    lengths = _shape(reader, shape[0] if len(shape) == 1 else tuple(shape))
    unknown = [k for k, length in enumerate(lengths) if N.value_of(length) == -1]
    true = list(lengths)
    if unknown:
        rest = N.I1
        for k, length in enumerate(lengths):
            rest = rest if k in unknown else N.mul(rest, length)
        true[unknown[0]] = N.whole("floordiv", N.size_of(array), rest)
    array = reader.session.addressable(reader, array)
    if not N.is_contiguous(array):  # as in NumPy
        array = _copied(reader, array)
    return N.view("reshape", array, *lengths, shape=tuple(true))


def _matrix(reader: Any, function: Object, x: Any, start: Any, rows: Any, columns: Any) -> Node:
    array = reader.session.addressable(reader, reader.number_or_array(x))
    where = tuple(map(reader.number_or_array, (start, rows, columns)))
    name = reader.session.bound("as_matrix", function.value)
    return N.view("matrix", array, name, *where, shape=where[1:])


def _located(reader: Any, function: Object, starts: Any, x: Any) -> Node:
    """An integer, which has no derivative."""
    name = reader.session.bound("locate", function.value)
    return reader.seen(N.make("taught", (name, (None, None), starts, reader.number_or_array(x)), "i"))


def _vector(reader: Any, function: Object, array: Any) -> Node:
    array = reader.number_or_array(array)
    if len(array.shape) != 1:
        raise Refusal(f"`{function.text}` is given something else than vectors", "write a loop over the entries")
    return array


def _slice(reader: Any, array: Node, start: Node | None, stop: Node | None) -> Node:
    return reader.session.sliced(reader, array, (("s", start, stop, None),))


def _diff(reader: Any, function: Object, x: Any) -> Node:
    x = reader.session.addressable(reader, _vector(reader, function, x))
    return N.sub(*(reader.whole(_slice(reader, x, *ends)) for ends in ((N.I1, None), (None, N.const(-1)))))


def _roll(reader: Any, function: Object, x: Any, shift: Any) -> Node:
    shift = reader.number_or_array(shift)
    if shift.kind != "i" or shift.shape:
        raise Refusal(f"`{function.text}` shifts by something else than an integer", "write a loop over the entries")
    x = reader.session.addressable(reader, _vector(reader, function, x))
    length = x.shape[0]
    moved = N.whole("mod", shift, length)  # where the first entry comes
    first = N.sub(length, moved)  # what comes first
    return _joined(reader, [_slice(reader, x, first, None), _slice(reader, x, None, first)], [moved, length])


def _concatenate(reader: Any, function: Object, parts: Any, axis: Any = N.I0) -> Node:
    if not isinstance(parts, tuple) or not parts or not isinstance(axis, Node) or N.value_of(axis) not in (0, -1):
        raise Refusal(f"`{function.text}` is given something else than a tuple of vectors", "write a loop over the entries")
    vectors = [_vector(reader, function, part) for part in parts]
    return _joined(reader, vectors, list(itertools.accumulate((vector.shape[0] for vector in vectors), N.add)))


def _joined(reader: Any, parts: list[Node], stops: list[Node]) -> Node:
    """A new vector of the entries of these, one after another, which end at `stops`."""
    result = reader.session.allocate((stops[-1],), None, "f" if any(part.kind == "f" for part in parts) else "i")
    ends = (None, *stops[:-1], None)
    for (start, stop), part in zip(itertools.pairwise(ends), parts, strict=True):
        reader.store(N.view("slice", result, ("s", start, stop, None), shape=part.shape), (), None, part)
    return result


def _interp(reader: Any, function: Object, x: Any, xp: Any, fp: Any) -> Any:
    x = reader.number_or_array(x)
    rule = interpolated_at if x.shape else interpolated
    if len(x.shape) > 1:
        raise Refusal(f"`{function.text}` is given a matrix", "write a loop over the entries")
    return reader.session.inlined(rule, [x, *(_vector(reader, function, points) for points in (xp, fp))], {})


def _into(key: str) -> Callable:
    def store(reader: Any, function: Object, x: Any, out: Any) -> Object:
        reader.session.space.setdefault("np", np)
        reader.store(out, (), None, N.call(key, f"np.{key}", reader.whole(reader.number_or_array(x))))
        return Object(None)

    return store


def _len(reader: Any, function: Object, value: Any) -> Node:
    return N.const(len(value)) if isinstance(value, tuple) else reader.number_or_array(value).shape[0]


def _transposed(reader: Any, function: Object, array: Any) -> Node:
    return _T(reader, reader.number_or_array(array))


def _T(reader: Any, array: Node) -> Node:
    return N.transpose(array)


def _added(reader: Any, function: Object, a: Any, b: Any) -> Node:
    return {"add": N.add, "subtract": N.sub, "multiply": N.mul, "divide": N.div, "true_divide": N.div}[function.value.__name__](
        *(reader.whole(reader.number_or_array(x)) for x in (a, b))
    )


def _sum_builtin(reader: Any, function: Object, values: Any) -> Node:
    if not isinstance(values, tuple):
        return _sum(reader, function, values)
    result = N.I0
    for value in values:
        result = N.add(result, reader.number_or_array(value))
    return result


FUNCTIONS: dict[Any, Callable] = {
    np.empty: _allocating(None),
    np.zeros: _allocating(N.ZERO),
    np.ones: _allocating(N.ONE),
    np.full: _allocating("value"),
    np.empty_like: _like(None),
    np.zeros_like: _like(N.ZERO),
    np.ones_like: _like(N.ONE),
    np.full_like: _like("value"),
    np.array: _array,
    np.asarray: _same,
    np.ascontiguousarray: _same,
    np.copy: lambda reader, function, x: _copied(reader, reader.number_or_array(x)),
    np.dot: _dot,
    np.matmul: _dot,
    np.vdot: _dot,
    np.outer: _outer,
    np.sum: _sum,
    np.mean: lambda reader, function, x: _mean(reader, function, x),
    np.where: _where,
    np.transpose: _transposed,
    np.reshape: lambda reader, function, x, *shape: _reshape(reader, reader.number_or_array(x), *shape),
    np.diff: _diff,
    np.interp: _interp,
    np.roll: _roll,
    np.concatenate: _concatenate,
    np.ravel: lambda reader, function, x: _reshape(reader, reader.number_or_array(x), N.const(-1)),
    np.add: _added,
    np.subtract: _added,
    np.multiply: _added,
    np.divide: _added,
    np.negative: lambda reader, function, x: N.neg(reader.whole(reader.number_or_array(x))),
    functions.as_matrix: _matrix,
    functions.tanh_into: _into("tanh"),
    functions.exp_into: _into("exp"),
    tables.locate: _located,
    builtins.len: _len,
    builtins.sum: _sum_builtin,
}

METHODS: dict[str, Callable] = {
    "sum": lambda reader, array, axis=None: _sum(reader, Object(None), array, axis),
    "mean": lambda reader, array: _mean(reader, Object(None), array),
    "dot": lambda reader, array, other, out=None: _dot(reader, Object(None), array, other, out),
    "reshape": _reshape,
    "ravel": lambda reader, array: _reshape(reader, array, N.const(-1)),
    "flatten": lambda reader, array: _copied(reader, _reshape(reader, array, N.const(-1))),
    "copy": lambda reader, array: _copied(reader, array),
    "transpose": lambda reader, array: N.transpose(array),
    "fill": lambda reader, array, value: reader.store(array, (), None, value),
}

ATTRIBUTES: dict[str, Callable] = {
    "size": lambda reader, array: N.size_of(array),
    "shape": lambda reader, array: array.shape,
    "ndim": lambda reader, array: N.const(len(array.shape)),
    "T": _T,
}
