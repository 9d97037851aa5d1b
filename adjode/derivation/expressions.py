"""From a syntax tree of an expression to nodes."""

from __future__ import annotations

import ast
import contextlib
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.indexing import Indexing
from adjode.derivation.merging import Merge
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Dictionary, Items, Object, Undefined, with_items
from adjode.derivation.refusals import Refusal


@dataclass(frozen=True)
class Iterable:
    """What a loop runs over: `item(k)` for k in range(start, stop, step)."""

    start: Node
    stop: Node
    step: Node
    item: Callable[[Node], Any]

    @property
    def count(self) -> Node:
        """How many there are."""
        if self.start is N.I0 and self.step is N.I1:
            return self.stop
        return N.make("trips", (self.start, self.stop, self.step), "i")

    def place(self, index: Node) -> Node:
        """Which of them an index is."""
        return N.whole("floordiv", N.sub(index, self.start), self.step)

    def listed(self, most: int) -> tuple | None:
        """All items, if it is known how many there are, and these are no more than that."""
        ends = [N.value_of(end) for end in (self.start, self.stop, self.step)]
        if None in ends or len(numbers := range(*map(int, ends))) > most:
            return None
        return tuple(self.item(N.const(k)) for k in numbers)


_BINARY: dict[type, Callable[[Node, Node], Node]] = {
    ast.Add: N.add,
    ast.Sub: N.sub,
    ast.Mult: N.mul,
    ast.Div: N.div,
    ast.Pow: N.power,
    ast.FloorDiv: lambda a, b: N.whole("floordiv", a, b),
    ast.Mod: lambda a, b: N.whole("mod", a, b),
    ast.MatMult: N.dot,
}
_BITS: dict[type, str] = {
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
    ast.LShift: "left_shift",
    ast.RShift: "right_shift",
}
_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_RISKY = {"div", "solve", "call", "taught", "pow", "mod", "floordiv"}  # what may fail, or make a NaN, where it is not wanted


class Expressions(Indexing):
    """Values are nodes, tuples of values, and objects of Python's."""

    assign: Any

    def __init__(self, source: Any, session: Any, env: dict[str, Any]):
        self.source, self.session, self.env = source, session, env
        self.growing: dict[str, tuple[Node, Node]] = {}  # lists that are arrays, and the place that is filled in this round

    nest = property(lambda self: tuple(self.session.nest))
    # what is common to all that is read into one program
    block = property(lambda self: self.session.block, lambda self, block: setattr(self.session, "block", block))
    contents = property(lambda self: self.session.contents, lambda self, value: setattr(self.session, "contents", value))
    last_stores = property(lambda self: self.session.last_stores, lambda self, value: setattr(self.session, "last_stores", value))

    def at(self, node: ast.AST, read: Callable[[Any], Any]) -> Any:
        """`read(node)`; what is refused there gets its line."""
        try:
            return read(node)
        except Refusal as refusal:
            raise self.session.error(refusal, self.source.line(node)) from None

    def hint(self, name: str, value: Any) -> None:
        if isinstance(value, Node) and value.op not in ("const", "named"):
            self.session.hints.setdefault(value, name)

    # --- scopes: what is evaluated in any case ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def inner_scope(self) -> Iterator[set[Node]]:
        self.session.scopes.append(set())
        yield self.session.scopes[-1]
        self.session.scopes.pop()

    def seen(self, node: Node) -> Node:
        """Remember what cannot be evaluated just anywhere."""
        risky = node.op in _RISKY or (node.op == "load" and any(N.value_of(i) is None for i in node.args[1:]))
        if risky and not any(node in scope for scope in self.session.scopes):
            self.session.scopes[-1].add(node)
        return node

    def branch(self, condition: Node, then: Callable[[], Any], other: Callable[[], Any]) -> Any:
        """Both branches, and what they leave: names, contents of arrays, and the value that is returned."""
        outer, env, contents = self.block, self.env, self.contents
        last, ends = self.last_stores, []
        self.last_stores = {}
        for read in (then, other):
            self.block, self.env = P.Block(), dict(env)
            self.contents = {array: dict(known) for array, known in contents.items()}
            with self.inner_scope() as scope:
                value = read()
            ends.append((self.block, self.env, self.contents, value, bool(scope)))
            self.last_stores = {}
        (a, a_env, a_known, a_value, a_risky), (b, b_env, b_known, b_value, b_risky) = ends
        pure = not (a.statements or b.statements or a_risky or b_risky)
        statement = P.If(condition, a, b, [])
        merge = Merge(self.session.memory, self.hint, statement, pure)
        self.block = outer
        self.env = {name: merge.values(a_env[name], b_env.get(name), name) for name in a_env if name in b_env}
        value = merge.values(a_value, b_value, None)
        self.contents = {
            array: {k: v for k, v in known.items() if b_known.get(array, {}).get(k) is v} for array, known in a_known.items()
        }
        self.last_stores = {} if not pure else last
        if a.statements or b.statements or statement.results:
            outer.add(statement)
        return value

    # --- values -----------------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> Any:
        read = getattr(self, f"value_{type(node).__name__}", None)
        if read is None:
            name = type(node).__name__
            what, instead = _CONSTRUCTS.get(name, (f"`{name}`", "use numbers, arrays, loops and branches"))
            raise Refusal(f"{what} cannot be differentiated", instead)
        return self.at(node, read)

    def number_or_array(self, value: Any) -> Node:
        if isinstance(value, Node):
            return value
        if isinstance(value, tuple):
            return self.session.packed(self, value)
        if value is Undefined:
            raise Refusal("a name may have no value here", "give it one before the loop or branch")
        if isinstance(value, Dictionary):
            raise Refusal("a dictionary is used as a number or an array", "read its items by their keys")
        found, text = value.value, value.text or repr(value.value)
        if isinstance(found, complex):
            raise Refusal(f"`{text}` is a complex number", "calculate with real and imaginary parts")
        raise Refusal(
            f"`{text}` is neither a number nor an array, but of type {type(found).__name__}", "use numbers, tuples and arrays"
        )

    def node(self, node: ast.expr) -> Node:
        return self.number_or_array(self.value(node))

    def integer(self, node: ast.expr) -> Node:
        value = self.node(node)
        if value.kind == "f" or value.shape:
            raise Refusal("an index or a length is not an integer", "convert it by int(...)")
        return value

    def truth(self, node: ast.expr) -> Node:
        value = self.value(node)
        if isinstance(value, Object) and value is not Undefined:
            return N.const(bool(value.value))
        value = self.number_or_array(value)
        if value.shape:
            raise Refusal("an array is used as a condition", "compare numbers")
        return value if value.kind == "b" else N.compare("!=", value, N.I0)

    def value_Constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, (bool, int, float)):
            return N.const(node.value)
        return Object(node.value)

    def value_Name(self, node: ast.Name) -> Any:
        if node.id in self.env or node.id in self.source.local:
            value = self.env.get(node.id, Undefined)
            if value is Undefined:
                raise Refusal(f"`{node.id}` may have no value here", "give it one before the loop or branch")
            return value
        return self.session.outside(self.source, node.id)

    def value_Left(self, node: ast.Name) -> Any:
        if self.env.get(node.id, Undefined) is Undefined:
            raise Refusal("an array, or several values, are returned from inside a loop", "return them after it")
        return self.env[node.id]

    def value_Attribute(self, node: ast.Attribute) -> Any:
        return self.session.attribute(self, self.value(node.value), node.attr)

    def value_UnaryOp(self, node: ast.UnaryOp) -> Node:
        if isinstance(node.op, ast.Not):
            return N.negated(self.truth(node.operand))
        operand = self.whole(self.node(node.operand))
        if isinstance(node.op, ast.USub):
            return N.neg(operand)
        if isinstance(node.op, ast.UAdd):
            return operand
        if operand.kind == "f":
            raise Refusal("a bitwise operator is given a float", "use arithmetic")
        return self.on_bits("logical_not" if operand.kind == "b" else "invert", operand)

    def value_BinOp(self, node: ast.BinOp) -> Any:
        return self.binary(node.op, self.value(node.left), self.value(node.right))

    def binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        if isinstance(left, tuple) and isinstance(right, tuple) and isinstance(op, ast.Add):
            return Items.of((*left, *right), self.nest) if isinstance(left, Items) else left + right
        if isinstance(op, ast.Mult) and any(_repeats(*pair) for pair in ((left, right), (right, left))):
            values, count = (left, right) if isinstance(left, tuple) else (right, left)
            return Items.of(_repeated(values, count), self.nest) if isinstance(values, Items) else _repeated(values, count)
        if (self.is_list(left) and not _is_array(right, self)) or (self.is_list(right) and not _is_array(left, self)):
            raise Refusal(
                "a list whose length is not constant is added to, or repeated", "make an array of it first, by np.array(...)"
            )
        a, b = self.whole(self.number_or_array(left)), self.whole(self.number_or_array(right))
        if isinstance(op, ast.MatMult):
            a, b = self.session.floats(a), self.session.floats(b)
        if type(op) in _BINARY:
            return self.seen(_BINARY[type(op)](a, b))
        if "f" in (a.kind, b.kind):
            raise Refusal("a bitwise operator is given a float", "use arithmetic")
        name = _BITS[type(op)]
        if type(op) not in (ast.LShift, ast.RShift):
            name = f"logical_{name}" if a.kind == b.kind == "b" else f"bitwise_{name}"
        return self.on_bits(name, a, b)

    def is_list(self, value: Any) -> bool:
        """Whether a value is a list of Python's that is kept as an array."""
        return isinstance(value, Node) and bool(value.shape) and N.root(value) in self.session.lists

    def on_bits(self, name: str, *nodes: Node) -> Node:
        """A function of truth values or of integers."""
        self.session.space.setdefault("np", np)
        return N.call(name, f"np.{name}", *nodes, kind="b" if name.startswith("logical") else "i")

    def value_Compare(self, node: ast.Compare) -> Node:
        left, result = node.left, None
        for op, right in zip(node.ops, node.comparators, strict=True):
            if type(op) in (ast.Is, ast.IsNot):
                same = self.value(left) == self.value(right)
                part = N.const(same == isinstance(op, ast.Is))
            elif type(op) in _COMPARE:
                part = self.compared(_COMPARE[type(op)], self.value(left), self.value(right))
            else:
                part = self.is_among(self.value(left), self.value(right))
                part = N.negated(part) if isinstance(op, ast.NotIn) else part
            result, left = part if result is None else N.both("and", result, part), right
        assert result is not None
        return result

    def is_among(self, value: Any, values: Any) -> Node:
        """`value in values`."""
        if isinstance(values, Dictionary):
            values = tuple(self.session.known("", key) for key in values.value)
        if not isinstance(values, tuple):
            raise Refusal("`in` is not followed by a tuple", "compare numbers")
        result = N.const(False)
        for other in values:
            result = N.both("or", result, self.compared("==", value, other))
        return result

    def compared(self, op: str, left: Any, right: Any) -> Node:
        if isinstance(left, Object) and isinstance(right, Object) and op in ("==", "!="):
            return N.const((left.value == right.value) == (op == "=="))
        return N.compare(op, self.whole(self.number_or_array(left)), self.whole(self.number_or_array(right)))

    def value_BoolOp(self, node: ast.BoolOp) -> Node:
        word = "and" if isinstance(node.op, ast.And) else "or"
        result = self.truth(node.values[0])
        for part in node.values[1:]:
            value = N.value_of(result)
            if value is not None and bool(value) == (word == "or"):
                return result
            fixed = N.const(word == "or")
            first, read = result, (lambda part=part: self.truth(part))
            result = self.branch(
                first, *((read, lambda fixed=fixed: fixed) if word == "and" else (lambda fixed=fixed: fixed, read))
            )
        return result

    def value_IfExp(self, node: ast.IfExp) -> Any:
        condition = self.truth(node.test)
        value = N.value_of(condition)
        if value is not None:
            return self.value(node.body if value else node.orelse)
        return self.branch(condition, lambda: self.value(node.body), lambda: self.value(node.orelse))

    # --- arrays as wholes -----------------------------------------------------------------------------------------------------

    def whole(self, value: Node) -> Node:
        """A value to calculate with: memory is read here and now."""
        return self.read_whole(value) if value.shape and N.root(value) in self.session.memory else value

    def whole_value(self, value: Any) -> Any:
        return self.whole(value) if isinstance(value, Node) else value

    def read_whole(self, array: Node) -> Node:
        base = N.root(array)
        self.forget_stores(base)
        for statement in reversed(self.block.statements):  # it may be known as it is
            if isinstance(statement, P.Read) and statement.array is array and not statement.indices:
                return statement.symbol
            if statement.blocks or (isinstance(statement, P.Store) and N.root(statement.array) is base):
                break
        read = P.Read(N.symbol(array.kind, array.shape), array, ())
        self.session.aliases.add(read.symbol)
        self.block.add(read)
        return read.symbol

    def anchored(self, value: Any) -> Any:
        """The same value, evaluated here if it is made of memory."""
        if isinstance(value, tuple):
            items = [self.anchored(item) for item in value]
            return value if all(map(operator.is_, items, value)) else with_items(value, items)
        if isinstance(value, Node) and value.op not in ("sym", *N.VIEWS) and not value.deps.isdisjoint(self.session.aliases):
            let = P.Let(N.symbol(value.kind, value.shape), value)
            self.block.add(let)
            return let.symbol
        return value

    def is_shared(self, name: str, array: Node) -> bool:
        base = N.root(array)
        shared = any(isinstance(v, Node) and v.shape and N.root(v) is base for n, v in self.env.items() if n != name)
        return shared or base in self.session.inputs

    def value_NamedExpr(self, node: ast.NamedExpr) -> Any:
        value = self.anchored(self.value(node.value))
        self.assign(node.target, value)
        return self.env[node.target.id]

    def value_Call(self, node: ast.Call) -> Any:
        return self.session.called(self, node)

    def iterable(self, node: ast.expr) -> Iterable | tuple:
        return self.session.iterable(self, node)


def _is_array(value: Any, reader: Expressions) -> bool:
    return isinstance(value, Node) and bool(value.shape) and not reader.is_list(value)


def _repeats(values: Any, count: Any) -> bool:
    """Whether a product repeats a list or a tuple."""
    return isinstance(values, tuple) and isinstance(count, Node) and not count.shape and count.kind != "f"


def _repeated(values: tuple, count: Node) -> tuple:
    times = N.value_of(count)
    if times is None:
        raise Refusal("a list is repeated a number of times that is not constant", "make an array by np.full(...)")
    return values * int(times)


_CONSTRUCTS = {
    "Set": ("a set", "use a tuple"),
    "JoinedStr": ("a formatted string", "leave it out"),
    "Starred": ("a starred expression", "write its items one by one"),
}
