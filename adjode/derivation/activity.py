"""What depends on the arguments that are differentiated by."""

from __future__ import annotations

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.library import STEPS
from adjode.derivation.nodes import Node


class Activity:
    """The symbols that depend on some, through all statements."""

    def __init__(self, block: P.Block, wanted: set[Node]):
        self.symbols = set(wanted)
        self._of: dict[Node, bool] = {}
        while True:
            before = len(self.symbols)
            for statement in block.walk():
                self._spread(statement)
            if len(self.symbols) == before:
                break
            self._of.clear()
        self._of.clear()

    def __contains__(self, node: Node) -> bool:
        """Whether the derivative of a node can differ from zero."""
        if node.kind != "f" or node.deps.isdisjoint(self.symbols):
            return False
        found = self._of.get(node)
        if found is None:
            found = self._of[node] = self._depends(node)
        return found

    def _depends(self, node: Node) -> bool:
        if node.op == "sym":
            return node in self.symbols
        if node.op in ("load", *N.VIEWS):
            return node.args[0] in self
        if node.op == "size" or (node.op == "call" and node.args[0] in STEPS):
            return False
        args = node.nodes[1:] if node.op in ("where",) else node.nodes
        return any(arg in self for arg in args)

    def _mark(self, symbol: Node, *values: Node) -> None:
        if symbol.kind == "f" and any(value in self for value in values):
            self.symbols.add(symbol)

    def _spread(self, statement: P.Statement) -> None:
        if isinstance(statement, P.Let):
            self._mark(statement.symbol, statement.value)
        elif isinstance(statement, P.Read):
            self._mark(statement.symbol, N.root(statement.array))
        elif isinstance(statement, P.Alloc) and statement.fill is not None:
            self._mark(statement.symbol, statement.fill)
        elif isinstance(statement, P.Store):
            self._mark(N.root(statement.array), statement.value)
        elif isinstance(statement, (P.For, P.While)):
            for c in statement.carried:
                self._mark(c.phi, c.start, c.next)
                self._mark(c.after, c.start, c.next)
        elif isinstance(statement, P.If):
            for r in statement.results:
                self._mark(r.symbol, r.then, r.other)
