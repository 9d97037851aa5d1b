"""Forward mode: from a program to that of its tangents, statement by statement.

Every symbol that depends on the arguments has a second one, its tangent. Operations entry by entry take the rules of the reverse
mode, which are linear: what an argument gains from a cotangent is what the result gains from that argument's tangent.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.activity import Activity
from adjode.derivation.nodes import Node
from adjode.derivation.rules import gains, make_spread


class Tangents:
    """The tangents of expressions.

    Parameters
    ----------
    block : Block
        What the expressions are part of.
    given : dict of Node
        The tangents of the arguments; of memory that is an argument or the result, too.
    hints : dict of str
        What nodes are called; tangents get names that end in `_dot`.
    memory : set of Node
        The arrays that are written into; their tangents are added.
    """

    def __init__(self, block: P.Block, given: dict[Node, Node], hints: dict[Node, str], memory: set[Node]):
        self.hints, self.memory = hints, memory
        self.active = Activity(block, set(given))
        self.symbols = dict(given)
        self._known: dict[Node, Node | None] = {}

    def of(self, node: Node) -> Node | None:
        """The tangent, of the node's shape; None if it is zero."""
        if node not in self._known:
            self._known[node] = self.calculated(node, lambda other: other)
        return self._known[node]

    def calculated(self, node: Node, value: Callable[[Node], Node]) -> Node | None:
        """The same; `value(node)` is how the value of an operation is had."""
        if node not in self.active:
            return None
        if node.op == "sym":
            return self.symbol(node)
        if node.op in ("load", *N.VIEWS):
            inside = self.of(node.args[0])
            return None if inside is None else N.make(node.op, (inside, *node.args[1:]), "f", node.shape)
        if node.op == "solve":
            dot = self.solved(node, value(node))
        else:
            dot = _OWN[node.op](self, node) if node.op in _OWN else self._entries(node, value)
        if dot is None:
            return None
        if _is_broadcast(dot, node):
            dot = make_spread(dot, node)
        self.hint(dot, node)
        return dot

    def whole(self, node: Node) -> Node:
        """The tangent, also if it is zero."""
        dot = self.of(node)
        if dot is None:
            return make_spread(N.ZERO, node) if node.shape else N.ZERO
        return dot

    def symbol(self, symbol: Node) -> Node:
        if symbol not in self.symbols:
            self.symbols[symbol] = dot = N.symbol("f", symbol.shape)
            self.hint(dot, symbol)
            if symbol in self.memory:
                self.memory.add(dot)
        return self.symbols[symbol]

    def hint(self, dot: Node, node: Node) -> None:
        if node in self.hints and dot.op not in ("const", "named", "load"):
            self.hints.setdefault(dot, f"{self.hints[node]}_dot")

    def _entries(self, node: Node, value: Callable[[Node], Node]) -> Node | None:
        """Of an operation entry by entry."""
        result = None
        for arg in dict.fromkeys(node.nodes):
            dot = self.of(arg)
            if dot is not None:
                for other, gain in gains(node, dot, value):
                    result = _sum(result, gain) if other is arg else result
        return result

    def taught(self, node: Node) -> Node | None:
        """By the user's jvp, if there is one."""
        _, (_, jvp), *args = node.args
        if jvp is None:
            return self._entries(node, lambda other: other)
        dots = [self.of(arg) for arg in args]
        return N.make("taught", (jvp, (None, None), *args, *(N.ZERO if dot is None else dot for dot in dots)), "f")

    def choice(self, node: Node) -> Node | None:
        condition, *sides = node.args
        dots = [self.of(side) for side in sides]
        return None if dots == [None, None] else N.where(condition, *(N.ZERO if dot is None else dot for dot in dots))

    def product(self, node: Node) -> Node | None:
        a, b = node.args
        multiply = N.dot if node.op == "dot" else N.outer
        first, second = self.of(a), self.of(b)
        result = None if first is None else multiply(first, b)
        return result if second is None else _sum(result, multiply(a, second))

    def solved(self, node: Node, y: Node) -> Node | None:
        a, b = map(self.of, node.args)
        right = b if a is None else _sum(b, N.neg(N.dot(a, y)))
        return None if right is None else N.solve(node.args[0], right)

    def total(self, node: Node) -> Node | None:
        inside = self.of(node.args[0])
        return None if inside is None else N.total(inside, node.args[1])

    def spread(self, node: Node) -> Node | None:
        inside = self.of(node.args[0])
        return None if inside is None else make_spread(inside, node.args[1])


_OWN: dict[str, Callable[[Tangents, Node], Node | None]] = {
    "taught": Tangents.taught,
    "where": Tangents.choice,
    "dot": Tangents.product,
    "outer": Tangents.product,
    "sum": Tangents.total,
    "spread": Tangents.spread,
}


def _sum(a: Node | None, b: Node) -> Node:
    """A sum; of two choices that exclude each other, one choice."""
    if a is None:
        return b
    if a.op == b.op == "where" and a.args[0] is b.args[0] and N.is_zero(a.args[2]) and N.is_zero(b.args[1]):
        return N.where(a.args[0], a.args[1], b.args[2])
    return N.add(a, b)


def _is_broadcast(dot: Node, node: Node) -> bool:
    """Whether a tangent has fewer entries than what it belongs to."""
    if len(dot.shape) != len(node.shape):
        return True
    return any(N.value_of(a) == 1 and N.value_of(b) != 1 for a, b in zip(dot.shape, node.shape, strict=True))


class Forward:
    """The program of a block and its tangents; those of memory that is `given` are arguments, which are not made."""

    def __init__(self, block: P.Block, given: dict[Node, Node], hints: dict[Node, str], memory: set[Node]):
        self.source, self.given = block, given
        self.tangents = Tangents(block, given, hints, memory)

    def block(self) -> P.Block:
        return self._block(self.source)

    def _block(self, source: P.Block) -> P.Block:
        result = P.Block()
        for statement in source.statements:
            for made in getattr(self, f"_{type(statement).__name__.lower()}")(statement):
                made.late = statement.late
                result.add(made)
        return result

    def _is_active(self, symbol: Node) -> bool:
        return symbol in self.tangents.active

    def _let(self, statement: P.Let) -> list[P.Statement]:
        symbol, value = statement.symbol, statement.value
        if not self._is_active(symbol):
            return [statement]
        dot = self.tangents.calculated(value, lambda node: symbol if node is value else node)
        return [statement, P.Let(self.tangents.symbol(symbol), self.tangents.whole(value) if dot is None else dot)]

    def _read(self, statement: P.Read) -> list[P.Statement]:
        if not self._is_active(statement.symbol):
            return [statement]
        array = self._memory(statement.array)
        return [statement, P.Read(self.tangents.symbol(statement.symbol), array, statement.indices)]

    def _memory(self, array: Node) -> Node:
        return N.on(array, self.tangents.symbol(N.root(array)))

    def _alloc(self, statement: P.Alloc) -> list[P.Statement]:
        symbol, fill = statement.symbol, statement.fill
        if not self._is_active(symbol):
            return [statement]
        dot = None if fill is None else self.tangents.of(fill) or N.ZERO
        own = self.tangents.symbol(symbol)
        if symbol not in self.given:
            return [P.Alloc(own, dot), statement]
        return [statement] if dot is None else [P.Store(own, (), dot), statement]

    def _store(self, statement: P.Store) -> list[P.Statement]:
        if not self._is_active(N.root(statement.array)):
            return [statement]
        dot = self.tangents.of(statement.value)
        if dot is None and statement.adds:
            return [statement]
        array = self._memory(statement.array)
        return [P.Store(array, statement.indices, N.ZERO if dot is None else dot, statement.adds), statement]

    def _carried(self, carried: list[P.Carried]) -> list[P.Carried]:
        symbol, whole = self.tangents.symbol, self.tangents.whole
        dots = [P.Carried(symbol(c.phi), whole(c.start), whole(c.next), symbol(c.after)) for c in carried if self._is_active(c.phi)]
        return [*carried, *dots]

    def _for(self, s: P.For) -> list[P.Statement]:
        return [P.For(s.index, s.start, s.stop, s.step, self._block(s.body), self._carried(s.carried), s.backwards)]

    def _while(self, s: P.While) -> list[P.Statement]:
        return [P.While(s.condition, self._block(s.body), self._carried(s.carried))]

    def _if(self, s: P.If) -> list[P.Statement]:
        symbol, whole = self.tangents.symbol, self.tangents.whole
        dots = [P.Result(symbol(r.symbol), whole(r.then), whole(r.other)) for r in s.results if self._is_active(r.symbol)]
        return [P.If(s.condition, self._block(s.then), self._block(s.other), [*s.results, *dots])]
