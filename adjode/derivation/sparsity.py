"""The zeros of df/du, from the program: f is run on sets of states instead of numbers.

A number is the set of the states that it depends on, as an integer whose bits say which. Integers are themselves, so that loops
and indices are as in f. Where a condition depends on numbers, both branches are run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.library import STEPS
from adjode.derivation.nodes import Node
from adjode.derivation.refusals import Refusal


class Unknown:
    """An integer or a truth value that depends on numbers, or an array of such."""

    def __getitem__(self, where: Any) -> Unknown:
        return self


UNKNOWN = Unknown()
_STATES, _ROUNDS = 20_000, 50_000  # some seconds


def pattern(function: P.Function, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the entries of df/du that may differ from zero, for n states and m parameters.

    Raises
    ------
    Refusal
        If how often a loop runs depends on numbers, or if that is too often, or if there are too many states.
    """
    if n > _STATES:
        raise Refusal(f"it has more than {_STATES} states", "give the zeros of the Jacobian")
    u = np.array([1 << k for k in range(n)], dtype=object)
    values = {"t": 0, "u": u, "theta": np.zeros(m, dtype=object), "du": np.zeros(n, dtype=object)}
    run = _Run({symbol: values[name] for name, symbol in function.arguments.items()}, function.tables)
    run.block(function.body)
    assert function.result is not None
    result = run.value(function.result)
    rows = [_members(mask, n) for mask in (result if function.result.shape else [result])]
    return np.repeat(np.arange(len(rows)), [row.size for row in rows]), np.concatenate([*rows, np.zeros(0, dtype=np.int64)])


def _members(mask: int, n: int) -> np.ndarray:
    octets = np.frombuffer(mask.to_bytes((n + 7) // 8, "little"), dtype=np.uint8)
    return np.flatnonzero(np.unpackbits(octets, bitorder="little"))


class _Run:
    """One run of a program. `values` holds what symbols are; what is calculated of them is kept until one of them changes."""

    def __init__(self, values: dict[Node, Any], tables: dict[Node, np.ndarray]):
        self.values, self.tables = values, tables
        self.rounds = 0
        self.known: list[dict[Node, Any]] = [{}]
        self.bound: list[frozenset[Node]] = [frozenset()]  # for each loop around, what differs between its iterations

    # --- statements -------------------------------------------------------------------------------------------------------------

    def block(self, block: P.Block) -> None:
        for statement in block.statements:
            getattr(self, f"_{type(statement).__name__.lower()}")(statement)

    def _let(self, statement: P.Let) -> None:
        self.values[statement.symbol] = self.as_kind(statement.symbol.kind, statement.value)

    def _read(self, statement: P.Read) -> None:
        self.values[statement.symbol] = self.entry(self.value(statement.array), statement.indices, statement.symbol.kind)

    def _alloc(self, statement: P.Alloc) -> None:
        shape = tuple(map(self.value, statement.symbol.shape)) if statement.fill is None or not statement.fill.shape else ()
        fill = 0 if statement.fill is None else self.as_kind(statement.dtype, statement.fill)
        if fill is UNKNOWN:
            self.values[statement.symbol] = UNKNOWN
            return
        kind = object if statement.dtype == "f" else np.int64
        self.values[statement.symbol] = np.array(fill, dtype=kind) if shape == () else np.full(shape, fill, dtype=kind)

    def _store(self, statement: P.Store) -> None:
        array, value = self.value(statement.array), self.as_kind(statement.array.kind, statement.value)
        where: Any = tuple(map(self.value, statement.indices)) if statement.indices else ...
        unknown = statement.indices and any(index is UNKNOWN for index in where)
        if unknown:
            where = tuple(slice(None) if index is UNKNOWN else index for index in where)
        if statement.array.kind == "f" and (statement.adds or unknown):
            array[where] = array[where] | value
        elif value is UNKNOWN or array is UNKNOWN:
            self.values[N.root(statement.array)] = UNKNOWN
        else:
            array[where] = array[where] + value if statement.adds else value

    def _if(self, statement: P.If) -> None:
        condition = self.value(statement.condition)
        if condition is not UNKNOWN:
            block, ends = statement.sides[0 if condition else 1]
            self.block(block)
            for r, end in zip(statement.results, ends, strict=True):
                self.values[r.symbol] = self.as_kind(r.symbol.kind, end)
            return
        arrays = {N.root(s.array) for b in statement.blocks for s in b.walk() if isinstance(s, P.Store)}
        memory = [self.values[array] for array in arrays if self.values.get(array, UNKNOWN) is not UNKNOWN]
        before, after = [array.copy() for array in memory], []
        for block, ends in statement.sides:
            for array, kept in zip(memory, before, strict=True):
                array[...] = kept
            self.block(block)
            kinds = [r.symbol.kind for r in statement.results]
            after.append(([array.copy() for array in memory], list(map(self.as_kind, kinds, ends))))
        (first, first_ends), (second, second_ends) = after
        for array, x, y in zip(memory, first, second, strict=True):
            array[...] = x | y if array.dtype == object else x
        for r, x, y in zip(statement.results, first_ends, second_ends, strict=True):
            self.values[r.symbol] = x | y if r.symbol.kind == "f" else x if x is y or x == y else UNKNOWN

    def _for(self, s: P.For) -> None:
        ends = [self.value(end) for end in (s.start, s.stop, s.step)]
        if any(end is UNKNOWN for end in ends):
            raise Refusal("how often a loop runs depends on numbers", "give the zeros of the Jacobian")
        steps = range(*ends)

        def step(k: int) -> bool:
            if k >= len(steps):
                return False
            self.values[s.index] = steps[-1 - k] if s.backwards else steps[k]
            return True

        self._loop(s, step)

    def _while(self, s: P.While) -> None:
        def step(k: int) -> bool:
            condition = self.value(s.condition)
            if condition is UNKNOWN:
                raise Refusal("how often a loop runs depends on numbers", "give the zeros of the Jacobian")
            return bool(condition)

        self._loop(s, step)

    def _loop(self, s: P.For | P.While, step: Callable[[int], bool]) -> None:
        for c in s.carried:
            start = self.as_kind(c.phi.kind, c.start)
            self.values[c.phi] = start.copy() if c.phi.shape else start
        defined = [symbol for one in s.body.walk() for symbol in (*one.defines, *getattr(one, "inside", ()))]
        self.bound.append(frozenset((*s.inside, *defined)))
        self.known.append({})
        k = 0
        while step(k):
            self.rounds += 1
            if self.rounds > _ROUNDS:
                raise Refusal(f"its loops take more than {_ROUNDS} rounds", "give the zeros of the Jacobian")
            self.block(s.body)
            following = [self.as_kind(c.phi.kind, c.next) for c in s.carried]
            for c, value in zip(s.carried, following, strict=True):
                self.values[c.phi] = value
            self.known[-1] = {}
            k += 1
        self.known.pop()
        self.bound.pop()
        for c in s.carried:
            self.values[c.after] = self.values[c.phi]

    # --- expressions --------------------------------------------------------------------------------------------------------------

    def value(self, node: Node) -> Any:
        if node.op == "sym":
            return self.values[node] if node in self.values else self._table(node)
        if node.op in ("const", "named"):
            return 0 if node.kind == "f" else N.value_of(node)
        level = len(self.bound) - 1
        while level and node.deps.isdisjoint(self.bound[level]):
            level -= 1
        known = self.known[level]
        if node not in known:
            known[node] = self._calculated(node)
        return known[node]

    def as_kind(self, kind: str, node: Node) -> Any:
        """The value of an expression where one of some kind is needed: an integer as a number depends on nothing."""
        value = self.value(node)
        return np.zeros(np.shape(value), dtype=object)[()] if kind == "f" != node.kind else value

    def _table(self, node: Node) -> np.ndarray:
        table = self.tables[node]
        self.values[node] = np.zeros(table.shape, dtype=object) if node.kind == "f" else table
        return self.values[node]

    def entry(self, array: Any, indices: tuple[Node, ...], kind: str) -> Any:
        if not indices:
            return array
        where = tuple(map(self.value, indices))
        if not any(index is UNKNOWN for index in where):
            return array[where]
        if kind != "f":
            return UNKNOWN
        return _union(array[tuple(slice(None) if i is UNKNOWN else i for i in where)])

    def _calculated(self, node: Node) -> Any:
        if node.op in _SHAPES:
            return _SHAPES[node.op](self, node)
        if node.kind == "f":
            return self._numbers(node)
        values = [self.value(arg) for arg in node.nodes]
        if any(value is UNKNOWN for value in values) or any(arg.kind == "f" for arg in node.nodes):
            return UNKNOWN
        if node.op == "call":
            return _CALLS[node.args[0]](*values) if node.args[0] in _CALLS else UNKNOWN
        if node.op == "compare":
            return _COMPARED[node.args[0]](*values)
        return _INTEGERS[node.op](*values)

    def _numbers(self, node: Node) -> Any:
        """The union of all that an operation has as arguments."""
        if node.op == "call" and node.args[0] in STEPS:
            return self._shaped(0, node)
        if node.op == "mul" and any(self._is_zero(arg) for arg in node.args):
            return self._shaped(0, node)
        if node.op == "where":
            condition, a, b = node.args
            chosen = self.value(condition) if not condition.shape else UNKNOWN
            first, second = self.as_kind("f", a), self.as_kind("f", b)
            return self._shaped(first | second if chosen is UNKNOWN else first if chosen else second, node)
        result: Any = 0
        for arg in node.nodes:
            if arg.kind == "f":
                result = result | self.value(arg)
        return self._shaped(result, node)

    def _is_zero(self, node: Node) -> bool:
        """Whether a number is a constant that is zero."""
        if node.op == "load" and node.args[0] in self.tables:
            where = tuple(map(self.value, node.args[1:]))
            return all(index is not UNKNOWN for index in where) and self.tables[node.args[0]][where] == 0.0
        return N.value_of(node) == 0

    def _shaped(self, value: Any, node: Node) -> Any:
        if not node.shape:
            return value
        shape = self.shape_of(node)
        return value if np.shape(value) == shape else np.broadcast_to(np.array(value, dtype=object), shape).copy()

    def shape_of(self, node: Node) -> tuple[int, ...]:
        """The shape of the result of an operation entry by entry."""
        shapes = []
        for arg in node.nodes:
            value = self.value(arg) if arg.shape else 0
            shapes.append(self.shape_of(arg) if value is UNKNOWN else np.shape(value))
        return np.broadcast_shapes(*shapes)

    # --- arrays -------------------------------------------------------------------------------------------------------------------

    def load(self, node: Node) -> Any:
        return self.entry(self.value(node.args[0]), node.args[1:], node.kind)

    def size(self, node: Node) -> int:
        array = self.value(node.args[0])
        if array is UNKNOWN:
            raise Refusal("the length of an array of integers is read, which depend on numbers", "give the zeros of the Jacobian")
        return np.shape(array)[node.args[1]]

    def trips(self, node: Node) -> Any:
        ends = [self.value(end) for end in node.args]
        return UNKNOWN if any(end is UNKNOWN for end in ends) else len(range(*ends))

    def slice(self, node: Node) -> Any:
        array, *spec = node.args
        return self.value(array)[tuple(map(self._axis, spec))]

    def _axis(self, item: Any) -> Any:
        if item == "new":
            return None
        ends = [self.value(item)] if isinstance(item, Node) else [None if end is None else self.value(end) for end in item[1:]]
        if any(end is UNKNOWN for end in ends):
            raise Refusal("which part of an array is taken depends on numbers", "give the zeros of the Jacobian")
        return ends[0] if isinstance(item, Node) else slice(*ends)

    def T(self, node: Node) -> Any:
        return self.value(node.args[0]).T

    def reshape(self, node: Node) -> Any:
        return self.value(node.args[0]).reshape([self.value(length) for length in node.args[1:]])

    def matrix(self, node: Node) -> Any:
        array, _, *where = node.args
        start, rows, columns = map(self.value, where)
        return self.value(array)[start : start + rows * columns].reshape(rows, columns)

    def spread(self, node: Node) -> Any:
        return np.broadcast_to(np.array(self.value(node.args[0]), dtype=object), np.shape(self.value(node.args[1]))).copy()

    def sum(self, node: Node) -> Any:
        add = _union if node.kind == "f" else np.sum
        return add(self.value(node.args[0]), axis=node.args[1])

    def outer(self, node: Node) -> Any:
        a, b = (self.as_kind("f", arg) for arg in node.args)
        return a[:, None] | b[None, :]

    def solve(self, node: Node) -> Any:
        a, b = (self.as_kind("f", arg) for arg in node.args)
        return np.full(np.shape(b), _union(a.ravel()) | _union(b.ravel()), dtype=object)

    def dot(self, node: Node) -> Any:
        a, b = (np.atleast_1d(self.as_kind("f", arg)) for arg in node.args)
        first, second = node.args
        rows, columns = (a if a.ndim == 2 else a[None, :]), (b if b.ndim == 2 else b[:, None])
        if first in self.tables:
            result = _sums(np.atleast_2d(self.tables[first]) != 0, columns)
        elif second in self.tables:
            table = self.tables[second] != 0
            result = _sums(table.T if b.ndim == 2 else table[None, :], rows.T).T
        else:
            result = _union(rows, 1)[:, None] | _union(columns, 0)[None, :]
        result = result if a.ndim == 2 else result[0]
        return result if b.ndim == 2 else result[..., 0][()]


def _union(array: np.ndarray, axis: int | None = None) -> Any:
    return np.bitwise_or.reduce(array, axis=axis, initial=0)


def _sums(there: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A product with a matrix whose zeros are known."""
    result = np.zeros((there.shape[0], columns.shape[1]), dtype=object)
    for i, row in enumerate(there):
        result[i] = _union(columns[row], 0)
    return result


_SHAPES: dict[str, Callable[[_Run, Node], Any]] = {
    "load": _Run.load,
    "size": _Run.size,
    "trips": _Run.trips,
    "slice": _Run.slice,
    "T": _Run.T,
    "reshape": _Run.reshape,
    "matrix": _Run.matrix,
    "spread": _Run.spread,
    "sum": _Run.sum,
    "outer": _Run.outer,
    "dot": _Run.dot,
    "solve": _Run.solve,
}
_COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
_NAMES = "logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor left_shift right_shift invert"
_CALLS: dict[str, Callable] = {"min": np.minimum, "max": np.maximum, "abs": abs, "int": int, "mod": operator.mod, "bool": bool}
_CALLS |= {name: getattr(np, name) for name in _NAMES.split()}
_INTEGERS: dict[str, Callable] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "not": operator.not_,
    "where": lambda condition, a, b: a if condition else b,
}
