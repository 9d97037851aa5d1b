"""Expressions, pure functions of *symbols*: arguments, indices of loops, what a statement defines.

The constructors of nodes simplify as a person would who writes the expression down: no `+ 0.0`, no `* 1.0`, signs in front,
constants folded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adjode.derivation.graph import Node as Node
from adjode.derivation.graph import make as make
from adjode.derivation.graph import symbol as symbol
from adjode.derivation.refusals import Refusal

# --- constants --------------------------------------------------------------------------------------------------------------


def const(value: Any) -> Node:
    if isinstance(value, bool):
        return make("const", (value,), "b")
    return make("const", (int(value),), "i") if isinstance(value, int) else make("const", (float(value),), "f")


def named(name: str, value: Any) -> Node:
    """A global or captured number, which the text calls by its name."""
    return make("named", (name, value), const(value).kind)


ZERO, ONE = const(0.0), const(1.0)
I0, I1 = const(0), const(1)


def value_of(node: Node) -> Any:
    """The number that a node is, or None if it is not constant."""
    if node.op == "const":
        return node.args[0]
    if node.op == "named":
        return node.args[1]
    if node.deps or node.op not in _FOLDED:
        return None
    values = [value_of(arg) for arg in node.nodes]
    return None if None in values else _FOLDED[node.op](*values)


_FOLDED: dict[str, Callable] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "div": lambda a, b: a / b if b else None,
    "floordiv": lambda a, b: a // b if b else None,
    "mod": lambda a, b: a % b if b else None,
}


def is_zero(node: Node) -> bool:
    return node.op == "const" and node.args[0] == 0


def is_one(node: Node) -> bool:
    return node.op == "const" and node.args[0] == 1 and not node.shape


def as_float(node: Node) -> Node:
    """The same number as a float where the text can say so for nothing."""
    return const(float(node.args[0])) if node.op == "const" and node.kind != "f" else node


def _folded(op: str, *nodes: Node) -> Node | None:
    if all(node.op == "const" for node in nodes):
        value = _FOLDED[op](*(node.args[0] for node in nodes))
        if value is not None:
            return const(value)
    return None


# --- arithmetic, of numbers and of whole arrays -----------------------------------------------------------------------------


def joined(*nodes: Node) -> tuple[str, tuple[Node, ...]]:
    """The kind and, by broadcasting, the shape of a result of these."""
    kind = "f" if any(node.kind == "f" for node in nodes) else "i"
    shape: tuple[Node, ...] = ()
    for node in nodes:
        shape = broadcast(shape, node.shape)
    return kind, shape


def broadcast(a: tuple[Node, ...], b: tuple[Node, ...]) -> tuple[Node, ...]:
    rank = max(len(a), len(b))
    a, b = (I1,) * (rank - len(a)) + a, (I1,) * (rank - len(b)) + b
    return tuple(y if value_of(x) == 1 else x for x, y in zip(a, b, strict=True))


def _pair(a: Node, b: Node) -> tuple[Node, Node, str, tuple[Node, ...]]:
    kind, shape = joined(a, b)
    return (as_float(a), as_float(b), kind, shape) if kind == "f" else (a, b, kind, shape)


def _unspread(a: Node, b: Node) -> tuple[Node, Node]:
    """Without the spreading of one over the shape of the other, which broadcasting does."""
    if a.op == "spread" and b.op != "spread" and a.shape == b.shape:
        a = a.args[0]
    elif b.op == "spread" and a.op != "spread" and a.shape == b.shape:
        b = b.args[0]
    return a, b


def add(a: Node, b: Node) -> Node:
    a, b, kind, shape = _pair(*_unspread(a, b))
    if is_zero(a) and b.shape == shape and b.kind == kind:
        return b
    if is_zero(b) and a.shape == shape and a.kind == kind:
        return a
    if b.op == "neg":
        return sub(a, b.args[0])
    if a.op == "neg":
        return sub(b, a.args[0])
    if kind == "i" and b.op == "const" and b.args[0] < 0 and a.op != "const":
        return sub(a, const(-b.args[0]))
    if kind == "i" and a.op in ("add", "sub") and a.args[1].op == b.op == "const":
        number = a.args[1].args[0] if a.op == "add" else -a.args[1].args[0]
        return add(a.args[0], const(number + b.args[0]))
    return _folded("add", a, b) or make("add", (a, b), kind, shape)


def sub(a: Node, b: Node) -> Node:
    a, b, kind, shape = _pair(*_unspread(a, b))
    if is_zero(a) and b.shape == shape and b.kind == kind:
        return neg(b)
    if is_zero(b) and a.shape == shape and a.kind == kind:
        return a
    if b.op == "neg":
        return add(a, b.args[0])
    if a is b and not shape and kind == "i":
        return I0
    if kind == "i" and b.op == "const" and b.args[0] < 0 and a.op != "const":
        return add(a, const(-b.args[0]))
    if a.op in ("add", "sub") and a.args[1].op == b.op == "const" and kind == "i":  # n - 1 - 1
        number = a.args[1].args[0] if a.op == "add" else -a.args[1].args[0]
        return add(a.args[0], const(number - b.args[0]))
    return _folded("sub", a, b) or make("sub", (a, b), kind, shape)


def neg(a: Node) -> Node:
    if a.op == "neg":
        return a.args[0]
    if a.op == "sub":
        return sub(a.args[1], a.args[0])
    if a.op == "mul" and a.args[0].op == "const":
        return mul(neg(a.args[0]), a.args[1])
    return _folded("neg", a) or make("neg", (a,), "f" if a.kind == "f" else "i", a.shape)


def mul(a: Node, b: Node) -> Node:
    a, b, kind, shape = _pair(*_unspread(a, b))
    if (is_zero(a) or is_zero(b)) and not shape:
        return ZERO if kind == "f" else I0
    if is_one(a) and b.kind == kind:
        return b
    if is_one(b) and a.kind == kind:
        return a
    folded = _folded("mul", a, b)
    if folded is not None:
        return folded
    if a.op == "neg":
        return neg(mul(a.args[0], b))
    if b.op == "neg":
        return neg(mul(a, b.args[0]))
    return _numbers_first(a, b) or make("mul", (a, b), kind, shape)


def _numbers_first(a: Node, b: Node) -> Node | None:
    """A product in which a number stands in front; None if there is none, or it does."""
    if a.op == "const" and b.op == "mul" and b.args[0].op == "const":
        return mul(const(a.args[0] * b.args[0].args[0]), b.args[1])
    if a.op == "const":
        return neg(b) if a.args[0] == -1 else None
    if b.op == "const":
        return mul(b, a)
    if b.op == "mul" and b.args[0].op == "const":
        return mul(b.args[0], mul(a, b.args[1]))
    if a.op == "mul" and a.args[0].op == "const":
        return mul(a.args[0], mul(a.args[1], b))
    return None


def div(a: Node, b: Node) -> Node:
    _, shape = joined(a, b)
    a, b = as_float(a), as_float(b)
    if is_one(b) and a.kind == "f":
        return a
    if is_zero(a) and not shape and b.op == "const":
        return ZERO
    if a.op == "neg":
        return neg(div(a.args[0], b))
    return _folded("div", a, b) or make("div", (a, b), "f", shape)


def whole(op: str, a: Node, b: Node) -> Node:
    """`a // b` or `a % b`."""
    a, b, kind, shape = _pair(a, b)
    if op == "mod" and kind == "i" and is_one(b):
        return I0
    return _folded(op, a, b) or make(op, (a, b), kind, shape)


def power(a: Node, b: Node) -> Node:
    """`a ** b`; a float that is a whole number is a whole number as an exponent."""
    value = value_of(b)
    if b.op == "const" and isinstance(value, float) and value.is_integer() and abs(value) < 64:
        b, value = const(int(value)), int(value)
    if b.op == "const" and value == 0:
        return ONE
    if b.op == "const" and value == 1:
        return as_float(a)
    if a.op == "const" and b.op == "const":
        return const(a.args[0] ** value)
    kind, shape = joined(a, b)
    if kind == "i" and (value is None or value < 0):
        raise Refusal("a power of integers is not known to be an integer", "write the base as a float")
    return make("pow", (as_float(a) if kind == "f" else a, b), kind, shape)


def call(key: str, text: str, *args: Node, kind: str = "f") -> Node:
    """A function of the library `key`, which the text calls `text`, entry by entry."""
    _, shape = joined(*args)
    return make("call", (key, text, *args), kind, shape)


def compare(op: str, a: Node, b: Node) -> Node:
    x, y = value_of(a), value_of(b)
    if x is not None and y is not None:
        return const(bool(_COMPARED[op](x, y)))
    return make("compare", (op, a, b), "b", joined(a, b)[1])


_COMPARED = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def both(op: str, a: Node, b: Node) -> Node:
    """`a and b` or `a or b`."""
    x, y = value_of(a), value_of(b)
    if x is not None:
        return b if bool(x) == (op == "and") else a
    if y is not None and bool(y) == (op == "and"):
        return a
    return make(op, (a, b), "b", joined(a, b)[1])


def negated(a: Node) -> Node:
    value = value_of(a)
    return make("not", (a,), "b", a.shape) if value is None else const(not value)


def where(condition: Node, a: Node, b: Node) -> Node:
    """`a if condition else b`, of numbers; both sides can be computed in any case."""
    value = value_of(condition)
    if value is not None:
        return a if value else b
    if a is b:
        return a
    if a.kind == b.kind == "b" and not condition.shape:
        if value_of(b) is False:
            return both("and", condition, a)
        if value_of(a) is True:
            return both("or", condition, b)
    kind, shape = joined(condition, a, b)
    kind = "f" if "f" in (a.kind, b.kind) else "b" if a.kind == b.kind == "b" else "i"
    return make("where", (condition, as_float(a), as_float(b)) if kind == "f" else (condition, a, b), kind, shape)


# --- arrays -----------------------------------------------------------------------------------------------------------------


def size_of(a: Node, axis: int | None = None) -> Node:
    """The length of an axis, or with None the number of entries."""
    if axis is not None:
        return a.shape[axis]
    size = I1
    for length in a.shape:
        size = mul(size, length)
    return size


def load(a: Node, indices: tuple[Node, ...]) -> Node:
    return make("load", (a, *indices), a.kind)


VIEWS = ("slice", "T", "reshape", "matrix")


def root(a: Node) -> Node:
    """The array that a view shows part of."""
    while a.op in VIEWS:
        a = a.args[0]
    return a


def on(view: Node, base: Node) -> Node:
    """The same view of another array."""
    if view.op not in VIEWS:
        return base
    return make(view.op, (on(view.args[0], base), *view.args[1:]), "f", view.shape)


def view(op: str, a: Node, *how: Any, shape: tuple[Node, ...]) -> Node:
    return make(op, (a, *how), a.kind, shape)


def is_contiguous(array: Node) -> bool:
    """Whether the entries of a view follow each other."""
    if array.op == "slice":
        spec = list(array.args[1:])
        while spec and isinstance(spec[0], Node):
            del spec[0]
        first = spec[0] if spec else ("s", None, None, None)
        if first == "new" or first[3] is not None or any(item != ("s", None, None, None) for item in spec[1:]):
            return False
    return array.op != "T" and (array.op not in VIEWS or is_contiguous(array.args[0]))


def transpose(a: Node) -> Node:
    if a.op == "T":
        return a.args[0]
    if a.op == "dot" and len(a.args[0].shape) == len(a.args[1].shape) == 2:
        return dot(transpose(a.args[1]), transpose(a.args[0]))
    if a.op == "outer":
        return outer(a.args[1], a.args[0])
    return a if len(a.shape) < 2 else view("T", a, shape=tuple(reversed(a.shape)))


def dot(a: Node, b: Node) -> Node:
    """`np.dot` of vectors and matrices."""
    if not a.shape or not b.shape:
        return mul(a, b)
    return make("dot", (a, b), "f", a.shape[:-1] + (b.shape[:-2] + b.shape[-1:] if len(b.shape) > 1 else ()))


def solve(a: Node, b: Node) -> Node:
    """`np.linalg.solve`."""
    return make("solve", (a, b), "f", b.shape)


def outer(a: Node, b: Node) -> Node:
    return make("outer", (a, b), "f", a.shape + b.shape)


def total(a: Node, axis: int | None = None) -> Node:
    """`a.sum()` or `a.sum(axis)`."""
    if axis is None:
        return make("sum", (a, None), a.kind)
    axis %= len(a.shape)
    return make("sum", (a, axis), a.kind, a.shape[:axis] + a.shape[axis + 1 :])
